"""The trained networks that ship with the package, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ..system.paths import pretrained_folder

METHODS = {"fm": "flow matching", "mf": "MeanFlow", "imf": "improved MeanFlow"}


class Shipped(NamedTuple):
    """A shipped network: its folder, as save_pretrained wrote it, and a line about it."""

    folder: Path
    description: str


def networks() -> dict[str, Shipped]:
    """Every shipped network by its name: fashion_imf, ..., plane_imf, ..."""
    folders = {path.name: path for path in sorted((pretrained_folder("fashion") / "networks").glob("*/"))}
    folders |= {f"plane_{path.name}": path for path in sorted(pretrained_folder("plane").glob("*/"))}
    return {name: Shipped(path, describe(path)) for name, path in folders.items() if (path / "config.json").exists()}


def describe(folder: Path) -> str:
    """A line about a network, from its config.json."""
    config = json.loads((folder / "config.json").read_text())
    method = METHODS[config["about"]["recipe"]["method"]]
    if len(config["shape"]) == 1:
        return f"{method} on eight Gaussians in the plane (points, not images)"
    guided = {"no": "", "omega": ", guidance scale as an input", "interval": ", guidance scale and interval as inputs"}
    space = "latents" if config["about"].get("latents") else "pixels"
    return f"{method} on Fashion-MNIST's {space}{guided[config['net']['guided']]}"
