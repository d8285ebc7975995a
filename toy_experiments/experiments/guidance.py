"""Guidance in the plane and on the digits: one iMF network for every scale.

    python -m toy_experiments.experiments.guidance --seeds 3 --out toy_experiments/results

In the plane the guided flow is known exactly. Writes guidance-plane.csv (one row per seed, scale and number of
evaluations) and the network of seed 0, guidance-plane.npz. On the digits one iMF network is compared with one MF
network per scale; all have the same u-path, data order, draws and number of updates. Writes guidance.csv: one row per
network, seed, scale, interval and half of the noise ("choose" picks a setting, "report" is quoted).
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from imf_lite import data, recipes, training
from imf_lite.conditions import Cond
from imf_lite.configs import Fixed
from imf_lite.data.images import to_uint8
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.networks import Network, build
from imf_lite.recipes import Recipe, counterpart
from imf_lite.sampling import generate, sample
from imf_lite.system.rng import stream

from ..ground_truth.datasets import THREE_CLASSES, load_classes
from ..ground_truth.distances import sliced_wasserstein
from ..ground_truth.exact import runge_kutta
from ..ground_truth.streams import ToyStream
from ..tables import RESULTS, write_table
from .runs import map_jobs, plane_guided

OMEGAS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
INTERVALS = ((0.0, 1.0), (0.0, 0.6), (0.4, 0.65))
"""all times; the half nearer to the data; iMF-B/2's published one"""
FIXED = (1.5, 2.0, 4.0)
"""scales for which an MF network is trained"""
HALVES = {"choose": 1000, "report": 0}
"""offset of the noise's seed"""
PLANE_OMEGAS = (1.0, 2.0, 4.0, 8.0)
PLANE_N = 6000


def exact_samples(e: Tensor, y: Tensor, omega: float, steps: int = 100) -> Tensor:
    """Where the exact guided flow of the three classes carries noise e (B, 2), for labels y (B,): (B, 2)."""

    def field(z: Tensor, t: Tensor) -> Tensor:
        return THREE_CLASSES.guided_v(z, t, y, omega)

    one = torch.ones(len(e), 1, dtype=torch.float64)
    return runge_kutta(field, e.double(), 0 * one, one, steps)[-1].float()


def summary(x: Tensor, y: Tensor) -> dict[str, float]:
    """For points x (B, 2) with labels y (B,): their mean along their class's axis, where the class's own mean lies at
    1, and their spread, the root of the summed variances within a class."""
    along = (x * THREE_CLASSES.means[y]).sum(1).mean()
    variance = torch.stack([x[y == c].var(0).sum() for c in range(len(THREE_CLASSES.means))]).mean()
    return {"along": float(along), "spread": float(variance.sqrt())}


def classwise_distance(a: Tensor, b: Tensor, y: Tensor) -> float:
    """Sliced Wasserstein distance of two point sets (B, 2) with the same labels y (B,), averaged over the classes."""
    distances = [sliced_wasserstein(a[y == c], b[y == c]) for c in y.unique()]
    return sum(distances) / len(distances)


@torch.no_grad()
def field_errors(net, omega: float, seed: int = 0) -> dict[str, float]:
    """Errors of the predicted velocities v_u (no class) and v_c (guided), on z_t of the data and t uniform.

    error_u, error_c: root mean square distances to the exact fields. carried: the coefficient of v_u's error in v_c's,
    by least squares; a network that has otherwise converged has 1 - omega.
    """
    g, n = stream("cpu", ToyStream.FIELD, seed), PLANE_N
    x, y = THREE_CLASSES.labelled(n, g)
    t = torch.rand(n, 1, generator=g)
    z = (1 - t) * x + t * torch.randn(n, 2, generator=g)
    one, null = torch.ones(n), torch.full((n,), len(THREE_CLASSES.means))
    off_u = net.velocity(z, t, Cond(null, one, 0 * one, one)) - THREE_CLASSES.v(z, t)
    off_c = net.velocity(z, t, Cond(y, omega * one, 0 * one, one)) - THREE_CLASSES.guided_v(z, t, y, omega)
    rms = {name: float(d.square().sum(1).mean().sqrt()) for name, d in (("error_u", off_u), ("error_c", off_c))}
    return rms | {"carried": float((off_c * off_u).sum() / off_u.square().sum())}


def measure_plane(net, seed: int = 0) -> list[dict]:
    """A guided network of the plane against the exact guided flow: one row per scale and number of evaluations.

    distance and floor are sliced Wasserstein distances within a class, of the network's and of exact samples to exact
    samples from other noise; rms is the distance between the ends of equal noise.
    """
    e, other = (torch.randn(PLANE_N, 2, generator=stream("cpu", ToyStream.STARTS, seed, k)) for k in (0, 1))
    y = torch.arange(PLANE_N) % len(THREE_CLASSES.means)
    rows = []
    for omega in PLANE_OMEGAS:
        truth, reference = (exact_samples(noise, y, omega) for noise in (e, other))
        known = {f"exact_{k}": v for k, v in summary(truth, y).items()} | field_errors(net, omega, seed)
        known |= {"floor": classwise_distance(truth, reference, y)}
        for nfe in (1, 4):
            x = sample(net, e, y, nfe, omega)
            row = {"omega": omega, "nfe": nfe, **summary(x, y), "distance": classwise_distance(x, reference, y)}
            rows.append(row | {"rms": float((x - truth).square().sum(1).mean().sqrt())} | known)
    return rows


def run_plane(seed: int, steps: int, folder: Path) -> list[dict]:
    """Train the guided network of the plane, keep it as half-precision numbers, and measure what is kept."""
    torch.set_num_threads(1)
    out = folder / f"plane-{seed}"
    for _ in training.train(
        plane_guided(seed=seed, steps=steps),
        out,
        load_classes(seed=seed),
        "cpu",
        compile="whole" if steps >= 500 else "no",
    ):
        pass
    arrays = {k: v.half().numpy() for k, v in training.load_network(out, "cpu").state_dict().items()}
    np.savez_compressed(out / "kept.npz", **arrays)
    known = {"seed": seed, "updates": steps, "seconds": training.read_metrics(out)[-1]["seconds"]}
    return [
        {**known, **row, "code": training.fingerprint()} for row in measure_plane(plane_net(out / "kept.npz"), seed)
    ]


def plane_net(path: Path = RESULTS / "guidance-plane.npz") -> Network:
    """The guided network of the plane that `run_plane` kept: points (B, 2), three classes, omega and interval."""
    net = build(plane_guided().net, (2,), len(THREE_CLASSES.means))
    with np.load(path) as arrays:
        net.load_state_dict({k: torch.from_numpy(v).float() for k, v in arrays.items()})
    return net.eval().requires_grad_(False)


def recipe(network: str, seed: int = 0, steps: int = 2000) -> Recipe:
    """The run behind a network: "imf", or "mf 2.0" for MF with that scale baked in."""
    guided = recipes.get("digits_guided", seed=seed, steps=steps)
    if network == "imf":
        return guided
    return counterpart(guided, "mf", guidance=Fixed(omega=float(network.split()[1])))


def run(job: tuple[int, str], steps: int, folder: Path) -> list[dict]:
    """Train one network (a finished run is taken as it is) and measure it at every setting that it takes."""
    torch.set_num_threads(1)
    seed, network = job
    out = folder / f"{network.replace(' ', '-')}-{seed}"
    for _ in training.train(recipe(network, seed, steps), out, device="cpu"):
        pass
    evaluator, net = Evaluator(data.load("digits")), training.load_network(out, "cpu")
    known = {"network": network, "seed": seed, "seconds": training.read_metrics(out)[-1]["seconds"]}
    settings = itertools.product(OMEGAS, INTERVALS) if net.guided != "no" else [(None, None)]
    rows = []
    for (omega, interval), (half, offset) in itertools.product(settings, HALVES.items()):
        score = evaluator(net, 1, seed=seed + offset, omega=omega, interval=interval)
        t_min, t_max = interval or (0.0, 1.0)
        row = {"omega": omega or float(network.split()[1]), "t_min": t_min, "t_max": t_max, "half": half}
        row |= {k: score[k] for k in ("fid", "precision", "recall", "log_prob", "agreement")}
        row["spread"] = class_spread(*generate(net, 1000, 1, seed + offset, omega=omega, interval=interval))
        rows.append({**known, **row, "floor": evaluator.floor(1000)["fid"], "code": training.fingerprint()})
    return rows


def class_spread(x: Tensor, y: Tensor) -> float:
    """Diversity within a class: RMS distance of images (N, ...) from the mean of their class, in grey levels."""
    pixels = to_uint8(x).flatten(1).float()
    squares = [(pixels[y == c] - pixels[y == c].mean(0)).square().mean() for c in y.unique()]
    return float(torch.stack(squares).mean().sqrt())


def main(
    seeds: int = 3,
    steps: int = 2000,
    out: Path = RESULTS,
    runs: Path = Path("runs/guidance"),
    plane_steps: int | None = None,
    parts: tuple[Literal["plane", "digits"], ...] = ("plane", "digits"),
    workers: int = 2,
) -> None:
    """Train one guided network in the plane, and one guided iMF and three MF networks on the digits, with each seed.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run on the digits.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
        plane_steps: updates of each run in the plane; default: four times as many as on the digits.
        parts: which of the two tables to write.
        workers: runs at a time.
    """
    if "plane" in parts:
        plane_steps = plane_steps or 4 * steps
        folder = runs / str(plane_steps)
        results = map_jobs(run_plane, range(seeds), plane_steps, folder, workers=workers)
        write(out / "guidance-plane.csv", results)
        shutil.copyfile(folder / "plane-0" / "kept.npz", out / "guidance-plane.npz")
    if "digits" in parts:
        jobs = list(itertools.product(range(seeds), ("imf", *(f"mf {w}" for w in FIXED))))
        write(out / "guidance.csv", map_jobs(run, jobs, steps, runs / str(steps), workers=workers))


def write(path: Path, results: Iterable[list[dict]]) -> None:
    """The rows of all runs as one table."""
    write_table(path, list(itertools.chain(*results)))
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
