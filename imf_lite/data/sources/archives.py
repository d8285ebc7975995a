"""Images in tar archives, read in place: ImageNet's tar of tars, webdataset shards, a tar of class folders."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..images import read_image
from .folders import describe, hidden, natural


class Member(NamedTuple):
    """A file inside an archive: where its bytes are."""

    archive: Path
    name: str
    start: int
    size: int


class Archives:
    """Images of one or several uncompressed tar archives, found once and read by their place.

    ILSVRC2012_img_train.tar: one tar a class inside, numbered in the sorted order of their names. Webdataset shards:
    NAME.jpg and NAME.cls, which holds the number. Else the folder of an image is its class. Without any of these
    the images have no classes.
    Raises ValueError for an archive that is damaged or holds no image.
    """

    def __init__(self, archives: Sequence[Path], size: int = 256):
        self.shape, self.size = (3, size, size), size
        members = [member for archive in archives for member in contents(archive)]
        images = [m for m in members if m.name.lower().endswith(IMG_EXTENSIONS)]
        numbers = {key(m): m for m in members if m.name.endswith(".cls")}
        if not images:
            raise ValueError(f"{archives[0]} holds no image: files end in {', '.join(IMG_EXTENSIONS)}.")
        if numbers:
            if missing := [m.name for m in images if key(m) not in numbers]:
                raise ValueError(
                    f"{archives[0]}: {len(missing)} images have no .cls beside them, such as {missing[0]}."
                )
            self.labels = [int(read(numbers[key(m)])) for m in images]
            self.classes = [str(k) for k in range(max(self.labels) + 1)]
        else:
            folders = [PurePosixPath(m.name).parent.name for m in images]
            self.classes = natural(set(folders)) if all(folders) and len(set(folders)) > 1 else []
            order = {name: k for k, name in enumerate(self.classes)}
            self.labels = [order.get(folder, 0) for folder in folders]
        self.images = images
        names = [(f"{m.archive.name}: {m.name} {m.size}", 0) for m in images]
        self.description = describe(archives[0].parent, names, size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return read_image(io.BytesIO(read(self.images[i])), self.size), self.labels[i]

    def name(self, i: int) -> str:
        member = self.images[i]
        return f"{member.archive}: {member.name}"


def is_archive(path: Path) -> bool:
    """Whether a file is an uncompressed tar by its name."""
    return path.suffix == ".tar"


def contents(archive: Path, start: int = 0, size: int | None = None, within: str = "") -> Iterator[Member]:
    """All files of an archive, or of one inside it; a FILE of an inner archive NAME.tar is named NAME/FILE."""
    try:
        with open(archive, "rb") as file:
            whole = file.seek(0, io.SEEK_END)
            end = whole if size is None else start + size
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    name = within + info.name.removeprefix("./")
                    if not info.isfile() or hidden(PurePosixPath(name).name) or info.offset_data >= end:
                        continue
                    if info.offset_data + info.size > whole:
                        raise tarfile.ReadError("it is shorter than its table of contents says")
                    if name.endswith(".tar"):
                        yield from contents(archive, info.offset_data, info.size, f"{name.removesuffix('.tar')}/")
                    else:
                        yield Member(archive, name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise ValueError(f"{archive} cannot be read as a tar archive ({error}): fetch it again.") from error


def key(member: Member) -> tuple[Path, str]:
    """What the files of one webdataset sample share: the archive, and the name up to the first dot."""
    path = PurePosixPath(member.name)
    return member.archive, str(path.with_name(path.name.split(".")[0]))


def read(member: Member) -> bytes:
    """A member's bytes."""
    with open(member.archive, "rb") as file:
        file.seek(member.start)
        return file.read(member.size)
