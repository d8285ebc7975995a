"""Networks by name: the published sizes, on 4 x 32 x 32 latents with 1,000 classes, and tiny ones for a CPU."""

from __future__ import annotations

from .dit import DiTConfig
from .dit_adaln import AdaLNConfig


def mf(depth: int, width: int, heads: int, patch: int = 2) -> AdaLNConfig:
    """MF's transformer (MF, table 4)."""
    return AdaLNConfig(width=width, depth=depth, heads=heads, patch=patch)


def imf(depth: int, width: int, heads: int, v_depth: int | None = 8) -> DiTConfig:
    """iMF's transformer, guided, with the v-branch that training needs (iMF, appendix A)."""
    return DiTConfig(width=width, depth=depth, heads=heads, v_depth=v_depth, guided="interval")


PRESETS: dict[str, AdaLNConfig | DiTConfig] = {
    "mf_tiny": mf(4, 64, 4),
    "mf_s4": mf(12, 384, 6, 4),
    "mf_b4": mf(12, 768, 12, 4),
    "mf_b2": mf(12, 768, 12),
    "mf_m2": mf(16, 1024, 16),
    "mf_l2": mf(24, 1024, 16),
    "mf_xl2": mf(28, 1152, 16),
    "imf_tiny": imf(4, 64, 4, v_depth=2),
    "imf_b2": imf(12, 768, 12),
    "imf_m2": imf(24, 768, 12),
    "imf_l2": imf(32, 1024, 16),
    "imf_xl2": imf(48, 1024, 16),
}
