"""What a network may be conditioned on besides (r, t), and the checks of what callers pass in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Cond(NamedTuple):
    """Conditions of one batch, each a (B,) tensor, or None if the network was built without it.

    y: class labels, integers in [0, num_classes]; num_classes itself is the null label.
    omega: guidance scale, >= 1. t_min, t_max: the guidance interval, in [0, 1].
    """

    y: Tensor | None = None
    omega: Tensor | None = None
    t_min: Tensor | None = None
    t_max: Tensor | None = None

    @staticmethod
    def cat(*parts: Cond) -> Cond:
        """Several batches' conditions as one."""
        return Cond(*(None if c[0] is None else torch.cat(c) for c in zip(*parts, strict=True)))

    def omega_at(self, t: Tensor) -> Tensor:
        """The scale (B,) that acts at times t (B,): omega where t_min <= t <= t_max, ends included, and 1 elsewhere."""
        assert self.omega is not None  # only guided networks are asked
        if self.t_min is None or self.t_max is None:
            return self.omega
        return torch.where((self.t_min <= t) & (t <= self.t_max), self.omega, 1.0)

    def rows(self, rows: slice) -> Cond:
        """The same conditions for some rows of the batch."""
        return Cond(*(None if c is None else c[rows] for c in self))


def readable(x: Tensor) -> bool:
    """Whether values of x can be looked at for free: reading from an accelerator would stall it."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_data(name: str, x: Tensor) -> None:
    """Raise ValueError unless x is a floating-point tensor with a batch dimension."""
    if not x.is_floating_point() or x.ndim < 2:
        raise ValueError(
            f"{name} is {x.dtype} of shape {tuple(x.shape)}; it must be floating point, (B, ...): "
            "scale images to about [-1, 1] first, e.g. x.float() / 127.5 - 1."
        )


def check_times(z: Tensor, r: Tensor, t: Tensor) -> None:
    """Raise ValueError unless r and t are (B, 1, ..., 1) as z demands, and 0 <= r <= t <= 1."""
    shape = (len(z),) + (1,) * (z.ndim - 1)
    for name, s in (("r", r), ("t", t)):
        if s.shape != shape:
            raise ValueError(f"{name} has shape {tuple(s.shape)}, but z {tuple(z.shape)} needs {shape}.")
        if readable(s) and not ((s >= 0) & (s <= 1)).all():
            raise ValueError(
                f"{name} reaches from {s.min():.4g} to {s.max():.4g}; times lie in [0, 1]: 1 is noise, 0 is data."
            )
    if readable(t) and (r > t).any():
        raise ValueError(f"r > t by up to {(r - t).max():.4g}; r is the earlier end of the interval: swap the two.")


def check_labels(y: Tensor, num_classes: int) -> None:
    """Raise ValueError unless y holds integers in [0, num_classes] (num_classes: the null label)."""
    if y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(f"y is {y.dtype}; class labels are integers: use y.long().")
    if readable(y) and len(y) and not ((y >= 0) & (y <= num_classes)).all():
        raise ValueError(
            f"y reaches from {y.min()} to {y.max()}; with {num_classes} classes, labels are 0 to "
            f"{num_classes - 1}, and {num_classes} means 'no class'."
        )


def check_guidance(cond: Cond) -> None:
    """Raise ValueError unless omega >= 1 and 0 <= t_min <= t_max <= 1."""
    omega, t_min, t_max = cond.omega, cond.t_min, cond.t_max
    if omega is not None and readable(omega) and (~(omega >= 1)).any():
        raise ValueError(f"omega = {omega.min():.4g}; a guidance scale is at least 1, and 1 is no guidance.")
    if t_min is None or t_max is None or not readable(t_min):
        return
    if not ((t_min >= 0) & (t_min <= t_max) & (t_max <= 1)).all():
        raise ValueError("the guidance interval must be 0 <= t_min <= t_max <= 1 in every row; (0, 1) is all times.")
