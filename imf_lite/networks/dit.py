"""The in-context DiT of improved MeanFlow: conditions are tokens, not modulations."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from ..configs import DiTConfig
from .base import Network
from .embeddings import ScalarEmbedding, class_table, separate_init_rng
from .layers import Block, FinalLayer, Patches, grid_rope_table, rope_table, sincos_positions


def without_branch(name: str, shared: int) -> str:
    """The name of a u-path's tensor without the v-branch: u_heads continue the numbering of shared_blocks."""
    return re.sub(r"^u_heads\.(\d+)", lambda match: f"shared_blocks.{shared + int(match[1])}", name)


class DiT(Network):
    """Tokens for class, omega, t_min, t_max and h = t - r in front of the patch tokens; no adaLN.

    t itself is an input only with config.t_input.
    """

    cos: Tensor
    sin: Tensor
    positions: Tensor

    def __init__(self, config: DiTConfig, shape: tuple[int, int, int], num_classes: int | None):
        super().__init__(config, shape, num_classes)
        D, out = config.width, config.patch**2 * shape[0]
        shared = config.depth - (config.v_depth or 0)
        self.x_embedder = Patches(shape, D, config.patch, config.bottleneck)
        self.prefix = 0
        if num_classes is not None:
            self.y_embedder = class_table(D, num_classes)
            self.class_tokens = self.tokens(config.class_tokens, D)
        with separate_init_rng():
            if config.guided != "no":
                self.omega_embedder, self.omega_tokens = ScalarEmbedding(D), self.tokens(config.omega_tokens, D)
            if config.guided == "interval":
                self.t_min_embedder, self.t_min_tokens = ScalarEmbedding(D), self.tokens(config.interval_tokens, D)
                self.t_max_embedder, self.t_max_tokens = ScalarEmbedding(D), self.tokens(config.interval_tokens, D)
        self.h_embedder, self.time_tokens = ScalarEmbedding(D), self.tokens(config.time_tokens, D)
        if config.t_input:
            with separate_init_rng(2):
                self.t_embedder = ScalarEmbedding(D)

        grid, head = self.x_embedder.grid, D // config.heads
        if config.grid_positions:
            with separate_init_rng():
                prefix = torch.randn(self.prefix, D)
            self.pos_embed = nn.Parameter(0.02 * torch.cat([prefix, torch.randn(grid[0] * grid[1], D)]))
        if config.modern:
            along_sequence = rope_table(self.prefix + grid[0] * grid[1], head)
            cos, sin = grid_rope_table(self.prefix, grid, head) if config.grid_positions else along_sequence
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        else:
            self.register_buffer("positions", sincos_positions(grid, D), persistent=False)

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(Block(D, config.heads, config.modern) for _ in range(count))

        self.shared_blocks, self.u_heads = blocks(shared), blocks(config.depth - shared)
        self.u_final_layer = FinalLayer(D, out)
        if config.v_depth is not None:  # last, so that all weights above are the same without it
            self.v_heads, self.v_final_layer = blocks(config.v_depth), FinalLayer(D, out)

    def tokens(self, count: int, width: int) -> nn.Parameter:
        """Learnt tokens of one condition, N(0, 1 / width); counts them as prefix."""
        self.prefix += count
        return nn.Parameter(torch.randn(count, width) * width**-0.5)

    def trunk(self, z: Tensor, r: Tensor, t: Tensor, cond) -> tuple[Tensor, tuple[Tensor, ...]]:
        patches, modern = self.x_embedder(z), self.config.modern
        rope = (self.cos, self.sin) if modern else ()
        patches = patches if modern else patches + self.positions
        tokens = self.condition_tokens(t - r, cond)
        if self.config.t_input:
            tokens["h"] = tokens["h"] + self.t_embedder(t)[:, None]
        x = torch.cat([*tokens.values(), patches], dim=1)  # (B, prefix + N, D)
        x = x + self.pos_embed if self.config.grid_positions else x
        for block in self.shared_blocks:
            x = self.run(block, x, *rope)
        return x, rope

    def u_branch(self, x: Tensor, rope) -> Tensor:
        return self.branch(x, rope, self.u_heads, self.u_final_layer)

    def v_branch(self, x: Tensor, rope) -> Tensor:
        return self.branch(x, rope, self.v_heads, self.v_final_layer)

    def condition_tokens(self, h: Tensor, cond) -> dict[str, Tensor]:
        """By condition, its learnt tokens plus its embedding, (B, count, D): class, omega, t_min, t_max, h."""
        groups = {}
        if cond.y is not None:
            groups["class"] = self.class_tokens, self.y_embedder(cond.y)
        if cond.omega is not None:
            groups["omega"] = self.omega_tokens, self.omega_embedder(1 - 1 / cond.omega)
        if cond.t_min is not None:
            groups["t_min"] = self.t_min_tokens, self.t_min_embedder(cond.t_min)
            groups["t_max"] = self.t_max_tokens, self.t_max_embedder(cond.t_max)
        groups["h"] = self.time_tokens, self.h_embedder(h)
        return {name: tokens + embedding[:, None] for name, (tokens, embedding) in groups.items()}

    def branch(self, x: Tensor, rope, blocks: nn.ModuleList, final: FinalLayer) -> Tensor:
        """The last blocks, then patches back to an image: (B, prefix + N, D) -> (B, C, height, width)."""
        for block in blocks:
            x = self.run(block, x, *rope)
        return self.x_embedder.inverse(final(x[:, self.prefix :]))
