"""Training: the loop, its records and checkpoints, and the folder of a run.

May import: the method, networks, data, recipes, pretrained, system. Does not use evaluation or the command line.
"""

from .loop import NonFiniteError, StoppedError, train
from .records import Record, read_metrics
from .runs import fingerprint, images_of, load_network, read_run, sampler_of

__all__ = [
    "NonFiniteError",
    "Record",
    "StoppedError",
    "fingerprint",
    "images_of",
    "load_network",
    "read_metrics",
    "read_run",
    "sampler_of",
    "train",
]
