"""Fields that are known exactly, to hold a trained network against."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_v(z: Tensor, t: Tensor, m: Tensor, s: float) -> Tensor:
    """Marginal velocity E[e - x | z_t = z] for x ~ N(m, s^2 I); z (B, D), t (B, 1), m (D,).

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
    h = t - r
    u = (z - gaussian_flow(z, r, t, m, s)) / torch.where(h == 0, 1.0, h)
    return torch.where(h == 0, gaussian_v(z, t, m, s), u)
