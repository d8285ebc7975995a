"""Loading a network, whoever wrote the file: find the file, check every tensor, build the network."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from ..configs import NetConfig
from ..networks import Network, build
from .shipped import networks


def find(name: str | Path, file: str) -> Path:
    """A file of a folder, of a network that ships with the package, or of a Hub repository (downloaded once).

    Raises ValueError saying where to get it.
    """
    shipped = networks()
    if Path(name).is_file():
        raise ValueError(f"{name} is a file: give the folder that holds config.json and model.safetensors, or a run's.")
    if "://" in str(name):
        raise ValueError(f"{name} is an address: fetch it first, then give the path.")
    if not Path(name).exists() and str(name) in shipped:
        return shipped[str(name)].folder / file
    if Path(name).is_dir():
        path = Path(name) / file
        if not path.exists():
            raise ValueError(f"{name} holds no {file}: is it a folder that save_pretrained wrote?")
        return path
    try:
        return Path(hf_hub_download(str(name), file))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name}/{file} is not a file here, and cannot be fetched from the Hub ({type(error).__name__}). Run "
            f"`hf download {name} {file}` where there is a network, then give its path. What ships with the package: "
            f"{', '.join(shipped)}."
        ) from error


def check(net: nn.Module, tensors: dict[str, Tensor], source: str, optional: tuple[str, ...] = ()) -> None:
    """Raise ValueError listing every tensor that this network misses, does not have or has in another shape.

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
