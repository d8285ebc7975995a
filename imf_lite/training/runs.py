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
from ..networks.dit import without_branch
from ..pretrained.weights import write_network
from ..recipes import Recipe
from ..sampling import euler, sample
from ..system.devices import pick_device
from ..system.distributed import Ranks
from ..system.files import DamagedFileError, digest, read_json, read_json_lines, write_text
from . import checkpoint

FREE = ("parts", "log_every", "precision", "keep", "save_every", "milestone_every", "more_emas")
"""fields that may change when a run resumes; changes are noted in run.json. Other changes are refused, except to steps
(at a constant learning rate) and, after a stop, to the fields below"""


AFTER_A_STOP = ("lr", "clip", "warmup")
"""what may change, too, after a stop at a gradient that was not finite"""


def restore_or_begin(
    recipe: Recipe,
    out: Path,
    data: Data,
    state: checkpoint.State,
    ranks: Ranks,
    init: Network | None = None,
    perceptual: str | None = None,
) -> None:
    """Begin a run, or go on from its newest checkpoint: one rank writes files, all read.

    Raises ValueError where the folder holds another run, or the data are not those that the run began with.
    """
    state.run = describe(recipe, data, state.net, init, perceptual)
    code = state.run["code"], state.run["data_sha256"], torch.__version__, recipe.to_json()
    ranks.assert_equal(code, "recipes, code or data")
    if ranks.first:
        write_run_file(out, state.run)
    ranks.barrier()
    state.run = read_run(out)
    if newest := checkpoint.latest(out / "checkpoints"):
        if ranks.first:
            check_own(newest, state.run)
        state.restore(newest, ranks)
    ranks.assert_equal(state.step, "checkpoints")
    if ranks.first:
        for name in ("metrics.jsonl", "fid.jsonl"):
            if (out / name).exists() or name == "metrics.jsonl":
                rows = [json.dumps(row) + "\n" for row in read_json_lines(out / name) if row["step"] <= state.step]
                write_text(out / name, "".join(rows))


def describe(
    recipe: Recipe, data: Data, net: torch.nn.Module, init: Network | None, perceptual: str | None = None
) -> dict:
    """All that decides a run, as JSON: what run.json and every checkpoint hold. perceptual: SHA-256 of its weights."""
    described = {
        "recipe": json.loads(recipe.to_json()),
        "shape": list(data.train.shape),
        "num_classes": data.num_classes,
        "classes": list(data.classes),
        "latents": data.latents and asdict(data.latents),
        "data_sha256": data.fingerprint(),
        "init_sha256": init and digest(init.state_dict()),
        "perceptual_sha256": perceptual,
        "parameters": sum(p.numel() for p in net.parameters()),
        "device": str(next(net.parameters()).device),
        "code": fingerprint(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return json.loads(json.dumps(described))  # as it is read back


def write_run_file(out: Path, now: dict) -> None:
    """Write run.json where a run begins. Where one goes on, check it, and note what was changed; nothing else moves."""
    newest = checkpoint.latest(out / "checkpoints")
    for leftover in (*out.glob("*.tmp"), *(out / "checkpoints").glob("*.tmp")):  # of a process that was killed
        leftover.unlink()
    if newest is None and not (out / "run.json").exists():
        write_text(out / "run.json", json.dumps(now, indent=1))
        return
    before = read_run(out)
    check_same_run(out, before, now, (out / "non_finite.json").exists())
    stored, fields = recipe_fields(before), now["recipe"]
    changes = [{"field": k, "was": stored[k], "is": v} for k, v in fields.items() if stored[k] != v]
    if changes:
        at = checkpoint.step_of(out / "checkpoints")
        before["changes"] = before.get("changes", []) + [change | {"after_update": at} for change in changes]
        before["recipe"] = fields
        if any(change["field"] in AFTER_A_STOP for change in changes):
            (out / "non_finite.json").unlink(missing_ok=True)
        if any(change["field"] == "parts" for change in changes):
            warnings.warn(f"parts were {stored['parts']} so far: from here on other draws are made.", stacklevel=4)
    text = json.dumps(before, indent=1)
    if not (out / "run.json").exists() or (out / "run.json").read_bytes() != text.encode():
        write_text(out / "run.json", text)


def check_own(path: Path, run: dict) -> None:
    """Raise ValueError for a checkpoint of another run, or one whose name says another update than its contents."""
    counters = checkpoint.read_counters(path)
    kept, remedy = counters.get("run"), "Move it away, then run the same command again."
    if counters["step"] != checkpoint.number(path):
        raise ValueError(f"{path} is a checkpoint of update {counters['step']}, not of what its name says. {remedy}")
    if not kept:
        return  # of an older version, which noted nothing
    stored, fields = recipe_fields(kept), recipe_fields(run)
    differ = [k for k in fields if k not in (*FREE, "lr", "clip", "warmup", "steps") and stored[k] != fields[k]]
    differ += [
        k for k in ("data_sha256", "init_sha256", "perceptual_sha256") if k in kept and k in run and kept[k] != run[k]
    ]
    if differ:
        raise ValueError(f"{path} is a checkpoint of another run: {', '.join(differ)} differ. {remedy}")


def check_same_run(out: Path, before: dict, now: dict, stopped: bool) -> None:
    """Raise ValueError where a folder's run cannot go on as it is asked to; a warning where the code changed.

    stopped: the run stopped at a gradient that was not finite, so its learning rate may be lowered.
    """
    stored, fields = recipe_fields(before), now["recipe"]
    changed = [k for k in fields if stored[k] != fields[k]]
    allowed = {*FREE, *(AFTER_A_STOP if stopped else ()), *(("steps",) if fields["decay"] == "constant" else ())}
    if fields["steps"] < (done := checkpoint.step_of(out / "checkpoints")):
        raise ValueError(
            f"{out} has {done} updates already, more than steps = {fields['steps']}: nothing is left to do."
        )
    if stopped and fields["lr"] > stored["lr"]:
        raise ValueError(
            f"{out} stopped at a gradient that was not finite: lr = {fields['lr']} is higher now: lower it."
        )
    if refused := [k for k in changed if k not in allowed]:
        differ = ", ".join(f"{k} = {show(stored[k], fields[k])}" for k in refused)
        why = ""
        if refused == ["steps"]:
            why = " (the learning rate falls over the whole run, so another length is another run)"
        elif refused == ["lr"]:
            why = " (it may be lowered after a stop at a gradient that was not finite)"
        raise ValueError(f"{out} holds another run: {differ}{why}. Choose another folder, or delete it.")
    if before.get("data_sha256", now["data_sha256"]) != now["data_sha256"] or not same_latents(before, now):
        raise ValueError(
            f"{out} was begun on other data than {fields['data']!r} holds now: were they prepared again? Bring them "
            "back, or choose another folder."
        )
    if now["init_sha256"] not in (None, before.get("init_sha256")):
        raise ValueError(f"{out} was begun from other weights: leave out init, or choose another folder.")
    if before.get("perceptual_sha256") != now["perceptual_sha256"]:
        raise ValueError(f"{out} was begun with other weights of the perceptual term {fields['perceptual']!r}.")
    if before["code"] != now["code"]:
        warnings.warn(f"the code of method or networks has changed since {out} was begun.", stacklevel=4)


def same_latents(before: dict, now: dict) -> bool:
    """Whether two descriptions of a run are of the same latents, as far as the older one says."""
    old, new = before["latents"], now["latents"]
    return old == new or (old is not None and new is not None and all(old[k] == new[k] for k in old))


def recipe_fields(run: dict) -> dict:
    """The recipe of a run, with fields that are new since it was begun at their defaults."""
    return json.loads(Recipe.from_json(json.dumps(run["recipe"])).to_json())


def show(was: object, now: object) -> str:
    """A field's old and new value as text; of nested fields only what differs."""
    if isinstance(was, dict) and isinstance(now, dict):
        parts = {k: (was.get(k), now.get(k)) for k in {**was, **now} if was.get(k) != now.get(k)}
        return ", ".join(f"{k}: {a!r}, not {b!r}" for k, (a, b) in parts.items())
    return f"{was!r}, not {now!r}"


def read_run(out: str | Path) -> dict:
    """What is known of a run: recipe, shape, classes, latents, code.

    From run.json; where that is missing or damaged, from the newest checkpoint, which holds the same, with a warning.
    Raises ValueError where there is no run, DamagedFileError where both are of no use.
    """
    path, newest = Path(out) / "run.json", checkpoint.latest(Path(out) / "checkpoints")
    try:
        return read_json(path, " if a checkpoint is there to go on from", ("recipe",))
    except (FileNotFoundError, NotADirectoryError, DamagedFileError) as error:
        kept = checkpoint.read_counters(newest).get("run") if newest else None
        if not kept:
            if isinstance(error, DamagedFileError):
                raise
            raise ValueError(
                f"{out} holds no run: train first, e.g. `imf-lite train digits_imf --out {out}`."
            ) from error
        warnings.warn(f"{path} is missing or damaged: what {newest} holds of it is used.", stacklevel=3)
        return kept


def copy_weights(source: Network, target: Network) -> None:
    """Copy a trained network's weights, matched by names that are the same with and without a v-branch.

    What the source does not have keeps its initial values; a warning names it. Raises ValueError where nothing fits.
    """
    for name in ("predict", "noise_scale"):
        there, here = getattr(source.config, name), getattr(target.config, name)
        if there != here:
            raise ValueError(f"init has net.{name} = {there!r}, this run {here!r}: its outputs mean something else.")
    theirs, own = common_names(source), common_names(target)
    fits = [name for name, tensor in own.items() if name in theirs and theirs[name].shape == tensor.shape]
    if not any("blocks" in name for name in fits):
        raise ValueError(f"init holds a {source.config.kind} network of other sizes: none of its blocks fit this one.")
    with torch.no_grad():
        for name in fits:
            own[name].copy_(theirs[name])
    if left := sorted({name.split(".")[0] for name in own if name not in fits}):
        warnings.warn(
            f"init does not have, or not in this shape: {', '.join(left)}; they start untrained.", stacklevel=4
        )


def common_names(net: Network) -> dict[str, torch.Tensor]:
    """A network's tensors by names that do not depend on its v-branch: u_heads are numbered after shared_blocks."""
    shared = net.config.depth - (net.config.v_depth or 0)
    return {without_branch(name, shared): tensor for name, tensor in net.state_dict().items()}


def load_network(out: str | Path, device: torch.device | str | None = None, ema: int = 0) -> Network:
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
    tensors, _ = checkpoint.load(newest, checkpoint.average(ema))
    if not tensors:
        raise ValueError(f"{out} has no average number {ema}: its recipe has {len(recipe.decays())}.")
    net.load_state_dict({k.partition("/")[2]: v for k, v in tensors.items()})
    return net.to(device).eval().requires_grad_(False)


def keep_average(recipe: Recipe, out: Path, net: Network, step: int, tensors: dict[str, torch.Tensor]) -> None:
    """Keep the first average of a milestone for good, as a network that `--weights` reads: out/averages/step-<step>.

    tensors: those of its checkpoint. Does nothing at an update that is no milestone.
    """
    if not recipe.milestone_every or step % recipe.milestone_every:
        return
    ema = {k.removeprefix("ema/"): v for k, v in tensors.items() if k.startswith("ema/")}
    notes = {k: v for k, v in read_run(out).items() if k in ("recipe", "latents", "classes")} | {"step": step}
    write_network(out / "averages" / f"step-{step:09d}", ema, net.config, net.shape, net.num_classes, notes)


def sampler_of(out: str | Path) -> Callable:
    """How a run's network samples: flow matching steps along v, the others along u."""
    return sampler_for(read_run(out))


def sampler_for(notes: dict) -> Callable:
    """The same by what is known of a network, of which the authors' released files say little."""
    return euler if notes.get("recipe", {}).get("method") == "fm" else sample


def images_of(out: str | Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """How a run's samples become uint8 images: latents by the autoencoder that made them, pixels directly."""
    latents = read_run(out)["latents"]
    return Latents(**latents).images if latents else to_uint8


def fingerprint() -> str:
    """SHA-256 of the code that decides what is computed: the method, the networks, and their configurations.

    Comments, docstrings, imports and white space do not count.
    """
    package = Path(__file__).parent.parent
    method = ("configs", "losses", "draws", "conditions", "guidance", "objective", "forward_mode", "relatives")
    files = [*(package / f"{name}.py" for name in method), *sorted((package / "networks").glob("*.py"))]
    code = "\n".join(path.read_text() for path in files)
    code = re.sub(r'""".*?"""|#[^\n]*', "", code, flags=re.DOTALL)
    code = re.sub(r"^(from .* )?import (\([^)]*\)|.*)$", "", code, flags=re.MULTILINE)
    return hashlib.sha256(" ".join(code.split()).encode()).hexdigest()[:16]
