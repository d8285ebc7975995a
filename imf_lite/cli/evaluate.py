"""The imf-lite command: prepare, train, sample, evaluate, search, export, recipes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Union

import numpy as np
import tyro
from tqdm import tqdm

from . import bands, checkpoint, data, parallel, training
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


@dataclass(frozen=True)
class FIDOptions:
    """How FID is measured while training: one step, against the prepared images' statistics or others."""

    n: int = 5000
    """samples"""
    omega: float = 7.5
    """guidance scale, of guided networks"""
    interval: tuple[float, float] = (0.4, 0.65)
    """in which it acts"""
    reference: str | None = None
    """as for evaluate"""
    extractor: str = "inception-v3-compat"
    """as for evaluate"""
    extractor_weights: str | None = None
    """as for evaluate"""
    batch: int = 250
    """samples made at once"""


def train(
    recipe: Annotated[AnyRecipe, tyro.conf.arg(name="")], out: Path | None = None, device: str | None = None,
    compile: bool = False, fid_every: int = 0, fid: FIDOptions = FIDOptions(),
) -> None:  # fmt: skip
    """Train a recipe; the same command again resumes. Under torchrun, on all GPUs.

    Args:
        recipe: which run; `imf-lite train digits_imf --help` lists the fields that can be changed.
        out: folder of the run; default runs/NAME-seedN.
        device: cuda, mps or cpu; default: the best there is.
        compile: torch.compile the loss: minutes once, then faster; for long runs.
        fid_every: updates between two measurements of one-step FID, kept in OUT/fid.jsonl (a multiple of save-every;
            the last checkpoint is measured, too); 0: none.
        fid: how it is measured.
    """
    ranks, out = parallel.join(), out or Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    if fid_every % recipe.save_every:
        raise ValueError(f"fid_every = {fid_every}: FID is that of a checkpoint, written every {recipe.save_every}.")
    follow = partial(fid_of_newest, out, recipe.steps, fid_every, fid, device or ranks.device())
    if not ranks.first:
        for _ in training.train(recipe, out, device=device, compile=compile):
            follow()
        follow()
        return
    from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

    where = training.pick_device(device or ranks.device())
    count = f"{ranks.size} x " if ranks.size > 1 else ""
    print(f"{recipe.name} on {count}{where}: {recipe.steps} updates of {recipe.batch} samples, in {out}")
    watch = bands.Watch(recipe)
    if watch.band or bands.exists(recipe):
        print("its first updates are compared with its band" if watch.band else "the recipe is changed: no band for it")
    board = None
    with tqdm(total=recipe.steps, unit="update") as bar:
        for record in training.train(recipe, out, device=device, compile=compile):
            bar.update(record.step - bar.n)
            bar.set_postfix(raw_u_neq=record.raw_u_neq, grad_norm=record.grad_norm, refresh=False)
            board = board or SummaryWriter(out / "tensorboard", purge_step=record.step)
            for name, value in record._asdict().items():
                if isinstance(value, float):
                    board.add_scalar(name, value, record.step)
            if warning := watch(record._asdict()):
                bar.write(warning)
            follow()
    follow()
    if board:
        board.close()
    print(f"done: {checkpoint.latest(out / 'checkpoints')}")


def fid_of_newest(out: Path, last: int, every: int, options: FIDOptions, device: str | None) -> None:
    """Measure a run's newest checkpoint if its turn (or the last) has come and it was not measured yet; all ranks
    take part."""
    if not every:
        return
    path, ranks = out / "fid.jsonl", parallel.join()
    at = ranks.tell(checkpoint.step_of(out / "checkpoints"))
    if at == 0 or (at % every and at != last):
        return
    lines = path.read_text().splitlines() if path.exists() else []
    if at in ranks.tell([json.loads(line)["step"] for line in lines]):
        return
    from . import evaluation

    net, about = trained_network(out, None, device)
    real = real_images(options.reference, about, options.extractor)
    asked = {} if net.guided == "no" else {"omega": options.omega}
    asked |= {"interval": options.interval} if net.guided == "interval" else {}
    found = evaluation.evaluate(
        net, as_images(net, about, None, "imf"), real, options.extractor, options.extractor_weights, 1, options.n,
        sampler=training.sampler_of(out), batch=options.batch, **asked,
    )  # fmt: skip
    if found:
        row = {"step": at, **asked, "fid": found["fid"], "inception_score": found["inception_score"], "n": options.n}
        checkpoint.write_text(path, "\n".join([*lines, json.dumps(row)]) + "\n")


def prepare(source: tyro.conf.Positional[str], vae: str | None = None, out: Path | None = None, size: int = 256,
            extractor: str | None = None, extractor_weights: str | None = None, batch: int = 64, workers: int = 2,
            bf16: bool = False, device: str | None = None) -> None:  # fmt: skip
    """Encode a data set's images by an autoencoder, once; the same command again resumes. Under torchrun, on all GPUs.

    Args:
        source: fashion (torchvision's download or Debian's package), or a folder with train/CLASS/*.JPEG, and perhaps
            test/CLASS/*.JPEG.
        vae: autoencoder: stabilityai/sd-vae-ft-mse (default), or a local folder; fashion has its own.
        out: folder of the latents; default: latents/SOURCE in the data folder.
        size: side to which a folder's images are cropped.
        extractor: keep features and their statistics too, by digits, fashion or one of torch-fidelity.
        extractor_weights: file of that extractor's weights; default: torch-fidelity downloads it.
        batch: images encoded at once.
        workers: processes that read images.
        bf16: encode in bfloat16.
        device: cuda, mps or cpu; default: the best there is.
    """
    where = training.pick_device(device or parallel.join().device())
    splits = {"train": "train", "test": "test"}
    if source == "fashion":
        make, vae = sources.Fashion, vae or "fashion"
    else:
        # ImageNet's own test folder holds images of no class
        there = [split for split in splits if split == "train" or any(Path(source).glob(f"{split}/*/"))]
        splits = {split: Path(source) / split for split in there}
        make, vae = partial(sources.Folder, size=size), vae or "stabilityai/sd-vae-ft-mse"
    out = out or data_folder() / "latents" / Path(source).name
    found = {split: make(root) for split, root in splits.items()}
    net, features = load_vae(vae).to(where), None
    if extractor:
        from .fid import extract  # torch-fidelity takes seconds to import

        features = extractor, partial(extract, extractor=extractor, weights=extractor_weights)
    for split, images in found.items():
        progress = latents.prepare(images, net, vae, out / split, features, batch, workers, where, bf16=bf16)
        show(progress, split)
    if parallel.join().first:
        print(f"done: {out}")


def show(progress: Iterator[latents.Progress], what: str) -> None:
    """A preparation under a progress bar; in the end the images that could not be read."""
    corrupt: list[tuple[str, str]] = []
    with tqdm(unit="image", desc=what, disable=not parallel.join().first) as bar:
        for step in progress:
            bar.total, corrupt = step.total, step.corrupt
            bar.update(step.read - bar.n)
            bar.set_postfix(corrupt=len(corrupt))
    for name, error in corrupt:
        print(f"could not be read, left out: {name} ({error})")


def sample_(run: Path | None = None, weights: str | None = None, out: Path | None = None, nfe: int = 1,
            omega: float | None = None, interval: tuple[float, float] | None = None,
            classes: tuple[int, ...] | None = None, rows: int = 10, seed: int = 0, vae: str | None = None,
            latents: Literal["imf", "mf"] = "imf", size: int | None = None,
            device: str | None = None) -> None:  # fmt: skip
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
        size: side of what a released network makes; default: 32, of the latents of 256 x 256 images.
        vae: autoencoder that turns latents into images, e.g. stabilityai/sd-vae-ft-mse, or a folder; default: the
            one that the network's data was prepared with.
        device: cuda, mps or cpu; default: the best there is.
    """
    net, about = trained_network(run, weights, device, size=size)
    if net.num_classes is not None:
        classes = classes or tuple(range(min(10, net.num_classes)))
    columns = len(classes or range(10))
    sampler = training.sampler_of(run) if run else sample
    x, _ = generate(net, rows * columns, nfe, seed, sampler, 100, omega, interval, classes)
    who = "" if weights is None else f"{Path(weights).stem}-"
    out = out or (run or Path(".")) / "samples" / f"{who}nfe{nfe}{asked(omega, interval)}-seed{seed}"
    space = space_of(net, about, vae, latents)
    if space is not None and not space.vae:
        out = out.with_name(out.name.removesuffix(".npy") + ".npy")
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, space.denormalise(x).cpu().numpy())
        print(f"{len(x)} raw latents, class by class in turn, at {nfe} NFE: {out} (give --vae for images)")
        return
    images = to_uint8(x) if space is None else space.images(x)
    out = out.with_name(out.name.removesuffix(".png") + ".png")
    save_png(out, grid(images, columns), zoom=max(1, 64 // images.shape[-1]))
    print(f"{rows} x {columns} samples at {nfe} NFE: {out}")


def evaluate(run: Path | None = None, weights: str | None = None, nfe: int = 1, omega: float | None = None,
             interval: tuple[float, float] | None = None, n: int | None = None, seed: int = 0, batch: int = 250,
             reference: str | None = None, extractor: str | None = None, extractor_weights: str | None = None,
             vae: str | None = None, latents: Literal["imf", "mf"] = "imf", size: int | None = None, ema: int = 0,
             out: Path | None = None, device: str | None = None) -> None:  # fmt: skip
    """Measure a run, or trained weights, and write what was found as JSON; under torchrun, on all GPUs.

    digits and fashion: FID, KID, precision and recall beside their floor. Against --reference: FID and Inception Score.

    Args:
        run: folder of a trained run.
        weights: or: a released file (iMF-XL-2.pth), a folder of save_pretrained, or either's Hub name.
        nfe: network evaluations a sample, that is, steps.
        omega: guidance scale, at least 1, of a guided network; default 1.
        interval: the times in which it acts; default 0 1.
        n: samples to draw, equally many of each class; default 1000, against a reference 50000.
        seed: of the noise.
        batch: samples made at once, against a reference.
        reference: statistics of real images: an .npz (mu, sigma), or a folder of latents prepared with --extractor;
            default for imagenet: latents/imagenet/train in the data folder.
        extractor: digits, fashion, or one of torch-fidelity such as inception-v3-compat; default: the data's own.
        extractor_weights: file of that extractor's weights; default: torch-fidelity downloads it.
        vae: autoencoder that turns latents into images; default: the one that the data was prepared with.
        latents: whose normalisation of latents a released network learnt; others say it themselves.
        size: side of what a released network makes; default: 32, of the latents of 256 x 256 images.
        ema: which of a run's averages, where its recipe has more_emas.
        out: folder of the result; default: RUN/evaluation, or evaluation.
        device: cuda, mps or cpu; default: the best there is.
    """
    from . import evaluation  # torch-fidelity takes seconds to import
    from .fid import Judge, StoredJudge

    ranks = parallel.join()
    net, about = trained_network(run, weights, device or ranks.device(), ema, size)
    name = about.get("recipe", {}).get("data", "imagenet")
    sampler, images = training.sampler_of(run) if run else sample, as_images(net, about, vae, latents)
    if reference or name not in ("digits", "fashion"):
        extractor, n = extractor or "inception-v3-compat", n or 50_000
        real = real_images(reference, about, extractor)
        with tqdm(total=n, unit="sample", disable=not ranks.first) as bar:
            result = evaluation.evaluate(
                net, images, real, extractor, extractor_weights, nfe, n, seed, sampler, omega, interval, batch,
                bar.update,
            )  # fmt: skip
    else:
        extractor, n = extractor or name, n or 1000
        if about["latents"]:
            judge = StoredJudge(pretrained(name), images, extractor, extractor_weights)
        else:
            judge = Judge(data.load(name), extractor, extractor_weights)
        result = judge(net, nfe, n, seed, sampler, omega, interval)
    if result is None or not ranks.first:
        return
    out = out or (run or Path(".")) / "evaluation"
    who = f"{about['step']}-" if weights is None else f"{Path(weights).stem}-"
    out = out / f"{who}nfe{nfe}{asked(omega, interval)}-n{n}-seed{seed}-{extractor}.json"
    which = {"run": about, "weights": weights, "ema": ema, "latents": str(space_of(net, about, vae, latents))}
    checkpoint.write_text(out, json.dumps(result | which, indent=1))
    for key, value in result.items():
        if value is None or isinstance(value, float):
            print(f"{key:22} {'-' if value is None else f'{value:.4g}'}")
    print(out)


def search(run: Path | None = None, weights: str | None = None, omegas: tuple[float, ...] = (1, 2, 4, 6, 8),
           t_mins: tuple[float, ...] = (0.0, 0.2, 0.4), t_maxs: tuple[float, ...] = (0.65, 0.8, 1.0), nfe: int = 1,
           n: int = 5000, seed: int = 1, batch: int = 250, reference: str | None = None,
           extractor: str = "inception-v3-compat", extractor_weights: str | None = None, vae: str | None = None,
           latents: Literal["imf", "mf"] = "imf", size: int | None = None, out: Path | None = None,
           device: str | None = None) -> None:  # fmt: skip
    """Try guidance scales and intervals on few samples, of another seed than `evaluate` reports; writes search.csv.

    The same command again goes on where it stopped.

    Args:
        run: folder of a trained run.
        weights: or: a released file (iMF-XL-2.pth), a folder of save_pretrained, or either's Hub name.
        omegas: scales to try.
        t_mins: beginnings of the interval to try.
        t_maxs: ends of the interval to try.
        nfe: network evaluations a sample.
        n: samples for each.
        seed: of the noise.
        batch: as for `evaluate`.
        reference: as for `evaluate`.
        extractor: as for `evaluate`.
        extractor_weights: as for `evaluate`.
        vae: as for `evaluate`.
        latents: as for `evaluate`.
        size: as for `evaluate`.
        out: folder of the table; default: RUN/evaluation, or evaluation.
        device: cuda, mps or cpu; default: the best there is.
    """
    from . import evaluation

    ranks = parallel.join()
    net, about = trained_network(run, weights, device or ranks.device(), size=size)
    real = real_images(reference, about, extractor)
    spans = [(a, b) for a in t_mins for b in t_maxs if a < b]
    out = (out or (run or Path(".")) / "evaluation") / "search.csv"
    which = {"step": float(about.get("step", 0)), "nfe": float(nfe), "n": float(n), "seed": float(seed)}
    known = ranks.tell(known_rows(out, which))
    if known and ranks.first:
        print(f"{len(known)} settings were measured before: {out}")
    with tqdm(total=len(omegas) * len(spans) * n, unit="sample", disable=not ranks.first) as bar:
        measure = partial(
            evaluation.evaluate, net, as_images(net, about, vae, latents), real, extractor, extractor_weights, nfe, n,
            seed, batch=batch, progress=bar.update,
        )  # fmt: skip
        for rows in evaluation.search(measure, omegas, spans, known):
            if rows:
                table = [row | which for row in rows]
                lines = [",".join(table[0]), *(",".join(f"{value:.8g}" for value in row.values()) for row in table)]
                checkpoint.write_text(out, "\n".join(lines) + "\n")
    if not ranks.first:
        return
    best = min(known_rows(out, which), key=lambda row: row["fid"])
    print(f"best: omega {best['omega']:g} in [{best['t_min']:g}, {best['t_max']:g}], FID {best['fid']:.4g} ({out})")


def real_images(reference: str | None, about: dict, extractor: str):
    """What samples are compared with: the statistics given, or those of the images that a network learnt."""
    from .evaluation import reference as statistics

    name = about.get("recipe", {}).get("data", "imagenet")
    return statistics(reference or data_folder() / "latents" / name / "train", extractor)


def known_rows(path: Path, which: dict[str, float]) -> list[dict]:
    """Rows of a search's table that were measured just so."""
    if not path.exists():
        return []
    head, *lines = path.read_text().splitlines()
    rows = [dict(zip(head.split(","), map(float, line.split(",")), strict=True)) for line in lines]
    return [{k: v for k, v in row.items() if k not in which} for row in rows if which.items() <= row.items()]


def export(onnx: Path, run: Path | None = None, weights: str | None = None, half: bool = False,
           vae: str | None = None, latents: Literal["imf", "mf"] = "imf",
           size: int | None = None) -> None:  # fmt: skip
    """Write one evaluation of u as ONNX, for use without Python; with an autoencoder, its decoder, too.

    Makes ONNX/u.onnx and, for latents, ONNX/decoder.onnx, each beside a JSON of what goes in and out. Both are compared
    with PyTorch. Needs `pip install 'imf-lite[export]'`.

    Args:
        onnx: folder to write to.
        run: folder of a trained run.
        weights: or: a released file (iMF-XL-2.pth), a folder of save_pretrained, or either's Hub name.
        half: store weights in float16; arithmetic stays in float32.
        vae: autoencoder of latents; default: the one that the network's data was prepared with.
        latents: whose normalisation of latents a released network learnt; others say it themselves.
        size: side of what a released network makes; default: 32, of the latents of 256 x 256 images.
    """
    from . import export as to_onnx

    net, about = trained_network(run, weights, "cpu", size=size)
    space = space_of(net, about, vae, latents)
    more = {} if space is None else {"latents": asdict(space)}
    said = [to_onnx.export_u(trained.without_v(net) if net.has_v else net, onnx / "u.onnx", half, more)]
    if space is not None and space.vae:
        said.append(to_onnx.export_decoder(space, net.shape, onnx / "decoder.onnx", half))
    for one in said:
        size, apart = one["bytes"] / 1e6, one["difference_from_pytorch"]
        print(
            f"{onnx / one['kind']}.onnx: {size:.1f} MB, within {apart:g} of PyTorch, takes {', '.join(one['inputs'])}"
        )


def trained_network(
    run: Path | None, weights: str | None, device: str | None, ema: int = 0, size: int | None = None
):  # fmt: skip
    """A network and what is known of it, of a run or a file. Raises ValueError unless there is exactly one."""
    if (run is None) == (weights is None):
        raise ValueError("say which network: either --run FOLDER or --weights FILE.")
    if run is not None:
        step = {"step": checkpoint.step_of(run / "checkpoints")}
        return training.load_network(run, device, ema), training.about(run) | step
    return trained.load(weights, size).to(training.pick_device(device)), trained.about(weights)


def as_images(net, about: dict, vae: str | None, normalisation: Literal["imf", "mf"]) -> Callable:
    """How a network's samples become uint8 images. Raises ValueError for latents without an autoencoder."""
    space = space_of(net, about, vae, normalisation)
    if space is None:
        return to_uint8
    if not space.vae:
        raise ValueError("this network makes latents: say which autoencoder they are of, --vae FOLDER.")
    return partial(space.images, vae=load_vae(space.vae).to(next(net.parameters()).device))


def space_of(net, about: dict, vae: str | None, normalisation: Literal["imf", "mf"]) -> Latents | None:
    """The latents that a network makes; None: pixels."""
    if described := about.get("latents"):
        return replace(Latents(**described), **({"vae": vae} if vae else {}))
    return named(normalisation, vae or "") if net.shape[0] == 4 else None


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
            {
                "prepare": prepare,
                "train": train,
                "sample": sample_,
                "evaluate": evaluate,
                "search": search,
                "export": export,
                "recipes": recipes,
            },
            prog="imf-lite",
            description="One-step generation with MeanFlow and improved MeanFlow.",
            config=(tyro.conf.AvoidSubcommands, tyro.conf.CascadeSubcommandArgs),
        )
    except (ValueError, checkpoint.CheckpointError, training.NonFiniteError) as error:
        parallel.abort(f"imf-lite: {error}")
        sys.exit(f"imf-lite: {error}")
    except Exception:
        parallel.abort()
        raise
    parallel.leave()


if __name__ == "__main__":
    main()
