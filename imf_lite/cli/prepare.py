"""imf-lite prepare: encode a data set as latents, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from .options import UsageError, check_counts, check_folder

if TYPE_CHECKING:
    import torch

    from ..data.preparation import Progress
    from ..data.sources import Source
    from ..system.distributed import Ranks


@dataclass(frozen=True)
class Prepare:
    """Encode a data set's images with an autoencoder, once; with --vae none, keep their pixels. Run again, it resumes.

    Under torchrun it uses all GPUs.
    """

    source: tyro.conf.Positional[str]
    """fashion (torchvision's download or Debian's package); a folder with CLASS/*.jpg, or with train/CLASS/*.jpg and,
    perhaps, test/ or val/ beside it; ImageNet's ILSVRC2012_img_train.tar; a folder of webdataset or parquet shards, or
    of images without classes. As with ADM and torchvision, EXIF orientation is ignored and transparency dropped"""
    vae: str | None = None
    """autoencoder: stabilityai/sd-vae-ft-mse (default), or a local folder; fashion has its own; none: keep pixels"""
    out: Path | None = None
    """folder that is written; default: latents/SOURCE, or with --vae none pixels/SOURCE, in the data folder"""
    size: int = 256
    """side to which a folder's images are cropped"""
    extractor: str | None = None
    """also keep features and their statistics, by this extractor: digits, fashion or one of torch-fidelity's"""
    extractor_weights: str | None = None
    """file of that extractor's weights; default: torch-fidelity downloads it"""
    batch: int = 64
    """images encoded at once"""
    workers: int = 2
    """processes that read images"""
    bf16: bool = False
    """encode in bfloat16"""
    device: str | None = None
    """cuda, mps or cpu; default: the best there is"""


def prepare(options: Prepare) -> None:
    """Encode both splits of a source, or keep their pixels, in the data folder."""
    from ..data import sources
    from ..data.autoencoder import load_vae
    from ..system import distributed
    from ..system.devices import pick_device
    from ..system.lock import locked
    from ..system.paths import data_folder

    ranks, source, vae = distributed.init(), options.source, options.vae
    device = pick_device(options.device or ranks.device())
    splits: dict[str, sources.Source]
    if source == "fashion":
        vae, name = vae or "fashion", source
        splits = {"train": sources.Fashion("train"), "test": sources.Fashion("test")}
    else:
        vae, name = vae or "stabilityai/sd-vae-ft-mse", Path(source).resolve().name.removesuffix(".tar")
        splits = sources.open_splits(source, options.size)
    vae = None if vae == "none" else vae
    if vae is None and options.bf16:
        raise UsageError("--bf16 is for the autoencoder: with --vae none there is nothing to encode.")
    out = options.out or data_folder() / ("pixels" if vae is None else "latents") / name
    check_counts(options, batch=1, workers=0)
    check_folder(out)
    if source != "fashion" and out.resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"{out} lies in the data set itself: choose another folder by --out.")
    if ranks.first:
        print("; ".join(f"{split}: {len(images):,} images" for split, images in splits.items()))
        print(name_classes(splits["train"].classes))
    net, features = None if vae is None else load_vae(vae).to(device), None
    if options.extractor:
        from ..evaluation.extractors import extract  # torch-fidelity takes seconds to import

        weights = options.extractor_weights
        features = options.extractor, partial(extract, extractor=options.extractor, weights=weights, device=device)
    with locked(out) if ranks.first else nullcontext():
        encode(splits, net, vae, out, features, options, device, ranks)
    if ranks.first:
        print(f"done: {out}")
        if vae is None:
            print(f"train on it, e.g. by `imf-lite train fashion_pixels --data {out}`")


def encode(
    splits: Mapping[str, Source],
    net,
    vae: str | None,
    out: Path,
    features,
    options: Prepare,
    device: torch.device,
    ranks: Ranks,
) -> None:
    """Encode every split into a folder of its own, and say what could not be read."""
    from ..data import preparation

    for split, images in splits.items():
        steps = preparation.prepare(
            images, net, vae, out / split, features, options.batch, options.workers, device, bf16=options.bf16,
            ranks=ranks,
        )  # fmt: skip
        show_progress(steps, split, ranks.first)
        if ranks.first and (empty := preparation.classes_without_images(out / split)):
            print(f"warning: no image could be read of {', '.join(empty)}: no network can learn what has no images.")


def name_classes(classes: list[str], most: int = 12) -> str:
    """The classes with their numbers, the first and last of many."""
    numbered = [f"{k} {name}" for k, name in enumerate(classes)]
    if len(numbered) > most:
        numbered[most - 2 : -1] = ["..."]
    return f"{len(classes)} classes: {', '.join(numbered)}" if classes else "no classes: the images lie in no folders"


def show_progress(steps: Iterator[Progress], title: str, first: bool = True) -> None:
    """Run a preparation and show its progress (on the first rank); list the images that could not be read."""
    from ..system.progress import Progress as Shown

    corrupt: list[tuple[str, str]] = []
    with Shown(0, "image", title, show=first) as shown:
        for step in steps:
            shown.total, corrupt = step.total, step.corrupt
            shown.to(step.read, unreadable=len(corrupt))
    for name, error in corrupt:
        print(f"could not be read, left out: {name} ({error})")
