"""A conditional residual MLP, for 2-D points and 8 x 8 images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs import MLPConfig
from .base import Network
from .embeddings import SummedEmbedding
from .layers import FinalLayer, RMSNorm


class Block(nn.Module):
    """x + W2 silu(W1 norm(x) + Wc c), zero at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width)
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
    """Conditional residual MLP: the sum of all conditions' embeddings enters every block."""

    def __init__(self, config: MLPConfig, shape: tuple[int, ...], num_classes: int | None):
        super().__init__(config, shape, num_classes)
        width, dims = config.width, torch.Size(shape).numel()
        self.split = config.depth - (config.v_depth or 0)
        self.z_embedder = nn.Linear(dims, width)
        self.conditioning = SummedEmbedding(width, num_classes, config.guided, config.time_scale)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.depth))
        self.u_head = FinalLayer(width, dims)
        if config.v_depth is not None:  # last, so that all weights above are the same without it
            self.v_blocks = nn.ModuleList(Block(width) for _ in range(config.v_depth))
            self.v_head = FinalLayer(width, dims)

    def trunk(self, z: Tensor, r: Tensor, t: Tensor, cond) -> tuple[Tensor, Tensor]:
        x = self.z_embedder(z.flatten(1))  # (B, width)
        c = F.silu(self.conditioning(r, t, cond))
        for block in self.blocks[: self.split]:
            x = self.run(block, x, c)
        return x, c

    def u_branch(self, x: Tensor, c: Tensor) -> Tensor:
        return self.branch(x, c, self.blocks[self.split :], self.u_head)

    def v_branch(self, x: Tensor, c: Tensor) -> Tensor:
        return self.branch(x, c, self.v_blocks, self.v_head)

    def branch(self, x: Tensor, c: Tensor, blocks, head: FinalLayer) -> Tensor:
        """The last blocks and a head: (B, width) -> the shape of a sample."""
        for block in blocks:
            x = self.run(block, x, c)
        return head(x).view(-1, *self.shape)
