"""One look for every figure of the notebooks: colours, lines, and the few plots that several share."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from imf_lite.images import grid

COLORS = {"fm": "#56B4E9", "mf": "#D55E00", "imf": "#0072B2", "data": "#222222", "noise": "#B8B8B8"}
LINES = {"fm": ":", "mf": "--", "imf": "-", "data": "-", "noise": "-"}
NAMES = {"fm": "FM", "mf": "MF", "imf": "iMF", "data": "data", "noise": "noise"}


def style() -> None:
    """Set the look: 3.2 inch panels, 9 pt, no top or right spine, PNG at 110 dpi."""
    plt.rcParams.update(
        {
            "figure.dpi": 110, "savefig.dpi": 110, "figure.figsize": (3.2, 3.2), "figure.constrained_layout.use": True,
            "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False,
            "image.cmap": "viridis", "lines.linewidth": 1.6,
        }
    )  # fmt: skip


def running(values: Sequence[float], window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, running mean and running standard deviation of a curve."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(values, float), window)
    return np.arange(len(windows)) + window, windows.mean(1), windows.std(1)


def spread(values: Sequence[float]) -> float:
    """Step-to-step spread of a curve's last quarter: std of first differences / sqrt 2."""
    last = np.asarray(values, float)[-(len(values) // 4) :]
    return float(np.diff(last).std() / 2**0.5)


def curve(ax: Axes, values: Sequence[float], method: str, window: int = 100) -> None:
    """A raw curve, thin and pale, under its running mean and a band of one running deviation."""
    color = COLORS[method]
    ax.plot(np.arange(len(values)) + 1, values, color=color, alpha=0.2, lw=0.5)
    x, mean, std = running(values, min(window, len(values)))
    ax.fill_between(x, mean - std, mean + std, color=color, alpha=0.2, lw=0)
    ax.plot(x, mean, color=color, ls=LINES[method])
    ax.annotate(NAMES[method], (x[-1], mean[-1]), (4, 0), textcoords="offset points", color=color, va="center")


def digits(ax: Axes, images: Tensor, title: str, columns: int = 10) -> None:
    """A grid of uint8 images (N, 1, H, W), row by row, black on white, a pixel apart."""
    picture = grid(F.pad(images, (1, 1, 1, 1)), columns)[0]
    ax.imshow(picture, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    ax.set_title(title)
    ax.set_axis_off()
