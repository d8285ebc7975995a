"""imf-lite recipes, imf-lite weights: what there is, a line each."""

from __future__ import annotations

from dataclasses import dataclass

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
