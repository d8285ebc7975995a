"""How far two clouds of points are from each other, and how far two clouds of the same kind would be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor

from imf_lite.system.rng import stream

from .datasets import load, points
from .streams import ToyStream

N = 8000
PROJECTIONS = 256


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance of two clouds (n, D) of equal size.

    The root of the mean, over directions fixed by the seed, of the squared distance of the sorted
    projections. Raises ValueError for clouds of different size.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"clouds of shape {tuple(a.shape)} and {tuple(b.shape)}: they must agree, (n, D).")
    directions = torch.randn(a.shape[1], projections, generator=stream("cpu", ToyStream.DIRECTIONS, seed))
    directions = directions / directions.norm(dim=0)
    gaps = (a @ directions).sort(0).values - (b @ directions).sort(0).values
    return float(gaps.square().mean().sqrt())


def exact_wasserstein(a: Tensor, b: Tensor) -> float:
    """2-Wasserstein distance of two clouds (n, D) by exact optimal transport (POT); for n up to about 2,000."""
    import ot

    uniform = torch.full((len(a),), 1 / len(a), dtype=torch.float64)
    cost = ot.dist(a.double(), b.double())
    return float(ot.emd2(uniform, uniform, cost, numItermax=1_000_000)) ** 0.5


@cache
def noise_distance(name: str) -> float:
    """The distance of untouched noise from a point set: what a network that outputs zero scores."""
    real = load(name).held_out.x
    return sliced_wasserstein(torch.randn(real.shape, generator=stream("cpu", ToyStream.UNTOUCHED, 0)), real)


def is_of_noise(distance: float, name: str) -> bool:
    """Whether a distance from a point set is that of untouched noise, within 2 %."""
    return abs(distance / noise_distance(name) - 1) < 0.02


def spread(values: Sequence[float]) -> float:
    """Step-to-step spread of a curve's last quarter: std of first differences / sqrt 2; a trend does not count."""
    last = np.asarray(values, float)[-(len(values) // 4) :]
    return float(np.diff(last).std() / 2**0.5)


def floor(name: str, n: int = N, draws: int = 10, distance=sliced_wasserstein) -> tuple[float, float]:
    """Mean and standard deviation of the distance of two independent clouds of n points of a named set."""
    distances = [distance(points(name, n, 1000 + 2 * k), points(name, n, 1001 + 2 * k)) for k in range(draws)]
    return mean(distances), stdev(distances)
