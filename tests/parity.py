"""Numbers recorded from the reference implementation of iMF (tests/fixtures/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imf_lite.networks import DiT, DiTConfig, build

FIXTURES = Path(__file__).parent / "fixtures" / "imf"
RENAMED = {
    "._flax_linear": "",
    "._flax_embedding": "",
    "cfg_t_start_embedder": "t_min_embedder",
    "cfg_t_end_embedder": "t_max_embedder",
    "y_embedder.embedding_table": "y_embedder",
}


def ours(name: str) -> str:
    """The released name of a parameter, as we call it."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def load(name: str) -> dict[str, Tensor]:
    """A recorded file; times also as (B, 1, 1, 1), named t4, r4, h4."""
    found = {k.removeprefix("draw/"): torch.tensor(v) for k, v in np.load(FIXTURES / f"{name}.npz").items()}
    return found | {f"{k}4": found[k].view(-1, 1, 1, 1) for k in ("t", "r", "h") if k in found}


def imf_network() -> DiT:
    """The recorded network: 3 x 8 x 8, width 40, 3 shared + 2 + 2 layers, nowhere-zero weights."""
    net = build(DiTConfig(width=40, depth=5, heads=4, patch=2, v_depth=2, guided="interval"), (3, 8, 8), 10)
    net.load_state_dict({ours(k): v for k, v in load("params").items()})
    return net


def error(found: Tensor, expected: Tensor) -> float:
    """max|found - expected| / max|expected|."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
