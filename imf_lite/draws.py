"""Everything that is random in a training step, drawn at once, as data.

What follows the draws is deterministic: two losses, or two machines, can be given the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .conditions import check_data


class Draws(NamedTuple):
    """One batch. Shapes: x, e (B, ...); t, r (B, 1, ..., 1); y, drop, omega, t_min, t_max (B,) or None.

    n_eq: the first n_eq rows have r = t; nothing is promised about the others.
    """

    x: Tensor
    e: Tensor
    y: Tensor | None
    t: Tensor
    r: Tensor
    drop: Tensor | None
    omega: Tensor | None
    t_min: Tensor | None
    t_max: Tensor | None
    n_eq: int


@dataclass(frozen=True)
class DrawConfig:
    """How times and dropped labels are drawn (MF appendix A, iMF appendix A)."""

    times: Literal["logit_normal", "uniform"] = "logit_normal"
    """distribution of the two times whose larger is t and whose smaller is r"""
    p_mean: float = -0.4
    """mean of the logit-normal, before the sigmoid"""
    p_std: float = 1.0
    """standard deviation of the logit-normal, before the sigmoid"""
    p_r_neq_t: float = 0.5
    """share of rows with r < t: 0.5 in iMF, 0.25 in MF, 0 is flow matching"""
    class_dropout: float = 0.0
    """expected share of rows that lose their label, always the first rows of the batch"""

    def __post_init__(self) -> None:
        for name in ("p_r_neq_t", "class_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"draws.{name} = {getattr(self, name)}; it is a share: choose a value in [0, 1].")
        if self.times not in ("logit_normal", "uniform"):
            raise ValueError(f"draws.times = {self.times!r}; choose 'logit_normal' or 'uniform'.")


def draw(x: Tensor, y: Tensor | None, config: DrawConfig, g: torch.Generator) -> Draws:
    """Draw noise, times and dropped labels for data x (B, ...) and labels y (B,).

    A fixed count of rows, the first B - round(B * p_r_neq_t), gets r = t; they keep the larger of
    their two times (iMF's reference code). Raises ValueError for integer data or mismatched labels.
    """
    check_data("x", x)
    B = len(x)
    if y is not None and y.shape != (B,):
        raise ValueError(f"y has shape {tuple(y.shape)}, but x holds {B} samples: labels must be ({B},).")
    e = torch.randn(x.shape, generator=g, device=x.device, dtype=x.dtype)
    if config.times == "uniform":
        pair = torch.rand(2, B, generator=g, device=x.device)
    else:
        pair = torch.randn(2, B, generator=g, device=x.device).mul(config.p_std).add(config.p_mean).sigmoid()
    t, r = (s.view(B, *[1] * (x.ndim - 1)) for s in (pair.amax(0), pair.amin(0)))
    n_eq = B - round(B * config.p_r_neq_t)
    r = torch.cat([t[:n_eq], r[n_eq:]])
    dropped = (torch.rand(B, generator=g, device=x.device) < config.class_dropout).sum()  # binomial
    drop = None if y is None else torch.arange(B, device=x.device) < dropped
    return Draws(x, e, y, t, r, drop, None, None, None, n_eq)
