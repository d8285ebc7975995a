"""Runs on the 8 x 8 digits: a minute or two each on two CPU cores."""

from __future__ import annotations

from ..configs import Flexible, MLPConfig
from .recipe import Recipe, counterpart, override


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


def digits_alpha() -> Recipe:
    """alpha-Flow on the digits: MF's loss with a difference over half of the interval for du/dt, no JVP."""
    return override(digits_mf(), {"name": "digits_alpha", "derivative": "chord"})


def digits_split() -> Recipe:
    """SplitMeanFlow on the digits: the average over an interval is that of its two parts, no JVP. Plain L2: with the
    adaptive weight it agrees with itself before it has learnt anything (notebooks/family.ipynb)."""
    return override(digits_mf(), {"name": "digits_split", "derivative": "split", "p": 0.0})


def digits_fm() -> Recipe:
    """Flow matching on the digits: the multi-step model that one step is measured against."""
    return counterpart(digits_imf(), "fm")
