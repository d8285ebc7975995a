"""imf-lite evaluate: FID, KID, precision and recall, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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


def evaluate(options: Evaluate) -> None:
    """Measure, print and write the scores."""
    from .. import data
    from ..evaluation import protocol  # torch-fidelity takes seconds to import
    from ..evaluation.evaluator import Evaluator, StoredEvaluator
    from ..evaluation.identity import identity
    from ..system import distributed
    from ..system.devices import matmul_precision
    from ..system.files import sha256, short, write_text
    from ..system.paths import pretrained_folder
    from ..system.progress import Progress

    check_counts(options, nfe=1, seed=0, batch=1)
    check_folder(options.out)
    ranks = distributed.init()
    net, notes = load_network(options, options.device or ranks.device())
    device, sample = next(net.parameters()).device, sampler(options)
    name = notes.get("recipe", {}).get("data", "imagenet")
    images, weights = to_images(net, notes, options), options.extractor_weights
    nfe, seed, omega, interval = options.nfe, options.seed, options.omega, options.interval
    with matmul_precision(options.precision):
        own = {"digits": "digits", "fashion": "fashion", "FashionMNIST": "fashion"}.get(name)
        pixels = notes.get("latents", True) is None and name not in data.PREPARED
        if options.reference or not (own or pixels):
            if options.inception:
                raise UsageError("--inception adds to the classifier's FID of small images: use --extractor-weights.")
            extractor, n = options.extractor or "inception-v3-compat", 50_000 if options.n is None else options.n
            real = load_reference(options.reference, notes, extractor)
            with Progress(n, "sample", show=ranks.first) as progress:
                scores = protocol.evaluate(
                    net, images, real, extractor, weights, nfe, n, seed, sample, omega, interval, options.batch,
                    progress.add, ranks,
                )  # fmt: skip
        else:
            extractor = options.extractor or own or "inception-v3-compat"
            n = 1000 if options.n is None else options.n
            if own == extractor == "fashion" or notes["latents"]:
                evaluator: Evaluator = StoredEvaluator(pretrained_folder("fashion"), images, extractor, weights, device)
            else:
                evaluator = Evaluator(data.load(name), extractor, weights, device)
            if options.inception:
                evaluator.also = standard(name, options.inception, device)
            scores, real = evaluator(net, nfe, n, seed, sample, omega, interval), evaluator.real
    if scores is None or not ranks.first:
        return
    asked = {"n": n, "nfe": nfe, "seed": seed, "sampler": sample.__name__, "omega": omega, "interval": interval}
    space = latent_space(net, notes, options)
    if options.inception:
        asked["inception"] = sha256(Path(options.inception))
    decides = identity(net, space, extractor, weights, real, options.precision, **asked)
    out = options.out or (options.run or Path(".")) / "evaluation"
    source = f"{notes['step']}-" if options.weights is None else f"{Path(options.weights).stem}-"
    out = out / f"{source}nfe{nfe}{guidance_name(omega, interval)}-n{n}-seed{seed}-{extractor}-{short(decides)}.json"
    network = {"run": notes, "weights": options.weights, "ema": options.ema, "latents": str(space)}
    write_text(out, json.dumps(scores | network | {"identity": decides}, indent=1))
    features = max(len(real.statistics["mu"]), protocol.STANDARD_FEATURES if options.inception else 0)
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
