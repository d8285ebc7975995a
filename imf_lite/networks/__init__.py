"""Networks, all called one way: net(z, r, t, cond, need="uv") -> (u, v), net.u, net.v, net.velocity.

May import: the method (conditions) and configs. Does not use data, training or files.
"""

from __future__ import annotations

import torch

from ..configs import NetConfig
from .base import Network
from .dit import DiT
from .dit_adaln import AdaLNDiT
from .mlp import MLP

KINDS = {"mlp": MLP, "dit": DiT, "adaln": AdaLNDiT}
"""the network of each kind of configuration"""

__all__ = ["KINDS", "MLP", "AdaLNDiT", "DiT", "Network", "build"]


def build(config: NetConfig, shape: tuple[int, ...], num_classes: int | None, seed: int = 0) -> Network:
    """Build a network with weights fixed by the seed; the u-path's do not depend on v-branch and guidance inputs.

    Raises ValueError for a v-branch deeper than the network.
    """
    if config.v_depth is not None and not 0 <= config.v_depth <= config.depth:
        raise ValueError(f"v_depth = {config.v_depth}; it counts blocks of the {config.depth}: 0 to {config.depth}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KINDS[config.kind](config, shape, num_classes)
