"""Fashion-MNIST from scratch: classifier, autoencoder, latents, networks, and what they score.

    python -m toy_experiments.experiments.fashion            # or make fashion: about four hours on two CPU cores
    python -m toy_experiments.experiments.fashion --seeds 3  # or make fashion SEEDS=3: three trainings, and the bridge

Every stage resumes, and what is finished is not done again. Everything is made in runs/fashion; only when the
last stage has finished does it replace what ships: imf_lite/pretrained/fashion and results/fashion*.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import tyro

from imf_lite import training
from imf_lite.pretrained import weights
from imf_lite.system import files
from imf_lite.system.paths import pretrained_folder
from imf_lite.training.vae_loop import VAERecipe

from .. import fashion_assets as assets
from ..ground_truth import copies
from ..tables import RESULTS, read_table, write_table
from . import trainings
from .runs import map_jobs
from .trainings import Training

RESULT_FILES = ("fashion.csv", "fashion_curves.csv", "fashion.npz")


def jobs(seeds: int, longer: int) -> list[Training]:
    """All trainings, the more important ones first; the bridge only where there are several seeds."""
    every = [Training(name, k) for k in range(seeds) for name in trainings.RECIPES]
    if seeds > 1:
        every += [Training(name, k) for k in range(seeds) for name in trainings.BRIDGE]
    return every + [Training(name, k) for k in range(longer) for name in trainings.LONGER]


@contextlib.contextmanager
def timed(stage: str, work: Path) -> Iterator[None]:
    """Add the minutes that a stage took to times.jsonl, for the README; an interrupted one has several lines."""
    start = time.perf_counter()
    try:
        yield
    finally:
        minutes = (time.perf_counter() - start) / 60
        print(f"{stage}: {minutes:.1f} minutes", flush=True)
        with (work / "times.jsonl").open("a") as file:
            file.write(json.dumps({"stage": stage, "minutes": round(minutes, 2)}) + "\n")


def choose(rows: list[dict], work: Path, made: Path, seeds: int) -> None:
    """Copy the trainings that ship to what was made, with the rule by which each was chosen."""
    for name in trainings.SHIPPED:
        k = trainings.median_training(rows, name)
        source, target = work / "networks" / Training(name, k).folder, made / "networks" / name
        notes = weights.read_notes(source) | {"training": {"seed": k, "of": seeds, "rule": trainings.RULE}}
        weights.save_pretrained(weights.load(source), target, notes, torch.float16)


def keep(work: Path, made: Path) -> None:
    """Store arrays for the lesson: the raw losses of the runs by seed 0, samples, and whether they are copies."""
    runs = {name: work / "runs" / Training(name, 0).folder for name in trainings.RECIPES}
    raw = {name: [r["raw_u_neq"] for r in training.read_metrics(run)] for name, run in runs.items()}
    losses = {f"raw_{name}": np.array(values, np.float32) for name, values in raw.items()}  # NaN: no such row
    found = copies.of_network(made / "networks" / "fashion_imf", trainings.N)
    np.savez_compressed(work / "fashion.npz", **found, **losses)


def keep_copies(out: Path) -> None:
    """Look for copies among the shipped network's samples again, and leave the other arrays as they are."""
    found = copies.of_network(pretrained_folder("fashion") / "networks" / "fashion_imf", trainings.N)
    with np.load(out / "fashion.npz") as stored:
        known = dict(stored)
    np.savez_compressed(out / "fashion.npz", **known | found)


def publish(made: Path, ships: Path) -> None:
    """Replace what ships by what was made, each file at once."""
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        target = ships / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".tmp")
        shutil.copyfile(path, temporary)
        files.replace(temporary, target)


def begin(work: Path, **settings) -> None:
    """Record the settings of a folder. Raises ValueError if it was made with others."""
    path, settings = work / "settings.json", json.loads(json.dumps(settings, default=vars))
    if path.exists() and (found := json.loads(path.read_text())) != settings:
        raise ValueError(f"{work} holds a run with {found}, not {settings}: choose another folder (--work).")
    files.write_text(path, json.dumps(settings))


def main(
    work: Path = Path("runs/fashion"), out: Path = RESULTS, steps: int | None = None, vae: VAERecipe = VAERecipe(),
    epochs: int = 8, ship: Path | None = None, seeds: int = 1, longer: int = 0, copies_only: bool = False,
) -> None:  # fmt: skip
    """Make everything, then replace what ships.

    Args:
        work: folder of all that is made on the way.
        out: folder of the results, if something is replaced.
        steps: updates of each network; default: the recipe's.
        vae: the autoencoder's recipe.
        epochs: of the classifiers, at most.
        ship: folder to replace at the end; default: what ships with the package, or nothing if steps, vae or epochs
            are not the defaults.
        seeds: trainings of each network, of which the median ships; with several, also the bridge from MF to iMF. More
            can be asked for later; what is there already is not left out.
        longer: trainings of four networks with four times the updates.
        copies_only: only look for copies among the samples of what ships (a minute), and replace those results.
    """
    if copies_only:
        return keep_copies(out)
    if ship is None and (steps, vae, epochs) == (None, VAERecipe(), 8):
        ship = pretrained_folder("fashion")
    made = (work / "pretrained" / "fashion").resolve()
    made.mkdir(parents=True, exist_ok=True)
    begin(work, steps=steps, vae=vae, epochs=epochs)
    os.environ["IMF_LITE_PRETRAINED"] = str(made.parent)  # "fashion" means what is made here, in workers too
    with timed("classifiers", work):
        assets.classifiers(made, work, epochs)
    with timed("autoencoder", work):
        assets.autoencoder(made, work, vae)
    with timed("reference and latents", work):
        assets.reference_features(made)
        assets.prepare()
    before = read_table(work / "fashion.csv") if (work / "fashion.csv").exists() else []
    seeds = max([seeds, *(1 + row["training"] for row in before if row["network"] in trainings.RECIPES)])
    every = jobs(seeds, longer)
    with timed(f"{len(every)} trainings", work):
        rows = list(itertools.chain(*map_jobs(trainings.train_and_measure, every, work, made, steps)))
    write_table(work / "fashion.csv", rows)
    write_table(work / "fashion_curves.csv", [row for job in every for row in trainings.course(job, work)])
    choose(rows, work, made, seeds)
    keep(work, made)
    if ship:
        out.mkdir(parents=True, exist_ok=True)
        for name in RESULT_FILES:
            shutil.copyfile(work / name, out / name)
        publish(made, ship)


if __name__ == "__main__":
    tyro.cli(main)
