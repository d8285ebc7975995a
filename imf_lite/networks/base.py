"""Base class and call signature of all networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from ..conditions import Cond, check_data, check_guidance, check_labels, check_times
from ..configs import T_CLIP, Guided

Need = Literal["uv", "u", "v"]


def call(block: nn.Module, *inputs: Tensor) -> Tensor:
    """block(*inputs): how a network runs its blocks, unless something of compiled.py takes its place."""
    return block(*inputs)


class Network(nn.Module, ABC):
    """Average velocity u(z_t, r, t | cond) and, with a v-head, marginal velocity v; both shaped as z.

    A subclass implements `trunk`, `u_branch` and `v_branch`. The v-branch is created last, so that the u-path and its
    initial weights are the same with and without it.

    Args:
        config: the network's dataclass; its v_depth says whether there is a v-head, its guided which
            guidance is an input: "no", "omega", or "interval" (omega, t_min and t_max), its predict whether the
            branches give velocities ("u") or denoised images ("x").
        shape: shape of one sample, e.g. (1, 8, 8).
        num_classes: number of classes, or None for an unconditional network.
    """

    def __init__(self, config, shape: tuple[int, ...], num_classes: int | None):
        super().__init__()
        self.config, self.shape, self.num_classes = config, tuple(shape), num_classes
        self.has_v: bool = config.v_depth is not None
        self.guided: Guided = config.guided
        self.noise_scale: float = config.noise_scale
        self.run = call

    def forward(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond(), need: Need = "uv"):
        """(u, v) at z (B, ...), r and t (B, 1, ..., 1); what is not needed, or not there, is None.

        Raises ValueError for shapes, times, labels or conditions that do not fit this network.
        """
        self.check(z, r, t, cond)
        if need == "v" and not self.has_v:
            raise ValueError("this network has no v-head: build it with v_depth, or use net.velocity(z, t, cond).")
        state = self.trunk(z, r, t, cond)
        u = self.u_branch(*state) if "u" in need else None
        v = self.v_branch(*state) if "v" in need and self.has_v else None
        outputs = (None if out is None else out.to(z.dtype) for out in (u, v))  # whatever autocast computed in
        if self.config.predict == "u":
            return tuple(outputs)
        return tuple(None if x_hat is None else velocity_from(x_hat, z, t) for x_hat in outputs)

    def u(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The average velocity alone; the v-branch is not computed."""
        return self(z, r, t, cond, need="u")[0]

    def v(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The v-head alone; the u-branch is not computed."""
        return self(z, r, t, cond, need="v")[1]

    def velocity(self, z: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The predicted marginal velocity v_theta(z, t): the v-head at r = t, or the boundary u(z, t, t)."""
        return self.v(z, t, t, cond) if self.has_v else self.u(z, t, t, cond)

    def denoised(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond = Cond()) -> Tensor:
        """The image z_t - t u at the end of one step from t to 0; where x is predicted, the last layer's own output."""
        if self.config.predict == "x":
            self.check(z, r, t, cond)
            return self.u_branch(*self.trunk(z, r, t, cond)).to(z.dtype)
        return z - t * self.u(z, r, t, cond)

    def conditional_velocity(self, z: Tensor, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """The target e - x of the velocity; where x is predicted, with the clip under which it is predicted.

        The two are equal for t >= T_CLIP. Without the clip a perfect x would have a loss at smaller t.
        """
        return e - x if self.config.predict == "u" else velocity_from(x, z, t)

    @abstractmethod
    def trunk(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond) -> tuple:
        """What both branches share, and all that they need."""

    @abstractmethod
    def u_branch(self, *state) -> Tensor:
        """The average velocity, or the denoised image, from the trunk's state, shaped as z."""

    @abstractmethod
    def v_branch(self, *state) -> Tensor:
        """The v-head, or its denoised image, from the trunk's state, shaped as z."""

    def check(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond) -> None:
        """Raise ValueError where the arguments do not fit this network."""
        check_data("z", z)
        if z.shape[1:] != self.shape:
            raise ValueError(f"z holds samples of shape {tuple(z.shape[1:])}; this network was built for {self.shape}.")
        check_times(z, r, t)
        omega, interval = self.guided != "no", self.guided == "interval"
        built = (self.num_classes is not None, omega, interval, interval)
        for name, c, wanted in zip(Cond._fields, cond, built, strict=True):
            if wanted and c is None:
                raise ValueError(
                    f"this network needs the condition {name}: pass Cond({name}=...) of shape ({len(z)},)."
                )
            if c is not None and not wanted:
                raise ValueError(f"this network was built without the condition {name}: leave it out, or rebuild.")
            if c is not None and c.shape != (len(z),):
                raise ValueError(f"condition {name} has shape {tuple(c.shape)}; a batch of {len(z)} needs ({len(z)},).")
        if cond.y is not None and self.num_classes is not None:
            check_labels(cond.y, self.num_classes)
        check_guidance(cond)


def velocity_from(x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """The velocity (z_t - x) / t that leads from z_t to x, with t no smaller than T_CLIP in the division.

    x, z (B, ...); t (B, 1, ..., 1) (pMF, arXiv 2601.22158, and its reference code). A step that begins below T_CLIP
    goes only a part of the way: with more than 20 steps a little noise is left (a standard deviation of 0.015 at 64).
    """
    return (z - x) / t.clamp(min=T_CLIP)
