"""Seconds until the command line answers requests that need no torch: help, a usage error, the list of recipes.

    python -m benchmarks.startup

Each measurement starts a new process, as a user does; the project's limit is 1.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import tyro

COMMANDS = ("--help", "train digits_imf --help", "train digits_imf --stepz 3", "recipes")


def main(repeats: int = 5) -> None:
    """Print the median, fastest and slowest of several starts.

    Args:
        repeats: starts of each command.
    """
    bare = measure("import sys", repeats)
    print(f"{'an empty Python process':28}", show(bare))
    for command in COMMANDS:
        code = f"import sys; sys.argv = ['imf-lite', *{command.split()!r}]; from imf_lite.cli import main; main()"
        print(f"{'imf-lite ' + command:28}", show(measure(code, repeats)))


def measure(code: str, repeats: int) -> list[float]:
    """Seconds that a new Python process takes for some code, sorted."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def show(seconds: list[float]) -> str:
    """The median with its range."""
    return f"{statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f})"


if __name__ == "__main__":
    tyro.cli(main)
