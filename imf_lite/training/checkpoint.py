"""All state of a run in one file: network, averages, optimiser and counters, written atomically and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..system.distributed import Ranks
from ..system.files import DamagedFileError, read_tensors, write_tensors
from .optimizers import MUON, Optimizers


class CheckpointError(DamagedFileError):
    """A checkpoint that cannot be used; the message says what to do."""


class State:
    """Everything that changes while a run trains, and what the run is.

    decays: of the running means of the weights, the first of which sampling uses. run: what run.json says, kept in
    every checkpoint.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizers | torch.optim.Optimizer,
        decays: Sequence[float] = (0.0,),
    ):
        self.optimizer = optimizer if isinstance(optimizer, Optimizers) else Optimizers(optimizer)
        self.net, self.decays = net, list(decays)
        self.run: dict = {}
        self.emas = [deepcopy(net).requires_grad_(False) for _ in self.decays]
        self.step = self.images = self.skipped = 0

    @property
    def ema(self) -> nn.Module:
        """The first running mean of the weights, which sampling uses."""
        return self.emas[0]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name: net/..., ema/..., ema1/..., and what the optimiser holds for each parameter."""
        tensors = {f"net/{k}": v for k, v in self.net.state_dict().items()}
        for k, ema in enumerate(self.emas):
            tensors |= {f"{average(k)}/{name}": v for name, v in ema.state_dict().items()}
        kept = self.optimizer.state
        for name, p in self.net.named_parameters():
            tensors |= {f"optimizer/{k}/{name}": v for k, v in kept.get(p, {}).items()}
        return tensors

    def counters(self) -> dict[str, Any]:
        """All that is no tensor, as JSON."""
        counted = {k: getattr(self, k) for k in ("step", "images", "skipped", "decays", "run")}
        return counted | {"optimizer": sorted({kind for moments in self.optimizer.state.values() for kind in moments})}

    def restore(self, path: Path, ranks: Ranks = Ranks()) -> None:
        """Replace all state by what a checkpoint holds. An average that it does not have starts at its weights.

        One rank reads the file; the others get every tensor from it, in its place. Raises CheckpointError where a part
        is missing, unknown, or does not fit.
        """
        if ranks.first:
            self.read(path)
        weights, state = list(self.net.parameters()), self.optimizer.state
        kept = [{k: (v.shape, v.dtype, v.is_cuda) for k, v in state.get(p, {}).items()} for p in weights]
        (self.step, self.images, self.skipped), kept = ranks.broadcast(((self.step, self.images, self.skipped), kept))
        if not ranks.first and any(kept):
            room = [
                {
                    k: torch.empty(shape, dtype=kind, device=p.device if cuda else "cpu")
                    for k, (shape, kind, cuda) in m.items()
                }
                for p, m in zip(weights, kept, strict=True)
            ]
            self.optimizer.load(dict(zip(weights, room, strict=True)))
        for tensor in self.tensors().values():
            ranks.broadcast_tensor(tensor)

    def read(self, path: Path) -> None:
        """Replace all state by what a file holds, see `restore`."""
        tensors, counters = load(path)
        stored = counters.get("decays", self.decays)
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = value
        expected = {"net", "optimizer", *(average(k) for k in range(len(stored)))}
        if parts.keys() != expected:
            missing, extra = (", ".join(sorted(names)) or "nothing" for names in
                              (expected - parts.keys(), parts.keys() - expected))  # fmt: skip
            raise CheckpointError(path, f"it lacks {missing} and has {extra} besides; it was not written by a run")
        try:
            self.net.load_state_dict(parts["net"])
            for ema, decay in zip(self.emas, self.decays, strict=True):
                ema.load_state_dict(parts[average(stored.index(decay))] if decay in stored else parts["net"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(path, f"its tensors do not fit this network: {reason}") from error
        self.optimizer.load(self.moments(path, parts["optimizer"], counters.get("optimizer")))
        self.step, self.images = counters["step"], counters["images"]
        self.skipped = counters.get("skipped", 0)

    def moments(
        self, path: Path, tensors: dict[str, Tensor], expected: list[str] | None
    ) -> dict[Tensor, dict[str, Tensor]]:
        """The optimisers' tensors by parameter; `expected`: their kinds.

        Raises CheckpointError where a parameter lacks some.
        """
        known = dict(self.net.named_parameters())
        moments: dict[str, dict[str, Tensor]] = {name: {} for name in known}
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if name not in known:
                raise CheckpointError(path, f"its optimiser state has a parameter {name!r} that this network lacks")
            moments[name][kind] = value
        kinds = set(expected or {kind for m in moments.values() for kind in m})
        by_muon = self.optimizer.by_muon()
        for name, p in known.items():
            wanted = kinds & MUON if p in by_muon else kinds - MUON
            if not wanted or moments[name].keys() != wanted:
                raise CheckpointError(
                    path, "its optimiser state is incomplete: going on would start the optimiser anew"
                )
        return {known[name]: m for name, m in moments.items()}


def average(k: int) -> str:
    """The name of the k-th running mean in a file: ema, ema1, ema2, ..."""
    return f"ema{k or ''}"


class Writer(AbstractContextManager):
    """Writes a run's checkpoints in a thread of its own, so that training waits for a copy and not for the disk.

    As a context manager it waits for the last one at the end.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep
        self.copies: dict[str, Tensor] = {}
        self.pool = ThreadPoolExecutor(1)
        self.room: Future | None = None
        self.running: Future | None = None

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.wait()
        except OSError:
            if kind is None:  # an error that is on its way says more
                raise
        finally:
            self.pool.shutdown()

    def reserve(self, state: State) -> Future:
        """Make room for the copies while training goes on: fresh memory costs many times the copy."""
        self.room = self.pool.submit(self.make_room, state.tensors())
        return self.room

    def make_room(self, tensors: dict[str, Tensor]) -> None:
        """Memory for a copy of each tensor that has none yet, touched so that the system hands it out."""
        for name, tensor in tensors.items():
            if name not in self.copies:
                room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self.copies[name] = room.zero_()

    def save(self, state: State, then: Callable[[dict[str, Tensor]], object] = lambda _: None) -> None:
        """Copy all state, and begin to write it once the checkpoint before is written. Raises OSError as `wait`.

        then: called by the thread with the copies, once they are written.
        """
        self.wait()
        if self.room:
            self.room.result()
        tensors, counters = state.tensors(), state.counters()
        self.make_room(tensors)
        for name, tensor in tensors.items():
            self.copies[name].copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        copies = {name: self.copies[name] for name in tensors}

        def work() -> None:
            write(self.folder, copies, counters, self.keep)
            then(copies)

        self.running = self.pool.submit(work)

    def wait(self) -> None:
        """Wait until what was saved is on the disk. Raises OSError where it could not be written."""
        if self.running:
            self.running.result()


def write(folder: Path, tensors: dict[str, Tensor], counters: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/step-<step>.safetensors` atomically, then delete all but the `keep` newest.

    Raises OSError, naming the last good checkpoint, where the disk takes no more.
    """
    path = folder / f"step-{counters['step']:09d}.safetensors"
    try:
        write_tensors(path, tensors, counters)
    except OSError as error:
        raise OSError(f"{error}. The last good checkpoint: {latest(folder) or 'none yet'}") from error
    for old in paths(folder)[:-keep]:
        old.unlink()
    return path


def read_counters(path: Path) -> dict[str, Any]:
    """All of a checkpoint that is no tensor, without reading the rest. Raises CheckpointError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["counters"])
    except Exception as error:  # safetensors raises its own, OSError, or UnicodeDecodeError: all mean the same
        raise CheckpointError(path, str(error), go_on(path)) from error


def load(path: Path, part: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and counters of a checkpoint, of one part ("ema", "net", ...) if that is enough.

    Raises CheckpointError, naming the one to go on from, if it is damaged.
    """
    try:
        return read_tensors(path, part)
    except DamagedFileError as error:
        raise CheckpointError(path, error.reason, go_on(path)) from error


def go_on(path: Path) -> str:
    """What a run resumes from if this checkpoint is deleted, in words for an error message."""
    others = [p.name for p in paths(path.parent) if p != path]
    return f" to go on from {others[-1]}" if others else " to start again"


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    return next(reversed(paths(folder)), None)


def step_of(folder: Path) -> int:
    """The update of a folder's newest checkpoint; 0 without one."""
    newest = latest(folder)
    return number(newest) if newest else 0


def number(path: Path) -> int:
    """The update that a checkpoint's name says."""
    return int(path.stem.removeprefix("step-"))


def paths(folder: Path) -> list[Path]:
    """All checkpoints of a folder, oldest first; files of other names (copies, leftovers of a kill) do not count."""
    named = (p for p in folder.glob("step-*.safetensors") if p.stem.removeprefix("step-").isdecimal() and p.is_file())
    return sorted(named, key=number)
