"""From noise to data: one or a few steps with the average velocity, many with the marginal one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from .conditions import Cond
from .configs import OMEGA_MAX
from .system.rng import Stream, stream

Interval = tuple[float, float]


@torch.no_grad()
def sample(
    net, e: Tensor, y: Tensor | None = None, steps: int = 1, omega: float | Tensor | None = None,
    interval: Interval | None = None,
) -> Tensor:  # fmt: skip
    """Few-step sampling z_r = z_t - (t - r) u(z_t, r, t), from t = 1 to 0 (MF eq. 12, algorithm 2).

    e (B, ...) is noise N(0, I), which is multiplied by the network's noise_scale here; y (B,) the classes; returns data
    (B, ...). `steps` equal intervals cost as many network evaluations (NFE), the u-branch only. A guided network takes
    the scale omega >= 1 (a number or (B,); default 1, no guidance) and the interval (t_min, t_max) in which it acts
    (default (0, 1)), both unchanged in every step.
    """
    z, cond = getattr(net, "noise_scale", 1.0) * e, conditions(net, e, y, omega, interval)
    for t, r in intervals(e, steps):
        z = z - (t - r) * net.u(z, r, t, cond)
    return z


@torch.no_grad()
def euler(
    net, e: Tensor, y: Tensor | None = None, steps: int = 64, omega: float | Tensor | None = None,
    interval: Interval | None = None,
) -> Tensor:  # fmt: skip
    """Euler's method along the marginal velocity dz/dt = v_theta(z, t): how flow matching samples.

    Where r = t a guided network has learnt the interval (0, 1) only, so the interval is applied here:
    omega inside, 1 outside.
    """
    z, cond = getattr(net, "noise_scale", 1.0) * e, conditions(net, e, y, omega, interval)
    for t, r in intervals(e, steps):
        z = z - (t - r) * net.velocity(z, t, at(cond, t.flatten()))
    return z


def at(cond: Cond, t: Tensor) -> Cond:
    """Conditions of the velocity at times t (B,): the interval's effect on omega, and no interval."""
    if cond.t_min is None:
        return cond
    return Cond(cond.y, cond.omega_at(t), torch.zeros_like(t), torch.ones_like(t))


def conditions(
    net, e: Tensor, y: Tensor | None, omega: float | Tensor | None = None, interval: Interval | None = None
) -> Cond:
    """The conditions of a batch of samples. Raises ValueError for guidance that is no input of the network."""
    takes = {"no": (False, False), "omega": (True, False), "interval": (True, True)}[getattr(net, "guided", "no")]
    for name, value, taken in zip(("omega", "interval"), (omega, interval), takes, strict=True):
        if value is not None and not taken:
            raise ValueError(f"{name} = {value}, but this network has no input for {name}: leave it out.")
    if getattr(net, "num_classes", None) is not None and y is None:
        raise ValueError(f"this network needs classes: pass y, integers of shape ({len(e)},).")
    check_numbers(omega, interval)
    if interval is not None and omega is None:
        warnings.warn("an interval without omega guides nothing: omega is 1.", stacklevel=3)
    cond = Cond(y)
    if takes[0]:
        scale = torch.as_tensor(1.0 if omega is None else omega, dtype=e.dtype, device=e.device)
        if scale.shape not in ((), (len(e),)):
            raise ValueError(
                f"omega has shape {tuple(scale.shape)}; give one number, or one for each of {len(e)} samples."
            )
        scale = scale.expand(len(e))
        if (scale > OMEGA_MAX).any():
            warnings.warn(f"omega {scale.max():g} is larger than any in training, {OMEGA_MAX:g}.", stacklevel=3)
        cond = cond._replace(omega=scale)
    if takes[1]:
        t_min, t_max = (e.new_full((len(e),), end) for end in interval or (0.0, 1.0))
        cond = cond._replace(t_min=t_min, t_max=t_max)
    return cond


def check_numbers(omega: float | Tensor | None, interval: Interval | None) -> None:
    """Raise ValueError for a scale or an interval that makes no sense; tensors are checked by the network."""
    if isinstance(omega, (int, float)) and not 1 <= omega < math.inf:
        raise ValueError(f"omega = {omega:g}; a guidance scale is at least 1, and 1 is no guidance.")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(f"interval = {interval[0]:g}, {interval[1]:g}; it must be 0 <= t_min <= t_max <= 1.")


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
    """n samples (n, ...) and their labels (n,), in turn 0, 1, 2, ... or `classes`; None for unconditional networks.

    Noise depends only on the seed and the batch's position, so the same seed gives every network the same noise.
    """
    parts = list(blocks(net, n, steps, seed, sampler, batch, omega, interval, classes))
    x, y = zip(*parts, strict=True)
    return torch.cat(x), None if y[0] is None else torch.cat(y)


def blocks(
    net, n: int, steps: int = 1, seed: int = 0, sampler=sample, batch: int = 500, omega: float | None = None,
    interval: Interval | None = None, classes: tuple[int, ...] | None = None, which: slice = slice(None),
    each: bool = False,
) -> Iterator[tuple[Tensor, Tensor | None]]:  # fmt: skip
    """What `generate` makes, batch by batch; `which` of the batches, e.g. every second one on each of two ranks.

    each: draw every sample's noise by its own index, on the CPU, so that neither batch nor device matters; this
    takes 0.1 ms per sample.
    """
    if n < 1:
        raise ValueError(f"n = {n}; ask for at least one sample.")
    device = next(net.parameters()).device
    y = None
    if net.num_classes is None and classes:
        raise ValueError(f"classes = {classes}, but this network has none: leave them out.")
    if net.num_classes is not None:
        columns = torch.tensor(classes or range(net.num_classes), device=device)
        if not ((columns >= 0) & (columns < net.num_classes)).all():
            raise ValueError(f"classes = {classes}; this network has classes 0 to {net.num_classes - 1}.")
        y = columns[torch.arange(n, device=device) % len(columns)]
    for start in range(0, n, batch)[which]:
        count = min(batch, n - start)
        if each:
            own = (stream("cpu", Stream.SAMPLE, seed, start + k) for k in range(count))
            e = torch.stack([torch.randn(net.shape, generator=g) for g in own]).to(device)
        else:
            g = stream(device, Stream.NOISE, seed, start)
            e = torch.randn(count, *net.shape, generator=g, device=device)
        labels = None if y is None else y[start : start + len(e)]
        yield sampler(net, e, labels, steps, omega, interval), labels
