"""What the exercises of step_cost and of the ablation ask, and what is right."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imf_lite import guidance
from imf_lite.conditions import Cond
from imf_lite.configs import Flexible, MLPConfig
from imf_lite.networks import build
from imf_lite.objective import Objective

from .answers import Unfit, call, compare, exercise, numbers
from .batches import operations, rows, some_draws, some_net


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
    of = {(row, k): np.array([r[k] for r in rows("ablation", row=row)])
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
    mf, imf = (np.array([r["fid1"] for r in rows("ablation", row=row)]) for row in ("mf", "boundary"))
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
