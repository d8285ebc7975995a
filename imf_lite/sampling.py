"""From noise to data: one or a few steps with the average velocity, many with the marginal one."""

from __future__ import annotations

import warnings
from itertools import pairwise

import torch
from torch import Tensor

from .conditions import OMEGA_MAX, Cond
from .rng import generator

Interval = tuple[float, float]


@torch.no_grad()
def sample(
    net, e: Tensor, y: Tensor | None = None, steps: int = 1, omega: float | Tensor | None = None,
    interval: Interval | None = None,
) -> Tensor:  # fmt: skip
    """Few-step sampling z_r = z_t - (t - r) u(z_t, r, t), from t = 1 to 0 (MF eq. 12, algorithm 2).

    e (B, ...) is noise N(0, I), y (B,) the classes; returns data (B, ...). `steps` equal intervals cost
    as many network evaluations (NFE), the u-branch only. A guided network takes the scale omega >= 1
    (a number or (B,); default 1, no guidance) and the interval (t_min, t_max) in which it acts
    (default (0, 1)), both unchanged in every step.
    """
    z, cond = e, conditions(net, e, y, omega, interval)
    for t, r in intervals(e, steps):
        z = z - (t - r) * net.u(z, r, t, cond)
    return z


@torch.no_grad()
def euler(
    net, e: Tensor, y: Tensor | None = None, steps: int = 64, omega: float | Tensor | None = None,
    interval: Interval | None = None,
) -> Tensor:  # fmt: skip
    """Euler's method along the marginal velocity dz/dt = v_theta(z, t): how flow matching samples."""
    z, cond = e, conditions(net, e, y, omega, interval)
    for t, r in intervals(e, steps):
        z = z - (t - r) * net.velocity(z, t, cond)
    return z


def conditions(
    net, e: Tensor, y: Tensor | None, omega: float | Tensor | None = None, interval: Interval | None = None
) -> Cond:
    """What a batch of samples is asked to be. Raises ValueError for guidance that the network does not know."""
    takes = {"no": (False, False), "omega": (True, False), "interval": (True, True)}[getattr(net, "guided", "no")]
    for name, value, taken in zip(("omega", "interval"), (omega, interval), takes, strict=True):
        if value is not None and not taken:
            raise ValueError(f"{name} = {value}, but this network has no input for {name}: leave it out.")
    cond = Cond(y)
    if takes[0]:
        scale = torch.as_tensor(1.0 if omega is None else omega, dtype=e.dtype, device=e.device).expand(len(e))
        if (scale > OMEGA_MAX).any():
            warnings.warn(f"omega {scale.max():g} is larger than any in training, {OMEGA_MAX:g}.", stacklevel=3)
        cond = cond._replace(omega=scale)
    if takes[1]:
        t_min, t_max = (e.new_full((len(e),), end) for end in interval or (0.0, 1.0))
        cond = cond._replace(t_min=t_min, t_max=t_max)
    return cond


def intervals(e: Tensor, steps: int):
    """Pairs (t, r), each (B, 1, ..., 1): `steps` equal intervals from 1 to 0."""
    if steps < 1:
        raise ValueError(f"steps = {steps}; a sample needs at least one network evaluation.")
    times = torch.linspace(1, 0, steps + 1, device=e.device, dtype=e.dtype)
    ones = e.new_ones(len(e), *[1] * (e.ndim - 1))
    for t, r in pairwise(times):
        yield t * ones, r * ones


def generate(
    net, n: int, steps: int = 1, seed: int = 0, sampler=sample, batch: int = 500, omega: float | None = None,
    interval: Interval | None = None, classes: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """n samples (n, ...) and the classes asked for (n,), in turn 0, 1, 2, ... or `classes`; None if unconditional.

    Noise depends on the seed and the batch's place alone, so the same seed gives every network the same.
    """
    if n < 1:
        raise ValueError(f"n = {n}; ask for at least one sample.")
    device = next(net.parameters()).device
    y = None
    if net.num_classes is not None:
        asked = torch.tensor(classes or range(net.num_classes), device=device)
        y = asked[torch.arange(n, device=device) % len(asked)]
    parts = []
    for start in range(0, n, batch):
        count = min(batch, n - start)
        e = torch.randn(count, *net.shape, generator=generator(device, seed, start), device=device)
        parts.append(sampler(net, e, None if y is None else y[start : start + count], steps, omega, interval))
    return torch.cat(parts), y
