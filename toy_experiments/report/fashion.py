"""What Fashion-MNIST's networks score over several trainings, and whether two of them can be told apart.

One training ranks nothing. A score here is an array of trainings by seeds of the sampling noise; only the spread over
trainings says how far another training might lie.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from imf_lite.pretrained import weights
from imf_lite.system.paths import pretrained_folder

from .. import tables
from ..tables import RESULTS, read_table

SETTING = ("omega", "t_min", "t_max")


def rows(network: str, nfe: int, half: str, **where) -> list[dict]:
    """Rows of the table, those of a training together. Raises ValueError if there are none."""
    where |= {"network": network, "nfe": nfe, "half": half}
    found = [r for r in read_table(RESULTS / "fashion.csv") if all(r[k] == v for k, v in where.items())]
    if not found:
        raise ValueError(f"fashion.csv has no row with {where}.")
    return sorted(found, key=lambda r: r["training"])


def trainings(network: str) -> list[int]:
    """The trainings of a network that were measured."""
    return sorted({r["training"] for r in rows(network, 1, "report")})


def shipped(network: str) -> int:
    """The training whose weights ship."""
    return weights.read_notes(pretrained_folder("fashion") / "networks" / network)["recipe"]["seed"]


def best(network: str, training: int, nfe: int = 1) -> dict[str, float]:
    """A training's scale and interval with the lowest FID, on the noise that they are chosen on."""
    asked = rows(network, nfe, "choose", training=training)
    return {k: min(asked, key=lambda r: r["fid"])[k] for k in SETTING}


def scores(network: str, nfe: int, column: str = "fid", **where) -> np.ndarray:
    """A column by trainings and seeds of the noise, the FID as its excess, at a setting or with none to set."""
    found = rows(network, nfe, "report", **where)
    values = [tables.excess(r) if column == "fid" else r[column] for r in found]
    return np.array(values).reshape(len({r["training"] for r in found}), -1)


def best_scores(network: str, nfe: int, column: str = "fid") -> np.ndarray:
    """The same, each training at its own best setting."""
    each = [scores(network, nfe, column, training=k, **best(network, k, nfe)) for k in trainings(network)]
    return np.concatenate(each)


def said(values: np.ndarray, digits: int = 2) -> str:
    """Mean, its range over trainings where there are several, and the mean range over seeds of the noise."""
    mean, noise = values.mean(1), np.ptp(values, axis=1).mean()
    over = f" ({mean.min():.{digits}f} to {mean.max():.{digits}f})" if len(mean) > 1 else ""
    return f"{mean.mean():.{digits}f}{over}, noise {noise:.{digits}f}"


class Difference(NamedTuple):
    """How far one network lies above another on average, over trainings with the same data order and draws."""

    mean: float
    needed: float
    """the sign is told if the mean is larger than this (95 % interval of Student's t); inf for one training"""
    pairs: int

    @property
    def settled(self) -> bool:
        """Whether the sign is told."""
        return abs(self.mean) > self.needed

    def __str__(self) -> str:
        """In words, for a table or a sentence."""
        if self.pairs == 1:
            return f"{self.mean:+.2f}, one training each: not settled"
        verdict = "told apart" if self.settled else "not settled at this size"
        return f"{self.mean:+.2f} over {self.pairs} trainings, {verdict}: 95 % need {self.needed:.2f}"


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """a minus b, over the trainings that both have; of as many seeds of the noise."""
    pairs = min(len(a), len(b))
    found = (a[:pairs] - b[:pairs]).mean(1)
    needed = stats.t.ppf(0.975, pairs - 1) * found.std(ddof=1) / pairs**0.5 if pairs > 1 else np.inf
    return Difference(float(found.mean()), float(needed), pairs)
