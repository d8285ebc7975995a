"""One training loop, from toy to ImageNet: a generator of records.

    for record in train(get("digits_imf"), "runs/mine"):
        print(record.step, record.raw_u_neq)

A run's folder holds run.json (recipe, code, machine), metrics.jsonl and checkpoints/. Calling
`train` again with the same recipe and folder goes on where the last checkpoint stands.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import checkpoint, guidance, losses
from .data import Data, load
from .draws import draw
from .latents import to_images
from .networks import Network, build
from .objective import Objective, Step
from .recipes import Recipe
from .rng import generator
from .sampling import euler, sample

T_BINS = 10
ORDER, DRAWS, POSTERIOR = 1, 2, 3  # streams of random numbers


class Record(NamedTuple):
    """One line of metrics.jsonl: the batch of update `step`. Raw errors are squared norms, before weighting.

    eq, neq: mean over rows with r = t, r < t; by_t: mean in ten equal bins of t. None: no such row.
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
    out, device = Path(out), pick_device(device)
    data = data or load(recipe.data, recipe.normalisation)
    check_training_data(recipe, data)
    shape = data.train.shape
    net = build(recipe.net, shape, data.num_classes, recipe.seed).to(device)
    optimizer = torch.optim.AdamW(
        net.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=device.type != "mps"
    )
    objective = Objective(net, recipe.method, recipe.p, recipe.c, guidance.rule(recipe.method, recipe.guidance), slope)
    loss = torch.compile(objective, dynamic=False) if compile else objective
    state = checkpoint.State(net, optimizer)
    open_run(recipe, out, shape, data, state)

    average, weights = list(state.ema.parameters()), list(net.parameters())
    start = last = time.perf_counter()
    seen = state.images
    with open(out / "metrics.jsonl", "a") as log:
        while state.step < recipe.steps:
            rows = batch_indices(len(data.train), recipe, state.step)
            x, y = data.train.batch(rows, recipe.seed, POSTERIOR, 0, state.step)
            y = None if y is None else y.to(device)
            g = generator(device, recipe.seed, DRAWS, 0, state.step)
            draws = draw(x.to(device), y, recipe.draws, g, net.guided)
            optimizer.zero_grad(set_to_none=True)
            step = loss(draws)
            step.loss.backward()
            # the one host read of a step that is not logged
            grad_norm = float(torch.nn.utils.get_total_norm([p.grad for p in weights]))
            if not math.isfinite(grad_norm):
                raise NonFiniteError(non_finite(out, state.step, grad_norm, float(step.loss.detach())))
            for group in optimizer.param_groups:
                group["lr"] = lr = learning_rate(recipe, state.step)
            optimizer.step()
            torch._foreach_lerp_(average, weights, 1 - recipe.ema)
            state.step, state.images = state.step + 1, state.images + len(x)

            if state.step % recipe.log_every == 0 or state.step == recipe.steps:
                now = time.perf_counter()
                rate, last, seen = (state.images - seen) / (now - last), now, state.images
                record = Record(state.step, state.images, **means(step), lr=lr, grad_norm=grad_norm,
                                seconds=now - start, images_per_s=rate, device=str(device))  # fmt: skip
                log.write(json.dumps(record._asdict()) + "\n")
                log.flush()
                yield record
            if state.step % recipe.save_every == 0 or state.step == recipe.steps:
                checkpoint.save(out / "checkpoints", state)


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


def means(step: Step) -> dict:
    """The per-row records of a step, reduced for the log."""
    none = torch.full_like(step.raw_u, math.nan)
    rows = torch.stack([step.raw_u, none if step.raw_v is None else step.raw_v, step.t, step.h, step.h_du_dt])
    raw_u, raw_v, t, h, h_du_dt = rows.float().cpu().numpy()
    neq, bins = h > 0, np.minimum((t * T_BINS).astype(int), T_BINS - 1)

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) and not np.isnan(values).any() else None

    def by_t(values: np.ndarray, bins: np.ndarray = bins) -> list[float | None]:
        total, count = np.bincount(bins, values, T_BINS), np.bincount(bins, minlength=T_BINS)
        return [None if n == 0 or np.isnan(s) else float(s / n) for s, n in zip(total, count, strict=True)]

    return {
        "loss": float(step.loss.detach()),
        "raw_u_eq": mean(raw_u[~neq]),
        "raw_u_neq": mean(raw_u[neq]),
        "raw_v_eq": mean(raw_v[~neq]),
        "raw_v_neq": mean(raw_v[neq]),
        "h_du_dt": mean(h_du_dt[neq]),
        "raw_u_by_t": by_t(raw_u),
        "raw_v_by_t": by_t(raw_v),
        "du_dt_by_t": by_t(h_du_dt[neq] / h[neq], bins[neq]),
    }


def check_training_data(recipe: Recipe, data: Data) -> None:
    """Raise ValueError for data that cannot be trained on, before anything is spent."""
    y = data.train.y
    if len(data.train) < recipe.batch:
        raise ValueError(f"batch = {recipe.batch}, but there are only {len(data.train)} samples: lower the batch.")
    if data.num_classes is not None and (y is None or y.min() < 0 or y.max() >= data.num_classes):
        raise ValueError(f"labels of the training split must be 0 to {data.num_classes - 1}.")


def open_run(recipe: Recipe, out: Path, shape: tuple[int, ...], data: Data, state: checkpoint.State) -> None:
    """Make a run's folder, or take it up again: restore the newest checkpoint, cut the log to it."""
    run, metrics = out / "run.json", out / "metrics.jsonl"
    mine, code = json.loads(recipe.to_json()), fingerprint()
    if run.exists():
        before = json.loads(run.read_text())
        if before["recipe"] != mine:
            differ = difference(before["recipe"], mine)
            raise ValueError(f"{out} holds another run: {differ}. Choose another folder, or delete it.")
        if before["code"] != code:
            warnings.warn(f"the code of the losses has changed since {out} was begun.", stacklevel=3)
            code = before["code"]
    described = {
        "recipe": mine,
        "shape": shape,
        "num_classes": data.num_classes,
        "latents": data.latents and asdict(data.latents),
        "parameters": sum(p.numel() for p in state.net.parameters()),
        "device": str(next(state.net.parameters()).device),
        "code": code,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    checkpoint.write_text(run, json.dumps(described, indent=1))
    for leftover in (out / "checkpoints").glob("*.tmp"):
        leftover.unlink()
    if newest := checkpoint.latest(out / "checkpoints"):
        state.restore(*checkpoint.load(newest))
    kept = [json.dumps(r) + "\n" for r in read_metrics(out) if r["step"] <= state.step]
    checkpoint.write_text(metrics, "".join(kept))


def read_metrics(out: str | Path) -> list[dict]:
    """The records of a run so far, also while it trains (a line half written is left out)."""
    path = Path(out) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def load_network(out: str | Path, device: str | None = None) -> Network:
    """The EMA network of a run, from its newest checkpoint. Raises ValueError where there is none."""
    out, device = Path(out), pick_device(device)
    newest = checkpoint.latest(out / "checkpoints")
    if newest is None:
        raise ValueError(f"{out} holds no checkpoint: train first, e.g. `imf-lite train digits_imf --out {out}`.")
    run = about(out)
    recipe = Recipe.from_json(json.dumps(run["recipe"]))
    net = build(recipe.net, run["shape"], run["num_classes"])
    tensors, _ = checkpoint.load(newest)
    net.load_state_dict({k.removeprefix("ema/"): v for k, v in tensors.items() if k.startswith("ema/")})
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


def difference(theirs: dict, mine: dict) -> str:
    """The fields in which two recipes differ."""
    return ", ".join(f"{k} = {theirs.get(k)!r}, not {v!r}" for k, v in mine.items() if theirs.get(k) != v)


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
