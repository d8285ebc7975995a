"""What should a network predict, u or the image? In the plane inside D dimensions, and on Fashion-MNIST's pixels.

    python -m toy_experiments.experiments.pixels --out toy_experiments/results     (make pixels)

The plane: eight Gaussians in two dimensions, carried into D by a random orthonormal map, so that the truth is known:
how far samples are from it inside the plane, and how far from the plane. Fashion-MNIST: the recipes fashion_pixels*,
scored in the features and by the protocol of fashion.py. Writes pixels-plane.csv, pixels.csv, pixels-curves.csv and
pixels.npz. Interrupted, it resumes; what is trained is not trained again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from imf_lite import recipes, training
from imf_lite.data import Data, Split
from imf_lite.data.fashion import load_images as fashion_images
from imf_lite.data.images import to_uint8
from imf_lite.pretrained import weights
from imf_lite.sampling import generate
from imf_lite.system.paths import pretrained_folder
from imf_lite.system.rng import stream

from ..ground_truth import datasets, distances
from ..ground_truth.streams import ToyStream
from ..tables import RESULTS, write_table
from . import trainings
from .runs import Job, curve, loss_summary, map_jobs, merged, plane

DIMS = (2, 8, 32, 128)
POINTS = "eight_gaussians"
TRAININGS = {"fashion_pixels": 2, "fashion_pixels_u": 2}
"""how often each recipe is trained, by seeds 0, 1, ..."""
SHIPPED = "fashion_pixels"
SHOWN, CURVE_EVERY = 8, 1000


def frame(dims: int) -> Tensor:
    """A random orthonormal map from the plane into D dimensions, (D, 2), fixed by D."""
    return torch.linalg.qr(torch.randn(dims, 2, generator=stream("cpu", ToyStream.FRAME, dims)))[0]


def embedded(flat: Data, dims: int) -> Data:
    """Points of the plane in D dimensions."""
    return Data(Split(flat.train.x @ frame(dims).T, None), None, None)


def plane_recipe(predict: str, seed: int, steps: int) -> recipes.Recipe:
    """One network for every D: only its first and last layer know D."""
    changes = {"net.predict": predict, "net.width": 96, "net.depth": 4, "lr": 2e-3, "decay": "linear"}
    return plane("head", seed=seed, steps=steps, **changes)


def run_plane(job: Job, folder: Path) -> dict:
    """Train a job and measure it against the truth."""
    torch.set_num_threads(1)
    dims, out, flat = int(job.keys["dims"]), folder / job.name, datasets.load(POINTS)
    for _ in training.train(job.recipe, out, embedded(flat, dims), "cpu"):
        pass
    net, real = training.load_network(out, "cpu"), flat.held_out
    x, _ = generate(net, len(real), seed=0, batch=len(real))
    inside = x @ frame(dims)
    off = (x - inside @ frame(dims).T).square().sum(1).mean().sqrt()
    raw = [r["raw_u_neq"] for r in training.read_metrics(out)]
    row = {"distance": distances.sliced_wasserstein(inside, real.x), "off_plane": float(off), **loss_summary(raw)}
    return {**job.keys, **row, "code": training.fingerprint()}


def run_fashion(job: tuple[str, int], work: Path, steps: int | None) -> list[dict]:
    """Train a recipe by one seed, keep its averaged weights as fp16, and score them: rows of the table."""
    name, seed = job
    recipe = recipes.get(name, seed=seed, **({"steps": steps} if steps else {}))
    out = work / f"{name}-{seed}"
    kept, ships = out.with_name(f"{out.name}-weights"), pretrained_folder("fashion")
    net, evaluator = trainings.trained(recipe, out, kept, ships, CURVE_EVERY)
    rows = trainings.scores(name, recipe, net, evaluator, out)
    return [{"training": seed, **row} for row in rows if row["half"] == "report"]


def arrays(work: Path, jobs: list[tuple[str, int]]) -> dict[str, np.ndarray]:
    """For the lesson: samples of every training from the same noise, the courses of the raw losses, and a test image
    of every class."""
    images, y = fashion_images("test")
    kept = {"test": images[[int((y == k).nonzero()[0, 0]) for k in range(10)]].numpy()}
    for name, seed in jobs:
        net = weights.load(work / f"{name}-{seed}-weights")
        omega = 2.0 if net.guided != "no" else None
        kept[f"samples_{name}_{seed}"] = to_uint8(generate(net, 10 * SHOWN, omega=omega)[0]).numpy()
        records = training.read_metrics(work / f"{name}-{seed}")
        kept[f"raw_{name}_{seed}"] = np.array([r["raw_u_neq"] for r in records], np.float32)
    return kept


def main(
    seeds: int = 3, plane_steps: int = 1500, only: tuple[str, ...] = tuple(TRAININGS), which: tuple[int, ...] = (0, 1),
    steps: int | None = None, out: Path = RESULTS, work: Path = Path("runs/pixels"), ship: Path | None = None,
    workers: int = 2,
) -> None:  # fmt: skip
    """Run both experiments and write the tables; rows of trainings that are not asked for stay as they are.

    Args:
        seeds: trainings in the plane for every D; 0: leave the plane out.
        plane_steps: updates of each of them.
        only: recipes of Fashion-MNIST to train.
        which: seeds of those trainings, of as many as each recipe is meant to have.
        steps: updates of each of them; default: the recipe's.
        out: folder of the results.
        work: folder of the runs.
        ship: folder to which the first training of fashion_pixels is copied; default: what ships with the package, or
            nothing if steps is given.
        workers: processes.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job({"dims": dims, "predict": predict, "seed": k}, POINTS, plane_recipe(predict, k, plane_steps))
        for k in range(seeds) for dims in DIMS for predict in ("u", "x")
    ]  # fmt: skip
    if jobs:
        floor, rows = (
            distances.floor(POINTS)[0],
            map_jobs(run_plane, jobs, work / f"plane-{plane_steps}", workers=workers),
        )
        write_table(out / "pixels-plane.csv", [row | {"floor": floor} for row in rows])
    planned = [(name, k) for k in which for name in only if k < TRAININGS[name]]
    if not planned:
        return
    scored = map_jobs(run_fashion, planned, work, steps, workers=workers)
    write_table(
        out / "pixels.csv", merged(out / "pixels.csv", [r for rows in scored for r in rows], ("network", "training"))
    )
    courses = [{"training": k, **row} for name, k in planned for row in curve(name, work / f"{name}-{k}")]
    write_table(out / "pixels-curves.csv", merged(out / "pixels-curves.csv", courses, ("network", "training")))
    before = dict(np.load(out / "pixels.npz")) if (out / "pixels.npz").exists() else {}
    np.savez_compressed(out / "pixels.npz", **before | arrays(work, planned))
    if ship is None and steps is None:
        ship = pretrained_folder("fashion") / "networks" / SHIPPED
    if ship is not None and (SHIPPED, 0) in planned:
        shutil.copytree(work / f"{SHIPPED}-0-weights", ship, dirs_exist_ok=True)


if __name__ == "__main__":
    tyro.cli(main)
