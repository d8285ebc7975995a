"""What breaks it: one knob at a time, MF beside iMF (v-head), on eight Gaussians.

    python -m toy_experiments.experiments.knobs --seeds 2 --out toy_experiments/results

Knobs: distribution of the times x width of the modes; share of rows with r < t; adaptive weight;
wrong slopes; learning rate; long runs of one seed. Writes knobs.csv, one row per run: `updates` below the number
asked for and an empty `sw1` mean that training stopped at a gradient that was not finite.
"""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from imf_lite import losses, training

from ..figures import plots
from ..ground_truth import datasets, distances
from ..tables import RESULTS, write_table
from .runs import Job, loss_summary, plane, samples, sweep


def no_stop_gradient(net, z, r, t, cond, n_eq, along):
    """The slope with its gradient left on: what both papers stop."""
    return losses.slope.__wrapped__(net, z, r, t, cond, n_eq, along)


def frozen_time(net, z, r, t, cond, n_eq, along):
    """A slope that forgets that t moves, too: tangent (v, 0, 0)."""
    still = losses.slope(net, z, r, t, cond, n_eq, torch.zeros_like(along))  # the part that comes from t
    return losses.slope(net, z, r, t, cond, n_eq, along) - still


def moving_r(net, z, r, t, cond, n_eq, along):
    """A slope in which r moves along: tangent (v, 1, 1), so that the interval keeps its length."""
    rows = slice(n_eq, None)
    tangent = (along[rows], torch.ones_like(r[rows]), torch.ones_like(t[rows]))
    with torch.no_grad():
        _, du = torch.func.jvp(lambda z, r, t: net.u(z, r, t, cond.rows(rows)), (z[rows], r[rows], t[rows]), tangent)
    return torch.cat([torch.zeros_like(z[:n_eq]), du])


SLOPES = {"gradient not stopped": no_stop_gradient, "t does not move": frozen_time, "r moves along": moving_r}
WIDTHS = {0.05: "eight_gaussians_narrow", 0.1: "eight_gaussians", 0.2: "eight_gaussians_wide"}
BASELINE = ("p_r_neq_t", 0.5)
"""the setting at which nothing is changed"""


def jobs(seeds: int, steps: int) -> list[Job]:
    """Every run: knob and value, then method and seed."""
    every = []

    def add(knob: str, value, points: str = "eight_gaussians", slope=losses.slope, repeat: int = seeds, **changes):
        for variant, seed in product(("mf", "head"), range(repeat)):
            recipe = plane(variant, **({"steps": steps, "seed": seed} | changes))
            keys = {"knob": knob, "value": value, "variant": variant, "seed": seed}
            every.append(Job(keys, points, recipe, slope))

    for times in ("logit_normal", "uniform"):
        for width, points in WIDTHS.items():
            add(f"mode width, {times} times", width, points, **{"draws.times": times})
    for scale in (1.0, 10.0, 30.0):
        for points in ("eight_gaussians", "pinwheel"):
            add(f"largest frequency of t, {points.split('_')[0]}", scale, points, **{"net.time_scale": scale})
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        add("p_r_neq_t", share, **{"draws.p_r_neq_t": share})
    for name, slope in SLOPES.items():
        add("slope", name, slope=slope)
    for p in (0.5, 1.0):
        add("p", p, p=p)
    for lr in (3e-3, 1e-2, 3e-2, 1e-1):
        add("lr", lr, lr=lr)
    for p in (0.0, 1.0):
        add("long run, p", p, repeat=1, steps=6 * steps, p=p)
    return every


def reduce(job: Job, out: Path) -> dict:
    """A run as a row: raw loss (rows with r < t where there are any), and the one-step distance."""
    records = training.read_metrics(out)
    raw = [r["raw_u_eq"] if r["raw_u_neq"] is None else r["raw_u_neq"] for r in records]
    finished = records[-1]["step"] == job.recipe.steps
    distance = distances.sliced_wasserstein(samples(out), datasets.load(job.points).held_out.x) if finished else None
    return {**loss_summary(raw), "sw1": distance, "updates": records[-1]["step"]}


def main(seeds: int = 2, steps: int = 500, out: Path = RESULTS, runs: Path = Path("runs/plane")) -> None:
    """Turn each knob for MF and iMF; write knobs.csv, and knobs.npz with the curves of the long runs.

    Args:
        seeds: number of seeds, 0, 1, ... (the long runs have one)
        steps: updates of each run; the long ones take six times as many.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
    """
    folder, every = runs / f"knobs-{steps}", jobs(seeds, steps)
    rows = sweep(every, folder, reduce)
    floors = {name: distances.floor(name)[0] for name in {job.points for job in every}}
    rows = [row | {"floor": floors[job.points]} for job, row in zip(every, rows, strict=True)]
    write_table(out / "knobs.csv", rows)
    figure(rows).savefig(out / "knobs.png")
    long = [job for job in every if str(job.keys["knob"]).startswith("long")]
    np.savez_compressed(out / "knobs.npz", **curves_of(long, folder))
    print(out / "knobs.csv")


def curves_of(long: list[Job], folder: Path) -> dict[str, np.ndarray]:
    """Curves of the long runs by name, e.g. "mf-p0-du_dt_by_t" (2, buckets, bins of t)."""
    curves = {}
    for job in long:
        records = training.read_metrics(folder / job.name)
        name = f"{job.keys['variant']}-p{job.keys['value']:g}"
        for field in ("du_dt_by_t", "raw_u_by_t", "raw_v_by_t"):
            curves[f"{name}-{field}"] = by_time([r[field] for r in records])
        curves[f"{name}-raw_u_neq"] = np.array([r["raw_u_neq"] for r in records], np.float32)
    return curves


def figure(rows: list[dict]) -> Figure:
    """Spread of the raw loss and quality of one-step samples under every setting, a mark per run.

    Vertical lines: the median of the unchanged recipe, by method. Hollow marks: runs whose samples are as far
    from the data as untouched noise is, or that stopped.
    """
    plots.style()
    rows = [r for r in rows if not str(r["knob"]).startswith("long")]
    settings = list(dict.fromkeys((r["knob"], r["value"]) for r in rows))
    place = {setting: y for y, setting in enumerate(settings)}
    fig, axes = plt.subplots(1, 2, figsize=(9.4, 1 + 0.2 * len(settings)), sharey=True)
    for ax, column in zip(axes, ("spread", "sw1"), strict=True):
        for variant, method, marker, shift in (("mf", "mf", "s", -0.13), ("head", "imf", "o", 0.13)):
            color = plots.COLORS[method]
            of = [r for r in rows if r["variant"] == variant and r[column] not in ("", None)]
            usual = [r[column] for r in of if (r["knob"], r["value"]) == BASELINE]
            if usual:
                ax.axvline(np.median(usual), color=color, ls=plots.LINES[method], lw=1)
            for r in of:
                fill = "none" if is_dead(r) else color
                ax.plot(r[column], place[r["knob"], r["value"]] + shift, marker, color=color, mfc=fill, ms=4.5)
        ax.set(xscale="log")
        ax.grid(axis="y", lw=0.3)
    for r in rows:
        axes[1].plot(r["floor"], place[r["knob"], r["value"]], "|", color=plots.COLORS["data"], ms=7)
    axes[0].set(
        yticks=range(len(settings)), yticklabels=[f"{k}: {v}".replace("_normal", "-normal") for k, v in settings]
    )
    axes[0].set_ylim(len(settings) - 0.5, -0.7)
    axes[0].set(xlabel="step-to-step spread of the raw loss", title="How calm the loss is ...")
    axes[1].set(
        xlabel="one-step sliced Wasserstein distance (black: its floor)", title="... and how good the samples are"
    )
    axes[1].set(xticks=[0.05, 0.1, 0.2, 0.5, 1], xticklabels=[0.05, 0.1, 0.2, 0.5, 1])
    fig.suptitle("MF (orange squares), iMF (blue dots); lines: the unchanged recipe; hollow: dead networks", fontsize=9)
    return fig


def points_of(row: dict) -> str:
    """The point set of a row of knobs.csv."""
    if str(row["knob"]).startswith("mode width"):
        return WIDTHS[float(row["value"])]
    return "pinwheel" if "pinwheel" in str(row["knob"]) else "eight_gaussians"


def is_dead(row: dict) -> bool:
    """Whether a run stopped, or its samples lie within 2 % of where untouched noise lies."""
    return row["sw1"] in ("", None) or distances.is_of_noise(row["sw1"], points_of(row))


def by_time(values: list[list[float | None]], buckets: int = 60) -> np.ndarray:
    """Mean and maximum of values by t, in buckets of updates: (2, buckets, bins of t); empty is nan."""
    table = np.array([[np.nan if v is None else v for v in row] for row in values])
    parts = np.array_split(table, min(buckets, len(table)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an empty bin is nan, as it should be
        return np.array([[np.nanmean(p, 0) for p in parts], [np.nanmax(p, 0) for p in parts]], np.float32)


if __name__ == "__main__":
    tyro.cli(main)
