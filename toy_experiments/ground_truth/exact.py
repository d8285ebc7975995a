"""Fields known exactly, to compare trained networks with: Gaussians, mixtures of them, and the checkerboard."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_v(z: Tensor, t: Tensor, m: Tensor, s: float) -> Tensor:
    """Marginal velocity E[e - x | z_t = z] for x ~ N(m, s^2 I); z (..., D), t broadcast against it, m (D,).

    z_t = (1-t) x + t e is Gaussian, of mean (1-t) m and variance sigma_t^2 = (1-t)^2 s^2 + t^2, and
    e - x has mean -m and covariance t - (1-t) s^2 with it; so the conditional mean is linear in z.
    """
    variance = (1 - t) ** 2 * s**2 + t**2
    return -m + (t - (1 - t) * s**2) / variance * (z - (1 - t) * m)


def gaussian_flow(z: Tensor, r: Tensor, t: Tensor, m: Tensor, s: float) -> Tensor:
    """Where the flow of `gaussian_v` carries z from time t to time r.

    d(log sigma_t)/dt = (t - (1-t) s^2) / sigma_t^2 is the slope of the velocity in z, so the
    standardised position (z_t - (1-t) m) / sigma_t is constant along the flow.
    """
    sigma_t, sigma_r = (((1 - a) ** 2 * s**2 + a**2).sqrt() for a in (t, r))
    return (1 - r) * m + sigma_r / sigma_t * (z - (1 - t) * m)


def gaussian_u(z: Tensor, r: Tensor, t: Tensor, m: Tensor, s: float) -> Tensor:
    """Average velocity (z_t - z_r) / (t - r) of the same flow; `gaussian_v` where r = t."""
    return average(z, gaussian_flow(z, r, t, m, s), r, t, gaussian_v(z, t, m, s))


class Mixture:
    """x ~ sum_k w_k N(m_k, s^2 I): its samples, and its exact fields.

    Args:
        means: (K, D). std: s, shared. weights: (K,), default equal.
    """

    def __init__(self, means: Tensor, std: float, weights: Tensor | None = None):
        self.means, self.std = means, std
        self.weights = torch.full((len(means),), 1 / len(means)) if weights is None else weights

    def labelled(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """n points (n, D), and the component that each is from (n,): its class."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=g)
        return self.means[component] + self.std * torch.randn(n, self.means.shape[1], generator=g), component

    def sample(self, n: int, g: torch.Generator) -> Tensor:
        """n points (n, D)."""
        return self.labelled(n, g)[0]

    def v(self, z: Tensor, t: Tensor) -> Tensor:
        """Marginal velocity at z (B, D), t (B, 1): the components' own, weighted by their posterior given z."""
        m, w = self.means.to(z), self.weights.to(z)
        variance = ((1 - t) ** 2 * self.std**2 + t**2)[:, None]  # (B, 1, 1)
        away = z[:, None] - (1 - t)[:, None] * m  # (B, K, D)
        posterior = torch.softmax(w.log() - (away**2).sum(2) / (2 * variance[:, :, 0]), dim=1)
        return (posterior[:, :, None] * gaussian_v(z[:, None], t[:, None], m, self.std)).sum(1)

    def given(self, z: Tensor, t: float, n: int, g: torch.Generator) -> Tensor:
        """n points x (n, D) from the posterior p(x | z_t = z) at one z (D,): a component, then a Gaussian in it."""
        variance = (1 - t) ** 2 * self.std**2 + t**2
        log = self.weights.log() - ((z - (1 - t) * self.means) ** 2).sum(1) / (2 * variance)
        m = self.means[torch.multinomial(log.softmax(0), n, replacement=True, generator=g)]
        centre = m + (1 - t) * self.std**2 / variance * (z - (1 - t) * m)
        return centre + self.std * t / variance**0.5 * torch.randn(n, len(z), generator=g)

    def guided_v(
        self, z: Tensor, t: Tensor, y: Tensor, omega: float, interval: tuple[float, float] = (0.0, 1.0)
    ) -> Tensor:
        """Guided velocity omega v_c + (1 - omega) v_u towards classes y (B,) where t is in the interval, else v_c."""
        v_c = gaussian_v(z, t, self.means.to(z)[y], self.std)
        scale = torch.where((t >= interval[0]) & (t <= interval[1]), omega, 1.0)
        return scale * v_c + (1 - scale) * self.v(z, t)

    def flow(self, z: Tensor, r: Tensor, t: Tensor, steps: int = 100) -> Tensor:
        """Where the flow of `v` carries z from t to r: classical Runge-Kutta in float64."""
        return runge_kutta(self.v, z.double(), r.double(), t.double(), steps)[-1].to(z.dtype)

    def u(self, z: Tensor, r: Tensor, t: Tensor, steps: int = 100) -> Tensor:
        """Average velocity (z_t - z_r) / (t - r); `v` where r = t."""
        return average(z.double(), self.flow(z.double(), r, t, steps), r, t, self.v(z, t).double()).to(z.dtype)


class Checkerboard:
    """x uniform on every second of 4 x 4 unit squares, [-2, 2]^2, as `datasets.checkerboard` draws it."""

    corners = torch.tensor([[c, 2 * r + c % 2] for c in range(4) for r in range(2)], dtype=torch.float64) - 2  # (8, 2)

    def v(self, z: Tensor, t: Tensor) -> Tensor:
        """Marginal velocity E[e - x | z_t = z] = (z - E[x | z]) / t at z (B, 2), t (B, 1); in float64.

        Given z, x is N(z / (1-t), (t / (1-t))^2) cut to the squares; on one of them each coordinate is a
        truncated Gaussian, whose mass and mean are known.
        """
        z64, t64 = z.double(), t.double().clamp(1e-4, 1 - 1e-4)
        mean, std = (z64 / (1 - t64))[:, None], (t64 / (1 - t64))[:, None]  # (B, 1, 2), (B, 1, 1)
        low, high = (self.corners.to(z64) - mean) / std, (self.corners.to(z64) + 1 - mean) / std  # (B, 8, 2)
        flip = low > 0  # the tail on the left has more digits
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        mass = (torch.special.ndtr(high) - torch.special.ndtr(low)).clamp_min(1e-300)
        bell = (torch.exp(-(low**2) / 2) - torch.exp(-(high**2) / 2)) / (2 * torch.pi) ** 0.5
        x = mean + std * torch.where(flip, -1.0, 1.0) * bell / mass  # the mean on each square
        weight = mass.log().sum(2, keepdim=True).softmax(1)
        return ((z64 - (weight * x).sum(1)) / t64).to(z.dtype)


def runge_kutta(v, z: Tensor, r: Tensor, t: Tensor, steps: int) -> list[Tensor]:
    """Positions (steps + 1) of dz/ds = v(z, s) from s = t to s = r, each in equal steps of fourth order."""
    path, h = [z], (r - t) / steps
    for k in range(steps):
        s = t + k * h
        a = v(z, s)
        b = v(z + h / 2 * a, s + h / 2)
        c = v(z + h / 2 * b, s + h / 2)
        d = v(z + h * c, s + h)
        z = z + h / 6 * (a + 2 * b + 2 * c + d)
        path.append(z)
    return path


def average(z_t: Tensor, z_r: Tensor, r: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """(z_t - z_r) / (t - r), and v where r = t."""
    h = t - r
    return torch.where(h == 0, v, (z_t - z_r) / torch.where(h == 0, 1.0, h))
