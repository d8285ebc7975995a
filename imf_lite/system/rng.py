"""Generators seeded by (seed, purpose, step), so that resuming needs no state of random numbers."""

from __future__ import annotations

import numpy as np
import torch


def generator(device: torch.device | str, *seeds: int) -> torch.Generator:
    """A generator seeded by several integers, e.g. (run seed, rank, step): resuming needs no saved state."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator(device).manual_seed(seed)
