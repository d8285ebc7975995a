"""Where a loss's noise comes from: its parts against the exact field, and the noise of its gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from imf_lite import losses
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig
from imf_lite.draws import draw
from imf_lite.objective import Objective, squares
from imf_lite.system.rng import generator

from .exact import Mixture


@torch.no_grad()
def decompose(net, mixture: Mixture, n: int = 20_000, seed: int = 0) -> dict[str, float]:
    """MF's and iMF's mean squared residual on rows with r < t, in parts that add up.

    With delta = (e - x) - v(z_t, t), whose mean given z_t is zero, and D = (t - r) du/dz:
    MF's residual is [u + h J v - v] - (1 - D) delta, iMF's [u + h J v_theta - v] - delta. So each is a
    squared error of the network ("error") plus noise; iMF's noise is |delta|^2 ("irreducible"), and
    MF's differs from it by what delta adds through the slope ("leak"), because the slope is linear in
    its tangent.
    """
    g = generator("cpu", seed)
    d = draw(mixture.sample(n, g), None, DrawConfig(p_r_neq_t=1.0), g)
    z, h, v_t = (1 - d.t) * d.x + d.t * d.e, d.t - d.r, d.e - d.x
    v = mixture.v(z, d.t[:, :1])
    u, slope = net.u(z, d.r, d.t), partial(losses.slope, net, z, d.r, d.t, Cond(), 0)
    along_v_t, along_v, along_v_theta = slope(v_t), slope(v), slope(net.velocity(z, d.t))
    delta = v_t - v

    def mean(x: Tensor) -> float:
        return float(squares(x).mean())

    noise = mean(delta - h * (along_v_t - along_v))
    return {
        "mf": mean(u + h * along_v_t - v_t),
        "imf": mean(u + h * along_v_theta - v_t),
        "irreducible": mean(delta),
        "leak": noise - mean(delta),
        "mf error": mean(u + h * along_v - v),
        "imf error": mean(u + h * along_v_theta - v),
    }


def gradient_noise(
    net, method: str, x: Tensor, batch: int = 256, batches: int = 40, p: float = 0.0
) -> dict[str, float]:
    """Mini-batch gradients of one fixed network: squared size of their mean, and their variance (summed).

    The draws of batch k are the same for every method. x (N, D): data points.
    """
    objective, gradients = Objective(net, method, p=p), []
    weights = [w for w in net.parameters() if w.requires_grad]
    for k in range(batches):
        rows = torch.randint(len(x), (batch,), generator=generator("cpu", k))
        loss = objective(draw(x[rows], None, DrawConfig(p_r_neq_t=1.0), generator("cpu", 1, k))).loss
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    stacked = torch.stack(gradients)
    variance = float(stacked.var(0).sum())
    return {"signal": float(stacked.mean(0).square().sum()) - variance / batches, "variance": variance}
