"""The random numbers of the loss: noise, times, dropped labels and guidance, drawn together and kept as data.

What follows the draws is deterministic: two losses, or two machines, can be given the same draws.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .conditions import check_data
from .configs import OMEGA_MAX, DrawConfig, Guided


class Draws(NamedTuple):
    """One batch. Shapes: x, e (B, ...); t, r (B, 1, ..., 1); y, drop, omega, t_min, t_max (B,) or None.

    n_eq: the first n_eq rows have r = t; nothing is promised about the others.
    """

    x: Tensor
    e: Tensor
    y: Tensor | None
    t: Tensor
    r: Tensor
    drop: Tensor | None
    omega: Tensor | None
    t_min: Tensor | None
    t_max: Tensor | None
    n_eq: int


def draw(
    x: Tensor, y: Tensor | None, config: DrawConfig, g: torch.Generator, guided: Guided = "no",
    noise_scale: float = 1.0,
) -> Draws:  # fmt: skip
    """Draw noise, times, dropped labels and, for a guided network, omega and interval.

    x (B, ...) data, y (B,) labels; noise_scale: standard deviation of e. Guidance is drawn last: the rest is the same
    with and without it. A fixed count of rows, the first B - round(B * p_r_neq_t), gets r = t, by the rule equal_t.
    Raises ValueError for integer data or mismatched labels.
    """
    check_data("x", x)
    B = len(x)
    if y is not None and y.shape != (B,):
        raise ValueError(f"y has shape {tuple(y.shape)}, but x holds {B} samples: labels must be ({B},).")
    e = torch.randn(x.shape, generator=g, device=x.device, dtype=x.dtype)
    if noise_scale != 1:
        e = noise_scale * e
    pair = two_times(B, config, g, x.device)
    n_eq = B - round(B * config.p_r_neq_t)
    if config.equal_t == "first":
        pair[1, :n_eq] = pair[0, :n_eq]
    t, r = (s.view(B, *[1] * (x.ndim - 1)) for s in (pair.amax(0), pair.amin(0)))
    r = torch.cat([t[:n_eq], torch.zeros_like(r[n_eq:]) if config.r_zero else r[n_eq:]])
    drop = torch.rand(B, generator=g, device=x.device) < config.class_dropout
    row = torch.arange(B, device=x.device)
    if config.dropout == "first":
        drop = row < drop.sum()  # as many: a binomial count
    omega = t_min = t_max = None
    if guided != "no":
        omega = power_law(torch.rand(B, generator=g, device=x.device), config.omega_beta)
    if guided == "interval":
        ends = 0.5 * torch.rand(2, B, generator=g, device=x.device)
        t_min, t_max = ends[0].where(row >= n_eq, 0.0), (0.5 + ends[1]).where(row >= n_eq, 1.0)
    return Draws(x, e, y, t, r, None if y is None else drop, omega, t_min, t_max, n_eq)


def two_times(B: int, config: DrawConfig, g: torch.Generator, device: torch.device) -> Tensor:
    """Two times per row, (2, B): logit-normal, or uniform, or uniform in a share of the rows.

    In that share each time is the normal distribution function of the same random number, hence uniform: other
    rows keep their times, and with a share of 0 no more numbers are drawn (pMF's reference code, `tr_uniform`).
    """
    if config.times == "uniform":
        return torch.rand(2, B, generator=g, device=device)
    normal = torch.randn(2, B, generator=g, device=device)
    pair = normal.mul(config.p_std).add(config.p_mean).sigmoid()
    if config.uniform_share == 0:
        return pair
    return torch.where(
        torch.rand(B, generator=g, device=device) < config.uniform_share, torch.special.ndtr(normal), pair
    )


def power_law(uniform: Tensor, beta: float) -> Tensor:
    """omega in [1, 8] of density proportional to omega^-beta, by inverting its distribution (iMF, appendix A)."""
    if beta == 1:
        return OMEGA_MAX**uniform
    k = 1 - beta
    return (1 + uniform * (OMEGA_MAX**k - 1)) ** (1 / k)
