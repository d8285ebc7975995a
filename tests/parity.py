"""Numbers recorded from the reference implementations of iMF and MF (tests/fixtures/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imf_lite.configs import AdaLNConfig, DiTConfig
from imf_lite.networks import Network, build
from imf_lite.pretrained import released

FIXTURES = Path(__file__).parent / "fixtures"
OF_MF = {
    "y_embedder.embedding_table": "y_embedder",
    "t_embedder": "conditioning.t_embedder",
    "h_embedder": "conditioning.h_embedder",
    "y_embedder": "conditioning.y_embedder",
    "adaLN_modulation.1": "modulation",
}


def ours(name: str, method: str = "imf") -> str:
    """The reference's name of a parameter, as we call it."""
    if method == "imf":
        return released.our_name(name)
    for old, new in OF_MF.items():
        name = name.replace(old, new)
    return name


def load(name: str, method: str = "imf") -> dict[str, Tensor]:
    """A recorded file; times also as (B, 1, 1, 1), named t4, r4, h4."""
    path = FIXTURES / method / f"{name}.npz"
    found = {k.removeprefix("draw/"): torch.tensor(v) for k, v in np.load(path).items()}
    return found | {f"{k}4": found[k].view(-1, 1, 1, 1) for k in ("t", "r", "h") if k in found}


def recorded(config, method: str) -> Network:
    """A network of 3 x 8 x 8 images and 10 classes with the recorded, nowhere-zero weights."""
    net = build(config, (3, 8, 8), 10)
    net.load_state_dict({ours(k, method): v for k, v in load("params", method).items()})
    return net


def imf_network() -> Network:
    """Width 40, 3 shared + 2 + 2 layers."""
    return recorded(DiTConfig(width=40, depth=5, heads=4, patch=2, v_depth=2, guided="interval"), "imf")


def mf_network() -> Network:
    """Width 40, 3 layers."""
    return recorded(AdaLNConfig(width=40, depth=3, heads=4, patch=2), "mf")


def error(found: Tensor, expected: Tensor) -> float:
    """max|found - expected| / max|expected|."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
