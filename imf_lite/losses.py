"""Flow matching, MeanFlow and improved MeanFlow: what each regresses, on one screen.

    u             (B, ...)           average velocity over [r, t], with gradient
    h = t - r     (B, 1, ..., 1)     length of the interval
    v_cond        (B, ...)           conditional velocity e - x, or its guided form
    v_theta       (B, ...)           predicted marginal velocity, no gradient
    slope(along)  -> du/dt (B, ...)  a Jacobian-vector product, no gradient; zero where r = t

Each loss returns its residual (B, ...): squares, weights and means are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .forward_mode import jvp


def fm(u: Tensor, v_cond: Tensor) -> Tensor:
    """Flow matching: at r = t the average velocity is the velocity itself."""
    return u - v_cond


def mf(u: Tensor, h: Tensor, v_cond: Tensor, slope: Callable[..., Tensor]) -> Tensor:
    """MeanFlow (arXiv 2505.13447, eq. 9 to 11): regress u on what the MeanFlow identity says it is."""
    du_dt = slope(along=v_cond)  # e - x depends on this one pair (x, e)
    target = v_cond - h * du_dt  # no gradient, yet it moves with the network
    return u - target


def imf(u: Tensor, h: Tensor, v_cond: Tensor, v_theta: Tensor, slope: Callable[..., Tensor]) -> Tensor:
    """Improved MeanFlow (arXiv 2512.02012): regress the velocity that u implies on a fixed target."""
    du_dt = slope(along=v_theta)  # v_theta depends on z_t only
    V = u + h * du_dt  # a velocity rebuilt from u
    return V - v_cond  # an ordinary regression


@torch.no_grad()  # no gradient through the slope: said once
def slope(net, z: Tensor, r: Tensor, t: Tensor, cond, n_eq: int, along: Tensor) -> Tensor:
    """du/dt (B, ...) as (z, r, t) moves along (along, 0, 1); zero on the first n_eq rows, where r = t."""
    if n_eq == len(z):
        return torch.zeros_like(z)
    rows = slice(n_eq, None)  # elsewhere du/dt is multiplied by h = 0
    moving = (z[rows], r[rows], t[rows])
    tangent = (along[rows], torch.zeros_like(r[rows]), torch.ones_like(t[rows]))
    _, du_dt = jvp(lambda z, r, t: net.u(z, r, t, cond.rows(rows)), moving, tangent)
    return torch.cat([torch.zeros_like(z[:n_eq]), du_dt])


def adaptive(raw: Tensor, p: float, c: float) -> Tensor:
    """MF's adaptive weight: raw / sg(raw + c)^p per row; p = 0 is plain L2, p = 1 the papers' choice.

    raw (B,): squared residuals, summed over all data dimensions. At p = 1 the result stays near 1
    whatever happens, so watch `raw`.
    """
    return raw / (raw.detach() + c) ** p
