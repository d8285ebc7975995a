"""One training objective: draws -> trained forward -> target and tangent -> slope -> loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from . import guidance, losses
from .conditions import Cond, check_data, check_labels, readable
from .configs import Method
from .draws import Draws

if TYPE_CHECKING:
    from .networks import Network


T_SEEN = 0.8
"""the perceptual term acts below this time (pMF)"""


class Step(NamedTuple):
    """What a step reports. All but `loss` are detached and per row, (B,).

    raw_u, raw_v: squared residuals summed over data dimensions, before weighting (raw_v is None
    without a v-head); t, h = t - r; h_du_dt: the norm of h du/dt.
    """

    loss: Tensor
    raw_u: Tensor
    raw_v: Tensor | None
    t: Tensor
    h: Tensor
    h_du_dt: Tensor


class Objective(nn.Module):
    """The loss of a network under one method, as a module: what data-parallel training wraps.

    Args:
        net: the network; for iMF, a v-head makes v_theta the head, otherwise it is the boundary.
        method: "fm", "mf" or "imf".
        p, c: the adaptive weight (see losses.adaptive).
        rule: what is regressed and along what, see guidance.rule; default: unguided.
        slope: how du/dt is computed; lessons pass a wrong one on purpose.
        bf16: matrix products of the trained and the guidance forwards in bfloat16; slope and loss stay in float32.
        perceptual: a distance (x_hat, x) -> (B,) that is added where t < 0.8, under the adaptive weight and times
            perceptual_weight; x_hat is the denoised image that u implies (pMF, arXiv 2601.22158).
    """

    def __init__(
        self, net: Network, method: Method, p: float = 1.0, c: float = 0.01, rule=None, slope=losses.slope,
        bf16: bool = False, perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        perceptual_weight: float = 0.4,
    ):  # fmt: skip
        super().__init__()
        if method not in ("fm", "mf", "imf"):
            raise ValueError(f"method = {method!r}; choose 'fm', 'mf' or 'imf'.")
        if method != "imf" and net.has_v:
            raise ValueError(f"method {method!r} does not train a v-head: build the network with v_depth=None.")
        self.net, self.method, self.p, self.c = net, method, p, c
        self.rule = rule or guidance.rule(method)
        self.slope, self.bf16 = slope, bf16
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight

    def forward(self, draws: Draws) -> Step:
        """Loss and per-row records of one batch. Raises ValueError where the draws contradict the network."""
        x, e, t, r, n_eq = draws.x, draws.e, draws.t, draws.r, draws.n_eq
        check_draws(draws, self.method)
        h = t - r
        z = (1 - t) * x + t * e
        cond = self.conditions(draws)

        with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            u, v = self.net(z, r, t, cond)  # the only forward that is trained
            own = (u if v is None else v).detach()
            target, tangent = self.rule(self.net, z, draws, cond, own)
        slope = RecordSlope(partial(self.slope, self.net, z, r, t, cond, n_eq))
        if self.method == "fm":
            residual = losses.fm(u, target)
        elif self.method == "mf":
            residual = losses.mf(u, h, target, slope)
        else:
            residual = losses.imf(u, h, target, tangent, slope)

        raw_u = squares(residual)
        loss = losses.adaptive(raw_u, self.p, self.c)
        raw_v = None
        if v is not None:  # the head's own loss, on all rows, at the same (r, t)
            raw_v = squares(v - target)
            loss = loss + losses.adaptive(raw_v, self.p, self.c)
            raw_v = raw_v.detach()
        if self.perceptual is not None:
            x_hat = z - t * u
            seen = self.perceptual(x_hat, x) * (t.flatten() < T_SEEN)  # noisier images have no detail to compare
            loss = loss + self.perceptual_weight * losses.adaptive(seen, self.p, self.c)
        h_du_dt = squares(h * slope.value).sqrt() if slope.value is not None else torch.zeros_like(raw_u)
        return Step(loss.mean(), raw_u.detach(), raw_v, t.flatten(), h.flatten(), h_du_dt.detach())

    def conditions(self, draws: Draws) -> Cond:
        """The conditions of the trained forward: the label after dropout, and ω and interval as drawn."""
        y = draws.y
        if y is not None and self.net.num_classes is not None:
            check_labels(y, self.net.num_classes)
            if draws.drop is not None:
                y = y.masked_fill(draws.drop, self.net.num_classes)
        return Cond(y, draws.omega, draws.t_min, draws.t_max)


class RecordSlope:
    """Call a slope, and keep its value for the log."""

    def __init__(self, slope):
        self.slope, self.value = slope, None

    def __call__(self, along: Tensor) -> Tensor:
        self.value = self.slope(along=along)
        return self.value


def squares(x: Tensor) -> Tensor:
    """Sum of squares over all data dimensions: (B, ...) -> (B,)."""
    return x.flatten(1).square().sum(1)


def check_draws(draws: Draws, method: Method) -> None:
    """Raise ValueError for draws that no step of this method can use (the network checks times and conditions)."""
    x, e, n_eq, t_min, t_max = draws.x, draws.e, draws.n_eq, draws.t_min, draws.t_max
    check_data("draws.x", x)
    if e.shape != x.shape:
        raise ValueError(f"draws.e has shape {tuple(e.shape)}, draws.x {tuple(x.shape)}: they must agree.")
    if not 0 <= n_eq <= len(x):
        raise ValueError(f"draws.n_eq = {n_eq}; it counts rows: 0 to {len(x)}.")
    if readable(x) and (draws.r[:n_eq] != draws.t[:n_eq]).any():
        raise ValueError(f"draws.n_eq = {n_eq} promises r = t on that many first rows, but some differ.")
    if t_min is not None and t_max is not None and readable(x) and ((t_min[:n_eq] > 0) | (t_max[:n_eq] < 1)).any():
        raise ValueError("rows with r = t have the guidance interval (0, 1): there v of the trained forward is reused.")
    if method == "fm" and n_eq < len(x):
        raise ValueError("flow matching has r = t only: draw with p_r_neq_t = 0.")
