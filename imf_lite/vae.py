"""Stable Diffusion's autoencoder, through diffusers: from latents to images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

NORMALISATION = {
    # mean and standard deviation of each channel of sd-vae-ft-mse's latents (iMF's reference code)
    "imf": ((0.86488, -0.27787343, 0.21616915, 0.3738409), (4.85503674, 5.31922414, 3.93725398, 3.9870003)),
    # Stable Diffusion's scaling, which MF keeps
    "mf": ((0.0,) * 4, (1 / 0.18215,) * 4),
}


def load_vae(name: str | Path):
    """diffusers' AutoencoderKL, by Hub name (stabilityai/sd-vae-ft-mse) or local folder, frozen.

    Raises ValueError saying what to install or fetch.
    """
    try:
        from diffusers import AutoencoderKL
        from diffusers.utils import logging
    except ImportError as error:
        raise ValueError("images are decoded by diffusers: `pip install diffusers`, or leave out the VAE.") from error
    logging.set_verbosity_error()  # it recommends accelerate, which a frozen VAE does not need
    try:
        return AutoencoderKL.from_pretrained(str(name)).eval().requires_grad_(False)
    except OSError as error:
        raise ValueError(
            f"no autoencoder at {str(name)!r}: it is neither a folder with config.json and weights, nor can it be "
            f"fetched. With network: `hf download {name} --local-dir sd-vae`; then give that folder."
        ) from error


@torch.no_grad()
def decode(vae, z: Tensor, normalisation: Literal["imf", "mf"] = "imf", batch: int = 16) -> Tensor:
    """Normalised latents (N, C, h, w) as images (N, 3, H, W) in about [-1, 1]."""
    raw = denormalise(z, normalisation)
    return torch.cat([vae.decode(part).sample for part in raw.split(batch)])


def denormalise(z: Tensor, normalisation: Literal["imf", "mf"] = "imf") -> Tensor:
    """What a network makes, (N, 4, h, w), as the VAE's raw latents."""
    mean, std = (z.new_tensor(values).view(-1, 1, 1) for values in NORMALISATION[normalisation])
    return z * std + mean
