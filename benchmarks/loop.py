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
    spent = dict.fromkeys(("step", "EMA", "gradient norm"), 0.0)

    def timed(part: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - start

        return wrapped

    patched = [
        ("step", Objective, "forward"),
        ("step", torch.Tensor, "backward"),
        ("step", torch.optim.AdamW, "step"),
        ("EMA", torch, "_foreach_lerp_"),
        ("gradient norm", torch.nn.utils, "get_total_norm"),
    ]
    originals = [getattr(owner, name) for _, owner, name in patched]
    for (part, owner, name), function in zip(patched, originals, strict=True):
        setattr(owner, name, timed(part, function))
    try:
        with tempfile.TemporaryDirectory() as out:
            run = iter(training.train(get(recipe, steps=steps + 10), out, device="cpu"))
            for _ in range(10):  # warm up: data, classes, buffers
                next(run)
            spent.update(dict.fromkeys(spent, 0.0))
            start = time.perf_counter()
            for _ in range(steps - 1):  # the last update also writes the checkpoint
                next(run)
            total = time.perf_counter() - start
    finally:
        for (_, owner, name), function in zip(patched, originals, strict=True):
            setattr(owner, name, function)
    shares = {part: seconds / total for part, seconds in spent.items()}
    rest = 1 - sum(shares.values())
    print(
        f"{recipe}: {1000 * total / (steps - 1):.2f} ms an update, {1 - shares['step']:.1%} of it the loop: "
        f"EMA {shares['EMA']:.1%}, gradient norm {shares['gradient norm']:.1%}, all else {rest:.1%}"
    )


if __name__ == "__main__":
    tyro.cli(main)
