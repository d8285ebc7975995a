"""What every experiment does: train the runs that are not finished, reduce all to rows, write a table."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from imf_lite import training
from imf_lite.configs import DrawConfig, Flexible, MLPConfig
from imf_lite.recipes import Recipe, counterpart, override
from imf_lite.sampling import generate
from imf_lite.system import files

from ..ground_truth import datasets, distances
from ..tables import read_table

CURVE_N = 1000
"""samples of each point of a curve of quality over training"""
VARIANTS = {"mf": "MF", "boundary": "iMF, boundary", "head": "iMF, v-head"}


def plane(variant: str = "head", **changes) -> Recipe:
    """The paper's protocol in the plane: plain L2, no guidance, logit-normal times, half the rows r = t.

    variant: "head" or "boundary" (iMF), "mf" or "fm"; all else is equal.
    """
    head = Recipe(
        name="plane_imf",
        method="imf",
        data="a point set of toy_experiments",
        net=MLPConfig(width=128, depth=4, time_scale=3.0, v_depth=1),
        draws=DrawConfig(),
        p=0.0,
        steps=1200,
        batch=256,
        lr=1e-3,
        betas=(0.9, 0.999),
        ema=0.99,
        save_every=100_000,
    )
    recipe = {
        "head": lambda: head,
        "boundary": lambda: override(head, {"name": "plane_imf_boundary", "net.v_depth": None}),
        "mf": lambda: counterpart(head, "mf"),
        "fm": lambda: counterpart(head, "fm"),
    }[variant]()
    return override(recipe, changes)


def plane_guided(**changes) -> Recipe:
    """iMF with scale and interval as inputs, on a mixture whose components are classes (`datasets.load_classes`)."""
    net = MLPConfig(width=128, depth=4, time_scale=3.0, v_depth=1, guided="interval")
    guided = {
        "name": "plane_guided",
        "net": net,
        "guidance": Flexible(),
        "draws.class_dropout": 0.1,
        "draws.p_std": 1.6,
    }
    return override(plane("head"), guided | {"steps": 1500, "lr": 5e-3, "decay": "linear"} | changes)


class Job(NamedTuple):
    """One run: its row's first columns, its point set and its recipe."""

    keys: dict[str, str | int | float]
    points: str
    recipe: Recipe
    slope: Callable | None = None

    @property
    def name(self) -> str:
        """The keys as the name of a folder."""
        return "-".join(str(v).replace(" ", "_").replace(",", "") for v in self.keys.values())


def train(job: Job, folder: Path) -> Path:
    """Train a job in a folder named after its keys (a finished one is taken as it is); one thread.

    A gradient that is not finite ends the run: the experiment reports it as its result.
    """
    torch.set_num_threads(1)
    out = folder / job.name
    with contextlib.suppress(training.NonFiniteError):
        for _ in training.train(job.recipe, out, datasets.load(job.points), "cpu", job.slope):
            pass
    return out


def map_jobs(work: Callable, jobs: Sequence[Job], *args, workers: int = 2) -> list:
    """work(job, *args) for every job, some at a time in processes of their own; results in order."""
    with ProcessPoolExecutor(min(workers, os.cpu_count() or 1), get_context("spawn")) as pool:
        return list(tqdm(pool.map(work, jobs, *map(itertools.repeat, args)), total=len(jobs)))


def sweep(jobs: Sequence[Job], folder: Path, reduce: Callable[[Job, Path], dict]) -> list[dict]:
    """Train all jobs and reduce each to a row of the table. Interrupted, it resumes."""
    return map_jobs(one, jobs, folder, reduce)


def one(job: Job, folder: Path, reduce: Callable[[Job, Path], dict]) -> dict:
    """Train one job and reduce it to a row."""
    return {**job.keys, **reduce(job, train(job, folder)), "code": training.fingerprint()}


def loss_summary(values: Sequence[float]) -> dict[str, float]:
    """Of a raw loss: mean of the first 50 updates, mean and step-to-step spread of the last quarter."""
    end = float(np.mean(values[-(len(values) // 4) :]))
    jumps = distances.spread(values)
    return {"start": float(np.mean(values[:50])), "end": end, "spread": jumps, "relative": jumps / end}


def thinned(values: Sequence[float], buckets: int = 100) -> np.ndarray:
    """A curve's mean and standard deviation in equal buckets of updates, (buckets, 2): enough to draw it."""
    parts = np.array_split(np.asarray(values, float), min(buckets, len(values)))
    return np.array([(p.mean(), p.std()) for p in parts])


def samples(out: Path, n: int = 8000, steps: int = 1, seed: int = 0) -> torch.Tensor:
    """Points (n, 2) from a run's EMA network; flow matching follows v, the others u."""
    return generate(training.load_network(out, "cpu"), n, steps, seed, training.sampler_of(out), batch=n)[0]


def follow(recipe: Recipe, out: Path, make_evaluator: Callable, every: int):
    """Train a recipe on one thread, compiled where that pays, and measure one-step quality every so many updates."""
    torch.set_num_threads(1)
    evaluator, record = None, None
    for record in training.train(recipe, out, device="cpu", compile="whole" if recipe.steps >= 500 else "no"):
        if record.step % every == recipe.log_every:  # just after a checkpoint
            evaluator = evaluator or make_evaluator()
            measure_newest(evaluator, out, record.step // every * every)
    evaluator = evaluator or make_evaluator()
    if record:
        measure_newest(evaluator, out, record.step)
    return evaluator


def measure_newest(evaluator, out: Path, step: int) -> None:
    """Note the one-step quality of the newest checkpoint, that of update `step`, once."""
    path = out / "curve.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    if step and all(json.loads(line)["step"] != step for line in lines):
        net = training.load_network(out, "cpu")
        score = evaluator(net, 1, CURVE_N, omega=2.0 if net.guided != "no" else None, sampler=training.sampler_of(out))
        row = {"step": step, "fid": score["fid"], "agreement": score["agreement"]}
        files.write_text(path, "\n".join([*lines, json.dumps(row)]) + "\n")


def merged(path: Path, rows: list[dict], keys: tuple[str, ...]) -> list[dict]:
    """These rows, and those of an earlier table that they do not replace."""
    known = {tuple(row[k] for k in keys) for row in rows}
    before = read_table(path) if path.exists() else []
    return [*(row for row in before if tuple(row[k] for k in keys) not in known), *rows]


def curve(name: str, out: Path) -> list[dict]:
    """The curve of one run."""
    records, code = training.read_metrics(out), training.read_run(out)["code"]
    pace = median(r["images_per_s"] for r in records)  # some records hold a compilation, some a measurement
    per_update = records[-1]["images"] / records[-1]["step"] / pace / 60
    rows = []
    for row in map(json.loads, (out / "curve.jsonl").read_text().splitlines()):
        when = {"step": row["step"], "minutes": row["step"] * per_update}
        quality = {k: row[k] for k in ("fid", "agreement")}
        rows.append({"network": name, **when, **quality, "code": code})
    return rows
