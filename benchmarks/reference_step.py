"""The published training step, spelled out: the yardstick of step_cost.py, and the oracle of its tests.

iMF's algorithm 1 with the released code's guidance, and MF's, as a reader would port them line by
line. Two forms: `branches="published"` computes only the branch that each forward uses, which is what a
compiler makes of the published code; `branches="plain"` computes both every time, as a plain port in
eager PyTorch does. Same network and attention as the library; the same loss and gradients as
`imf_lite.objective.Objective` (tests/test_benchmarks.py).

In layers over the whole batch, of B/2's 4 shared + 8 u + 8 v, guided: "published" 36 (v_c, v_u, and v_c
again) + 32 (u 12, its tangent 12, v 8) + 40 backward = 108; "plain" 60 + 40 + 40 = 140.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from imf_lite.conditions import Cond
from imf_lite.configs import Fixed, Flexible
from imf_lite.draws import Draws

Branches = Literal["published", "plain"]


class ReferenceStep(nn.Module):
    """Loss of one batch by the published algorithm. Called with Draws; returns the loss, a scalar."""

    def __init__(
        self, net, method: str, guidance: Fixed | Flexible | None, branches: Branches, p: float = 1.0, c: float = 0.01
    ):
        super().__init__()
        self.net, self.method, self.guidance, self.branches, self.p, self.c = net, method, guidance, branches, p, c

    def forward(self, d: Draws) -> Tensor:
        h, z, v_t = d.t - d.r, (1 - d.t) * d.x + d.t * d.e, d.e - d.x
        drop = torch.zeros(len(z), dtype=torch.bool, device=z.device) if d.drop is None else d.drop
        y = None if d.y is None else d.y.masked_fill(drop, self.net.num_classes)
        cond = Cond(y, d.omega, d.t_min, d.t_max)
        target, tangent = self.guide(z, d, cond, drop, v_t)

        moving, along = (z, d.r, d.t), (tangent, torch.zeros_like(d.r), torch.ones_like(d.t))
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative
            u, v, du_dt = (self.published if self.branches == "published" else self.plain)(moving, along, cond)
        du_dt = du_dt.detach()
        residual = u - (target - h * du_dt) if self.method == "mf" else u + h * du_dt - target
        loss = self.weighted(residual)
        if self.net.has_v:
            loss = loss + self.weighted(v - target)
        return loss.mean()

    def published(self, moving: tuple, along: tuple, cond: Cond) -> tuple[Tensor, Tensor | None, Tensor]:
        """u and du/dt; v from the same trunk, without a tangent."""

        def u_of(z: Tensor, r: Tensor, t: Tensor):
            state = self.net.trunk(z, r, t, cond)
            return self.net.u_branch(*state), state

        u, du_dt, state = jvp(u_of, moving, along, has_aux=True)
        return u, self.net.v_branch(*state) if self.net.has_v else None, du_dt

    def plain(self, moving: tuple, along: tuple, cond: Cond) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same; v is an output like u, and gets a tangent that nobody reads."""
        if not self.net.has_v:
            return self.published(moving, along, cond)
        (u, v), (du_dt, _) = jvp(lambda z, r, t: self.net(z, r, t, cond), moving, along)
        return u, v, du_dt

    @torch.no_grad()
    def guide(self, z: Tensor, d: Draws, cond: Cond, drop: Tensor, v_t: Tensor) -> tuple[Tensor, Tensor]:
        """Target and tangent, each velocity by a forward of its own over the whole batch."""
        shape = (-1, *[1] * (z.ndim - 1))
        if self.guidance is None:
            return v_t, v_t if self.method == "mf" else self.velocity(z, d.t, cond)
        null, drop = torch.full_like(d.y, self.net.num_classes), drop.view(shape)
        if isinstance(self.guidance, Fixed):
            g = self.guidance
            v_c, v_u = (self.velocity(z, d.t, Cond(label)) for label in (d.y, null))
            v_g = g.omega * v_t + (1 - g.omega - g.kappa) * v_u + g.kappa * v_c
            target = torch.where(((d.t >= g.t_start) & (d.t <= g.t_end)) & ~drop, v_g, v_t)
            return target, target if self.method == "mf" else torch.where(drop, v_u, v_c)
        ones, zeros = torch.ones_like(d.omega), torch.zeros_like(d.omega)
        t = d.t.flatten()
        omega = torch.where((t >= d.t_min) & (t <= d.t_max), d.omega, 1.0)
        v_c = self.velocity(z, d.t, Cond(d.y, d.omega, zeros, ones))  # raw omega: serves the rows with r = t
        v_u = self.velocity(z, d.t, Cond(null, ones, zeros, ones))
        again = self.velocity(z, d.t, Cond(d.y, omega, zeros, ones))  # effective omega: serves the others
        v_c = torch.where((d.r == d.t), v_c, again)
        target = torch.where(drop, v_t, v_t + (1 - 1 / omega).view(shape) * (v_c - v_u))
        return target, torch.where(drop, v_u, v_c)

    def velocity(self, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """v_theta at r = t: the head, or the boundary."""
        if self.branches == "published" or not self.net.has_v:
            return self.net.velocity(z, t, cond)
        return self.net(z, t, t, cond, need="uv")[1]

    def weighted(self, residual: Tensor) -> Tensor:
        """Adaptive weight: Delta^2 / sg(Delta^2 + c)^p per row."""
        raw = residual.flatten(1).square().sum(1)
        return raw / (raw.detach() + self.c) ** self.p
