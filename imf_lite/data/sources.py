"""Image sources: data sets of (uint8 image (C, H, W), label), all of one shape, that latents are prepared from.

A source has `shape`, `classes`, `description` (what it is, in words) and `name(i)`, for messages.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from . import fashion


class Source(Protocol):
    """What `preparation.prepare` needs of a data set."""

    shape: tuple[int, int, int]
    classes: list[str]
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


class Folder:
    """A folder of one folder a class, as torchvision's ImageFolder reads it; RGB, cropped to 3 x size x size.

    Raises ValueError for a folder that is missing or holds no such images.
    """

    def __init__(self, root: str | Path, size: int = 256):
        try:
            self.files = ImageFolder(str(root))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(
                f"{root} is not a data set: it must hold one folder a class with images inside ({error})."
            ) from error
        self.shape, self.classes, self.size = (3, size, size), self.files.classes, size
        names = hashlib.sha256("\n".join(path for path, _ in self.files.samples).encode()).hexdigest()[:12]
        self.description = f"{Path(root).name}, {len(self.files)} files (names {names}), cropped to {size} as by ADM"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        path, label = self.files.samples[i]
        with Image.open(path) as image:
            return pil_to_tensor(crop(image.convert("RGB"), self.size)), label

    def name(self, i: int) -> str:
        return self.files.samples[i][0]


def crop(image: Image.Image, size: int) -> Image.Image:
    """The centre square at size x size, as ADM crops ImageNet: halved while it can be, then bicubic."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


class Readable(torch.utils.data.Dataset):
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
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise  # not the file, but the machine
            return i, torch.zeros(self.source.shape, dtype=torch.uint8), -1, f"{type(error).__name__}: {error}"
