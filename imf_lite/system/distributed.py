"""Training on several GPUs or processes, by DDP under `torchrun`; a single process needs none of it.

An update is made of `parts` micro-batches, each with draws of its own. The ranks share them out, and a rank
with several of them accumulates gradients, so the same parts give the same update on any number of ranks.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Ranks:
    """The processes that work together. `init` makes one; Ranks() is a process that is alone."""

    def __init__(self, rank: int = 0, size: int = 1, gpu: int | None = None):
        self.rank, self.size, self.gpu = rank, size, gpu

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self) -> str | None:
        """A GPU for this process alone; the CPU where there is none; None for a single process: whichever is best."""
        return None if self.size == 1 else "cpu" if self.gpu is None else f"cuda:{self.gpu}"

    def share(self, parts: int) -> range:
        """Which of an update's micro-batches are this rank's. Raises ValueError where they cannot be shared evenly."""
        if parts % self.size:
            raise ValueError(
                f"{self.size} ranks cannot share {parts} parts of an update: set parts to a multiple of {self.size}."
            )
        each = parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def wrap(self, objective: nn.Module, compile: bool = False) -> nn.Module:
        """The objective, compiled if wanted, with gradients averaged over the ranks."""
        if compile:
            torch._dynamo.config.optimize_ddp = False  # it would cut the graph into buckets, through the slope
            objective = cast(nn.Module, torch.compile(objective, dynamic=False))
        if self.size == 1:
            return objective
        # buffers are constants, the same on every rank
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.14
        return DistributedDataParallel(objective, gradient_as_bucket_view=True, **{sync: False})  # type: ignore[arg-type]

    def no_sync_until_last(self, wrapped: nn.Module, last: bool) -> AbstractContextManager:
        """A context for one of several micro-batches: ranks exchange gradients in the last one only."""
        return nullcontext() if last or not isinstance(wrapped, DistributedDataParallel) else wrapped.no_sync()

    def all_gather(self, rows: Tensor) -> Tensor:
        """Rows (K, B) of every rank, in order: (K, size B)."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts, 1)

    def gather_objects(self, value: Any) -> list:
        """On the first rank every rank's `value` (any object, on the CPU), in order; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.first else None
        dist.gather_object(value, values)
        return values or []

    def broadcast(self, value: Any) -> Any:
        """The first rank's `value`, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def broadcast_tensor(self, tensor: Tensor) -> None:
        """Overwrite a tensor, in place, by the first rank's."""
        if self.size > 1:
            dist.broadcast(tensor.detach(), 0)

    def assert_equal(self, value: Any, what: str) -> None:
        """Raise RuntimeError, on every rank, unless all have the same `value`; `what` says what it is."""
        values = self.broadcast(self.gather_objects(value))
        if any(v != values[0] for v in values) and not all(v != v for v in values):  # NaN everywhere is agreement
            raise RuntimeError(f"the ranks' {what} differ, {values}: they would train different networks.")

    def any(self, value: bool) -> bool:
        """Whether `value` is true on any rank."""
        if self.size == 1:
            return value
        flag = torch.tensor(int(value))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


def init() -> Ranks:
    """The process group that torchrun's environment describes (joined once), or this process alone."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return Ranks()
    local, here = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    gpus = torch.cuda.device_count()
    if 0 < gpus < here:
        raise ValueError(
            f"{here} processes for {gpus} GPU(s): start as many, or hide them with CUDA_VISIBLE_DEVICES=''."
        )
    gpu = local if gpus else None
    if not dist.is_initialized():
        if gpu is not None:
            torch.cuda.set_device(gpu)
        # a rank that died is noticed after this long, not never
        dist.init_process_group("gloo" if gpu is None else "cpu:gloo,cuda:nccl", timeout=timedelta(minutes=30))
    return Ranks(dist.get_rank(), dist.get_world_size(), gpu)


def destroy() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def abort(message: str | None = None, code: int = 1) -> None:
    """End a rank that failed, at once: the others may wait for it, and torchrun ends them when it is gone.

    message: what to say; None: the traceback. code: of the process. Does nothing in a process that is alone.
    """
    if dist.is_initialized():
        sys.stderr.write(f"{message or traceback.format_exc()}\n")
        sys.stderr.flush()
        os._exit(code)
