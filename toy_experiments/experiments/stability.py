"""Raw training losses of MF and iMF on point sets in the plane, several seeds: the paper's comparison.

    python -m toy_experiments.experiments.stability --seeds 3 --out toy_experiments/results

Plain L2, no guidance, logit-normal times; the raw loss of the rows with r < t. Writes stability.csv,
stability.npz (curves) and stability.png.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

from imf_lite import training

from ..figures import plots
from ..ground_truth import datasets, distances
from ..tables import RESULTS, write_table
from .runs import VARIANTS, Job, loss_summary, plane, samples, sweep, thinned

STEPS = 1200
SETS = ("checkerboard", "eight_gaussians", "two_moons", "pinwheel", "swiss_roll")


def reduce(job: Job, out: Path) -> dict:
    """A run as a row: loss at start and end, its spread, and sliced Wasserstein distances in one and two steps."""
    records = training.read_metrics(out)
    held_out = datasets.load(job.points).held_out.x
    return {
        **loss_summary([r["raw_u_neq"] for r in records]),
        "sw1": distances.sliced_wasserstein(samples(out), held_out),
        "sw2": distances.sliced_wasserstein(samples(out, steps=2), held_out),
        "seconds": records[-1]["seconds"],
    }


def main(
    seeds: int = 3,
    steps: int = STEPS,
    out: Path = RESULTS,
    runs: Path = Path("runs/plane"),
    sets: tuple[str, ...] = SETS,
) -> None:
    """Train MF and iMF (boundary and v-head) on each point set and seed; write table, curves and figure.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
        sets: point sets.
    """
    jobs = [
        Job({"set": s, "variant": v, "seed": k}, s, plane(v, seed=k, steps=steps))
        for s in sets
        for k in range(seeds)
        for v in VARIANTS
    ]
    folder = runs / f"stability-{steps}"
    rows = sweep(jobs, folder, reduce)
    floors = {s: distances.floor(s)[0] for s in sets}
    write_table(out / "stability.csv", [row | {"floor": floors[row["set"]]} for row in rows])
    curves = {}
    for job in jobs:
        records = training.read_metrics(folder / job.name)
        curves[job.name] = thinned([r["raw_u_neq"] for r in records]).astype(np.float32)
    np.savez_compressed(out / "stability.npz", **curves)
    figure(curves, sets, seeds, steps).savefig(out / "stability.png")
    print(out / "stability.csv")


def figure(curves: dict[str, np.ndarray], sets, seeds: int, steps: int):
    """Raw loss against updates, one panel per point set: seeds thin, their median thick, MF and iMF (v-head)."""
    plots.style()
    fig, axes = plt.subplots(1, len(sets), figsize=(1.95 * len(sets), 2.2), squeeze=False)
    for ax, name in zip(axes[0], sets, strict=True):
        for variant, method in (("mf", "mf"), ("head", "imf")):
            many = np.array([curves[f"{name}-{variant}-{k}"] for k in range(seeds)])  # (seeds, buckets, 2)
            plots.seeds(ax, np.linspace(0, steps, many.shape[1]), many[:, :, 0], method, many[:, :, 1])
        ax.set(title=name.replace("_", " "), xlabel="update")
    axes[0, 0].set_ylabel(r"raw loss, rows with $r < t$")
    fig.suptitle(
        f"MF's loss ends above its start and jumps; iMF's ends below (band: std within 1 % of the run; {seeds} seeds)",
        fontsize=9,
    )
    return fig


if __name__ == "__main__":
    tyro.cli(main)
