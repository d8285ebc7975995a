"""Guidance on the digits: one iMF network for every scale and interval, against one MF network a scale.

    python -m toy_experiments.experiments.guidance --seeds 3 --out toy_experiments/results

All networks have the same u-path, data order, draws and number of updates. Writes guidance.csv:
one row a network, seed, scale, interval and half of the noise ("choose" picks, "report" is quoted).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
import tyro
from torch import Tensor

from imf_lite import data, recipes, training
from imf_lite.configs import Fixed
from imf_lite.data.images import to_uint8
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.recipes import Recipe, counterpart
from imf_lite.sampling import generate

from ..tables import RESULTS, write_table
from .runs import map_jobs

OMEGAS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
INTERVALS = ((0.0, 1.0), (0.0, 0.6), (0.4, 0.65))
"""all times; the half nearer to the data; iMF-B/2's published one"""
FIXED = (1.5, 2.0, 4.0)
"""scales for which an MF network is trained"""
HALVES = {"choose": 1000, "report": 0}
"""offset of the noise's seed"""


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


def main(seeds: int = 3, steps: int = 2000, out: Path = RESULTS, runs: Path = Path("runs/guidance")) -> None:
    """Train one guided iMF and three MF networks with each seed and write the table.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
    """
    jobs = list(itertools.product(range(seeds), ("imf", *(f"mf {w}" for w in FIXED))))
    results = map_jobs(run, jobs, steps, runs / str(steps))
    write_table(out / "guidance.csv", [row for rows in results for row in rows])
    print(out / "guidance.csv")


if __name__ == "__main__":
    tyro.cli(main)
