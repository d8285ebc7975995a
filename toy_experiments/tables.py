"""Tables of results: rows of equal columns as CSV, in toy_experiments/results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imf_lite.system.files import read_csv, write_csv

RESULTS = Path(__file__).parent / "results"


def write_table(path: Path, rows: Sequence[dict]) -> None:
    """Rows as CSV, atomically; numbers to five significant digits."""
    write_csv(path, rows, digits=5)


def read_table(path: Path) -> list[dict]:
    """The rows of a CSV, numbers as numbers. Raises ValueError naming the command that writes a missing one."""
    if not path.exists():
        raise ValueError(
            f"{path.name} is missing: write it with `python -m toy_experiments.experiments.{path.stem.split('-')[0]}`."
        )
    return read_csv(path, text=("code",))


def pick(table: str, **where) -> list[dict]:
    """Rows of a stored table with given values."""
    return [r for r in read_table(RESULTS / f"{table}.csv") if all(r[k] == v for k, v in where.items())]


def excess(row: dict, column: str = "fid") -> float:
    """FID minus what equally many real images score.

    FID's bias falls with the number of samples n, and the floor has the same bias: their difference
    hardly depends on n, their ratio does.
    """
    return row[column] - row["floor"]
