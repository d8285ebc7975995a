"""The two computation graphs, side by side: python -m toy_experiments.figures.graphs notebooks/figures/graphs.png"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from . import plots

PAIR, POINT, NET, PLAIN = "#F3D9CC", "#E4E4E4", "#D6E6F2", "#FFFFFF"


def box(ax: Axes, x: float, y: float, text: str, face: str = PLAIN, edge: str = "#555555") -> Text:
    """One node, centred at (x, y)."""
    style = {"boxstyle": "round,pad=0.35", "fc": face, "ec": edge, "lw": 1.0}
    return ax.text(x, y, text, ha="center", va="center", bbox=style, fontsize=9, zorder=3)


def arrow(
    start: Text, end: Text, gradient: bool = False, color: str = "#777777", lw: float = 1.0, bend: float = 0.0
) -> None:
    """An edge between two nodes: solid where gradient flows back, else dashed."""
    look = {
        "arrowstyle": "-|>",
        "color": color,
        "lw": lw,
        "ls": "-" if gradient else "--",
        "mutation_scale": 10,
        "shrinkB": 4,
    }
    ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch(), "connectionstyle": f"arc3,rad={bend}"}
    start.axes.annotate("", end.get_position(), start.get_position(), arrowprops=look | ends, zorder=2)


def graph(ax: Axes, method: str) -> None:
    """The graph of one loss; the tangent's edge is the thick one."""
    color = plots.COLORS[method]
    pair = box(ax, 0, 2.2, "the pair $(x, e)$", PAIR)
    point = box(ax, 0, 0.7, "$z_t$", POINT)
    u = box(ax, 1.6, 0, r"$u_\theta(z_t, r, t)$", NET)
    slope = box(ax, 2.9, 1.1, r"$\frac{du}{dt}$ = jvp($u_\theta$)", PAIR if method == "mf" else NET, color)
    if method == "mf":
        tangent = box(ax, 1.6, 2.2, "$e - x$", PAIR, color)
        middle = box(ax, 4.7, 1.1, "target\n" + r"$(e - x) - (t-r)\,\frac{du}{dt}$", PAIR)
        loss = box(ax, 6.5, 0.3, r"$\Vert u - \mathrm{target}\,\Vert^2$")
        arrow(pair, tangent)
        arrow(tangent, middle, bend=-0.25)
        arrow(u, loss, gradient=True)
        arrow(middle, loss)
        ax.set_title("MF: through its tangent, the slope depends on the pair", color=color)
    else:
        tangent = box(ax, 1.6, 2.2, r"$v_\theta(z_t, t)$", NET, color)
        middle = box(ax, 4.7, 0.9, "prediction\n" + r"$V = u + (t-r)\,\frac{du}{dt}$", NET)
        target = box(ax, 4.7, 2.2, "target $e - x$", PAIR)
        loss = box(ax, 6.5, 1.3, r"$\Vert V - (e - x)\,\Vert^2$")
        arrow(pair, target, bend=-0.25)
        arrow(point, tangent)
        arrow(u, middle, gradient=True, bend=0.1)
        arrow(middle, loss, gradient=True)
        arrow(target, loss)
        ax.set_title("iMF: slope and prediction depend on $z_t$, $r$ and $t$ alone", color=color)
    arrow(pair, point)
    arrow(point, u)
    arrow(u, slope)
    arrow(slope, middle)
    arrow(tangent, slope, color=color, lw=3)
    ax.text(2.4, 1.72, "tangent", color=color, fontsize=9, ha="left")
    ax.set(xlim=(-0.8, 7.3), ylim=(-0.4, 2.9))
    ax.set_axis_off()


def figure() -> Figure:
    """Both graphs."""
    plots.style()
    fig, axes = plt.subplots(1, 2, figsize=(11, 2.7))
    for ax, method in zip(axes, ("mf", "imf"), strict=True):
        graph(ax, method)
    return fig


def main(out: tyro.conf.Positional[Path]) -> None:
    """Write the figure."""
    figure().savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
