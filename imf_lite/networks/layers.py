"""Layers of the two transformers: those of iMF ("modern") and those of MF, as in DiT ("classic").

B batch, S sequence, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def rope_table(length: int, dim: int, theta: float = 1e4) -> tuple[Tensor, Tensor]:
    """(c, c) and (-s, s) for every pair i, both (S, K): cos and sin of position * theta^(-2i/K), from 0."""
    angle = torch.arange(length)[:, None] * theta ** (-torch.arange(0, dim, 2) / dim)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, cos], -1).flatten(1), torch.stack([-sin, sin], -1).flatten(1)


def grid_rope_table(prefix: int, grid: tuple[int, int], dim: int) -> tuple[Tensor, Tensor]:
    """Tables as above, (S, K), of patches on a grid: half of the pairs turn with the row, half with the column (pMF).

    The `prefix` tokens before them are not turned.
    """
    row, column = (position.flatten() for position in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    cos, sin = (torch.cat([table[row], table[column]], dim=1) for table in rope_table(max(grid), dim // 2))
    return F.pad(cos, (0, 0, prefix, 0), value=1.0), F.pad(sin, (0, 0, prefix, 0))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: turn pairs (a, b) = (2i, 2i+1) of x (B, H, S, K) to (a c - b s, b c + a s).

    In real arithmetic: `x.view(torch.complex64)` would silently drop gradient and tangent.
    """
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # (b, a)
    return x * cos + swapped * sin


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed 2-D positions (rows * columns, D): [sin, cos] of the column, then of the row (MF, DiT)."""
    if width % 4:
        raise ValueError(f"width {width}: sin-cos positions need a multiple of 4.")
    freq = 1e4 ** (-torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    angles = [position.flatten()[:, None] * freq for position in (column, row)]  # (S, D/4) each
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)


class Attention(nn.Module):
    """Full self-attention: no biases, RMSNorm on q and k per head, then rotary positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (linear(width, width) for _ in range(4))
        self.q_norm, self.k_norm = (RMSNorm(width // heads) for _ in range(2))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (  # (B, H, S, K) each
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(self.q_norm(q), *rope), rotate(self.k_norm(k), *rope)
        x = F.scaled_dot_product_attention(q, k, v)  # forward_mode.jvp picks its differentiable form
        return self.out_proj(x.transpose(1, 2).flatten(-2))  # (B, S, D)


class ClassicAttention(nn.Module):
    """Full self-attention as in DiT: one biased projection to q, k and v; no norms, no positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = xavier(nn.Linear(width, 3 * width)), xavier(nn.Linear(width, width))

    def forward(self, x: Tensor, rope=()) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b s (n h k) -> n b h s k", n=3, h=self.heads)
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b h s k -> b s (h k)"))


class RMSNorm(nn.RMSNorm):
    """x over its root mean square, times a weight, over the last dimension (D,)."""

    eps: float

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # autocast's bfloat16: no fused kernel takes both
        if not torch.compiler.is_compiling():
            return super().forward(x)
        # CUDA's kernel has no forward derivative; the compiler fuses this one itself
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x), hidden width int(8 D / 3), rounded up to a multiple of 8 where D > 1024 (as in pMF)."""

    def __init__(self, width: int):
        super().__init__()
        hidden = int(8 * width / 3)
        hidden = hidden if width <= 1024 else -(-hidden // 8) * 8
        self.w1, self.w3, self.w2 = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class GeluMLP(nn.Module):
    """fc2(gelu(fc1 x)), hidden width 4 D, tanh form of GELU."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = xavier(nn.Linear(width, 4 * width)), xavier(nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and a gate vector that starts at zero.

    modern: RMSNorm, attention with normed q, k and rotary positions, SwiGLU, no biases; else LayerNorm,
    DiT's attention, GELU, Xavier-uniform weights.
    """

    def __init__(self, width: int, heads: int, modern: bool = True):
        super().__init__()
        self.norm1, self.norm2 = (RMSNorm(width) if modern else nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = Attention(width, heads) if modern else ClassicAttention(width, heads)
        self.mlp = SwiGLU(width) if modern else GeluMLP(width)
        self.attn_scale, self.mlp_scale = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def forward(self, x: Tensor, *rope: Tensor) -> Tensor:
        x = x + self.attn_scale * self.attn(self.norm1(x), rope)
        return x + self.mlp_scale * self.mlp(self.norm2(x))


class FinalLayer(nn.Module):
    """Norm and a zero-initialised Linear: from tokens to patches, or from features to a sample."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm, self.linear = RMSNorm(width), zero(nn.Linear(width, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class Patches(nn.Module):
    """An image as tokens: (B, C, height, width) -> (B, S, D), row-major.

    bottleneck: channels to which a patch is reduced before it is embedded (pMF); None: it is embedded directly.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, patch: int, bottleneck: int | None = None):
        super().__init__()
        channels, *size = shape
        if any(side % patch for side in size):
            raise ValueError(f"patch {patch} does not divide images of {size[0]} x {size[1]}.")
        if bottleneck is None:
            self.proj = convolution(channels, width, patch)
        else:
            self.proj1, self.proj2 = convolution(channels, bottleneck, patch), convolution(bottleneck, width, 1)
        self.bottleneck, self.patch, self.grid = bottleneck, patch, (size[0] // patch, size[1] // patch)

    def forward(self, z: Tensor) -> Tensor:
        x = self.proj(z) if self.bottleneck is None else self.proj2(self.proj1(z))
        return x.flatten(2).transpose(1, 2)

    def inverse(self, x: Tensor) -> Tensor:
        """Tokens (B, S, p * p * C), each in the order row, column, channel, as an image."""
        p, (height, width) = self.patch, self.grid
        return rearrange(x, "b (h w) (p q c) -> b c (h p) (w q)", h=height, w=width, p=p, q=p)


def convolution(channels: int, out: int, patch: int) -> nn.Conv2d:
    """Disjoint patches, each mapped alike: Xavier-uniform as a Linear, zero bias."""
    layer = nn.Conv2d(channels, out, patch, patch)
    nn.init.xavier_uniform_(layer.weight.data.view(out, -1))
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def linear(fan_in: int, fan_out: int) -> nn.Linear:
    """A Linear without bias, N(0, 0.32^2 / fan_in)."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    nn.init.normal_(layer.weight, std=0.32 * fan_in**-0.5)
    return layer


def xavier(layer: nn.Linear) -> nn.Linear:
    """Xavier-uniform weights, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero(layer: nn.Linear) -> nn.Linear:
    """Zero weights and bias."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
