"""Everything that is random in a training step, drawn at once, as data.

What follows the draws is deterministic: two losses, or two machines, can be given the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .conditions import OMEGA_MAX, Guided, check_data


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


@dataclass(frozen=True)
class DrawConfig:
    """How times, dropped labels and guidance are drawn (MF appendix A, iMF appendix A)."""

    times: Literal["logit_normal", "uniform"] = "logit_normal"
    """distribution of the two times whose larger is t and whose smaller is r"""
    p_mean: float = -0.4
    """mean of the logit-normal, before the sigmoid"""
    p_std: float = 1.0
    """standard deviation of the logit-normal, before the sigmoid"""
    p_r_neq_t: float = 0.5
    """share of rows with r < t: 0.5 in iMF, 0.25 in MF, 0 is flow matching"""
    class_dropout: float = 0.0
    """expected share of rows that lose their label"""
    dropout: Literal["first", "independent"] = "first"
    """which rows lose it: the first of the batch (the reference code; mostly rows with r = t, so that "no class" is
    learnt as a velocity, not to be sampled from in one step), or each by a coin of its own"""
    omega_beta: float = 1.0
    """power of the density of omega, proportional to omega^-beta on [1, 8]; larger means weaker guidance"""

    def __post_init__(self) -> None:
        for name in ("p_r_neq_t", "class_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"draws.{name} = {getattr(self, name)}; it is a share: choose a value in [0, 1].")
        if self.dropout not in ("first", "independent"):
            raise ValueError(f"draws.dropout = {self.dropout!r}; choose 'first' or 'independent'.")
        if self.times not in ("logit_normal", "uniform"):
            raise ValueError(f"draws.times = {self.times!r}; choose 'logit_normal' or 'uniform'.")


def draw(x: Tensor, y: Tensor | None, config: DrawConfig, g: torch.Generator, guided: Guided = "no") -> Draws:
    """Draw noise, times, dropped labels and, for a guided network, omega and interval.

    x (B, ...) data, y (B,) labels. Guidance is drawn last: the rest is the same with and without it.
    A fixed count of rows, the first B - round(B * p_r_neq_t), gets r = t; they keep the larger of
    their two times (iMF's reference code). Raises ValueError for integer data or mismatched labels.
    """
    check_data("x", x)
    B = len(x)
    if y is not None and y.shape != (B,):
        raise ValueError(f"y has shape {tuple(y.shape)}, but x holds {B} samples: labels must be ({B},).")
    e = torch.randn(x.shape, generator=g, device=x.device, dtype=x.dtype)
    if config.times == "uniform":
        pair = torch.rand(2, B, generator=g, device=x.device)
    else:
        pair = torch.randn(2, B, generator=g, device=x.device).mul(config.p_std).add(config.p_mean).sigmoid()
    t, r = (s.view(B, *[1] * (x.ndim - 1)) for s in (pair.amax(0), pair.amin(0)))
    n_eq = B - round(B * config.p_r_neq_t)
    r = torch.cat([t[:n_eq], r[n_eq:]])
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


def power_law(uniform: Tensor, beta: float) -> Tensor:
    """omega in [1, 8] of density proportional to omega^-beta, by inverting its distribution (iMF, appendix A)."""
    if beta == 1:
        return OMEGA_MAX**uniform
    k = 1 - beta
    return (1 + uniform * (OMEGA_MAX**k - 1)) ** (1 / k)
