"""Statistics of real images that samples are compared with: from features, published files, or a prepared data set."""

from __future__ import annotations

import codecs
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics

from ..data.cache import open_array
from ..system.files import read_json, read_pickled


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


def from_file(path: str | Path) -> Reference:
    """A reference from statistics as they are published.

    It may be an .npz file with mu and sigma (ADM's, whose images are not loaded) or ref_mu and ref_sigma, or a .pt
    file of torch-fidelity's cache, with statistics or features. Nothing in a file is executed.
    Raises ValueError for anything else, for shapes that do not fit each other, and for numbers that are not finite.
    """
    path = Path(path)
    try:
        arrays = read_cache(path) if path.suffix == ".pt" else read_npz(path)
    except ValueError as error:
        raise ValueError(f"{path} does not hold reference statistics: {error}.") from error
    if "features" in arrays:
        return from_features(torch.as_tensor(arrays["features"]).float(), path.name)
    pairs = (("mu", "sigma"), ("ref_mu", "ref_sigma"))
    names = next((pair for pair in pairs if all(name in arrays for name in pair)), None)
    if names is None:
        held = ", ".join(arrays) or "nothing"
        raise ValueError(f"{path} holds {held}; statistics are mu and sigma, or ref_mu and ref_sigma.")
    mu, sigma = (np.asarray(arrays[name]) for name in names)
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f" or mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"{path}: {names[0]} is {mu.dtype}, {mu.shape}, {names[1]} {sigma.dtype}, {sigma.shape}; they "
                         "must be floating point, (F,) and (F, F), for an extractor of F features.")  # fmt: skip
    if not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        raise ValueError(f"{path} holds numbers that are not finite: compute the statistics again.")
    largest = max(float(np.abs(sigma).max()), 1e-12)
    if np.abs(sigma - sigma.T).max() > 1e-4 * largest or np.linalg.eigvalsh(sigma.astype(float))[0] < -1e-3 * largest:
        raise ValueError(f"{path}: {names[1]} is no covariance (not symmetric, or with negative eigenvalues).")
    return Reference(path.name, None, {"mu": mu, "sigma": sigma})


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """Arrays of an .npz file. Raises ValueError for a file that is none, or that holds objects."""
    with open(path, "rb") as file:
        beginning = file.read(64)
    if not beginning.startswith(b"PK"):
        hint = "an HTML page, so the download failed" if b"<" in beginning[:20] else "not an .npz file"
        raise ValueError(f"it is {hint} (it begins with {beginning[:20]!r}): fetch it again")
    wanted = ("mu", "sigma", "ref_mu", "ref_sigma")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: file[name] if name in wanted else np.empty(0) for name in file.files
            }  # ADM's images: not read
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError("its arrays are damaged, or Python objects, which are never loaded") from error


def read_cache(path: Path) -> Mapping[str, np.ndarray]:
    """What torch-fidelity kept of a data set: mu and sigma, or features, by tensors and numpy arrays alone."""
    rebuild: Any = np.zeros(0).__reduce__()[0]  # numpy's own, which has moved between versions
    allowed: list[Any] = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    allowed += [np.ndarray, np.dtype, type(np.dtype("f4")), type(np.dtype("f8")), codecs.encode]
    with torch.serialization.safe_globals(allowed):
        content = read_pickled(path)
    if isinstance(content, torch.Tensor) and content.ndim == 2:
        return {"features": content.numpy()}
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not statistics")
    return content


def load_reference(path: str | Path, extractor: str) -> Reference:
    """Statistics of real images: a file (see from_file), or the folder of a prepared split that holds one.

    Raises ValueError where there is none, or the split's were made by another extractor.
    """
    path = Path(path)
    file = path / "statistics.npz" if path.is_dir() else path
    if not file.exists():
        raise ValueError(
            f"there are no reference statistics at {file}: give an .npz with mu and sigma (--reference), or run "
            "`imf-lite prepare` with --extractor, which writes them beside the prepared data."
        )
    if path.is_dir():
        made_by = read_json(path / "meta.json", keys=("about",))["about"]["extractor"]
        if made_by != extractor:
            raise ValueError(f"{file} was made with extractor {made_by}, samples would use {extractor}: use the same.")
    return from_file(file)._replace(description=str(file), features=stored_features(path) if path.is_dir() else None)


def stored_features(folder: Path, most: int = 10_000) -> Tensor | None:
    """Features of at most `most` images of a prepared split, always the same ones, for precision and recall."""
    header = read_json(folder / "meta.json", keys=("about",))["about"]
    if "features.f32" not in header["arrays"]:
        return None
    rows = np.flatnonzero(np.array(open_array(folder, "labels.i64", header)) >= 0)
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    return torch.from_numpy(open_array(folder, "features.f32", header)[chosen].copy())


def check_reference(real: Reference, features: int, extractor: str) -> None:
    """Raise ValueError for statistics of another number of features than the extractor's."""
    if (length := len(real.statistics["mu"])) != features:
        raise ValueError(
            f"{real.description} holds statistics of {length} features; {extractor} gives {features}: use the "
            "extractor that they were made with."
        )
