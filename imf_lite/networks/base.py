"""The one way in which every network is called."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from ..conditions import Cond, check_data, check_labels, check_times

Need = Literal["uv", "u", "v"]


class Network(nn.Module, ABC):
    """Average velocity u(z_t, r, t | cond) and, with a v-head, marginal velocity v; both shaped as z.

    A subclass implements `branches`. The v-branch is created last, so that the u-path and its
    initial weights are the same with and without it.

    Args:
        shape: shape of one sample, e.g. (1, 8, 8).
        num_classes: number of classes, or None for an unconditional network.
        has_v: whether there is a v-head.
        guided: whether omega, t_min and t_max are inputs.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int | None, has_v: bool, guided: bool = False):
        super().__init__()
        self.shape, self.num_classes, self.has_v, self.guided = tuple(shape), num_classes, has_v, guided

    def forward(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond(), need: Need = "uv"):
        """(u, v) at z (B, ...), r and t (B, 1, ..., 1); what is not needed, or not there, is None.

        Raises ValueError for shapes, times, labels or conditions that do not fit this network.
        """
        self.check(z, r, t, cond)
        if need == "v" and not self.has_v:
            raise ValueError("this network has no v-head: build it with v_depth, or use net.velocity(z, t, cond).")
        return self.branches(z, r, t, cond, "u" in need, "v" in need and self.has_v)

    def u(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The average velocity alone; the v-branch is not computed."""
        return self(z, r, t, cond, need="u")[0]

    def v(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The v-head alone; the u-branch is not computed."""
        return self(z, r, t, cond, need="v")[1]

    def velocity(self, z: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The predicted marginal velocity v_theta(z, t): the v-head at r = t, or the boundary u(z, t, t)."""
        return self.v(z, t, t, cond) if self.has_v else self.u(z, t, t, cond)

    @abstractmethod
    def branches(self, z, r, t, cond, need_u: bool, need_v: bool) -> tuple[Tensor | None, Tensor | None]:
        """Compute the branches asked for."""

    def check(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond) -> None:
        """Raise ValueError where the arguments do not fit this network."""
        check_data("z", z)
        if z.shape[1:] != self.shape:
            raise ValueError(f"z holds samples of shape {tuple(z.shape[1:])}; this network was built for {self.shape}.")
        check_times(z, r, t)
        built = Cond(self.num_classes is not None, self.guided, self.guided, self.guided)
        for name, c, wanted in zip(Cond._fields, cond, built, strict=True):
            if wanted and c is None:
                raise ValueError(
                    f"this network needs the condition {name}: pass Cond({name}=...) of shape ({len(z)},)."
                )
            if c is not None and not wanted:
                raise ValueError(f"this network was built without the condition {name}: leave it out, or rebuild.")
            if c is not None and c.shape != (len(z),):
                raise ValueError(f"condition {name} has shape {tuple(c.shape)}; a batch of {len(z)} needs ({len(z)},).")
        if cond.y is not None:
            check_labels(cond.y, self.num_classes)


class ScalarEmbedding(nn.Module):
    """A scalar per row as a vector: 256 sinusoids -> Linear -> SiLU -> Linear (as DiT and iMF).

    Their frequencies fall from `scale` to 1e-4 `scale`; iMF's reference code has scale 1.
    """

    def __init__(self, width: int, scale: float = 1.0, sinusoids: int = 256):
        super().__init__()
        half = sinusoids // 2
        freq = scale * torch.exp(-math.log(1e4) * torch.arange(half) / half)
        self.register_buffer("freq", freq, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(sinusoids, width), nn.SiLU(), nn.Linear(width, width))
        for linear in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, s: Tensor) -> Tensor:
        angle = s.flatten()[:, None] * self.freq  # (B, sinusoids / 2)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))  # (B, width)
