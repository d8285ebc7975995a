"""Options that several commands share, and what they mean: a trained network, how its samples become images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..configs import Precision

if TYPE_CHECKING:
    from ..data.normalisation import Latents
    from ..evaluation.references import Reference
    from ..networks import Network


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """A trained network, of a run or of a file."""

    run: Path | None = None
    """folder of a trained run"""
    weights: str | None = None
    """or: a released file (iMF-XL-2.pth, pMF-B-16.pt), a folder that save_pretrained wrote, either's Hub name, or the
    name of a shipped network"""
    ema: int = 0
    """which of a run's averages to use, if its recipe has several; 0: the first"""
    size: int | None = None
    """side of a released iMF network's samples; default: 32, for the latents of 256 x 256 images"""
    noise_scale: float | None = None
    """standard deviation of a released pMF network's noise; default: that of its published size, else 1"""
    vae: str | None = None
    """autoencoder of latents, e.g. stabilityai/sd-vae-ft-mse, or a folder; default: the one that the network's data
    was prepared with"""
    latents: Literal["imf", "mf"] = "imf"
    """normalisation of the latents that a released network learnt; other networks store theirs"""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(NetworkOptions):
    """How samples are measured."""

    nfe: int = 1
    """network evaluations per sample, that is, steps"""
    batch: int = 250
    """samples made at once, against a reference"""
    reference: str | None = None
    """statistics of real images: an .npz (mu, sigma), or a folder prepared with --extractor; default for
    imagenet: latents/imagenet/train in the data folder"""
    extractor_weights: str | None = None
    """file of the extractor's weights; default: torch-fidelity downloads it"""
    precision: Precision = "fp32"
    """precision of float32 matrix products (tf32 affects CUDA only); recorded with the result"""
    device: str | None = None
    """cuda, mps or cpu; default: the best there is"""


class UsageError(ValueError):
    """A command whose options are invalid or have no effect."""


def check_counts(options: object, **least: int) -> None:
    """Raise UsageError, in the option's own name, for a number that is too small or too large."""
    for name, smallest in least.items():
        value = getattr(options, name)
        largest = 2**32 - 1 if name == "seed" else 2**63 - 1  # see system.rng
        if value is not None and not smallest <= value <= largest:
            raise UsageError(f"{name} = {value}; it must be at least {smallest}, and at most {largest}.")


def check_file(out: Path | None) -> None:
    """Raise UsageError, before any work, for a file that cannot be written there."""
    if out is not None and (not out.name or out.name == ".." or out.is_dir()):
        raise UsageError(f"{out} is a folder: give the name of a file.")
    check_folder(out and out.parent)


def check_folder(out: Path | None) -> None:
    """Raise UsageError, before any work, for a folder that cannot be made, as a file stands in its way."""
    if out is not None and (blocked := next((p for p in (out, *out.parents) if p.exists() and not p.is_dir()), None)):
        raise UsageError(f"{out} cannot be a folder: {blocked} is a file. Choose another place.")


def check_ignored(options: NetworkOptions) -> None:
    """Raise UsageError for options that would have no effect on this network."""
    from ..pretrained.released import SUFFIXES

    released = options.weights is not None and options.weights.endswith(SUFFIXES)
    if options.ema and options.run is None:
        raise UsageError("--ema chooses among a run's averages: it goes with --run.")
    told = options.size is not None or options.latents != "imf"
    if not released and (told or options.noise_scale is not None):
        raise UsageError(
            "--size, --latents and --noise-scale are for the authors' released files: leave them out for others."
        )


def load_network(options: NetworkOptions, device: str | None) -> tuple[Network, dict]:
    """The network and what is known of it: run.json and the step of a run, the notes of a file.

    Raises ValueError unless exactly one network is named.
    """
    from .. import training
    from ..pretrained import weights
    from ..system.devices import pick_device
    from ..training import checkpoint

    check_ignored(options)
    if options.run is not None and options.weights is None:
        step = {"step": checkpoint.step_of(options.run / "checkpoints")}
        return usable(training.load_network(options.run, device, options.ema)), training.read_run(options.run) | step
    if options.weights is not None and options.run is None:
        net = weights.load(options.weights, options.size, options.noise_scale).to(pick_device(device))
        of_authors = {"recipe": {"data": "imagenet_pixels" if net.shape[0] == 3 else "imagenet"}}
        return usable(net), weights.read_notes(options.weights) or of_authors
    raise ValueError("say which network: either --run FOLDER or --weights FILE.")


def usable(net: Network) -> Network:
    """The network. Raises ValueError where its weights are not all finite."""
    if bad := [name for name, p in net.named_parameters() if not p.isfinite().all()]:
        raise ValueError(
            f"{len(bad)} tensors of weights, such as {bad[0]}, hold numbers that are not finite: damaged. Train again, "
            "or fetch the file again."
        )
    return net


def check_images(net: Network) -> None:
    """Raise ValueError for a network of points."""
    if len(net.shape) != 3:
        raise ValueError(f"this network makes points of shape {net.shape}, not images: nothing to draw or to score.")


def class_numbers(words: tuple[str, ...] | None, net: Network, notes: dict) -> tuple[int, ...] | None:
    """Classes by number or name as numbers; without any the first ten, and None where the network has none.

    Raises ValueError for a class that the network does not have.
    """
    from ..data import fashion

    if net.num_classes is None and not words:
        return None
    of_fashion = notes.get("recipe", {}).get("data") in ("fashion", "FashionMNIST")
    known = fashion.CLASSES if of_fashion else notes.get("classes", ())
    number = {name: k for k, name in enumerate(known)}
    count = net.num_classes or 0
    numbers = []
    for word in words or map(str, range(min(10, count))):
        k = number.get(word, int(word) if word.isdecimal() else count)
        if k >= count:
            names = f" They are called {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}." if known else ""
            raise ValueError(f"there is no class {word!r}: this network has classes 0 to {count - 1}.{names}")
        numbers.append(k)
    return tuple(numbers)


def sampler(notes: dict) -> Callable:
    """How a network samples, by what is known of it: flow matching steps along v, all others along u."""
    from ..training.runs import sampler_for  # torch takes seconds to import

    return sampler_for(notes)


def latent_space(net: Network, notes: dict, options: NetworkOptions) -> Latents | None:
    """The latents that a network makes; None: pixels, for which an autoencoder raises ValueError."""
    from ..data import normalisation

    if described := notes.get("latents"):
        space = normalisation.Latents(**described)
        return replace(space, vae=options.vae, vae_sha256="") if options.vae else space
    if net.shape[0] == 4:
        return normalisation.latent_space(options.latents, options.vae or "")
    if options.vae:
        raise ValueError("this network makes pixels, not latents: leave out --vae.")
    return None


def to_images(net: Network, notes: dict, options: NetworkOptions) -> Callable:
    """How a network's samples become uint8 images. Raises ValueError for latents without an autoencoder."""
    from ..data.images import to_uint8

    check_images(net)
    space = latent_space(net, notes, options)
    if space is None:
        return to_uint8
    if not space.vae:
        raise ValueError("this network makes latents: name the autoencoder that decodes them with --vae FOLDER.")
    return partial(space.images, vae=space.autoencoder().to(next(net.parameters()).device))


def load_reference(reference: str | None, notes: dict, extractor: str) -> Reference:
    """What samples are compared with: the statistics given, or those of the images that a network learnt."""
    from ..data import folder_of
    from ..data.pixels import TORCHVISION
    from ..evaluation import references

    name = notes.get("recipe", {}).get("data", "imagenet")
    if reference is None and name in TORCHVISION:
        raise ValueError(f"no statistics of {name} are stored: give --reference, or measure with `imf-lite evaluate`.")
    return references.load_reference(reference or folder_of(name) / "train", extractor)


def guidance_name(omega: float | None, interval: tuple[float, float] | None) -> str:
    """Guidance as a part of a file's name."""
    scale = "" if omega is None else f"-omega{plain(omega)}"
    return scale + ("" if interval is None else f"-interval{plain(interval[0])}-{plain(interval[1])}")


def plain(value: float) -> str:
    """A number in full, whole ones without a point."""
    return str(int(value)) if value == int(value) else repr(float(value))
