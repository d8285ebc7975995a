"""MF, iMF and their relatives on the same draws: in the plane, and on the digits.

    python -m toy_experiments.experiments.family --out toy_experiments/results     (make family)

Every method has MF's network, initial weights, data order, times and noise, and the same number of updates (iMF's
v-head is a small branch beside them). Writes family.csv: raw loss, its spread, seconds, sample quality.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from imf_lite import data, recipes, training
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.recipes import Recipe, override

from ..ground_truth import datasets, distances
from ..tables import RESULTS, write_table
from .runs import Job, loss_summary, map_jobs, one, plane, samples

MIXED, CHORD, SPLIT = {"derivative": "mixed"}, {"derivative": "chord"}, {"derivative": "split"}
METHODS: dict[str, tuple[str, dict]] = {
    "flow matching": ("fm", {}),
    "MF": ("mf", {}),
    "iMF, boundary": ("boundary", {}),
    "iMF, v-head": ("head", {}),
    "mixed tangent, β = 0.9": ("mf", MIXED | {"derivative_share": 0.9}),
    "α-Flow, α = 0.5": ("mf", CHORD | {"derivative_share": 0.5}),
    "α-Flow, α = 0.1": ("mf", CHORD | {"derivative_share": 0.1}),
    "SplitMeanFlow": ("mf", SPLIT),
    "SplitMeanFlow, plain L2": ("mf", SPLIT | {"p": 0.0}),
    "consistency training": ("mf", CHORD | {"derivative_share": 0.1, "draws.r_zero": True}),
}
"""the variant of MF or iMF that each begins from, and what it changes; in the plane all have plain L2 anyway"""
PLACES = ("eight_gaussians", "checkerboard", "digits")
DIGITS = {"fm": "digits_fm", "mf": "digits_mf", "boundary": "digits_imf_boundary", "head": "digits_imf"}


def recipe(method: str, place: str, seed: int, steps: int) -> Recipe:
    """A method's run at a place; it differs from MF's there in what METHODS names."""
    variant, changes = METHODS[method]
    if place == "digits":
        return override(recipes.get(DIGITS[variant], seed=seed, steps=steps), changes)
    small = {"net.width": 96, "net.depth": 3, "draws.times": "uniform", "lr": 2e-3, "decay": "linear"}
    return plane(variant, **(small | {"seed": seed, "steps": steps} | changes))


def run(job: Job, folder: Path) -> dict:
    """Train a job (a finished run is taken as it is) and reduce it to a row."""
    if job.points != "digits":
        return one(job, folder, reduce_plane)
    torch.set_num_threads(1)
    out = folder / job.name
    for _ in training.train(job.recipe, out, device="cpu"):
        pass
    evaluator, net = Evaluator(data.load("digits")), training.load_network(out, "cpu")
    row = {**job.keys, **summary(out)}
    for nfe in (1, 2, 4):
        score = evaluator(net, nfe, seed=job.recipe.seed, sampler=training.sampler_of(out))
        row |= {f"error{nfe}": score["fid"], f"recall{nfe}": score["recall"]}
    return {**row, "code": training.fingerprint(), "floor": evaluator.floor(1000)["fid"]}


def reduce_plane(job: Job, out: Path) -> dict:
    """Loss, and the sliced Wasserstein distance of samples in 1, 2 and 4 steps."""
    held_out = datasets.load(job.points).held_out.x
    row = summary(out)
    for nfe in (1, 2, 4):
        error = distances.sliced_wasserstein(samples(out, steps=nfe), held_out)
        row |= {f"error{nfe}": error, f"recall{nfe}": None}
    return row


def summary(out: Path) -> dict:
    """The raw u-loss of a run, on rows with r < t where there are any."""
    records = training.read_metrics(out)
    raw = [r["raw_u_eq"] if r["raw_u_neq"] is None else r["raw_u_neq"] for r in records]
    return {**loss_summary(raw), "seconds": records[-1]["seconds"]}


def main(
    seeds: int = 3, steps: int = 800, digits_steps: int = 800, out: Path = RESULTS, runs: Path = Path("runs/family"),
    workers: int = 2,
) -> None:  # fmt: skip
    """Train every method at every place; write family.csv. Interrupted, it resumes.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run in the plane.
        digits_steps: updates of each run on the digits.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
        workers: processes.
    """
    jobs = [
        Job({"place": place, "method": method, "seed": k}, place,
            recipe(method, place, k, digits_steps if place == "digits" else steps))
        for k in range(seeds) for place in PLACES for method in METHODS
        if place == "digits" or "plain L2" not in method
    ]  # fmt: skip
    rows = map_jobs(run, jobs, runs / f"{steps}-{digits_steps}", workers=workers)
    floors = {place: distances.floor(place)[0] for place in PLACES if place != "digits"}
    write_table(out / "family.csv", [{"floor": floors.get(row["place"])} | row for row in rows])
    print(out / "family.csv")


if __name__ == "__main__":
    tyro.cli(main)
