"""One training loop, from toy to ImageNet: a generator of records.

    for record in train(get("digits_imf"), "runs/mine"):
        print(record.step, record.raw_u_neq)

Calling `train` again with the same recipe and folder goes on where the last checkpoint stands.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn, cast

import torch
from torch import Tensor, nn

from .. import guidance, relatives
from ..configs import Compile, Guided
from ..data import Data, load
from ..draws import draw
from ..networks import Network, build
from ..networks.compiled import checkpoint_activations, compile_blocks
from ..objective import Objective, Step
from ..recipes import Recipe
from ..system import distributed
from ..system.devices import matmul_precision, pick_device
from ..system.distributed import Ranks
from ..system.files import write_text
from ..system.lock import locked
from ..system.rng import Stream, stream
from . import checkpoint, flops
from .batches import ahead, batch
from .optimizers import Optimizers, make_optimizer
from .records import Record, means
from .runs import copy_weights, keep_average, restore_or_begin

SKIPPED_AT_MOST = 10
"""updates left out in a row, with on_non_finite="skip", before the run stops after all"""
BLOCKS_PAY, WHOLE_PAYS = 150, 10_000
"""updates after which compiling by blocks, and compiling the whole loss, are ahead (measured on CPUs: docs/speed.md)"""


class NonFiniteError(FloatingPointError):
    """Training met a gradient that is not finite, and stopped before using it."""


class StoppedError(RuntimeError):
    """Training was asked to stop, and did so after an update whose checkpoint was written."""


def train(
    recipe: Recipe, out: str | Path, data: Data | None = None, device: torch.device | str | None = None,
    slope: Callable | None = None, compile: Compile = "no", ranks: Ranks | None = None, init: Network | None = None,
    on_non_finite: Literal["stop", "skip"] = "stop", stop: Callable[[], bool] = lambda: False,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None, recompute: bool = False,
) -> Iterator[Record]:  # fmt: skip
    """Train, yielding a Record every `recipe.log_every` updates; resumes from the folder `out`, which it locks.

    Args:
        data: used instead of the data set that the recipe names.
        device: default cuda, else mps, else cpu.
        slope: computes du/dt instead of the recipe's derivative, for lessons.
        compile: "blocks" compiles the network's blocks, in less than a minute on a CPU, "whole" the whole loss, in
            minutes; "auto" does what pays in a run of that length. The same numbers to rounding.
        ranks: default: those that torchrun started, or this process alone.
        init: a trained network; the run begins with those of its weights that have the same names and shapes.
        on_non_finite: at a gradient that is not finite, stop, or skip the update (at most ten in a row).
        stop: asked after every update; if it is true, training stops once a checkpoint is written.
        perceptual: the distance that the recipe's perceptual term names, by evaluation.perceptual.load.
        recompute: keep blocks' inputs alone for the backward pass, and compute the rest again: less memory, more time.

    Raises ValueError for a recipe, data or folder that do not fit, CheckpointError for a damaged
    checkpoint, NonFiniteError before an update with a gradient that is not finite, StoppedError after `stop`.
    """
    ranks = ranks or distributed.init()
    out, where = Path(out), pick_device(device or ranks.device())
    data = data or load(recipe.data, recipe.normalisation)
    check_training_data(recipe, data)
    check_folder(out)
    if getattr(perceptual, "name", "no") != recipe.perceptual:
        raise ValueError(
            f"the recipe's perceptual is {recipe.perceptual!r}: pass perceptual=evaluation.perceptual.load(...) of "
            "that name, and nothing for 'no'."
        )
    with locked(out) if ranks.first else nullcontext():
        how = pays(recipe) if compile == "auto" else compile
        yield from run(recipe, out, data, where, slope, how, ranks, init, on_non_finite, stop, perceptual, recompute)


def run(
    recipe: Recipe, out: Path, data: Data, device: torch.device, slope, compile: Compile, ranks: Ranks,
    init: Network | None, on_non_finite: str, stop: Callable[[], bool], perceptual: Callable | None, recompute: bool,
) -> Iterator[Record]:  # fmt: skip
    """The loop itself; see train."""
    parts = ranks.share(recipe.parts)
    net = build(recipe.net, data.train.shape, data.num_classes, recipe.seed).to(device)
    if init is not None:
        copy_weights(init, net)
    optimizer = make_optimizer(recipe, net)
    loss = as_trained(objective_of(recipe, net, slope, perceptual), compile, recompute, ranks)
    state = checkpoint.State(net, optimizer, recipe.decays())
    restore_or_begin(recipe, out, data, state, ranks, init, getattr(perceptual, "sha256", None))

    weights: list[Tensor] = list(net.parameters())
    averages: list[list[Tensor]] = [list(ema.parameters()) for ema in state.emas]
    when = itertools.product(range(state.step, recipe.steps), parts)
    batches = ahead((partial(batch, recipe, data, *k) for k in when), threads=int(device.type == "cuda"))
    peak_share = share_of_peak(recipe, data, device, ranks)
    start = last = time.perf_counter()
    seen, began, in_a_row, waited = state.images, state.step, 0, 0.0
    writer = checkpoint.Writer(out / "checkpoints", recipe.keep)
    with writer, open(out / "metrics.jsonl", "a") if ranks.first else open(os.devnull, "w") as log:
        while state.step < recipe.steps:
            net.zero_grad(set_to_none=True)
            steps, seconds = accumulate(recipe, loss, batches, parts, state.step, device, net.guided, ranks)
            waited += seconds
            gradients = cast(list[Tensor], [p.grad for p in weights])  # every weight has one
            # the one host read of a step that is not logged
            grad_norm = float(torch.nn.utils.get_total_norm(gradients))
            finite = math.isfinite(grad_norm)
            in_a_row = 0 if finite else in_a_row + 1
            if not finite and (on_non_finite == "stop" or in_a_row >= SKIPPED_AT_MOST):
                writer.wait()  # the message names the newest checkpoint
                stop_at(out, data, state.step, grad_norm, float(steps[-1].loss.detach()), ranks)
            if state.step == began:
                ranks.assert_equal(grad_norm, "gradients")
            lr = learning_rate(recipe, state.step)
            if finite:
                update(recipe, optimizer, gradients, grad_norm, lr)
                for average, decay in zip(averages, recipe.decays(state.images), strict=True):
                    torch._foreach_lerp_(average, weights, 1 - decay)
            state.step, state.images = state.step + 1, state.images + recipe.batch
            state.skipped += not finite
            if ranks.first and state.step == began + 1:  # now the optimiser's moments are there
                writer.reserve(state)

            if state.step % recipe.log_every == 0 or state.step == recipe.steps:
                now = time.perf_counter()
                rate, last, seen = (state.images - seen) / (now - last), now, state.images
                record = Record(state.step, state.images, **means(steps, ranks), lr=lr, grad_norm=grad_norm,
                                seconds=now - start, images_per_s=rate, peak_share=peak_share and rate * peak_share,
                                device=str(device), skipped=state.skipped, waited=waited)  # fmt: skip
                waited = 0.0
                log.write(json.dumps(record._asdict()) + "\n")
                log.flush()
                writer.wait()  # whoever is told of an update finds the checkpoints before it on the disk
                yield record
                away = time.perf_counter() - now  # what the caller did meanwhile, such as measuring FID, is no training
                start, last = start + away, last + away
            asked = ranks.any(stop())
            if asked or state.step % recipe.save_every == 0 or state.step == recipe.steps:
                if ranks.size > 1:
                    ranks.assert_equal(float(torch.nn.utils.get_total_norm(weights)), "weights")
                if ranks.first:
                    writer.save(state, partial(keep_average, recipe, out, net, state.step))
            if asked and state.step < recipe.steps:
                writer.wait()
                raise StoppedError(f"stopped after update {state.step}, which is saved: run the same command again.")
    if not recipe.ema_half_life:  # which forgets them at once
        warn_of_initial_weights(state)


def objective_of(recipe: Recipe, net: Network, slope: Callable | None, perceptual: Callable | None) -> Objective:
    """The recipe's objective on a network; slope: instead of the recipe's derivative."""
    rule = guidance.rule(recipe.method, recipe.guidance)
    slope = slope or relatives.slope(recipe.derivative, recipe.derivative_share)
    bf16, weight = recipe.precision == "bf16", recipe.perceptual_weight
    return Objective(net, recipe.method, recipe.p, recipe.c, rule, slope, bf16, perceptual, weight)


def as_trained(objective: Objective, compile: Compile, recompute: bool = False, ranks: Ranks = Ranks()) -> nn.Module:
    """The module to call in an objective's place: compiled as said ("auto" is no answer here), shared by the ranks."""
    if compile == "blocks":
        compile_blocks(objective.net)
    if recompute:
        checkpoint_activations(objective.net)
    return ranks.wrap(objective, compile == "whole")


def pays(recipe: Recipe) -> Compile:
    """What to compile in a run of this length: the whole loss only where its many updates repay minutes."""
    return "whole" if recipe.steps > WHOLE_PAYS else "blocks" if recipe.steps >= BLOCKS_PAY else "no"


def accumulate(
    recipe: Recipe, loss: nn.Module, batches: Iterator, parts: range, step: int, device: torch.device, guided: Guided,
    ranks: Ranks,
) -> tuple[list[Step], float]:  # fmt: skip
    """Add the gradients of an update's micro-batches; what each reports, and the seconds of waiting for their data."""
    steps, waited = [], 0.0
    for part in parts:
        before = time.perf_counter()
        samples = next(batches)
        waited += time.perf_counter() - before
        steps.append(backward(recipe, loss, samples, part, step, device, guided, ranks))
    return steps, waited


def backward(
    recipe: Recipe, loss: nn.Module, samples: tuple[Tensor, Tensor | None], part: int, step: int, device: torch.device,
    guided: Guided, ranks: Ranks,
) -> Step:  # fmt: skip
    """Add the gradient of one micro-batch's share of the loss, by draws of its own, and return what it reports."""
    x, y = samples
    here = ranks.share(recipe.parts)
    g = stream(device, Stream.DRAWS, recipe.seed, part, step)
    draws = draw(x.to(device), None if y is None else y.to(device), recipe.draws, g, guided, recipe.net.noise_scale)
    with matmul_precision(recipe.precision), ranks.no_sync_until_last(loss, part == here[-1]):
        report: Step = loss(draws)
        (report.loss / len(here)).backward()
    return report


def update(recipe: Recipe, optimizer: Optimizers, gradients: list[Tensor], norm: float, lr: float) -> None:
    """One update at a learning rate, by gradients of norm `norm`; those above the recipe's clip are scaled down."""
    if recipe.clip is not None and norm > recipe.clip:
        torch._foreach_mul_(gradients, recipe.clip / norm)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


def warn_of_initial_weights(state: checkpoint.State) -> None:
    """Warn of averages that are still mostly the weights that the run began with."""
    for decay in state.decays:
        if (initial := decay ** (state.step - state.skipped)) > 0.5:
            warnings.warn(
                f"after {state.step} updates the average of decay {decay} is still {initial:.0%} the initial weights: "
                "sampling uses it; choose a smaller ema for so short a run.",
                stacklevel=4,
            )


def check_folder(out: Path) -> None:
    """Raise ValueError for a folder that cannot be that of a run: a file, or one in which other things lie."""
    if blocked := next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None):
        raise ValueError(f"{out} cannot be the folder of a run: {blocked} is no folder.")
    ours = {"run.json", "metrics.jsonl", "checkpoints", ".lock", "fid.jsonl", "tensorboard", "samples", "evaluation"}
    ours |= {"non_finite.json", "averages"}
    is_run = (out / "run.json").exists() or (out / "checkpoints").is_dir()
    there = {path.name for path in out.iterdir() if path.suffix != ".tmp"} if out.is_dir() and not is_run else set()
    if other := there - ours:
        raise ValueError(f"{out} is no folder of a run: it holds other files, such as {min(other)}. Choose another.")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up from 0; "linear" decay multiplies it by the share of the updates still to come."""
    warm = min(step / recipe.warmup, 1.0) if recipe.warmup else 1.0
    return recipe.lr * warm * (1 - step / recipe.steps if recipe.decay == "linear" else 1.0)


def check_training_data(recipe: Recipe, data: Data) -> None:
    """Raise ValueError for data that cannot be trained on, before anything is spent."""
    y = data.train.y
    if recipe.flip and (data.latents or len(data.train.shape) != 3):
        kind = (
            "latents: prepare the images with --vae none, or leave it out" if data.latents else "points: leave it out"
        )
        raise ValueError(f"flip = True mirrors images; these are {kind}.")
    if len(data.train) < recipe.batch:
        raise ValueError(f"batch = {recipe.batch}, but there are only {len(data.train)} samples: lower the batch.")
    if recipe.method == "imf" and recipe.net.v_depth is None and recipe.draws.p_r_neq_t == 1:
        warnings.warn("iMF without a v-head at p_r_neq_t = 1: nothing teaches v, which is u at r = t.", stacklevel=3)
    if recipe.guidance and data.num_classes is None:
        raise ValueError("guidance steers towards a class: it needs data with labels, or guidance = None.")
    if data.num_classes is not None and (y is None or y.min() < 0 or y.max() >= data.num_classes):
        raise ValueError(f"labels of the training split must be 0 to {data.num_classes - 1}.")


def share_of_peak(recipe: Recipe, data: Data, device: torch.device, ranks: Ranks) -> float | None:
    """Share of the devices' peak that one image per second makes; None where the peak is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = flops.peak(name, recipe.precision)
    return peak and flops.per_image(recipe, data.train.shape, data.num_classes) / (peak * ranks.size)


def stop_at(out: Path, data: Data, step: int, grad_norm: float, loss: float, ranks: Ranks) -> NoReturn:
    """Note that a gradient was not finite, in non_finite.json, and raise NonFiniteError."""
    newest = checkpoint.latest(out / "checkpoints")
    cached = getattr(data.train, "folder", None)
    verify = "; `--verify` reads the prepared data again, which may be damaged" if cached else ""
    message = (
        f"gradient norm {grad_norm} (loss {loss}) at update {step + 1}; stopped before the update. "
        f"Last good checkpoint: {newest or 'none yet'}. Try a lower lr, a warm-up or --clip "
        f"(this run accepts them when it resumes), or another seed in another folder{verify}."
    )
    if ranks.first:
        write_text(out / "non_finite.json", json.dumps({"update": step + 1, "message": message}))
    raise NonFiniteError(message)
