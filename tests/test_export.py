"""Networks as ONNX: onnxruntime gives what PyTorch gives, at any batch, from half the bytes if asked."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import network, tiny
from test_weights import save_tiny_vae

from imf_lite import cli, training
from imf_lite.conditions import Cond
from imf_lite.configs import MLPConfig
from imf_lite.data.autoencoder import load_vae
from imf_lite.data.normalisation import Latents
from imf_lite.networks import build
from imf_lite.pretrained import export


def run(path, **inputs):
    return onnxruntime.InferenceSession(str(path)).run(None, {k: v.numpy() for k, v in inputs.items()})[0]


@pytest.mark.parametrize(
    ("kind", "guided", "half"),
    [
        ("mlp", "no", False),
        ("dit", "interval", False),
        ("adaln", "omega", False),
        ("dit", "interval", True),
        ("pmf", "interval", False),
    ],
)
def test_u_is_that_of_pytorch_at_any_batch(tmp_path, kind, guided, half):
    net = network(kind, guided=guided, width=96 if kind == "dit" else 24)
    said = export.export_u(net, tmp_path / "u.onnx", half)
    assert kind != "dit" or 0.95 < said["bytes"] / ((2 if half else 4) * sum(p.numel() for p in net.parameters())) < 1.3
    assert said["noise_scale"] == 1
    assert said == json.loads((tmp_path / "u.json").read_text()) | {"shape": said["shape"]}
    g = torch.Generator().manual_seed(4)
    for count in (1, 7):
        t = torch.rand(count, generator=g)
        given = {"z": torch.randn(count, *net.shape, generator=g), "r": t * 0.3, "t": t}
        cond = {"y": torch.arange(count) % 11}
        if guided != "no":
            cond["omega"] = 1 + 6 * t
        if guided == "interval":
            cond |= {"t_min": 0.4 * t, "t_max": 0.5 + 0.5 * t}
        assert list(said["inputs"]) == [*given, *cond]
        if half:  # what is stored is the network with rounded weights
            for p in net.parameters():
                p.data = p.data.half().float()
        shape = (-1, 1, 1, 1)
        expected = net.u(given["z"], given["r"].view(shape), given["t"].view(shape), Cond(**cond))
        found = run(tmp_path / "u.onnx", **given, **cond)
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_points_without_classes_have_no_conditions(tmp_path):
    net = build(MLPConfig(width=16, depth=2), (2,), None)
    said = export.export_u(net, tmp_path / "u.onnx")
    assert list(said["inputs"]) == ["z", "r", "t"]
    z, t = torch.randn(9, 2), torch.rand(9)
    found = run(tmp_path / "u.onnx", z=z, r=t, t=t)
    np.testing.assert_allclose(found, net.u(z, t[:, None], t[:, None]).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_the_decoder_undoes_the_normalisation(tmp_path):
    vae = str(save_tiny_vae(tmp_path / "vae"))
    latents = Latents(vae, (0.1, -0.2, 0.3, 0.4), (1.0, 2.0, 0.5, 1.5))
    said = export.export_decoder(latents, (4, 8, 8), tmp_path / "decoder.onnx")
    assert said["mean"] == latents.mean and said["output"]["x"][0] == "B"
    z = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = load_vae(vae).decode(latents.denormalise(z)).sample
    np.testing.assert_allclose(run(tmp_path / "decoder.onnx", z=z), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_file_that_differs_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    (tmp_path / "u.onnx").write_text("a good one")
    with pytest.raises(RuntimeError, match=r"onnxruntime differs from PyTorch by .*, more than 0.0: not written"):
        export.export_u(network("mlp"), tmp_path / "u.onnx")
    monkeypatch.setattr(export, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"GB of weights: ONNX files hold less than .* try half"):
        export.export_u(network("mlp"), tmp_path / "u.onnx")
    assert (tmp_path / "u.onnx").read_text() == "a good one"


def test_the_command_exports_a_run_without_its_v_branch(tmp_path, monkeypatch, capsys):
    list(training.train(tiny("digits_guided", steps=2), tmp_path / "run", device="cpu"))
    words = ["imf-lite", "export", "--onnx", str(tmp_path / "onnx"), "--run", str(tmp_path / "run"), "--half"]
    monkeypatch.setattr("sys.argv", words)
    cli.main()
    assert "takes z, r, t, y, omega, t_min, t_max" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "onnx").iterdir()} == {"u.onnx", "u.json"}  # digits are no latents


def test_without_onnx_one_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ValueError, match=r"onnx is missing: `pip install 'imf-lite\[export\]'`"):
        export.export_u(network("mlp"), tmp_path / "u.onnx")
