"""Data sets of pixels: uint8 images, in memory or memory-mapped from a cache; torchvision's small sets by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..system.files import digest
from ..system.paths import data_folder
from . import fashion

TORCHVISION = ("MNIST", "FashionMNIST", "CIFAR10")
"""data sets of torchvision's that are known by name, read from where torchvision keeps them"""


@dataclass(frozen=True)
class PixelSplit:
    """Images as pixels: each batch is scaled to [-1, 1] when it is asked for."""

    pixels: np.ndarray
    """(N, C, H, W), uint8, in memory or on disk"""
    rows: np.ndarray
    """(M,) rows that hold an image"""
    y: Tensor | None
    """(M,) labels; None: the images have no classes"""
    sha256: str
    """of all that it holds"""
    folder: Path | None = None
    """where its cache lies; None: in memory"""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.pixels.shape[1:])

    @property
    def images(self) -> Tensor:
        """All images (M, C, H, W), uint8."""
        return torch.from_numpy(self.pixels[self.rows])

    def chunks(self, size: int = 2000) -> Iterator[Tensor]:
        """All images in parts, so that those on disk need not fit into memory."""
        for first in range(0, len(self), size):
            yield torch.from_numpy(self.pixels[self.rows[first : first + size]])

    def fingerprint(self) -> str:
        """SHA-256 of images and labels, of a cache as they were when it was finished."""
        return self.sha256

    def batch(self, indices: Tensor, *seeds: int) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) in [-1, 1] and labels (B,) at `indices`; nothing in them is random."""
        images = torch.from_numpy(self.pixels[self.rows[indices.numpy()]])
        return images.float() / 127.5 - 1, None if self.y is None else self.y[indices]


def in_memory(images: Tensor, y: Tensor | None) -> PixelSplit:
    """A split of uint8 images (N, C, H, W) and labels (N,)."""
    known = digest({"images": images} | ({} if y is None else {"y": y}))
    return PixelSplit(images.numpy(), np.arange(len(images)), y, known)


def load(name: str) -> tuple[PixelSplit, PixelSplit, tuple[str, ...]]:
    """Training split, test split and names of the classes of one of torchvision's sets; MNIST's padded to 32 x 32.

    Fashion-MNIST is also read from Debian's package. Raises ValueError, with the command that downloads the set, where
    it is not there or damaged.
    """
    if name == "FashionMNIST":
        train, test = (in_memory(*fashion.load_images(split)) for split in ("train", "test"))
        return train, test, fashion.CLASSES
    (train, classes), (test, _) = (of_torchvision(name, split) for split in ("train", "test"))
    return train, test, classes


def of_torchvision(name: str, split: Literal["train", "test"]) -> tuple[PixelSplit, tuple[str, ...]]:
    """A split as torchvision reads it."""
    from torchvision import datasets  # takes a second to import

    root = data_folder()
    try:
        found = getattr(datasets, name)(root, train=split == "train", download=False)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{name} is not in {root}, or damaged ({error}). Download it by\n"
            f'  python -c "from torchvision.datasets import {name} as D; D({str(root)!r}, download=True)"'
        ) from error
    images = torch.as_tensor(found.data)
    images = F.pad(images[:, None], (2, 2, 2, 2)) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return in_memory(images, torch.as_tensor(found.targets)), tuple(found.classes)
