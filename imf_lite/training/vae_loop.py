"""Training a small autoencoder in diffusers' format: what Stable Diffusion's VAE is to ImageNet.

    for step, loss in train_vae(images, VAERecipe(), perceptual_net, "runs/vae"):
        ...

The same call again resumes. Latents have little noise: `kl` is small, as a generator learns them; they are not sampled
from a prior.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..system.files import digest, write_text
from ..system.rng import Stream, stream
from . import checkpoint


@dataclass(frozen=True)
class VAERecipe:
    """A run of the autoencoder."""

    channels: tuple[int, ...] = (16, 32, 64)
    """width at each resolution; each but the last halves the image"""
    latent_channels: int = 4
    kl: float = 3e-4
    """weight of the KL divergence per latent number, against the squared error per pixel"""
    perceptual: float = 0.05
    """weight of the distance in a classifier's feature maps (as LPIPS); another one than the FID's, a fair judge"""
    steps: int = 3000
    batch: int = 64
    lr: float = 2e-3
    """of AdamW, after 100 updates of warm-up falling linearly to 0"""
    ema: float = 0.995
    seed: int = 0
    save_every: int = 250


def build_vae(recipe: VAERecipe, shape: tuple[int, ...]):
    """diffusers' AutoencoderKL for images of a shape (C, H, W), its weights fixed by the seed."""
    from diffusers import AutoencoderKL

    count = len(recipe.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return AutoencoderKL(
            in_channels=shape[0],
            out_channels=shape[0],
            sample_size=shape[1],
            latent_channels=recipe.latent_channels,
            block_out_channels=recipe.channels,
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            norm_num_groups=8,
        )


def train_vae(images: Tensor, recipe: VAERecipe, perceptual_net, out: str | Path) -> Iterator[tuple[int, float]]:
    """Train on uint8 images (N, C, H, W), yielding (step, loss); the averaged weights end in `out`/vae.

    perceptual_net: a trained classifier (evaluation.classifiers) whose maps the perceptual term compares.
    Raises ValueError where `out` holds another run, RuntimeError for a gradient that is not finite.
    """
    out = Path(out)
    data = {"images": digest({"images": images}), "perceptual_net": digest(perceptual_net.state_dict())}
    settings = json.loads(json.dumps(dataclasses.asdict(recipe))) | data
    if (out / "vae.json").exists() and json.loads((out / "vae.json").read_text()) != settings:
        raise ValueError(
            f"{out} holds an autoencoder of another recipe, or of other images: choose another folder, or delete it."
        )
    write_text(out / "vae.json", json.dumps(settings, indent=1))
    vae = build_vae(recipe, tuple(images.shape[1:])).to(memory_format=torch.channels_last)
    # not fused: the fused kernel would read restored moments, which are not channels-last, in the wrong order
    optimizer = torch.optim.AdamW(vae.parameters(), recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    state = checkpoint.State(vae, optimizer)
    if newest := checkpoint.latest(out / "checkpoints"):
        state.restore(newest)
    average: list[Tensor] = list(state.ema.parameters())
    weights = list(vae.parameters())
    while state.step < recipe.steps:
        g = stream("cpu", Stream.AUTOENCODER, recipe.seed, state.step)
        x = images[torch.randint(len(images), (recipe.batch,), generator=g)].float() / 127.5 - 1
        optimizer.zero_grad(set_to_none=True)
        loss = vae_loss(vae, x, recipe, perceptual_net, g)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0, error_if_nonfinite=True)  # before the weights are touched
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1, (state.step + 1) / 100) * (1 - state.step / recipe.steps)
        optimizer.step()
        torch._foreach_lerp_(average, weights, 1 - recipe.ema)
        state.step, state.images = state.step + 1, state.images + len(x)
        if state.step % recipe.save_every == 0 or state.step == recipe.steps:
            checkpoint.write(out / "checkpoints", state.tensors(), state.counters())
        yield state.step, float(loss.detach())
    state.ema.save_pretrained(out / "vae")  # type: ignore[operator]  # an AutoencoderKL


def vae_loss(vae, x: Tensor, recipe: VAERecipe, perceptual_net, g: torch.Generator) -> Tensor:
    """Squared error, distance in a classifier's maps, and KL divergence to N(0, I), of images x in [-1, 1]."""
    latents = vae.encode(x).latent_dist
    decoded = vae.decode(latents.sample(g)).sample
    kl = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
    pairs = zip(perceptual_net.maps(decoded), perceptual_net.maps(x), strict=True)
    perceptual = sum((a - b).square().sum(1).mean() for a, b in pairs)
    return F.mse_loss(decoded, x) + recipe.perceptual * perceptual + recipe.kl * kl
