"""Normalisation of latents: from an autoencoder's raw latents to what a network learns, and back to pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ..configs import Normalisation
from ..system.files import digest
from .autoencoder import load_vae
from .images import to_uint8

CONSTANTS = {
    # mean and standard deviation of each channel of sd-vae-ft-mse's latents (iMF's reference code)
    "imf": ((0.86488, -0.27787343, 0.21616915, 0.3738409), (4.85503674, 5.31922414, 3.93725398, 3.9870003)),
    # Stable Diffusion's scaling, which MF keeps
    "mf": ((0.0,) * 4, (1 / 0.18215,) * 4),
}


@dataclass(frozen=True)
class Latents:
    """What a network's samples (N, C, h, w) are: (raw latents - mean) / std, of some autoencoder."""

    vae: str
    """a Hub name, a folder, or "fashion", the shipped one"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    vae_sha256: str = ""
    """SHA-256 of the autoencoder's weights, if known; `autoencoder` refuses any other"""

    def normalise(self, raw: Tensor) -> Tensor:
        """Raw latents as a network sees them."""
        return (raw - channels(self.mean, raw)) / channels(self.std, raw)

    def denormalise(self, z: Tensor) -> Tensor:
        """What a network makes, as the autoencoder's raw latents."""
        return z * channels(self.std, z) + channels(self.mean, z)

    def autoencoder(self):
        """The autoencoder, loaded. Raises ValueError where it is not the one that the latents were made by."""
        vae = load_vae(self.vae)
        if self.vae_sha256 and digest(vae.state_dict()) != self.vae_sha256:
            raise ValueError(
                f"the autoencoder {self.vae} is not the one that these latents were made by (other weights): restore "
                "it, or choose another deliberately with --vae."
            )
        return vae

    @torch.no_grad()
    def images(self, z: Tensor, vae=None, batch: int = 64) -> Tensor:
        """What a network makes as uint8 images; `vae`, if it is loaded already."""
        vae = self.autoencoder().to(z.device) if vae is None else vae
        return torch.cat([to_uint8(vae.decode(part).sample) for part in self.denormalise(z).split(batch)])


def latent_space(
    normalisation: Normalisation, vae: str, fitted: dict[str, list[float]] | None = None, sha256: str = "",
) -> Latents:  # fmt: skip
    """The latents of an autoencoder under a normalisation by name. Raises ValueError if it does not fit."""
    if normalisation == "fitted" and fitted is None:
        raise ValueError("a fitted normalisation comes from prepared data: choose 'imf' or 'mf' here.")
    if normalisation not in ("fitted", *CONSTANTS):
        raise ValueError(f"normalisation = {normalisation!r}; choose 'imf', 'mf' or 'fitted'.")
    mean, std = (fitted["mean"], fitted["std"]) if fitted and normalisation == "fitted" else CONSTANTS[normalisation]
    if fitted is not None and len(fitted["mean"]) != len(mean):
        raise ValueError(
            f"normalisation {normalisation!r} is for {len(mean)} channels, the latents have {len(fitted['mean'])}: "
            "choose 'fitted'."
        )
    if fitted is not None and normalisation != "fitted" and foreign(fitted):
        numbers = "; ".join(
            f"{name} {', '.join(f'{x:.2f}' for x in fitted[name])} for {', '.join(f'{x:.2f}' for x in constants)}"
            for name, constants in zip(("mean", "std"), CONSTANTS["imf"], strict=True)
        )
        warnings.warn(
            f"normalisation {normalisation!r} is made for sd-vae-ft-mse on ImageNet, but these latents differ "
            f"({numbers}): choose 'fitted'.",
            stacklevel=3,
        )
    return Latents(vae, tuple(mean), tuple(std), sha256)


def foreign(fitted: dict[str, list[float]], tolerance: float = 0.5) -> bool:
    """Whether fitted numbers are far from those of sd-vae-ft-mse's latents of ImageNet, in units of its deviations."""
    pairs = zip(fitted["mean"], fitted["std"], *CONSTANTS["imf"], strict=True)
    return any(
        abs(m - mean) > tolerance * std or not 1 - tolerance < s / std < 1 + tolerance for m, s, mean, std in pairs
    )


def channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One value for each channel, shaped to broadcast against (N, C, h, w)."""
    return like.new_tensor(values).view(-1, 1, 1)
