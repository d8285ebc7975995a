"""A miniature ImageNet and an autoencoder of the real format, to rehearse full scale on a laptop.

    python -m toy_experiments.rehearsal --out runs/rehearsal

Writes OUT/imagenet/train/nXXXXXXXX/*.JPEG (drawn shapes, one file damaged) and OUT/sd-vae (random weights).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

CLASSES = ("n01440764", "n02123045", "n03445777", "n07753592")  # tench, tabby, golf ball, banana: here mere names


def picture(kind: int, g: np.random.Generator) -> Image.Image:
    """A picture of one class (disc, stripes, checks or a gradient), its colours and size drawn from g."""
    height, width = g.integers(260, 420, 2)
    y, x = np.mgrid[:height, :width] / min(height, width)
    a, b = g.uniform(0.3, 0.7, 2), g.uniform(4, 9)
    shape = (
        (x - a[0]) ** 2 + (y - a[1]) ** 2 < 0.09,
        np.sin(b * 3 * (x + a[0] * y)) > 0,
        (np.floor(b * x) + np.floor(b * y)) % 2 > 0,
        np.clip(x * a[0] + y * a[1], 0, 1),
    )[kind].astype(float)
    ink, paper = g.uniform(0, 255, (2, 3))
    return Image.fromarray((shape[..., None] * ink + (1 - shape[..., None]) * paper).astype(np.uint8))


def write_images(folder: Path, each: int = 12, seed: int = 0) -> Path:
    """ImageNet's layout with `each` pictures a class; the last file of the last class is cut short."""
    g = np.random.default_rng(seed)
    for kind, name in enumerate(CLASSES):
        for k in range(each):
            path = folder / "train" / name / f"{name}_{k}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(kind, g).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:500])
    return folder


def save_vae(folder: Path) -> Path:
    """An AutoencoderKL of four scales, 3 x 256 x 256 to 4 x 32 x 32, in the real format, with random weights."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=256,
        )  # fmt: skip
    with torch.no_grad():  # little posterior noise, else there is nothing to learn
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -10
    vae.save_pretrained(folder)
    return folder


def main(out: Path = Path("runs/rehearsal")) -> None:
    """Write the images and the autoencoder.

    Args:
        out: the folder to write to.
    """
    print(write_images(out / "imagenet"), save_vae(out / "sd-vae"))


if __name__ == "__main__":
    tyro.cli(main)
