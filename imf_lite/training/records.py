"""The training log: one record per update in metrics.jsonl, reduced over rows, micro-batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..objective import Step
from ..system.distributed import Ranks
from ..system.files import read_json_lines

T_BINS = 10


class Record(NamedTuple):
    """One line of metrics.jsonl: the batch of update `step`. Raw errors are squared norms, before weighting.

    eq, neq: mean over rows with r = t, r < t; by_t: mean in ten equal bins of t. None: no such row.
    images_per_s, peak_share: over all devices, since the record before; peak_share None: the peak is not known.
    skipped: updates left out so far, at gradients that were not finite. waited: seconds that the first rank spent on
    waiting for data (on a CPU: on preparing them), since the record before.
    h_du_dt, du_dt_by_t: size of (t - r) du/dt, and of du/dt, on rows with r < t.
    """

    step: int
    images: int
    loss: float
    lr: float
    grad_norm: float
    raw_u_eq: float | None
    raw_u_neq: float | None
    raw_v_eq: float | None
    raw_v_neq: float | None
    h_du_dt: float | None
    raw_u_by_t: list[float | None]
    raw_v_by_t: list[float | None]
    du_dt_by_t: list[float | None]
    seconds: float
    images_per_s: float
    peak_share: float | None
    device: str
    skipped: int = 0
    waited: float = 0.0


def means(steps: Sequence[Step], ranks: Ranks = Ranks()) -> dict:
    """The per-row records of an update's micro-batches, of all ranks, reduced for the log."""
    losses = torch.stack([s.loss.detach() for s in steps])[None]
    rows = torch.cat([per_row(s) for s in steps], 1)
    losses, rows = ranks.all_gather(losses), ranks.all_gather(rows)
    reported = rows.float().cpu().numpy()
    raw_u, raw_v, t, h, h_du_dt = reported
    neq, bins = h > 0, np.minimum((t * T_BINS).astype(int), T_BINS - 1)
    eq_u, eq_v, *_ = column_means(reported, ~neq)
    neq_u, neq_v, _, _, neq_du_dt = column_means(reported, neq)
    return {
        "loss": float(losses.mean()),
        "raw_u_eq": eq_u,
        "raw_u_neq": neq_u,
        "raw_v_eq": eq_v,
        "raw_v_neq": neq_v,
        "h_du_dt": neq_du_dt,
        "raw_u_by_t": by_bin(raw_u, bins),
        "raw_v_by_t": by_bin(raw_v, bins),
        "du_dt_by_t": by_bin(h_du_dt[neq] / h[neq], bins[neq]),
    }


def column_means(reported: np.ndarray, rows: np.ndarray) -> list[float | None]:
    """Means over some rows of what is reported of them, (quantities, B); None where there is no row, or no number."""
    if not rows.any():
        return [None] * len(reported)
    return none_for_nan(np.ascontiguousarray(reported[:, rows]).mean(1))


def by_bin(values: np.ndarray, bins: np.ndarray) -> list[float | None]:
    """Means of values (B,) in the ten bins of t, of which each row has one; None for an empty bin, or no number."""
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return none_for_nan(np.bincount(bins, values, T_BINS) / np.bincount(bins, minlength=T_BINS))


def none_for_nan(values: np.ndarray) -> list[float | None]:
    """Numbers as a list, with None where one is not a number."""
    return [None if value != value else value for value in values.tolist()]


def per_row(step: Step) -> torch.Tensor:
    """The records of a step as (5, B): raw_u, raw_v (NaN without a head), t, h and the size of h du/dt."""
    raw_v = torch.full_like(step.raw_u, math.nan) if step.raw_v is None else step.raw_v
    return torch.stack([step.raw_u, raw_v, step.t, step.h, step.h_du_dt])


def read_metrics(out: str | Path) -> list[dict]:
    """The records of a run so far, also while it trains."""
    return read_json_lines(Path(out) / "metrics.jsonl")
