"""imf-lite export: networks as ONNX."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from .options import NetworkOptions, latent_space, load_network


@dataclass(frozen=True, kw_only=True)
class Export(NetworkOptions):
    """Write one evaluation of u as ONNX, for use without Python; with an autoencoder, its decoder, too.

    Makes ONNX/u.onnx and, for latents, ONNX/decoder.onnx, each with a JSON of inputs and outputs. Both are compared
    with PyTorch. Needs `pip install 'imf-lite[export]'`.
    """

    onnx: Path
    """folder to write to"""
    half: bool = False
    """store weights in float16; arithmetic stays in float32"""


def export(options: Export) -> None:
    """Write the ONNX files and print their sizes."""
    from ..pretrained.export import export_decoder, export_u
    from ..pretrained.weights import without_v

    net, notes = load_network(options, "cpu")
    space, onnx = latent_space(net, notes, options), options.onnx
    latents = {} if space is None else {"latents": asdict(space)}
    files = [export_u(without_v(net) if net.has_v else net, onnx / "u.onnx", options.half, latents)]
    if space is not None and space.vae:
        files.append(export_decoder(space, net.shape, onnx / "decoder.onnx", options.half))
    for file in files:
        size, difference = file["bytes"] / 1e6, file["difference_from_pytorch"]
        inputs = ", ".join(file["inputs"])
        print(f"{onnx / file['kind']}.onnx: {size:.1f} MB, within {difference:g} of PyTorch, takes {inputs}")
