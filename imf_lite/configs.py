"""Every choice that a run is made of, as frozen dataclasses: networks, draws, guidance, and the published sizes.

Nothing here imports torch, so the command line can list, complete and check configurations at once.
"""

from __future__ import annotations

import math
import types
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Method = Literal["fm", "mf", "imf"]
"""flow matching, MeanFlow, improved MeanFlow"""

Derivative = Literal["jvp", "mixed", "chord", "split"]
"""what stands for du/dt in MF's loss, see relatives: MF's own JVP; its tangent mixed with v_theta; a difference over
part of the interval (alpha-Flow); the mean of the interval's two parts (SplitMeanFlow)"""

Precision = Literal["fp32", "tf32", "bf16"]
"""of matrix products; tf32 affects CUDA only; in bf16 the slope stays fp32, the other forwards are bfloat16"""

Compile = Literal["no", "auto", "blocks", "whole"]
"""compile the blocks of the network, or the whole loss; auto: whichever pays in a run of that length"""
Guided = Literal["no", "omega", "interval"]
"""which guidance a network takes as input: none; omega; or omega and the interval [t_min, t_max]"""

Predict = Literal["u", "x"]
"""what the last layers give: u itself, or the denoised image x from which u = (z_t - x) / t follows (pixel MeanFlow)"""

Normalisation = Literal["imf", "mf", "fitted"]
"""how latents are scaled: iMF's constants per channel, Stable Diffusion's factor (MF), or fitted to the data"""

T_CLIP = 0.05
"""x-prediction divides by max(t, T_CLIP): z_t - x and t both vanish as t -> 0 (pMF's reference code)"""

OMEGA_MAX = 8.0
"""guidance scales are drawn from [1, OMEGA_MAX] in training (iMF, appendix A)"""


def check_fields(config: Any) -> None:
    """Raise ValueError for a field of the wrong type, a word that is not a choice, or a number that is not finite."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if problem := mismatch(value, kind):
            raise ValueError(f"{name} = {value!r}; {problem}.")


def mismatch(value: Any, kind: Any) -> str | None:
    """What is wrong with a value of a declared type, or None."""
    if get_origin(kind) is Literal:
        return None if value in get_args(kind) else f"choose {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) in (Union, types.UnionType):
        problems = [mismatch(value, k) for k in get_args(kind)]
        return None if None in problems else problems[0]
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        inner = (inner[0],) * len(value) if isinstance(value, tuple) and inner[-1:] == (...,) else inner
        if not isinstance(value, tuple) or len(value) != len(inner):
            return f"it must be a tuple of {len(inner)} numbers"
        return next(filter(None, map(mismatch, value, inner)), None)
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return None if number and math.isfinite(value) else "it must be a finite number"
    if kind is int:
        return None if isinstance(value, int) and not isinstance(value, bool) else "it must be a whole number"
    if is_dataclass(kind) or kind in (str, bool, type(None)):
        return None if isinstance(value, kind) else f"it must be a {kind.__name__}"
    return None


def check_sizes(net: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError for a size below 1, or a v-branch deeper than the network."""
    for name in names:
        if getattr(net, name) < 1:
            raise ValueError(f"net.{name} = {getattr(net, name)}; it must be at least 1.")
    if net.v_depth is not None and not 0 <= net.v_depth <= net.depth:
        raise ValueError(f"v_depth = {net.v_depth}; it counts blocks of the {net.depth}: 0 to {net.depth}.")
    if net.noise_scale <= 0:
        raise ValueError(f"net.noise_scale = {net.noise_scale}; a standard deviation must be positive.")


@dataclass(frozen=True)
class MLPConfig:
    """A residual MLP over the flattened sample."""

    kind: Literal["mlp"] = "mlp"
    width: int = 256
    """width of the residual stream"""
    depth: int = 6
    """residual blocks from input to u"""
    time_scale: float = 30.0
    """largest frequency, in radians, in the embeddings of t, t - r and the guidance"""
    guided: Guided = "no"
    """which guidance is an input: omega; or, with interval, omega, t_min and t_max"""
    v_depth: int | None = None
    """blocks of the v-branch, which leaves the u-path that many blocks before its end; None: no v-head"""
    predict: Predict = "u"
    """what the last layers give: u, or the denoised image, from which u is computed (pixel MeanFlow)"""
    noise_scale: float = 1.0
    """standard deviation of the noise at t = 1; pMF's larger networks and images take 2 or 4"""

    def __post_init__(self) -> None:
        check_fields(self)
        check_sizes(self, ("width", "depth"))
        if self.time_scale <= 0:
            raise ValueError(f"net.time_scale = {self.time_scale}; it must be positive.")


@dataclass(frozen=True)
class TransformerConfig:
    """What both transformers have in common; the defaults are the size B/2."""

    width: int = 768
    """width of a token"""
    depth: int = 12
    """blocks from input to u"""
    heads: int = 12
    """attention heads"""
    patch: int = 2
    """side of a patch"""
    v_depth: int | None = None
    """blocks of the v-branch, which leaves the u-path that many blocks before its end; None: no v-head"""
    guided: Guided = "no"
    """which guidance is an input: omega; or, with interval, omega, t_min and t_max"""
    predict: Predict = "u"
    """what the last layers give: u, or the denoised image, from which u is computed (pixel MeanFlow)"""
    noise_scale: float = 1.0
    """standard deviation of the noise at t = 1; pMF's larger images take 2 or 4"""

    def __post_init__(self) -> None:
        check_fields(self)
        check_sizes(self, ("width", "depth", "heads", "patch"))
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.heads} heads: each head needs an even width, and all of them the whole."
            )


@dataclass(frozen=True)
class DiTConfig(TransformerConfig):
    """The in-context DiT; the defaults are iMF-B/2, whose v-branch is 8 blocks deep (iMF, appendix A)."""

    kind: Literal["dit"] = "dit"
    class_tokens: int = 8
    omega_tokens: int = 4
    interval_tokens: int = 2
    """tokens each for t_min and t_max"""
    time_tokens: int = 4
    t_input: bool = False
    """the time tokens know t besides h = t - r, as adaLN-zero does; in iMF's network h is the only time"""
    modern: bool = True
    """SwiGLU, RMSNorm, rotary positions, no biases, norms on q and k, and their initial weights; else those of DiT, for
    the ablation (the norm before the last layer stays RMSNorm)"""
    bottleneck: int | None = None
    """channels to which a patch is reduced before it is embedded (pMF); None: it is embedded directly"""
    grid_positions: bool = False
    """a learnt position for every token, and rotary positions of row and column on the patch tokens alone (pMF); else
    rotary positions along the sequence of all tokens (iMF)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, ("class_tokens", "omega_tokens", "interval_tokens", "time_tokens"))
        if self.bottleneck is not None and self.bottleneck < 1:
            raise ValueError(f"net.bottleneck = {self.bottleneck}; it must be at least 1, or None.")
        if self.grid_positions and not self.modern:
            raise ValueError("net.grid_positions are rotary: they need net.modern.")
        if self.grid_positions and self.width // self.heads % 4:
            raise ValueError(
                f"width {self.width} over {self.heads} heads: rotary positions of row and column take a multiple of 4 "
                "for each head."
            )


@dataclass(frozen=True)
class AdaLNConfig(TransformerConfig):
    """The adaLN-zero DiT; the defaults are MF's B/2. v-branch and guidance inputs are for iMF's ablation."""

    kind: Literal["adaln"] = "adaln"


NetConfig = MLPConfig | DiTConfig | AdaLNConfig
NET_CONFIGS: dict[str, type[NetConfig]] = {"mlp": MLPConfig, "dit": DiTConfig, "adaln": AdaLNConfig}


@dataclass(frozen=True)
class DrawConfig:
    """How times, dropped labels and guidance are drawn (MF appendix A, iMF appendix A)."""

    times: Literal["logit_normal", "uniform"] = "logit_normal"
    """distribution of the two times, of which the larger is t and the smaller r"""
    p_mean: float = -0.4
    """mean of the logit-normal, before the sigmoid"""
    p_std: float = 1.0
    """standard deviation of the logit-normal, before the sigmoid"""
    uniform_share: float = 0.0
    """expected share of rows whose two times are uniform instead, chosen at random (pMF's tr_uniform: 0.1)"""
    equal_t: Literal["larger", "first"] = "larger"
    """time of the rows with r = t: the larger of their two (iMF's reference code), or the first (pMF's)"""
    p_r_neq_t: float = 0.5
    """share of rows with r < t: 0.5 in iMF, 0.25 in MF, 0 is flow matching"""
    r_zero: bool = False
    """r = 0 on the rows with r < t: consistency training"""
    class_dropout: float = 0.0
    """expected share of rows that lose their label"""
    dropout: Literal["first", "independent"] = "first"
    """which rows lose it: the first of the batch, as in the reference code (mostly rows with r = t, so that "no class"
    is learnt as a velocity, not for sampling in one step), or each row independently"""
    omega_beta: float = 1.0
    """power of the density of omega, proportional to omega^-beta on [1, 8]; larger means weaker guidance"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("uniform_share", "p_r_neq_t", "class_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"draws.{name} = {getattr(self, name)}; it is a share: choose a value in [0, 1].")
        if not abs(self.p_mean) <= 10:
            raise ValueError(f"draws.p_mean = {self.p_mean}; beyond -10 and 10 all times are 0 or 1, and all r = t.")
        if 0 < self.p_std < 1e-3:
            raise ValueError(f"draws.p_std = {self.p_std}; below 0.001 all times are the same, and all r = t.")
        if self.p_std <= 0:
            raise ValueError(f"draws.p_std = {self.p_std}; a standard deviation must be positive.")


@dataclass(frozen=True)
class Fixed:
    """MF's guidance, one scale set for training; its effective scale is omega / (1 - kappa) (MF, section 4.2)."""

    omega: float = 1.0
    """weight of the conditional velocity e - x"""
    kappa: float = 0.0
    """weight of the predicted velocity of the class, in [0, 1)"""
    t_start: float = 0.0
    t_end: float = 1.0
    """guidance acts where t_start <= t <= t_end"""
    kind: Literal["fixed"] = "fixed"

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.omega > 0 and 0 <= self.kappa < 1 and 0 <= self.t_start <= self.t_end <= 1):
            raise ValueError(f"{self}: omega must be positive, kappa in [0, 1), 0 <= t_start <= t_end <= 1.")


@dataclass(frozen=True)
class Flexible:
    """iMF's guidance: omega and its interval are inputs, drawn at random in training (iMF, section 4.2)."""

    v_u_omega: Literal["one", "same"] = "one"
    """the omega that v_u is given: 1 in the released code, that of v_c in the paper's algorithm"""
    kind: Literal["flexible"] = "flexible"

    def __post_init__(self) -> None:
        check_fields(self)


def mf_net(depth: int, width: int, heads: int, patch: int = 2) -> AdaLNConfig:
    """MF's transformer of a size (MF, table 4)."""
    return AdaLNConfig(width=width, depth=depth, heads=heads, patch=patch)


def imf_net(depth: int, width: int, heads: int, v_depth: int | None = 8) -> DiTConfig:
    """iMF's transformer of a size, guided, with the v-branch that training needs (iMF, appendix A)."""
    return DiTConfig(width=width, depth=depth, heads=heads, v_depth=v_depth, guided="interval")


def pmf_net(depth: int, width: int, heads: int, noise_scale: float = 1.0) -> DiTConfig:
    """pMF's transformer of a size on pixels in patches of 16: iMF's, which predicts the image (arXiv 2601.22158)."""
    return DiTConfig(
        width=width, depth=depth, heads=heads, patch=16, v_depth=8, guided="interval", predict="x",
        noise_scale=noise_scale, bottleneck=256 if width > 1024 else 128, grid_positions=True,
    )  # fmt: skip


PRESETS: dict[str, AdaLNConfig | DiTConfig] = {
    "mf_tiny": mf_net(4, 64, 4),
    "mf_s4": mf_net(12, 384, 6, 4),
    "mf_b4": mf_net(12, 768, 12, 4),
    "mf_b2": mf_net(12, 768, 12),
    "mf_m2": mf_net(16, 1024, 16),
    "mf_l2": mf_net(24, 1024, 16),
    "mf_xl2": mf_net(28, 1152, 16),
    "imf_tiny": imf_net(4, 64, 4, v_depth=2),
    "imf_b2": imf_net(12, 768, 12),
    "imf_m2": imf_net(24, 768, 12),
    "imf_l2": imf_net(32, 1024, 16),
    "imf_xl2": imf_net(48, 1024, 16),
    "pmf_b16": pmf_net(16, 768, 12),
    "pmf_l16": pmf_net(32, 1024, 16),
    "pmf_h16": pmf_net(48, 1280, 16, noise_scale=2.0),
}
"""networks by name: the published sizes, on 4 x 32 x 32 latents (pmf: 3 x 256 x 256 pixels) with 1,000 classes, and
tiny ones for a CPU"""
