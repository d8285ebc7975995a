"""What the exercises of lesson 9 ask, and what is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imf_lite.configs import T_CLIP
from imf_lite.networks.base import velocity_from
from imf_lite.system.rng import generator

from .answers import call, compare, exercise, numbers

TIMES = (0.01, 0.03, 0.2)


@exercise("09.1")
def left_over(answer: Any) -> str:
    """A number, the standard deviation of the noise left after 40 equal steps with a perfect image."""
    n, x = 40, torch.zeros(1, 1, dtype=torch.float64)
    z = e = torch.ones(1, 1, dtype=torch.float64)
    for k in range(n):
        z = z - velocity_from(x, z, 1 - torch.full((1, 1), k / n, dtype=torch.float64)) / n
    mistakes = {
        "so it would be without the clip.": [0.0],
        "that is what is left before the last step: it also goes a part of the way.": [1 / n],
        "that is the share that the last step leaves, not what is left of the noise.": [1 - 1 / (n * T_CLIP)],
    }
    return compare(numbers(answer), [float(z / e)], mistakes, 1e-3, f"In grey levels: {127.5 * float(z / e):.1f}.")


@exercise("09.2")
def punished(answer: Any) -> str:
    """A function t -> the loss of a perfect image against the target e - x, in units of the mean of (e - x)^2."""
    g = generator("cpu", 9)
    x, e = torch.randn(2, 4000, 2, generator=g, dtype=torch.float64)
    truth = []
    for t in torch.tensor(TIMES, dtype=torch.float64):
        perfect = velocity_from(x, (1 - t) * x + t * e, t.view(1, 1))
        truth.append(float((perfect - (e - x)).square().mean() / (e - x).square().mean()))
    found = numbers([call(answer, t, kind=(float, int, Tensor)) for t in TIMES], len(TIMES))
    below = torch.tensor(TIMES, dtype=torch.float64).clamp(max=T_CLIP) / T_CLIP
    mistakes = {
        "that is the share of the velocity that is missing; the loss is its square.": 1 - below,
        "that is how large the predicted velocity is; how far is it from the target?": below.square(),
        "against the target with the same clip, not against e - x.": 0 * below,
    }
    return compare(found, truth, mistakes, 1e-3, "At t = 0 the whole of it.")


@exercise("09.3")
def left_outside(answer: Any) -> str:
    """A function (D, w) -> the smallest distance from the plane (root mean square) of one-step samples by u."""
    g, n = generator("cpu", 9), 20_000
    cases, truth = [(20, 8), (128, 96), (16, 16)], []
    for D, w in cases:
        e = torch.randn(n, D - 2, generator=g)  # outside the plane one step leaves e - u
        passed = torch.zeros(D - 2)
        passed[:w] = 1  # any subspace of w dimensions is as good as another
        truth.append(float((e - e * passed).square().sum(1).mean().sqrt()))
    found = numbers([call(answer, D, w, kind=(float, int, Tensor)) for D, w in cases], len(cases))
    mistakes = {
        "that is its square.": [max(0, D - 2 - w) for D, w in cases],
        "the data's plane has two of the D dimensions.": [max(0, D - w) ** 0.5 for D, w in cases],
        "so it would be if the network gave nothing at all.": [(D - 2) ** 0.5 for D, _ in cases],
        "so it would be if w were at least D - 2.": [0 for _ in cases],
    }
    return compare(found, truth, mistakes, 0.02, "At D = 128 and w = 96 that is the square root of 30, 5.48.")
