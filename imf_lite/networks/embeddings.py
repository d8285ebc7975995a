"""Conditions as vectors: one scalar, or everything summed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..conditions import Cond
from ..configs import Guided


class ScalarEmbedding(nn.Module):
    """A scalar per row as a vector: 256 sinusoids -> Linear -> SiLU -> Linear (as DiT and iMF).

    Their frequencies fall from `scale` to 1e-4 `scale`; both papers' code has scale 1. `std` is that
    of the initial weights: 0.02 in MF; None means fan_in^-0.5, as in iMF.
    """

    freq: Tensor

    def __init__(self, width: int, scale: float = 1.0, std: float | None = None, sinusoids: int = 256):
        super().__init__()
        half = sinusoids // 2
        freq = scale * torch.exp(-math.log(1e4) * torch.arange(half) / half)
        self.register_buffer("freq", freq, persistent=False)
        first, second = nn.Linear(sinusoids, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)
        for linear in (first, second):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5 if std is None else std)
            nn.init.zeros_(linear.bias)

    def forward(self, s: Tensor) -> Tensor:
        angle = s.flatten()[:, None] * self.freq  # (B, sinusoids / 2)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))  # (B, width)


class SummedEmbedding(nn.Module):
    """All conditions as one vector: emb(t) + emb(t - r) + emb(y), and, if guided, + emb(1 - 1/omega) + ...

    MF sums t, t - r and y; iMF's ablation adds omega, t_min and t_max (both with DiT's embedders).
    """

    def __init__(
        self, width: int, num_classes: int | None, guided: Guided, scale: float = 1.0, std: float | None = None
    ):
        super().__init__()
        self.t_embedder, self.h_embedder = (ScalarEmbedding(width, scale, std) for _ in range(2))
        if num_classes is not None:
            self.y_embedder = class_table(width, num_classes, std)
        with separate_init_rng():
            if guided != "no":
                self.omega_embedder = ScalarEmbedding(width, scale, std)
            if guided == "interval":
                self.t_min_embedder, self.t_max_embedder = (ScalarEmbedding(width, scale, std) for _ in range(2))

    def forward(self, r: Tensor, t: Tensor, cond: Cond) -> Tensor:
        c = self.t_embedder(t) + self.h_embedder(t - r)  # (B, width)
        if cond.y is not None:
            c = c + self.y_embedder(cond.y)
        if cond.omega is not None:
            c = c + self.omega_embedder(1 - 1 / cond.omega)
        if cond.t_min is not None:
            c = c + self.t_min_embedder(cond.t_min) + self.t_max_embedder(cond.t_max)
        return c


def class_table(width: int, num_classes: int, std: float | None = None) -> nn.Embedding:
    """A vector for each class, and a last one for "no class"; N(0, 1 / width), or of standard deviation std."""
    table = nn.Embedding(num_classes + 1, width)
    nn.init.normal_(table.weight, std=width**-0.5 if std is None else std)
    return table


@contextmanager
def separate_init_rng(which: int = 1) -> Iterator[None]:
    """Draw initial weights from a stream of their own: all others are the same with and without them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() + which)
        yield
