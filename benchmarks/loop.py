"""What the loop adds to a step: everything that is not loss, backward and optimiser.

    python -m benchmarks.loop

Trains a recipe for some updates with those three timed from inside.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import torch
import tyro

from imf_lite import training
from imf_lite.objective import Objective
from imf_lite.recipes import get


def main(recipe: str = "digits_imf", steps: int = 300, threads: int = 1) -> None:
    """Print the share of the loop.

    Args:
        recipe: which run; as it is, with its own logging.
        steps: updates.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    inside = [0.0]

    def timed(function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                inside[0] += time.perf_counter() - start

        return wrapped

    patched = [(Objective, "forward"), (torch.Tensor, "backward"), (torch.optim.AdamW, "step")]
    originals = [getattr(owner, name) for owner, name in patched]
    for (owner, name), function in zip(patched, originals, strict=True):
        setattr(owner, name, timed(function))
    try:
        with tempfile.TemporaryDirectory() as out:
            run = iter(training.train(get(recipe, steps=steps + 10), out, device="cpu"))
            for _ in range(10):  # warm up: data, classes, buffers
                next(run)
            inside[0], start = 0.0, time.perf_counter()
            for _ in range(steps - 1):  # the last update also writes the checkpoint
                next(run)
            total = time.perf_counter() - start
    finally:
        for (owner, name), function in zip(patched, originals, strict=True):
            setattr(owner, name, function)
    print(f"{recipe}: {1000 * total / (steps - 1):.2f} ms an update, {1 - inside[0] / total:.1%} of it the loop")


if __name__ == "__main__":
    tyro.cli(main)
