"""Which device computes, and how precisely it multiplies float32 matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..configs import Precision


def pick_device(name: torch.device | str | None = None) -> torch.device:
    """The device named, or the best there is: cuda, mps, cpu. Raises ValueError for one that is not there."""
    if name:
        try:
            torch.empty(1, device=name).item()  # a device without values, such as meta, is none to compute on
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): leave it out."
            ) from error
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Multiply float32 matrices in TF32, where the device can, unless `precision` is fp32; undo this afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
