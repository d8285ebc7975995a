"""Other ways to run a network's blocks: compiled, and without keeping what is inside them for the backward pass.

A transformer repeats one block, so its graph can be made once and used for all of them: `compile_blocks` takes a
fraction of the time that compiling the whole loss takes, for nearly the same speed. Three graphs are made, each when it
is first needed: of the trained forward (with its backward), of the forward without gradient, and of the forward with
tangent, a function (x, x_t, ...) -> (y, y_t).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from ..forward_mode import Untraced, jvp
from .base import Network, call


def compile_blocks(net: Network, backend: str = "inductor") -> None:
    """Let a network run its blocks compiled. Copies of it, such as the running means, still run them eagerly.

    backend: one of torch.compile; other than "inductor", graphs are traced, but run as they are.
    """
    net.run = CompiledBlocks(backend)


def checkpoint_activations(net: Network) -> None:
    """Let a network keep the inputs of its blocks alone for the backward pass, which runs every block once more.

    It takes less memory and more time. Works together with compile_blocks, called before.
    """
    net.run = Recomputed(net.run)


class Recomputed:
    """Called as (block, x, ...): what a block computes inside is forgotten, and computed again when it is needed."""

    def __init__(self, run: Callable):
        self.run = run

    def __deepcopy__(self, memo: dict) -> object:
        return call

    def __call__(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.run(block, *inputs)
        return checkpoint(self.run, block, *inputs, use_reentrant=False)


class CompiledBlocks:
    """Called as (block, x, ...) in place of block(x, ...); inside `forward_mode.jvp` its result has a tangent."""

    def __init__(self, backend: str) -> None:
        self.forward = torch.compile(call, dynamic=False, backend=backend)
        self.compile = torch._inductor.compile if backend == "inductor" else lambda graph, examples: graph
        self.with_tangent: dict[tuple, Callable] = {}

    def __deepcopy__(self, memo: dict) -> object:
        return call

    def __call__(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        duals = [forward_ad.unpack_dual(x) for x in inputs]
        moving = tuple(k for k, dual in enumerate(duals) if dual.tangent is not None)
        if not moving:
            return self.forward(block, *inputs)
        weights = [p.detach() for p in block.parameters()]
        tensors = [*weights, *(d.primal.contiguous() for d in duals), *(duals[k].tangent.contiguous() for k in moving)]
        key = (type(block), moving, *((x.shape, x.dtype, x.device) for x in tensors))
        if key not in self.with_tangent:
            raise Untraced(lambda: self.trace(key, block, moving, tensors))
        return forward_ad.make_dual(*self.with_tangent[key](*tensors))

    @torch.no_grad()
    def trace(self, key: tuple, block: nn.Module, moving: tuple[int, ...], tensors: list[Tensor]) -> None:
        """Compile the block's forward with tangent for tensors like these: weights, inputs, tangents."""
        names = [name for name, _ in block.named_parameters()]
        first = len(tensors) - len(moving)

        def push_forward(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            weights, inputs = dict(zip(names, tensors, strict=False)), tensors[len(names) : first]

            def of_moving(*moved: Tensor) -> Tensor:
                at = dict(enumerate(inputs)) | dict(zip(moving, moved, strict=True))
                return torch.func.functional_call(block, weights, tuple(at.values()))

            return jvp(of_moving, tuple(inputs[k] for k in moving), tensors[first:])

        examples: list = [torch.zeros_like(x) for x in tensors]
        self.with_tangent[key] = self.compile(make_fx(push_forward)(*examples), examples)
