"""The authors' released networks: flat PyTorch state dicts, read strictly.

iMF-B-2.pth ... iMF-XL-2.pth are on the Hub in the repository Lyy0725/iMF, pMF-B-16.pt ... pMF-H-32.pt in Lyy0725/pMF.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from ..configs import DiTConfig
from ..networks import Network, build
from ..networks.dit import without_branch
from ..system.files import read_pickled
from .loading import check, find, ready

SUFFIXES = (".pth", ".pt")
HUB = {"iMF": "Lyy0725/iMF", "pMF": "Lyy0725/pMF"}
NOISE_SCALES = {(1280, 16): 2.0, (768, 32): 2.0, (1024, 32): 4.0, (1280, 32): 4.0}
"""of pMF's published sizes (width, patch); 1 for all others: the files do not hold it"""
EXTRAS = ("rope_freqs",)
"""tensors of pMF's files that a network computes by itself"""
V_BRANCH = ("v_heads.", "v_final_layer.")
RENAMED = {
    "._flax_linear": "",
    "._flax_embedding": "",
    "cfg_t_start_embedder": "t_min_embedder",
    "cfg_t_end_embedder": "t_max_embedder",
    "y_embedder.embedding_table": "y_embedder",
}


def from_released(name: str | Path, size: int | None = None, noise_scale: float | None = None) -> Network:
    """A released network by path ("iMF-B-2.pth", "pMF-B-16.pt") or Hub name ("Lyy0725/iMF/iMF-B-2.pth").

    Its configuration is read off the tensors, except the side of iMF's images or latents, which they do not show, as
    positions are rotary: give `size` (with four channels, 32 by default, as published), and pMF's noise scale, which is
    that of its published size unless `noise_scale` is given. The published iMF files hold
    the v-branch's final layer without its blocks, pMF's may hold parts of it: they are checked and left out, and the
    network has no v-head. A file with the whole branch gives a network with a v-head.
    Raises ValueError listing every unknown, missing or misshapen tensor.
    """
    path = Path(name)
    if not path.exists():
        repository, _, file = str(name).rpartition("/")
        home = HUB["pMF" if file.startswith("pMF") else "iMF"]
        if Path(repository or "nowhere").is_dir() or str(name).startswith((".", "~", "/")):
            raise ValueError(f"there is no file {name}. The released ones: `hf download {home} {file}`.")
        path = find(repository or home, file)
    tensors = read_pickled(path)
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ValueError(f"{path} is not a flat state dict: the released files map names to tensors.")
    tensors = {our_name(k): v for k, v in tensors.items()}
    is_pmf = "pos_embed" in tensors
    if is_pmf:
        tensors = {k: without_batch(k, v) for k, v in tensors.items() if k not in EXTRAS}
    config, shape, classes = read_config(tensors, path, size)
    if not is_pmf and noise_scale is not None:
        raise ValueError(f"{path} holds an iMF network, whose noise has scale 1: leave noise_scale out.")
    if noise_scale is not None:
        config = dataclasses.replace(config, noise_scale=noise_scale)
    with torch.device("meta"):
        whole = build(config, shape, classes)
    has_v = {k for k in whole.state_dict() if k.startswith(V_BRANCH)} <= tensors.keys()
    if not has_v and not is_pmf:  # blocks without some others are a damaged file: all are asked for
        has_v = any(k.startswith("v_heads.") for k in tensors)
    check(whole, tensors, str(path), optional=() if has_v else V_BRANCH if is_pmf else V_BRANCH[:1])
    if not has_v:
        tensors = u_path(tensors, config.depth - (config.v_depth or 0))
        config = dataclasses.replace(config, v_depth=None)
    return ready(config, shape, classes, tensors)


def u_path(tensors: dict[str, Tensor], shared: int) -> dict[str, Tensor]:
    """Released tensors under the names of a network without v-branch, in which all blocks are shared."""
    return {without_branch(name, shared): tensor for name, tensor in tensors.items() if not name.startswith(V_BRANCH)}


def our_name(name: str) -> str:
    """This project's name of a tensor, from its released one."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name.removeprefix("net.")


def without_batch(name: str, tensor: Tensor) -> Tensor:
    """pMF's tokens and positions (1, n, D) as (n, D); other tensors as they are."""
    is_batch = name.endswith(("_tokens", "pos_embed")) and tensor.ndim == 3 and len(tensor) == 1
    return tensor[0] if is_batch else tensor


def read_config(
    tensors: dict[str, Tensor], path: Path, size: int | None = None
) -> tuple[DiTConfig, tuple[int, int, int], int]:
    """Configuration, sample shape and number of classes of released tensors (names as by `our_name`).

    pMF's learnt positions show the number of patches, and so the side of its images.

    The last blocks stand in u_heads (and, where they are kept, in v_heads), those before in shared_blocks.
    """
    is_pmf = "pos_embed" in tensors
    try:
        first = tensors["x_embedder.proj1.weight" if is_pmf else "x_embedder.proj.weight"]
        narrow, channels, patch, _ = first.shape
        width = len(tensors["x_embedder.proj2.weight"]) if is_pmf else narrow
        head = len(tensors["shared_blocks.0.attn.q_norm.weight"])
        classes = len(tensors["y_embedder.weight"]) - 1
        tokens = {k: len(tensors[f"{k}_tokens"]) for k in ("class", "omega", "time", "t_min", "t_max")}
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold {'a pMF' if is_pmf else 'an iMF'} network: {error} is missing or misshapen."
        ) from error
    if is_pmf:
        if size is not None:
            raise ValueError(f"{path} holds a pMF network, whose positions show its images' side: leave size out.")
        patches = len(tensors["pos_embed"]) - sum(tokens.values())
        size = patch * math.isqrt(max(patches, 0))
        if patches < 1 or (size // patch) ** 2 != patches:
            raise ValueError(f"{path} has positions for {patches} patches, which do not fill a square.")
    elif size is None and channels != 4:
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
    if is_pmf:
        config = dataclasses.replace(
            config, predict="x", bottleneck=narrow, grid_positions=True,
            noise_scale=NOISE_SCALES.get((width, patch), 1.0),
        )  # fmt: skip
    return config, (channels, size or 32, size or 32), classes
