"""Networks, all called one way: net(z, r, t, cond, need="uv") -> (u, v), net.u, net.v, net.velocity."""

from __future__ import annotations

import torch

from .base import Network
from .dit import DiT, DiTConfig
from .dit_adaln import AdaLNConfig, AdaLNDiT
from .mlp import MLP, MLPConfig
from .presets import PRESETS

NetConfig = MLPConfig | DiTConfig | AdaLNConfig
KINDS = {"mlp": (MLP, MLPConfig), "dit": (DiT, DiTConfig), "adaln": (AdaLNDiT, AdaLNConfig)}

__all__ = [
    "KINDS",
    "MLP",
    "PRESETS",
    "AdaLNConfig",
    "AdaLNDiT",
    "DiT",
    "DiTConfig",
    "MLPConfig",
    "NetConfig",
    "Network",
    "build",
]


def build(config: NetConfig, shape: tuple[int, ...], num_classes: int | None, seed: int = 0) -> Network:
    """Build a network with weights fixed by the seed; the u-path's do not depend on v-branch and guidance inputs.

    Raises ValueError for a v-branch deeper than the network.
    """
    if config.v_depth is not None and not 0 <= config.v_depth <= config.depth:
        raise ValueError(f"v_depth = {config.v_depth}; it counts blocks of the {config.depth}: 0 to {config.depth}.")
    network, _ = KINDS[config.kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(config, shape, num_classes)
