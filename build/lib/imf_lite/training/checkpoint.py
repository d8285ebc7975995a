"""All state of a run in one file: network, averages, optimiser and counters, written atomically and checked."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from ..system.files import DamagedFileError, read_tensors, write_tensors


class CheckpointError(DamagedFileError):
    """A checkpoint that cannot be used; the message says what to do."""


class State:
    """Everything that changes while a run trains."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, emas: int = 1):
        self.net, self.optimizer = net, optimizer
        self.emas = [deepcopy(net).requires_grad_(False) for _ in range(emas)]
        self.step = self.images = 0

    @property
    def ema(self) -> nn.Module:
        """The first running mean of the weights, which sampling uses."""
        return self.emas[0]

    def averages(self) -> dict[str, nn.Module]:
        """The running means by the names that they have in a file: ema, ema1, ema2, ..."""
        return {f"ema{k or ''}": ema for k, ema in enumerate(self.emas)}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the optimiser's are those that it holds for each parameter."""
        tensors = {f"net/{k}": v for k, v in self.net.state_dict().items()}
        for average, ema in self.averages().items():
            tensors |= {f"{average}/{k}": v for k, v in ema.state_dict().items()}
        for name, p in self.net.named_parameters():
            tensors |= {f"optimizer/{k}/{name}": v for k, v in self.optimizer.state[p].items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, int]) -> None:
        """Replace all state by what was saved. Raises RuntimeError where the network does not fit."""
        parts: dict[str, dict[str, Tensor]] = {k: {} for k in ("net", "optimizer", *self.averages())}
        for key, value in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = value
        self.net.load_state_dict(parts["net"])
        for average, ema in self.averages().items():
            ema.load_state_dict(parts[average])
        index = {name: i for i, (name, _) in enumerate(self.net.named_parameters())}
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            kind, name = key.split("/", 1)
            moments.setdefault(index[name], {})[kind] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.step, self.images = counters["step"], counters["images"]


def save(folder: Path, state: State, keep: int = 2) -> Path:
    """Write `folder/step-<step>.safetensors` atomically, then delete all but the `keep` newest."""
    path = folder / f"step-{state.step:09d}.safetensors"
    write_tensors(path, state.tensors(), {"step": state.step, "images": state.images})
    for old in paths(folder)[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors and counters of a checkpoint. Raises CheckpointError, naming the one to go on from, if it is damaged."""
    try:
        return read_tensors(path)
    except DamagedFileError as error:
        others = [p.name for p in paths(path.parent) if p != path]
        remedy = f" to go on from {others[-1]}" if others else " to start again"
        raise CheckpointError(path, error.reason, remedy) from error


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    checkpoints = paths(folder)
    return checkpoints[-1] if checkpoints else None


def step_of(folder: Path) -> int:
    """The update of a folder's newest checkpoint; 0 without one."""
    newest = latest(folder)
    return int(newest.stem.removeprefix("step-")) if newest else 0


def paths(folder: Path) -> list[Path]:
    """All checkpoints of a folder, oldest first; what a killed writer left behind is not one."""
    return sorted(folder.glob("step-*.safetensors"))
