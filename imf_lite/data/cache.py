"""A cache of an autoencoder's moments: mean and standard deviation of every image's latents, memory-mapped.

A folder of moments.f32 (N, 2C, h, w), labels.i64 (N,), perhaps features.f32 (N, F), and meta.json, which is
written last: a folder without it is unfinished, and the same call goes on with it. The moments are raw, as the
autoencoder gives them; a recipe says how they are normalised. An image that could not be read has label -1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import checkpoint, parallel
from ..latents import Latents, named
from ..rng import generator
from .sources import Readable, Source

CHUNK = 4096
DTYPES = {"f32": np.dtype(np.float32), "i64": np.dtype(np.int64)}


class Progress(NamedTuple):
    """After a batch: images read, of how many, and (name, error) of those that could not be."""

    read: int
    total: int
    corrupt: list[tuple[str, str]]


@dataclass(frozen=True)
class LatentSplit:
    """A prepared split: each batch is drawn from the posterior afresh, then normalised."""

    moments: np.ndarray
    """(N, 2C, h, w), on disk"""
    rows: np.ndarray
    """(M,) rows that hold an image"""
    y: Tensor
    """(M,) labels"""
    latents: Latents

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (self.moments.shape[1] // 2, *self.moments.shape[2:])

    def batch(self, indices: Tensor, *seeds: int) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and labels (B,) at `indices`; the seeds decide the draw from the posterior."""
        mean, std = torch.from_numpy(self.moments[self.rows[indices]]).chunk(2, dim=1)
        drawn = mean + std * torch.randn(mean.shape, generator=generator("cpu", *seeds))
        return self.latents.normalise(drawn), self.y[indices]


def prepare(
    source: Source, vae, vae_name: str, out: str | Path, features: tuple[str, Callable[[Tensor], Tensor]] | None = None,
    batch: int = 64, workers: int = 0, device: str = "cpu", save_every: int = 50, bf16: bool = False,
) -> Iterator[Progress]:  # fmt: skip
    """Encode a source into the cache `out`, yielding after each batch; the same call again resumes.

    vae: diffusers' AutoencoderKL, called vae_name. features: (name, function) of the uint8 images, (B, F), to be
    kept too, with mean and covariance as statistics.npz. bf16: encode in bfloat16. Under torchrun ranks take
    batches in turn, and the first one writes; it alone yields.
    Raises ValueError for a cache of something else, a disk too small, or one that fills up.
    """
    out, total, ranks = Path(out), len(source), parallel.join()
    if vae.config.in_channels != source.shape[0]:
        raise ValueError(f"{vae_name} encodes {vae.config.in_channels} channels; the images have {source.shape[0]}.")

    def arrays(images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        found = {"moments.f32": encode(vae, images, device, bf16), "labels.i64": labels.numpy()}
        return found | ({"features.f32": features[1](images).float().numpy()} if features else {})

    example = arrays(torch.zeros(1, *source.shape, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    about = {
        "source": source.about,
        "count": total,
        "shape": list(source.shape),
        "vae": vae_name,
        "vae_sha256": checkpoint.digest({k: v.cpu() for k, v in vae.state_dict().items()}),
        "extractor": features[0] if features else None,
        "classes": source.classes,
        "arrays": {name: list(array.shape[1:]) for name, array in example.items()},
    } | ({"precision": "bf16"} if bf16 else {})
    read, corrupt = ranks.tell(begin(out, about) if ranks.first else None)
    if read is None:
        return
    check_disk(out, (total - read) * sum(array.nbytes for array in example.values()))
    batches = [range(first, min(first + batch, total)) for first in range(read, total, batch)]
    mine = iter(DataLoader(Readable(source), batch_sampler=batches[ranks.rank :: ranks.size], num_workers=workers))
    with Writer(out, list(example) if ranks.first else []) as writer:
        for k in range(0, len(batches), ranks.size):
            for index, rows, errors in filter(None, ranks.collect(encoded(next(mine, None), arrays))):
                writer.write(int(index[0]), rows)
                corrupt += [(source.name(int(i)), e) for i, e in zip(index, errors, strict=True) if e]
                read = int(index[-1]) + 1
            if not ranks.first:
                continue
            if k // ranks.size % save_every == save_every - 1 or read == total:
                writer.sync()  # first the rows, then the note that they are there
                keep(out, about, read, corrupt)
            yield Progress(read, total, corrupt)
    if ranks.first:
        finish(out, about, corrupt)
    while not (out / "meta.json").exists():  # at full scale longer than ranks wait for each other
        time.sleep(1)


def encoded(loaded: tuple | None, arrays: Callable) -> tuple | None:
    """One batch as it is written: indices, arrays and errors. None where a rank has none left."""
    if loaded is None:
        return None
    index, images, labels, errors = loaded
    return index, arrays(images, labels), errors


class Writer:
    """Writes rows of a cache's arrays at their places. Raises ValueError where the disk takes no more."""

    def __init__(self, out: Path, names: list[str]):
        self.out = out
        self.files = {name: open(out / name, "r+b", buffering=0) for name in names}  # noqa: SIM115

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        for file in self.files.values():
            file.close()

    def write(self, first: int, arrays: dict[str, np.ndarray]) -> None:
        """Rows from `first` on."""
        try:
            for name, array in arrays.items():
                raw = np.ascontiguousarray(array).tobytes()
                self.files[name].seek(first * (len(raw) // len(array)))
                if self.files[name].write(raw) != len(raw):
                    raise OSError("the disk is full")
        except OSError as error:
            raise ValueError(
                f"{self.out} cannot be written ({error}): make room, then run the same command again."
            ) from error

    def sync(self) -> None:
        """Bring all rows to the disk."""
        for file in self.files.values():
            os.fsync(file.fileno())


@torch.no_grad()
def encode(vae, images: Tensor, device: str = "cpu", bf16: bool = False) -> np.ndarray:
    """Posterior mean and standard deviation (B, 2C, h, w) of uint8 images (B, 1 or 3, H, W)."""
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        posterior = vae.encode(images.to(device).float() / 127.5 - 1).latent_dist
    return torch.cat([posterior.mean, posterior.std], dim=1).float().cpu().numpy()


def begin(out: Path, about: dict) -> tuple[int | None, list]:
    """(rows there already, corrupt ones so far); None rows: it is finished. Raises ValueError for another cache."""
    for name in ("meta.json", "state.json"):
        if (out / name).exists():
            found = json.loads((out / name).read_text())
            if differ := [k for k in {**about, **found["about"]} if found["about"].get(k) != about.get(k)]:
                changes = ", ".join(f"{k} was {found['about'].get(k)!r}, is {about.get(k)!r}" for k in differ)
                raise ValueError(
                    f"{out} is a cache of something else ({changes}): choose another folder, or delete it."
                )
            if name == "meta.json":
                return None, found["corrupt"]
            for array in about["arrays"]:
                if size(out, array) < found["read"] * row_bytes(array, about):
                    raise ValueError(f"{out / array} is shorter than it was: delete the folder and prepare it again.")
            return found["read"], [tuple(c) for c in found["corrupt"]]
    out.mkdir(parents=True, exist_ok=True)
    for name in about["arrays"]:
        (out / name).write_bytes(b"")
    keep(out, about, 0, [])
    return 0, []


def keep(out: Path, about: dict, read: int, corrupt: list) -> None:
    """Note how far the cache is."""
    checkpoint.write_text(out / "state.json", json.dumps({"about": about, "read": read, "corrupt": corrupt}))


def finish(out: Path, about: dict, corrupt: list) -> None:
    """Statistics, checksums, then meta.json, which makes the cache valid."""
    split = {name: opened(out, name, about) for name in about["arrays"]}
    rows = np.flatnonzero(split["labels.i64"] >= 0)
    if not len(rows):
        raise ValueError(f"no image of {about['source']} could be read; the first: {corrupt[0]}.")
    mean, std = fit(split["moments.f32"], rows)
    if "features.f32" in split:
        np.savez(out / "statistics.npz", **statistics(split["features.f32"], rows))
    meta = {
        "about": about,
        "corrupt": corrupt,
        "fitted": {"mean": mean, "std": std},
        "sha256": {name: sha256(out / name) for name in about["arrays"]},
    }
    checkpoint.write_text(out / "meta.json", json.dumps(meta, indent=1))
    (out / "state.json").unlink(missing_ok=True)


def fit(moments: np.ndarray, rows: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the latents, posterior noise included."""
    channels, total = moments.shape[1] // 2, 0
    first, second = np.zeros(channels), np.zeros(channels)
    for part in np.array_split(rows, max(1, len(rows) // CHUNK)):
        mean, std = np.split(moments[part].astype(np.float64), 2, axis=1)
        first += mean.sum((0, 2, 3))
        second += (mean**2 + std**2).sum((0, 2, 3))
        total += mean[:, 0].size
    return (first / total).tolist(), np.sqrt(second / total - (first / total) ** 2).tolist()


def statistics(features: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Mean (F,) and covariance (F, F) of features (N, F) in float64, a chunk at a time."""
    parts = np.array_split(rows, max(1, len(rows) // CHUNK))
    mu = sum(features[part].sum(0, dtype=np.float64) for part in parts) / len(rows)
    centred = (features[part].astype(np.float64) - mu for part in parts)
    return {"mu": mu, "sigma": sum(c.T @ c for c in centred) / (len(rows) - 1)}


def load(folder: str | Path, normalisation: str) -> tuple[LatentSplit, int]:
    """A prepared split and its number of classes. Raises ValueError where it is missing, unfinished or damaged."""
    folder = Path(folder)
    if not (folder / "meta.json").exists():
        state = (
            "is unfinished: run the same `imf-lite prepare` again"
            if (folder / "state.json").exists()
            else ("holds no latents: `imf-lite prepare --help` says how to make them")
        )
        raise ValueError(f"{folder} {state}.")
    meta = json.loads((folder / "meta.json").read_text())
    about = meta["about"]
    labels = np.array(opened(folder, "labels.i64", about))
    rows = np.flatnonzero(labels >= 0)
    latents = named(normalisation, about["vae"], meta["fitted"])
    split = LatentSplit(opened(folder, "moments.f32", about), rows, torch.from_numpy(labels[rows]), latents)
    return split, len(about["classes"])


def verify(folder: str | Path) -> None:
    """Read everything again. Raises ValueError for files that are not what was written."""
    folder = Path(folder)
    meta = json.loads((folder / "meta.json").read_text())
    if wrong := [name for name, sha in meta["sha256"].items() if sha256(folder / name) != sha]:
        raise ValueError(
            f"{folder}: {', '.join(wrong)} changed since they were written: delete the folder, prepare again."
        )


def opened(folder: Path, name: str, about: dict) -> np.ndarray:
    """One array of a cache, read-only, from disk. Raises ValueError for a file of the wrong size."""
    shape, expected = (about["count"], *about["arrays"][name]), about["count"] * row_bytes(name, about)
    if size(folder, name) != expected:
        raise ValueError(
            f"{folder / name} has {size(folder, name)} bytes, not {expected}: delete the folder and prepare it again."
        )
    return np.memmap(folder / name, DTYPES[name[-3:]], "r", shape=shape)


def row_bytes(name: str, about: dict) -> int:
    """Bytes of one row of an array."""
    return int(np.prod(about["arrays"][name])) * DTYPES[name[-3:]].itemsize


def size(folder: Path, name: str) -> int:
    """Bytes of an array's file; 0 where there is none."""
    return (folder / name).stat().st_size if (folder / name).exists() else 0


def sha256(path: Path) -> str:
    """Of a file, in one pass."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()


def check_disk(out: Path, need: int) -> None:
    """Raise ValueError where the disk has less room than the cache will take."""
    free = shutil.disk_usage(out).free
    if free < 1.02 * need:
        raise ValueError(
            f"{out} needs {need / 1e9:.2f} GB more, and its disk has {free / 1e9:.2f} GB free: "
            "make room or choose another folder (--out)."
        )
