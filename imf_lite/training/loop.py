"""One training loop, from toy to ImageNet: a generator of records.

    for record in train(get("digits_imf"), "runs/mine"):
        print(record.step, record.raw_u_neq)

A run's folder holds run.json (recipe, code, machine), metrics.jsonl and checkpoints/. Calling
`train` again with the same recipe and folder goes on where the last checkpoint stands.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import checkpoint, flops, guidance, losses, parallel
from .data import Data, load
from .draws import draw
from .latents import to_images
from .networks import Network, build
from .objective import Objective, Step
from .parallel import Ranks
from .recipe import Recipe
from .rng import generator
from .sampling import euler, sample

T_BINS = 10
ORDER, DRAWS, POSTERIOR = 1, 2, 3  # streams of random numbers


class Record(NamedTuple):
    """One line of metrics.jsonl: the batch of update `step`. Raw errors are squared norms, before weighting.

    eq, neq: mean over rows with r = t, r < t; by_t: mean in ten equal bins of t. None: no such row.
    images_per_s, peak_share: over all devices, since the record before; peak_share None: the peak is not known.
    h_du_dt, du_dt_by_t: size of (t - r) du/dt, and of du/dt, on rows with r < t.
    """

    step: int
    images: int
    loss: float
    lr: float
    grad_norm: float
    raw_u_eq: float | None
    raw_u_neq: float | None
    raw_v_eq: float | None
    raw_v_neq: float | None
    h_du_dt: float | None
    raw_u_by_t: list[float | None]
    raw_v_by_t: list[float | None]
    du_dt_by_t: list[float | None]
    seconds: float
    images_per_s: float
    peak_share: float | None
    device: str


class NonFiniteError(FloatingPointError):
    """Training met a gradient that is not finite, and stopped before using it."""


def train(
    recipe: Recipe, out: str | Path, data: Data | None = None, device: str | None = None, slope=losses.slope,
    compile: bool = False,
) -> Iterator[Record]:  # fmt: skip
    """Train, yielding a Record every `recipe.log_every` updates; resumes from the folder `out`.

    data: instead of the data set that the recipe names. device: default cuda, else mps, else cpu.
    slope: how du/dt is computed, for lessons that get it wrong on purpose. compile: torch.compile the
    loss, which takes a minute or two once and pays in long runs (same numbers to rounding).
    Raises ValueError for a recipe, data or folder that do not fit, CheckpointError for a damaged
    checkpoint, NonFiniteError before an update with a gradient that is not finite.
    """
    ranks = parallel.join()
    out, device = Path(out), pick_device(device or ranks.device())
    data = data or load(recipe.data, recipe.normalisation)
    check_training_data(recipe, data)
    mine = ranks.share(recipe.parts)
    set_precision(recipe.precision)
    net = build(recipe.net, data.train.shape, data.num_classes, recipe.seed).to(device)
    optimizer = torch.optim.AdamW(
        net.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=device.type != "mps"
    )
    rule = guidance.rule(recipe.method, recipe.guidance)
    objective = Objective(net, recipe.method, recipe.p, recipe.c, rule, slope, bf16=recipe.precision == "bf16")
    loss = ranks.wrap(objective, compile)
    state = checkpoint.State(net, optimizer, emas=1 + len(recipe.more_emas))
    take_up(recipe, out, data, state, ranks)

    weights, averages = list(net.parameters()), [list(ema.parameters()) for ema in state.emas]
    decays = (recipe.ema, *recipe.more_emas)
    when = itertools.product(range(state.step, recipe.steps), mine)
    batches = ahead((partial(batch, recipe, data, *k) for k in when), threaded=device.type == "cuda")
    share = share_of_peak(recipe, data, device, ranks)
    start = last = time.perf_counter()
    seen, began = state.images, state.step
    with open(out / "metrics.jsonl", "a") if ranks.first else open(os.devnull, "w") as log:
        while state.step < recipe.steps:
            optimizer.zero_grad(set_to_none=True)
            steps = []
            for part in mine:
                x, y = next(batches)
                g = generator(device, recipe.seed, DRAWS, part, state.step)
                draws = draw(x.to(device), None if y is None else y.to(device), recipe.draws, g, net.guided)
                with ranks.last_only(loss, part == mine[-1]):
                    steps.append(loss(draws))
                    (steps[-1].loss / len(mine)).backward()
            # the one host read of a step that is not logged
            grad_norm = float(torch.nn.utils.get_total_norm([p.grad for p in weights]))
            if not math.isfinite(grad_norm):
                raise NonFiniteError(non_finite(out, state.step, grad_norm, float(steps[-1].loss.detach())))
            if state.step == began:
                ranks.agree(grad_norm, "gradients")
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
                                seconds=now - start, images_per_s=rate, peak_share=share and rate * share,
                                device=str(device))  # fmt: skip
                log.write(json.dumps(record._asdict()) + "\n")
                log.flush()
                yield record
            if state.step % recipe.save_every == 0 or state.step == recipe.steps:
                if ranks.size > 1:
                    ranks.agree(float(torch.nn.utils.get_total_norm(weights)), "weights")
                if ranks.first:
                    checkpoint.save(out / "checkpoints", state, recipe.keep)
                ranks.wait()


def batch(recipe: Recipe, data: Data, step: int, part: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Data of one micro-batch of an update: they depend on its number, not on who asks."""
    rows = batch_indices(len(data.train), recipe, step).chunk(recipe.parts)[part]
    return data.train.batch(rows, recipe.seed, POSTERIOR, part, step)


def ahead(jobs: Iterable[Callable], threaded: bool) -> Iterator:
    """What the jobs return, in order; in a thread one job is done ahead, while the device computes."""
    if not threaded:
        yield from (job() for job in jobs)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for job in jobs:
            following = pool.submit(job)
            if coming:
                yield coming.result()
            coming = following
        if coming:
            yield coming.result()


def pick_device(name: str | None = None) -> torch.device:
    """The device named, or the best there is: cuda, mps, cpu. Raises ValueError for one that is not there."""
    if name:
        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): leave it out."
            ) from error
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def set_precision(precision: str) -> None:
    """Float32 products in TF32, where the device has it, unless they are asked for as fp32."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def share_of_peak(recipe: Recipe, data: Data, device: torch.device, ranks: Ranks) -> float | None:
    """Share of the devices' peak that one image a second makes; None where the peak is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = flops.peak(name, recipe.precision)
    return peak and flops.per_image(recipe, data.train.shape, data.num_classes) / (peak * ranks.size)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up from 0; "linear" decay multiplies it by the share of the updates still to come."""
    warm = min(step / recipe.warmup, 1.0) if recipe.warmup else 1.0
    return recipe.lr * warm * (1 - step / recipe.steps if recipe.decay == "linear" else 1.0)


def batch_indices(n: int, recipe: Recipe, step: int) -> torch.Tensor:
    """Rows of batch `step`: each epoch is a permutation fixed by (seed, epoch), its remainder dropped."""
    epoch, k = divmod(step, n // recipe.batch)
    return epoch_order(n, recipe.seed, epoch)[k * recipe.batch : (k + 1) * recipe.batch]


@lru_cache(maxsize=1)
def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of an epoch, kept while it lasts."""
    return torch.randperm(n, generator=generator("cpu", seed, ORDER, epoch))


def means(steps: Sequence[Step], ranks: Ranks | None = None) -> dict:
    """The per-row records of an update's micro-batches, of all ranks, reduced for the log."""
    losses = torch.stack([s.loss.detach() for s in steps])[None]
    rows = torch.cat([per_row(s) for s in steps], 1)
    if ranks:
        losses, rows = ranks.gather(losses), ranks.gather(rows)
    raw_u, raw_v, t, h, h_du_dt = rows.float().cpu().numpy()
    neq, bins = h > 0, np.minimum((t * T_BINS).astype(int), T_BINS - 1)

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) and not np.isnan(values).any() else None

    def by_t(values: np.ndarray, bins: np.ndarray = bins) -> list[float | None]:
        total, count = np.bincount(bins, values, T_BINS), np.bincount(bins, minlength=T_BINS)
        return [None if n == 0 or np.isnan(s) else float(s / n) for s, n in zip(total, count, strict=True)]

    return {
        "loss": float(losses.mean()),
        "raw_u_eq": mean(raw_u[~neq]),
        "raw_u_neq": mean(raw_u[neq]),
        "raw_v_eq": mean(raw_v[~neq]),
        "raw_v_neq": mean(raw_v[neq]),
        "h_du_dt": mean(h_du_dt[neq]),
        "raw_u_by_t": by_t(raw_u),
        "raw_v_by_t": by_t(raw_v),
        "du_dt_by_t": by_t(h_du_dt[neq] / h[neq], bins[neq]),
    }


def per_row(step: Step) -> torch.Tensor:
    """The records of a step as (5, B): raw_u, raw_v (NaN without a head), t, h and the size of h du/dt."""
    raw_v = torch.full_like(step.raw_u, math.nan) if step.raw_v is None else step.raw_v
    return torch.stack([step.raw_u, raw_v, step.t, step.h, step.h_du_dt])


def check_training_data(recipe: Recipe, data: Data) -> None:
    """Raise ValueError for data that cannot be trained on, before anything is spent."""
    y = data.train.y
    if len(data.train) < recipe.batch:
        raise ValueError(f"batch = {recipe.batch}, but there are only {len(data.train)} samples: lower the batch.")
    if data.num_classes is not None and (y is None or y.min() < 0 or y.max() >= data.num_classes):
        raise ValueError(f"labels of the training split must be 0 to {data.num_classes - 1}.")


def take_up(recipe: Recipe, out: Path, data: Data, state: checkpoint.State, ranks: Ranks) -> None:
    """Begin a run, or go on from its newest checkpoint: one rank writes files, all read."""
    ranks.agree((recipe.to_json(), fingerprint(), torch.__version__, len(data.train)), "recipes, code or data")
    if ranks.first:
        open_run(recipe, out, data, state.net)
    ranks.wait()
    if newest := checkpoint.latest(out / "checkpoints"):
        state.restore(*checkpoint.load(newest))
    ranks.agree(state.step, "checkpoints")
    if ranks.first:
        kept = [json.dumps(r) + "\n" for r in read_metrics(out) if r["step"] <= state.step]
        checkpoint.write_text(out / "metrics.jsonl", "".join(kept))


def open_run(recipe: Recipe, out: Path, data: Data, net: Network) -> None:
    """Make a run's folder, or see that it holds the same run."""
    run = out / "run.json"
    mine, code = json.loads(recipe.to_json()), fingerprint()
    if run.exists():
        before = json.loads(run.read_text())
        theirs = json.loads(Recipe.from_json(json.dumps(before["recipe"])).to_json())  # fields that are new since
        if theirs["parts"] != mine["parts"]:
            warnings.warn(f"parts were {theirs['parts']} so far: from here on other draws are made.", stacklevel=3)
        if differ := difference(theirs, mine, ("parts", "keep", "save_every")):
            raise ValueError(f"{out} holds another run: {differ}. Choose another folder, or delete it.")
        if before["code"] != code:
            warnings.warn(f"the code of the losses has changed since {out} was begun.", stacklevel=3)
            code = before["code"]
    described = {
        "recipe": mine,
        "shape": data.train.shape,
        "num_classes": data.num_classes,
        "latents": data.latents and asdict(data.latents),
        "parameters": sum(p.numel() for p in net.parameters()),
        "device": str(next(net.parameters()).device),
        "code": code,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    checkpoint.write_text(run, json.dumps(described, indent=1))
    for leftover in (out / "checkpoints").glob("*.tmp"):
        leftover.unlink()


def read_metrics(out: str | Path) -> list[dict]:
    """The records of a run so far, also while it trains (a line half written is left out)."""
    path = Path(out) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def load_network(out: str | Path, device: str | None = None, ema: int = 0) -> Network:
    """The EMA network of a run, from its newest checkpoint; ema: which of several decays.

    Raises ValueError where there is none.
    """
    out, device = Path(out), pick_device(device)
    newest = checkpoint.latest(out / "checkpoints")
    if newest is None:
        raise ValueError(f"{out} holds no checkpoint: train first, e.g. `imf-lite train digits_imf --out {out}`.")
    run = about(out)
    recipe = Recipe.from_json(json.dumps(run["recipe"]))
    net = build(recipe.net, run["shape"], run["num_classes"])
    tensors, _ = checkpoint.load(newest)
    prefix = f"ema{ema or ''}/"
    if not any(k.startswith(prefix) for k in tensors):
        raise ValueError(f"{out} has no average number {ema}: its recipe's more_emas are {recipe.more_emas}.")
    net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return net.to(device).eval().requires_grad_(False)


def sampler_of(out: str | Path) -> Callable:
    """How a run's network samples: flow matching steps along v, the others along u."""
    return euler if about(out)["recipe"]["method"] == "fm" else sample


def images_of(out: str | Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """How samples of a run become uint8 images: latents by the autoencoder that made them."""
    return to_images(about(out)["latents"])


def about(out: str | Path) -> dict:
    """What run.json says of a run: recipe, shape, classes, latents, code. Raises ValueError where there is no run."""
    path = Path(out) / "run.json"
    if not path.exists():
        raise ValueError(f"{out} holds no run: train first, e.g. `imf-lite train digits_imf --out {out}`.")
    return json.loads(path.read_text())


def difference(theirs: dict, mine: dict, but: tuple[str, ...] = ()) -> str:
    """The fields in which two recipes differ, but for some."""
    return ", ".join(f"{k} = {theirs[k]!r}, not {v!r}" for k, v in mine.items() if theirs[k] != v and k not in but)


def fingerprint() -> str:
    """SHA-256 of the code that decides what is computed: losses, draws, guidance, objective.

    Comments, docstrings and white space do not count.
    """
    names = ("losses.py", "draws.py", "guidance.py", "objective.py")
    text = "".join((Path(__file__).parent / name).read_text() for name in names)
    code = re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)
    return hashlib.sha256(" ".join(code.split()).encode()).hexdigest()[:16]


def non_finite(out: Path, step: int, grad_norm: float, loss: float) -> str:
    """What to say when a gradient is not finite."""
    kept = checkpoint.latest(out / "checkpoints")
    return (
        f"gradient norm {grad_norm} (loss {loss}) at update {step + 1}; stopped before the update. "
        f"Last good checkpoint: {kept or 'none yet'}. Try a lower lr, a warm-up, or another seed."
    )
