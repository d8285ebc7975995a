"""Recipes: named training configurations. One function per run, returning a Recipe; any field can be overridden.

>>> get("digits_imf", steps=100, **{"net.width": 64})

May import: configs. Nothing here imports torch, so recipes are listed and checked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import digits, fashion, imagenet
from .recipe import Recipe, counterpart, nearest, override

__all__ = ["RECIPES", "Recipe", "counterpart", "get", "override"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function
    for function in (
        digits.digits_imf,
        digits.digits_imf_boundary,
        digits.digits_guided,
        digits.digits_mf,
        digits.digits_alpha,
        digits.digits_split,
        digits.digits_fm,
        fashion.fashion_imf,
        fashion.fashion_mf,
        fashion.fashion_imf_plain,
        fashion.fashion_mf_plain,
        fashion.fashion_fm_plain,
        fashion.fashion_pixels,
        fashion.fashion_pixels_u,
        fashion.fashion_pixels_mf,
        fashion.fashion_pixels_guided,
        imagenet.imagenet_rehearsal,
        imagenet.imagenet_pmf_rehearsal,
        imagenet.imagenet_mf_b4_short,
    )
} | imagenet.IMAGENET


def get(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with fields overridden. Raises ValueError for an unknown name or field."""
    if name not in RECIPES:
        raise ValueError(f"no recipe named {name!r}{nearest(name, list(RECIPES))}.")
    return override(RECIPES[name](), changes)
