"""What the exercises of lessons 4 to 7 ask, and what is right."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imf_lite import guidance, losses
from imf_lite.conditions import Cond
from imf_lite.configs import PRESETS, DrawConfig, Fixed, Flexible
from imf_lite.data.autoencoder import load_vae
from imf_lite.data.normalisation import Latents
from imf_lite.draws import Draws, draw
from imf_lite.networks import build
from imf_lite.objective import Objective
from imf_lite.pretrained import weights
from imf_lite.sampling import generate
from imf_lite.system.paths import pretrained_folder
from imf_lite.system.rng import generator

from ..ground_truth import distances
from ..ground_truth.exact import gaussian_flow, gaussian_u, gaussian_v
from ..tables import excess, pick
from .answers import Unfit, call, chosen, compare, exercise, numbers
from .batches import shipped, some_draws, some_net


@exercise("04.1")
def last_rate(answer: Any) -> str:
    """Two numbers, for MF and for iMF: the smallest learning rate of the sweep at which no network survives."""
    dead: dict[tuple, list[bool]] = {}
    for r in pick("knobs", knob="lr"):
        dead.setdefault((r["variant"], r["value"]), []).append(
            r["sw1"] is None or distances.is_of_noise(r["sw1"], "eight_gaussians")
        )
    none, some = (
        [min(lr for (v, lr), d in dead.items() if v == m and f(d)) for m in ("mf", "head")] for f in (all, any)
    )
    mistakes = {"there the first network dies; some still live.": some, "swap the two methods.": none[::-1]}
    return compare(numbers(answer, 2), none, mistakes, 1e-3, f"The first networks die at {some[0]:g} and {some[1]:g}.")


@exercise("04.2")
def wrong_slope(answer: Any) -> str:
    """A function (net, z, r, t, cond, n_eq, along) that returns a wrong slope."""
    net, d = shipped("imf"), some_draws(n=2000)
    at = (net, (1 - d.t) * d.x + d.t * d.e, d.r, d.t, Cond(), d.n_eq)
    found, right = call(answer, *at, d.e - d.x), losses.slope(*at, d.e - d.x)
    if found.shape != right.shape:
        raise Unfit(f"a slope has the shape of z, {tuple(right.shape)}; yours has {tuple(found.shape)}.")
    if (found - right)[d.n_eq :].norm() < 0.02 * right.norm():
        return "where r < t this is the right slope: nothing is broken yet."
    z, r, t = (x[d.n_eq :] for x in at[1:4])
    moved = torch.func.jvp(net.u, (z, r, t), ((d.e - d.x)[d.n_eq :], torch.ones_like(r), torch.ones_like(t)))[1]
    kind = " (your tangent moves r)" if torch.allclose(found[d.n_eq :], moved, rtol=1e-2, atol=1e-2) else ""
    loss = [Objective(net, "imf", 0.0, slope=s)(d).raw_u[d.n_eq :].mean() for s in (losses.slope, answer)]
    return f"right, it is wrong{kind}. At a trained network iMF's raw loss is {loss[1]:.2f} with it, not {loss[0]:.2f}."


@exercise("04.3")
def far_end(answer: Any) -> str:
    """A function (v, flow, z, r, t) that returns what v - (t - r) du/dt is for the exact u, if r moves along with t."""
    m, s, g, eps = torch.tensor([0.5, -0.5]).double(), 0.5, generator("cpu", 0), 1e-4
    z, r, t = (
        torch.randn(50, 2, generator=g).double(),
        torch.full((50, 1), 0.36).double(),
        torch.full((50, 1), 0.9).double(),
    )
    v, flow = (lambda z, t: gaussian_v(z, t, m, s)), (lambda z, r, t: gaussian_flow(z, r, t, m, s))
    ahead, behind = (gaussian_u(z + k * v(z, t), r + k, t + k, m, s) for k in (eps, -eps))
    mistakes = {
        "that is u, which the right tangent leads to.": gaussian_u(z, r, t, m, s),
        "that is the velocity at this end of the interval.": v(z, t),
        "the time is right, but the point has moved, too.": v(z, r),
    }
    truth = v(z, t) - (t - r) * (ahead - behind) / (2 * eps)
    return compare(call(answer, v, flow, z, r, t), truth, mistakes, 1e-3, "A finite difference gives the same.")


@exercise("05.1")
def same_omega(answer: Any) -> str:
    """ "A", "B" or "C"."""
    net, d = some_net(guided="interval"), some_draws(class_dropout=1.0)
    z, cond = (1 - d.t) * d.x + d.t * d.e, Cond(torch.full_like(d.y, 3), d.omega, d.t_min, d.t_max)
    target, _ = guidance.rule("imf", Flexible("same"))(net, z, d, cond, net.velocity(z, d.t, cond))
    right = "B" if torch.equal(target, d.e - d.x) else "A"
    notes = {
        "A": "look at what rows without a label are trained on, whatever their ω.",
        "B": "look at what rows without a label are trained on, whatever their ω.",
        "C": "it does not cancel: the target contains (1 - 1/ω)(v_c - v_u).",
    }
    then = "On rows without a label the target is e - x at every ω, exactly."
    return chosen(answer, right, {k: note for k, note in notes.items() if k != right}, then)


@exercise("05.2")
def runaway(answer: Any) -> str:
    """A number, the scale from which on the iteration with ω - 1 runs away."""
    omega = torch.linspace(1, 8, 7001).double()
    low, high = torch.zeros_like(omega), torch.ones_like(omega)  # two networks that differ by 1
    for _ in range(50):
        low, high = (1 + (omega - 1) * v_c for v_c in (low, high))
    grows = omega[(high - low).abs() > 1 + 1e-9]
    then = "There the line is as steep as the diagonal; with 1 - 1/ω it is flatter at every ω."
    return compare(numbers(answer), [float(grows[0])], {}, 0.01, then)


@exercise("05.3")
def effective_scale(answer: Any) -> str:
    """A function (omega, kappa) that returns the effective scale of MF's guidance."""
    one, pairs = torch.ones(1, 1), list(itertools.product((0.2, 1.0, 3.0), (0.0, 0.25, 0.5, 0.7)))
    d = Draws(0 * one, one, torch.zeros(1).long(), 0.5 * one, 0 * one, torch.zeros(1).bool(), None, None, None, 0)
    truth = []
    for omega, kappa in pairs:  # v_c* = 1 and v_u = 0: the guided velocity is the scale
        v = one
        for _ in range(80):
            net = SimpleNamespace(num_classes=1, velocity=lambda z, t, c, v=v: torch.where(c.y[:, None] == 1, 0.0, v))
            net.conditional_velocity = lambda z, x, e, t: e - x
            v, _ = guidance.rule("mf", Fixed(omega, kappa))(net, one, d, Cond(), v)
        truth.append(float(v))
    found = numbers([call(answer, *pair, kind=(float, int, Tensor)) for pair in pairs], len(pairs))
    w, k = torch.tensor(pairs).double().T
    mistakes = {"that is one round, with v_c not yet guided.": w + k, "v_c stands on both sides of the equation.": w}
    mistakes["the sign of κ has changed on its way to the other side."] = w / (1 + k)
    return compare(found, truth, mistakes, 1e-3, "Eighty rounds of the library's rule end there, too.")


@exercise("06.1")
def saved(answer: Any) -> str:
    """Four numbers, the shares of weights saved at B/2, M/2, L/2 and XL/2, at iMF's own depth and width."""
    found = []
    for size in ("b2", "m2", "l2", "xl2"):
        mf, imf = replace(PRESETS[f"mf_{size}"], guided="interval"), replace(PRESETS[f"imf_{size}"], v_depth=None)
        twin = replace(mf, width=imf.width, depth=imf.depth, heads=imf.heads)
        with torch.device("meta"):
            configs = (twin, imf, mf, PRESETS[f"imf_{size}"])
            found.append([sum(p.numel() for p in build(c, (4, 32, 32), 1000).parameters()) for c in configs])
    twin, imf, mf, whole = torch.tensor(found).double().T
    mistakes = {
        "the twins still have MF's published depth and width.": 1 - imf / mf,
        "leave the v-branch out: sampling does without it.": 1 - whole / twin,
        "a share of adaLN's weights, not of the tokens'.": twin / imf - 1,
        "that is the share that is left.": imf / twin,
    }
    then = "With MF's published depth and width it would be " + ", ".join(f"{x:.2f}" for x in 1 - imf / mf) + "."
    return compare(numbers(answer, 4), 1 - imf / twin, mistakes, 0.005, then)


@exercise("06.2")
def exchanged(answer: Any) -> str:
    """A function that takes the dictionary of token groups and returns it with two groups exchanged."""
    net, g, one = build(PRESETS["imf_tiny"], (1, 8, 8), 10, 0), generator("cpu", 0), torch.ones(1)
    for p in net.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=g)
    at = torch.randn(1, 1, 8, 8, generator=g), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    cond, in_order = Cond(one.long(), 4 * one, 0.2 * one, 0.8 * one), net.condition_tokens
    old = in_order(at[2] - at[1], cond)
    new, before = call(answer, dict(old), kind=dict), net.u(*at, cond)
    if set(new) != set(old) or not all(new[k] is old[k] for k in old):
        return "all groups must stay as they are: change their places only."
    if list(new) == list(old):
        return "the groups are in the same order as before."
    net.condition_tokens = lambda h, cond: new
    change = float((net.u(*at, cond) - before).norm() / before.norm())
    return f"right. The output changes by {change:.1%}: positions run over the whole sequence, conditions included."


@exercise("06.3")
def waking(answer: Any) -> str:
    """Three numbers, how many of the parameter tensors have a gradient other than 0 at updates 1, 2 and 3."""
    net, counts = build(PRESETS["mf_tiny"], (1, 8, 8), 10, 0), []
    x, y = torch.randn(40, 1, 8, 8, generator=generator("cpu", 1)), torch.arange(40) % 10
    d = draw(x, y, DrawConfig(), generator("cpu", 2))
    with torch.enable_grad():
        for _ in range(3):
            net.zero_grad()
            Objective(net, "mf")(d).loss.backward()
            counts.append(sum(p.grad is not None and bool(p.grad.any()) for p in net.parameters()))
            torch.optim.SGD(net.parameters(), 0.1).step()
    mistakes = {"count only those whose gradient is not 0 everywhere.": [float(len(list(net.parameters())))] * 3}
    then = "First the last layer, then the modulations and the embedding of z, then all."
    return compare(numbers(answer, 3), [float(k) for k in counts], mistakes, 1e-3, then)


@exercise("07.1")
def interval_costs(answer: Any) -> str:
    """Two numbers, at ω = 1 and at ω = 8: by how much the FID in [0.2, 0.8] exceeds that at all times."""
    seed = weights.read_notes(pretrained_folder("fashion") / "networks" / "fashion_imf")["recipe"]["seed"]
    shipped = {"network": "fashion_imf", "nfe": 1, "half": "report", "training": seed}
    differences = []
    for omega in (1, 8):
        of = {t: [excess(r) for r in pick("fashion", **shipped, omega=omega, t_min=t)] for t in (0, 0.2)}
        differences.append(np.mean(of[0.2]) - np.mean(of[0]))
    a, b = differences
    mistakes = {"the other way round: [0.2, 0.8] minus all times.": [-a, -b], "swap the two scales.": [b, a]}
    return compare(numbers(answer, 2), differences, mistakes, 0.2, f"Stored, at n = 2,000: {a:.1f} and {b:.1f}.")


@exercise("07.2")
def unscaled(answer: Any) -> str:
    """A function (z, latents, vae) that decodes z without undoing the scaling, and returns uint8 images."""
    made = pretrained_folder("fashion") / "networks" / "fashion_imf"
    z, vae = generate(weights.load(made), 8, 1, 0, omega=2.0)[0], load_vae("fashion")
    latents = Latents(**weights.read_notes(made)["latents"])
    mean, std = replace(latents, std=(1.0,) * 4), replace(latents, mean=(0.0,) * 4)
    truth = replace(mean, mean=(0.0,) * 4).images(z, vae).double()
    mistakes = {
        "these are the right images: the scaling is still undone.": latents.images(z, vae),
        "the mean is still added.": mean.images(z, vae),
        "the standard deviation is still multiplied.": std.images(z, vae),
    }
    off = (truth - latents.images(z, vae)).square().mean().sqrt()
    return compare(call(answer, z, latents, vae), truth, mistakes, 0.01, f"It moves grey levels by {off:.0f} (RMS).")


@exercise("07.3")
def floor_of(answer: Any) -> str:
    """A function n -> the floor with n images against m = 10,000, from the floor at n = 1,000 alone."""
    stored = json.loads((pretrained_folder("fashion") / "floors.json").read_text())["floors"]
    floor = {int(n): f["fid"] for n, f in stored.items()}
    n, first = torch.tensor([k for k in floor if k != 1000]).double(), floor[1000]
    found = numbers([call(answer, int(k), kind=(float, int, Tensor)) for k in n], len(n))
    mistakes = {
        "the reference set is finite, too.": first * 1000 / n,
        "that falls like a standard error; is the bias of a square so?": first * (1000 / n) ** 0.5,
        "that is the floor at 1,000, whatever n is.": first,
    }
    then = "Measured: " + ", ".join(f"{floor[int(k)]:.3f} at {k:,.0f}" for k in n) + "."
    return compare(found, [floor[int(k)] for k in n], mistakes, 0.06, then)
