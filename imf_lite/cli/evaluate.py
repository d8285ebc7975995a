"""imf-lite evaluate: FID and its relatives, written as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .options import MeasureOptions, guidance_name, latent_space, load_network, load_reference, sampler, to_images


@dataclass(frozen=True, kw_only=True)
class Evaluate(MeasureOptions):
    """Measure a run, or trained weights, and write the scores as JSON; under torchrun, on all GPUs.

    digits and fashion: FID, KID, precision and recall beside their floor. Against --reference: FID and Inception Score.
    """

    omega: float | None = None
    """guidance scale, at least 1, of a guided network; default 1"""
    interval: tuple[float, float] | None = None
    """the times in which it acts; default 0 1"""
    n: int | None = None
    """samples to draw, equally many of each class; default 1000, against a reference 50000"""
    seed: int = 0
    """of the noise"""
    extractor: str | None = None
    """digits, fashion, or one of torch-fidelity such as inception-v3-compat; default: the data's own"""
    out: Path | None = None
    """folder of the result; default: RUN/evaluation, or evaluation"""


def evaluate(options: Evaluate) -> None:
    """Measure, print and write the scores."""
    from tqdm import tqdm

    from .. import data
    from ..evaluation import protocol  # torch-fidelity takes seconds to import
    from ..evaluation.evaluator import Evaluator, StoredEvaluator
    from ..system import distributed
    from ..system.files import write_text
    from ..system.paths import pretrained_folder

    ranks = distributed.init()
    net, notes = load_network(options, options.device or ranks.device())
    device = next(net.parameters()).device
    name = notes.get("recipe", {}).get("data", "imagenet")
    images, weights = to_images(net, notes, options), options.extractor_weights
    nfe, seed, omega, interval = options.nfe, options.seed, options.omega, options.interval
    if options.reference or name not in ("digits", "fashion"):
        extractor, n = options.extractor or "inception-v3-compat", options.n or 50_000
        real = load_reference(options.reference, notes, extractor)
        with tqdm(total=n, unit="sample", disable=not ranks.first) as bar:
            scores = protocol.evaluate(
                net, images, real, extractor, weights, nfe, n, seed, sampler(options), omega, interval, options.batch,
                bar.update, ranks,
            )  # fmt: skip
    else:
        extractor, n = options.extractor or name, options.n or 1000
        if notes["latents"]:
            evaluator: Evaluator = StoredEvaluator(pretrained_folder(name), images, extractor, weights, device)
        else:
            evaluator = Evaluator(data.load(name), extractor, weights, device)
        scores = evaluator(net, nfe, n, seed, sampler(options), omega, interval)
    if scores is None or not ranks.first:
        return
    out = options.out or (options.run or Path(".")) / "evaluation"
    source = f"{notes['step']}-" if options.weights is None else f"{Path(options.weights).stem}-"
    out = out / f"{source}nfe{nfe}{guidance_name(omega, interval)}-n{n}-seed{seed}-{extractor}.json"
    network = {"run": notes, "weights": options.weights, "ema": options.ema}
    network["latents"] = str(latent_space(net, notes, options))
    write_text(out, json.dumps(scores | network, indent=1))
    for key, value in scores.items():
        if value is None or isinstance(value, float):
            print(f"{key:22} {'-' if value is None else f'{value:.4g}'}")
    print(out)
