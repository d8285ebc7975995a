"""Images: read from files and cropped; from network output to uint8 pixels, grids and PNG files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""modes in which pillow opens grey images of 16 bits"""
SLENDER = 100
"""largest ratio of sides: cropped to its short side, a more slender image would be enormous"""


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


def read_image(file: str | Path | BinaryIO, size: int) -> Tensor:
    """An image file as uint8 (3, size, size): RGB, cropped as ADM crops ImageNet.

    As in ADM and torchvision, EXIF orientation is ignored and transparency dropped. Grey images of 16 bits are scaled
    to 8. Raises ValueError for pixels that are not integers, decompression bombs, or images that are far too slender.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                return torch.from_numpy(np.array(crop(to_rgb(image), size))).permute(2, 0, 1).contiguous()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"it may be a decompression bomb ({error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image of integer pixels as 8-bit RGB."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose value of white is not defined")
    if image.mode in SIXTEEN_BITS:
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its pixels reach from {grey.min()} to {grey.max()}, which are not 16 bits")
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # pillow warns of what it drops otherwise
    return image.convert("RGB")


def crop(image: Image.Image, size: int) -> Image.Image:
    """The centre square at size x size, as ADM crops ImageNet: halved while it can be, then bicubic."""
    if max(image.size) > SLENDER * min(image.size):
        raise ValueError(f"it has {image.width} x {image.height} pixels, which leaves no square worth cropping")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
