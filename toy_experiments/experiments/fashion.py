"""Fashion-MNIST from scratch: classifier, autoencoder, latents, five networks, and what they score.

    python -m toy_experiments.experiments.fashion            # or make fashion: about four hours on two CPU cores

Every stage resumes, and what is finished is not done again. Everything is made in runs/fashion; only when the
last stage has finished does it replace what ships: imf_lite/pretrained/fashion and results/fashion*.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from imf_lite import recipes, training
from imf_lite.cli.prepare import show_progress
from imf_lite.configs import Fixed
from imf_lite.data import fashion, preparation, sources
from imf_lite.data.autoencoder import load_vae
from imf_lite.data.normalisation import Latents
from imf_lite.evaluation import extractors, metrics, references
from imf_lite.evaluation.classifiers import Classifier, fashion_net, train_classifier
from imf_lite.evaluation.perceptual import eye_net
from imf_lite.pretrained import weights
from imf_lite.system import files
from imf_lite.system.paths import data_folder, pretrained_folder
from imf_lite.training import checkpoint
from imf_lite.training.vae_loop import VAERecipe, train_vae

from ..ground_truth import copies
from ..tables import RESULTS, write_table
from .runs import curve, follow, map_jobs

RECIPES = ("fashion_imf", "fashion_mf", "fashion_imf_plain", "fashion_mf_plain", "fashion_fm_plain")
SHIPPED = ("fashion_imf", "fashion_imf_plain", "fashion_mf_plain", "fashion_fm_plain")
FLOORS = (1000, 2000, 5000, 10_000)
N = 2000
SEEDS = (("choose", 100), ("report", 0), ("report", 1), ("report", 2))
ALWAYS, SOMETIMES = (0.0, 1.0), (0.2, 0.8)
OMEGAS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
GUIDANCE = {
    # evaluations: scales and intervals that are tried
    1: [*((omega, ALWAYS) for omega in OMEGAS), *((omega, SOMETIMES) for omega in (1.0, 2.0, 4.0, 8.0))],
    2: [(omega, ALWAYS) for omega in (1.0, 2.0, 4.0)],
}
MEASUREMENT = ("nfe", "omega", "t_min", "t_max", "half", "seed")  # what tells one from another
CURVE_EVERY = 500


def classifiers(made: Path, work: Path, epochs: int) -> None:
    """Train the FID's classifier and that of the autoencoder's perceptual term."""
    jobs = {
        made / "classifier.safetensors": (fashion_net, 8, 0),
        work / "perceptual.safetensors": (eye_net, 2, 1),
    }
    for path, (make, full, seed) in jobs.items():
        if not path.exists():
            net = train_classifier(make, *fashion.load_images("train"), min(epochs, full), batch=128, seed=seed)
            tensors = rounded(net)
            files.write_tensors(path, tensors)
            net.load_state_dict(tensors)  # what is kept is what is measured
            print(f"{path.name}: {100 * accuracy(net):.2f} % of the test split")


@torch.no_grad()
def accuracy(net: Classifier) -> float:
    """Share of the test split that a classifier gets right."""
    images, y = fashion.load_images("test")
    return float((torch.cat([net(part)[1].argmax(1) for part in images.split(500)]) == y).float().mean())


def rounded(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's tensors, floating-point ones as fp16: half the size."""
    return {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}


def autoencoder(made: Path, work: Path, recipe: VAERecipe) -> None:
    """Train the autoencoder and store it in diffusers' format, in half precision."""
    if (made / "vae").exists():
        return
    net = eye_net()
    net.load_state_dict(checkpoint.load(work / "perceptual.safetensors")[0])
    images, _ = fashion.load_images("train")
    updates = train_vae(images, recipe, net.eval().requires_grad_(False), work / "autoencoder")
    with tqdm(total=recipe.steps, desc="autoencoder", unit="update") as bar:
        for step, loss in updates:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
    load_vae(work / "autoencoder" / "vae").half().save_pretrained(work / "half")
    config = json.loads((work / "half" / "config.json").read_text())
    config.pop("_name_or_path", None)  # where it was made
    files.write_text(work / "half" / "config.json", json.dumps(config, indent=2))
    (work / "half").rename(made / "vae")


def reference_features(made: Path) -> None:
    """Store the test split's features, and what real images and the autoencoder's reconstructions score."""
    if (made / "floors.json").exists():
        return

    splits = [fashion.load_images(split) for split in ("train", "test")]
    train, test = (extractors.extract(images, "fashion") for images, _ in splits)
    files.write_tensors(made / "reference.safetensors", {"features": test.half()})
    description = "Fashion-MNIST's test split, 10,000 images; floors: disjoint sets of n and of 10,000 from both splits"
    labels = torch.cat([y for _, y in splits])
    both = torch.cat([train, test])
    floors = {n: metrics.floor(both, labels, n, len(test)) for n in FLOORS if n <= len(test)}
    with torch.no_grad():
        vae = load_vae("fashion")
        raw = torch.cat([vae.encode(x.float() / 127.5 - 1).latent_dist.mean for x in splits[1][0].split(250)])
        copies = Latents("fashion", (0.0,) * raw.shape[1], (1.0,) * raw.shape[1]).images(raw, vae)
    copied = extractors.extract(copies, "fashion")
    against_train = {
        "test split": metrics.compare(test, references.from_features(train, "training split")),
        "its copies by the autoencoder": metrics.compare(copied, references.from_features(train, "")),
        "copies against the test split": metrics.compare(copied, references.from_features(test, "")),
    }
    stored = {"about": description, "floors": floors, "bound": against_train}
    files.write_text(made / "floors.json", json.dumps(stored, indent=1))


def prepare(batch: int = 250) -> None:
    """Encode both splits as latents, in the data folder."""
    vae = load_vae("fashion")
    for split in ("train", "test"):
        out = data_folder() / "latents" / "fashion" / split
        steps = preparation.prepare(sources.Fashion(split), vae, "fashion", out, batch=batch)
        show_progress(steps, split)


def network(name: str, work: Path, made: Path, steps: int | None) -> list[dict]:
    """Train one recipe, keep its averaged weights as fp16 without the v-branch, and measure them: rows of the table."""
    recipe = recipes.get(name, **({"steps": steps} if steps else {}))
    out, folder = work / name, (made if name in SHIPPED else work) / "networks" / name
    net, evaluator = trained(recipe, out, folder, made, CURVE_EVERY)
    return scores(name, recipe, net, evaluator, out)


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
    wanted = [(nfe, *setting) for nfe, settings in GUIDANCE.items() for setting in settings]
    if net.guided == "no":
        wanted = [(nfe, None, None) for nfe in ((1, 2, 4, 64) if recipe.method == "fm" else (1, 2, 4))]
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


def curves(work: Path) -> list[dict]:
    """For every run, at each point of its curve: one-step quality, and the minutes of training until then."""
    return [row for name in RECIPES for row in curve(name, work / name)]


def keep(made: Path, work: Path) -> None:
    """Store arrays for the lesson: the runs' raw losses, samples, and whether they are copies of training images."""
    raw = {name: [r["raw_u_neq"] for r in training.read_metrics(work / name)] for name in RECIPES}
    losses = {f"raw_{name}": np.array(values, np.float32) for name, values in raw.items()}  # NaN: no such row
    np.savez_compressed(work / "fashion.npz", **copies.of_network(made / "networks" / "fashion_imf", N), **losses)


def keep_copies(out: Path) -> None:
    """Look for copies among the shipped network's samples again, and leave the other arrays as they are."""
    found = copies.of_network(pretrained_folder("fashion") / "networks" / "fashion_imf", N)
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
    work: Path = Path("runs/fashion"),
    out: Path = RESULTS,
    steps: int | None = None,
    vae: VAERecipe = VAERecipe(),
    epochs: int = 8,
    ship: Path | None = None,
    copies_only: bool = False,
) -> None:
    """Make everything, then replace what ships.

    Args:
        work: folder of all that is made on the way.
        out: folder of the results, if something is replaced.
        steps: updates of each network; default: the recipe's.
        vae: the autoencoder's recipe.
        epochs: of the classifiers, at most.
        ship: folder to replace at the end; default: what ships with the package, or nothing if steps, vae or epochs
            are not the defaults.
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
    classifiers(made, work, epochs)
    autoencoder(made, work, vae)
    reference_features(made)
    prepare()
    rows = itertools.chain(*map_jobs(network, RECIPES, work, made, steps))
    write_table(work / "fashion.csv", list(rows))
    write_table(work / "fashion_curves.csv", curves(work))
    keep(made, work)
    if ship:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("fashion.csv", "fashion_curves.csv", "fashion.npz"):
            shutil.copyfile(work / name, out / name)
        publish(made, ship)


if __name__ == "__main__":
    tyro.cli(main)
