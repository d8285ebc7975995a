"""Images: from network output to uint8 pixels, grids and PNG files."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, clipped and *rounded*: truncating would darken by half a grey level."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def grid(images: Tensor, columns: int = 10) -> Tensor:
    """uint8 images (N, C, H, W), N a multiple of columns, as one picture (C, rows H, columns W), row by row."""
    if images.ndim != 4 or len(images) % columns:
        raise ValueError(f"images of shape {tuple(images.shape)} do not fill rows of {columns}.")
    rows = images.unflatten(0, (-1, columns))  # (rows, columns, C, H, W)
    return rows.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)


def save_png(path: str | Path, picture: Tensor, zoom: int = 1) -> None:
    """Write one uint8 picture (C, H, W), C 1 or 3, enlarged by a whole factor."""
    pixels = picture.cpu().repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(0).numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()).save(path)
