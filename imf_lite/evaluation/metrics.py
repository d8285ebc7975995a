"""How good samples are: FID, KID, precision and recall by torch-fidelity, beside what real data scores.

A FID means something only beside its floor: the same metric between two disjoint sets of real
images, of the same sizes and class balance.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as INCEPTION
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from . import checkpoint
from .data import Data
from .extractors import CLASSIFIERS
from .images import to_uint8
from .rng import generator
from .sampling import generate, sample


class Reference(NamedTuple):
    """Real images as an extractor sees them."""

    about: str
    """what the images are"""
    features: Tensor | None
    """(N, F); None where only statistics are known"""
    statistics: dict[str, np.ndarray]
    """mu (F,) and sigma (F, F) of the features"""


def extract(images: Tensor, extractor: str = "digits", weights: str | None = None, batch: int = 500) -> Tensor:
    """Features (N, F), on the CPU, of uint8 images (N, C, H, W).

    extractor: "digits", "fashion", or any name that torch-fidelity knows, e.g. "inception-v3-compat", whose
    file `weights` is (default: torch-fidelity downloads it). Raises ValueError for images of another dtype.
    """
    return see(images, extractor, weights, batch)[0]


def see(
    images: Tensor, extractor: str = "digits", weights: str | None = None, batch: int = 500
) -> tuple[Tensor, Tensor]:
    """Features (N, F) as `extract`, and the logits (N, K) that an Inception Score is made of."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; "
            "FID is measured on uint8 (N, C, H, W): convert with to_uint8."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = loaded(extractor, weights, device)
    seen = [net(part.to(device)) for part in images.split(batch)]
    features, logits = (torch.cat([s[k].cpu() for s in seen]) for k in (0, -1))
    return features, logits


@cache
def loaded(extractor: str, weights: str | None, device: str):
    """torch-fidelity's extractor with the layers that FID and Inception Score read, loaded once."""
    if extractor not in FEATURE_EXTRACTORS_REGISTRY:
        raise ValueError(f"no extractor {extractor!r}; there is: {', '.join(FEATURE_EXTRACTORS_REGISTRY)}.")
    of = FEATURE_EXTRACTORS_REGISTRY[extractor].get_default_feature_layer_for_metric
    layers = list(dict.fromkeys((of("fid"), of("isc"))))  # one and the same with CLIP
    try:
        return create_feature_extractor(
            extractor, layers, cuda=device == "cuda", feature_extractor_weights_path=weights, verbose=False
        )
    except OSError as error:
        raise ValueError(
            f"the weights of {extractor} cannot be had ({error}): fetch {INCEPTION} (or, for another extractor, what "
            "torch-fidelity's documentation names), and pass its path as --extractor-weights."
        ) from error


def from_features(features: Tensor, about: str) -> Reference:
    """A reference from features (N, F)."""
    return Reference(about, features, fid_features_to_statistics(features))


def from_npz(path: str | Path) -> Reference:
    """A reference from statistics as they are published: keys mu and sigma, or ref_mu and ref_sigma.

    Raises ValueError for a file without them.
    """
    with np.load(path) as file:
        for mu, sigma in (("mu", "sigma"), ("ref_mu", "ref_sigma")):
            if mu in file and sigma in file:
                return Reference(Path(path).name, None, {"mu": file[mu], "sigma": file[sigma]})
        raise ValueError(f"{path} holds {', '.join(file)}; statistics are mu and sigma, or ref_mu and ref_sigma.")


def compare(features: Tensor, real: Reference) -> dict[str, float | None]:
    """FID, KID, precision and recall of generated images' features (N, F), by torch-fidelity.

    Against statistics alone there is only FID; the others are None.
    """
    pair = (fid_features_to_statistics(features), real.statistics)
    found = fid_statistics_to_metric(*({k: s[k].astype(float) for k in ("mu", "sigma")} for s in pair), verbose=False)
    if real.features is not None:
        size = min(100, len(features), len(real.features))
        found |= kid_features_to_metric(features, real.features, kid_subset_size=size, verbose=False)
        found |= prc_features_to_metric(features, real.features, save_cpu_ram=True, verbose=False)
    return {
        "fid": found["frechet_inception_distance"],
        "kid": found.get("kernel_inception_distance_mean"),
        "precision": found.get("precision"),
        "recall": found.get("recall"),
    }


def measure(generated: Tensor, real: Tensor, extractor: str = "digits", weights: str | None = None) -> dict[str, float]:
    """FID, KID, precision and recall of uint8 images (N, C, H, W) against real ones; see `extract`."""
    theirs = from_features(extract(real, extractor, weights), f"{len(real)} images")
    return compare(extract(generated, extractor, weights), theirs)


class Judge:
    """Measures networks against the held-out split of a data set of pixels.

    Args:
        data: the data set; its held-out images are the reference, its training images the memory test.
        extractor, weights: see `extract`.
    """

    images = staticmethod(to_uint8)
    """how a network's samples become uint8 images"""

    def __init__(self, data: Data, extractor: str = "digits", weights: str | None = None):
        self.data, self.extractor, self.weights = data, extractor, weights
        self.reference = to_uint8(data.held_out.x)
        self.real = from_features(self.extract(self.reference), f"held-out split, {len(self.reference)} images")
        self.classifier, self.checksum = CLASSIFIERS[extractor]() if extractor in CLASSIFIERS else (None, weights)
        self.floor = cache(self.floor)

    def extract(self, images: Tensor) -> Tensor:
        """Features of uint8 images."""
        return extract(images, self.extractor, self.weights)

    def measure(self, images: Tensor) -> dict[str, float | None]:
        """The four metrics of uint8 images against the reference."""
        return compare(self.extract(images), self.real)

    def floor(self, n: int, draws: int = 10) -> dict[str, float]:
        """What real images score: mean over `draws` pairs of disjoint sets of n and of the reference's size.

        Sets are drawn from both splits and hold equally many of each class, as generated ones do.
        """
        images = torch.cat([to_uint8(self.data.train.x), self.reference])
        return floor(self.extract(images), self.pooled_labels(), n, len(self.reference), draws)

    def pooled_labels(self) -> Tensor:
        """Labels of both splits; zeros where the data set has none."""
        splits = (self.data.train, self.data.held_out)
        return torch.cat([torch.zeros(len(s.x), dtype=torch.int64) if s.y is None else s.y for s in splits])

    def __call__(
        self, net, steps: int = 1, n: int = 1000, seed: int = 0, sampler=sample, omega: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> dict:  # fmt: skip
        """Generate n samples, equally many of each class, and measure them; the result states its protocol."""
        x, y = generate(net, n, steps, seed, sampler, omega=omega, interval=interval)
        images = self.images(x).cpu()
        scores, floor = self.measure(images), self.floor(n)
        result = scores | {
            "fid_over_floor": scores["fid"] / floor["fid"],
            "floor": floor,
            **self.opinion(images, y),
            **self.memory(images),
            "protocol": {
                "n": n,
                "nfe": steps,
                "sampler": sampler.__name__,
                "seed": seed,
                "omega": omega,
                "interval": interval,
                "labels": "equally many of each class",
                "reference": self.real.about,
                "extractor": self.extractor,
                "extractor_checksum": self.checksum,
                "uint8": "clip, then round",
            },
        }
        return result

    def opinion(self, images: Tensor, y: Tensor | None) -> dict[str, float | None]:
        """What the classifier says of the classes asked for, if there is one: how often it agrees, and how surely."""
        if self.classifier is None or y is None:
            return {"agreement": None, "log_prob": None}
        log_p = torch.cat([self.classifier(part)[1].log_softmax(1) for part in images.split(500)])
        return {
            "agreement": float((log_p.argmax(1) == y.cpu()).float().mean()),
            "log_prob": float(log_p.gather(1, y.cpu()[:, None]).mean()),
        }

    def memory(self, images: Tensor) -> dict[str, float]:
        """Distances to the nearest training image, of samples and of held-out images."""
        train = to_uint8(self.data.train.x)
        return {"nearest_train": nearest(images, train), "nearest_train_of_real": nearest(self.reference, train)}


class StoredJudge(Judge):
    """Measures networks of latents against stored features, with no data set at hand.

    Args:
        folder: holds reference.safetensors (features of the real images) and floors.json.
        images: how a network's samples become uint8 images.
        extractor, weights: see `extract`.
    """

    def __init__(
        self, folder: str | Path, images: Callable[[Tensor], Tensor], extractor: str, weights: str | None = None
    ):
        self.images, self.extractor, self.weights = images, extractor, weights
        if not (Path(folder) / "reference.safetensors").exists():
            raise ValueError(f"{folder} holds no reference.safetensors: it ships with the package, or `make fashion`.")
        tensors, _ = checkpoint.load(Path(folder) / "reference.safetensors")
        stored = json.loads((Path(folder) / "floors.json").read_text())
        self.real, self.floors = from_features(tensors["features"].float(), stored["about"]), stored["floors"]
        self.classifier, self.checksum = CLASSIFIERS[extractor]() if extractor in CLASSIFIERS else (None, weights)

    def floor(self, n: int) -> dict[str, float]:
        """What n real images score, as it was measured. Raises ValueError where it was not."""
        if str(n) not in self.floors:
            raise ValueError(f"what real images score was measured for n = {', '.join(self.floors)}, not {n}.")
        return self.floors[str(n)]

    def memory(self, images: Tensor) -> dict[str, float]:
        """Nothing: the training images are not here."""
        return {}


def floor(features: Tensor, y: Tensor, n: int, m: int, draws: int = 10) -> dict[str, float]:
    """What real images score: mean over pairs of disjoint, class-balanced sets of n and of m, with FID's spread."""
    found = []
    for k in range(draws):
        ours, theirs = disjoint(y, n, m, generator("cpu", k))
        found.append(compare(features[ours], from_features(features[theirs], "")))
    return {name: mean(f[name] for f in found) for name in found[0]} | {"fid_std": stdev(f["fid"] for f in found)}


def nearest(images: Tensor, train: Tensor) -> float:
    """Median over images of the distance to the nearest training image, in grey levels per pixel (RMS)."""
    a, b = images.flatten(1).float(), train.flatten(1).float()
    return float(torch.cdist(a, b).amin(1).median() / a.shape[1] ** 0.5)


def disjoint(y: Tensor, n: int, m: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of two disjoint sets of n and m rows, equally many of each class of y.

    Raises ValueError where a class has too few.
    """
    ours, theirs, classes = [], [], y.unique()
    a, b = n // len(classes), m // len(classes)
    if a * len(classes) != n:
        raise ValueError(f"n = {n} is not a multiple of the {len(classes)} classes: it must hold equally many of each.")
    for c in classes:
        rows = (y == c).nonzero().squeeze(1)
        if len(rows) < a + b:
            raise ValueError(f"class {c} has {len(rows)} real images; the floor at n = {n} needs {a + b}: lower n.")
        rows = rows[torch.randperm(len(rows), generator=g)]
        ours.append(rows[:a])
        theirs.append(rows[a : a + b])
    return torch.cat(ours), torch.cat(theirs)
