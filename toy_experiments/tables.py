"""Tables of results: rows of equal columns as CSV, in toy_experiments/results."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from imf_lite.system.files import write_text

RESULTS = Path(__file__).parent / "results"


def write_table(path: Path, rows: Sequence[dict]) -> None:
    """Rows of equal columns as CSV, atomically; numbers to five significant digits."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


def read_table(path: Path) -> list[dict]:
    """The rows of a CSV, numbers as numbers. Raises ValueError naming the command that writes a missing one."""
    if not path.exists():
        raise ValueError(
            f"{path.name} is missing: write it with `python -m toy_experiments.experiments.{path.stem.split('-')[0]}`."
        )
    with open(path) as f:
        return [{k: number(v) for k, v in row.items()} for row in csv.DictReader(f)]


def number(text: str) -> str | int | float:
    """A CSV cell as int or float, if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def excess(row: dict, column: str = "fid") -> float:
    """FID minus what as many real images score.

    FID's bias falls with the number of samples n, and the floor has the same bias: their difference
    hardly depends on n, their ratio does.
    """
    return row[column] - row["floor"]
