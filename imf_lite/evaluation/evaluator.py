"""Evaluators: a network's samples against a data set's held-out images, with floor, classes and nearest neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..data import Data, LatentSplit, PixelSplit, Split
from ..data.images import to_uint8
from ..sampling import generate, sample
from ..system.files import read_json, read_tensors, sha256, short, write_tensors, write_text
from ..system.paths import cache_folder
from . import extractors, metrics
from .classifiers import CLASSIFIERS, Classifier
from .extractors import extract
from .metrics import compare, floor, nearest
from .protocol import check_finite, check_score
from .references import from_features


class Evaluator:
    """Measures networks against the held-out split of a data set of pixels.

    Features of the images, and floors, are computed once and kept in the cache folder.

    Args:
        data: the data set; its held-out images are the reference (without any, all images are), its training images
            are what samples may have copied.
        extractor, weights, device: see `extractors.extract`.
    """

    images: Callable[[Tensor], Tensor] = staticmethod(to_uint8)
    """how a network's samples become uint8 images"""
    classifier: Classifier | None
    checksum: str | None

    def __init__(
        self, data: Data, extractor: str = "digits", weights: str | None = None, device: torch.device | str = "cpu"
    ):
        self.data, self.extractor, self.weights, self.device = data, extractor, weights, device
        self.classifier, self.checksum = CLASSIFIERS[extractor]() if extractor in CLASSIFIERS else (None, weights)
        self.train, self.reference = pixels(data.train).images, pixels(data.held_out or data.train).images
        name = "held-out split" if data.held_out else "training split"
        self.real = from_features(self.features()[-len(self.reference) :], f"{name}, {len(self.reference)} images")
        self.known: dict[tuple[int, int], dict[str, float]] = {}

    def stored(self, *about: object) -> Path:
        """Where what is computed of these images by this extractor is kept."""
        splits = [split.fingerprint() for split in (self.data.train, self.data.held_out) if split]
        code = [sha256(Path(str(module.__file__))) for module in (extractors, metrics)]
        weights = weights_digest(self.checksum)
        decides = {"splits": splits, "by": self.extractor, "weights": weights, "code": code, "about": about}
        return cache_folder() / f"features-{short(decides)}"

    def features(self) -> Tensor:
        """Features of all images, of the training split, then of the held-out one."""
        path = self.stored().with_suffix(".safetensors")
        if not path.exists():
            both = [self.train, self.reference] if self.data.held_out else [self.train]
            write_tensors(path, {"features": self.extract(torch.cat(both))})
        return read_tensors(path)[0]["features"]

    def extract(self, images: Tensor) -> Tensor:
        """Features of uint8 images."""
        return extract(images, self.extractor, self.weights, device=self.device)

    def measure(self, images: Tensor) -> dict[str, float | None]:
        """The four metrics of uint8 images against the reference."""
        return compare(self.extract(images), self.real)

    def floor(self, n: int, draws: int = 10) -> dict[str, float]:
        """What real images score: mean over `draws` pairs of disjoint sets of n and of the reference's size.

        Sets are drawn from both splits and hold equally many of each class, as generated ones do.
        """
        if (n, draws) not in self.known:
            path, features = self.stored(n, draws).with_suffix(".json"), self.features()
            if not path.exists():
                size = len(self.reference) if self.data.held_out else max(len(features) - n, n)
                write_text(path, json.dumps(floor(features, self.pooled_labels(), n, size, draws)))
            self.known[n, draws] = json.loads(path.read_text())
        return self.known[n, draws]

    def pooled_labels(self) -> Tensor:
        """Labels of all images; zeros where the data set has none."""
        splits = [split for split in (self.data.train, self.data.held_out) if split]
        return torch.cat([torch.zeros(len(s), dtype=torch.int64) if s.y is None else s.y for s in splits])

    def __call__(
        self, net, steps: int = 1, n: int = 1000, seed: int = 0, sampler=sample, omega: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> dict:  # fmt: skip
        """Generate n samples, equally many of each class, and measure them; the result states its protocol."""
        x, y = generate(net, n, steps, seed, sampler, omega=omega, interval=interval)
        check_finite(x)
        images = self.images(x).cpu()
        scores, floor = self.measure(images), self.floor(n)
        check_score(scores["fid"])
        assert scores["fid"] is not None  # always known
        result = scores | {
            "fid_excess": scores["fid"] - floor["fid"],
            "floor": floor,
            **self.classifier_agreement(images, y),
            **self.nearest_neighbours(images),
            "protocol": {
                "n": n,
                "nfe": steps,
                "sampler": sampler.__name__,
                "seed": seed,
                "omega": omega,
                "interval": interval,
                "labels": "equally many of each class",
                "reference": self.real.description,
                "extractor": self.extractor,
                "extractor_checksum": self.checksum,
                "uint8": "clip, then round",
            },
        }
        return result

    def classifier_agreement(self, images: Tensor, y: Tensor | None) -> dict[str, float | None]:
        """Share of images classified as the class asked for, and that class's mean log-probability; None if unknown."""
        if self.classifier is None or y is None:
            return {"agreement": None, "log_prob": None}
        log_p = torch.cat([self.classifier(part)[1].log_softmax(1) for part in images.split(500)])
        return {
            "agreement": float((log_p.argmax(1) == y.cpu()).float().mean()),
            "log_prob": float(log_p.gather(1, y.cpu()[:, None]).mean()),
        }

    def nearest_neighbours(self, images: Tensor) -> dict[str, float]:
        """Distances to the nearest training image, of samples and of held-out images."""
        if not self.data.held_out:
            return {"nearest_train": nearest(images, self.train)}
        return {
            "nearest_train": nearest(images, self.train),
            "nearest_train_of_real": nearest(self.reference, self.train),
        }


class StoredEvaluator(Evaluator):
    """Measures networks of latents against stored features, with no data set at hand.

    Args:
        folder: holds reference.safetensors (features of the real images) and floors.json.
        images: how a network's samples become uint8 images.
        extractor, weights, device: see `extractors.extract`.
    """

    def __init__(
        self, folder: str | Path, images: Callable[[Tensor], Tensor], extractor: str, weights: str | None = None,
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        self.images, self.extractor, self.weights, self.device = images, extractor, weights, device
        if not (Path(folder) / "reference.safetensors").exists():
            raise ValueError(f"{folder} holds no reference.safetensors: reinstall the package, or `make fashion`.")
        tensors, _ = read_tensors(Path(folder) / "reference.safetensors")
        stored = read_json(Path(folder) / "floors.json", keys=("about", "floors"))
        self.real, self.floors = from_features(tensors["features"].float(), stored["about"]), stored["floors"]
        self.classifier, self.checksum = CLASSIFIERS[extractor]() if extractor in CLASSIFIERS else (None, weights)

    def floor(self, n: int, draws: int = 10) -> dict[str, float]:
        """What n real images score, as stored, always by 10 draws. Raises ValueError for an n that was not measured."""
        if str(n) not in self.floors:
            raise ValueError(f"what real images score was measured for n = {', '.join(self.floors)}, not {n}.")
        return self.floors[str(n)]

    def nearest_neighbours(self, images: Tensor) -> dict[str, float]:
        """Nothing: the training images are not here."""
        return {}


def pixels(split: Split | LatentSplit | PixelSplit | None) -> Split | PixelSplit:
    """A split that holds images. Raises ValueError for one of latents, or none."""
    if not isinstance(split, Split | PixelSplit):
        raise ValueError("samples are measured against images: give a data set of pixels.")
    return split


def weights_digest(checksum: str | None) -> str | None:
    """What decides an extractor: the checksum of a classifier, or that of the file of another one's weights."""
    return sha256(Path(checksum)) if checksum and Path(checksum).is_file() else checksum
