"""From noise to data: one or a few steps with the average velocity, many with the marginal one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .conditions import Cond
from .rng import generator


@torch.no_grad()
def sample(net, e: Tensor, cond: Cond = Cond(), steps: int = 1) -> Tensor:
    """Few-step sampling z_r = z_t - (t - r) u(z_t, r, t), from t = 1 to 0 (MF eq. 12, algorithm 2).

    e (B, ...) is noise N(0, I); returns data (B, ...). `steps` equal intervals cost as many network
    evaluations (NFE), the u-branch only.
    """
    z = e
    for t, r in intervals(e, steps):
        z = z - (t - r) * net.u(z, r, t, cond)
    return z


@torch.no_grad()
def euler(net, e: Tensor, cond: Cond = Cond(), steps: int = 64) -> Tensor:
    """Euler's method along the marginal velocity dz/dt = v_theta(z, t): how flow matching samples."""
    z = e
    for t, r in intervals(e, steps):
        z = z - (t - r) * net.velocity(z, t, cond)
    return z


def intervals(e: Tensor, steps: int):
    """Pairs (t, r), each (B, 1, ..., 1): `steps` equal intervals from 1 to 0."""
    if steps < 1:
        raise ValueError(f"steps = {steps}; a sample needs at least one network evaluation.")
    times = torch.linspace(1, 0, steps + 1, device=e.device, dtype=e.dtype)
    ones = e.new_ones(len(e), *[1] * (e.ndim - 1))
    for t, r in pairwise(times):
        yield t * ones, r * ones


def generate(
    net, n: int, steps: int = 1, seed: int = 0, sampler=sample, batch: int = 500
) -> tuple[Tensor, Tensor | None]:
    """n samples (n, ...) and the classes asked for (n,), in turn 0, 1, 2, ...; None if unconditional.

    Noise depends on the seed and the batch's place alone, so the same seed gives every network the same.
    """
    if n < 1:
        raise ValueError(f"n = {n}; ask for at least one sample.")
    device = next(net.parameters()).device
    y = None if net.num_classes is None else torch.arange(n, device=device) % net.num_classes
    parts = []
    for start in range(0, n, batch):
        count = min(batch, n - start)
        e = torch.randn(count, *net.shape, generator=generator(device, seed, start), device=device)
        parts.append(sampler(net, e, Cond() if y is None else Cond(y[start : start + count]), steps))
    return torch.cat(parts), y
