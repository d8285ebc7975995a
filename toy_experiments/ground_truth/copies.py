"""Are samples copies of training images? Distances to the nearest one, beside those of real images held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imf_lite.data import fashion
from imf_lite.data.normalisation import Latents
from imf_lite.pretrained import weights
from imf_lite.sampling import generate


def nearest(images: Tensor, train: Tensor, batch: int = 250) -> tuple[Tensor, Tensor]:
    """Per image its distance to the nearest training image, in grey levels per pixel (RMS), and that image's index.

    images (N, ...) and train (M, ...): uint8, of equal shape; results (N,) each.
    """
    flat = train.flatten(1).float()
    found = [torch.cdist(part.flatten(1).float(), flat).min(1) for part in images.split(batch)]
    distance = torch.cat([d.values for d in found]) / flat.shape[1] ** 0.5
    return distance, torch.cat([d.indices for d in found])


def arrays(name: str, images: Tensor, train: Tensor, shown: int = 30, closest: int = 8) -> dict[str, np.ndarray]:
    """What a lesson shows of a set of images: all distances, the first images with their nearest training images, and
    the pairs that are closest of all."""
    distance, index = nearest(images, train)
    first = distance.argsort()[:closest]
    return {
        f"{name}_distance": distance.numpy(),
        name: images[:shown].numpy(),
        f"{name}_nearest": train[index[:shown]].numpy(),
        f"{name}_closest": images[first].numpy(),
        f"{name}_closest_nearest": train[index[first]].numpy(),
    }


@torch.no_grad()
def of_network(folder: Path, n: int, omega: float = 2.0) -> dict[str, np.ndarray]:
    """`arrays` of n one-step samples of a network of Fashion-MNIST's latents, and of as many images of the test split.

    folder: of the network, as `save_pretrained` wrote it. y: labels of the samples that are shown.
    """
    net, notes = weights.load(folder), weights.read_notes(folder)
    samples, y = generate(net, n, 1, seed=0, omega=omega)
    assert y is not None  # these networks have classes
    train, test = (fashion.load_images(split)[0] for split in ("train", "test"))
    sets = {"samples": Latents(**notes["latents"]).images(samples), "test": test[:n]}
    found = [arrays(name, images, train) for name, images in sets.items()]
    return {"y": y[:30].numpy(), **found[0], **found[1]}


def share_nearer(samples: np.ndarray, real: np.ndarray, quantile: float) -> float:
    """Share of the samples nearer to the training set than a quantile of the real images that were held out.

    samples, real: distances (N,), (M,). The share equals the quantile where samples lie as near as real images do.
    """
    return float((samples < np.quantile(real, quantile)).mean())
