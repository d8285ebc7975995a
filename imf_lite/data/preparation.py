"""Writing the cache of latents or pixels: read, and perhaps encode, every image once, resumably, on several ranks."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..system import distributed
from ..system.distributed import Ranks
from ..system.files import digest, make_folder, read_json, sha256, write_text
from .cache import file_size, open_array, row_bytes
from .sources import SafeDataset, Source

CHUNK = 4096


class Progress(NamedTuple):
    """After a batch: images read, of how many, and (name, error) of those that could not be."""

    read: int
    total: int
    corrupt: list[tuple[str, str]]


def prepare(
    source: Source, vae, vae_name: str | None, out: str | Path,
    features: tuple[str, Callable[[Tensor], Tensor]] | None = None, batch: int = 64,
    workers: int = 0, device: torch.device | str = "cpu", save_every: int = 50, bf16: bool = False,
    ranks: Ranks | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Encode a source into the cache `out`, yielding after each batch; the same call again resumes.

    vae: diffusers' AutoencoderKL, called vae_name; None: the pixels themselves are kept. features: (name, function) of
    the uint8 images, (B, F), to be kept too, with mean and covariance as statistics.npz. bf16: encode in bfloat16.
    ranks: default: those that torchrun started; they take batches in turn, each writes its own, and they meet only once
    in save_every turns. The first alone yields; between two meetings it takes the others to be as far as itself.
    Raises ValueError for a cache of something else, a disk too small, or one that fills up.
    """
    out, total, ranks = Path(out), len(source), ranks or distributed.init()
    if vae is not None:
        check_shape(vae, str(vae_name), source.shape)

    def arrays(images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        kept = {"pixels.u8": images.numpy()} if vae is None else {"moments.f32": encode(vae, images, device, bf16)}
        rows = kept | {"labels.i64": labels.numpy()}
        return rows | ({"features.f32": features[1](images).float().numpy()} if features else {})

    example = arrays(torch.zeros(1, *source.shape, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    header = {
        "source": source.description,
        "count": total,
        "shape": list(source.shape),
        "vae": vae_name,
        "vae_sha256": "" if vae is None else digest({k: v.cpu() for k, v in vae.state_dict().items()}),
        "extractor": features[0] if features else None,
        "classes": source.classes,
        "arrays": {name: list(array.shape[1:]) for name, array in example.items()},
    } | ({"precision": "bf16"} if bf16 else {})
    read, corrupt = ranks.broadcast(begin(out, header) if ranks.first else None)
    if read is None:
        return
    check_disk(out, (total - read) * sum(array.nbytes for array in example.values()))
    batches = [range(first, min(first + batch, total)) for first in range(read, total, batch)]
    turns = map(list, batches[ranks.rank :: ranks.size])
    loader = iter(DataLoader(SafeDataset(source), batch_sampler=turns, num_workers=workers))
    begun, rounds, found = read, -(-len(batches) // ranks.size), []
    with Writer(out, list(example)) as writer:
        for k in range(1, rounds + 1):
            if loaded := next(loader, None):  # None: this rank has none left
                index, images, labels, errors = loaded
                writer.write(int(index[0]), arrays(images, labels))
                found += [(int(i), e) for i, e in zip(index, errors, strict=True) if e]
            read = min(begun + k * ranks.size * batch, total)
            if k % save_every == 0 or k == rounds:
                writer.sync()  # first the rows of every rank, then the note that they are there
                every, found = ranks.gather_objects(found), []
                corrupt += [(source.name(i), e) for i, e in sorted(itertools.chain(*every))]
                if ranks.first:
                    write_state(out, header, read, corrupt)
            if ranks.first:
                yield Progress(read, total, corrupt + [(source.name(i), e) for i, e in found])
    if ranks.first:
        finish(out, header, corrupt)
    while not (out / "meta.json").exists():  # at full scale longer than ranks wait for each other
        time.sleep(1)


def check_shape(vae, vae_name: str, shape: tuple[int, int, int]) -> None:
    """Raise ValueError for images that the autoencoder does not encode."""
    if vae.config.in_channels != shape[0]:
        raise ValueError(f"{vae_name} encodes {vae.config.in_channels} channels; the images have {shape[0]}.")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if shape[1] < factor or shape[1] % factor:
        raise ValueError(f"size = {shape[1]}: {vae_name} encodes images whose side is a multiple of {factor}.")


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
        """Write rows, the first of them at index `first`."""
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
        """Flush all rows to the disk."""
        for file in self.files.values():
            os.fsync(file.fileno())


@torch.no_grad()
def encode(vae, images: Tensor, device: torch.device | str = "cpu", bf16: bool = False) -> np.ndarray:
    """Posterior mean and standard deviation (B, 2C, h, w) of uint8 images (B, 1 or 3, H, W)."""
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        posterior = vae.encode(images.to(device).float() / 127.5 - 1).latent_dist
    return torch.cat([posterior.mean, posterior.std], dim=1).float().cpu().numpy()


def begin(out: Path, header: dict) -> tuple[int | None, list]:
    """(rows there already, corrupt ones so far); None rows: it is finished. Raises ValueError for another cache."""
    for name in ("meta.json", "state.json"):
        if (out / name).exists():
            stored = read_json(out / name, " and everything else in the folder", ("about", "corrupt"))
            before = stored["about"]
            if differ := [k for k in {**header, **before} if before.get(k) != header.get(k)]:
                changes = ", ".join(f"{k} was {before.get(k)!r}, is {header.get(k)!r}" for k in differ)
                raise ValueError(
                    f"{out} is a cache of something else ({changes}): choose another folder, or delete it."
                )
            if name == "meta.json":
                return None, stored["corrupt"]
            for array in header["arrays"]:
                if file_size(out, array) < stored["read"] * row_bytes(array, header):
                    raise ValueError(f"{out / array} is shorter than it was: delete the folder and prepare it again.")
            return stored["read"], [tuple(c) for c in stored["corrupt"]]
    make_folder(out)
    for name in header["arrays"]:
        (out / name).write_bytes(b"")
    write_state(out, header, 0, [])
    return 0, []


def write_state(out: Path, header: dict, read: int, corrupt: list) -> None:
    """Record how many images have been read, and which of them could not be."""
    write_text(out / "state.json", json.dumps({"about": header, "read": read, "corrupt": corrupt}))


def finish(out: Path, header: dict, corrupt: list) -> None:
    """Write statistics and checksums, then meta.json, which makes the cache valid."""
    split = {name: open_array(out, name, header) for name in header["arrays"]}
    rows = np.flatnonzero(split["labels.i64"] >= 0)
    if not len(rows):
        raise ValueError(f"no image of {header['source']} could be read; the first: {corrupt[0]}.")
    fitted = fit(split["moments.f32"], rows) if "moments.f32" in split else None
    if "features.f32" in split:
        mu, sigma = statistics(split["features.f32"], rows).values()
        np.savez(out / "statistics.npz", mu=mu, sigma=sigma)
    meta = {
        "about": header,
        "corrupt": corrupt,
        "fitted": fitted and dict(zip(("mean", "std"), fitted, strict=True)),
        "sha256": {name: sha256(out / name) for name in header["arrays"]},
    }
    write_text(out / "meta.json", json.dumps(meta, indent=1))
    (out / "state.json").unlink(missing_ok=True)


def classes_without_images(out: Path) -> list[str]:
    """The classes of a finished cache of which no image could be read."""
    header = read_json(out / "meta.json", keys=("about",))["about"]
    there = set(np.unique(open_array(out, "labels.i64", header)).tolist())
    return [name for k, name in enumerate(header["classes"]) if k not in there]


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


def check_disk(out: Path, need: int) -> None:
    """Raise ValueError where the disk has less room than the cache will take."""
    free = shutil.disk_usage(out).free
    if free < 1.02 * need:
        raise ValueError(
            f"{out} needs {need / 1e9:.2f} GB more, and its disk has {free / 1e9:.2f} GB free: "
            "make room or choose another folder (--out)."
        )
