"""One look for every figure of the notebooks: colours, lines, and the few plots that several share."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from imf_lite.data.images import grid
from imf_lite.training.comparison import METHOD_COLORS

COLORS = METHOD_COLORS | {"data": "#222222", "noise": "#B8B8B8"}
OTHER = ("#009E73", "#CC79A7", "#E69F00", "#8A8A8A", "#8C6BB1")
"""for what is not a method: the parts of a loss or a step, classes, settings"""
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


def seeds(ax: Axes, x: np.ndarray, many: np.ndarray, method: str, band: np.ndarray | None = None) -> None:
    """Curves (seeds, n) thin, their median thick; `band` (seeds, n), a deviation, is shown around the median."""
    color, median = COLORS[method], np.median(many, 0)
    ax.plot(x, many.T, color=color, lw=0.6, alpha=0.5)
    ax.plot(x, median, color=color, ls=LINES[method])
    if band is not None:
        width = np.median(band, 0)
        ax.fill_between(x, median - width, median + width, color=color, alpha=0.2, lw=0)
    ax.annotate(NAMES[method], (x[-1], median[-1]), (3, 0), textcoords="offset points", color=color, va="center")


def plane(ax: Axes, title: str = "", limit: float = 2.6) -> None:
    """Equal, fixed axes without ticks, the same for all point sets."""
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)


def cloud(ax: Axes, x: Tensor, kind: str = "data", size: float = 1.0, **kwargs) -> None:
    """Points (n, 2) as dots in the colour of their kind."""
    ax.scatter(*x.detach().cpu().T.numpy(), s=size, color=COLORS[kind], lw=0, **kwargs)


def density(ax: Axes, x: Tensor, limit: float = 2.6, bins: int = 80) -> None:
    """The density of points (n, 2) as a picture, on the axes of `plane`."""
    counts, _, _ = np.histogram2d(*x.detach().cpu().T.numpy(), bins=bins, range=[[-limit, limit]] * 2)
    ax.imshow(counts.T, origin="lower", extent=(-limit, limit) * 2, vmax=np.quantile(counts, 0.995) or 1)


def arrows(ax: Axes, z: Tensor, v: Tensor, kind: str = "data", scale: float = 0.25, **kwargs) -> None:
    """Vectors v (n, 2) at points z (n, 2), drawn `scale` times as long as they are."""
    ax.quiver(
        *z.T.numpy(),
        *(scale * v.detach()).T.numpy(),
        color=COLORS[kind],
        angles="xy",
        scale_units="xy",
        scale=1,
        **kwargs,
    )


def trajectories(ax: Axes, path: Tensor, kind: str = "data", **kwargs) -> None:
    """Paths (steps, n, 2): one line per point, with a dot at its end."""
    ax.plot(path[:, :, 0].numpy(), path[:, :, 1].numpy(), color=COLORS[kind], **({"lw": 0.7, "alpha": 0.7} | kwargs))
    cloud(ax, path[-1], kind, 8, zorder=3)


def lattice(limit: float = 2.4, n: int = 15) -> Tensor:
    """A square lattice of n x n points, (n^2, 2)."""
    line = torch.linspace(-limit, limit, n)
    return torch.cartesian_prod(line, line)
