"""imf-lite train: train a recipe, or resume it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union

import tyro

from ..configs import Compile
from ..recipes import RECIPES, Recipe
from .options import NetworkOptions, load_network, load_reference, to_images

if TYPE_CHECKING:
    from ..networks import Network
    from ..system.distributed import Ranks

    AnyRecipe = Recipe
else:
    AnyRecipe = Union[  # noqa: UP007 (built at run time)
        tuple(
            Annotated[
                Recipe,
                tyro.conf.subcommand(name, default=recipe(), description=recipe.__doc__, prefix_name=False),
            ]
            for name, recipe in RECIPES.items()
        )
    ]


@dataclass(frozen=True)
class FIDOptions:
    """How FID is measured while training: one step, against the prepared images' statistics or others."""

    n: int = 5000
    """samples"""
    omega: float = 7.5
    """guidance scale, of guided networks"""
    interval: tuple[float, float] = (0.4, 0.65)
    """times between which guidance acts"""
    reference: str | None = None
    """statistics of real images, as --reference of evaluate"""
    extractor: str = "inception-v3-compat"
    """feature extractor, as --extractor of evaluate"""
    extractor_weights: str | None = None
    """file of its weights, as --extractor-weights of evaluate"""
    batch: int = 250
    """samples made at once"""


@dataclass(frozen=True)
class Train:
    """Train a recipe. Running the same command again resumes it. Under torchrun it uses all GPUs."""

    recipe: Annotated[AnyRecipe, tyro.conf.arg(name="")]
    """which run; `imf-lite train digits_imf --help` lists the fields that can be changed"""
    out: Path | None = None
    """folder of the run; default runs/NAME-seedN"""
    device: str | None = None
    """cuda, mps or cpu; default: the best there is"""
    compile: Compile = "no"
    """compile the network's blocks (less than a minute on a CPU) or the whole loss (minutes), for faster updates;
    --compile alone is auto: whichever pays in a run of that length"""
    checkpoint_activations: bool = False
    """keep blocks' inputs alone for the backward pass, and compute what is inside them again: less memory, more time"""
    init: str | None = None
    """begin with trained weights: a run's folder, or what --weights takes; missing tensors keep their initial values"""
    on_non_finite: Literal["stop", "skip"] = "stop"
    """at a gradient that is not finite: stop before the update, or leave the update out (at most ten in a row)"""
    verify: bool = False
    """read prepared latents or pixels whole before the first update, and compare them with their checksums"""
    fid_every: int = 0
    """updates between two measurements of one-step FID, kept in OUT/fid.jsonl (a multiple of save-every; the last
    checkpoint is measured, too); 0: none"""
    fid: FIDOptions = FIDOptions()
    """how FID is measured"""


def train(options: Train) -> None:
    """Train with a progress bar, TensorBoard, the recipe's band, and FID on the way where it is asked for."""
    from .. import training
    from ..system import distributed
    from ..system.signals import catch_signals

    recipe, ranks = options.recipe, distributed.init()
    out = options.out or Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    if options.fid_every < 0 or options.fid_every % recipe.save_every or options.fid_every % recipe.log_every:
        raise ValueError(
            f"fid_every = {options.fid_every}: FID is measured where a checkpoint (every {recipe.save_every} updates) "
            f"and a record (every {recipe.log_every}) are written: choose a multiple of both."
        )
    if not options.fid_every and options.fid != FIDOptions():
        raise ValueError("--fid.* says how FID is measured while training: say how often, too, by --fid-every.")
    device = options.device or ranks.device()
    if options.fid_every:
        check_fid(recipe, options.fid)
    if options.verify:
        verify(recipe)
    measure = partial(measure_newest, out, recipe.steps, options.fid_every, options.fid, device, ranks)
    init = load_init(options.init) if options.init else None
    perceptual = load_perceptual(recipe, device)
    with catch_signals() as stop:
        records = training.train(
            recipe, out, device=device, compile=options.compile, ranks=ranks, init=init,
            on_non_finite=options.on_non_finite, stop=stop, perceptual=perceptual,
            recompute=options.checkpoint_activations,
        )  # fmt: skip
        if ranks.first:
            report(records, recipe, out, device, ranks, measure)
        else:
            for _ in records:
                measure()
            measure()


def check_fid(recipe: Recipe, options: FIDOptions) -> None:
    """Raise ValueError, before the first update, for anything that would keep FID from being measured later."""
    import torch

    from .. import data
    from ..evaluation.extractors import extract, load_extractor
    from ..evaluation.references import check_reference
    from ..sampling import check_numbers

    real = load_reference(options.reference, {"recipe": {"data": recipe.data}}, options.extractor)
    if options.batch < 1:
        raise ValueError(f"fid.batch = {options.batch}; it must be at least 1.")
    shape = data.load(recipe.data, recipe.normalisation).train.shape
    if len(shape) == 3 and shape[0] in (1, 3):  # pixels; of latents the autoencoder decides the images' size
        blank = torch.zeros(1, *shape, dtype=torch.uint8)
        features = extract(blank, options.extractor, options.extractor_weights).shape[1]
        check_reference(real, features, options.extractor)
    else:
        load_extractor(options.extractor, options.extractor_weights, "cpu")
    check_numbers(options.omega, options.interval)
    classes = data.load(recipe.data, recipe.normalisation).num_classes
    if options.n < 2 or (classes and options.n % classes):
        raise ValueError(f"fid.n = {options.n}; it must hold equally many of each of {classes or 'no'} classes.")


def verify(recipe: Recipe) -> None:
    """Read what was prepared of a recipe's data set whole. Raises ValueError where it is not what was written."""
    from .. import data
    from ..data import cache

    folder = getattr(data.load(recipe.data, recipe.normalisation).train, "folder", None)
    if folder is not None:
        cache.verify(folder)


def load_init(name: str) -> Network:
    """Trained weights to begin with, of a run or a file."""
    is_run = (Path(name) / "run.json").exists() or (Path(name) / "checkpoints").exists()
    return load_network(NetworkOptions(run=Path(name)) if is_run else NetworkOptions(weights=name), "cpu")[0]


def load_perceptual(recipe: Recipe, device: str | None):
    """The distance of a recipe's perceptual term, or None. Raises ValueError where a file for it is missing."""
    if recipe.perceptual == "no":
        return None
    from .. import data
    from ..evaluation import perceptual
    from ..system.devices import pick_device

    shape = data.load(recipe.data, recipe.normalisation).train.shape
    return perceptual.load(recipe.perceptual, shape, pick_device(device))


def report(records, recipe: Recipe, out: Path, device: str | None, ranks: Ranks, measure) -> None:
    """Follow a run: progress bar, TensorBoard, warnings of the band, FID."""
    from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

    from ..recipes import bands
    from ..system.devices import pick_device
    from ..system.progress import Progress, say
    from ..training import checkpoint

    count = f"{ranks.size} x " if ranks.size > 1 else ""
    say(f"{recipe.name} on {count}{pick_device(device)}: {recipe.steps} updates of {recipe.batch} samples, in {out}")
    watch = bands.Watch(recipe)
    if watch.band or bands.exists(recipe):
        say(
            "its first updates are compared with its band"
            if watch.band
            else "the recipe was changed: it has no band to compare with"
        )
    board = None
    with Progress(recipe.steps, "update") as progress:
        progress.start_at(checkpoint.step_of(out / "checkpoints"))
        for record in records:
            progress.to(record.step, raw_u_neq=record.raw_u_neq, grad_norm=record.grad_norm)
            board = board or SummaryWriter(out / "tensorboard", purge_step=record.step)
            for name, value in record._asdict().items():
                if isinstance(value, float):
                    board.add_scalar(name, value, record.step)
            if warning := watch(record._asdict()):
                progress.write(warning)
            measure()
    measure()
    if board:
        board.close()
    say(f"done: {checkpoint.latest(out / 'checkpoints')}")


def measure_newest(out: Path, last: int, every: int, options: FIDOptions, device: str | None, ranks: Ranks) -> None:
    """Measure a run's newest checkpoint if its turn (or the last) has come and it was not measured yet; all ranks
    take part."""
    if not every:
        return
    from .. import training
    from ..evaluation.protocol import evaluate
    from ..system.files import read_json_lines, write_text
    from ..training import checkpoint

    path = out / "fid.jsonl"
    step = ranks.broadcast(checkpoint.step_of(out / "checkpoints"))
    if step == 0 or (step % every and step != last):
        return
    rows, protocol = read_json_lines(path), of_protocol(options)
    if any(row["step"] == step and row.get("protocol") == protocol for row in ranks.broadcast(rows)):
        return
    of_run = NetworkOptions(run=out)
    net, notes = load_network(of_run, device)
    guidance: dict = {} if net.guided == "no" else {"omega": options.omega}
    guidance |= {"interval": options.interval} if net.guided == "interval" else {}
    scores = evaluate(
        net, to_images(net, notes, of_run), load_reference(options.reference, notes, options.extractor),
        options.extractor, options.extractor_weights, 1, options.n, sampler=training.sampler_of(out),
        batch=options.batch, ranks=ranks, **guidance,
    )  # fmt: skip
    if scores:
        row = {"step": step, **guidance, "fid": scores["fid"], "inception_score": scores["inception_score"]}
        write_text(path, "".join(json.dumps(r) + "\n" for r in [*rows, row | {"n": options.n, "protocol": protocol}]))


def of_protocol(options: FIDOptions) -> str:
    """A short digest of all that decides an FID besides the network, so that two protocols are never confused."""
    from ..system.files import sha256, short

    contents = {}
    for name in ("reference", "extractor_weights"):
        path = Path(getattr(options, name) or "")
        path = path / "statistics.npz" if path.is_dir() else path
        contents[name] = sha256(path) if path.is_file() else None
    return short({k: v for k, v in asdict(options).items() if k != "batch"} | contents)
