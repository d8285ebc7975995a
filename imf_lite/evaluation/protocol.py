"""FID and Inception Score at any scale: samples are drawn in batches on all ranks, and only features are kept.

The result depends neither on the number of ranks nor on the batch: every sample's noise is seeded by its index.
Also the FID of small images in Inception's features, as it is usually published.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics
from torch_fidelity.metric_isc import isc_features_to_metric

from ..data import PixelSplit, Split
from ..sampling import Interval, blocks, sample
from ..system import distributed
from ..system.distributed import Ranks
from ..system.files import cached_tensors, sha256, short
from ..system.paths import cache_folder
from .extractors import extract, features_and_logits
from .metrics import compare
from .references import Reference, check_reference

STANDARD = "inception-v3-compat"
"""the extractor of published FIDs, in PyTorch"""
STANDARD_FEATURES = 2048


def evaluate(
    net, images: Callable[[Tensor], Tensor], real: Reference, extractor: str, extractor_weights: str | None = None,
    steps: int = 1, n: int = 50_000, seed: int = 0, sampler=sample, omega: float | None = None,
    interval: Interval | None = None, batch: int = 250, progress: Callable[[int], None] = lambda samples: None,
    ranks: Ranks | None = None,
) -> dict | None:  # fmt: skip
    """FID and Inception Score of n samples, equally many of each class; the result states its protocol.

    images: how samples become uint8 images. batch: samples made at once. progress: is told
    how many samples were made. ranks: default: those that torchrun started; all take part, the first one has the
    result, the others None.
    """
    if n < 2:
        raise ValueError(f"n = {n}; FID needs at least two samples, and says little below thousands.")
    if net.num_classes and n % net.num_classes:
        raise ValueError(f"n = {n} is not a multiple of {net.num_classes} classes: it must hold equally many of each.")
    ranks = ranks or distributed.init()
    device, outputs = next(net.parameters()).device, []
    blank = images(torch.zeros(1, *net.shape, device=device))  # the reference is checked before a sample is made
    check_reference(
        real, features_and_logits(blank, extractor, extractor_weights, device=device)[0].shape[1], extractor
    )
    turns = slice(ranks.rank, None, ranks.size)
    for k, (x, _) in enumerate(blocks(net, n, steps, seed, sampler, batch, omega, interval, None, turns, each=True)):
        check_finite(x)
        outputs.append(features_and_logits(images(x), extractor, extractor_weights, device=device))
        turn = k * ranks.size * batch
        progress(min(n, turn + ranks.size * batch) - turn)  # every rank made a batch in this turn
    everyone = ranks.gather_objects(outputs)
    if not ranks.first:
        return None
    in_turn = [part for turn in itertools.zip_longest(*everyone) for part in turn if part is not None]
    features, logits = (torch.cat(parts) for parts in zip(*in_turn, strict=True))
    score = isc_features_to_metric(logits)
    scores = compare(features, real)
    check_score(scores["fid"])
    return scores | {
        "inception_score": score["inception_score_mean"],
        "inception_score_std": score["inception_score_std"],
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
            "reference": real.description,
            "extractor": extractor,
            "extractor_weights": extractor_weights,
            "uint8": "clip, then round",
        },
    }


def standard_fid(
    images: Tensor, train: Split | PixelSplit, weights: str, border: int = 0, device: torch.device | str = "cpu"
) -> float:
    """FID of uint8 images (N, C, H, W) by Inception v3 against all images of a training split, for small images.

    Grey images become three equal channels, and Inception scales all to 299 x 299. weights: Inception's file. border:
    pixels around each side that the original images do not have. The training split's statistics are kept in the
    cache folder: with 60,000 images they take minutes on a GPU and hours on a CPU.
    """

    def seen(batch: Tensor) -> Tensor:
        inner = batch[..., border : batch.shape[-2] - border, border : batch.shape[-1] - border]
        return extract(inner, STANDARD, weights, device=device)

    def make() -> dict[str, Tensor]:
        statistics = fid_features_to_statistics(torch.cat([seen(part) for part in train.chunks()]))
        return {name: torch.from_numpy(statistics[name]) for name in ("mu", "sigma")}

    about = {"images": train.fingerprint(), "border": border, "weights": sha256(Path(weights))}
    stored = cached_tensors(cache_folder() / f"inception-{short(about)}.safetensors", make)
    real = Reference("training split", None, {name: tensor.numpy() for name, tensor in stored.items()})
    score = compare(seen(images), real)["fid"]
    check_score(score)
    assert score is not None  # always known
    return score


def check_finite(x: Tensor) -> None:
    """Raise ValueError for samples that are not all finite."""
    if not torch.isfinite(x).all():
        raise ValueError("the network makes samples that are not finite: its weights are damaged, or it diverged.")


def check_score(fid: float | None) -> None:
    """Raise ValueError for a Fréchet distance that is not finite, so that it is never stored."""
    if fid is None or not math.isfinite(fid):
        raise ValueError(f"the FID is {fid}: samples, features or reference statistics are degenerate; not stored.")


def bias_warning(n: int, features: int) -> str | None:
    """A warning if there are fewer samples than features, else None."""
    if n >= features:
        return None
    return (
        f"n = {n} is below the {features} features: the covariance is singular and the FID biased upwards; compare it "
        "only with FIDs of the same n."
    )
