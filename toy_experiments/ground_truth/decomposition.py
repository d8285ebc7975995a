"""Where a loss's noise comes from: its parts against the exact field, and the noise of its gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from imf_lite import losses
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig
from imf_lite.draws import Draws, draw
from imf_lite.objective import Objective, squares
from imf_lite.system.rng import stream

from .exact import Mixture
from .streams import ToyStream


@torch.no_grad()
def decompose(net, mixture: Mixture, n: int = 20_000, seed: int = 0) -> dict[str, float]:
    """MF's and iMF's mean squared residual on rows with r < t, in parts that add up.

    With delta = (e - x) - v(z_t, t), whose mean given z_t is zero, and D = (t - r) du/dz:
    MF's residual is [u + h J v - v] - (1 - D) delta, iMF's [u + h J v_theta - v] - delta. So each is a
    squared error of the network ("error") plus noise; iMF's noise is |delta|^2 ("irreducible"), and
    MF's differs from it by what delta adds through the slope ("leak"), because the slope is linear in
    its tangent.
    """
    g = stream("cpu", ToyStream.RESIDUALS, seed)
    d = draw(mixture.sample(n, g), None, DrawConfig(p_r_neq_t=1.0), g)
    z, h, v_cond = (1 - d.t) * d.x + d.t * d.e, d.t - d.r, d.e - d.x
    v = mixture.v(z, d.t[:, :1])
    u, slope = net.u(z, d.r, d.t), partial(losses.slope, net, z, d.r, d.t, Cond(), 0)
    along_v_cond, along_v, along_v_theta = slope(v_cond), slope(v), slope(net.velocity(z, d.t))
    delta = v_cond - v

    def mean(x: Tensor) -> float:
        return float(squares(x).mean())

    noise = mean(delta - h * (along_v_cond - along_v))
    return {
        "mf": mean(u + h * along_v_cond - v_cond),
        "imf": mean(u + h * along_v_theta - v_cond),
        "irreducible": mean(delta),
        "leak": noise - mean(delta),
        "mf error": mean(u + h * along_v - v),
        "imf error": mean(u + h * along_v_theta - v),
    }


def mini_batch(x: Tensor, size: int, config: DrawConfig, k: int) -> Draws:
    """The draws of mini-batch k of the points x (N, D): the same ones for every method."""
    rows = torch.randint(len(x), (size,), generator=stream("cpu", ToyStream.ROWS, 0, k))
    return draw(x[rows], None, config, stream("cpu", ToyStream.ROW_DRAWS, 0, k))


def gradient_noise(
    net, method: str, x: Tensor, batch: int = 256, batches: int = 40, p: float = 0.0
) -> dict[str, float]:
    """Mini-batch gradients of one fixed network: squared size of their mean, and their variance (summed).

    The draws of batch k are the same for every method. x (N, D): data points.
    """
    objective, gradients = Objective(net, method, p=p), []
    weights = [w for w in net.parameters() if w.requires_grad]
    for k in range(batches):
        loss = objective(mini_batch(x, batch, DrawConfig(p_r_neq_t=1.0), k)).loss
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    stacked = torch.stack(gradients)
    variance = float(stacked.var(0).sum())
    return {"signal": float(stacked.mean(0).square().sum()) - variance / batches, "variance": variance}


def tangent_errors(net, field, x: Tensor, batch: int = 256, batches: int = 24) -> dict[str, float]:
    """Errors of the mini-batch gradient under plain L2, for tangents between e - x (beta = 0) and v_theta (beta = 1).

    The residual is affine in the tangent, so the gradient is affine in beta: two gradients, G0 and G1, give all of
    them. Its expectation is right at beta = 0 (E[e - x | z_t] = v) and off by beta times the mean of G1 - G, where G
    is the gradient along the exact v on the same draws.

    net: a network without v-head. field: its method v(z, t) is the exact marginal velocity. x (N, D): data points.
    Returns the squared bias at beta = 1 ("bias"), summed over weights and freed of its own sampling noise; the
    variances of G0 and G1 and their covariance ("var0", "var1", "cov"); see `at_beta`.
    """
    weights = [w.requires_grad_(True) for w in net.parameters()]
    kept: dict[str, list[Tensor]] = {"0": [], "1": [], "exact": []}
    for k in range(batches):
        d = mini_batch(x, batch, DrawConfig(), k)
        z, h, v_cond = (1 - d.t) * d.x + d.t * d.e, d.t - d.r, d.e - d.x
        u, slope = net.u(z, d.r, d.t), partial(losses.slope, net, z, d.r, d.t, Cond(), d.n_eq)
        with torch.no_grad():
            tangents = {"0": v_cond, "1": net.velocity(z, d.t), "exact": field.v(z, d.t)}
        for name, along in tangents.items():
            residual = (u + h * slope(along) - v_cond).detach()
            gradient = torch.autograd.grad(u, weights, 2 * residual / batch, retain_graph=True)
            kept[name].append(torch.cat([g.flatten() for g in gradient]))
    g0, g1, exact = (torch.stack(g) for g in kept.values())  # (batches, weights)
    off, noise0, noise1 = g1 - exact, g0 - g0.mean(0), g1 - g1.mean(0)

    def over(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum()) / (batches - 1)

    bias = float(off.mean(0).square().sum() - off.var(0).sum() / batches)
    return {"bias": bias, "var0": over(noise0, noise0), "var1": over(noise1, noise1), "cov": over(noise0, noise1)}


def at_beta(errors: dict[str, float], beta: float) -> tuple[float, float]:
    """Squared bias and variance of the mini-batch gradient along beta v_theta + (1 - beta)(e - x)."""
    a = 1 - beta
    variance = a**2 * errors["var0"] + beta**2 * errors["var1"] + 2 * a * beta * errors["cov"]
    return beta**2 * errors["bias"], variance


def best_beta(errors: dict[str, float], batches: float = 1.0) -> float:
    """The beta in [0, 1] of least squared error, bias^2 + variance / batches: a parabola's lowest point.

    batches: how many mini-batches' gradients are averaged.
    """
    var0, var1, cov = (errors[k] / batches for k in ("var0", "var1", "cov"))
    return min(max((var0 - cov) / (errors["bias"] + var0 + var1 - 2 * cov), 0.0), 1.0)
