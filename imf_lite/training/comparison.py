"""Several runs side by side: how steady their losses and gradients are, by r = t and r < t, and what their FID is."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..system.files import read_json_lines
from .records import T_BINS, read_metrics
from .runs import read_run, recipe_fields

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHOD_COLORS = {"fm": "#56B4E9", "mf": "#D55E00", "imf": "#0072B2"}
START, SPIKE = 50, 3.0
"""records whose mean is the start of a curve; a spike exceeds this many medians of the last quarter"""


@dataclass(frozen=True)
class Course:
    """A run's records and what they amount to."""

    name: str
    recipe: dict
    records: list[dict]
    fids: list[dict]

    def column(self, name: str) -> np.ndarray:
        """A column of the records, (records,); NaN where a record has no such value."""
        return np.array([np.nan if r[name] is None else r[name] for r in self.records], float)

    def by_t(self) -> np.ndarray:
        """Raw u-loss in ten equal bins of t, mean over the last quarter, (10,); NaN where no row fell in."""
        rows = np.array([[np.nan if v is None else v for v in r["raw_u_by_t"]] for r in self.last_quarter()], float)
        counts = np.isfinite(rows).sum(0)
        return np.where(counts > 0, np.nansum(rows, 0) / np.maximum(counts, 1), np.nan)

    def last_quarter(self) -> list[dict]:
        """The records of the last quarter of the run."""
        return self.records[-max(len(self.records) // 4, 1) :]

    def summary(self) -> dict[str, float | str | None]:
        """One row of the table. The spread is that of the raw u-loss on rows with r < t from record to record.

        start: mean of the first 50 records; end, spread, gradient norm: of the last quarter; spikes: records above
        three medians of the last quarter, per 1,000; FID: the lowest that was measured in training.
        """
        raw, norm = self.column("raw_u_neq"), self.column("grad_norm")
        if np.isnan(raw).all():  # flow matching has no rows with r < t
            raw = self.column("raw_u_eq")
        end, few = raw[-max(len(raw) // 4, 1) :], norm[-max(len(norm) // 4, 1) :]
        return {
            "run": self.name,
            "method": self.recipe["method"],
            "updates": self.records[-1]["step"],
            "minutes": self.records[-1]["seconds"] / 60,
            "raw u, start": float(np.nanmean(raw[:START])),
            "raw u, end": float(np.nanmean(end)),
            "spread": spread(end),
            "spikes per 1,000": 1000 * float(np.mean(end > SPIKE * np.nanmedian(end))),
            "raw u, r = t": float(np.nanmean(self.column("raw_u_eq")[-len(end) :])),
            "gradient norm": float(np.nanmedian(few)),
            "largest / median": float(np.nanmax(few) / np.nanmedian(few)),
            "FID": min((row["fid"] for row in self.fids), default=None),
        }


def spread(values: np.ndarray) -> float:
    """Standard deviation of the change from one value to the next, over sqrt(2): a trend does not count."""
    return float(np.nanstd(np.diff(values)) / np.sqrt(2)) if len(values) > 2 else 0.0


def read(folder: str | Path) -> Course:
    """A run's course so far, also while it trains. Raises ValueError where there is no run, or nothing was logged."""
    folder = Path(folder)
    recipe, records = recipe_fields(read_run(folder)), read_metrics(folder)
    if not records:
        raise ValueError(f"{folder} has logged nothing yet: wait for its first records.")
    return Course(folder.name, recipe, records, read_json_lines(folder / "fid.jsonl"))


def differences(courses: Sequence[Course]) -> dict[str, list[object]]:
    """Fields of the recipes that are not the same in all runs, nested ones by dotted names."""
    flat = [flattened(course.recipe) for course in courses]
    names = list(dict.fromkeys(name for fields in flat for name in fields))
    values = {name: [fields.get(name) for fields in flat] for name in names}
    return {name: found for name, found in values.items() if any(v != found[0] for v in found)}


def flattened(fields: dict, prefix: str = "") -> dict[str, object]:
    """A nested dictionary with dotted names."""
    flat: dict[str, object] = {}
    for name, value in fields.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def table(courses: Sequence[Course]) -> list[list[str]]:
    """Head and rows of the summaries as text."""
    rows = [course.summary() for course in courses]
    return [list(rows[0]), *([show(v) for v in row.values()] for row in rows)]


def show(value: object) -> str:
    """A value of a table."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def figure(courses: Sequence[Course], window: int = 100) -> Figure:
    """Raw u-loss where r < t and where r = t, gradient norm, raw u-loss by t, and FID, against updates and minutes."""
    import matplotlib.pyplot as plt

    measured = any(course.fids for course in courses)
    fig, axes = plt.subplots(2, 3, figsize=(10, 5.6), constrained_layout=True)
    panels = ("raw_u_neq", "raw_u_eq", "grad_norm")
    titles = ("raw u-loss, rows with r < t", "raw u-loss, rows with r = t", "gradient norm")
    methods = [course.recipe["method"] for course in courses]
    for k, course in enumerate(courses):
        color = METHOD_COLORS[methods[k]] if len(set(methods)) == len(methods) else f"C{k}"
        steps, minutes = course.column("step"), course.column("seconds") / 60
        for ax, name in zip(axes[0], panels, strict=True):
            values = course.column(name)
            if not np.isnan(values).all():
                ax.plot(steps, values, color=color, alpha=0.35, lw=0.5)
                at, mean, width = running(steps, values, window)
                ax.plot(at, mean, color=color, label=course.name)
                ax.fill_between(at, mean - width, mean + width, color=color, alpha=0.2, lw=0)
        axes[1, 0].plot((np.arange(T_BINS) + 0.5) / T_BINS, course.by_t(), "o-", color=color)
        if course.fids:
            at = np.array([row["step"] for row in course.fids], float)
            scores = [row["fid"] for row in course.fids]
            axes[1, 1].plot(at, scores, "o-", color=color)
            axes[1, 2].plot(np.interp(at, steps, minutes), scores, "o-", color=color)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set(title=title, xlabel="updates", yscale="log")
    axes[0, 0].legend(fontsize=7)
    axes[1, 0].set(title="raw u-loss by t, last quarter", xlabel="t", yscale="log")
    for ax, label in zip(axes[1, 1:], ("updates", "minutes"), strict=True):
        ax.set(title="FID while training", xlabel=label)
        ax.set_visible(measured)
    return fig


def running(at: np.ndarray, values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, running mean and running standard deviation of a curve."""
    windows = np.lib.stride_tricks.sliding_window_view(values, min(window, len(values)))
    return at[-len(windows) :], np.nanmean(windows, 1), np.nanstd(windows, 1)


def write(courses: Sequence[Course], out: Path) -> Path:
    """Write comparison.png and comparison.html, which holds picture and tables, into a folder; return the page."""
    from ..system.files import write_bytes, write_text

    png = io.BytesIO()
    figure(courses).savefig(png, format="png", dpi=110)
    write_bytes(out / "comparison.png", png.getvalue())
    picture = base64.b64encode(png.getvalue()).decode()
    fields = differences(courses)
    changed = [["field", *(c.name for c in courses)], *([k, *map(str, v)] for k, v in fields.items())]
    page = [
        "<!doctype html><meta charset='utf-8'><title>Runs compared</title>",
        "<style>body{font:14px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}</style>",
        f"<img src='data:image/png;base64,{picture}' alt='losses, gradients and FID'>",
        "<h2>Summary</h2>", as_html(table(courses)), "<h2>What differs between the recipes</h2>",
        as_html(changed) if fields else "<p>Nothing.</p>",
    ]  # fmt: skip
    write_text(out / "comparison.html", "\n".join(page))
    return out / "comparison.html"


def as_html(rows: list[list[str]]) -> str:
    """A table, its first row the head."""
    cells = [[html.escape(cell) for cell in row] for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[1:])
    return f"<table><tr>{head}</tr>{body}</table>"
