"""Data sets, by name. A run reads `len(split)` and `split.batch(indices)`, whatever is behind them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from . import digits


class Split(NamedTuple):
    """Samples x (N, ...), floating point, about [-1, 1]; labels y (N,) or None."""

    x: Tensor
    y: Tensor | None

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """The samples and labels at `indices` (B,)."""
        return self.x[indices], None if self.y is None else self.y[indices]


class Data(NamedTuple):
    """A data set: two splits and the number of classes (None: unlabelled)."""

    train: Split
    held_out: Split
    num_classes: int | None


def load(name: str) -> Data:
    """A data set by name. Raises ValueError for an unknown name."""
    loaders = {"digits": digits.load}
    if name not in loaders:
        raise ValueError(f"no data set named {name!r}; there is: {', '.join(loaders)}.")
    train, held_out, num_classes = loaders[name]()
    return Data(Split(*train), Split(*held_out), num_classes)
