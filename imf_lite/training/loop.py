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
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from .. import guidance, losses
from ..data import Data, load
from ..draws import draw
from ..networks import build
from ..objective import Objective
from ..recipes import Recipe
from ..system import distributed
from ..system.devices import matmul_precision, pick_device
from ..system.distributed import Ranks
from ..system.rng import generator
from . import checkpoint, flops
from .batches import DRAWS, ahead, batch
from .records import Record, means
from .runs import restore_or_begin


class NonFiniteError(FloatingPointError):
    """Training met a gradient that is not finite, and stopped before using it."""


def train(
    recipe: Recipe, out: str | Path, data: Data | None = None, device: str | None = None, slope=losses.slope,
    compile: bool = False, ranks: Ranks | None = None,
) -> Iterator[Record]:  # fmt: skip
    """Train, yielding a Record every `recipe.log_every` updates; resumes from the folder `out`.

    data: instead of the data set that the recipe names. device: default cuda, else mps, else cpu.
    slope: how du/dt is computed, for lessons that get it wrong on purpose. compile: torch.compile the
    loss, which takes a minute or two once and pays in long runs (same numbers to rounding). ranks: default: those that
    torchrun started, or this process alone.
    Raises ValueError for a recipe, data or folder that do not fit, CheckpointError for a damaged
    checkpoint, NonFiniteError before an update with a gradient that is not finite.
    """
    ranks = ranks or distributed.init()
    out, device = Path(out), pick_device(device or ranks.device())
    data = data or load(recipe.data, recipe.normalisation)
    check_training_data(recipe, data)
    parts = ranks.share(recipe.parts)
    net = build(recipe.net, data.train.shape, data.num_classes, recipe.seed).to(device)
    optimizer = torch.optim.AdamW(
        net.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=device.type != "mps"
    )
    rule = guidance.rule(recipe.method, recipe.guidance)
    objective = Objective(net, recipe.method, recipe.p, recipe.c, rule, slope, bf16=recipe.precision == "bf16")
    loss = ranks.wrap(objective, compile)
    state = checkpoint.State(net, optimizer, emas=1 + len(recipe.more_emas))
    restore_or_begin(recipe, out, data, state, ranks)

    weights, averages = list(net.parameters()), [list(ema.parameters()) for ema in state.emas]
    decays = (recipe.ema, *recipe.more_emas)
    when = itertools.product(range(state.step, recipe.steps), parts)
    batches = ahead((partial(batch, recipe, data, *k) for k in when), threaded=device.type == "cuda")
    peak_share = share_of_peak(recipe, data, device, ranks)
    start = last = time.perf_counter()
    seen, began = state.images, state.step
    with open(out / "metrics.jsonl", "a") if ranks.first else open(os.devnull, "w") as log:
        while state.step < recipe.steps:
            optimizer.zero_grad(set_to_none=True)
            steps = []
            for part in parts:
                x, y = next(batches)
                g = generator(device, recipe.seed, DRAWS, part, state.step)
                draws = draw(x.to(device), None if y is None else y.to(device), recipe.draws, g, net.guided)
                with matmul_precision(recipe.precision), ranks.no_sync_until_last(loss, part == parts[-1]):
                    steps.append(loss(draws))
                    (steps[-1].loss / len(parts)).backward()
            # the one host read of a step that is not logged
            grad_norm = float(torch.nn.utils.get_total_norm([p.grad for p in weights]))
            if not math.isfinite(grad_norm):
                raise NonFiniteError(non_finite(out, state.step, grad_norm, float(steps[-1].loss.detach())))
            if state.step == began:
                ranks.assert_equal(grad_norm, "gradients")
            for group in optimizer.param_groups:
                group["lr"] = lr = learning_rate(recipe, state.step)
            optimizer.step()
            for average, decay in zip(averages, decays, strict=True):
                torch._foreach_lerp_(average, weights, 1 - decay)
            state.step, state.images = state.step + 1, state.images + recipe.batch

            if state.step % recipe.log_every == 0 or state.step == recipe.steps:
                now = time.perf_counter()
                rate, last, seen = (state.images - seen) / (now - last), now, state.images
                record = Record(state.step, state.images, **means(steps, ranks), lr=lr, grad_norm=grad_norm,
                                seconds=now - start, images_per_s=rate, peak_share=peak_share and rate * peak_share,
                                device=str(device))  # fmt: skip
                log.write(json.dumps(record._asdict()) + "\n")
                log.flush()
                yield record
            if state.step % recipe.save_every == 0 or state.step == recipe.steps:
                if ranks.size > 1:
                    ranks.assert_equal(float(torch.nn.utils.get_total_norm(weights)), "weights")
                if ranks.first:
                    checkpoint.save(out / "checkpoints", state, recipe.keep)
                ranks.barrier()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up from 0; "linear" decay multiplies it by the share of the updates still to come."""
    warm = min(step / recipe.warmup, 1.0) if recipe.warmup else 1.0
    return recipe.lr * warm * (1 - step / recipe.steps if recipe.decay == "linear" else 1.0)


def check_training_data(recipe: Recipe, data: Data) -> None:
    """Raise ValueError for data that cannot be trained on, before anything is spent."""
    y = data.train.y
    if len(data.train) < recipe.batch:
        raise ValueError(f"batch = {recipe.batch}, but there are only {len(data.train)} samples: lower the batch.")
    if recipe.guidance and data.num_classes is None:
        raise ValueError("guidance steers towards a class: it needs data with labels, or guidance = None.")
    if data.num_classes is not None and (y is None or y.min() < 0 or y.max() >= data.num_classes):
        raise ValueError(f"labels of the training split must be 0 to {data.num_classes - 1}.")


def share_of_peak(recipe: Recipe, data: Data, device: torch.device, ranks: Ranks) -> float | None:
    """Share of the devices' peak that one image a second makes; None where the peak is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = flops.peak(name, recipe.precision)
    return peak and flops.per_image(recipe, data.train.shape, data.num_classes) / (peak * ranks.size)


def non_finite(out: Path, step: int, grad_norm: float, loss: float) -> str:
    """What to say when a gradient is not finite."""
    newest = checkpoint.latest(out / "checkpoints")
    return (
        f"gradient norm {grad_norm} (loss {loss}) at update {step + 1}; stopped before the update. "
        f"Last good checkpoint: {newest or 'none yet'}. Try a lower lr, a warm-up, or another seed."
    )
