"""Fashion-MNIST: 70,000 real photographs of clothes, 28 x 28, ten classes (Xiao et al., arXiv 1708.07747).

Read from torchvision's download (in the data folder) or from Debian's package, whichever is there.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..system.paths import data_folder

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PREFIX = {"train": "train", "test": "t10k"}


def load_images(split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32), uint8, two black pixels around each side, and labels (N,): 60,000 or 10,000.

    Raises ValueError naming both ways to get the data where it is in neither place, or for a damaged file.
    """
    images, labels = (read_idx(find(f"{PREFIX[split]}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    return F.pad(images[:, None], (2, 2, 2, 2)), labels.long()


def find(name: str) -> Path:
    """One of the four files, compressed or not."""
    downloaded = data_folder() / "FashionMNIST" / "raw"
    for folder in (downloaded, DEBIAN):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return path
    raise ValueError(
        f"Fashion-MNIST is neither in {downloaded} nor in {DEBIAN}. Get it by either of\n"
        '  python -c "from torchvision.datasets import FashionMNIST as F; '
        f'F({str(data_folder())!r}, download=True)"\n'
        "  sudo apt-get install dataset-fashion-mnist"
    )


def read_idx(path: Path) -> Tensor:
    """A uint8 array in MNIST's format: two zero bytes, type 8, number of dimensions, sizes, values."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        start = 4 + 4 * raw[3]
        shape = np.frombuffer(raw[4:start], ">i4")
        if raw[:3] != b"\x00\x00\x08":
            raise ValueError("not an IDX file of bytes")
        return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())
    except (ValueError, IndexError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and fetch it again.") from error
