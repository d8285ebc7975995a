"""Evaluators: a network's samples against a data set's held-out images, with floor, classes and nearest neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..data import Data, LatentSplit, PixelSplit, Split, fashion
from ..data.images import to_uint8
from ..sampling import generate, sample
from ..system.files import DamagedFileError, cached_tensors, read_json, read_tensors, sha256, short, write_text
from ..system.paths import cache_folder
from . import extractors, metrics
from .classifiers import CLASSIFIERS, Classifier
from .extractors import extract
from .metrics import compare, floor, nearest
from .protocol import check_finite, check_score
from .references import from_features

CLASSES = {"digits": tuple(map(str, range(10))), "fashion": fashion.CLASSES}
"""what each classifier tells apart: of other data sets it says nothing about the class"""


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
    also: Callable[[Tensor], dict[str, float]] = staticmethod(lambda images: {})
    """what else is measured of the same images"""
    classifier: Classifier | None
    checksum: str | None

    def __init__(
        self, data: Data, extractor: str = "digits", weights: str | None = None, device: torch.device | str = "cpu"
    ):
        self.data, self.extractor, self.weights, self.device = data, extractor, weights, device
        classifier, self.checksum = CLASSIFIERS[extractor]() if extractor in CLASSIFIERS else (None, weights)
        self.classifier = classifier if data.classes == CLASSES.get(extractor) else None
        self.splits = [pixels(split) for split in (data.train, data.held_out) if split]
        self.decides = {
            "splits": [split.fingerprint() for split in self.splits],
            "by": extractor,
            "weights": weights_digest(self.checksum),
            "code": [sha256(Path(str(module.__file__))) for module in (extractors, metrics)],
        }
        name, size = "held-out split" if data.held_out else "training split", len(self.splits[-1])
        self.real = from_features(self.features()[-size:], f"{name}, {size} images")
        self.known: dict[tuple[int, int], dict[str, float]] = {}

    def stored(self, *about: object) -> Path:
        """Where what is computed of these images by this extractor is kept."""
        return cache_folder() / f"features-{short(self.decides | {'about': about})}"

    def features(self) -> Tensor:
        """Features of all images, of the training split, then of the held-out one."""

        def make() -> dict[str, Tensor]:
            return {"features": torch.cat([self.extract(x) for split in self.splits for x in split.chunks()])}

        return cached_tensors(self.stored().with_suffix(".safetensors"), make)["features"]

    @property
    def reference(self) -> Tensor:
        """The images, uint8, that samples are compared with."""
        return self.splits[-1].images

    def extract(self, images: Tensor) -> Tensor:
        """Features of uint8 images."""
        return extract(images, self.extractor, self.weights, device=self.device)

    def measure(self, images: Tensor) -> dict[str, float | None]:
        """The four metrics of uint8 images against the reference."""
        return compare(self.extract(images), self.real)

    def floor(self, n: int, draws: int = 10) -> dict[str, float]:
        """What real images score: mean over `draws` pairs of disjoint sets of n and of the reference's size.

        Sets are drawn from both splits and hold equally many of each class, as generated ones do. Without a held-out
        split the second set is as large as its smallest class allows.
        """
        if (n, draws) not in self.known:
            path = self.stored(n, draws).with_suffix(".json")
            try:
                self.known[n, draws] = read_json(path, keys=("fid",))
            except (FileNotFoundError, DamagedFileError):
                y = self.pooled_labels()
                self.known[n, draws] = floor(self.features(), y, n, self.beside(y, n), draws)
                write_text(path, json.dumps(self.known[n, draws]))
        return self.known[n, draws]

    def beside(self, y: Tensor, n: int) -> int:
        """Size of the set that n real images are compared with: the held-out split's, or what the classes leave.

        Raises ValueError where nothing is left.
        """
        if self.data.held_out:
            return len(self.splits[-1])
        counts = y.unique(return_counts=True)[1]
        left = int(counts.min()) - n // len(counts)
        if left < 1:
            raise ValueError(
                f"n = {n}, and no test split: the smallest class has {int(counts.min())} images, and the floor needs "
                "more than n over the number of classes: lower n."
            )
        return left * len(counts)

    def pooled_labels(self) -> Tensor:
        """Labels of all images; zeros where the data set has none."""
        return torch.cat([torch.zeros(len(s), dtype=torch.int64) if s.y is None else s.y for s in self.splits])

    def __call__(
        self, net, steps: int = 1, n: int = 1000, seed: int = 0, sampler=sample, omega: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> dict:  # fmt: skip
        """Generate n samples, equally many of each class, and measure them; the result states its protocol."""
        if n < 1:
            raise ValueError(f"n = {n}; ask for at least one sample.")
        floor = self.floor(n)  # first: it may not be possible
        x, y = generate(net, n, steps, seed, sampler, omega=omega, interval=interval)
        check_finite(x)
        images = self.images(x).cpu()
        scores = self.measure(images)
        check_score(scores["fid"])
        assert scores["fid"] is not None  # always known
        result = scores | {
            "fid_excess": scores["fid"] - floor["fid"],
            "floor": floor,
            **self.classifier_agreement(images, y),
            **self.nearest_neighbours(images),
            **self.also(images),
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
        train = self.splits[0]
        found = {"nearest_train": nearest(images, train.chunks())}
        if not self.data.held_out:
            return found
        return found | {"nearest_train_of_real": nearest(self.splits[1].images, train.chunks())}


class StoredEvaluator(Evaluator):
    """Measures networks against stored features, with no data set at hand.

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
