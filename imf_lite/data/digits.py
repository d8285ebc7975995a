"""1,797 real handwritten digits, 8 x 8, shipped with scikit-learn (UCI optical digits): no download.

Scanned forms of 43 people; the split is random, so both sides hold digits by the same hands.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

HELD_OUT_PER_CLASS = 50


def load() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """(train, held-out, classes): 1,297 and 500 images (N, 1, 8, 8) in [-1, 1], 50 held out of each class."""
    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 8 - 1  # values 0 ... 16
    y = torch.tensor(raw.target, dtype=torch.int64)
    order = torch.tensor(np.random.default_rng(0).permutation(len(y)))
    by_class = [order[y[order] == c] for c in range(10)]
    held_out = torch.cat([rows[:HELD_OUT_PER_CLASS] for rows in by_class])
    train = torch.cat([rows[HELD_OUT_PER_CLASS:] for rows in by_class])
    return (x[train], y[train]), (x[held_out], y[held_out]), 10
