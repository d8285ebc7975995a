"""What Fashion-MNIST's networks are trained on and judged by: classifiers, autoencoder, reference features, latents."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tqdm import tqdm

from imf_lite.cli.prepare import show_progress
from imf_lite.data import fashion, preparation, sources
from imf_lite.data.autoencoder import load_vae
from imf_lite.data.normalisation import Latents
from imf_lite.evaluation import extractors, metrics, references
from imf_lite.evaluation.classifiers import Classifier, fashion_net, train_classifier
from imf_lite.evaluation.perceptual import eye_net
from imf_lite.system import files
from imf_lite.system.paths import data_folder
from imf_lite.training import checkpoint
from imf_lite.training.vae_loop import VAERecipe, train_vae

FLOORS = (1000, 2000, 5000, 10_000, 50_000)


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
    path = made / "floors.json"
    if path.exists() and json.loads(path.read_text())["floors"].keys() >= set(map(str, FLOORS)):
        return

    splits = [fashion.load_images(split) for split in ("train", "test")]
    train, test = (extractors.extract(images, "fashion") for images, _ in splits)
    files.write_tensors(made / "reference.safetensors", {"features": test.half()})
    description = "Fashion-MNIST's test split, 10,000 images; floors: disjoint sets of n and of 10,000 from both splits"
    labels = torch.cat([y for _, y in splits])
    both = torch.cat([train, test])
    floors = {n: metrics.floor(both, labels, n, len(test)) for n in FLOORS}
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
    files.write_text(path, json.dumps(stored, indent=1))


def prepare(batch: int = 250) -> None:
    """Encode both splits as latents, in the data folder."""
    vae = load_vae("fashion")
    for split in ("train", "test"):
        out = data_folder() / "latents" / "fashion" / split
        steps = preparation.prepare(sources.Fashion(split), vae, "fashion", out, batch=batch)
        show_progress(steps, split)
