"""2-D point sets, all about as wide as the noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from imf_lite.data import Data, Split
from imf_lite.system.rng import stream

from .exact import Mixture
from .streams import ToyStream

EIGHT = Mixture(torch.tensor([[math.cos(a * math.pi / 4), math.sin(a * math.pi / 4)] for a in range(8)]) * 1.5, 0.1)
GAUSSIAN = Mixture(torch.tensor([[0.5, -0.5]]), 0.5)
THREE_CLASSES = Mixture(
    torch.tensor([[math.sin(a * math.pi / 1.5), math.cos(a * math.pi / 1.5)] for a in range(3)]), 0.45
)
TRIANGLE = Mixture(torch.tensor([[-1.0, -0.8], [1.2, -0.4], [0.0, 1.2]]), 0.25, torch.tensor([0.5, 0.3, 0.2]))


def checkerboard(n: int, g: torch.Generator) -> Tensor:
    """Uniform on every second of 4 x 4 unit squares, [-2, 2]^2."""
    column, row = torch.randint(4, (n,), generator=g), torch.randint(2, (n,), generator=g) * 2
    corner = torch.stack([column, row + column % 2], 1)
    return corner + torch.rand(n, 2, generator=g) - 2


def two_moons(n: int, g: torch.Generator) -> Tensor:
    """Two interleaved half circles, with noise 0.05 on radius 1."""
    angle, lower = torch.rand(n, generator=g) * math.pi, torch.arange(n) % 2
    x = torch.where(lower == 1, 1 - angle.cos(), angle.cos()) - 0.5
    y = torch.where(lower == 1, 0.5 - angle.sin(), angle.sin()) - 0.25
    return torch.stack([x, y], 1) * 1.3 + 0.05 * torch.randn(n, 2, generator=g)


def pinwheel(n: int, g: torch.Generator) -> Tensor:
    """Five arms, each a Gaussian that is longer than wide, sheared around the centre."""
    arm = torch.randint(5, (n,), generator=g)
    x = torch.randn(n, 2, generator=g) * torch.tensor([0.3, 0.1]) + torch.tensor([1.0, 0.0])
    angle = arm * (2 * math.pi / 5) + 0.25 * torch.exp(x[:, 0])
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1) * 1.3


def swiss_roll(n: int, g: torch.Generator) -> Tensor:
    """A spiral of one and a half turns, denser towards its end, with noise 0.05."""
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=g))
    spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 7
    return spiral + 0.05 * torch.randn(n, 2, generator=g)


DATASETS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "checkerboard": checkerboard,
    "eight_gaussians": EIGHT.sample,
    "eight_gaussians_narrow": Mixture(EIGHT.means, 0.05).sample,
    "eight_gaussians_wide": Mixture(EIGHT.means, 0.2).sample,
    "two_moons": two_moons,
    "pinwheel": pinwheel,
    "swiss_roll": swiss_roll,
    "gaussian": GAUSSIAN.sample,
    "mixture": TRIANGLE.sample,
}


def points(name: str, n: int, seed: int = 0) -> Tensor:
    """n points (n, 2) of a named set. Raises ValueError for an unknown name."""
    if name not in DATASETS:
        raise ValueError(f"no point set named {name!r}; there is: {', '.join(DATASETS)}.")
    return DATASETS[name](n, of_points(seed))


def of_points(seed: int) -> torch.Generator:
    """The generator of a set of points."""
    return stream("cpu", ToyStream.POINTS, seed)


def load(name: str, n: int = 1 << 17, seed: int = 0) -> Data:
    """A point set for `imf_lite.training.train`: n training points, and 8,000 others to measure against."""
    return Data(Split(points(name, n, 2 * seed), None), Split(points(name, 8000, 2 * seed + 1), None), None)


def load_classes(mixture: Mixture = THREE_CLASSES, n: int = 1 << 16, seed: int = 0) -> Data:
    """A mixture whose components are classes, for `imf_lite.training.train`."""
    splits = (mixture.labelled(count, of_points(2 * seed + k)) for k, count in enumerate((n, 8000)))
    return Data(*(Split(x, y) for x, y in splits), len(mixture.means))
