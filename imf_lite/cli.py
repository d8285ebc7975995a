"""The imf-lite command: prepare, train, sample, evaluate, recipes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Union

import numpy as np
import tyro
from tqdm import tqdm

from . import checkpoint, data, training
from . import weights as trained
from .data import latents, sources
from .folders import data_folder, pretrained
from .images import grid, save_png, to_uint8
from .latents import Latents, named
from .recipes import RECIPES, Recipe
from .sampling import generate, sample
from .vae import load_vae

AnyRecipe = Union[  # noqa: UP007 (built at run time)
    tuple(
        Annotated[
            Recipe,
            tyro.conf.subcommand(name, default=recipe(), description=recipe.__doc__, prefix_name=False),
        ]
        for name, recipe in RECIPES.items()
    )
]


def train(
    recipe: Annotated[AnyRecipe, tyro.conf.arg(name="")], out: Path | None = None, device: str | None = None,
    compile: bool = False,
) -> None:  # fmt: skip
    """Train a recipe; the same command again resumes.

    Args:
        recipe: which run; `imf-lite train digits_imf --help` lists the fields that can be changed.
        out: folder of the run; default runs/NAME-seedN.
        device: cuda, mps or cpu; default: the best there is.
        compile: torch.compile the loss: a minute or two once, then faster; for long runs.
    """
    out = out or Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    print(
        f"{recipe.name} on {training.pick_device(device)}: {recipe.steps} updates of {recipe.batch} samples, in {out}"
    )
    with tqdm(total=recipe.steps, unit="update") as bar:
        for record in training.train(recipe, out, device=device, compile=compile):
            bar.update(record.step - bar.n)
            bar.set_postfix(raw_u_neq=record.raw_u_neq, grad_norm=record.grad_norm, refresh=False)
    print(f"done: {checkpoint.latest(out / 'checkpoints')}")


def prepare(source: tyro.conf.Positional[str], vae: str | None = None, out: Path | None = None, size: int = 256,
            extractor: str | None = None, weights: str | None = None, batch: int = 64, workers: int = 2,
            device: str | None = None) -> None:  # fmt: skip
    """Encode a data set's images by an autoencoder, once; the same command again resumes.

    Args:
        source: fashion (torchvision's download or Debian's package), or a folder with train/CLASS/*.JPEG, and perhaps
            test/CLASS/*.JPEG.
        vae: autoencoder: stabilityai/sd-vae-ft-mse (default), or a local folder; fashion has its own.
        out: folder of the latents; default: latents/SOURCE in the data folder.
        size: side to which a folder's images are cropped.
        extractor: keep features and their statistics too, by digits, fashion or one of torch-fidelity.
        weights: file of that extractor's weights; default: torch-fidelity downloads it.
        batch: images encoded at once.
        workers: processes that read images.
        device: cuda, mps or cpu; default: the best there is.
    """
    where = training.pick_device(device)
    splits = {"train": "train", "test": "test"}
    if source == "fashion":
        make, vae = sources.Fashion, vae or "fashion"
    else:
        there = [split for split in splits if split == "train" or (Path(source) / split).exists()]
        splits = {split: Path(source) / split for split in there}
        make, vae = partial(sources.Folder, size=size), vae or "stabilityai/sd-vae-ft-mse"
    out = out or data_folder() / "latents" / Path(source).name
    found = {split: make(root) for split, root in splits.items()}
    net, features = load_vae(vae).to(where), None
    if extractor:
        from .fid import extract  # torch-fidelity takes seconds to import

        features = extractor, partial(extract, extractor=extractor, weights=weights)
    for split, images in found.items():
        progress = latents.prepare(images, net, vae, out / split, features, batch, workers, where)
        for name, error in latents.prepared(progress, split):
            print(f"could not be read, left out: {name} ({error})")
    print(f"done: {out}")


def sample_(run: Path | None = None, weights: str | None = None, out: Path | None = None, nfe: int = 1,
            omega: float | None = None, interval: tuple[float, float] | None = None,
            classes: tuple[int, ...] | None = None, rows: int = 10, seed: int = 0, vae: str | None = None,
            latents: Literal["imf", "mf"] = "imf", device: str | None = None) -> None:  # fmt: skip
    """Draw samples of a run or of trained weights, one class a column: a PNG, or latents as .npy without a VAE.

    Args:
        run: folder of a trained run.
        weights: or: a released file (iMF-XL-2.pth), a folder of save_pretrained, or either's Hub name.
        out: the file; default: named after the request, in RUN/samples or samples
        nfe: network evaluations a sample, that is, steps.
        omega: guidance scale, at least 1, of a guided network; default 1.
        interval: the times in which it acts; default 0 1.
        classes: the columns; default: the first ten classes.
        rows: samples of each class.
        seed: of the noise.
        latents: whose normalisation of latents a released network learnt; others say it themselves.
        vae: autoencoder that turns latents into images, e.g. stabilityai/sd-vae-ft-mse, or a folder; default: the
            one that the network's data was prepared with.
        device: cuda, mps or cpu; default: the best there is.
    """
    if (run is None) == (weights is None):
        raise ValueError("sample either --run FOLDER or --weights FILE.")
    net = trained.load(weights).to(training.pick_device(device)) if weights else training.load_network(run, device)
    if net.num_classes is not None:
        classes = classes or tuple(range(min(10, net.num_classes)))
    columns = len(classes or range(10))
    sampler = training.sampler_of(run) if run else sample
    x, _ = generate(net, rows * columns, nfe, seed, sampler, 100, omega, interval, classes)
    who = "" if weights is None else f"{Path(weights).stem}-"
    out = out or (run or Path(".")) / "samples" / f"{who}nfe{nfe}{asked(omega, interval)}-seed{seed}"
    described = training.about(run)["latents"] if run else trained.about(weights).get("latents")
    space = Latents(**described) if described else named(latents, vae or "") if net.shape[0] == 4 else None
    if space is not None and not (vae or space.vae):
        out = out.with_name(out.name.removesuffix(".npy") + ".npy")
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, space.denormalise(x).cpu().numpy())
        print(f"{len(x)} raw latents, class by class in turn, at {nfe} NFE: {out} (give --vae for images)")
        return
    if space is not None and vae:
        space = replace(space, vae=vae)
    images = to_uint8(x) if space is None else space.images(x)
    out = out.with_name(out.name.removesuffix(".png") + ".png")
    save_png(out, grid(images, columns), zoom=max(1, 64 // images.shape[-1]))
    print(f"{rows} x {columns} samples at {nfe} NFE: {out}")


def evaluate(run: Path, nfe: int = 1, omega: float | None = None, interval: tuple[float, float] | None = None,
             n: int = 1000, seed: int = 0, extractor: str | None = None, weights: str | None = None,
             device: str | None = None) -> None:  # fmt: skip
    """Measure FID, KID, precision and recall of a run, with their floor, and write RUN/evaluation/*.json.

    Args:
        run: folder of a trained run.
        nfe: network evaluations a sample, that is, steps.
        omega: guidance scale, at least 1, of a guided network; default 1.
        interval: the times in which it acts; default 0 1.
        n: samples to draw, equally many of each class.
        seed: of the noise.
        extractor: digits, fashion, or one of torch-fidelity such as inception-v3-compat; default: the data's own.
        weights: file of that extractor's weights; default: torch-fidelity downloads it.
        device: cuda, mps or cpu; default: the best there is.
    """
    from .fid import Judge, StoredJudge  # torch-fidelity takes seconds to import

    net, about = training.load_network(run, device), training.about(run)
    name = about["recipe"]["data"]
    extractor = extractor or name
    if about["latents"]:
        judge = StoredJudge(pretrained(name), training.images_of(run), extractor, weights)
    else:
        judge = Judge(data.load(name), extractor, weights)
    result = judge(net, nfe, n, seed, training.sampler_of(run), omega, interval) | {"run": about}
    out = run / "evaluation" / f"nfe{nfe}{asked(omega, interval)}-n{n}-seed{seed}-{extractor}.json"
    checkpoint.write_text(out, json.dumps(result, indent=1))
    for name, value in result.items():
        if value is None or isinstance(value, float):
            print(f"{name:22} {'-' if value is None else f'{value:.4g}'}")
    print(out)


def asked(omega: float | None, interval: tuple[float, float] | None) -> str:
    """Guidance as a part of a file's name."""
    scale = "" if omega is None else f"-omega{omega:g}"
    return scale + ("" if interval is None else "-interval{:g}-{:g}".format(*interval))


def recipes() -> None:
    """List the recipes."""
    for name, recipe in RECIPES.items():
        print(f"{name:22} {recipe.__doc__}")


def main() -> None:
    """Entry point; errors that say what to do are printed without a traceback."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"prepare": prepare, "train": train, "sample": sample_, "evaluate": evaluate, "recipes": recipes},
            prog="imf-lite",
            description="One-step generation with MeanFlow and improved MeanFlow.",
            config=(tyro.conf.AvoidSubcommands, tyro.conf.CascadeSubcommandArgs),
        )
    except (ValueError, checkpoint.CheckpointError, training.NonFiniteError) as error:
        sys.exit(f"imf-lite: {error}")
