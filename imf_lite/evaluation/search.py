"""A search over guidance scales and intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from ..sampling import Interval, check_numbers


def check_settings(omegas: Sequence[float], intervals: Sequence[Interval]) -> None:
    """Raise ValueError for an invalid scale or interval; all are checked before the first is measured."""
    if not omegas or not intervals:
        raise ValueError(
            "nothing to try: give at least one scale, and one interval whose beginning lies before its end."
        )
    for omega, interval in itertools.product(omegas, intervals):
        check_numbers(omega, interval)


def search(
    measure: Callable[..., dict | None], omegas: Sequence[float], intervals: Sequence[Interval], known: Sequence = (),
) -> Iterator[list[dict]]:  # fmt: skip
    """Try guidance scales and intervals; after each, yield all rows so far: omega, t_min, t_max, fid,
    inception_score, precision, recall (None without features of the real images), best first.

    measure(omega=, interval=) is `evaluate` with all else fixed; on ranks but the first it gives None, and the rows
    are empty. known: rows of an earlier search of the same, which are not measured again.
    """
    check_settings(omegas, intervals)
    rows = list(known)
    done = {(row["omega"], row["t_min"], row["t_max"]) for row in rows}
    for omega, interval in itertools.product(omegas, intervals):
        if (omega, *interval) in done:
            continue
        if (scores := measure(omega=omega, interval=interval)) is not None:
            setting = {"omega": omega, "t_min": interval[0], "t_max": interval[1]}
            rows.append(
                setting | {k: scores[k] for k in ("fid", "inception_score", "precision", "recall") if k in scores}
            )
        yield sorted(rows, key=lambda row: row["fid"])
