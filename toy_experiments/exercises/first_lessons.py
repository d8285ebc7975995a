"""What the exercises of lessons 0 to 3 ask, and what is right."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imf_lite import losses
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig
from imf_lite.draws import draw
from imf_lite.networks import Network
from imf_lite.objective import Objective
from imf_lite.system.rng import generator

from ..ground_truth import datasets, decomposition, distances
from ..ground_truth.datasets import EIGHT, TRIANGLE
from ..ground_truth.exact import Mixture
from ..tables import RESULTS
from .answers import Unfit, call, compare, exercise, numbers
from .batches import operations, ruled, shipped, some_draws, some_net


def along(u: Callable[..., Tensor], at: tuple[Tensor, ...], tangent: tuple[Tensor, ...], eps: float = 1e-4) -> Tensor:
    """How fast u changes along a tangent, by a central difference in float64."""
    ahead, behind = (u(*(x + sign * eps * w for x, w in zip(at, tangent, strict=True))) for sign in (1, -1))
    return (ahead - behind) / (2 * eps)


def places(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points z (n, 2) and times r < t, (n, 1), float64, as lesson 1 draws them."""
    g = generator("cpu", 3)
    t = 0.05 + 0.95 * torch.rand(n, 1, generator=g).double()
    return 1.5 * torch.randn(n, 2, generator=g).double(), t * torch.rand(n, 1, generator=g).double(), t


@exercise("00.1")
def shorter_run(answer: Any) -> str:
    """A number, the spread of iMF's curve over that of MF's, from the run with steps = 500."""
    curves = np.load(RESULTS / "digits.npz")  # means and deviations of each per cent of the runs: 25 % are 500 updates
    spread = {v: np.mean([curves[f"{v}-{k}"][:, 1] for k in range(3)], 0) for v in ("mf", "head")}
    early, late = (spread["head"][part].mean() / spread["mf"][part].mean() for part in (slice(19, 25), slice(75, 100)))
    mf, imf = (spread[v][75:].mean() / spread[v][19:25].mean() for v in ("mf", "head"))
    mistakes = {"that is the ratio after 2,000 updates.": [late], "turn it over: iMF's spread over MF's.": [1 / early]}
    then = f"From 500 to 2,000 updates MF's spread grows {mf:.1f} times; iMF's changes by {abs(imf - 1):.0%} (stored)."
    return compare(numbers(answer), [early], mistakes, 0.28, then)


@exercise("00.2")
def mf_tangent(answer: Any) -> str:
    """A rule (net, z, draws, cond, own) that returns target and tangent, with which iMF's residual is MF's."""
    net, d = some_net(), some_draws()
    target, tangent = ruled(answer, net, d)
    v_cond, z = d.e - d.x, (1 - d.t) * d.x + d.t * d.e
    said = compare(target, v_cond, {})
    if not said.startswith("right"):
        return f"of the target: {said}"
    still = {"the target is right, but the tangent is still the network's own.": net.velocity(z, d.t)}
    said = compare(tangent, v_cond, still | {"the target is right, but z does not move: the tangent is 0.": 0.0})
    both = (Objective(net, *r)(d).raw_u for r in (("mf",), ("imf", 1.0, 0.01, answer)))
    return said if said[:5] != "right" else compare(*both, {}, then="Row by row the two residuals are equal.")


@exercise("00.3")
def boundary(answer: Any) -> str:
    """The name of the method of `Network` that uses u(z, t, t) = v(z, t), as a string."""
    own = {k: inspect.getsource(f) for k, f in vars(Network).items() if inspect.isfunction(f)}
    if not isinstance(answer, str) or answer.strip("()") not in own:
        raise Unfit("base.py has no such method.")
    if "self.u(z, t, t" in own[answer.strip("()")]:
        return "right. Without a v-head the velocity is u over an interval of length 0."
    return f"{answer} is there, but it does not evaluate u where r is t."


@exercise("01.1")
def wide_clusters(answer: Any) -> str:
    """A number, the sliced Wasserstein distance after 16 Euler steps, with std = 1.0."""
    found = {}
    for std, steps in itertools.product((1.0, TRIANGLE.std), (16, 1)):
        mixture, one = Mixture(TRIANGLE.means, std, TRIANGLE.weights), torch.ones(8000, 1)
        z = torch.randn(8000, 2, generator=generator("cpu", 0))
        for k in range(steps):
            z = z - mixture.v(z, one - k / steps) / steps
        found[std, steps] = [distances.sliced_wasserstein(z, mixture.sample(8000, generator("cpu", 1)))]
    mistakes = {"that is the distance with the clusters as they were.": found[TRIANGLE.std, 16]}
    mistakes["that is the distance after one step."] = found[1.0, 1]
    then = f"With std {TRIANGLE.std} it is {found[TRIANGLE.std, 16][0]:.3f}."
    return compare(numbers(answer), found[1.0, 16], mistakes, 0.25, then)


@exercise("01.2")
def time_stands_still(answer: Any) -> str:
    """Two numbers, the mean size of the error for t < 0.5, and for t > 0.5."""
    z, r, t = places(2000)  # a few large errors: the mean of 300 is a quarter off
    u, v = partial(TRIANGLE.u, steps=40), TRIANGLE.v(z, t)
    tangents = {"asked": (v, 0 * r, 0 * t), "right": (v, 0 * r, 1 + 0 * t), "still": (0 * v, 0 * r, 1 + 0 * t)}
    tangents["both"] = (v, 1 + 0 * r, 1 + 0 * t)
    means = {}
    for name, tangent in tangents.items():
        error = (u(z, r, t) - (v - (t - r) * along(u, (z, r, t), tangent))).norm(dim=1)
        means[name] = torch.stack([error[t[:, 0] < 0.5].mean(), error[t[:, 0] > 0.5].mean()])
    mistakes = {
        "with your tangent the identity holds: t still moves.": means["right"],
        "your tangent does not move z.": means["still"],
        "your tangent still moves r.": means["both"],
        "you have the two the wrong way round.": means["asked"].flip(0),
    }
    return compare(
        numbers(answer, 2), means["asked"], mistakes, 0.25, "The error is (t - r) times the rate in t alone."
    )


@exercise("01.3")
def two_parts(answer: Any) -> str:
    """A function (late, early, r, s, t) that returns u(z_t, r, t); late is u(z_t, s, t), early is u(z_s, r, s)."""
    z, r, t = places(200)
    s = r + 0.3 * (t - r)
    late = TRIANGLE.u(z, s, t)
    early = TRIANGLE.u(z - (t - s) * late, r, s)
    way = (t - s) * late + (s - r) * early
    mistakes = {
        "you have the displacement; what is its average over the interval?": way,
        "each part counts by the length of its interval.": (late + early) / 2,
        "your weights are the wrong way round.": ((s - r) * late + (t - s) * early) / (t - r),
    }
    then = "It agrees with Runge-Kutta over the whole interval on the mixture."
    return compare(call(answer, late, early, r, s, t), TRIANGLE.u(z, r, t), mistakes, 1e-3, then)


@exercise("02.1")
def quarter(answer: Any) -> str:
    """Two numbers, counted at p_r_neq_t = 0.25: the slope in forward passes of the batch, and its share of a step."""
    net, costs = some_net(), {}
    for share in (0.25, 0.5):
        d = some_draws(share=share)
        slope = operations(lambda d=d: losses.slope(net, d.x, d.r, d.t, Cond(), d.n_eq, d.e))
        step = operations(lambda d=d: Objective(net, "mf")(d).loss.backward())
        costs[share] = torch.tensor([slope / operations(lambda d=d: net.u(d.x, d.r, d.t)), slope / step])
    mistakes = {"these are the numbers of p_r_neq_t = 0.5.": costs[0.5]}
    then = "At p_r_neq_t = 0.5 they are {:.2f} and {:.2f}.".format(*costs[0.5].tolist())
    return compare(numbers(answer, 2), costs[0.25], mistakes, 0.08, then)


@exercise("02.2")
def not_detached(answer: Any) -> str:
    """Two numbers, the loss without `.detach()` over the loss with it, and the cosine of the two gradients."""
    g = generator("cpu", 0)
    net = some_net(g)
    d = draw(datasets.points("checkerboard", 128), None, DrawConfig(), g)
    z, v_cond, gradients = (1 - d.t) * d.x + d.t * d.e, d.e - d.x, []
    with torch.enable_grad():
        for stop in (True, False):
            u, du_dt = torch.func.jvp(net.u, (z, d.r, d.t), (v_cond, torch.zeros_like(d.r), torch.ones_like(d.t)))
            target = v_cond - (d.t - d.r) * du_dt
            loss = (u - (target.detach() if stop else target)).square().sum(1).mean()
            gradients.append(torch.cat([p.flatten() for p in torch.autograd.grad(loss, list(net.parameters()))]))
    cosine = torch.cosine_similarity(*gradients, dim=0)
    mistakes = {"both of your gradients are the same: is one target still detached?": [1.0, 1.0]}
    then = "The value is the same; the gradient also acts on the target."
    return compare(numbers(answer, 2), [1.0, float(cosine)], mistakes, min(0.01, float(1 - cosine) / 2), then)


@exercise("02.3")
def any_tangent(answer: Any) -> str:
    """A rule (net, z, draws, cond, own) with a senseless tangent and iMF's target."""
    net, equal, mixed = some_net(), some_draws(share=0.0), some_draws(share=0.5)
    target, tangent = ruled(answer, net, mixed)
    if not torch.allclose(target, mixed.e - mixed.x, atol=1e-5):
        return "the target is off: it is the same in flow matching, MF and iMF."
    for sensible in (mixed.e - mixed.x, net.velocity((1 - mixed.t) * mixed.x + mixed.t * mixed.e, mixed.t)):
        if (tangent - sensible).norm() < 0.5 * sensible.norm():
            return "this tangent makes sense; choose one that does not, so that something is shown."
    found, fm = Objective(net, "imf", rule=answer)(equal).raw_u, Objective(net, "fm")(equal).raw_u
    ratio = Objective(net, "imf", rule=answer)(mixed).raw_u.mean() / Objective(net, "imf")(mixed).raw_u.mean()
    then = (
        f"With r = t on all rows it is flow matching; with r < t on half of them the loss is {ratio:,.0f} times iMF's."
    )
    return compare(found, fm, {}, 1e-5, then)


@exercise("03.1")
def leak_ratio(answer: Any) -> str:
    """A number, the leak with narrow modes (std 0.05) over the leak with wide ones (std 0.2)."""
    net = shipped("mf")
    narrow, wide = (decomposition.decompose(net, Mixture(EIGHT.means, std), 3000)["leak"] for std in (0.05, 0.2))
    then = f"It hardly depends on the width: with a network trained for longer, on std 0.1, it is {narrow / wide:.2f}."
    return compare(numbers(answer), [narrow / wide], {}, 0.5, then)


@exercise("03.2")
def exact_tangent(answer: Any) -> str:
    """A rule (net, z, draws, cond, own) whose tangent is the exact marginal velocity of `datasets.EIGHT`."""
    net, d = shipped("mf"), some_draws(EIGHT, 2000, 1.0)
    target, tangent = ruled(answer, net, d)
    z, v_cond = (1 - d.t) * d.x + d.t * d.e, d.e - d.x
    mistakes = {
        "this is MF's tangent.": v_cond,
        "this is the network's own prediction.": net.velocity(z, d.t),
        "you have evaluated the field at r.": EIGHT.v(z, d.r),
        "you have evaluated the field at the data, not at z.": EIGHT.v(d.x, d.t),
    }
    said = compare(tangent, EIGHT.v(z, d.t), mistakes)
    if not said.startswith("right"):
        return f"of the tangent: {said}"
    if not torch.allclose(target, v_cond, atol=1e-5):
        return "the tangent is right; the target must stay e - x, or it is another loss."
    runs = {"e - x": ("mf", None), "v_theta": ("imf", None), "exact v": ("imf", answer)}
    std = {k: Objective(net, m, 0.0, rule=rule)(d).raw_u.std() for k, (m, rule) in runs.items()}
    return "right. Deviation of the raw loss over rows: " + ", ".join(f"{k} {s:.2f}" for k, s in std.items()) + "."


@exercise("03.3")
def cross_term(answer: Any) -> str:
    """A function (error, delta, h, carried) that returns, per row, the product of error and noise, (B,).

    carried is the part of the slope that delta adds, du/dz delta; MF's residual is error minus noise.
    """
    net, d = shipped("mf"), some_draws(EIGHT, 4000, 1.0)
    z, h = (1 - d.t) * d.x + d.t * d.e, d.t - d.r
    v, slope = EIGHT.v(z, d.t), partial(losses.slope, net, z, d.r, d.t, Cond(), 0)
    delta, along_v = d.e - d.x - v, slope(v)
    error, carried = net.u(z, d.r, d.t) + h * along_v - v, slope(v + delta) - along_v
    truth = (error * (delta - h * carried)).sum(1)
    mistakes = {
        "the slope carries delta, too: that is iMF's noise.": (error * delta).sum(1),
        "in the residual the slope is multiplied by h.": (error * (delta - carried)).sum(1),
        "what delta adds to the slope has the other sign.": (error * (delta + h * carried)).sum(1),
    }
    then = f"Its mean over {len(z):,} pairs is {truth.mean():.4f} ± {truth.std() / len(z) ** 0.5:.4f}."
    return compare(call(answer, error, delta, h, carried), truth, mistakes, 1e-3, then)
