"""Relatives of MeanFlow and iMF: what each puts in the place of du/dt in MF's loss, u - (v_cond - h du/dt).

A slope is called with (net, z, r, t, cond, n_eq, along), along = v_cond, and returns (B, ...), zero on the first n_eq
rows, where r = t: see losses.slope. No gradient passes through any of them.

    jvp     along v_cond                      MeanFlow
    mixed   along a mixture with v_theta      between MF (share 0) and iMF (share 1)
    chord   a quotient of differences         alpha-Flow; consistency training on draws with r = 0
    split   the mean of two parts             SplitMeanFlow
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import losses
from .configs import Derivative


def slope(kind: Derivative, share: float) -> Callable[..., Tensor]:
    """The slope called `kind`; share: beta of "mixed" or alpha of "chord"."""
    if kind == "mixed":
        return partial(mixed, beta=share)
    if kind == "chord":
        return partial(chord, alpha=share)
    return split if kind == "split" else losses.slope


@torch.no_grad()
def mixed(net, z: Tensor, r: Tensor, t: Tensor, cond, n_eq: int, along: Tensor, beta: float) -> Tensor:
    """The tangent beta v_theta + (1 - beta) v_cond (arXiv 2605.09235): MF's at beta = 0, iMF's at beta = 1."""
    rows = slice(n_eq, None)
    v_theta = torch.cat([along[:n_eq], net.velocity(z[rows], t[rows], cond.rows(rows))])
    return losses.slope(net, z, r, t, cond, n_eq, beta * v_theta + (1 - beta) * along)


@torch.no_grad()
def chord(net, z: Tensor, r: Tensor, t: Tensor, cond, n_eq: int, along: Tensor, alpha: float) -> Tensor:
    """alpha-Flow (arXiv 2510.20771): a difference over the time alpha h in place of the derivative, no JVP.

    With u' = u(z - alpha h v_cond, r, t - alpha h) it regresses u on alpha v_cond + (1 - alpha) u'. Divided by alpha,
    that residual is MF's with (1 - alpha) (u - u') / (alpha h) for du/dt: du/dt itself as alpha -> 0, and flow
    matching at alpha = 1. A straight step of finite length leaves the flow, so that the true u is its fixed point only
    as alpha -> 0. SoFlow (arXiv 2512.15657) scales the same residual.
    """
    z, r, t, v_cond, few = of_rows(slice(n_eq, None), z, r, t, along, cond)
    back = alpha * (t - r)
    difference = net.u(z, r, t, few) - net.u(z - back * v_cond, r, t - back, few)
    return torch.cat([torch.zeros_like(along[:n_eq]), (1 - alpha) * difference / back.clamp(min=1e-6)])


@torch.no_grad()
def split(net, z: Tensor, r: Tensor, t: Tensor, cond, n_eq: int, along: Tensor) -> Tensor:
    """Interval splitting (SplitMeanFlow, arXiv 2507.16884): the displacement over [r, t] is the sum of its parts.

    h u(z_t, r, t) = (t - s) u(z_t, s, t) + (s - r) u(z_s, r, s) gives u its target; v_cond is not used where r < t,
    and cancels. s is spread evenly between r and t over the rows of the batch (the paper draws it uniformly). With s in
    the middle, and steps of powers of two, this is a Shortcut model (arXiv 2410.12557).
    """
    z, r, t, v_cond, few = of_rows(slice(n_eq, None), z, r, t, along, cond)
    share = (torch.arange(len(z), device=z.device, dtype=z.dtype) + 0.5).view_as(t) / max(len(z), 1)
    s = t - share * (t - r)
    late = net.u(z, s, t, few)
    early = net.u(z - (t - s) * late, r, s, few)
    target = share * late + (1 - share) * early
    return torch.cat([torch.zeros_like(along[:n_eq]), (v_cond - target) / (t - r).clamp(min=1e-6)])


def of_rows(rows: slice, z: Tensor, r: Tensor, t: Tensor, along: Tensor, cond):
    """Some rows of everything that a slope is given."""
    return z[rows], r[rows], t[rows], along[rows], cond.rows(rows)
