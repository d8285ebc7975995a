"""Samples per second at one, two, four and 64 evaluations, and what the sampler adds to the bare network.

    python -m benchmarks.sampling

Prints a Markdown table; all rows take turns in one process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import tyro

from imf_lite.conditions import Cond
from imf_lite.networks import build
from imf_lite.recipes import get
from imf_lite.sampling import euler, sample
from imf_lite.system.rng import generator


def main(recipe: str = "digits_guided", n: int = 500, repeats: int = 15, threads: int = 1) -> None:
    """Time a recipe's network, untrained: what it has learnt does not matter here.

    Args:
        recipe: whose network.
        n: samples in a batch.
        repeats: turns.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    net = build(get(recipe).net, (1, 8, 8), 10).eval().requires_grad_(False)
    e = torch.randn(n, 1, 8, 8, generator=generator("cpu", 0))
    y, one = torch.arange(n) % 10, torch.ones(n)
    cond = Cond(y, 2 * one, 0 * one, one) if net.guided == "interval" else Cond(y)
    t, guidance = torch.ones(n, 1, 1, 1), {"omega": 2.0} if net.guided == "interval" else {}
    rows: dict[str, Callable] = {"the bare network, u once": torch.no_grad()(lambda: net.u(e, 0 * t, t, cond))}
    rows |= {f"sample, {k} NFE": lambda k=k: sample(net, e, y, k, **guidance) for k in (1, 2, 4)}
    rows["flow matching's Euler, 64 NFE"] = lambda: euler(net, e, y, 64, **guidance)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(repeats + 1):
        for name, row in rows.items():
            start = time.perf_counter()
            row()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    bare = seconds["the bare network, u once"]
    print(f"{recipe}, batch {n}, {threads} thread(s)\n")
    print("| | samples a second | time over the bare network's |\n|---|---|---|")
    for name, took in seconds.items():
        ratio = [a / b for a, b in zip(took, bare, strict=True)]
        spread = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
        print(f"| {name} | {n / statistics.median(took):,.0f} | {spread} |")


if __name__ == "__main__":
    tyro.cli(main)
