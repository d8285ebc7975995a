"""Fashion-MNIST's networks trained again by other seeds, and the way from MF to iMF one change at a time.

    python -m toy_experiments.experiments.trainings --seeds 3

One training ranks nothing: fashion.py trains every recipe by seed 0, this adds the seeds after it, with the shipped
autoencoder, classifier and reference. For a seed, all have the same data order and draws. The bridge leads from guided
MF to guided iMF; each of its steps differs from its neighbour in one thing. Scale and interval are chosen on other
noise than what is reported, for each training alone. Writes fashion-trainings.csv and fashion-trainings-curves.csv,
keeps rows that are there, and resumes where it was interrupted.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from imf_lite import recipes
from imf_lite.configs import Flexible
from imf_lite.system.paths import pretrained_folder

from ..tables import RESULTS, write_table
from . import fashion
from .runs import curve, map_jobs, merged

AGAIN = ("fashion_imf", "fashion_mf", "fashion_imf_plain", "fashion_mf_plain")
TO_IMF = {
    # from fashion_mf: MF's loss, adaLN-zero, one scale baked in
    "bridge_boundary": {"method": "imf"},
    "bridge_head": {"method": "imf", "net.v_depth": 3},
    "bridge_omega": {"method": "imf", "net.v_depth": 3, "net.guided": "omega", "guidance": Flexible()},
    "bridge_interval": {"method": "imf", "net.v_depth": 3, "net.guided": "interval", "guidance": Flexible()},
    # to fashion_imf, whose conditions are tokens: classic blocks, as before, and then modern ones
}
NAMES = (*AGAIN, *TO_IMF, "bridge_tokens")
REPORTED = tuple(seed for seed in fashion.SEEDS if seed[0] == "report")


def recipe(name: str, seed: int) -> recipes.Recipe:
    """The run called `name`, by a seed."""
    if name == "bridge_tokens":
        return recipes.override(recipes.get("fashion_imf", seed=seed), {"name": name, "net.modern": False})
    if name in TO_IMF:
        return recipes.override(recipes.get("fashion_mf", seed=seed), {"name": name, **TO_IMF[name]})
    return recipes.get(name, seed=seed)


def train(job: tuple[str, int], work: Path, steps: int | None) -> list[dict]:
    """Train a recipe by one seed and measure it: rows of the table."""
    name, seed = job
    chosen = recipe(name, seed)
    chosen = recipes.override(chosen, {"steps": steps}) if steps else chosen
    out = work / f"{name}-{seed}"
    kept, ships = out.with_name(f"{out.name}-weights"), pretrained_folder("fashion")
    net, evaluator = fashion.trained(chosen, out, kept, ships, fashion.CURVE_EVERY)
    wanted: list = [(nfe, None, None) for nfe in (1, 2, 4)]
    chosen_by: list[dict] = []
    if net.guided != "no":
        settings: list = fashion.GUIDANCE[1]  # the first is no guidance
        if net.guided == "omega":
            settings = [(omega, None) for omega, interval in settings if interval == fashion.ALWAYS]
        every = [(1, *setting) for setting in settings]
        chosen_by = fashion.measure(name, chosen, net, evaluator, out, every, fashion.SEEDS[:1])
        best = settings[min(range(len(settings)), key=lambda k: chosen_by[k]["fid"])]
        wanted = list(dict.fromkeys([every[0], (1, *best), (2, *best)]))
    rows = chosen_by + fashion.measure(name, chosen, net, evaluator, out, wanted, REPORTED)
    return [{"training": seed, **row} for row in rows]


def main(
    seeds: int = 3, which: tuple[int, ...] | None = None, only: tuple[str, ...] = NAMES, steps: int | None = None,
    out: Path = RESULTS, work: Path = Path("runs/trainings"), workers: int = 2,
) -> None:  # fmt: skip
    """Train and measure; rows of trainings that are not asked for stay as they are.

    Args:
        seeds: trainings of each recipe, by seeds 0, 1, ...; seed 0 of the recipes that fashion.py trains is there.
        which: only these seeds, even 0.
        only: names of the runs.
        steps: updates of each; default: the recipe's.
        out: folder of the results.
        work: folder of the runs.
        workers: processes.
    """
    if unknown := set(only) - set(NAMES):
        raise ValueError(f"there is no run {sorted(unknown)[0]!r} here: choose among {', '.join(NAMES)}.")
    fashion.prepare()
    jobs = [(name, k) for k in which or range(seeds) for name in only if which or k or name not in AGAIN]
    rows = map_jobs(train, jobs, work, steps, workers=workers)
    out.mkdir(parents=True, exist_ok=True)
    path, keys = out / "fashion-trainings.csv", ("network", "training")
    write_table(path, merged(path, [row for of in rows for row in of], keys))
    courses = [{"training": k, **row} for name, k in jobs for row in curve(name, work / f"{name}-{k}")]
    path = out / "fashion-trainings-curves.csv"
    write_table(path, merged(path, courses, keys))


if __name__ == "__main__":
    tyro.cli(main)
