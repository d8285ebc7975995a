"""What random numbers are for in the experiments: their streams, beside those of `imf_lite.system.rng.Stream`."""

from __future__ import annotations

from enum import IntEnum


class ToyStream(IntEnum):
    """Each has one place in the code. Numbers from 100, but for the first: those below belong to the library."""

    POINTS = 0
    """points of the plane. Shares the number of the classifier of images, which no experiment in the plane uses: if
    either moved, all stored results would be of other data or other features."""
    DIRECTIONS = 102
    """of sliced distances"""
    UNTOUCHED = 103
    """noise that no network has moved"""
    RESIDUALS = 104
    """a batch of which residuals are taken apart"""
    ROWS = 105
    """points of a mini-batch"""
    ROW_DRAWS = 106
    """noise and times of a mini-batch"""
    FIELD = 107
    """where a guided field is compared with the exact one"""
    STARTS = 108
    """where guided flows start"""
    CORNER = 109
    """pairs of times that are counted"""
    PLACES = 110
    """where u is compared with the exact one"""
    FRAME = 111
    """the map from the plane into more dimensions"""
