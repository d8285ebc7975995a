"""imf-lite evaluate: FID, KID, precision and recall, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .options import (
    MeasureOptions,
    UsageError,
    check_counts,
    check_folder,
    guidance_name,
    latent_space,
    load_network,
    load_reference,
    sampler,
    to_images,
)

if TYPE_CHECKING:
    import torch

    from ..evaluation.references import Reference
    from ..networks import Network
    from ..system.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class Evaluate(MeasureOptions):
    """Measure a run, or trained weights, and write the scores as JSON; under torchrun, on all GPUs.

    Pixels and fashion: FID, KID, precision and recall beside their floor. ImageNet, or with --reference: FID and
    Inception Score.
    """

    omega: float | None = None
    """guidance scale, at least 1, of a guided network; default 1"""
    interval: tuple[float, float] | None = None
    """times between which guidance acts; default 0 1"""
    n: int | None = None
    """samples to draw, equally many of each class; default 1000, or 50000 against a reference"""
    seed: int = 0
    """seed of the noise"""
    extractor: str | None = None
    """digits, fashion, or one of torch-fidelity such as inception-v3-compat; default: the data's own, else Inception"""
    inception: str | None = None
    """file of Inception's weights: small images are measured by them, too, against their training split, as published
    FIDs are (with --n 50000)"""
    out: Path | None = None
    """folder of the result; default: RUN/evaluation, or evaluation"""


class Measured(NamedTuple):
    """What was measured: the scores (None where another rank has them), against which real images, and by what."""

    scores: dict | None
    real: Reference
    extractor: str
    n: int


def evaluate(options: Evaluate) -> None:
    """Measure, print and write the scores."""
    from ..data import PREPARED
    from ..system import distributed
    from ..system.devices import matmul_precision

    check_counts(options, nfe=1, seed=0, batch=1)
    check_folder(options.out)
    ranks = distributed.init()
    net, notes = load_network(options, options.device or ranks.device())
    images, name = to_images(net, notes, options), notes.get("recipe", {}).get("data", "imagenet")
    own = {"digits": "digits", "fashion": "fashion", "FashionMNIST": "fashion"}.get(name)
    pixels = notes.get("latents", True) is None and name not in PREPARED
    with matmul_precision(options.precision):
        if options.reference or not (own or pixels):
            found = against_reference(options, net, notes, images, ranks)
        else:
            found = against_data(options, net, notes, images, name, own)
    if found.scores is not None and ranks.first:
        write(options, net, notes, found)


def against_reference(options: Evaluate, net: Network, notes: dict, images: Callable, ranks: Ranks) -> Measured:
    """FID and Inception Score against a file of statistics; all ranks draw samples."""
    from ..evaluation import protocol  # torch-fidelity takes seconds to import
    from ..system.progress import Progress

    if options.inception:
        raise UsageError("--inception adds to the classifier's FID of small images: use --extractor-weights.")
    extractor, n = options.extractor or "inception-v3-compat", 50_000 if options.n is None else options.n
    real = load_reference(options.reference, notes, extractor)
    with Progress(n, "sample", show=ranks.first) as progress:
        scores = protocol.evaluate(
            net, images, real, extractor, options.extractor_weights, options.nfe, n,
            options.seed, sampler(notes), options.omega, options.interval, options.batch, progress.add, ranks,
        )  # fmt: skip
    return Measured(scores, real, extractor, n)


def against_data(
    options: Evaluate, net: Network, notes: dict, images: Callable, name: str, own: str | None
) -> Measured:
    """Scores of small images beside their floor; `own`: the extractor that their data set has, if any."""
    from .. import data
    from ..evaluation.evaluator import Evaluator, StoredEvaluator
    from ..system.paths import pretrained_folder

    extractor, n = options.extractor or own or "inception-v3-compat", 1000 if options.n is None else options.n
    by, device = options.extractor_weights, next(net.parameters()).device
    if own == extractor == "fashion" or notes["latents"]:
        evaluator: Evaluator = StoredEvaluator(pretrained_folder("fashion"), images, extractor, by, device)
    else:
        evaluator = Evaluator(data.load(name), extractor, by, device)
    if options.inception:
        evaluator.also = standard(name, options.inception, device)
    scores = evaluator(net, options.nfe, n, options.seed, sampler(notes), options.omega, options.interval)
    return Measured(scores, evaluator.real, extractor, n)


def write(options: Evaluate, net: Network, notes: dict, found: Measured) -> None:
    """Print the scores, and write them to a file named after all that decides them."""
    from ..evaluation import protocol
    from ..evaluation.identity import identity
    from ..system.files import sha256, short, write_text

    scores, real, extractor, n = found.scores or {}, found.real, found.extractor, found.n
    nfe, seed, omega, interval = options.nfe, options.seed, options.omega, options.interval
    asked = {
        "n": n,
        "nfe": nfe,
        "seed": seed,
        "sampler": sampler(notes).__name__,
        "omega": omega,
        "interval": interval,
    }
    features = len(real.statistics["mu"])
    if options.inception:
        asked["inception"] = sha256(Path(options.inception))
        features = max(features, protocol.STANDARD_FEATURES)
    space = latent_space(net, notes, options)
    decides = identity(net, space, extractor, options.extractor_weights, real, options.precision, **asked)
    out = options.out or (options.run or Path(".")) / "evaluation"
    source = f"{notes['step']}-" if options.weights is None else f"{Path(options.weights).stem}-"
    out = out / f"{source}nfe{nfe}{guidance_name(omega, interval)}-n{n}-seed{seed}-{extractor}-{short(decides)}.json"
    network = {"run": notes, "weights": options.weights, "ema": options.ema, "latents": str(space)}
    write_text(out, json.dumps(scores | network | {"identity": decides}, indent=1))
    if warning := protocol.bias_warning(n, features):
        print(warning)
    for key, value in scores.items():
        if value is None or isinstance(value, float):
            print(f"{key:22} {'-' if value is None else f'{value:.4g}'}")
    print(out)


def standard(name: str, weights: str, device: torch.device) -> Callable[[torch.Tensor], dict[str, float]]:
    """Measures images of a data set by Inception; the file and the training images are read before anything is sampled,
    so that what is missing is said at once."""
    from .. import data
    from ..evaluation import extractors, protocol
    from ..evaluation.evaluator import pixels

    extractors.load_extractor(protocol.STANDARD, weights, "cpu")
    known = "FashionMNIST" if name == "fashion" else name
    train = pixels(data.load(known).train)
    padded = known in data.pixels.TORCHVISION and train.shape == (1, 32, 32)  # MNIST's and its kin: 28 x 28
    border = 2 if padded else 0
    fid = partial(protocol.standard_fid, train=train, weights=weights, border=border, device=device)
    return lambda images: {"fid_inception": fid(images)}
