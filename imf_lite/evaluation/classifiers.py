"""Small classifiers as feature extractors: the digits' is trained on first use, Fashion-MNIST's is shipped.

Inception's features mean little on small grey images. A classifier of the data at hand gives features
that matter, and a second opinion: whether a sample looks like the class that was asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import digits
from ..data.images import to_uint8
from ..system.files import cached_tensors, digest, read_tensors
from ..system.paths import cache_folder, pretrained_folder
from ..system.rng import Stream, stream


class Classifier(nn.Module):
    """A small CNN on uint8 images (B, 1, size, size): features, and one logit per class.

    Args:
        channels: of each convolution.
        pools: after which convolutions the image is halved.
    """

    def __init__(
        self, size: int = 8, channels: tuple[int, ...] = (32, 64, 64), pools: tuple[int, ...] = (1,),
        features: int = 64, num_classes: int = 10,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for k, (a, b) in enumerate(pairwise((1, *channels))):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if k in pools else []
        side = size // 2 ** len(pools)
        self.size = size
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(b * side**2, features), nn.ReLU())
        self.head = nn.Linear(features, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images.float() / 127.5 - 1)
        return features, self.head(features)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps of images in [-1, 1] at each resolution, of unit length at each place (arXiv 1801.03924)."""
        features = []
        for layer in self.body:
            if isinstance(layer, nn.MaxPool2d):
                features.append(F.normalize(x, dim=1))
            if isinstance(layer, nn.Flatten):
                break
            x = layer(x)
        return features


def digits_classifier() -> tuple[Classifier, str]:
    """The digits' classifier and the SHA-256 of its weights; trained on first use (about 20 s), then cached."""

    def make() -> dict[str, Tensor]:
        (x, y), _, _ = digits.load()
        return train_classifier(Classifier, to_uint8(x), y).state_dict()

    path = cache_folder() / f"digits-classifier-{code_digest()}.safetensors"
    return with_weights(Classifier(), cached_tensors(path, make))


def fashion_classifier() -> tuple[Classifier, str]:
    """Fashion-MNIST's classifier and the SHA-256 of its weights, as shipped."""
    path = pretrained_folder("fashion") / "classifier.safetensors"
    if not path.exists():
        raise ValueError(f"{path} is not there: make it with `make fashion`.")
    return with_weights(fashion_net(), read_tensors(path)[0])


def fashion_net() -> Classifier:
    """A CNN on 32 x 32 images with 96 features."""
    return Classifier(32, (32, 64, 128), (0, 1, 2), features=96)


def with_weights(net: Classifier, tensors: dict[str, Tensor]) -> tuple[Classifier, str]:
    """A classifier with these weights, frozen, and their SHA-256."""
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False), digest(tensors)


def train_classifier(
    make: Callable[[], Classifier], images: Tensor, y: Tensor, epochs: int = 30, batch: int = 64, seed: int = 0
) -> Classifier:
    """Train what `make` builds on uint8 images shifted by up to a sixteenth; deterministic: one thread, always."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would give another classifier, and other FIDs
    try:
        return _train_classifier(make, images, y, epochs, batch, seed)
    finally:
        torch.set_num_threads(threads)


def _train_classifier(
    make: Callable[[], Classifier], images: Tensor, y: Tensor, epochs: int, batch: int, seed: int
) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
    g, shift = stream("cpu", Stream.CLASSIFIER, seed), max(1, net.size // 16)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(steps):
        if step % (len(images) // batch) == 0:
            order = torch.randperm(len(images), generator=g)
        rows, order = order[:batch], order[batch:]
        x = F.pad(images[rows], (shift,) * 4)
        i, j = torch.randint(0, 2 * shift + 1, (2,), generator=g).tolist()
        _, logits = net(x[:, :, i : i + net.size, j : j + net.size])
        loss = F.cross_entropy(logits, y[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def code_digest() -> str:
    """Digest of the code that trains classifiers: part of the name under which one is cached."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


CLASSIFIERS = {"digits": digits_classifier, "fashion": fashion_classifier}
