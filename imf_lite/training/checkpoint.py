"""All state of a run in one file, which is either whole or not there.

A checkpoint is one safetensors file: network, EMA and optimiser, with the counters and a SHA-256 of
everything in its header. No pickle. Writing goes to a temporary file that is then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from copy import deepcopy
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class CheckpointError(RuntimeError):
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
        found = {f"net/{k}": v for k, v in self.net.state_dict().items()}
        for average, ema in self.averages().items():
            found |= {f"{average}/{k}": v for k, v in ema.state_dict().items()}
        for name, p in self.net.named_parameters():
            found |= {f"optimizer/{k}/{name}": v for k, v in self.optimizer.state[p].items()}
        return found

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, int]) -> None:
        """Take over saved state. Raises RuntimeError where the network does not fit."""
        parts: dict[str, dict[str, Tensor]] = {k: {} for k in ("net", "optimizer", *self.averages())}
        for key, value in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = value
        self.net.load_state_dict(parts["net"])
        for average, ema in self.averages().items():
            ema.load_state_dict(parts[average])
        index = {name: i for i, (name, _) in enumerate(self.net.named_parameters())}
        held: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            kind, name = key.split("/", 1)
            held.setdefault(index[name], {})[kind] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": held})
        self.step, self.images = counters["step"], counters["images"]


def save(folder: Path, state: State, keep: int = 2) -> Path:
    """Write `folder/step-<step>.safetensors` atomically, then delete all but the `keep` newest."""
    path = folder / f"step-{state.step:09d}.safetensors"
    write(path, state.tensors(), {"step": state.step, "images": state.images})
    for old in paths(folder)[:-keep]:
        old.unlink()
    return path


def write(path: Path, tensors: dict[str, Tensor], counters: dict[str, int] | None = None) -> None:
    """Write tensors and counters as one checked safetensors file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    meta = json.dumps(counters or {})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata={"counters": meta, "sha256": digest(tensors, meta)})
    replace(temporary, path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors and counters of a file that `write` made. Raises CheckpointError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as f:
            meta = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # safetensors raises its own, OSError, or UnicodeDecodeError: all mean the same
        raise CheckpointError(damaged(path, str(error))) from error
    if digest(tensors, meta.get("counters", "")) != meta.get("sha256"):
        raise CheckpointError(damaged(path, "its contents do not match its SHA-256"))
    return tensors, json.loads(meta["counters"])


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    found = paths(folder)
    return found[-1] if found else None


def step_of(folder: Path) -> int:
    """The update of a folder's newest checkpoint; 0 without one."""
    newest = latest(folder)
    return int(newest.stem.removeprefix("step-")) if newest else 0


def paths(folder: Path) -> list[Path]:
    """All checkpoints of a folder, oldest first; what a killed writer left behind is not one."""
    return sorted(folder.glob("step-*.safetensors"))


def digest(tensors: dict[str, Tensor], counters: str = "") -> str:
    """SHA-256 over counters, names, dtypes, shapes and values."""
    sha = hashlib.sha256(counters.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def damaged(path: Path, reason: str) -> str:
    """What to say of a broken checkpoint."""
    others = [p.name for p in paths(path.parent) if p != path]
    remedy = f"to go on from {others[-1]}" if others else "to start again"
    return f"{path} is damaged ({reason}). Delete it {remedy}, then run the same command."


def replace(temporary: Path, path: Path) -> None:
    """Make a finished file visible under its name: on disk first, then renamed."""
    with open(temporary, "rb") as f:
        os.fsync(f.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    replace(temporary, path)
