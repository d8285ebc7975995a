"""Runs on Fashion-MNIST, latents or pixels: about an hour each on two CPU cores."""

from __future__ import annotations

from ..configs import AdaLNConfig, DiTConfig, DrawConfig, Fixed, Flexible
from .recipe import Recipe, counterpart, override


def fashion_imf() -> Recipe:
    """Improved MeanFlow on Fashion-MNIST's latents, guidance as an input: about an hour on two CPU cores."""
    net = DiTConfig(
        width=96, depth=6, heads=3, v_depth=3, guided="interval",
        class_tokens=4, omega_tokens=2, interval_tokens=1, time_tokens=2,
    )  # fmt: skip
    return Recipe(
        name="fashion_imf",
        method="imf",
        data="fashion",
        net=net,
        draws=DrawConfig(class_dropout=0.1, p_std=1.3),  # wider: t = 1, where one step starts, is not left out
        guidance=Flexible(),
        normalisation="fitted",
        steps=6000,
        batch=96,
        lr=2e-3,
        warmup=100,
        decay="linear",
        ema=0.998,
        log_every=10,
        save_every=250,
    )


def fashion_mf() -> Recipe:
    """MeanFlow on Fashion-MNIST's latents as published: adaLN-zero, one guidance scale baked in."""
    net = AdaLNConfig(width=96, depth=6, heads=3)
    return override(counterpart(fashion_imf(), "mf", Fixed(omega=2.0)), {"net": net, "name": "fashion_mf"})


def fashion_imf_plain() -> Recipe:
    """Improved MeanFlow on Fashion-MNIST's latents without guidance."""
    changes = {"name": "fashion_imf_plain", "net.guided": "no", "guidance": None, "draws.class_dropout": 0.0}
    return override(fashion_imf(), changes)


def fashion_mf_plain() -> Recipe:
    """MeanFlow without guidance, all else as fashion_imf_plain."""
    return counterpart(fashion_imf_plain(), "mf")


def fashion_fm_plain() -> Recipe:
    """Flow matching, all else as fashion_imf_plain: the multi-step model."""
    return counterpart(fashion_imf_plain(), "fm")


def fashion_pixels() -> Recipe:
    """Improved MeanFlow on Fashion-MNIST's pixels without an autoencoder: the network predicts the image (pMF)."""
    net = {"patch": 8, "predict": "x", "grid_positions": True}  # 16 patches, as many as of latents
    # a third of the latents' batch: quality follows the number of updates here, not that of images
    budget = {"steps": 8000, "batch": 32, "lr": 4e-3, "warmup": 300}
    changes = {"name": "fashion_pixels", "data": "FashionMNIST", "normalisation": "imf", "net": net}
    return override(fashion_imf_plain(), changes | budget)


def fashion_pixels_u() -> Recipe:
    """Improved MeanFlow on Fashion-MNIST's pixels by a network that predicts u, all else as fashion_pixels."""
    return override(fashion_pixels(), {"name": "fashion_pixels_u", "net.predict": "u"})


def fashion_pixels_mf() -> Recipe:
    """MeanFlow on Fashion-MNIST's pixels by a network that predicts the image, all else as fashion_pixels."""
    return override(counterpart(fashion_pixels(), "mf"), {"name": "fashion_pixels_mf"})


def fashion_pixels_guided() -> Recipe:
    """Improved MeanFlow on Fashion-MNIST's pixels with guidance as an input."""
    guided = {"net.guided": "interval", "guidance": Flexible(), "draws.class_dropout": 0.1}
    return override(fashion_pixels(), {"name": "fashion_pixels_guided"} | guided)
