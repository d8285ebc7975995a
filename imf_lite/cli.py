"""The imf-lite command: train, sample, evaluate, recipes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Union

import tyro
from tqdm import tqdm

from . import checkpoint, data, training
from .images import grid, save_png, to_uint8
from .recipes import RECIPES, Recipe
from .sampling import generate

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
    recipe: Annotated[AnyRecipe, tyro.conf.arg(name="")], out: Path | None = None, device: str | None = None
) -> None:
    """Train a recipe; the same command again resumes.

    Args:
        recipe: which run; `imf-lite train digits_imf --help` lists the fields that can be changed.
        out: folder of the run; default runs/NAME-seedN.
        device: cuda, mps or cpu; default: the best there is.
    """
    out = out or Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    print(
        f"{recipe.name} on {training.pick_device(device)}: {recipe.steps} updates of {recipe.batch} samples, in {out}"
    )
    with tqdm(total=recipe.steps, unit="update") as bar:
        for record in training.train(recipe, out, device=device):
            bar.update(record.step - bar.n)
            bar.set_postfix(raw_u_neq=record.raw_u_neq, grad_norm=record.grad_norm, refresh=False)
    print(f"done: {checkpoint.latest(out / 'checkpoints')}")


def sample_(run: Path, out: Path | None = None, nfe: int = 1, rows: int = 10, seed: int = 0, device: str | None = None):
    """Draw samples of a run, one class a column, as a PNG.

    Args:
        run: folder of a trained run.
        out: the PNG; default RUN/samples/nfeN.png.
        nfe: network evaluations a sample, that is, steps.
        rows: samples of each class.
        seed: of the noise.
        device: cuda, mps or cpu; default: the best there is.
    """
    net = training.load_network(run, device)
    columns = net.num_classes or 10
    x, _ = generate(net, rows * columns, nfe, seed, training.sampler_of(run))
    out = out or run / "samples" / f"nfe{nfe}.png"
    save_png(out, grid(to_uint8(x), columns), zoom=4)
    print(f"{rows} x {columns} samples at {nfe} NFE: {out}")


def evaluate(run: Path, nfe: int = 1, n: int = 1000, seed: int = 0, extractor: str = "digits",
             weights: str | None = None, device: str | None = None) -> None:  # fmt: skip
    """Measure FID, KID, precision and recall of a run, with their floor, and write RUN/evaluation/*.json.

    Args:
        run: folder of a trained run.
        nfe: network evaluations a sample, that is, steps.
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
    result = judge(net, nfe, n, seed, training.sampler_of(run)) | {"run": about}
    out = run / "evaluation" / f"nfe{nfe}-n{n}-seed{seed}-{extractor}.json"
    checkpoint.write_text(out, json.dumps(result, indent=1))
    for name in (
        "fid",
        "fid_over_floor",
        "kid",
        "precision",
        "recall",
        "agreement",
        "nearest_train",
        "nearest_train_of_real",
    ):
        print(f"{name:22} {result[name]:.4g}" if result[name] is not None else f"{name:22} -")
    print(out)


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
