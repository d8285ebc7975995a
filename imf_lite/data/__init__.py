"""Data sets, by name. A run reads len(split), split.shape, split.y and split.batch(indices, *seeds) of any of them.

May import: configs, system, and the method's checks (conditions). Does not use networks or training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..conditions import check_data
from ..configs import Normalisation
from ..system.files import digest
from ..system.paths import data_folder
from . import cache, digits, pixels
from .cache import LatentSplit
from .images import to_uint8
from .normalisation import Latents
from .pixels import PixelSplit

PREPARED = {"fashion": "latents/fashion", "imagenet": "latents/imagenet", "imagenet_pixels": "pixels/imagenet"}
"""data sets that `imf-lite prepare` writes to a folder of the data folder"""


@dataclass(frozen=True)
class Split:
    """Samples x (N, ...), floating point, about [-1, 1]; labels y (N,) or None. All in memory."""

    x: Tensor
    y: Tensor | None

    def __post_init__(self) -> None:
        check_data("x", self.x)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def images(self) -> Tensor:
        """All samples as uint8 images (N, C, H, W)."""
        return to_uint8(self.x)

    def chunks(self, size: int = 2000) -> Iterator[Tensor]:
        """All samples as uint8 images, in parts."""
        yield from self.images.split(size)

    def fingerprint(self) -> str:
        """SHA-256 of samples and labels."""
        return digest({"x": self.x} | ({} if self.y is None else {"y": self.y}))

    def batch(self, indices: Tensor, *seeds: int) -> tuple[Tensor, Tensor | None]:
        """The samples and labels at `indices` (B,); nothing in them is random."""
        return self.x[indices], None if self.y is None else self.y[indices]


class Data(NamedTuple):
    """A data set: two splits, the number of classes (None: unlabelled), what its latents are (None: pixels), and the
    names of its classes, where they have any."""

    train: Split | LatentSplit | PixelSplit
    held_out: Split | LatentSplit | PixelSplit | None
    num_classes: int | None
    latents: Latents | None = None
    classes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 of what is trained on."""
        return self.train.fingerprint()


def load(name: str, normalisation: Normalisation = "imf") -> Data:
    """A data set by name: digits; one of torchvision's (FashionMNIST, ...); fashion, imagenet or imagenet_pixels,
    prepared in the data folder; or a folder of what was prepared, latents or pixels.

    Raises ValueError for an unknown name, or data that are not there or not prepared.
    """
    if name == "digits":
        train, held_out, num_classes = digits.load()
        return Data(Split(*train), Split(*held_out), num_classes, classes=tuple(map(str, range(num_classes))))
    if not name:
        raise ValueError("data = ''; it names a data set, e.g. digits.")
    if name in pixels.TORCHVISION:
        train_pixels, test_pixels, names = pixels.load(name)
        return Data(train_pixels, test_pixels, len(names), classes=names)
    folder = folder_of(name)
    if name not in PREPARED and not folder.is_dir():
        raise ValueError(
            f"no data set named {name!r}; there is: digits, {', '.join((*pixels.TORCHVISION, *PREPARED))}, or a folder "
            "that `imf-lite prepare` wrote."
        )
    split, classes = cache.load(folder / "train", normalisation)
    test = cache.load(folder / "test", normalisation)[0] if (folder / "test").exists() else None
    latents = split.latents if isinstance(split, LatentSplit) else None
    return Data(split, test, len(classes) or None, latents, tuple(classes))


def folder_of(name: str) -> Path:
    """Where what was prepared of a data set lies: in the data folder, or in the folder that the name itself is."""
    return data_folder() / PREPARED[name] if name in PREPARED else Path(name)
