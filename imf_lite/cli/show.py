"""imf-lite compare, recipes, weights: compare runs; list the recipes and the shipped networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..recipes import RECIPES


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""


def recipes(options: Recipes) -> None:
    """Print every recipe with a line about it."""
    for name, recipe in RECIPES.items():
        print(f"{name:22} {recipe.__doc__}")


@dataclass(frozen=True)
class Weights:
    """List the trained networks that ship with the package, by the names that --weights takes."""


def weights(options: Weights) -> None:
    """Print every shipped network with a line about it."""
    from ..pretrained.shipped import networks

    for name, network in networks().items():
        print(f"{name:22} {network.description}")


@dataclass(frozen=True)
class Compare:
    """Compare runs: raw losses with their spread, gradient norms, losses by t, FID, and how their recipes differ."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of two or more runs, also while they train"""
    out: Path = Path("comparison")
    """folder of comparison.png and comparison.html"""


def compare(options: Compare) -> None:
    """Print the table and what differs between the recipes; write the picture and a page with all of it."""
    from ..training import comparison

    if len(options.runs) < 2:
        raise ValueError("compare at least two runs: imf-lite compare runs/A runs/B.")
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError('comparing runs needs matplotlib: pip install "imf-lite[notebooks]".') from error
    matplotlib.use("Agg")
    courses = [comparison.read(folder) for folder in options.runs]
    rows = comparison.table(courses)
    for cells in zip(*rows, strict=True):
        print(f"{cells[0]:18}", *(f"{cell:>20}" for cell in cells[1:]))
    for name, values in comparison.differences(courses).items():
        print(f"recipes differ: {name} = {', '.join(map(str, values))}")
    print(comparison.write(courses, options.out))
