"""Where things lie, each moved by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Data sets and prepared latents: $IMF_LITE_DATA, or data in the present folder."""
    return Path(os.environ.get("IMF_LITE_DATA", "data"))


def cache_folder() -> Path:
    """Classifiers trained on first use: $IMF_LITE_CACHE, or ~/.cache/imf_lite."""
    return Path(os.environ.get("IMF_LITE_CACHE", Path.home() / ".cache" / "imf_lite"))


def pretrained(name: str) -> Path:
    """What ships with the package, by data set: in $IMF_LITE_PRETRAINED, or the package."""
    return Path(os.environ.get("IMF_LITE_PRETRAINED", Path(__file__).parent / "pretrained")) / name
