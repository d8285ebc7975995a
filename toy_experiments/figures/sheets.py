"""Sheets of sample images at a whole multiple of their size, with names beside the rows."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

DPI, LEFT, TOP, GAP = 110, 84, 22, 6


def sheet(images: Tensor, rows: Sequence[str], columns: Sequence[str], zoom: int = 3, title: str = "") -> Figure:
    """A figure of uint8 images (rows, columns, k, H, W), black on white, every pixel `zoom` pixels wide.

    k images stand side by side under each column's name; the rows' names stand on the left.
    """
    count, groups, k, height, width = images.shape
    cell, block = zoom * height + 2, zoom * width * k + GAP
    shades = (images.float() / 17).round().mul(17).byte().numpy()  # sixteen shades: looks the same, and is a small file
    picture = np.full((count * cell, groups * block), 0, np.uint8)
    for i in range(count):
        for j in range(groups):
            tile = np.concatenate(list(shades[i, j]), 1).repeat(zoom, 0).repeat(zoom, 1)
            picture[i * cell : i * cell + tile.shape[0], j * block : j * block + tile.shape[1]] = tile
    top = TOP * (1 + bool(title))
    w, h = LEFT + picture.shape[1], top + picture.shape[0]
    fig = plt.figure(figsize=(w / DPI, h / DPI), dpi=DPI, layout="none")
    ax = fig.add_axes((LEFT / w, 0, picture.shape[1] / w, picture.shape[0] / h))
    ax.imshow(picture, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    for i, name in enumerate(rows):
        ax.text(-8, (i + 0.5) * cell, name, ha="right", va="center")
    for j, name in enumerate(columns):
        ax.text(j * block + (block - GAP) / 2, -6, name, ha="center", va="bottom")
    if title:
        fig.text(0.5, 1 - TOP / 2 / h, title, ha="center", va="center")
    return fig
