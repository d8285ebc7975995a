"""Forward-mode differentiation without waste: weights do not move, so their tangents are not multiplied.

torch's rule for a Linear computes x_t W + x W_t even where W_t = 0: three matmuls with the primal
where two do. Under `constant_weights()` every F.linear takes the short rule, with identical values.
Nothing in a network has to know.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ShortLinear(torch.autograd.Function):
    """F.linear whose tangent is that of x alone."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx, x_t: Tensor, weight_t: Tensor | None, bias_t: Tensor | None) -> Tensor:
        (weight,) = ctx.saved_tensors
        return F.linear(x_t, weight)


class ConstantWeights(TorchFunctionMode):
    """Sends every F.linear through ShortLinear."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear:
            return ShortLinear.apply(*args, *((None,) if len(args) == 2 else ()), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def constant_weights() -> AbstractContextManager:
    """For `torch.func.jvp` with respect to inputs.

    Off where a gradient is wanted, and while compiling: there is nothing to gain there.
    """
    off = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return nullcontext() if off else ConstantWeights()
