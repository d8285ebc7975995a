"""A run as data: everything that decides it, in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from ..configs import (
    NET_CONFIGS,
    Derivative,
    DrawConfig,
    Fixed,
    Flexible,
    Method,
    MLPConfig,
    NetConfig,
    Normalisation,
    Precision,
    check_fields,
)


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a run, except the hardware."""

    name: str
    """name of the recipe this came from"""
    method: Method
    """fm: flow matching; mf: MeanFlow; imf: improved MeanFlow"""
    data: str
    """data set, see imf_lite.data"""
    net: NetConfig = field(default_factory=MLPConfig)
    draws: DrawConfig = field(default_factory=DrawConfig)
    guidance: Fixed | Flexible | None = None
    """fixed: one scale, set for training; flexible: scale and interval are chosen when sampling; None: no guidance"""
    derivative: Derivative = "jvp"
    """for method mf: what takes the place of du/dt; all but jvp belong to MF's relatives"""
    derivative_share: float = 0.5
    """for mixed: the share of v_theta in the tangent; for chord: the share of the interval that the difference spans"""
    normalisation: Normalisation = "imf"
    """how latents are scaled; pixels are taken as they are"""
    p: float = 1.0
    """power of the adaptive weight: 0 is plain L2"""
    c: float = 0.01
    """constant of the adaptive weight"""
    steps: int = 2000
    """updates"""
    batch: int = 128
    """samples per update"""
    flip: bool = False
    """mirror each image left to right with probability 1/2; for pixels only"""
    perceptual: Literal["no", "eye", "lpips"] = "no"
    """distance of the denoised image to x that is added to the loss where t < 0.8 (pMF): none; in the feature maps of a
    small classifier of Fashion-MNIST; LPIPS (colour images, needs its two files)"""
    perceptual_weight: float = 0.4
    """weight of that distance, which has the adaptive weight of the loss, too"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw; or muon for the weights of linear layers and the table of classes, and AdamW for everything else, at the
    same learning rate (pMF)"""
    lr: float = 1e-4
    """learning rate, after warm-up"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay rates of AdamW's moments"""
    weight_decay: float = 0.0
    """decoupled weight decay"""
    clip: float | None = None
    """largest norm of the gradient, to which larger ones are scaled down; None: no clipping"""
    warmup: int = 0
    """updates over which the learning rate rises linearly from 0"""
    decay: Literal["constant", "linear"] = "constant"
    """schedule of the learning rate, besides the warm-up: linear falls from the first update to 0 after the last"""
    ema: float = 0.9999
    """decay of the running mean of the weights, which sampling uses"""
    more_emas: tuple[float, ...] = ()
    """decays of further running means of the weights, kept in the checkpoints"""
    ema_half_life: tuple[float, ...] = ()
    """in place of ema and more_emas: half-lives of the running means in thousands of images; at first a twentieth of
    the images seen so far (EDM, pMF)"""
    parts: int = 1
    """micro-batches per update; ranks share them, and a rank with several of them accumulates their gradients"""
    precision: Precision = "fp32"
    """of matrix products; tf32 affects CUDA only; in bf16 the slope stays fp32, the other forwards are bfloat16"""
    seed: int = 0
    """seed of the initial weights, data order and draws"""
    keep: int = 2
    """checkpoints kept"""
    log_every: int = 1
    """updates between two records"""
    save_every: int = 1000
    """updates between two checkpoints"""
    milestone_every: int = 0
    """updates between two averages that are kept for good, each a network for --weights; a multiple of save_every; 0:
    none are kept"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "batch", "parts", "keep", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; it must be at least 1.")
        if self.milestone_every % self.save_every:
            wanted = f"it must be a multiple of save_every = {self.save_every}"
            raise ValueError(f"milestone_every = {self.milestone_every}; {wanted}.")
        if any(c in self.name for c in "/\\") or self.name.startswith("."):
            raise ValueError(f"name = {self.name!r}; it names a folder: letters, digits, - and _, e.g. mine.")
        if self.p > 10 or self.seed >= 2**32:
            raise ValueError(f"p = {self.p}, seed = {self.seed}; p is at most 10, and the seed below 2^32.")
        for name in ("seed", "warmup", "p", "weight_decay", "milestone_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}; it must not be negative.")
        for name in ("lr", "c"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}; it must be positive.")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip = {self.clip}; it must be positive, or None.")
        if not all(0 <= decay < 1 for decay in (self.ema, *self.more_emas)):
            raise ValueError(f"ema = {self.ema}, {self.more_emas}; choose decays in [0, 1), e.g. 0.9999.")
        if not all(half_life > 0 for half_life in self.ema_half_life):
            raise ValueError(f"ema_half_life = {self.ema_half_life}; half-lives must be positive, e.g. 500.")
        if self.ema_half_life and self.more_emas:
            raise ValueError("ema_half_life takes the place of ema and more_emas: set more_emas to ().")
        if self.perceptual_weight <= 0:
            raise ValueError(f"perceptual_weight = {self.perceptual_weight}; it must be positive, or perceptual 'no'.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas}; choose decays in [0, 1), e.g. 0.9 0.95.")
        if self.batch % self.parts:
            raise ValueError(f"batch = {self.batch} does not fall into parts = {self.parts} of equal size.")
        rows, share = self.batch // self.parts, self.draws.p_r_neq_t
        if share and not round(rows * share):
            raise ValueError(
                f"batch = {self.batch} in parts = {self.parts}: at p_r_neq_t = {share:g} no row of a micro-batch of "
                f"{rows} has r < t, which is plain flow matching: choose fewer parts, or a larger batch."
            )
        if self.method != "imf" and self.net.v_depth is not None:
            raise ValueError(f"method {self.method!r} does not train a v-head: set net.v_depth to None.")
        if self.method == "fm" and self.draws.p_r_neq_t:
            raise ValueError("flow matching has r = t only: set draws.p_r_neq_t = 0.")
        if self.derivative != "jvp" and self.method != "mf":
            raise ValueError(f"derivative = {self.derivative!r} stands for du/dt in MF's loss: set method to 'mf'.")
        if not 0 <= self.derivative_share <= 1 or (self.derivative == "chord" and not self.derivative_share):
            raise ValueError(f"derivative_share = {self.derivative_share}; it is a share, of chord above 0, up to 1.")
        flexible = isinstance(self.guidance, Flexible)
        if flexible != (self.net.guided != "no"):
            raise ValueError(
                f"net.guided = {self.net.guided!r} with guidance = {self.guidance}: flexible guidance needs "
                "net.guided = 'omega' or 'interval', and nothing else does."
            )
        if flexible and self.method != "imf":
            raise ValueError(f"flexible guidance belongs to method 'imf', not {self.method!r}: use Fixed, or none.")
        if self.guidance and not self.draws.class_dropout:
            raise ValueError(
                "guidance needs a network trained without classes, too: set draws.class_dropout, e.g. 0.1."
            )

    def decays(self, images: float = float("inf")) -> tuple[float, ...]:
        """Decay of every running mean of the weights at an update after so many images; sampling uses the first."""
        half_lives = (min(1000 * thousands, 0.05 * images) for thousands in self.ema_half_life)
        return tuple(0.5 ** (self.batch / max(n, 1e-8)) for n in half_lives) or (self.ema, *self.more_emas)

    def to_json(self) -> str:
        """The recipe with every field resolved; from_json reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """The recipe that to_json wrote. Raises ValueError for unknown fields."""
        values = json.loads(text)
        config = NET_CONFIGS[values["net"]["kind"]]
        values["net"], values["draws"] = override(config(), values["net"]), override(DrawConfig(), values["draws"])
        if values["guidance"]:
            kind = {"fixed": Fixed, "flexible": Flexible}[values["guidance"]["kind"]]
            values["guidance"] = override(kind(), values["guidance"])
        values |= {k: tuple(values[k]) for k in ("betas", "more_emas", "ema_half_life") if k in values}
        return override(Recipe(name="", method="imf", data=""), values)


def counterpart(recipe: Recipe, method: Method, guidance: Fixed | None = None) -> Recipe:
    """The same run by another method: same u-path, initial weights, data order and draws.

    Only iMF's loss takes guidance as an input; for the others, `guidance` may give a fixed scale instead.
    """
    changes: dict[str, Any] = {"method": method, "name": recipe.name.replace(recipe.method, method)}
    if method != "imf":
        changes |= {"net.v_depth": None, "net.guided": "no", "guidance": guidance}
    if method == "fm":
        changes["draws.p_r_neq_t"] = 0.0
    return override(recipe, changes)


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
