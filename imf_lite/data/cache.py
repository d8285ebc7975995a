"""A cache of images, or of an autoencoder's moments (mean and standard deviation of their latents), memory-mapped.

A folder of pixels.u8 (N, C, H, W) or moments.f32 (N, 2C, h, w), labels.i64 (N,), perhaps features.f32 (N, F), and
meta.json, which is written last: a folder without it is unfinished, and `prepare` goes on with it. The moments are raw,
as the autoencoder gives them; a recipe says how they are normalised. An image that could not be read has label -1.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..configs import Normalisation
from ..system.files import read_json, sha256
from ..system.rng import Stream, stream
from .normalisation import Latents, latent_space
from .pixels import PixelSplit

DTYPES: dict[str, np.dtype] = {"f32": np.dtype(np.float32), "i64": np.dtype(np.int64), "u8": np.dtype(np.uint8)}


@dataclass(frozen=True)
class LatentSplit:
    """A prepared split: each batch is drawn from the posterior afresh, then normalised."""

    moments: np.ndarray
    """(N, 2C, h, w), on disk"""
    rows: np.ndarray
    """(M,) rows that hold an image"""
    y: Tensor | None
    """(M,) labels; None: the images have no classes"""
    latents: Latents
    folder: Path
    """where the cache lies"""
    sha256: str
    """of all that was written"""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (self.moments.shape[1] // 2, *self.moments.shape[2:])

    def fingerprint(self) -> str:
        """SHA-256 of moments and labels, as they were when the cache was finished."""
        return self.sha256

    def batch(self, indices: Tensor, *seeds: int) -> tuple[Tensor, Tensor | None]:
        """Latents (B, C, h, w) and labels (B,) at `indices`; the seeds decide the draw from the posterior."""
        mean, std = torch.from_numpy(self.moments[self.rows[indices.numpy()]]).chunk(2, dim=1)
        drawn = mean + std * torch.randn(mean.shape, generator=stream("cpu", Stream.POSTERIOR, *seeds))
        return self.latents.normalise(drawn), None if self.y is None else self.y[indices]


def load(folder: str | Path, normalisation: Normalisation) -> tuple[LatentSplit | PixelSplit, list[str]]:
    """A prepared split, of latents or of pixels, and the names of its classes, none for unlabelled images.

    Raises ValueError where it is missing, unfinished or damaged.
    """
    folder = Path(folder)
    if not (folder / "meta.json").exists():
        state = (
            "is unfinished: run the same `imf-lite prepare` again"
            if (folder / "state.json").exists()
            else "holds no latents: `imf-lite prepare FOLDER` makes them, and with --vae none keeps pixels"
        )
        raise ValueError(f"{folder} {state}.")
    meta = read_json(folder / "meta.json", " and prepare the folder again", ("about", "fitted", "sha256"))
    header = meta["about"]
    labels = np.array(open_array(folder, "labels.i64", header))
    rows = np.flatnonzero(labels >= 0)
    y = torch.from_numpy(labels[rows]) if header["classes"] else None
    written = hashlib.sha256(json.dumps([meta["sha256"], header["vae_sha256"]], sort_keys=True).encode()).hexdigest()
    if "pixels.u8" in header["arrays"]:
        return PixelSplit(open_array(folder, "pixels.u8", header), rows, y, written, folder), header["classes"]
    latents = latent_space(normalisation, header["vae"], meta["fitted"], header["vae_sha256"])
    return LatentSplit(open_array(folder, "moments.f32", header), rows, y, latents, folder, written), header["classes"]


def verify(folder: str | Path) -> None:
    """Read everything again. Raises ValueError for files that are not what was written."""
    folder = Path(folder)
    meta = read_json(folder / "meta.json", " and prepare the folder again", ("sha256",))
    if wrong := [name for name, sha in meta["sha256"].items() if sha256(folder / name) != sha]:
        raise ValueError(
            f"{folder}: {', '.join(wrong)} changed since they were written: delete the folder and prepare it again."
        )


def open_array(folder: Path, name: str, header: dict) -> np.ndarray:
    """One array of a cache, read-only, from disk. Raises ValueError for a file of the wrong size."""
    shape, expected = (header["count"], *header["arrays"][name]), header["count"] * row_bytes(name, header)
    if (size := file_size(folder, name)) != expected:
        raise ValueError(f"{folder / name} has {size} bytes, not {expected}: delete the folder and prepare it again.")
    return np.memmap(folder / name, DTYPES[name.rpartition(".")[2]], "r", shape=shape)


def row_bytes(name: str, header: dict) -> int:
    """Bytes of one row of an array."""
    return int(np.prod(header["arrays"][name])) * DTYPES[name.rpartition(".")[2]].itemsize


def file_size(folder: Path, name: str) -> int:
    """Bytes of an array's file; 0 where there is none."""
    return (folder / name).stat().st_size if (folder / name).exists() else 0
