"""Whether two networks can be told apart: over several trainings, paired by seed.

One training ranks nothing, and that all of three seeds agree on a sign happens by chance once in four times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """How far one network lies above another on average, over trainings with the same data order and draws."""

    mean: float
    needed: float
    """half the 95 % interval of Student's t: the sign is told if the mean is larger; inf for one training"""
    pairs: int

    @property
    def settled(self) -> bool:
        """Whether the sign is told: the 95 % interval does not contain zero."""
        return abs(self.mean) > self.needed

    def __str__(self) -> str:
        """In words, for a table or a sentence."""
        if self.pairs == 1:
            return f"{self.mean:+.2f} (one training each: not settled)"
        return f"{self.mean:+.2f} ({'told apart' if self.settled else 'not settled'}: 95 % need {self.needed:.2f})"


def difference(a: Sequence | np.ndarray, b: Sequence | np.ndarray) -> Difference:
    """a minus b, over the trainings that both have; one number for each, or several that are averaged."""
    pairs = min(len(a), len(b))
    found = (np.asarray(a)[:pairs] - np.asarray(b)[:pairs]).reshape(pairs, -1).mean(1)
    needed = stats.t.ppf(0.975, pairs - 1) * found.std(ddof=1) / pairs**0.5 if pairs > 1 else np.inf
    return Difference(float(found.mean()), float(needed), pairs)
