"""Runs at ImageNet-256 as published, the rows of iMF's ablation, and a rehearsal of the pipeline in miniature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from ..configs import PRESETS, DiTConfig, DrawConfig, Fixed, Flexible
from .recipe import Recipe, override

IMAGES = 1_281_167
"""images in ImageNet's training split"""
SIZES = ("b2", "m2", "l2", "xl2")
PMF_SIZES = ("b16", "l16", "h16")
MF_GUIDANCE = {
    # B/4 is MF's released configuration, L/2 and XL/2 as reported by ports; M/2's is not published, B/2's is taken
    "b4": Fixed(omega=1.0, kappa=0.5),
    "b2": Fixed(omega=1.0, kappa=0.5),
    "m2": Fixed(omega=1.0, kappa=0.5),
    "l2": Fixed(omega=0.2, kappa=0.92, t_end=0.8),
    "xl2": Fixed(omega=0.2, kappa=0.92, t_end=0.75),
}
ABLATION: dict[str, dict[str, Any]] = {
    # the paper's steps from MF to iMF, each with what changes against "mf"
    "mf": {},
    "boundary": {"method": "imf"},
    "head": {"method": "imf", "net.v_depth": 8},
    "omega": {"method": "imf", "net.v_depth": 8, "net.guided": "omega", "guidance": Flexible()},
    "interval": {"method": "imf", "net.v_depth": 8, "net.guided": "interval", "guidance": Flexible()},
    "tokens": {
        "method": "imf",
        "net": override(PRESETS["imf_b2"], {"modern": False}),
        "guidance": Flexible(),
    },
    "modern": {"method": "imf", "net": PRESETS["imf_b2"], "guidance": Flexible()},
}


def epochs(count: int, batch: int) -> int:
    """Updates in `count` epochs of ImageNet, counting whole batches only."""
    return count * (IMAGES // batch)


def imagenet_imf(size: str) -> Recipe:
    """Improved MeanFlow at ImageNet-256 as published: 640 epochs, batch 1,024."""
    parts = {"b2": 8, "m2": 16, "l2": 32, "xl2": 32}[size]  # about 80 GB per GPU
    return Recipe(
        name=f"imagenet_imf_{size}",
        method="imf",
        data="imagenet",
        net=PRESETS[f"imf_{size}"],
        draws=DrawConfig(class_dropout=0.1),
        guidance=Flexible(),
        steps=epochs(640, 1024),
        batch=1024,
        parts=parts,
        precision="tf32",
        lr=1e-4,
        warmup=epochs(10, 1024),
        ema=0.9999,
        seed=42,
        log_every=10,
        save_every=1000,
    )


def imagenet_mf(size: str) -> Recipe:
    """MeanFlow at ImageNet-256 as published: 240 epochs, batch 256, guidance baked in."""
    changes = {
        "name": f"imagenet_mf_{size}",
        "net": PRESETS[f"mf_{size}"],
        "draws.p_r_neq_t": 0.25,
        "guidance": MF_GUIDANCE[size],
        "normalisation": "mf",
        "steps": epochs(240, 256),
        "batch": 256,
        "warmup": 0,
    }
    return override(imagenet_imf("b2"), {"method": "mf", "net.v_depth": None} | changes)


def imagenet_ablation(row: str) -> Recipe:
    """A row of the paper's ablation at B/2, 240 epochs; guided networks at ω = 1 are its column without guidance."""
    mf = override(
        imagenet_mf("b2"), {"name": f"imagenet_ablation_{row}", "draws.p_r_neq_t": 0.5, "normalisation": "imf"}
    )
    return override(mf, ABLATION[row])


def imagenet_unguided(row: str) -> Recipe:
    """A row of the paper's ablation at B/2 trained without guidance."""
    return override(imagenet_ablation(row), {"name": f"imagenet_unguided_{row}", "guidance": None})


def imagenet_mf_b4_short() -> Recipe:
    """MeanFlow's own ablation: B/4, 80 epochs, scale 3."""
    changes = {"name": "imagenet_mf_b4_short", "steps": epochs(80, 256), "guidance": Fixed(omega=3.0)}
    return override(imagenet_mf("b4"), changes)


def imagenet_pmf(size: str) -> Recipe:
    """Pixel MeanFlow at ImageNet-256 without an autoencoder: iMF on a network that predicts the image; 320 epochs."""
    parts = {"b16": 16, "l16": 32, "h16": 64}[size]
    # L/16's times are not published: B/16's are taken
    times = {"p_mean": 0.0, "uniform_share": 0.1} if size == "h16" else {"p_mean": 0.8}
    changes = {
        "name": f"imagenet_pmf_{size}",
        "data": "imagenet_pixels",
        "net": PRESETS[f"pmf_{size}"],
        "draws": {"p_std": 0.8, "equal_t": "first"} | times,
        "perceptual": "lpips",
        "steps": epochs(320, 1024),
        "parts": parts,
        "optimizer": "muon",
        "lr": 1e-3,
        "warmup": 0,
        "ema_half_life": (500.0, 1000.0, 2000.0),
    }
    return override(imagenet_imf("b2"), changes)


def imagenet_pmf_rehearsal() -> Recipe:
    """Pixel MeanFlow in miniature: its pipeline, without the perceptual term, on a tiny network, in a minute."""
    tiny = {"width": 32, "depth": 2, "heads": 2, "v_depth": 1, "bottleneck": 16, "class_tokens": 2, "omega_tokens": 1,
            "interval_tokens": 1, "time_tokens": 1}  # fmt: skip
    small = {"steps": 60, "batch": 16, "parts": 2, "log_every": 1, "save_every": 15, "ema_half_life": (0.1, 0.02)}
    changes: dict[str, Any] = {"name": "imagenet_pmf_rehearsal", "perceptual": "no"} | small
    return override(imagenet_pmf("b16"), changes | {"net": tiny})


def imagenet_rehearsal() -> Recipe:
    """Full scale in miniature: every part of the ImageNet pipeline on a tiny network, in a minute."""
    net = DiTConfig(
        width=32, depth=2, heads=2, patch=8, v_depth=1, guided="interval",
        class_tokens=2, omega_tokens=1, interval_tokens=1, time_tokens=1,
    )  # fmt: skip
    return override(
        imagenet_imf("b2"),
        {
            "name": "imagenet_rehearsal",
            "net": net,
            "normalisation": "fitted",
            "steps": 60,
            "batch": 16,
            "parts": 2,
            "lr": 5e-3,
            "warmup": 4,
            "ema": 0.9,
            "more_emas": (0.5,),
            "log_every": 1,
            "save_every": 15,
        },
    )


UNGUIDED = [row for row, changes in ABLATION.items() if "guidance" not in changes]
SERIES: tuple[tuple[Callable[[str], Recipe], list[str]], ...] = (
    (imagenet_imf, list(SIZES)),
    (imagenet_mf, list(MF_GUIDANCE)),
    (imagenet_ablation, list(ABLATION)),
    (imagenet_unguided, UNGUIDED),
    (imagenet_pmf, list(PMF_SIZES)),
)
IMAGENET: dict[str, Callable[[], Recipe]] = {
    f"{series.__name__}_{key}": update_wrapper(partial(series, key), series) for series, keys in SERIES for key in keys
}
"""one recipe for each size or row of every series"""
