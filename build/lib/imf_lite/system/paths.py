"""Paths of data, cache and shipped weights, each overridable by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """Data sets and prepared latents: $IMF_LITE_DATA, or `data` in the current folder."""
    return Path(os.environ.get("IMF_LITE_DATA", "data"))


def cache_folder() -> Path:
    """Classifiers trained on first use: $IMF_LITE_CACHE, or the user's cache folder (~/.cache/imf_lite on Linux)."""
    return Path(os.environ.get("IMF_LITE_CACHE") or platformdirs.user_cache_dir("imf_lite", appauthor=False))


def pretrained_folder(name: str) -> Path:
    """What ships with the package for a data set: in $IMF_LITE_PRETRAINED, or in the package."""
    shipped = Path(__file__).parent.parent / "pretrained"
    return Path(os.environ.get("IMF_LITE_PRETRAINED", shipped)) / name
