"""The blocks of the in-context DiT (iMF, arXiv 2512.02012, section 4.3 and its reference code).

B batch, S sequence, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rope_table(length: int, dim: int, theta: float = 1e4) -> tuple[Tensor, Tensor]:
    """cos and sin (S, K/2) of position * theta^(-2i/K), for positions 0 ... S-1."""
    angle = torch.arange(length)[:, None] * theta ** (-torch.arange(0, dim, 2) / dim)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: turn pairs (2i, 2i+1) of x (B, H, S, K) by their angles.

    In real arithmetic: `x.view(torch.complex64)` would silently drop gradient and tangent.
    """
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)  # (B, H, S, K/2) each
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Full self-attention: no biases, RMSNorm on q and k per head, then rotary positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (linear(width, width) for _ in range(4))
        self.q_norm, self.k_norm = (nn.RMSNorm(width // heads, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (  # (B, H, S, K) each
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(self.q_norm(q), *rope), rotate(self.k_norm(k), *rope)
        x = F.scaled_dot_product_attention(q, k, v)  # losses.slope picks its differentiable form
        return self.out_proj(x.transpose(1, 2).flatten(-2))  # (B, S, D)


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x), hidden width int(8 D / 3)."""

    def __init__(self, width: int):
        super().__init__()
        hidden = int(8 * width / 3)
        self.w1, self.w3, self.w2 = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and a gate vector that starts at zero."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn = nn.RMSNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.RMSNorm(width, eps=1e-6), SwiGLU(width)
        self.attn_scale, self.mlp_scale = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn_scale * self.attn(self.norm1(x), rope)
        return x + self.mlp_scale * self.mlp(self.norm2(x))


class FinalLayer(nn.Module):
    """Norm and a zero-initialised Linear: from tokens to patches, or from features to a sample."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm, self.linear = nn.RMSNorm(width, eps=1e-6), nn.Linear(width, out)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


def linear(fan_in: int, fan_out: int) -> nn.Linear:
    """A Linear without bias, N(0, 0.32^2 / fan_in)."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    nn.init.normal_(layer.weight, std=0.32 * fan_in**-0.5)
    return layer
