"""Image sources: data sets of (uint8 image (C, H, W), label), all of one shape, from which latents are prepared.

`open_splits` finds out how a data set lies on the disk: class folders, archives, shards, or images without classes.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from .. import fashion
from .archives import Archives, is_archive
from .folders import ClassFolders, FlatFolder, class_names, hidden, images_in, walk
from .shards import ParquetShards

LAYOUTS = """give one of
  FOLDER/CLASS/*.jpg, or FOLDER/train/CLASS/*.jpg with, perhaps, test/ or val/ beside train/
  FOLDER/ILSVRC/Data/CLS-LOC/train/CLASS/*.JPEG (ImageNet from Kaggle)
  ILSVRC2012_img_train.tar (ImageNet's own archive, a tar of tars; it need not be unpacked)
  FOLDER/*.tar (webdataset shards: NAME.jpg beside NAME.cls)
  FOLDER/*.parquet or FOLDER/data/*.parquet (shards as on the Hub: columns image, label)
  FOLDER/*.jpg (images without classes)"""
MACHINE = {
    errno.EIO,
    errno.ENOSPC,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.ENODEV,
    errno.ENXIO,
    errno.ETIMEDOUT,
}
"""errors of the machine, not of one image: they stop a preparation"""


class Source(Protocol):
    """What `preparation.prepare` needs of a data set."""

    shape: tuple[int, int, int]
    classes: list[str]
    """names of the classes, label 0 first; empty: the images have no classes"""
    description: str

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> tuple[Tensor, int]: ...
    def name(self, i: int) -> str: ...


class Fashion:
    """Fashion-MNIST, padded to 1 x 32 x 32."""

    def __init__(self, split: Literal["train", "test"]):
        self.images, self.labels = fashion.load_images(split)
        self.shape, self.classes = (1, 32, 32), list(fashion.CLASSES)
        self.description, self.split = f"Fashion-MNIST, {split}, padded by 2", split

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.images[i], int(self.labels[i])

    def name(self, i: int) -> str:
        return f"{self.split} image {i}"


def open_splits(path: str | Path, size: int = 256) -> dict[str, Source]:
    """The splits of a data set on the disk, cropped to 3 x size x size: "train" and, where there is one, "test".

    Classes in the test split (test/ or val/) have the numbers of the training split. Raises ValueError,
    naming the layouts that are understood, for anything else.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"{path} is not a data set: there is no such file or folder; {LAYOUTS}.")
    if path.is_file():
        if is_archive(path):
            return {"train": Archives([path], size)}
        raise ValueError(f"{path} is not a data set: {LAYOUTS}.")
    for inside in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC"):  # Kaggle's, from wherever one points
        if (path / inside / "train").is_dir():
            return open_splits(path / inside, size)
    if (path / "train").is_dir():
        names = ("train", "test", "val", "validation")
        beside = [n for n in class_names(path) if n not in names and any(walk(path / n))]
        if beside and any(walk(path / "train")):
            raise ValueError(
                f"{path} holds train/ beside other folders of images, such as {beside[0]}/: if train is a class, move "
                f"all classes into {path}/train/; if it is a split, move the others away."
            )
    if images_in_itself(path / "train"):
        held_out = next((path / name for name in ("test", "val") if images_in_itself(path / name)), None)
        train, test = FlatFolder(path / "train", size), held_out and FlatFolder(held_out, size)
        return {"train": train, **({"test": test} if test else {})}
    if class_names(path / "train"):
        train = ClassFolders(path / "train", size)
        held_out = next((path / name for name in ("test", "val") if class_names(path / name)), None)
        # ImageNet's own test folder, and Kaggle's val, hold images of no class: they are left out
        return {"train": train, **({"test": ClassFolders(held_out, size, train.classes)} if held_out else {})}
    for folder in (path, path / "data"):
        if shards := sorted(folder.glob("*.parquet")):
            return by_split(shards, lambda files: ParquetShards(files, size))
    if archives := sorted(p for p in path.glob("*.tar") if not p.name.startswith(".")):
        return by_split(archives, lambda files: Archives(files, size))
    if class_names(path):
        if any(p.name.lower().endswith(IMG_EXTENSIONS) and not hidden(p.name) for p in path.iterdir() if p.is_file()):
            raise ValueError(f"{path} holds images beside the folders of its classes: move them into a class, or away.")
        return {"train": ClassFolders(path, size)}
    if images_in(path):
        return {"train": FlatFolder(path, size)}
    raise ValueError(f"{path} is not a data set: it holds none of the layouts that are understood; {LAYOUTS}.")


def by_split(files: Sequence[Path], make) -> dict[str, Source]:
    """Shards by the split in their names; all are of the training split where no name says otherwise."""
    kinds = {"train": ("train",), "test": ("test", "val")}
    named = {
        split: [file for file in files if any(word in file.name.lower() for word in words)]
        for split, words in kinds.items()
    }
    if not named["train"]:
        named = {"train": [file for file in files if file not in named["test"]], "test": named["test"]}
    if not named["train"]:
        raise ValueError(f"{files[0].parent} holds only test shards, such as {files[0].name}: add training shards.")
    made = {split: make(chosen) for split, chosen in named.items() if chosen}
    if "test" in made and max(made["test"].labels, default=-1) < 0 <= max(made["train"].labels, default=-1):
        del made["test"]  # the Hub's test shards of ImageNet have no labels
    return made


def images_in_itself(folder: Path) -> bool:
    """Whether a folder holds images directly, and no folders with images."""
    return folder.is_dir() and not class_names(folder) and bool(images_in(folder))


class SafeDataset(Dataset):
    """A source by rows (i, image, label, ""); a damaged image gets the label -1 and its error."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[int, Tensor, int, str]:
        try:
            image, label = self.source[i]
            return i, image, label, ""
        except Exception as error:  # every decoder has errors of its own
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINE:
                raise
            return i, torch.zeros(self.source.shape, dtype=torch.uint8), -1, f"{type(error).__name__}: {error}"
