"""Small classifiers as feature extractors for torch-fidelity: trained once, then cached.

Inception's features mean little on 8 x 8 images. A classifier of the data at hand gives 64 features
that matter, and a second opinion: whether a sample looks like the class that was asked for.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity import FeatureExtractorBase, register_feature_extractor

from . import checkpoint, data
from .images import to_uint8
from .rng import generator


class Classifier(nn.Module):
    """A small CNN on uint8 images (B, 1, 8, 8): 64 features, 10 logits."""

    def __init__(self, num_classes: int = 10, features: int = 64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),
            nn.Linear(64 * 4 * 4, features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(features, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images.float() / 127.5 - 1)
        return features, self.head(features)


def digits_classifier() -> tuple[Classifier, str]:
    """The digits' classifier and the SHA-256 of its weights; trained on first use (about 20 s), then cached."""
    path = cache_folder() / f"digits-classifier-{source()}.safetensors"
    if not path.exists():
        checkpoint.write(path, train_classifier(data.load("digits").train).state_dict())
    tensors, _ = checkpoint.load(path)
    net = Classifier().eval().requires_grad_(False)
    net.load_state_dict(tensors)
    return net, checkpoint.digest(tensors)


def train_classifier(split: data.Split, epochs: int = 30, batch: int = 64, seed: int = 0) -> Classifier:
    """Train on one split, images shifted by up to a pixel; deterministic: one thread, whatever is set."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would give another classifier, and other FIDs
    try:
        return _train_classifier(split, epochs, batch, seed)
    finally:
        torch.set_num_threads(threads)


def _train_classifier(split: data.Split, epochs: int, batch: int, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier()
    images, g = to_uint8(split.x), generator("cpu", seed)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(steps):
        if step % (len(images) // batch) == 0:
            order = torch.randperm(len(images), generator=g)
        rows, order = order[:batch], order[batch:]
        x = F.pad(images[rows], (1, 1, 1, 1))
        i, j = torch.randint(0, 3, (2,), generator=g).tolist()
        _, logits = net(x[:, :, i : i + images.shape[2], j : j + images.shape[3]])
        loss = F.cross_entropy(logits, split.y[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def cache_folder() -> Path:
    """Where trained extractors are kept: $IMF_LITE_CACHE, or ~/.cache/imf_lite."""
    return Path(os.environ.get("IMF_LITE_CACHE", Path.home() / ".cache" / "imf_lite"))


def source() -> str:
    """Which code trained an extractor: part of the name under which it is cached."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


class DigitsExtractor(FeatureExtractorBase):
    """The digits' classifier as torch-fidelity wants it: uint8 (B, 1, 8, 8) -> features."""

    def __init__(self, name: str, features_list: list[str], **kwargs):
        super().__init__(name, features_list)
        self.net, _ = digits_classifier()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 1, 8, 8, dtype=torch.uint8)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.net(images)[0],)


register_feature_extractor("digits", DigitsExtractor)

CLASSIFIERS = {"digits": digits_classifier}
