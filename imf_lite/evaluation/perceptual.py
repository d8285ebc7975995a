"""Distances between images as a loss: in the feature maps of a small classifier, or LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..data import fashion
from ..system.files import read_tensors, write_tensors
from ..system.paths import cache_folder
from .classifiers import Classifier, code_digest, train_classifier

LPIPS_FILES = {
    "weights-vgg16-lpips.pth": (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
    ),
    "vgg16-397923af.pth": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""what LPIPS reads, from the folder where torch.hub keeps its files"""


def load(name: Literal["eye", "lpips"], shape: tuple[int, ...], device: torch.device | str = "cpu") -> Callable:
    """A differentiable distance (x_hat, x) -> (B,) of images (B, *shape) in about [-1, 1].

    eye: of grey 32 x 32 images, a small classifier of Fashion-MNIST, which is trained on first use (about a minute) and
    cached; not the one that FIDs are measured by. lpips: of RGB images, torch-fidelity's.
    Raises ValueError for images of another shape, or files that are not there, naming the commands that fetch them.
    """
    wanted = (1, 32, 32) if name == "eye" else (3, *shape[1:])
    if tuple(shape) != wanted:
        raise ValueError(f"perceptual = {name!r} compares images of shape {wanted}; these have {tuple(shape)}.")
    return in_maps(eye().to(device)) if name == "eye" else lpips(device)


def eye() -> Classifier:
    """The small classifier of the perceptual term; another size, and another seed, than the one that measures."""
    path = cache_folder() / f"fashion-eye-{code_digest()}.safetensors"
    if not path.exists():
        write_tensors(path, train_classifier(eye_net, *fashion.load_images("train"), 2, batch=128, seed=1).state_dict())
    net = eye_net()
    net.load_state_dict(read_tensors(path)[0])
    return net.eval().requires_grad_(False)


def eye_net() -> Classifier:
    """A CNN on 32 x 32 images, smaller than that of the FID."""
    return Classifier(32, (16, 32, 64), (0, 1, 2), features=64)


def in_maps(net: Classifier) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean squared distance of normalised feature maps, summed over their resolutions (as LPIPS)."""

    def distance(x_hat: Tensor, x: Tensor) -> Tensor:
        pairs = zip(net.maps(x_hat), net.maps(x), strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)

    return distance


def lpips(device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS by VGG-16 as torch-fidelity computes it, on whole images (pMF compares random crops of 224 x 224)."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if missing := [address for file, address in LPIPS_FILES.items() if not (folder / file).exists()]:
        commands = "\n".join(f"  wget -P {folder} {address}" for address in missing)
        raise ValueError(f"LPIPS needs files that are not in {folder}. Fetch them by\n{commands}")
    from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

    measure = SampleSimilarityLPIPS("lpips-vgg16").to(device)

    def distance(x_hat: Tensor, x: Tensor) -> Tensor:
        return measure(*((image + 1) * 127.5 for image in (x_hat, x)))

    return distance
