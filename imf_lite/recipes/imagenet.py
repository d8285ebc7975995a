"""Recipes: runs by name. One function a run, returning a Recipe; any field can be overridden.

>>> get("digits_imf", steps=100, **{"net.width": 64})
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from .draws import DrawConfig
from .guidance import Fixed, Flexible
from .networks import PRESETS, AdaLNConfig, DiTConfig, MLPConfig
from .objective import Method
from .recipe import Recipe, nearest, override


def digits_imf() -> Recipe:
    """Improved MeanFlow with a v-head on 8 x 8 digits: about a minute on two CPU cores."""
    return Recipe(
        name="digits_imf",
        method="imf",
        data="digits",
        net=MLPConfig(width=256, depth=6, v_depth=2),
        lr=2e-3,
        decay="linear",
        ema=0.995,
    )


def digits_imf_boundary() -> Recipe:
    """Improved MeanFlow without extra parameters: v_theta is the boundary u(z, t, t)."""
    return override(digits_imf(), {"name": "digits_imf_boundary", "net.v_depth": None})


def digits_guided() -> Recipe:
    """Improved MeanFlow that takes guidance scale and interval as inputs: two minutes on two CPU cores."""
    guided = {"net.guided": "interval", "guidance": Flexible(), "draws.class_dropout": 0.1}
    # wider times: one guided step, from t = 1 to r = 0, must not lie at the edge of what was trained
    return override(digits_imf(), {"name": "digits_guided", "draws.p_std": 1.6} | guided)


def digits_mf() -> Recipe:
    """MeanFlow on the digits, all else as digits_imf: p_r_neq_t is 0.5, not MF's own 0.25."""
    return counterpart(digits_imf(), "mf")


def digits_fm() -> Recipe:
    """Flow matching on the digits: the multi-step model that one step is measured against."""
    return counterpart(digits_imf(), "fm")


def fashion_imf() -> Recipe:
    """Improved MeanFlow on Fashion-MNIST's latents, guidance as an input: about an hour on two CPU cores."""
    tokens = {"class_tokens": 4, "omega_tokens": 2, "interval_tokens": 1, "time_tokens": 2}
    return Recipe(
        name="fashion_imf",
        method="imf",
        data="fashion",
        net=DiTConfig(width=96, depth=6, heads=3, v_depth=3, guided="interval", **tokens),
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


def counterpart(recipe: Recipe, method: Method, guidance: Fixed | None = None) -> Recipe:
    """The same run by another method: same u-path, initial weights, data order and draws.

    Without iMF's loss there is no guidance as an input; a fixed one may take its place.
    """
    changes: dict[str, Any] = {"method": method, "name": recipe.name.replace(recipe.method, method)}
    if method != "imf":
        changes |= {"net.v_depth": None, "net.guided": "no", "guidance": guidance}
    if method == "fm":
        changes["draws.p_r_neq_t"] = 0.0
    return override(recipe, changes)


IMAGES = 1_281_167
"""in ImageNet's training split"""
SIZES = ("b2", "m2", "l2", "xl2")
MF_GUIDANCE = {
    # B/4 is MF's released configuration, L/2 and XL/2 as reported by ports; M/2's is not published, B/2's is taken
    "b4": Fixed(omega=1.0, kappa=0.5),
    "b2": Fixed(omega=1.0, kappa=0.5),
    "m2": Fixed(omega=1.0, kappa=0.5),
    "l2": Fixed(omega=0.2, kappa=0.92, t_end=0.8),
    "xl2": Fixed(omega=0.2, kappa=0.92, t_end=0.75),
}
ABLATION = {
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
    """Updates in some epochs of ImageNet, of whole batches."""
    return count * (IMAGES // batch)


def imagenet_imf(size: str) -> Recipe:
    """Improved MeanFlow at ImageNet-256 as published: 640 epochs, batch 1,024."""
    parts = {"b2": 8, "m2": 16, "l2": 32, "xl2": 32}[size]  # about 80 GB a GPU
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


def imagenet_rehearsal() -> Recipe:
    """Full scale in miniature: the ImageNet pipeline's every part on a tiny network, in a minute."""
    tokens = {"class_tokens": 2, "omega_tokens": 1, "interval_tokens": 1, "time_tokens": 1}
    return override(
        imagenet_imf("b2"),
        {
            "name": "imagenet_rehearsal",
            "net": DiTConfig(width=32, depth=2, heads=2, patch=8, v_depth=1, guided="interval", **tokens),
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


RECIPES: dict[str, Callable[[], Recipe]] = {
    f.__name__: f
    for f in (
        digits_imf,
        digits_imf_boundary,
        digits_guided,
        digits_mf,
        digits_fm,
        fashion_imf,
        fashion_mf,
        fashion_imf_plain,
        fashion_mf_plain,
        fashion_fm_plain,
        imagenet_rehearsal,
        imagenet_mf_b4_short,
    )
}
UNGUIDED = [row for row, changes in ABLATION.items() if "guidance" not in changes]
for make, keys in (
    (imagenet_imf, SIZES),
    (imagenet_mf, MF_GUIDANCE),
    (imagenet_ablation, ABLATION),
    (imagenet_unguided, UNGUIDED),
):
    RECIPES |= {f"{make.__name__}_{key}": update_wrapper(partial(make, key), make) for key in keys}


def get(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with fields overridden. Raises ValueError for an unknown name or field."""
    if name not in RECIPES:
        raise ValueError(f"no recipe named {name!r}{nearest(name, list(RECIPES))}.")
    return override(RECIPES[name](), changes)
