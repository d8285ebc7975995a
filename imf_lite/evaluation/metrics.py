"""How good samples are: FID, KID, precision and recall by torch-fidelity, and what real images score (the floor).

An FID means something only beside its floor: the same metric between two disjoint sets of real
images, of the same sizes and class balance.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, stdev

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from ..system.rng import Stream, stream
from .extractors import extract
from .references import Reference, from_features

MOST = 10_000
"""features of which KID, precision and recall take distances of all pairs"""


def compare(features: Tensor, real: Reference) -> dict[str, float | None]:
    """FID, KID, precision and recall of generated images' features (N, F), by torch-fidelity.

    Against statistics alone there is only FID; the others are None.
    """
    pair = (fid_features_to_statistics(features), real.statistics)
    scores = fid_statistics_to_metric(*({k: s[k].astype(float) for k in ("mu", "sigma")} for s in pair), verbose=False)
    if real.features is not None:
        most = max(len(real.features), MOST)
        if len(features) > most:  # at random: they may be sorted by class
            features = features[torch.randperm(len(features), generator=stream("cpu", Stream.SUBSET, 0))[:most]]
        size = min(100, len(features), len(real.features))
        scores |= kid_features_to_metric(features, real.features, kid_subset_size=size, verbose=False)
        scores |= prc_features_to_metric(features, real.features, save_cpu_ram=True, verbose=False)
    return {
        "fid": scores["frechet_inception_distance"],
        "kid": scores.get("kernel_inception_distance_mean"),
        "precision": scores.get("precision"),
        "recall": scores.get("recall"),
    }


def measure(
    generated: Tensor, real: Tensor, extractor: str = "digits", weights: str | None = None
) -> dict[str, float | None]:
    """FID, KID, precision and recall of uint8 images (N, C, H, W) against real ones; see `extract`."""
    reference = from_features(extract(real, extractor, weights), f"{len(real)} images")
    return compare(extract(generated, extractor, weights), reference)


def floor(features: Tensor, y: Tensor, n: int, m: int, draws: int = 10) -> dict[str, float]:
    """What real images score: mean over pairs of disjoint, class-balanced sets of n and of m, with FID's spread."""
    scores = []
    for k in range(draws):
        a, b = disjoint(y, n, m, stream("cpu", Stream.FLOOR, k))
        compared = compare(features[a], from_features(features[b], ""))
        scores.append({name: score for name, score in compared.items() if score is not None})  # all: features are known
    return {name: mean(s[name] for s in scores) for name in scores[0]} | {"fid_std": stdev(s["fid"] for s in scores)}


def nearest(images: Tensor, train: Tensor | Iterable[Tensor]) -> float:
    """Median over images of the distance to the nearest training image, in grey levels per pixel (RMS).

    train: the training images, uint8 like the others, at once or in parts.
    """
    a, parts = images.flatten(1).float(), train.split(len(train)) if isinstance(train, Tensor) else train
    distances = torch.stack([torch.cdist(a, part.flatten(1).float()).amin(1) for part in parts]).amin(0)
    return float(distances.median() / a.shape[1] ** 0.5)


def disjoint(y: Tensor, n: int, m: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of two disjoint sets of n and m rows, equally many of each class of y.

    Raises ValueError where a class has too few.
    """
    first, second, classes = [], [], y.unique()
    a, b = n // len(classes), m // len(classes)
    if a * len(classes) != n:
        raise ValueError(f"n = {n} is not a multiple of the {len(classes)} classes: it must hold equally many of each.")
    for c in classes:
        rows = (y == c).nonzero().squeeze(1)
        if len(rows) < a + b:
            raise ValueError(f"class {c} has {len(rows)} real images; the floor at n = {n} needs {a + b}: lower n.")
        rows = rows[torch.randperm(len(rows), generator=g)]
        first.append(rows[:a])
        second.append(rows[a : a + b])
    return torch.cat(first), torch.cat(second)
