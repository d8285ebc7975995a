"""Trained networks as files: a folder, or a Hub repository, of config.json and model.safetensors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from ..configs import NET_CONFIGS, NetConfig
from ..networks import Network, build
from ..system.files import read_json, read_tensors, write_tensors, write_text
from .loading import check, find, ready
from .released import SUFFIXES, from_released


def save_pretrained(
    net: Network, folder: str | Path, notes: dict | None = None, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a network as `folder`/config.json and model.safetensors; `notes` (JSON) are kept in the first.

    dtype: of the stored numbers; from_pretrained computes in float32, whatever it is.
    """
    tensors = {k: v.to(dtype) for k, v in net.state_dict().items()}
    return write_network(Path(folder), tensors, net.config, net.shape, net.num_classes, notes)


def write_network(
    folder: Path, tensors: dict[str, torch.Tensor], config: NetConfig, shape: tuple[int, ...], num_classes: int | None,
    notes: dict | None = None,
) -> Path:  # fmt: skip
    """Write a network, given by its parts, as save_pretrained does."""
    described = {"net": dataclasses.asdict(config), "shape": shape, "num_classes": num_classes}
    write_tensors(folder / "model.safetensors", tensors)
    write_text(folder / "config.json", json.dumps(described | {"about": notes or {}}, indent=1))
    return folder


def from_pretrained(name: str | Path) -> Network:
    """A network that save_pretrained wrote, from a folder or a Hub repository, ready to sample.

    Raises ValueError for tensors that do not fit the configuration, DamagedFileError for a damaged file.
    """
    config_file, tensor_file = (find(name, file) for file in ("config.json", "model.safetensors"))
    described = read_json(config_file, " and fetch the network again", ("net", "shape", "num_classes"))
    try:
        config = NET_CONFIGS[described["net"]["kind"]]
        made = config(**described["net"]), tuple(described["shape"]), described["num_classes"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{config_file} does not describe a network of this version: {error}.") from error
    tensors, _ = read_tensors(tensor_file)
    with torch.device("meta"):
        check(build(*made), tensors, str(tensor_file))
    return ready(*made, tensors)


def load(name: str | Path, size: int | None = None, noise_scale: float | None = None) -> Network:
    """Load a network of either kind: a name in .pth or .pt is a released file, else a folder or repository of ours.

    size, noise_scale: of a released network, see from_released; our own files store them.
    """
    return from_released(name, size, noise_scale) if str(name).endswith(SUFFIXES) else from_pretrained(name)


def read_notes(name: str | Path) -> dict:
    """The notes that save_pretrained kept with a network; a released one has none."""
    if str(name).endswith(SUFFIXES):
        return {}
    notes = read_json(find(name, "config.json"), " and fetch the network again", ("about",))["about"]
    return notes if isinstance(notes, dict) else {}


def without_v(net: Network) -> Network:
    """The same u-path without the v-branch, which only training needs: equal outputs, fewer weights."""
    slim = build(dataclasses.replace(net.config, v_depth=None), net.shape, net.num_classes)
    # the v-branch comes last; without it the same tensors stand in the same order, some under other names
    slim.load_state_dict(dict(zip(slim.state_dict(), net.state_dict().values(), strict=False)))
    return slim.to(next(net.parameters()).device).train(net.training)
