"""Distances between images as a loss: in the feature maps of a small classifier, or LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..data import fashion
from ..system.files import cached_tensors, digest, sha256, short
from ..system.paths import cache_folder
from .classifiers import Classifier, code_digest, train_classifier, with_weights

LPIPS_FILES = {
    "weights-vgg16-lpips.pth": (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
    ),
    "vgg16-397923af.pth": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""what LPIPS reads, from the folder where torch.hub keeps its files"""


class Perceptual:
    """A differentiable distance (x_hat, x) -> (B,) of images in about [-1, 1], its name and its weights' SHA-256."""

    def __init__(self, name: str, sha256: str, distance: Callable[[Tensor, Tensor], Tensor]):
        self.name, self.sha256, self.distance = name, sha256, distance

    def __call__(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return self.distance(x_hat, x)


def load(name: Literal["eye", "lpips"], shape: tuple[int, ...], device: torch.device | str = "cpu") -> Perceptual:
    """The distance called `name`, for images (B, *shape).

    eye: of grey 32 x 32 images, a small classifier of Fashion-MNIST, which is trained on first use (about a minute) and
    cached; not the one that FIDs are measured by. lpips: of RGB images, torch-fidelity's.
    Raises ValueError for images of another shape, or files that are not there, naming the commands that fetch them.
    """
    wanted = (1, 32, 32) if name == "eye" else (3, *shape[1:])
    if tuple(shape) != wanted:
        raise ValueError(f"perceptual = {name!r} compares images of shape {wanted}; these have {tuple(shape)}.")
    if name == "lpips":
        return Perceptual(name, "".join(sha256(path) for path in lpips_files()), lpips(device))
    net = eye()
    return Perceptual(name, digest(net.state_dict()), in_maps(net.to(device)))


def eye() -> Classifier:
    """The small classifier of the perceptual term; another size, and another seed, than the one that measures."""
    code = short({"code": code_digest(), "here": sha256(Path(__file__))})
    path = cache_folder() / f"fashion-eye-{code}.safetensors"
    tensors = cached_tensors(
        path, lambda: train_classifier(eye_net, *fashion.load_images("train"), 2, batch=128, seed=1).state_dict()
    )
    return with_weights(eye_net(), tensors)[0]


def eye_net() -> Classifier:
    """A CNN on 32 x 32 images, smaller than that of the FID."""
    return Classifier(32, (16, 32, 64), (0, 1, 2), features=64)


def in_maps(net: Classifier) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean squared distance of normalised feature maps, summed over their resolutions (as LPIPS)."""

    def distance(x_hat: Tensor, x: Tensor) -> Tensor:
        pairs = zip(net.maps(x_hat), net.maps(x), strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)

    return distance


def lpips_files() -> list[Path]:
    """The files of LPIPS. Raises ValueError, with the commands that fetch them, where they are missing."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if missing := [address for file, address in LPIPS_FILES.items() if not (folder / file).exists()]:
        commands = "\n".join(f"  wget -P {folder} {address}" for address in missing)
        raise ValueError(f"LPIPS needs files that are not in {folder}. Fetch them by\n{commands}")
    return [folder / file for file in LPIPS_FILES]


def lpips(device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS by VGG-16 as torch-fidelity computes it, on whole images (pMF compares random crops of 224 x 224)."""
    lpips_files()
    from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

    measure = SampleSimilarityLPIPS("lpips-vgg16").to(device)

    def distance(x_hat: Tensor, x: Tensor) -> Tensor:
        return measure(*((image + 1) * 127.5 for image in (x_hat, x)))

    return distance
