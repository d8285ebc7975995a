"""Jacobian-vector products with respect to inputs, without the work that constant weights and norms do not need.

`torch.func.jvp` is general, and pays for it: an interpreter on top of every operation; products with the
tangents of weights, which are zero (three matrix products for a Linear where two do); norms and attention
taken apart into many small operations. `jvp` here gives the same values for less (benchmarks/step_cost.py
says how much). No network has to be changed for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class Untraced(Exception):
    """A compiled block has no graph for these inputs yet. It cannot be traced inside a derivative: see `jvp`."""

    def __init__(self, trace: Callable[[], None]):
        super().__init__("a block is compiled outside forward_mode.jvp only")
        self.trace = trace


def jvp(f: Callable[..., Tensor], at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """f at a point, and how fast it changes along a direction, as by torch.func.jvp.

    Where a gradient is wanted, or while compiling, it calls torch.func.jvp, as there is nothing to gain.
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative
        if torch.compiler.is_compiling():
            at = tuple(a.clone() for a in at)  # a slice would break the graph
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return torch.func.jvp(f, at, along)[:2]
        try:
            # eager: before torch 2.14, compiled code drops tangents, or takes a part of them for zero
            with torch.compiler.set_stance("force_eager"), forward_ad.dual_level(), ShortRules():
                value, rate = forward_ad.unpack_dual(f(*map(forward_ad.make_dual, at, along)))
        except Untraced as block:
            block.trace()
            return jvp(f, at, along)
    if rate is None:  # never taken for zero: du/dt would be silently wrong
        raise RuntimeError(
            "the function gave no derivative: its value does not depend on what moves, or it is compiled in a way that "
            "drops tangents (torch.compile the whole objective, not the network)."
        )
    return value, rate


class ShortRules(TorchFunctionMode):
    """Applies shorter rules to norms, attention and products with constants; all else goes the usual way."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear and not kwargs and has_no_tangent(*args[1:]):
            return ShortLinear.apply(*args, *((None,) if len(args) == 2 else ()))
        if func is F.rms_norm and len(args[1]) == 1:
            weight, eps = kwargs.get("weight"), kwargs.get("eps")
            if weight is not None and eps is not None and has_no_tangent(weight):
                return ShortNorm.apply(args[0], weight, eps)
        if func is F.scaled_dot_product_attention and len(args) == 3 and not kwargs:
            return ShortAttention.apply(*args)[0]
        if func is torch.Tensor.mul and not kwargs and all(isinstance(a, Tensor) for a in args):
            for x, c in (args, args[::-1]):
                if has_no_tangent(c):
                    return ShortProduct.apply(x, c)
        return func(*args, **kwargs)


def has_no_tangent(*tensors: Tensor | None) -> bool:
    """Whether none of these moves."""
    return all(x is None or forward_ad.unpack_dual(x).tangent is None for x in tensors)


class ShortLinear(torch.autograd.Function):
    """F.linear whose tangent is that of x alone."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_forward(inputs[1])
        ctx.set_materialize_grads(False)  # no tangent of a constant: not even zeros

    @staticmethod
    def jvp(ctx, x_t: Tensor, weight_t: None, bias_t: None) -> Tensor:
        (weight,) = ctx.saved_tensors
        return F.linear(x_t, weight)


class ShortProduct(torch.autograd.Function):
    """x times a constant c."""

    @staticmethod
    def forward(x: Tensor, c: Tensor) -> Tensor:
        return x * c

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_forward(inputs[1])
        ctx.set_materialize_grads(False)  # no tangent of a constant: not even zeros

    @staticmethod
    def jvp(ctx, x_t: Tensor, c_t: None) -> Tensor:
        (c,) = ctx.saved_tensors
        return x_t * c


class ShortNorm(torch.autograd.Function):
    """RMSNorm over the last dimension, y = x s w with s = (mean(x^2) + eps)^-1/2."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, eps)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_forward(*inputs[:2])
        ctx.set_materialize_grads(False)
        ctx.eps = inputs[2]

    @staticmethod
    def jvp(ctx, x_t: Tensor, weight_t: None, eps: None) -> Tensor:
        x, weight = ctx.saved_tensors
        s = torch.rsqrt(x.square().mean(-1, keepdim=True) + ctx.eps)
        s_t_over_s = -s.square() * (x * x_t).mean(-1, keepdim=True)
        return (x_t + x * s_t_over_s) * (s * weight)


class ShortAttention(torch.autograd.Function):
    """Attention over q, k, v (B, H, S, K), written out: the fused kernels have no forward derivative."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)  # (B, H, S, S)
        return weights @ v, weights

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.save_for_forward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def jvp(ctx, q_t: Tensor, k_t: Tensor, v_t: Tensor) -> tuple[Tensor, None]:
        q, k, v, weights = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        logits_t = q_t * scale @ k.transpose(-2, -1) + q * scale @ k_t.transpose(-2, -1)
        weights_t = weights * (logits_t - (weights * logits_t).sum(-1, keepdim=True))
        return weights_t @ v + weights @ v_t, None
