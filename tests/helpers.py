"""What several tests need: networks without a zero anywhere, draws, small recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from imf_lite.conditions import Cond
from imf_lite.configs import AdaLNConfig, DiTConfig, DrawConfig, MLPConfig
from imf_lite.draws import Draws, draw
from imf_lite.networks import Network, build
from imf_lite.pretrained import weights
from imf_lite.recipes import Recipe, get
from imf_lite.system.rng import generator

CONFIGS = {
    "mlp": MLPConfig(width=32, depth=3),
    "dit": DiTConfig(width=24, depth=3, heads=2, class_tokens=2, time_tokens=2, omega_tokens=1, interval_tokens=1),
    "adaln": AdaLNConfig(width=24, depth=3, heads=2),
    "mlp_x": MLPConfig(width=32, depth=3, predict="x"),
    "pmf": DiTConfig(
        width=24, depth=3, heads=2, class_tokens=2, time_tokens=2, omega_tokens=1, interval_tokens=1, predict="x",
        bottleneck=3, grid_positions=True,
    ),
}  # fmt: skip
SHAPE = (1, 4, 4)


def network(
    kind: str, v_depth: int | None = None, dtype=torch.float32, num_classes: int | None = 10, guided="no", **changes
) -> Network:
    """A small network whose weights are nowhere zero: at zero gates every slope is 0 and any tangent passes."""
    config = replace(CONFIGS[kind], v_depth=v_depth, guided=guided, **changes)
    net = build(config, SHAPE, num_classes, seed=1)
    g = torch.Generator().manual_seed(2)
    for p in net.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=g)
    return net.to(dtype)


def drawn(batch: int = 8, dtype=torch.float32, shape=SHAPE, guided="no", seed: int = 3, **config) -> Draws:
    """Fixed draws for random data."""
    g = generator("cpu", seed)
    x = torch.randn(batch, *shape, generator=g)
    y = torch.randint(0, 10, (batch,), generator=g)
    draws = draw(x, y, DrawConfig(**config), g, guided)
    floats = {k: v.to(dtype) for k, v in draws._asdict().items() if torch.is_tensor(v) and v.is_floating_point()}
    return draws._replace(**floats)


def gradients(objective, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and every parameter's gradient; all of them must be there."""
    objective.zero_grad()
    loss = objective(draws).loss
    loss.backward()
    return loss.detach(), {k: p.grad.clone() for k, p in objective.net.named_parameters()}


def tiny(name: str = "digits_imf", **changes) -> Recipe:
    """A recipe small enough for a test."""
    small = {"steps": 6, "batch": 16, "save_every": 3, "net.width": 16, "net.depth": 2}
    if get(name).net.v_depth is not None:
        small["net.v_depth"] = 1
    return get(name, **(small | changes))


def point(draws: Draws, seed: int = 0) -> tuple[Tensor, Cond]:
    """z_t and conditions of some draws."""
    return (1 - draws.t) * draws.x + draws.t * draws.e, Cond(draws.y, draws.omega, draws.t_min, draws.t_max)


def save_network(path: Path, seed: int, spoil: bool = False) -> Path:
    """A small guided network on digits, as files; spoil: with one weight that is not a number."""
    net = build(MLPConfig(width=16, depth=2, guided="interval"), (1, 8, 8), 10, seed)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    if spoil:
        net.blocks[0].w1.weight.data[0, 0] = torch.nan
    weights.save_pretrained(net, path, {"recipe": {"data": "digits"}, "latents": None})
    return path
