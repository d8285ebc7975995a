"""Bias against variance in the slope's tangent: beta v_theta + (1 - beta)(e - x), of arXiv 2605.09235, and the exact v.

    python -m toy_experiments.experiments.tangent --seeds 3 --out toy_experiments/results

The target stays e - x. beta = 0 is MF and beta = 1 iMF with the boundary; between them the tangent has some of MF's
noise and some of iMF's error. Small networks, uniform times, a falling learning rate. Writes tangent.csv
and tangent.png.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from imf_lite import losses, training

from ..figures import plots
from ..ground_truth import datasets, decomposition, distances
from ..ground_truth.exact import Checkerboard
from ..tables import RESULTS, write_table
from .runs import Job, loss_summary, map_jobs, one, plane, samples

BETAS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
FIELDS = {"checkerboard": Checkerboard(), "eight_gaussians": datasets.EIGHT}


def mixed(net, z: Tensor, r: Tensor, t: Tensor, cond, n_eq: int, along: Tensor, beta: float) -> Tensor:
    """MF's slope, its tangent e - x mixed with the network's own boundary: beta v_theta + (1 - beta)(e - x)."""
    if beta:
        along = along.lerp(net.velocity(z, t, cond).detach(), beta)
    return losses.slope(net, z, r, t, cond, n_eq, along)


def exact(net, z: Tensor, r: Tensor, t: Tensor, cond, n_eq: int, along: Tensor, points: str) -> Tensor:
    """The slope along the exact marginal velocity of a point set: no noise, no error of v_theta."""
    return losses.slope(net, z, r, t, cond, n_eq, FIELDS[points].v(z, t))


def small(**changes):
    """MF's network, which is iMF's with the boundary, small enough for 42 runs: under a quarter of an hour."""
    size = {"net.width": 64, "net.depth": 3, "draws.times": "uniform", "lr": 2e-3, "decay": "linear"}
    return plane("mf", **(size | changes))


def slopes(points: str) -> dict[str | float, Callable]:
    """Every slope of the sweep, by its beta, and the exact one."""
    return {**{b: partial(mixed, beta=b) for b in BETAS}, "exact": partial(exact, points=points)}


def reduce(job: Job, out: Path) -> dict:
    """A run as a row: its raw loss, samples in one and two steps, and its gradient's errors where it ended."""
    held_out = datasets.load(job.points).held_out.x
    errors = decomposition.tangent_errors(
        training.load_network(out, "cpu"), FIELDS[job.points], datasets.load(job.points).train.x
    )
    return {
        **loss_summary([r["raw_u_neq"] for r in training.read_metrics(out)]),
        **{f"sw{k}": distances.sliced_wasserstein(samples(out, steps=k), held_out) for k in (1, 2)},
        **errors,
    }


def main(
    seeds: int = 3, steps: int = 400, out: Path = RESULTS, runs: Path = Path("runs/plane"), workers: int = 2
) -> None:
    """Train every slope on both point sets; write tangent.csv.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
        workers: processes.
    """
    jobs = [
        Job({"set": s, "beta": b, "seed": k}, s, small(seed=k, steps=steps), slope)
        for k in range(seeds)
        for s in FIELDS
        for b, slope in slopes(s).items()
    ]
    rows = map_jobs(one, jobs, runs / f"tangent-{steps}", reduce, workers=workers)
    floors = {s: distances.floor(s)[0] for s in FIELDS}
    write_table(out / "tangent.csv", [row | {"floor": floors[row["set"]]} for row in rows])
    figure(rows).savefig(out / "tangent.png")
    print(out / "tangent.csv")


def figure(rows: list[dict]) -> Figure:
    """Against beta, one row per point set: spread of the loss, gradient's bias and variance, distance in one step."""
    plots.style()
    fig, axes = plt.subplots(len(FIELDS), 3, figsize=(8.4, 2.1 * len(FIELDS)), sharex=True)
    for line, name in zip(axes, FIELDS, strict=True):
        groups = [[r for r in rows if r["set"] == name and r["beta"] == b] for b in (*BETAS, "exact")]
        errors = [[decomposition.at_beta(r, r["beta"]) for r in group] for group in groups[:-1]]  # (beta, seed, 2)
        panels = [[[r[c] for r in group] for group in groups] for c in ("spread", "sw1")]
        for ax, values in zip(line[[0, 2]], panels, strict=True):
            dots(ax, values[:-1], "#444444")
            ax.plot([len(BETAS)] * len(values[-1]), values[-1], "D", ms=4, mfc="none", color=plots.COLORS["data"])
        for k, color, label in ((0, plots.OTHER[0], "bias²"), (1, plots.OTHER[1], "variance")):
            values = [[e[k] for e in seeds] for seeds in errors]
            dots(line[1], values, color)
            line[1].annotate(
                label, (len(values) - 1, np.median(values[-1])), (5, 0), textcoords="offset points", color=color,
                va="center", annotation_clip=False,
            )  # fmt: skip
        line[0].set_ylabel(name.replace("_", " "))
        line[1].set_yscale("symlog", linthresh=0.01)
    for ax, title in zip(axes[0], ("spread of the raw loss", "gradient's error", "distance, one step"), strict=True):
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xticks(range(len(BETAS) + 1), [f"{b:g}" for b in BETAS] + ["exact\n$v$"])
        ax.set_xlabel(r"$\beta$ (0 is MF, 1 is iMF)")
    return fig


def dots(ax: plt.Axes, values: list[list[float]], color: str) -> None:
    """One dot per seed at every position, and a line through the medians."""
    for position, many in enumerate(values):
        ax.plot([position] * len(many), many, "o", ms=3, color=color, alpha=0.6)
    ax.plot(range(len(values)), [np.median(many) for many in values], color=color, lw=1)


if __name__ == "__main__":
    tyro.cli(main)
