"""How long training stands still while a checkpoint is written, at once and by a thread of its own.

    python -m benchmarks.checkpoint --parameters 338000000     # half of XL/2: needs 11 GB of memory and 5.4 GB of disk

Weights, one running mean and AdamW's two moments, float32, on the CPU. The thread makes room for the copies after the
first update of a run, long before the first checkpoint.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import tyro
from torch import nn

from imf_lite.training import checkpoint


def state(parameters: int, layers: int = 28) -> checkpoint.State:
    """A network of some size that has made an update."""
    net = nn.Module()
    for k in range(layers):
        net.register_parameter(f"block{k}", nn.Parameter(torch.zeros(parameters // layers)))
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return checkpoint.State(net, optimizer, (0.9999,))


def main(parameters: int = 100_000_000, out: Path | None = None) -> None:
    """Print seconds.

    Args:
        parameters: of the network.
        out: folder on the disk to write to; default: a temporary one.
    """
    current = state(parameters)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        start = time.perf_counter()
        checkpoint.write(Path(folder), current.tensors(), current.counters(), keep=1)
        at_once = time.perf_counter() - start
        with checkpoint.Writer(Path(folder), keep=1) as writer:
            start = time.perf_counter()
            writer.reserve(current).result()
            reserved, stalls = time.perf_counter() - start, []
            for _ in range(3):
                start = time.perf_counter()
                writer.save(current)
                stalls.append(time.perf_counter() - start)
                writer.wait()
                current.step += 1
    stood = ", ".join(f"{stall:.2f}" for stall in stalls)
    print(
        f"{parameters:,} parameters: written at once {at_once:.1f} s; by a thread, which makes room in {reserved:.1f} "
        f"s, training stands still for {stood} s: {max(stalls) / at_once:.3f} of it at most"
    )


if __name__ == "__main__":
    tyro.cli(main)
