"""Networks as ONNX, to be run where there is no Python: one evaluation of u, and the autoencoder's decoder.

Each file comes with a JSON of its inputs and outputs. Needs the `export` extra (onnx, onnxscript, onnxruntime).
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..conditions import Cond
from ..configs import OMEGA_MAX
from ..data.autoencoder import load_vae
from ..data.normalisation import Latents
from ..networks import Network
from ..system.files import write_bytes, write_text

TOLERANCE = 1e-4
LIMIT = 2e9  # bytes of an ONNX file
BATCH = 3  # of the example that is traced; the batch is dynamic


class U(nn.Module):
    """u(z, r, t | y, omega, t_min, t_max) with everything but z as vectors (B,)."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, r: Tensor, t: Tensor, *cond: Tensor) -> Tensor:
        r, t = (s.view(-1, *[1] * (z.ndim - 1)) for s in (r, t))
        return self.net.u(z, r, t, Cond(**dict(zip(conditions(self.net), cond, strict=True))))


class Decoder(nn.Module):
    """What a network makes, (B, C, h, w), to an image (B, channels, H, W) in about [-1, 1]."""

    def __init__(self, latents: Latents):
        super().__init__()
        self.vae, self.latents = load_vae(latents.vae), latents

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(self.latents.denormalise(z)).sample


def conditions(net: Network) -> list[str]:
    """Names of the conditions that a network takes."""
    guidance = {"no": [], "omega": ["omega"], "interval": ["omega", "t_min", "t_max"]}[net.guided]
    return [*(["y"] if net.num_classes is not None else []), *guidance]


def export_u(net: Network, path: str | Path, half: bool = False, notes: dict | None = None) -> dict:
    """Write u as ONNX with a dynamic batch, and a JSON of the same name; returns the JSON's contents.

    Inputs: z (B, ...), r and t (B,), and the network's conditions, each (B,). half: weights are stored as float16
    (arithmetic stays float32). Raises RuntimeError if onnxruntime does not agree with PyTorch to 1e-4.
    """
    net = net.cpu().eval()
    g = torch.Generator().manual_seed(0)
    z = torch.randn(BATCH, *net.shape, generator=g)
    r, t = torch.tensor([0.0, 0.1, 0.4]), torch.tensor([1.0, 0.6, 0.4])
    values = {
        "y": torch.tensor([0, 1, 1]),
        "omega": torch.tensor([1.0, 2.0, 7.5]),
        "t_min": torch.tensor([0.0, 0.1, 0.4]),
        "t_max": torch.tensor([1.0, 0.8, 0.6]),
    }
    given = {"z": z, "r": r, "t": t} | {name: values[name] for name in conditions(net)}
    ranges = {
        "z": f"noise at t = 1: N(0, {net.noise_scale:g}^2)",
        "r": "[0, t]",
        "t": "[r, 1], 1 is noise",
        "y": f"0 to {net.num_classes}, the last: no class",
        "omega": f"[1, {OMEGA_MAX:g}]",
        "t_min": "[0, t_max]",
        "t_max": "[t_min, 1]",
    }
    description = {
        "kind": "u",
        "shape": list(net.shape),
        "num_classes": net.num_classes,
        "guided": net.guided,
        "noise_scale": net.noise_scale,
        "ranges": {name: ranges[name] for name in given},
    }
    return write(U(net), given, "u", Path(path), half, description | (notes or {}))


def export_decoder(latents: Latents, shape: tuple[int, ...], path: str | Path, half: bool = False) -> dict:
    """Write an autoencoder's decoder, which also undoes the normalisation, as ONNX with a JSON, like `export_u`."""
    z = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    description = {
        "kind": "decoder",
        "shape": list(shape),
        "vae": latents.vae,
        "mean": latents.mean,
        "std": latents.std,
    }
    return write(Decoder(latents), {"z": z}, "x", Path(path), half, description)


@torch.no_grad()
def write(module: nn.Module, given: dict[str, Tensor], output: str, path: Path, half: bool, description: dict) -> dict:
    """Trace a module, compare it with PyTorch and, if they agree, write the ONNX file and its JSON."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: `pip install 'imf-lite[export]'`.") from error
    module, stored = module.eval(), sum(p.numel() for p in module.parameters()) * (2 if half else 4)
    if stored > LIMIT:
        raise ValueError(f"{stored / 1e9:.1f} GB of weights: ONNX files hold less than {LIMIT / 1e9:g} GB; try half.")
    if half:
        module = copy.deepcopy(module)
        for p in module.parameters():
            p.copy_(p.half().float())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        shapes = batch_is_dynamic(module, len(given))
        traced = torch.export.export(module, tuple(given.values()), dynamic_shapes=shapes, strict=True)
        program = torch.onnx.export(
            traced, dynamo=True, verbose=False, input_names=list(given), output_names=[output], dynamic_shapes=shapes
        )
    assert program is not None  # with dynamo there is one
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in Python it came from: a third of the file
    if half:
        halve(onnx, model)
    content = model.SerializeToString()
    session, gap = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), 0.0
    for rows in (BATCH, 1):  # another batch than the traced one, too
        some = {name: value[-rows:] for name, value in given.items()}
        expected = module(*some.values())
        (output_array,) = session.run(None, {name: value.numpy() for name, value in some.items()})
        gap = max(gap, float(np.abs(output_array - expected.numpy()).max() / max(1.0, float(expected.abs().max()))))
    if not gap < TOLERANCE:
        raise RuntimeError(f"onnxruntime differs from PyTorch by {gap:.2g}, more than {TOLERANCE}: not written.")
    write_bytes(path, content)
    described = {
        "inputs": {
            k: {"shape": ["B", *v.shape[1:]], "type": str(v.dtype).removeprefix("torch.")} for k, v in given.items()
        },
        "output": {output: ["B", *expected.shape[1:]]},
        "weights": "float16" if half else "float32",
        "bytes": len(content),
        "difference_from_pytorch": float(f"{gap:.2g}"),
    }
    write_text(path.with_suffix(".json"), json.dumps(description | described, indent=1))
    return description | described


def batch_is_dynamic(module: nn.Module, inputs: int) -> tuple:
    """The first dimension of every input, for torch.export; U takes conditions as one tuple."""
    batch = {0: torch.export.Dim("B", min=1, max=63)}  # diffusers traces another, equal, path from 64 on
    if isinstance(module, U) and inputs > 3:
        return batch, batch, batch, (batch,) * (inputs - 3)
    return (batch,) * inputs


def halve(onnx, model) -> None:
    """Store weights that float16 holds exactly in half the bytes, each cast back where the graph begins."""
    for tensor in list(model.graph.initializer):
        value = onnx.numpy_helper.to_array(tensor)
        small = value.astype(np.float16) if value.dtype == np.float32 and value.size >= 256 else None
        if small is None or not np.array_equal(small.astype(np.float32), value):
            continue
        name, stored = tensor.name, tensor.name + ".half"
        tensor.CopyFrom(onnx.numpy_helper.from_array(small, stored))
        cast = onnx.helper.make_node("Cast", [stored], [name], name=stored, to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
