"""What --checkpoint-activations saves in memory, and costs in time: one step with it over the same step without.

    python -m benchmarks.recompute                      # the digits' transformer and B/2, on the CPU: two minutes
    python -m benchmarks.recompute --networks b2 --batch 32 --device cuda

A step is loss and backward. The two take turns in one process, and ratios are formed within a turn; memory is the peak
of one step above weights and gradients.
"""

from __future__ import annotations

import torch
import tyro

from imf_lite.training.loop import as_trained

from .step_cost import CASES, METHODS, once, peak, ratio, setup

ROWS = ("MF, 25 % r ≠ t", "iMF, v-head, guided")


def main(
    networks: tuple[str, ...] = ("digits", "b2"), repeats: int = 3, batch: int | None = None, threads: int = 1,
    device: str = "cpu",
) -> None:  # fmt: skip
    """Print a Markdown table.

    Args:
        networks: of benchmarks.step_cost.
        repeats: timed turns, after a first one that warms up.
        batch: instead of each network's own.
        threads: of the CPU.
        device: cpu or cuda.
    """
    torch.set_num_threads(threads)
    print("| | memory, all kept, MB | inputs of blocks alone, MB | ratio | time |\n|---|---|---|---|---|")
    for name in networks:
        case = CASES[name]._replace(batch=batch or CASES[name].batch)
        for row in ROWS:
            steps = [setup(case, METHODS[row], "ours", device) for _ in range(2)]
            as_trained(steps[1][0], "no", recompute=True)
            memory = [peak(*step) for step in steps]
            seconds = [[once(*step) for step in steps] for _ in range(repeats + 1)][1:]
            kept, recomputed = (list(turn) for turn in zip(*seconds, strict=True))
            print(
                f"| {name}, batch {case.batch}: {row} | {memory[0]:.1f} | {memory[1]:.1f} "
                f"| {memory[1] / memory[0]:.2f} | {ratio(recomputed, kept)} |",
                flush=True,
            )


if __name__ == "__main__":
    tyro.cli(main)
