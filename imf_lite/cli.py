"""The imf-lite command: train, sample, evaluate, recipes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, Union

import numpy as np
import tyro
from tqdm import tqdm

from . import checkpoint, data, training
from . import weights as trained
from .images import grid, save_png, to_uint8
from .recipes import RECIPES, Recipe
from .sampling import generate, sample
from .vae import decode, denormalise, load_vae

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
        latents: whose normalisation of latents the network learnt.
        vae: autoencoder that turns latents into images: stabilityai/sd-vae-ft-mse, or a folder.
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
    if net.shape[0] == 4 and vae is None:
        out = out.with_name(out.name.removesuffix(".npy") + ".npy")
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, denormalise(x, latents).cpu().numpy())
        print(f"{len(x)} raw latents, class by class in turn, at {nfe} NFE: {out} (give --vae for images)")
        return
    images = to_uint8(decode(load_vae(vae).to(x.device), x, latents) if vae else x)
    out = out.with_name(out.name.removesuffix(".png") + ".png")
    save_png(out, grid(images, columns), zoom=max(1, 32 // net.shape[-1]) if vae is None else 1)
    print(f"{rows} x {columns} samples at {nfe} NFE: {out}")


def evaluate(run: Path, nfe: int = 1, omega: float | None = None, interval: tuple[float, float] | None = None,
             n: int = 1000, seed: int = 0, extractor: str = "digits", weights: str | None = None,
             device: str | None = None) -> None:  # fmt: skip
    """Measure FID, KID, precision and recall of a run, with their floor, and write RUN/evaluation/*.json.

    Args:
        run: folder of a trained run.
        nfe: network evaluations a sample, that is, steps.
        omega: guidance scale, at least 1, of a guided network; default 1.
        interval: the times in which it acts; default 0 1.
        n: samples to draw, equally many of each class.
        seed: of the noise.
        extractor: digits, or a feature extractor of torch-fidelity such as inception-v3-compat.
        weights: file of that extractor's weights; default: torch-fidelity downloads it.
        device: cuda, mps or cpu; default: the best there is.
    """
    from .fid import Judge  # torch-fidelity takes seconds to import

    net = training.load_network(run, device)
    about = json.loads((run / "run.json").read_text())
    judge = Judge(data.load(about["recipe"]["data"]), extractor, weights)
    result = judge(net, nfe, n, seed, training.sampler_of(run), omega, interval) | {"run": about}
    out = run / "evaluation" / f"nfe{nfe}{asked(omega, interval)}-n{n}-seed{seed}-{extractor}.json"
    checkpoint.write_text(out, json.dumps(result, indent=1))
    for name in (
        "fid",
        "fid_over_floor",
        "kid",
        "precision",
        "recall",
        "agreement",
        "log_prob",
        "nearest_train",
        "nearest_train_of_real",
    ):
        print(f"{name:22} {result[name]:.4g}" if result[name] is not None else f"{name:22} -")
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
            {"train": train, "sample": sample_, "evaluate": evaluate, "recipes": recipes},
            prog="imf-lite",
            description="One-step generation with MeanFlow and improved MeanFlow.",
            config=(tyro.conf.AvoidSubcommands, tyro.conf.CascadeSubcommandArgs),
        )
    except (ValueError, checkpoint.CheckpointError, training.NonFiniteError) as error:
        sys.exit(f"imf-lite: {error}")
