"""Fashion-MNIST's networks: five recipes, the way from MF to iMF one change at a time, and what each scores.

One training ranks nothing, so each can be trained by several seeds; for a seed all have the same data order and draws.
 The bridge leads from guided MF to guided iMF; each of its steps differs from its neighbour in one thing.
"""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from imf_lite import recipes, training
from imf_lite.configs import Fixed, Flexible
from imf_lite.pretrained import weights
from imf_lite.system import files

from .runs import curve, follow

RECIPES = ("fashion_imf", "fashion_mf", "fashion_imf_plain", "fashion_mf_plain", "fashion_fm_plain")
SHIPPED = ("fashion_imf", "fashion_imf_plain", "fashion_mf_plain", "fashion_fm_plain")
TO_IMF = {
    # from fashion_mf: MF's loss, adaLN-zero, one scale baked in
    "bridge_boundary": {"method": "imf"},
    "bridge_head": {"method": "imf", "net.v_depth": 3},
    "bridge_omega": {"method": "imf", "net.v_depth": 3, "net.guided": "omega", "guidance": Flexible()},
    "bridge_interval": {"method": "imf", "net.v_depth": 3, "net.guided": "interval", "guidance": Flexible()},
    # to fashion_imf, whose conditions are tokens: classic blocks, as before, and then modern ones
}
BRIDGE = (*TO_IMF, "bridge_tokens")
LONGER = {f"{name}_longer": name for name in ("fashion_imf", "fashion_mf", "fashion_imf_plain", "fashion_mf_plain")}
"""four times the updates and the warm-up"""
N = 2000
SEEDS = (("choose", 100), ("report", 0), ("report", 1), ("report", 2))
ALWAYS, SOMETIMES = (0.0, 1.0), (0.2, 0.8)
OMEGAS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
GUIDANCE: dict[int, list] = {
    # evaluations: scales and intervals that are tried
    1: [*((omega, ALWAYS) for omega in OMEGAS), *((omega, SOMETIMES) for omega in (1.0, 2.0, 4.0, 8.0))],
    2: [(omega, ALWAYS) for omega in (1.0, 2.0, 4.0)],
}
MEASUREMENT = ("nfe", "omega", "t_min", "t_max", "half", "seed")  # what tells one from another
CURVE_EVERY = 500


class Training(NamedTuple):
    """One training: a network's name and its seed."""

    network: str
    seed: int

    @property
    def folder(self) -> str:
        """Name of its folders."""
        return f"{self.network}-{self.seed}"


def recipe(name: str, seed: int = 0) -> recipes.Recipe:
    """The run called `name`, by a seed."""
    if name == "bridge_tokens":
        return recipes.override(recipes.get("fashion_imf", seed=seed), {"name": name, "net.modern": False})
    if name in TO_IMF:
        return recipes.override(recipes.get("fashion_mf", seed=seed), {"name": name, **TO_IMF[name]})
    if name in LONGER:
        short = recipes.get(LONGER[name], seed=seed)
        return recipes.override(short, {"name": name, "steps": 4 * short.steps, "warmup": 4 * short.warmup})
    return recipes.get(name, seed=seed)


def train_and_measure(job: Training, work: Path, made: Path, steps: int | None) -> list[dict]:
    """Train, keep the averaged weights as fp16 without the v-branch in `work`/networks, and measure them: rows."""
    chosen, out = recipe(*job), work / "runs" / job.folder
    chosen = recipes.override(chosen, {"steps": steps}) if steps else chosen
    net, evaluator = trained(chosen, out, work / "networks" / job.folder, made, CURVE_EVERY)
    return [{"training": job.seed, **row} for row in scores(job.network, chosen, net, evaluator, out)]


def trained(recipe: recipes.Recipe, out: Path, folder: Path, made: Path, every: int) -> tuple:
    """Train a recipe in `out`, keep its averaged weights in `folder`: that network as it is stored, and its evaluator.

    made: where classifier and reference lie. every: updates between two points of its curve.
    """
    evaluator = follow(recipe, out, partial(evaluator_of, made, out), every)
    notes = {k: training.read_run(out)[k] for k in ("recipe", "latents", "classes")}
    weights.save_pretrained(weights.without_v(training.load_network(out, "cpu")), folder, notes, torch.float16)
    return weights.load(folder), evaluator


def evaluator_of(made: Path, run: Path):
    """The evaluator of a run's samples."""
    from imf_lite.evaluation.evaluator import StoredEvaluator

    return StoredEvaluator(made, training.images_of(run), "fashion")


def scores(name: str, recipe: recipes.Recipe, net, evaluator, out: Path) -> list[dict]:
    """What a network scores, guided ones over scales and intervals: on one seed to choose by, and three to report."""
    wanted: list = [(nfe, None, None) for nfe in ((1, 2, 4, 64) if recipe.method == "fm" else (1, 2, 4))]
    if net.guided != "no":
        wanted = [(nfe, *setting) for nfe, settings in GUIDANCE.items() for setting in settings]
    if net.guided == "omega":
        wanted = [(nfe, omega, None) for nfe, omega, interval in wanted if interval == ALWAYS]
    return measure(name, recipe, net, evaluator, out, wanted, SEEDS)


def measure(
    name: str, recipe: recipes.Recipe, net, evaluator, out: Path,
    wanted: list[tuple[int, float | None, tuple[float, float] | None]], seeds: tuple[tuple[str, int], ...],
) -> list[dict]:  # fmt: skip
    """Scores at evaluations, scales and intervals, on noise by each of the seeds; what is known is not made again."""
    baked = recipe.guidance.omega if isinstance(recipe.guidance, Fixed) else 1.0
    measured, path = {}, out / "scores.jsonl"
    if path.exists():
        rows = map(json.loads, path.read_text().splitlines())
        measured = {tuple(r[k] for k in MEASUREMENT): r for r in rows}
    order = []
    for (nfe, omega, interval), (half, seed) in itertools.product(wanted, seeds):
        key = (nfe, omega or baked, *(interval or ALWAYS), half, seed)
        order.append(key)
        if key not in measured:
            score = evaluator(net, nfe, N, seed, training.sampler_of(out), omega, interval)
            row = {"network": name, **dict(zip(MEASUREMENT, key, strict=True)), "n": N}
            row |= {k: score[k] for k in ("fid", "kid", "precision", "recall", "agreement")}
            measured[key] = row | {"floor": score["floor"]["fid"], "code": training.fingerprint()}
            files.write_text(path, "".join(json.dumps(row) + "\n" for row in measured.values()))
    return [measured[key] for key in order]


def course(job: Training, work: Path) -> list[dict]:
    """One-step quality over the updates of a training, and the minutes until then."""
    return [{"training": job.seed, **row} for row in curve(job.network, work / "runs" / job.folder)]


RULE = "the median, or the lower of two, in the FID of one step at its best setting, on noise that nothing else uses"


def median_training(rows: list[dict], network: str) -> int:
    """Seed of the training that ships, by RULE; rows: of the table."""
    best: dict[int, float] = {}
    for row in rows:
        if (row["network"], row["nfe"], row["half"]) == (network, 1, "choose"):
            best[row["training"]] = min(row["fid"], best.get(row["training"], float("inf")))
    return sorted(best, key=lambda k: (best[k], k))[(len(best) - 1) // 2]
