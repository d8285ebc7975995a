"""The regression target, and the direction in which the slope is taken.

A rule is called with (net, z, draws, cond, own) and returns (target, tangent), both (B, ...) and
without gradient. `own` is the trained forward's own v (its u where there is no v-head), detached:
on rows with r = t it already is the predicted velocity, so no second forward is spent there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .draws import Draws


def conditional(net, z: Tensor, draws: Draws, cond, own: Tensor) -> tuple[Tensor, Tensor]:
    """MeanFlow without guidance: target and tangent are both the conditional velocity e - x."""
    v = draws.e - draws.x
    return v, v


@torch.no_grad()
def predicted(net, z: Tensor, draws: Draws, cond, own: Tensor) -> tuple[Tensor, Tensor]:
    """iMF without guidance: target e - x, tangent the predicted marginal velocity v_theta(z_t, t).

    v_theta is the v-head at r = t, or the boundary u(z_t, t, t): no gradient, one forward on the
    rows with r != t.
    """
    rows = slice(draws.n_eq, None)
    v_theta = own
    if draws.n_eq < len(z):
        v_theta = torch.cat([own[: draws.n_eq], net.velocity(z[rows], draws.t[rows], cond.rows(rows))])
    return draws.e - draws.x, v_theta
