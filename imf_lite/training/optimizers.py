"""The optimisers of a run, called and stored as one: AdamW, or Muon for matrices and AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..recipes import Recipe

MUON = {"momentum_buffer"}
"""what Muon keeps for a parameter"""


class Optimizers:
    """Several optimisers, each of some parameters, called and stored as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts, whose settings may be changed in place."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """What is kept for each parameter."""
        return {p: kept for part in self.parts for p, kept in part.state.items()}

    def by_muon(self) -> set[Tensor]:
        """The parameters that Muon updates."""
        muon = (part for part in self.parts if isinstance(part, torch.optim.Muon))
        return {p for part in muon for group in part.param_groups for p in group["params"]}

    def step(self) -> None:
        """One update of all parameters."""
        for part in self.parts:
            part.step()

    def load(self, state: dict[Tensor, dict[str, Tensor]]) -> None:
        """Replace what is kept for each parameter."""
        for part in self.parts:
            own = [p for group in part.param_groups for p in group["params"]]
            numbered = {k: state[p] for k, p in enumerate(own)}
            part.load_state_dict(part.state_dict() | {"state": numbered})


def make_optimizer(recipe: Recipe, net: nn.Module) -> Optimizers:
    """AdamW for all parameters; or, as in pMF, Muon for matrices and AdamW for the rest, both at the recipe's rate.

    Matrices are the weights of linear layers and the table of classes. Muon is torch's own, with momentum 0.95 and five
    Newton-Schulz steps.
    """
    weights = list(net.parameters())
    layers = net.modules() if recipe.optimizer == "muon" else []
    matrices = [layer.weight for layer in layers if isinstance(layer, nn.Linear | nn.Embedding)]
    chosen = set(map(id, matrices))
    fused = weights[0].device.type != "mps"
    decay: dict[str, Any] = {"weight_decay": recipe.weight_decay}
    rest = torch.optim.AdamW([p for p in weights if id(p) not in chosen], recipe.lr, recipe.betas, fused=fused, **decay)
    return Optimizers(rest, torch.optim.Muon(matrices, recipe.lr, **decay)) if matrices else Optimizers(rest)
