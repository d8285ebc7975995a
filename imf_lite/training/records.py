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
    raw_u, raw_v, t, h, h_du_dt = rows.float().cpu().numpy()
    neq, bins = h > 0, np.minimum((t * T_BINS).astype(int), T_BINS - 1)

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) and not np.isnan(values).any() else None

    def by_t(values: np.ndarray, bins: np.ndarray = bins) -> list[float | None]:
        total, count = np.bincount(bins, values, T_BINS), np.bincount(bins, minlength=T_BINS)
        return [None if n == 0 or np.isnan(s) else float(s / n) for s, n in zip(total, count, strict=True)]

    return {
        "loss": float(losses.mean()),
        "raw_u_eq": mean(raw_u[~neq]),
        "raw_u_neq": mean(raw_u[neq]),
        "raw_v_eq": mean(raw_v[~neq]),
        "raw_v_neq": mean(raw_v[neq]),
        "h_du_dt": mean(h_du_dt[neq]),
        "raw_u_by_t": by_t(raw_u),
        "raw_v_by_t": by_t(raw_v),
        "du_dt_by_t": by_t(h_du_dt[neq] / h[neq], bins[neq]),
    }


def per_row(step: Step) -> torch.Tensor:
    """The records of a step as (5, B): raw_u, raw_v (NaN without a head), t, h and the size of h du/dt."""
    raw_v = torch.full_like(step.raw_u, math.nan) if step.raw_v is None else step.raw_v
    return torch.stack([step.raw_u, raw_v, step.t, step.h, step.h_du_dt])


def read_metrics(out: str | Path) -> list[dict]:
    """The records of a run so far, also while it trains."""
    return read_json_lines(Path(out) / "metrics.jsonl")
