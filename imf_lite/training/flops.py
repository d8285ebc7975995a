"""Floating-point operations of an update, and the peak rate of known devices."""

from __future__ import annotations

import re
from functools import cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .. import guidance, relatives
from ..draws import Draws, draw
from ..networks import build
from ..objective import Objective
from ..recipes import Recipe, override

PEAK = {
    # dense matrix products, operations per second (NVIDIA's data sheets): fp32, tf32, bf16
    "V100": {"fp32": 15.7e12},
    "A100": {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12},
    "L40S": {"fp32": 91.6e12, "tf32": 183e12, "bf16": 362e12},
    "H100": {"fp32": 67e12, "tf32": 494e12, "bf16": 989e12},
    "H100 PCIe": {"fp32": 51e12, "tf32": 378e12, "bf16": 756e12},
    "H200": {"fp32": 67e12, "tf32": 494e12, "bf16": 989e12},
    "B200": {"fp32": 80e12, "tf32": 1100e12, "bf16": 2250e12},
}
ROWS = 20  # of the batch that is counted: shares of r = t rows come out whole


@cache
def per_image(recipe: Recipe, shape: tuple[int, ...], num_classes: int | None) -> float:
    """Operations of an update per training image, guidance, slope and backward included (two for a multiply-add), but
    not a perceptual term.

    Every block costs the same, so networks of one and two blocks are counted, and the others added.
    """
    branch = recipe.net.v_depth or 0
    shared = recipe.net.depth - branch
    if shared < 2:
        return counted(recipe, shape, num_classes)

    def of(shared: int, branch: int) -> float:
        v_depth = None if recipe.net.v_depth is None else branch
        small = override(recipe, {"net": {"depth": shared + branch, "v_depth": v_depth}})
        return counted(small, shape, num_classes)

    own = min(branch, 1)
    total = of(1, own) + (shared - 1) * (of(2, own) - of(1, own))
    return total + (branch - 1) * (of(1, 2) - of(1, 1)) if branch > 1 else total


@cache
def counted(recipe: Recipe, shape: tuple[int, ...], num_classes: int | None) -> float:
    """The same, of all blocks, by FlopCounterMode on the meta device: nothing is computed."""
    with torch.device("meta"):
        net = build(recipe.net, shape, num_classes)
    rule = guidance.rule(recipe.method, recipe.guidance)
    slope = relatives.slope(recipe.derivative, recipe.derivative_share)
    objective = Objective(net, recipe.method, recipe.p, recipe.c, rule, slope)
    y = None if num_classes is None else torch.zeros(ROWS, dtype=torch.int64)
    drawn = draw(torch.zeros(ROWS, *shape), y, recipe.draws, torch.Generator().manual_seed(0), recipe.net.guided)
    drawn = Draws._make(v.to("meta") if torch.is_tensor(v) else v for v in drawn)
    # written-out attention everywhere: the counter does not count every fused kernel
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective(drawn).loss.backward()
    return counter.get_total_flops() / ROWS


def peak(device_name: str, precision: str) -> float | None:
    """A device's peak by name, e.g. "NVIDIA H100 80GB HBM3"; None where it is not known."""
    words = re.findall(r"[A-Za-z0-9]+", device_name)
    kind = next((name for name in PEAK if name.split()[0] in words), None)
    if kind == "H100" and "HBM3" not in words:
        kind = "H100 PCIe" if "PCIe" in words else None  # NVL has other numbers again
    return PEAK[kind].get(precision) if kind else None
