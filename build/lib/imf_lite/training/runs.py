"""The folder of a run: run.json (recipe, data, code, machine), metrics.jsonl and checkpoints/."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ..data import Data
from ..data.images import to_uint8
from ..data.normalisation import Latents
from ..networks import Network, build
from ..recipes import Recipe
from ..sampling import euler, sample
from ..system.devices import pick_device
from ..system.distributed import Ranks
from ..system.files import write_text
from . import checkpoint
from .records import read_metrics


def restore_or_begin(recipe: Recipe, out: Path, data: Data, state: checkpoint.State, ranks: Ranks) -> None:
    """Begin a run, or go on from its newest checkpoint: one rank writes files, all read."""
    ranks.assert_equal((recipe.to_json(), fingerprint(), torch.__version__, len(data.train)), "recipes, code or data")
    if ranks.first:
        write_run_file(recipe, out, data, state.net)
    ranks.barrier()
    if newest := checkpoint.latest(out / "checkpoints"):
        state.restore(*checkpoint.load(newest))
    ranks.assert_equal(state.step, "checkpoints")
    if ranks.first:
        lines = [json.dumps(r) + "\n" for r in read_metrics(out) if r["step"] <= state.step]
        write_text(out / "metrics.jsonl", "".join(lines))


def write_run_file(recipe: Recipe, out: Path, data: Data, net: Network) -> None:
    """Make a run's folder, or see that it holds the same run."""
    run = out / "run.json"
    fields, code = json.loads(recipe.to_json()), fingerprint()
    if run.exists():
        before = json.loads(run.read_text())
        stored = json.loads(Recipe.from_json(json.dumps(before["recipe"])).to_json())  # fields that are new since
        if stored["parts"] != fields["parts"]:
            warnings.warn(f"parts were {stored['parts']} so far: from here on other draws are made.", stacklevel=3)
        if differ := difference(stored, fields, ("parts", "keep", "save_every")):
            raise ValueError(f"{out} holds another run: {differ}. Choose another folder, or delete it.")
        if before["code"] != code:
            warnings.warn(f"the code of the losses has changed since {out} was begun.", stacklevel=3)
            code = before["code"]
    described = {
        "recipe": fields,
        "shape": data.train.shape,
        "num_classes": data.num_classes,
        "classes": list(data.classes),
        "latents": data.latents and asdict(data.latents),
        "parameters": sum(p.numel() for p in net.parameters()),
        "device": str(next(net.parameters()).device),
        "code": code,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    write_text(run, json.dumps(described, indent=1))
    for leftover in (out / "checkpoints").glob("*.tmp"):
        leftover.unlink()


def read_run(out: str | Path) -> dict:
    """What run.json says of a run: recipe, shape, classes, latents, code. Raises ValueError where there is no run."""
    path = Path(out) / "run.json"
    if not path.exists():
        raise ValueError(f"{out} holds no run: train first, e.g. `imf-lite train digits_imf --out {out}`.")
    return json.loads(path.read_text())


def load_network(out: str | Path, device: str | None = None, ema: int = 0) -> Network:
    """The EMA network of a run, from its newest checkpoint; ema: which of several decays.

    Raises ValueError where there is none.
    """
    out, device = Path(out), pick_device(device)
    newest = checkpoint.latest(out / "checkpoints")
    if newest is None:
        raise ValueError(f"{out} holds no checkpoint: train first, e.g. `imf-lite train digits_imf --out {out}`.")
    run = read_run(out)
    recipe = Recipe.from_json(json.dumps(run["recipe"]))
    net = build(recipe.net, run["shape"], run["num_classes"])
    tensors, _ = checkpoint.load(newest)
    prefix = f"ema{ema or ''}/"
    if not any(k.startswith(prefix) for k in tensors):
        raise ValueError(f"{out} has no average number {ema}: its recipe's more_emas are {recipe.more_emas}.")
    net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return net.to(device).eval().requires_grad_(False)


def sampler_of(out: str | Path) -> Callable:
    """How a run's network samples: flow matching steps along v, the others along u."""
    return euler if read_run(out)["recipe"]["method"] == "fm" else sample


def images_of(out: str | Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """How a run's samples become uint8 images: latents by the autoencoder that made them, pixels directly."""
    latents = read_run(out)["latents"]
    return Latents(**latents).images if latents else to_uint8


def difference(stored: dict, fields: dict, ignored: tuple[str, ...] = ()) -> str:
    """The fields in which two recipes differ, in words, without those that are ignored."""
    return ", ".join(
        f"{k} = {stored[k]!r}, not {v!r}" for k, v in fields.items() if stored[k] != v and k not in ignored
    )


def fingerprint() -> str:
    """SHA-256 of the code that decides what is computed: the method, the networks, and their configurations.

    Comments, docstrings, imports and white space do not count.
    """
    package = Path(__file__).parent.parent
    method = ("configs", "losses", "draws", "conditions", "guidance", "objective", "forward_mode")
    files = [*(package / f"{name}.py" for name in method), *sorted((package / "networks").glob("*.py"))]
    code = "\n".join(path.read_text() for path in files)
    code = re.sub(r'""".*?"""|#[^\n]*', "", code, flags=re.DOTALL)
    code = re.sub(r"^(from .* )?import (\([^)]*\)|.*)$", "", code, flags=re.MULTILINE)
    return hashlib.sha256(" ".join(code.split()).encode()).hexdigest()[:16]
