"""The adaLN-zero DiT of MeanFlow: one vector, the sum of all conditions, modulates every block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..configs import AdaLNConfig
from .base import Network
from .embeddings import SummedEmbedding
from .layers import ClassicAttention, GeluMLP, Patches, sincos_positions, zero


class AdaLNDiT(Network):
    """DiT with embeddings of t, t - r and y summed (MF, section 4.3 and its reference code)."""

    def __init__(self, config: AdaLNConfig, shape: tuple[int, int, int], num_classes: int | None):
        super().__init__(config, shape, num_classes)
        D, out = config.width, config.patch**2 * shape[0]
        self.split = config.depth - (config.v_depth or 0)
        self.x_embedder = Patches(shape, D, config.patch)
        self.conditioning = SummedEmbedding(D, num_classes, config.guided, std=0.02)
        self.register_buffer("positions", sincos_positions(self.x_embedder.grid, D), persistent=False)
        self.blocks = nn.ModuleList(AdaLNBlock(D, config.heads) for _ in range(config.depth))
        self.final_layer = AdaLNFinal(D, out)
        if config.v_depth is not None:  # last, so that all weights above are the same without it
            self.v_blocks = nn.ModuleList(AdaLNBlock(D, config.heads) for _ in range(config.v_depth))
            self.v_final_layer = AdaLNFinal(D, out)

    def trunk(self, z: Tensor, r: Tensor, t: Tensor, cond) -> tuple[Tensor, Tensor]:
        x = self.x_embedder(z) + self.positions  # (B, N, D)
        c = F.silu(self.conditioning(r, t, cond))  # (B, D)
        for block in self.blocks[: self.split]:
            x = self.run(block, x, c)
        return x, c

    def u_branch(self, x: Tensor, c: Tensor) -> Tensor:
        return self.branch(x, c, self.blocks[self.split :], self.final_layer)

    def v_branch(self, x: Tensor, c: Tensor) -> Tensor:
        return self.branch(x, c, self.v_blocks, self.v_final_layer)

    def branch(self, x: Tensor, c: Tensor, blocks, final: AdaLNFinal) -> Tensor:
        """The last blocks, then patches back to an image: (B, N, D) -> (B, C, height, width)."""
        for block in blocks:
            x = self.run(block, x, c)
        return self.x_embedder.inverse(final(x, c))


class AdaLNBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by c; the modulation starts at zero."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.attn, self.mlp = ClassicAttention(width, heads), GeluMLP(width)
        self.modulation = zero(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, dim=2)  # (B, 1, D) each
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class AdaLNFinal(nn.Module):
    """Modulated norm and a Linear, both zero at the start: from tokens to patches."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation, self.linear = zero(nn.Linear(width, 2 * width)), zero(nn.Linear(width, out))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=2)
        return self.linear(self.norm(x) * (1 + scale) + shift)
