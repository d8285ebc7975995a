"""Does it matter how often training looks at the corner (t, r) = (1, 0), which is all that one step uses?

    python -m toy_experiments.experiments.times --out toy_experiments/results

iMF (v-head) on the digits and on eight Gaussians; varied are the width `p_std` of the logit-normal times and
the share of rows with uniform times. Writes times.csv, one row per run. `score` is the one-step FID (n = 1,000)
on the digits and the one-step sliced Wasserstein distance in the plane, where `corner` and `bulk` are the
relative errors of u against the exact field, at (1, 0) and at the times that the baseline draws.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import torch
import tyro
from torch import Tensor

from imf_lite import data, recipes, training
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig
from imf_lite.draws import draw
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.networks import Network
from imf_lite.system.rng import stream
from imf_lite.training import checkpoint

from ..ground_truth import datasets, distances
from ..ground_truth.streams import ToyStream
from ..tables import RESULTS, write_table
from .runs import Job, map_jobs, plane, samples

SETTINGS = {
    "eight_gaussians": [("p_std", 0.5), ("p_std", 1.0), ("p_std", 1.6), ("uniform_share", 0.1), ("uniform_share", 1.0)],
    "digits": [("p_std", 1.0), ("p_std", 1.6), ("uniform_share", 0.1)],
}
"""knob and value by data set; the baseline is p_std 1.0, with no uniform times"""
EARLY, LATE = 0.05, 0.95
"""the corner: r < EARLY and t > LATE"""


def jobs(seeds: int, digits: int, points: int) -> list[Job]:
    """Every run; the seeds outermost, so that an interrupted sweep holds whole rounds."""
    every = []
    for seed, name in product(range(seeds), SETTINGS):
        for knob, value in SETTINGS[name]:
            changes = {"seed": seed, f"draws.{knob}": value}
            if name == "digits":
                recipe = recipes.get("digits_imf", **{"steps": digits} | changes)
            else:
                recipe = plane("head", **{"steps": points} | changes)
            every.append(Job({"data": name, "knob": knob, "value": value, "seed": seed}, name, recipe))
    return every


def corner_rows(config: DrawConfig, rows: int = 128_000, seed: int = 0) -> int:
    """How many of `rows` rows with r < t are drawn with t > 0.95 and r < 0.05."""
    d = draw(torch.zeros(round(rows / config.p_r_neq_t), 1), None, config, stream("cpu", ToyStream.CORNER, seed))
    return int(((d.t > LATE) & (d.r < EARLY))[d.n_eq :].sum())


@cache
def exact_places(n: int = 1000) -> dict[str, tuple[Tensor, ...]]:
    """Points z, times r, t and the exact u on eight Gaussians: at the corner, and at the baseline's times (r < t)."""
    g = stream("cpu", ToyStream.PLACES, 0)
    d = draw(datasets.EIGHT.sample(n, g), None, DrawConfig(p_r_neq_t=1.0), g)
    places = {"corner": (d.e, 0 * d.t, 0 * d.t + 1), "bulk": ((1 - d.t) * d.x + d.t * d.e, d.r, d.t)}
    return {name: (*place, datasets.EIGHT.u(*place, steps=50)) for name, place in places.items()}


@torch.no_grad()
def u_errors(net: Network) -> dict[str, float]:
    """Root-mean-square error of u relative to the exact u, at each of `exact_places`."""
    found = {}
    for name, (*place, exact) in exact_places().items():
        found[name] = float((net.u(*place, Cond()) - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    return found


@cache
def evaluator() -> Evaluator:
    """The evaluator of the digits, made once per process: it keeps the floor."""
    return Evaluator(data.load("digits"))


@cache
def floor(points: str) -> float:
    """The distance of real points from real points, computed once per process."""
    return distances.floor(points)[0]


def last_weights(out: Path) -> Network:
    """The network as trained, not its average: the learning rate has decayed to zero, so none is needed.

    After 500 updates an average of decay 0.995 is still 8 % the initial weights, which would dominate the FID.
    """
    net = training.load_network(out, "cpu")
    tensors, _ = checkpoint.load(checkpoint.latest(out / "checkpoints"))
    net.load_state_dict({k.removeprefix("net/"): v for k, v in tensors.items() if k.startswith("net/")})
    return net


def run(job: Job, folder: Path) -> dict:
    """Train one job (a finished run is taken as it is) and reduce it to a row."""
    torch.set_num_threads(1)
    out, on_digits = folder / job.name, job.points == "digits"
    source = data.load("digits") if on_digits else datasets.load(job.points)
    for _ in training.train(job.recipe, out, source, "cpu"):
        pass
    row = {**job.keys, "steps": job.recipe.steps, "rows_in_corner": corner_rows(job.recipe.draws)}
    if on_digits:
        score = evaluator()(last_weights(out), 1, seed=job.keys["seed"])
        row |= {"score": score["fid"], "floor": score["floor"]["fid"], "recall": score["recall"]}
        row |= {"corner": None, "bulk": None}
    else:
        distance = distances.sliced_wasserstein(samples(out), source.held_out.x)
        row |= {"score": distance, "floor": floor(job.points), "recall": None}
        row |= u_errors(training.load_network(out, "cpu"))
    return {**row, "code": training.fingerprint()}


def main(
    seeds: int = 3, digits: int = 500, points: int = 500, workers: int = 1,
    out: Path = RESULTS, runs: Path = Path("runs/times"),
) -> None:  # fmt: skip
    """Train every setting with each seed; write times.csv. About twenty minutes on one slow core.

    Args:
        seeds: number of seeds, 0, 1, ...
        digits: updates of each run on the digits.
        points: updates of each run in the plane.
        workers: how many runs at a time.
        out: folder of the table.
        runs: folder of the runs; what is finished there is not trained again.
    """
    every = jobs(seeds, digits, points)
    write_table(out / "times.csv", map_jobs(run, every, runs / f"{digits}-{points}", workers=workers))
    print(out / "times.csv")


if __name__ == "__main__":
    tyro.cli(main)
