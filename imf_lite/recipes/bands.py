"""Bands: expected ranges of loss and gradient norm in a recipe's first updates, to check a run against.

Nobody can afford hundreds of epochs to learn that a set-up is wrong; its first updates say so. A band is
written by `python -m benchmarks.bands RECIPE`; not every recipe has one yet.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

from . import RECIPES, Recipe

FOLDER = Path(__file__).parent.parent / "pretrained" / "bands"
WINDOW = 100
"""updates of which means are compared"""
WATCHED = ("raw_u_eq", "raw_u_neq", "raw_v_eq", "raw_v_neq", "grad_norm")
MACHINE = ("seed", "parts", "precision", "keep", "save_every", "milestone_every", "more_emas")
"""fields that may differ from the recipe's own"""


def windows(records: list[dict]) -> dict[str, list[float]]:
    """Means of the WATCHED quantities over whole windows of updates; those that the method lacks are left out."""
    means: dict[str, list[float]] = {}
    last = max((r["step"] for r in records), default=0) // WINDOW
    for name in WATCHED:
        parts = [[r[name] for r in records if (r["step"] - 1) // WINDOW == k] for k in range(last)]
        if parts and all(p and None not in p for p in parts):
            means[name] = [mean(p) for p in parts]
    return means


def exists(recipe: Recipe) -> bool:
    """Whether there is a band for the recipe of this name."""
    return (FOLDER / f"{recipe.name}.json").exists()


def load(recipe: Recipe) -> dict | None:
    """The band of a recipe, {"about", "low": {name: [...]}, "high": {...}}; None if changed or without a band."""
    path = FOLDER / f"{recipe.name}.json"
    if recipe.name not in RECIPES or not path.exists():
        return None
    own = RECIPES[recipe.name]()
    same = replace(recipe, **{name: getattr(own, name) for name in MACHINE}) == own
    return json.loads(path.read_text()) if same else None


class Watch:
    """Called with every record: a message when a window of updates leaves the band, once per quantity; else None."""

    def __init__(self, recipe: Recipe):
        self.band, self.whole = load(recipe), WINDOW // recipe.log_every
        self.recent: list[dict] = []
        self.warned: set[str] = set()

    def __call__(self, record: dict) -> str | None:
        if self.band is None:
            return None
        window = (record["step"] - 1) // WINDOW
        self.recent = [r for r in self.recent if (r["step"] - 1) // WINDOW == window] + [record]
        if record["step"] % WINDOW or len(self.recent) < self.whole:  # a resumed run may begin inside a window
            return None
        warnings = []
        for name in self.band["low"].keys() - self.warned:
            values = [r[name] for r in self.recent if r[name] is not None]
            if window >= len(self.band["low"][name]) or not values:
                continue
            low, high = (self.band[end][name][window] for end in ("low", "high"))
            if not low <= mean(values) <= high:
                self.warned.add(name)
                warnings.append(f"{name} is {mean(values):.4g}, expected {low:.4g} to {high:.4g}")
        if not warnings:
            return None
        found = "; ".join(warnings)
        return f"updates {window * WINDOW + 1} to {record['step']} leave the band: {found}; check the set-up."
