"""Sample quality while training: MF and both variants of iMF on the checkerboard, a longer run.

    python -m toy_experiments.experiments.quality --seeds 3 --out toy_experiments/results

Writes quality.csv: sliced Wasserstein distance of samples in 1, 2 and 4 steps every few hundred updates.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from imf_lite import training
from imf_lite.system import files

from ..figures import plots
from ..ground_truth import datasets, distances
from ..tables import RESULTS, write_table
from .runs import VARIANTS, Job, map_jobs, plane, samples


def good(variant: str, **changes):
    """A run that gets the checkerboard right: wider, longer, a falling learning rate, and uniform times.

    Logit-normal times hardly ever draw an interval as long as the one that a single step needs.
    """
    better = {"net.width": 192, "draws.times": "uniform", "steps": 4000, "lr": 2e-3, "decay": "linear", "ema": 0.998}
    return plane(variant, **(better | changes))


def watch(job: Job, folder: Path) -> list[dict]:
    """Train one job, measuring samples after each checkpoint; what was measured is stored beside the run."""
    torch.set_num_threads(1)
    out, real = folder / job.name, datasets.load(job.points).held_out.x
    stored = out / "quality.json"
    rows = json.loads(stored.read_text()) if stored.exists() else []

    def measure(updates: int, seconds: float) -> None:
        if updates not in [row["updates"] for row in rows]:
            measured = {f"sw{k}": distances.sliced_wasserstein(samples(out, steps=k), real) for k in (1, 2, 4)}
            rows.append(
                {**job.keys, "updates": updates, "seconds": seconds, **measured, "code": training.fingerprint()}
            )
            files.write_text(stored, json.dumps(rows))

    for record in training.train(job.recipe, out, datasets.load(job.points), "cpu"):
        if record.step % job.recipe.save_every == 1 and record.step > 1:  # the checkpoint before is on disk now
            measure(record.step - 1, record.seconds)
    last = training.read_metrics(out)[-1]
    measure(last["step"], last["seconds"])
    return rows


def main(
    seeds: int = 3, steps: int = 4000, out: Path = RESULTS, runs: Path = Path("runs/plane"), every: int = 500
) -> None:
    """Train each variant and seed, measuring on the way; write quality.csv.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run.
        out: folder of the results.
        runs: folder of the runs.
        every: updates between two measurements.
    """
    jobs = [
        Job({"variant": v, "seed": k}, "checkerboard", good(v, seed=k, steps=steps, save_every=every))
        for k in range(seeds)
        for v in VARIANTS
    ]
    rows = [row for rows in map_jobs(watch, jobs, runs / f"quality-{steps}") for row in rows]
    floor, _ = distances.floor("checkerboard")
    rows = [row | {"floor": floor} for row in rows]
    write_table(out / "quality.csv", rows)
    figure(rows).savefig(out / "quality.png")
    print(out / "quality.csv")


def figure(rows: list[dict]) -> Figure:
    """Distance against updates in 1, 2 and 4 steps, one panel each: seeds thin, their median thick, and the floor."""
    plots.style()
    looks = {"mf": (plots.COLORS["mf"], "--"), "boundary": ("#009E73", "-."), "head": (plots.COLORS["imf"], "-")}
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 2.8), sharey=True)
    for ax, steps in zip(axes, (1, 2, 4), strict=True):
        for variant, (color, line) in looks.items():
            of = [r for r in rows if r["variant"] == variant]
            updates = sorted({r["updates"] for r in of})
            many = np.array([[r[f"sw{steps}"] for r in of if r["seed"] == k] for k in sorted({r["seed"] for r in of})])
            ax.plot(updates, many.T, color=color, lw=0.6, alpha=0.5)
            ax.plot(updates, np.median(many, 0), color=color, ls=line, label=VARIANTS[variant])
        ax.axhline(rows[0]["floor"], color=plots.COLORS["noise"], lw=1)
        ax.set(yscale="log", xlabel="update", title=f"{steps} step{'s' * (steps > 1)}")
        ax.set(yticks=[0.03, 0.05, 0.1, 0.2, 0.3], yticklabels=[0.03, 0.05, 0.1, 0.2, 0.3])
        ax.minorticks_off()
    axes[0].set_ylabel("sliced Wasserstein distance (N = 8,000)")
    axes[0].annotate("floor", (updates[-1], rows[0]["floor"]), (0, 3), textcoords="offset points", ha="right")
    axes[2].legend(frameon=False)
    return fig


if __name__ == "__main__":
    tyro.cli(main)
