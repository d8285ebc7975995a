"""Statistics of real images that samples are compared with: from features, published files, or a prepared data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics


class Reference(NamedTuple):
    """Real images as an extractor sees them."""

    description: str
    """what the images are"""
    features: Tensor | None
    """(N, F); None where only statistics are known"""
    statistics: dict[str, np.ndarray]
    """mu (F,) and sigma (F, F) of the features"""


def from_features(features: Tensor, description: str) -> Reference:
    """A reference from features (N, F)."""
    return Reference(description, features, fid_features_to_statistics(features))


def from_npz(path: str | Path) -> Reference:
    """A reference from statistics as they are published: keys mu and sigma, or ref_mu and ref_sigma.

    Raises ValueError for a file without them.
    """
    with np.load(path) as file:
        for mu, sigma in (("mu", "sigma"), ("ref_mu", "ref_sigma")):
            if mu in file and sigma in file:
                return Reference(Path(path).name, None, {"mu": file[mu], "sigma": file[sigma]})
        raise ValueError(f"{path} holds {', '.join(file)}; statistics are mu and sigma, or ref_mu and ref_sigma.")


def load_reference(path: str | Path, extractor: str) -> Reference:
    """Statistics of real images: an .npz file, or the folder of a prepared split that holds one.

    Raises ValueError where there is none, or the split's were made by another extractor.
    """
    path = Path(path)
    file = path / "statistics.npz" if path.is_dir() else path
    if not file.exists():
        raise ValueError(
            f"there are no reference statistics at {file}: give an .npz with mu and sigma (--reference), or run "
            "`imf-lite prepare` with --extractor, which writes them beside the latents."
        )
    if path.is_dir():
        made_by = json.loads((path / "meta.json").read_text())["about"]["extractor"]
        if made_by != extractor:
            raise ValueError(f"{file} holds features of {made_by}; samples would be seen by {extractor}: choose one.")
    return from_npz(file)._replace(description=str(file))
