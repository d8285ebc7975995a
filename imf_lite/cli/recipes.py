"""imf-lite recipes: list the recipes."""

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
