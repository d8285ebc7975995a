"""Trained networks as files: our own, with their configuration beside them, and the released iMF ones.

Ours are a folder, or a Hub repository, of config.json and model.safetensors. The released ones are
flat PyTorch state dicts, iMF-B-2.pth ... iMF-XL-2.pth, in the Hub repository Lyy0725/iMF.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from . import checkpoint
from .networks import KINDS, DiTConfig, NetConfig, Network, build

RELEASED = "Lyy0725/iMF"
RENAMED = {
    "._flax_linear": "",
    "._flax_embedding": "",
    "cfg_t_start_embedder": "t_min_embedder",
    "cfg_t_end_embedder": "t_max_embedder",
    "y_embedder.embedding_table": "y_embedder",
}


def save_pretrained(
    net: Network, folder: str | Path, about: dict | None = None, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a network as `folder`/config.json and model.safetensors; `about` (JSON) goes into the first.

    dtype: of the stored numbers; from_pretrained computes in float32, whatever it is.
    """
    folder = Path(folder)
    described = {"net": dataclasses.asdict(net.config), "shape": net.shape, "num_classes": net.num_classes}
    checkpoint.write(folder / "model.safetensors", {k: v.to(dtype) for k, v in net.state_dict().items()})
    checkpoint.write_text(folder / "config.json", json.dumps(described | {"about": about or {}}, indent=1))
    return folder


def from_pretrained(name: str | Path) -> Network:
    """A network that save_pretrained wrote, from a folder or a Hub repository, ready to sample.

    Raises ValueError for tensors that do not fit the configuration, CheckpointError for a damaged file.
    """
    config_file, tensor_file = (find(name, file) for file in ("config.json", "model.safetensors"))
    described = json.loads(config_file.read_text())
    try:
        _, config = KINDS[described["net"]["kind"]]
        made = config(**described["net"]), tuple(described["shape"]), described["num_classes"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{config_file} does not describe a network of this version: {error}.") from error
    tensors, _ = checkpoint.load(tensor_file)
    with torch.device("meta"):
        check(build(*made), tensors, str(tensor_file))
    return ready(*made, tensors)


def without_v(net: Network) -> Network:
    """The same u-path without the v-branch, which only training needs: equal outputs, fewer weights."""
    slim = build(dataclasses.replace(net.config, v_depth=None), net.shape, net.num_classes)
    # the v-branch comes last; without it the same tensors stand in the same order, some under other names
    slim.load_state_dict(dict(zip(slim.state_dict(), net.state_dict().values(), strict=False)))
    return slim.to(next(net.parameters()).device).train(net.training)


def from_released(name: str | Path, size: int | None = None) -> Network:
    """A released iMF network by path ("iMF-B-2.pth") or Hub name ("Lyy0725/iMF/iMF-B-2.pth").

    Its configuration is read off the tensors, but for the side of its images or latents, which they do not hold
    (positions are rotary): `size`, by default 32, as published, where there are four channels. The published files
    hold the v-branch's final layer without its blocks: of no use, it is checked and left out, and the network has no
    v-head. A file with the blocks (v_heads) gives a network with a v-head.
    Raises ValueError listing every unknown, missing or misshapen tensor.
    """
    path = Path(name)
    if not path.exists():
        repository, _, file = str(name).rpartition("/")
        if Path(repository or "nowhere").is_dir() or str(name).startswith((".", "~", "/")):
            raise ValueError(f"there is no file {name}. The released ones: `hf download {RELEASED} {file}`.")
        path = find(repository or RELEASED, file)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a file of weights ({reason}): fetch it again.") from error
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ValueError(f"{path} is not a flat state dict: the released files map names to tensors.")
    tensors = {ours(k): v for k, v in tensors.items()}
    config, shape, classes = described_by(tensors, path, size)
    has_v = any(k.startswith("v_heads.") for k in tensors)
    with torch.device("meta"):
        check(build(config, shape, classes), tensors, str(path), optional=() if has_v else ("v_heads.",))
    if not has_v:
        tensors = u_path(tensors, config.depth - config.v_depth)
        config = dataclasses.replace(config, v_depth=None)
    return ready(config, shape, classes, tensors)


def u_path(tensors: dict[str, Tensor], shared: int) -> dict[str, Tensor]:
    """Released tensors under the names of a network without v-branch, in which all blocks are shared."""
    return {
        re.sub(r"^u_heads\.(\d+)", lambda found: f"shared_blocks.{shared + int(found[1])}", name): tensor
        for name, tensor in tensors.items()
        if not name.startswith("v_final_layer.")
    }


def load(name: str | Path, size: int | None = None) -> Network:
    """Either kind: a name that ends in .pth is a released file, all else a folder or repository of ours.

    size: side of a released network's latents, see from_released; ours say it themselves.
    """
    return from_released(name, size) if str(name).endswith(".pth") else from_pretrained(name)


def about(name: str | Path) -> dict:
    """What save_pretrained was told about a network; nothing is known of a released one."""
    return {} if str(name).endswith(".pth") else json.loads(find(name, "config.json").read_text())["about"]


def ours(name: str) -> str:
    """The released name of a tensor, as we call it."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name.removeprefix("net.")


def described_by(
    tensors: dict[str, Tensor], path: Path, size: int | None = None
) -> tuple[DiTConfig, tuple[int, int, int], int]:
    """Configuration, sample shape and number of classes of released tensors (names as in `ours`).

    The last blocks stand in u_heads (and, where they are kept, in v_heads), those before in shared_blocks.
    """
    try:
        width, channels, patch, _ = tensors["x_embedder.proj.weight"].shape
        head = len(tensors["shared_blocks.0.attn.q_norm.weight"])
        classes = len(tensors["y_embedder.weight"]) - 1
        counts = {k: len(tensors[f"{k}_tokens"]) for k in ("class", "omega", "time")}
        counts["interval"] = len(tensors["t_min_tokens"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} does not hold an iMF network: {error} is missing or misshapen.") from error
    if size is None and channels != 4:
        raise ValueError(
            f"{path} holds a network of {channels} channels, whose images' side cannot be read off it: say it (size)."
        )
    shared, heads = (
        1 + max((int(k.split(".")[1]) for k in tensors if k.startswith(f"{part}.")), default=-1)
        for part in ("shared_blocks", "u_heads")
    )
    config = DiTConfig(
        width=width, depth=shared + heads, heads=width // head, patch=patch, v_depth=heads, guided="interval",
        **{f"{k}_tokens": n for k, n in counts.items()},
    )  # fmt: skip
    return config, (channels, size or 32, size or 32), classes


def check(net: nn.Module, tensors: dict[str, Tensor], source: str, optional: tuple[str, ...] = ()) -> None:
    """Raise ValueError listing every tensor that this network misses, does not know or has in another shape.

    optional: beginnings of names that may be missing.
    """
    wanted = {k: v.shape for k, v in net.state_dict().items()}
    wrong = [f"missing {k} {tuple(s)}" for k, s in wanted.items() if k not in tensors and not k.startswith(optional)]
    wrong += [f"unknown {k} {tuple(v.shape)}" for k, v in tensors.items() if k not in wanted]
    wrong += [
        f"misshapen {k}: {tuple(tensors[k].shape)}, not {tuple(s)}"
        for k, s in wanted.items()
        if k in tensors and tensors[k].shape != s
    ]
    if wrong:
        raise ValueError(f"{source} does not fit this network:\n  " + "\n  ".join(wrong))


def ready(config: NetConfig, shape: tuple[int, ...], num_classes: int | None, tensors: dict[str, Tensor]) -> Network:
    """A network with these tensors, frozen, for sampling."""
    net = build(config, shape, num_classes)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


def find(name: str | Path, file: str) -> Path:
    """A file of a folder, or of a Hub repository (downloaded once). Raises ValueError saying where to get it."""
    if Path(name).is_dir():
        path = Path(name) / file
        if not path.exists():
            raise ValueError(f"{name} holds no {file}: is it a folder that save_pretrained wrote?")
        return path
    try:
        return Path(hf_hub_download(str(name), file))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name}/{file} is no file here, and cannot be fetched from the Hub ({type(error).__name__}). With "
            f"network: `hf download {name} {file}`; then give the path of the file."
        ) from error
