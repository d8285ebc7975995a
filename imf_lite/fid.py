"""How good samples are: FID, KID, precision and recall by torch-fidelity, beside what real data scores.

A FID means something only beside its floor: the same metric between two disjoint sets of real
images, of the same sizes and class balance.
"""

from __future__ import annotations

from functools import cache
from statistics import mean, stdev

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics

from .data import Data, Split
from .extractors import CLASSIFIERS
from .images import to_uint8
from .rng import generator
from .sampling import generate, sample


class Images(Dataset):
    """uint8 images (N, C, H, W), as torch-fidelity reads them. Raises ValueError for any other dtype."""

    def __init__(self, name: str, images: Tensor):
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"{name} images are {images.dtype} of shape {tuple(images.shape)}; "
                "FID is measured on uint8 (N, C, H, W): convert with to_uint8."
            )
        self.images = images.cpu()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def measure(generated: Tensor, real: Tensor, extractor: str = "digits", weights: str | None = None) -> dict[str, float]:
    """FID, KID, precision and recall of uint8 images (N, C, H, W) against real ones.

    extractor: "digits", or any name that torch-fidelity knows, e.g. "inception-v3-compat", whose
    file `weights` is (default: torch-fidelity downloads it).
    """
    found = calculate_metrics(
        input1=Images("generated", generated),
        input2=Images("real", real),
        feature_extractor=extractor,
        feature_extractor_weights_path=weights,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=min(100, len(generated), len(real)),
        batch_size=500,
        cuda=torch.cuda.is_available(),
        cache=False,
        save_cpu_ram=True,  # no worker processes: the images are in memory
        verbose=False,
    )
    return {
        "fid": found["frechet_inception_distance"],
        "kid": found["kernel_inception_distance_mean"],
        "precision": found["precision"],
        "recall": found["recall"],
    }


class Judge:
    """Measures networks against the held-out split of a data set.

    Args:
        data: the data set; its held-out images are the reference, its training images the memory test.
        extractor, weights: see `measure`.
    """

    def __init__(self, data: Data, extractor: str = "digits", weights: str | None = None):
        self.data, self.extractor, self.weights = data, extractor, weights
        self.reference = to_uint8(data.held_out.x)
        self.classifier, self.checksum = CLASSIFIERS[extractor]() if extractor in CLASSIFIERS else (None, weights)
        self.floor = cache(self.floor)

    def measure(self, images: Tensor, real: Tensor | None = None) -> dict[str, float]:
        """The four metrics of uint8 images, against the held-out split or other real ones."""
        return measure(images, self.reference if real is None else real, self.extractor, self.weights)

    def floor(self, n: int, draws: int = 10) -> dict[str, float]:
        """What real images score: mean over `draws` pairs of disjoint sets of n and of the reference's size.

        Sets are drawn from both splits and hold equally many of each class, as generated ones do.
        """
        pool = Split(torch.cat([self.data.train.x, self.data.held_out.x]), self.pooled_labels())
        found = []
        for k in range(draws):
            ours, theirs = disjoint(pool.y, n, len(self.reference), generator("cpu", k))
            found.append(self.measure(to_uint8(pool.x[ours]), to_uint8(pool.x[theirs])))
        return {m: mean(f[m] for f in found) for m in found[0]} | {"fid_std": stdev(f["fid"] for f in found)}

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
        images = to_uint8(x).cpu()
        scores, floor = self.measure(images), self.floor(n)
        result = scores | {
            "fid_over_floor": scores["fid"] / floor["fid"],
            "floor": floor,
            "agreement": None,
            "log_prob": None,
            "nearest_train": nearest(images, to_uint8(self.data.train.x)),
            "nearest_train_of_real": nearest(self.reference, to_uint8(self.data.train.x)),
            "protocol": {
                "n": n,
                "nfe": steps,
                "sampler": sampler.__name__,
                "seed": seed,
                "omega": omega,
                "interval": interval,
                "labels": "equally many of each class",
                "reference": f"held-out split, {len(self.reference)} images",
                "extractor": self.extractor,
                "extractor_checksum": self.checksum,
                "uint8": "clip, then round",
            },
        }
        if self.classifier is not None and y is not None:
            log_p = self.classifier(images)[1].log_softmax(1)  # a second opinion on the class asked for
            result["agreement"] = float((log_p.argmax(1) == y.cpu()).float().mean())
            result["log_prob"] = float(log_p.gather(1, y.cpu()[:, None]).mean())
        return result


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
