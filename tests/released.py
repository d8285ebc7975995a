"""Files of trained networks in the layout of the authors' PyTorch code (tests/fixtures/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from parity import FIXTURES
from torch import Tensor

from imf_lite.conditions import Cond

FOLDER = FIXTURES / "imf_released"
TINY = FOLDER / "iMF-tiny-2.pth"
AUTHORS = {k: torch.load(FOLDER / f"{k}.pt", weights_only=True) for k in ("inputs", "outputs")}
"""what the authors' PyTorch code was given, and what it made of it with the weights of TINY"""
SIZES = {"B": (768, 12, 12), "M": (768, 24, 12), "L": (1024, 32, 16), "XL": (1024, 48, 16)}
"""width, depth and heads of the published networks"""


PMF = FIXTURES / "pmf_released"
TINY_PMF = PMF / "pMF-tiny-4.pth"
AUTHORS_PMF = {k: torch.load(PMF / f"{k}.pt", weights_only=True) for k in ("inputs", "outputs")}


def of_authors(given: dict[str, Tensor] = AUTHORS["inputs"]) -> tuple[dict[str, Tensor], Cond]:
    """The recorded inputs of u, with times as (B, 1, 1, 1)."""
    times = {k: given[k].view(-1, 1, 1, 1) for k in ("t", "h")}
    return given | times, Cond(given["y"], given["omega"], given["t_min"], given["t_max"])


def names_of(width: int, depth: int, heads: int) -> dict[str, list[int]]:
    """Names and shapes of a published file: B/2's as recorded, another depth by its rule (8 blocks in u_heads)."""
    b = json.loads((FOLDER / "iMF-B-2.names.json").read_text())
    swap = {768: width, 2048: int(8 * width / 3), 64: width // heads}
    names = {name: [swap.get(n, n) for n in shape] for name, shape in b.items()}
    block = {name: shape for name, shape in names.items() if "shared_blocks.0." in name}
    for k in range(4, depth - 8):
        names |= {name.replace("blocks.0.", f"blocks.{k}."): shape for name, shape in block.items()}
    return names


def save_narrow_b2(path: Path, width: int = 48, heads: int = 6) -> Path:
    """A file with B/2's recorded names, each tensor narrower and random: for commands that need one of that name."""
    g = torch.Generator().manual_seed(0)
    torch.save({k: 0.1 * torch.randn(shape, generator=g) for k, shape in names_of(width, 12, heads).items()}, path)
    return path


def save_narrow_pmf(path: Path, width: int = 48, heads: int = 6) -> Path:
    """The same with the recorded names of pMF-B/16, on 256 x 256 pixels, whose 768 numbers a patch remain."""
    names = json.loads((PMF / "pMF-B-16.names.json").read_text())
    swap, g = {768: width, 2048: int(8 * width / 3), 64: width // heads}, torch.Generator().manual_seed(0)
    shapes = {k: [swap.get(n, n) for n in shape] for k, shape in names.items() if "rope_freqs" not in k}
    final = "net.u_final_layer.linear._flax_linear."
    shapes |= {f"{final}weight": [768, width], f"{final}bias": [768]}
    torch.save({k: 0.1 * torch.randn(shape, generator=g) for k, shape in shapes.items()}, path)
    return path
