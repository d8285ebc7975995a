"""The in-context DiT of improved MeanFlow: conditions are tokens, not modulations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from .base import Network, ScalarEmbedding
from .layers import Block, FinalLayer, rope_table


@dataclass(frozen=True)
class DiTConfig:
    """The in-context DiT; the defaults are iMF-B/2, whose v-branch is 8 blocks deep (iMF, appendix A)."""

    kind: Literal["dit"] = "dit"
    width: int = 768
    """width of a token"""
    depth: int = 12
    """blocks from input to u"""
    heads: int = 12
    """attention heads"""
    patch: int = 2
    """side of a patch"""
    v_depth: int | None = None
    """blocks of the v-branch, which leaves the u-path that many blocks before its end; None: no v-head"""
    guided: bool = False
    """whether omega, t_min and t_max are inputs"""
    class_tokens: int = 8
    omega_tokens: int = 4
    interval_tokens: int = 2
    """tokens each for t_min and t_max"""
    time_tokens: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} over {self.heads} heads: rotary positions need an even width a head.")


class DiT(Network):
    """Tokens for class, omega, t_min, t_max and h = t - r in front of the patch tokens; no adaLN.

    t itself is not an input, h is.
    """

    def __init__(self, config: DiTConfig, shape: tuple[int, int, int], num_classes: int | None):
        super().__init__(shape, num_classes, has_v=config.v_depth is not None, guided=config.guided)
        C, height, w = shape
        D, p = config.width, config.patch
        if height % p or w % p:
            raise ValueError(f"patch {p} does not divide images of {height} x {w}.")
        self.patch, self.grid, shared = p, (height // p, w // p), config.depth - (config.v_depth or 0)

        self.x_embedder = nn.Conv2d(C, D, p, p)
        nn.init.xavier_uniform_(self.x_embedder.weight.data.view(D, -1))  # as a Linear
        nn.init.zeros_(self.x_embedder.bias)
        self.prefix = 0
        if num_classes is not None:
            self.y_embedder = nn.Embedding(num_classes + 1, D)  # the last row: no class
            nn.init.normal_(self.y_embedder.weight, std=D**-0.5)
            self.class_tokens = self.tokens(config.class_tokens, D)
        if config.guided:
            self.omega_embedder, self.omega_tokens = ScalarEmbedding(D), self.tokens(config.omega_tokens, D)
            self.t_min_embedder, self.t_min_tokens = ScalarEmbedding(D), self.tokens(config.interval_tokens, D)
            self.t_max_embedder, self.t_max_tokens = ScalarEmbedding(D), self.tokens(config.interval_tokens, D)
        self.h_embedder, self.time_tokens = ScalarEmbedding(D), self.tokens(config.time_tokens, D)

        cos, sin = rope_table(self.prefix + self.grid[0] * self.grid[1], D // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.shared_blocks = nn.ModuleList(Block(D, config.heads) for _ in range(shared))
        self.u_heads = nn.ModuleList(Block(D, config.heads) for _ in range(config.depth - shared))
        self.u_final_layer = FinalLayer(D, p * p * C)
        if self.has_v:  # last, so that all weights above are the same without it
            self.v_heads = nn.ModuleList(Block(D, config.heads) for _ in range(config.v_depth))
            self.v_final_layer = FinalLayer(D, p * p * C)

    def tokens(self, count: int, width: int) -> nn.Parameter:
        """Learned tokens of one condition, N(0, 1 / width); counts them as prefix."""
        self.prefix += count
        return nn.Parameter(torch.randn(count, width) * width**-0.5)

    def branches(self, z: Tensor, r: Tensor, t: Tensor, cond, need_u: bool, need_v: bool):
        patches = self.x_embedder(z).flatten(2).transpose(1, 2)  # (B, N, D), row-major
        x = torch.cat([*self.condition_tokens(t - r, cond), patches], dim=1)  # (B, prefix + N, D)
        rope = (self.cos, self.sin)
        for block in self.shared_blocks:
            x = block(x, rope)
        u = self.branch(x, rope, self.u_heads, self.u_final_layer) if need_u else None
        v = self.branch(x, rope, self.v_heads, self.v_final_layer) if need_v else None
        return u, v

    def condition_tokens(self, h: Tensor, cond) -> list[Tensor]:
        """Each condition's learned tokens plus its embedding: class, omega, t_min, t_max, h."""
        groups = []
        if cond.y is not None:
            groups.append((self.class_tokens, self.y_embedder(cond.y)))
        if self.guided:
            groups.append((self.omega_tokens, self.omega_embedder(1 - 1 / cond.omega)))
            groups.append((self.t_min_tokens, self.t_min_embedder(cond.t_min)))
            groups.append((self.t_max_tokens, self.t_max_embedder(cond.t_max)))
        groups.append((self.time_tokens, self.h_embedder(h)))
        return [tokens + embedding[:, None] for tokens, embedding in groups]  # (B, count, D) each

    def branch(self, x: Tensor, rope, blocks: nn.ModuleList, final: FinalLayer) -> Tensor:
        """The last blocks, then patches back to an image: (B, prefix + N, D) -> (B, C, height, width)."""
        for block in blocks:
            x = block(x, rope)
        height, width = self.grid
        return rearrange(
            final(x[:, self.prefix :]),
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=height,
            w=width,
            p=self.patch,
            q=self.patch,
        )
