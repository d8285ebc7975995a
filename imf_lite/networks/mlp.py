"""A conditional residual MLP: for points in the plane, and for images so small that nothing beats it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Network, ScalarEmbedding
from .layers import FinalLayer


@dataclass(frozen=True)
class MLPConfig:
    """A residual MLP over the flattened sample."""

    kind: Literal["mlp"] = "mlp"
    width: int = 256
    """width of the residual stream"""
    depth: int = 6
    """residual blocks from input to u"""
    time_scale: float = 30.0
    """largest frequency, in radians, at which t and t - r are seen"""
    v_depth: int | None = None
    """blocks of the v-branch, which leaves the u-path that many blocks before its end; None: no v-head"""


class Block(nn.Module):
    """x + W2 silu(W1 norm(x) + Wc c), zero at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.w1, self.wc, self.w2 = (
            nn.Linear(width, width),
            nn.Linear(width, width, bias=False),
            nn.Linear(width, width),
        )
        nn.init.zeros_(self.w2.weight)
        nn.init.zeros_(self.w2.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x + self.w2(F.silu(self.w1(self.norm(x)) + self.wc(c)))


class MLP(Network):
    """Conditional residual MLP: c = emb(t) + emb(t - r) + emb(y) enters every block."""

    def __init__(self, config: MLPConfig, shape: tuple[int, ...], num_classes: int | None):
        super().__init__(shape, num_classes, has_v=config.v_depth is not None)
        width, dims = config.width, torch.Size(shape).numel()
        self.split = config.depth - (config.v_depth or 0)
        self.z_embedder = nn.Linear(dims, width)
        self.t_embedder, self.h_embedder = (ScalarEmbedding(width, config.time_scale) for _ in range(2))
        if num_classes is not None:
            self.y_embedder = nn.Embedding(num_classes + 1, width)  # the last row: no class
            nn.init.normal_(self.y_embedder.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.depth))
        self.u_head = FinalLayer(width, dims)
        if self.has_v:  # last, so that all weights above are the same without it
            self.v_blocks = nn.ModuleList(Block(width) for _ in range(config.v_depth))
            self.v_head = FinalLayer(width, dims)

    def branches(self, z: Tensor, r: Tensor, t: Tensor, cond, need_u: bool, need_v: bool):
        x = self.z_embedder(z.flatten(1))  # (B, width)
        c = self.t_embedder(t) + self.h_embedder(t - r)
        if cond.y is not None:
            c = c + self.y_embedder(cond.y)
        c = F.silu(c)
        for block in self.blocks[: self.split]:
            x = block(x, c)
        u = self.branch(x, c, self.blocks[self.split :], self.u_head, z) if need_u else None
        v = self.branch(x, c, self.v_blocks, self.v_head, z) if need_v else None
        return u, v

    @staticmethod
    def branch(x: Tensor, c: Tensor, blocks, head: FinalLayer, like: Tensor) -> Tensor:
        """The last blocks and a head: (B, width) -> the shape of a sample."""
        for block in blocks:
            x = block(x, c)
        return head(x).view_as(like)
