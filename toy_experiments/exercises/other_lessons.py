"""What the exercises of step_cost, the ablation, lesson 8 and the family ask, and what is right."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imf_lite import guidance, relatives
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig, Flexible, MLPConfig
from imf_lite.draws import draw
from imf_lite.networks import build
from imf_lite.objective import Objective
from imf_lite.system.rng import generator

from ..ground_truth import datasets
from ..tables import pick
from .answers import Unfit, call, compare, exercise, numbers
from .batches import operations, shipped, some_draws, some_net


@exercise("step_cost.1")
def slope_share(answer: Any) -> str:
    """A number, the slope's share of the counted operations of our step in the plane."""
    config = MLPConfig(width=128, depth=4, time_scale=3.0, v_depth=1, guided="interval")
    d, counts = some_draws(n=256, class_dropout=0.1), []
    loss = Objective(build(config, (2,), 10), "imf", rule=guidance.rule("imf", Flexible()))
    rule, slope, nothing = loss.rule, loss.slope, lambda net, z, *a, **k: torch.zeros_like(z)
    for parts in ((rule, slope), (rule, nothing), (guidance.conditional, slope)):
        loss.rule, loss.slope = parts
        counts.append(operations(lambda: loss(d).loss.backward()))
    whole, no_slope, no_guidance = counts
    mistakes = {
        "that is the share of all other parts.": [no_slope / whole],
        "that is the share of guidance.": [1 - no_guidance / whole],
        "its share of the whole step, not of the other parts.": [whole / no_slope - 1],
    }
    then = f"Guidance has {1 - no_guidance / whole:.0%}. Compare the shares of the time that your machine needs."
    return compare(numbers(answer), [1 - no_slope / whole], mistakes, 0.04, then)


@exercise("step_cost.2")
def changed_rows(answer: Any) -> str:
    """A function draws -> (B,) of True and False: the rows whose target changes."""
    net, d = some_net(guided="interval"), some_draws(class_dropout=0.3)._replace(drop=torch.arange(400) % 3 == 0)
    z, cond = (1 - d.t) * d.x + d.t * d.e, Cond(d.y, d.omega, d.t_min, d.t_max)
    own = net.velocity(z, d.t, cond)
    targets = [guidance.rule("imf", Flexible())(net, z, d, cond, v)[0] for v in (own, torch.zeros_like(own))]
    truth, found = (targets[0] != targets[1]).any(1), call(answer, d)
    if found.shape != truth.shape or found.dtype != torch.bool:
        raise Unfit(f"your function returns {found.dtype} of shape {tuple(found.shape)}.")
    late, extra, missing = torch.arange(400) >= d.n_eq, found & ~truth, truth & ~found
    if (extra & late).any():
        return "on rows with r < t, v_c comes from a forward of its own."
    if (extra & d.drop).any():
        return "rows that lost their label are not guided: their target is e - x."
    if (extra | missing).any():
        return f"there are {int(extra.sum())} rows too many and {int(missing.sum())} too few, of {int(truth.sum())}."
    return f"right: {int(truth.sum())} of {len(truth)} rows of this batch."


@exercise("step_cost.3")
def full_interval(answer: Any) -> str:
    """Two numbers, t_min and t_max of the rows with r = t."""
    d = some_draws(class_dropout=0.1)
    assert d.t_min is not None and d.t_max is not None
    ends = [[float(e[: d.n_eq].min()), float(e[: d.n_eq].max())] for e in (d.t_min, d.t_max)]
    assert all(low == high for low, high in ends)
    mistakes = {"that is an empty interval.": 0.0, "that would be drawn on rows with r < t: look at `draw`.": 0.5}
    return compare(numbers(answer, 2), [e[0] for e in ends], mistakes, 1e-3, "So ω acts at every t on these rows.")


@exercise("ablation.1")
def two_evaluations(answer: Any) -> str:
    """Two numbers of seeds, in two evaluations: the v-head better than MF (both fixed), modern better than tokens."""
    pairs = (("head, fixed", "mf, fixed", "fid"), ("modern", "tokens", "best"))
    of = {(row, k): np.array([r[k] for r in pick("ablation", row=row)])
          for *two, kind in pairs for row in two for k in (f"{kind}1", f"{kind}2")}  # fmt: skip
    one, two = ([float((of[a, f"{k}{n}"] < of[b, f"{k}{n}"]).sum()) for a, b, k in pairs] for n in (1, 2))
    mistakes = {
        "those are the numbers of one evaluation.": one,
        "count the seeds at which it is better.": 3 - np.array(two),
    }
    then = f"In one evaluation it was {one[0]:.0f} and {one[1]:.0f}: a verdict belongs to its number of evaluations."
    return compare(numbers(answer, 2), two, mistakes, 1e-3, then)


@exercise("ablation.2")
def best_seed(answer: Any) -> str:
    """A number, the lowest FID of MF minus the lowest of iMF with the boundary, without guidance, one evaluation."""
    mf, imf = (np.array([r["fid1"] for r in pick("ablation", row=row)]) for row in ("mf", "boundary"))
    mistakes = {
        "that is the difference of the medians.": [np.median(mf) - np.median(imf)],
        "that is the difference of the means.": [mf.mean() - imf.mean()],
        "MF minus iMF, please.": [imf.min() - mf.min()],
    }
    then = f"The difference of the medians is {np.median(mf) - np.median(imf):.2f}."
    return compare(numbers(answer), [mf.min() - imf.min()], mistakes, 0.04, then)


@exercise("ablation.3")
def all_agree(answer: Any) -> str:
    """A function n -> the probability that n seeds all agree on a direction, if a step changes nothing."""
    counts = (1, 2, 3, 5, 8)
    found = numbers([call(answer, n, kind=(float, int, Tensor)) for n in counts], len(counts))
    truth = [np.mean([len(set(signs)) == 1 for signs in itertools.product("+-", repeat=n)]) for n in counts]
    mistakes = {
        "they can agree on being better, or on being worse.": 0.5 ** np.array(counts),
        "the first seed is free to choose; so how many must follow it?": 0.5 ** (np.array(counts) + 1.0),
    }
    then = f"Of eleven steps that change nothing, {11 * truth[2]:.1f} would be decided by three seeds, on average."
    return compare(found, truth, mistakes, 1e-3, then)


@exercise("08.1")
def same_share(answer: Any) -> str:
    """A number, the decay whose half-life is to 2,000 updates as that of 0.9999 is to 800,640."""
    updates = 800_640
    truth = 0.9999 ** (updates / 2000)
    mistakes = {
        "its half-life would be longer than the run.": [0.9999],
        "that has the half-life of 0.9999 divided by the wrong number: by how much is the run shorter?": [0.9999**2000],
    }
    found = numbers(answer)
    if not 0 < float(found) < 1:
        return "a decay lies between 0 and 1."
    half_lives = [float(torch.as_tensor(0.5).log() / torch.as_tensor(float(d)).log()) for d in (found, truth)]
    said = compare(found, [truth], mistakes, 1e-3, f"Its half-life is {half_lives[1]:.1f} updates.")
    return f"{said} (Yours has a half-life of {half_lives[0]:.1f} updates.)" if said.startswith("not yet") else said


@exercise("08.2")
def unequal_shares(answer: Any) -> str:
    """Two numbers: the relative difference of the gradients, and the share of rows with r = t in the whole batch."""
    net = some_net().requires_grad_(True)
    drawn = [some_draws(n=n, share=share) for n, share in ((40, 0.25), (40, 0.75))]
    gradients, weights = [], list(net.parameters())
    with torch.enable_grad():
        losses = [Objective(net, "mf")(d).loss for d in drawn]
        for loss in (sum(losses) / 2, *losses):
            found = torch.autograd.grad(loss, weights, retain_graph=True)
            gradients.append(torch.cat([g.flatten() for g in found]))
    whole, mean = gradients[0], (gradients[1] + gradients[2]) / 2
    off, share = float((mean - whole).norm() / whole.norm()), sum(d.n_eq for d in drawn) / 80
    a, b = numbers(answer, 2).tolist()
    if abs(a - off) > 0.01:
        return "number 1: each row still counts once, so what can differ but rounding?"
    mistakes = {"number 2 is the share of rows with r < t in the first part.": [0.25]}
    then = "Only the draws have changed: as a batch of that share, in another order."
    return compare(torch.tensor([b]), [share], mistakes, 1e-3, then)


@exercise("08.3")
def of_the_means(answer: Any) -> str:
    """A function (d, n) -> what the means of two sets of n samples of N(0, I) add to their FID, on average."""
    sizes, g = ((4, 10), (16, 10), (16, 40)), torch.Generator().manual_seed(0)
    truth = []
    for d, n in sizes:
        means = torch.randn(2, 4000, n, d, generator=g).mean(2)
        truth.append(float((means[0] - means[1]).square().sum(1).mean()))
    found = numbers([call(answer, d, n, kind=(float, int, Tensor)) for d, n in sizes], len(sizes))
    mistakes = {
        "that is one mean's: two sets have two.": np.array([d / n for d, n in sizes]),
        "the squared length, not the length.": np.array([(2 * d / n) ** 0.5 for d, n in sizes]),
    }
    return compare(found, truth, mistakes, 0.05, "The covariances add about half of d^2 / n: much more.")


@exercise("family.1")
def first_order(answer: Any) -> str:
    """A number, the distance of α-Flow's gradient from MF's at α = 0.02, over that at α = 0.1."""
    net = shipped("mf").double().requires_grad_(True)
    d = draw(datasets.points("eight_gaussians", 400), None, DrawConfig(), generator("cpu", 0))
    d = type(d)(*(s.double() if isinstance(s, Tensor) and s.is_floating_point() else s for s in d))

    def gradient(**slope: Any) -> Tensor:
        with torch.enable_grad():
            return torch.cat([g.flatten() for g in torch.autograd.grad(
                Objective(net, "mf", p=0, **slope)(d).loss, list(net.parameters()))])  # fmt: skip

    mf = gradient()
    near, far = ((gradient(slope=relatives.slope("chord", a)) - mf).norm() for a in (0.02, 0.1))
    mistakes = {"that is the ratio at α = 0.1 over 0.02.": [float(far / near)], "does nothing change?": [1.0]}
    return compare(
        numbers(answer), [float(near / far)], mistakes, 0.3, "The error of the chord is of first order in α."
    )


@exercise("family.2")
def both_ends(answer: Any) -> str:
    """A number, the factor by which u's coefficient in α-Flow's residual grows at α = 0.1 if nothing is detached."""
    alpha, u, near, v = 0.1, *torch.tensor([0.7, -0.2, 0.4])
    pulls = []
    with torch.enable_grad():
        for detach in (True, False):
            at, end = u.clone().requires_grad_(True), near.clone().requires_grad_(True)
            slope = (at - end) / alpha  # h = 1
            residual = at - (v - (1 - alpha) * (slope.detach() if detach else slope))
            pulls.append(torch.autograd.grad(residual.square(), [at, end], allow_unused=True))
    (plain, _), (more, other) = pulls
    mistakes = {
        "that is the coefficient of the other u, relative to the same.": [float(-other / plain)],
        "nothing detached, the difference pulls as well.": [1.0],
    }
    then = "The other u has nearly the opposite coefficient: lesson 2's loss without the stop-gradient, in the limit."
    return compare(numbers(answer), [float(more / plain)], mistakes, 1e-3, then)


@exercise("family.3")
def short_part(answer: Any) -> str:
    """A function (u, v, du_dt, h, k) -> SplitMeanFlow's target at s = t - k, to first order in k."""
    u, v, du_dt = torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = torch.full((50, 1), 0.6, dtype=torch.float64)
    errors = []
    for k in (1e-2, 1e-3):
        on_both_parts = (k * v + (h - k) * (u - k * du_dt)) / h
        errors.append(float((call(answer, u, v, du_dt, h, k) - on_both_parts).abs().max()))
    if errors[1] > max(0.05 * errors[0], 1e-9):
        if errors[1] > 0.5 * errors[0]:
            return "not yet: on the short part the average is v, on the long one nearly u; weigh them by their lengths."
        return "not yet: terms of first order in k are missing; on the part [r, s], z and t have moved, too."
    return "right. Set it equal to u, divide by k, and let k go to 0: the MeanFlow identity."
