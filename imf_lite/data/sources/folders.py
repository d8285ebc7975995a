"""Images in folders: one folder per class, or a flat folder of images without classes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..images import read_image


class FlatFolder:
    """A folder of images without classes: every label is 0, and `classes` is empty."""

    def __init__(self, root: str | Path, size: int = 256):
        self.root, self.shape, self.size = Path(root), (3, size, size), size
        self.classes: list[str] = []
        self.files = [(name, 0) for name in images_in(self.root)]
        self.description = describe(self.root, self.files, size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        name, label = self.files[i]
        try:
            return read_image(self.root / name, self.size), label
        except FileNotFoundError as error:
            if not self.root.exists():  # not this image: all of them
                raise OSError(errno.ENODEV, f"{self.root} is gone: is its disk still there?") from error
            raise

    def name(self, i: int) -> str:
        return str(self.root / self.files[i][0])


class ClassFolders(FlatFolder):
    """A folder with one folder per class. Classes are numbered in natural order (2 before 10).

    classes: the names of the training split, whose numbers another split takes over.
    Raises ValueError for a folder without classes, classes without images, or with others than those given.
    """

    def __init__(self, root: str | Path, size: int = 256, classes: list[str] | None = None):
        self.root, self.shape, self.size = Path(root), (3, size, size), size
        own = class_names(self.root)
        inside = {name: images_in(self.root / name) for name in own}
        if not own:
            raise ValueError(f"{root} is not a data set: it must hold one folder a class with images inside.")
        if empty := [name for name, files in inside.items() if not files]:
            raise ValueError(
                f"{root} holds folders without images, such as {empty[0]!r}: they would count as classes. Remove them, "
                f"or fill them (files end in {', '.join(IMG_EXTENSIONS)})."
            )
        if unknown := [name for name in own if name not in (classes or own)]:
            raise ValueError(
                f"{root} holds {len(unknown)} classes that the training split does not have, such as {unknown[0]!r}: "
                "remove or rename their folders."
            )
        self.classes = classes or own
        number = {name: k for k, name in enumerate(self.classes)}
        self.files = [(f"{c}/{name}", number[c]) for c in own for name in inside[c]]
        self.description = describe(self.root, self.files, size)


def describe(root: Path, files: list[tuple[str, int]], size: int) -> str:
    """What a split is, in words: recognised again after its folder moved, but not with other files in it."""
    listed = "\n".join(f"{name} {size_of(root / name)}" for name, _ in files)
    names = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{root.resolve().name}, {len(files)} files (names and sizes {names}), cropped to {size} as by ADM"


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where it is none, such as a link that leads nowhere."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def class_names(root: Path) -> list[str]:
    """Folders of a folder, in natural order, if any of them holds an image; hidden ones do not count."""
    if not root.is_dir():
        return []
    names = natural(entry.name for entry in os.scandir(root) if entry.is_dir() and not hidden(entry.name))
    return names if any(any(walk(root / name)) for name in names) else []


def images_in(root: Path) -> list[str]:
    """Image files anywhere below a folder, as paths relative to it, in natural order; hidden ones are left out."""
    return natural(walk(root))


def walk(root: Path) -> Iterator[str]:
    """Image files below a folder, as they come. Links to folders are followed, each folder once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back into what was walked
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not hidden(name)]
        for name in files:
            if name.lower().endswith(IMG_EXTENSIONS) and not hidden(name):
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def hidden(name: str) -> bool:
    """Whether a file is hidden (macOS writes ._NAME beside every image on foreign disks) or a tool's own."""
    return name.startswith(".") or name == "__MACOSX"


def natural(names: Iterable[str]) -> list[str]:
    """Names in natural order, in which runs of digits count as numbers."""

    def key(name: str) -> tuple:
        parts = re.split(r"([0-9]+)", name)  # text, digits, text, ...
        return [int(part) if k % 2 else part for k, part in enumerate(parts)], name

    return sorted(names, key=key)
