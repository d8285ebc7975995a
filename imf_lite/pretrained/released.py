"""The authors' released iMF networks: flat PyTorch state dicts, iMF-B-2.pth ... iMF-XL-2.pth, read strictly.

They are on the Hub in the repository Lyy0725/iMF.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from ..configs import DiTConfig
from ..networks import Network, build
from ..networks.dit import without_branch
from ..system.files import read_pickled
from .loading import check, find, ready

RELEASED = "Lyy0725/iMF"
RENAMED = {
    "._flax_linear": "",
    "._flax_embedding": "",
    "cfg_t_start_embedder": "t_min_embedder",
    "cfg_t_end_embedder": "t_max_embedder",
    "y_embedder.embedding_table": "y_embedder",
}


def from_released(name: str | Path, size: int | None = None) -> Network:
    """A released iMF network by path ("iMF-B-2.pth") or Hub name ("Lyy0725/iMF/iMF-B-2.pth").

    Its configuration is read off the tensors, except the side of its images or latents, which they do not show, as
    positions are rotary: give `size` (with four channels, 32 by default, as published). The published files hold
    the v-branch's final layer without its blocks; the layer is checked and left out, and the network has no v-head.
    A file with the blocks (v_heads) gives a network with a v-head.
    Raises ValueError listing every unknown, missing or misshapen tensor.
    """
    path = Path(name)
    if not path.exists():
        repository, _, file = str(name).rpartition("/")
        if Path(repository or "nowhere").is_dir() or str(name).startswith((".", "~", "/")):
            raise ValueError(f"there is no file {name}. The released ones: `hf download {RELEASED} {file}`.")
        path = find(repository or RELEASED, file)
    tensors = read_pickled(path)
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ValueError(f"{path} is not a flat state dict: the released files map names to tensors.")
    tensors = {our_name(k): v for k, v in tensors.items()}
    config, shape, classes = read_config(tensors, path, size)
    has_v = any(k.startswith("v_heads.") for k in tensors)
    with torch.device("meta"):
        check(build(config, shape, classes), tensors, str(path), optional=() if has_v else ("v_heads.",))
    if not has_v:
        tensors = u_path(tensors, config.depth - (config.v_depth or 0))
        config = dataclasses.replace(config, v_depth=None)
    return ready(config, shape, classes, tensors)


def u_path(tensors: dict[str, Tensor], shared: int) -> dict[str, Tensor]:
    """Released tensors under the names of a network without v-branch, in which all blocks are shared."""
    return {
        without_branch(name, shared): tensor
        for name, tensor in tensors.items()
        if not name.startswith("v_final_layer.")
    }


def our_name(name: str) -> str:
    """This project's name of a tensor, from its released one."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name.removeprefix("net.")


def read_config(
    tensors: dict[str, Tensor], path: Path, size: int | None = None
) -> tuple[DiTConfig, tuple[int, int, int], int]:
    """Configuration, sample shape and number of classes of released tensors (names as by `our_name`).

    The last blocks stand in u_heads (and, where they are kept, in v_heads), those before in shared_blocks.
    """
    try:
        width, channels, patch, _ = tensors["x_embedder.proj.weight"].shape
        head = len(tensors["shared_blocks.0.attn.q_norm.weight"])
        classes = len(tensors["y_embedder.weight"]) - 1
        tokens = {k: len(tensors[f"{k}_tokens"]) for k in ("class", "omega", "time", "t_min")}
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
        class_tokens=tokens["class"], omega_tokens=tokens["omega"], interval_tokens=tokens["t_min"],
        time_tokens=tokens["time"],
    )  # fmt: skip
    return config, (channels, size or 32, size or 32), classes
