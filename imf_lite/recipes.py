"""Recipes: a run as data. One function a run, returning a frozen dataclass; any field can be overridden.

>>> get("digits_imf", steps=100, **{"net.width": 64})
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from .draws import DrawConfig
from .guidance import Fixed, Flexible
from .latents import Normalisation
from .networks import KINDS, AdaLNConfig, DiTConfig, MLPConfig, NetConfig
from .objective import Method


@dataclass(frozen=True)
class Recipe:
    """All that decides a run, but the machine."""

    name: str
    """name of the recipe this came from"""
    method: Method
    """fm: flow matching; mf: MeanFlow; imf: improved MeanFlow"""
    data: str
    """data set, see imf_lite.data"""
    net: NetConfig = field(default_factory=MLPConfig)
    draws: DrawConfig = field(default_factory=DrawConfig)
    guidance: Fixed | Flexible | None = None
    """fixed: one scale, learnt; flexible: a scale and interval for the asking; None: no guidance"""
    normalisation: Normalisation = "imf"
    """how latents are scaled; pixels are taken as they are"""
    p: float = 1.0
    """power of the adaptive weight: 0 is plain L2"""
    c: float = 0.01
    """constant of the adaptive weight"""
    steps: int = 2000
    """updates"""
    batch: int = 128
    """samples an update"""
    lr: float = 1e-4
    """learning rate of AdamW, after warm-up"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay rates of AdamW's moments"""
    weight_decay: float = 0.0
    """decoupled weight decay"""
    warmup: int = 0
    """updates over which the learning rate rises linearly from 0"""
    decay: Literal["constant", "linear"] = "constant"
    """learning rate besides the warm-up: linear falls from the first update to 0 after the last"""
    ema: float = 0.9999
    """decay of the running mean of the weights, which sampling uses"""
    seed: int = 0
    """of weights, data order and draws"""
    log_every: int = 1
    """updates between two records"""
    save_every: int = 1000
    """updates between two checkpoints"""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema}; choose a decay in [0, 1), e.g. 0.9999.")
        if self.lr <= 0 or self.warmup < 0 or self.p < 0 or self.c <= 0:
            raise ValueError(f"lr = {self.lr} and c = {self.c} must be positive, warmup and p not negative.")
        if self.method not in ("fm", "mf", "imf"):
            raise ValueError(f"method = {self.method!r}; choose 'fm', 'mf' or 'imf'.")
        if self.method != "imf" and self.net.v_depth is not None:
            raise ValueError(f"method {self.method!r} does not train a v-head: set net.v_depth to None.")
        if self.method == "fm" and self.draws.p_r_neq_t:
            raise ValueError("flow matching knows r = t only: set draws.p_r_neq_t = 0.")
        flexible = isinstance(self.guidance, Flexible)
        if flexible != (self.net.guided != "no"):
            raise ValueError(
                f"net.guided = {self.net.guided!r} with guidance = {self.guidance}: flexible guidance needs "
                "net.guided = 'omega' or 'interval', and nothing else does."
            )
        if flexible and self.method != "imf":
            raise ValueError(f"flexible guidance belongs to method 'imf', not {self.method!r}: use Fixed, or none.")
        if self.guidance and not self.draws.class_dropout:
            raise ValueError("guidance needs a network that knows 'no class': set draws.class_dropout, e.g. 0.1.")

    def to_json(self) -> str:
        """The recipe with every field resolved; from_json reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Raises ValueError for unknown fields."""
        values = json.loads(text)
        _, config = KINDS[values["net"]["kind"]]
        values["net"], values["draws"] = override(config(), values["net"]), override(DrawConfig(), values["draws"])
        if values["guidance"]:
            kind = {"fixed": Fixed, "flexible": Flexible}[values["guidance"]["kind"]]
            values["guidance"] = override(kind(), values["guidance"])
        values["betas"] = tuple(values["betas"])
        return override(Recipe(name="", method="imf", data=""), values)


def override(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of a dataclass with some fields changed; "net.width" or {"net": {"width": ...}} reach inside.

    Raises ValueError for an unknown field, naming the nearest known one.
    """
    new: dict[str, Any] = {}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        known = [f.name for f in fields(config)]
        if head not in known:
            raise ValueError(f"{type(config).__name__} has no field {head!r}{nearest(head, known)}.")
        current = new.get(head, getattr(config, head))
        inside = {rest: value} if rest else value
        new[head] = override(current, inside) if is_dataclass(current) and isinstance(inside, dict) else value
    return dataclasses.replace(config, **new)


def nearest(name: str, known: list[str]) -> str:
    """'; did you mean ...? Known: ...', for error messages."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" Known: {', '.join(known)}"


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


RECIPES = {
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
    )
}


def get(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with fields overridden. Raises ValueError for an unknown name or field."""
    if name not in RECIPES:
        raise ValueError(f"no recipe named {name!r}{nearest(name, list(RECIPES))}.")
    return override(RECIPES[name](), changes)
