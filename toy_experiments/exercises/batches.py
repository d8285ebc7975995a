"""What answers are tried on, networks and draws; and what is stored or counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig, MLPConfig
from imf_lite.draws import Draws, draw
from imf_lite.networks import Network, build
from imf_lite.pretrained import weights
from imf_lite.system.paths import pretrained_folder
from imf_lite.system.rng import generator

from ..ground_truth.datasets import EIGHT
from ..ground_truth.exact import Mixture
from .answers import Unfit, call


def shipped(name: str) -> Network:
    """A network that was trained on the eight Gaussians."""
    return weights.from_pretrained(pretrained_folder("plane") / name)


def some_net(g: torch.Generator | None = None, **changes: Any) -> Network:
    """Lesson 2's network, whose weights are nowhere zero; with changes it has classes. g: gives the random numbers."""
    net = build(MLPConfig(width=64, depth=3, **changes), (2,), 3 if changes else None, seed=0)
    g = g or generator("cpu", 0)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=g)
    return net


def some_draws(mixture: Mixture = EIGHT, n: int = 400, share: float = 0.5, **changes: Any) -> Draws:
    """Draws of a batch from a mixture."""
    x, y = mixture.labelled(n, generator("cpu", 1))
    labels, guided = (y % 3, "interval") if changes else (None, "no")
    return draw(x, labels, DrawConfig(p_r_neq_t=share, **changes), generator("cpu", 2), guided)


def ruled(answer: Any, net: Network, d: Draws) -> tuple[Tensor, Tensor]:
    """Target and tangent that the reader's rule returns for some draws."""
    z, cond = (1 - d.t) * d.x + d.t * d.e, Cond(d.y)
    found = call(answer, net, z, d, cond, net.velocity(z, d.t, cond), kind=tuple)
    if len(found) != 2 or not all(isinstance(f, Tensor) and f.shape == z.shape for f in found):
        raise Unfit(f"your rule must return two tensors of shape {tuple(z.shape)}.")
    return found


def operations(function: Callable[[], Any]) -> int:
    """Counted operations of all matrix products; gradients are on."""
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
