"""Measuring at any scale: samples in batches, shared out over ranks, seen by an extractor, and forgotten.

What is measured does not depend on the number of ranks or the batch: every sample has noise of its own index.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from . import parallel
from .fid import Reference, compare, from_npz, see
from .sampling import Interval, blocks, sample


def reference(path: str | Path, extractor: str) -> Reference:
    """Statistics of real images: an .npz file, or the folder of a prepared split that holds one.

    Raises ValueError where there is none, or the split's were made by another extractor.
    """
    path = Path(path)
    file = path / "statistics.npz" if path.is_dir() else path
    if not file.exists():
        raise ValueError(
            f"there are no reference statistics at {file}: give an .npz with mu and sigma (--reference), or run "
            "`imf-lite prepare` with --extractor, which writes them beside the latents."
        )
    if path.is_dir():
        made_by = json.loads((path / "meta.json").read_text())["about"]["extractor"]
        if made_by != extractor:
            raise ValueError(f"{file} holds features of {made_by}; samples would be seen by {extractor}: choose one.")
    return from_npz(file)._replace(about=str(file))


def evaluate(
    net, images: Callable[[Tensor], Tensor], real: Reference, extractor: str, extractor_weights: str | None = None,
    steps: int = 1, n: int = 50_000, seed: int = 0, sampler=sample, omega: float | None = None,
    interval: Interval | None = None, batch: int = 250, progress: Callable[[int], None] = lambda samples: None,
) -> dict | None:  # fmt: skip
    """FID and Inception Score of n samples, equally many of each class; the result states its protocol.

    images: how samples become uint8 images. batch: samples made at once. progress: is told
    how many samples were made. Under torchrun all ranks take part; the first one has the result, the others None.
    """
    if net.num_classes and n % net.num_classes:
        raise ValueError(f"n = {n} is not a multiple of {net.num_classes} classes: it must hold equally many of each.")
    ranks = parallel.join()
    seen = []
    mine = slice(ranks.rank, None, ranks.size)
    for k, (x, _) in enumerate(blocks(net, n, steps, seed, sampler, batch, omega, interval, None, mine, each=True)):
        seen.append(see(images(x), extractor, extractor_weights))
        turn = k * ranks.size * batch
        progress(min(n, turn + ranks.size * batch) - turn)  # every rank made a batch in this turn
    everyone = ranks.collect(seen)
    if not ranks.first:
        return None
    in_turn = [part for turn in itertools.zip_longest(*everyone) for part in turn if part is not None]
    features, logits = (torch.cat(parts) for parts in zip(*in_turn, strict=True))
    found = isc_features_to_metric(logits)
    return compare(features, real) | {
        "inception_score": found["inception_score_mean"],
        "inception_score_std": found["inception_score_std"],
        "protocol": {
            "n": n,
            "nfe": steps,
            "sampler": sampler.__name__,
            "seed": seed,
            "batch": batch,
            "noise": "by sample index, on the CPU",
            "omega": omega,
            "interval": interval,
            "labels": "equally many of each class",
            "reference": real.about,
            "extractor": extractor,
            "extractor_weights": extractor_weights,
            "uint8": "clip, then round",
        },
    }


def search(
    measure: Callable[..., dict | None], omegas: Sequence[float], intervals: Sequence[Interval], known: Sequence = (),
) -> Iterator[list[dict]]:  # fmt: skip
    """Scores over guidance scales and intervals, after each that was tried: rows omega, t_min, t_max, fid,
    inception_score, best first.

    measure(omega=, interval=) is `evaluate` with all else fixed; on ranks but the first it gives None, and the rows
    are empty. known: rows of an earlier search of the same, which are not measured again.
    """
    rows = list(known)
    if not omegas or not intervals:
        raise ValueError("nothing to try: give scales, and beginnings of the interval before its ends.")
    done = {(row["omega"], row["t_min"], row["t_max"]) for row in rows}
    for omega, interval in itertools.product(omegas, intervals):
        if (omega, *interval) in done:
            continue
        if (found := measure(omega=omega, interval=interval)) is not None:
            where = {"omega": omega, "t_min": interval[0], "t_max": interval[1]}
            rows.append(where | {k: found[k] for k in ("fid", "inception_score")})
        yield sorted(rows, key=lambda row: row["fid"])
