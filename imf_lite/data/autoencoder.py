"""Autoencoders, loaded by diffusers: from images to latents and back."""

from __future__ import annotations

from pathlib import Path

from ..system.paths import pretrained_folder


def load_vae(name: str | Path):
    """diffusers' AutoencoderKL, by Hub name (stabilityai/sd-vae-ft-mse), local folder or "fashion", frozen.

    Raises ValueError saying what to install or fetch.
    """
    try:
        from diffusers import AutoencoderKL
        from diffusers.utils import logging
    except ImportError as error:
        raise ValueError("images are decoded by diffusers: `pip install diffusers`, or leave out the VAE.") from error
    logging.set_verbosity_error()  # it recommends accelerate, which a frozen VAE does not need
    shipped = pretrained_folder("fashion") / "vae"
    if name == "fashion" and not shipped.exists():
        raise ValueError(f"{shipped} is not there: make it with `make fashion`.")
    try:
        return AutoencoderKL.from_pretrained(str(shipped if name == "fashion" else name)).eval().requires_grad_(False)
    except OSError as error:
        raise ValueError(
            f"no autoencoder at {str(name)!r}: it is neither a folder with config.json and weights, nor can it be "
            f"fetched. Run `hf download {name} --local-dir sd-vae` where there is a network, then give that folder."
        ) from error
