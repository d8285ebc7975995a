"""Three networks in the plane, by flow matching, MF and iMF, for the live page: same draws, data and initial weights.

    python -m toy_experiments.report.plane      # a quarter of an hour; writes imf_lite/pretrained/plane

On eight Gaussians, whose true flow is known in closed form, so that the page can draw it behind what a network says.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import tyro

from imf_lite import training
from imf_lite.pretrained.weights import save_pretrained, without_v
from imf_lite.recipes import Recipe
from imf_lite.system.paths import pretrained_folder

from ..experiments.runs import Job, map_jobs, plane, samples, train
from ..ground_truth.datasets import EIGHT
from ..ground_truth.distances import sliced_wasserstein

NFES = (1, 2, 64)
VARIANTS = {"fm": "fm", "mf": "mf", "imf": "head"}


def recipe(name: str, steps: int = 4000) -> Recipe:
    """fm, mf or imf. Wider times, so that t = 1, where one step starts, is not left out; large batches, since MF's
    gradient is noisy."""
    changes = {"steps": steps, "batch": 1024, "decay": "linear", "lr": 2e-3, "ema": 0.995, "draws.p_std": 1.6}
    return plane(VARIANTS[name], **changes)


def ship(job: Job, folder: Path, out: Path) -> str:
    """Train one and keep its u-path, with the distance of its samples to the data."""
    run = train(job, folder)
    real = EIGHT.sample(8000, torch.Generator().manual_seed(1))
    distances = {nfe: float(sliced_wasserstein(samples(run, steps=nfe), real)) for nfe in NFES}
    notes = {"recipe": json.loads(job.recipe.to_json()), "distance": distances, "code": training.fingerprint()}
    notes["data"] = {"means": EIGHT.means.tolist(), "std": EIGHT.std}
    save_pretrained(without_v(training.load_network(run, "cpu")), out / job.keys["method"], notes, torch.float16)
    return f"{job.keys['method']:4} distance by evaluations: {distances}"


def main(folder: Path = Path("runs/plane"), out: Path = pretrained_folder("plane"), steps: int = 4000) -> None:
    """Train and write all three.

    Args:
        folder: of the runs; what is there already is not trained again.
        out: folder of the networks.
        steps: updates.
    """
    jobs = [Job({"method": name}, "eight_gaussians", recipe(name, steps)) for name in VARIANTS]
    print("\n".join(map_jobs(ship, jobs, folder, out, workers=1)))


if __name__ == "__main__":
    tyro.cli(main)
