"""The regression target, and the direction in which the slope is taken.

A rule is called with (net, z, draws, cond, own) and returns (target, tangent), both (B, ...) and
without gradient. `own` is the trained forward's own v (its u where there is no v-head), detached:
on rows with r = t it already is the predicted velocity, so no second forward is spent there.

    v_cond = e - x    conditional velocity    v_c, v_u    predicted velocity, with the class and without
    omega             guidance scale          sample with 1 for none

Classifier-free guidance samples along the field omega v_c* + (1 - omega) v_u, where v_c* is the
class's own velocity. Both papers *learn* that field, so that one evaluation per step is enough.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .conditions import Cond
from .configs import Fixed, Flexible

if TYPE_CHECKING:
    from .draws import Draws


def rule(method: str, guidance: Fixed | Flexible | None = None):
    """The rule of a method under some guidance. Raises ValueError where they do not go together."""
    if isinstance(guidance, Flexible):
        if method != "imf":
            raise ValueError(f"flexible guidance belongs to method 'imf', not {method!r}: use Fixed, or none.")
        return partial(flexible, guidance=guidance)
    if guidance is not None:
        return partial(fixed, guidance=guidance, along_v_c=method == "imf")
    return predicted if method == "imf" else conditional


def conditional(net, z: Tensor, draws: Draws, cond: Cond, own: Tensor) -> tuple[Tensor, Tensor]:
    """MeanFlow without guidance: target and tangent are both the conditional velocity e - x."""
    v_cond = net.conditional_velocity(z, draws.x, draws.e, draws.t)
    return v_cond, v_cond


@torch.no_grad()
def predicted(net, z: Tensor, draws: Draws, cond: Cond, own: Tensor) -> tuple[Tensor, Tensor]:
    """iMF without guidance: target e - x, tangent the predicted marginal velocity v_theta(z_t, t).

    v_theta is the v-head at r = t, or the boundary u(z_t, t, t): no gradient, one forward on the
    rows with r != t.
    """
    rows = slice(draws.n_eq, None)
    v_theta = own
    if draws.n_eq < len(z):
        v_theta = torch.cat([own[: draws.n_eq], net.velocity(z[rows], draws.t[rows], cond.rows(rows))])
    return net.conditional_velocity(z, draws.x, draws.e, draws.t), v_theta


@torch.no_grad()
def fixed(
    net, z: Tensor, draws: Draws, cond: Cond, own: Tensor, guidance: Fixed, along_v_c: bool
) -> tuple[Tensor, Tensor]:
    """MF's guidance: v_g = omega v_cond + (1 - omega - kappa) v_u + kappa v_c where t is inside, else v_cond.

    The network learns the guided field, so its own v_c estimates v_g: at that fixed point v_g solves
    (1 - kappa) v_g = omega v_c* + (1 - omega - kappa) v_u, which is scale omega / (1 - kappa).
    Rows that lost their label are not guided. The tangent is v_g itself (MF), or v_c (iMF's loss).
    """
    v_cond = net.conditional_velocity(z, draws.x, draws.e, draws.t)
    y, drop = labels(draws)
    v_c, v_u = velocities(
        net, z, draws, own, Cond(y), Cond(torch.full_like(y, net.num_classes)), along_v_c or guidance.kappa > 0
    )
    v_g = guidance.omega * v_cond + (1 - guidance.omega - guidance.kappa) * v_u
    if guidance.kappa:
        v_g = v_g + guidance.kappa * v_c
    kept = expand_rows(~drop, z)
    inside = (draws.t >= guidance.t_start) & (draws.t <= guidance.t_end)
    target = torch.where(kept & inside, v_g, v_cond)
    return target, torch.where(kept, v_c, v_u) if along_v_c else target


@torch.no_grad()
def flexible(net, z: Tensor, draws: Draws, cond: Cond, own: Tensor, guidance: Flexible) -> tuple[Tensor, Tensor]:
    """iMF's guidance: target v_cond + (1 - 1/omega) (v_c - v_u), tangent v_c, with omega = 1 outside the interval.

    Why 1 - 1/omega: the guided field is v_g = omega v_c* + (1 - omega) v_u. The network, given omega,
    predicts v_c = v_g; solved for the unguided field, v_c* = (v_c - (1 - omega) v_u) / omega. So
    v_g = v_c* + (v_g - v_c*) = v_c* + (1 - 1/omega) (v_c - v_u), and the sample v_cond = e - x stands in
    for v_c*, whose mean it is.

    Both velocities are those of the interval (0, 1), as on rows with r = t. Rows that lost their
    label have target v_cond and tangent v_u.
    """
    v_cond = net.conditional_velocity(z, draws.x, draws.e, draws.t)
    omega = cond.omega_at(draws.t.flatten())
    zeros, ones, (y, drop) = torch.zeros_like(omega), torch.ones_like(omega), labels(draws)
    everywhere = (None, None) if draws.t_min is None else (zeros, ones)
    null = torch.full_like(y, net.num_classes)
    v_c, v_u = velocities(
        net, z, draws, own, Cond(y, omega, *everywhere),
        Cond(null, ones if guidance.v_u_omega == "one" else omega, *everywhere),
    )  # fmt: skip
    kept = expand_rows(~drop, z)
    target = torch.where(kept, v_cond + expand_rows(1 - 1 / omega, z) * (v_c - v_u), v_cond)
    return target, torch.where(kept, v_c, v_u)


def velocities(
    net, z: Tensor, draws: Draws, own: Tensor, true: Cond, null: Cond, need_v_c: bool = True
) -> tuple[Tensor, Tensor]:
    """Predicted velocities v_c and v_u, each (B, ...), by one forward.

    v_u is needed on every row, v_c only where r != t: elsewhere `own` is it. (Not on dropped rows,
    whose `own` was computed without a class; no rule reads v_c there.)
    """
    rows = slice(draws.n_eq if need_v_c else len(z), None)
    both = net.velocity(torch.cat([z, z[rows]]), torch.cat([draws.t, draws.t[rows]]), Cond.cat(null, true.rows(rows)))
    return torch.cat([own[: rows.start], both[len(z) :]]), both[: len(z)]


def labels(draws: Draws) -> tuple[Tensor, Tensor]:
    """The true labels, before dropout, and which rows lose them. Raises ValueError where there are none."""
    if draws.y is None or draws.drop is None:
        raise ValueError("guidance steers towards a class: it needs data with labels.")
    return draws.y, draws.drop


def expand_rows(row: Tensor, z: Tensor) -> Tensor:
    """One value per row, (B,), shaped to broadcast against z (B, ...)."""
    return row.view(-1, *[1] * (z.ndim - 1))
