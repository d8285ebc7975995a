"""Streams of random numbers, seeded by what they are for, so that resuming needs no state of random numbers."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are for; each has one place in the code. Runs depend on these numbers: never reuse one."""

    CLASSIFIER = 0
    """the FID classifier's batches and shifts"""
    ORDER = 1
    """the order of the data in an epoch"""
    DRAWS = 2
    """noise, times, dropped labels and guidance of a micro-batch"""
    POSTERIOR = 3
    """latents, from their posterior"""
    FLIP = 4
    """mirrored images"""
    NOISE = 5
    """what a batch of samples starts from"""
    SAMPLE = 6
    """what a single sample starts from, whatever its batch"""
    AUTOENCODER = 7
    """an autoencoder's batches and latents"""
    FLOOR = 8
    """disjoint sets of real images"""
    SUBSET = 9
    """which of many features are compared pair by pair"""


def stream(device: torch.device | str, use: IntEnum, seed: int, a: int = 0, b: int = 0) -> torch.Generator:
    """The generator of one use, by a run's seed and up to two counters, e.g. a micro-batch and an update.

    Different (use, seed, a, b) are different seeds: of 63 bits on a GPU. PyTorch's generator on the CPU keeps 32 of
    them, so that of 20,000 streams two are the same in one run of twenty; such a pair repeats a batch's noise once.
    Raises ValueError for a number outside [0, 2^32).
    """
    return _generator(device, (seed, int(use), a, b))


def generator(device: torch.device | str, *seeds: int) -> torch.Generator:
    """A generator seeded by any integers, for lessons and tests: never one of the streams.

    (42, 2) and (42, 2, 0) are different seeds. Raises ValueError for a number outside [0, 2^32).
    """
    return _generator(device, seeds, (len(seeds),))


def _generator(device: torch.device | str, words: tuple[int, ...], more: tuple[int, ...] = ()) -> torch.Generator:
    """NumPy pads words to four with zeros; `more` comes after them, so that the number of words counts, too."""
    if not all(0 <= word < 1 << 32 for word in words):
        raise ValueError(f"seeds {words}: each must be an integer from 0 to {(1 << 32) - 1}.")
    seed = int(np.random.SeedSequence(words, spawn_key=more).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator(device).manual_seed(seed)
