"""MF and iMF on the real digits, 64 dimensions, several seeds: stability, and one-step FID.

    python -m toy_experiments.experiments.digits --seeds 3 --out toy_experiments/results

The runs of the quickstart, with the boundary variant beside them. Writes digits.csv and digits.npz (curves).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from imf_lite import data, recipes, training
from imf_lite.evaluation.evaluator import Evaluator

from ..figures import plots
from ..tables import RESULTS, write_table
from .runs import loss_summary, map_jobs, thinned

VARIANTS = {"mf": "digits_mf", "boundary": "digits_imf_boundary", "head": "digits_imf", "fm": "digits_fm"}


def run(job: tuple[str, int], steps: int, folder: Path) -> dict:
    """Train one variant (a finished run is taken as it is) and reduce it to a row."""
    torch.set_num_threads(1)
    variant, seed = job
    recipe, out = recipes.get(VARIANTS[variant], seed=seed, steps=steps), folder / f"{variant}-{seed}"
    for _ in training.train(recipe, out, device="cpu"):
        pass
    evaluator, net, records = (
        Evaluator(data.load("digits")),
        training.load_network(out, "cpu"),
        training.read_metrics(out),
    )
    raw = [r["raw_u_eq"] if r["raw_u_neq"] is None else r["raw_u_neq"] for r in records]
    row = {"variant": variant, "seed": seed, **loss_summary(raw), "seconds": records[-1]["seconds"]}
    for nfe in (1, 2, 4, 64):
        score = evaluator(net, nfe, seed=seed, sampler=training.sampler_of(out))
        row |= {f"fid{nfe}": score["fid"], f"recall{nfe}": score["recall"], f"agreement{nfe}": score["agreement"]}
    return {**row, "floor": evaluator.floor(1000)["fid"], "code": training.fingerprint()}


def main(seeds: int = 3, steps: int = 2000, out: Path = RESULTS, runs: Path = Path("runs/digits")) -> None:
    """Train FM, MF and iMF (boundary and v-head) with each seed; write table and curves.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
    """
    folder, jobs = runs / str(steps), list(itertools.product(VARIANTS, range(seeds)))
    rows = map_jobs(run, jobs, steps, folder)
    write_table(out / "digits.csv", rows)
    curves = {}
    for variant, seed in jobs:
        records = training.read_metrics(folder / f"{variant}-{seed}")
        if variant != "fm":
            curves[f"{variant}-{seed}"] = thinned([r["raw_u_neq"] for r in records]).astype(np.float32)
    np.savez_compressed(out / "digits.npz", **curves)
    figure(curves, steps).savefig(out / "digits.png")
    print(out / "digits.csv")


def figure(curves: dict[str, np.ndarray], steps: int = 2000) -> Figure:
    """Raw loss against updates, MF and iMF (v-head): seeds thin, their median thick."""
    plots.style()
    fig, ax = plt.subplots(figsize=(4.8, 2.8))
    for variant, method in (("mf", "mf"), ("head", "imf")):
        many = np.array([curve for name, curve in curves.items() if name.startswith(f"{variant}-")])
        if len(many):
            plots.seeds(ax, np.linspace(0, steps, many.shape[1]), many[:, :, 0], method, many[:, :, 1])
    ax.set(yscale="log", ylim=(15, 110), yticks=[20, 50, 100], yticklabels=[20, 50, 100])
    ax.set(xlabel="update", ylabel="raw loss, rows with $r < t$")
    ax.minorticks_off()
    ax.set_title("64 dimensions: seeds thin, their median thick")
    return fig


if __name__ == "__main__":
    tyro.cli(main)
