"""What a person can mistype, and the one line that answers: a table driven through the real entry point."""

import os

import numpy as np
import pytest
import torch
from helpers import save_network, tiny
from PIL import Image
from test_cli import run
from test_weights import save_tiny_vae
from torch import nn

from imf_lite.training.loop import train

USAGE = [
    (("train", "digits_imff"), "digits_imf_boundary"),
    (("train", "digits_imf", "--stepz", 3), "--steps"),
    (("train", "digits_mf", "--method", "fm"), "flow matching has r = t only"),
    (("train", "digits_imf", "--net.v-depth", 9), "v_depth = 9; it counts blocks"),
    (("train", "digits_imf", "--net.width", 0), "net.width = 0; it must be at least 1"),
    (("train", "digits_imf", "--batch", 0), "batch = 0; it must be at least 1"),
    (("train", "digits_imf", "--seed", -1), "seed = -1; it must not be negative"),
    (("train", "digits_imf", "--lr", "nan"), "lr = nan; it must be a finite number"),
    (("train", "digits_imf", "--steps", 2.5), "invalid literal for int"),
    (("train", "digits_imf", "--draws.p-std", -1), "draws.p_std = -1"),
    (("train", "digits_imf", "--decay", "cosine"), "cosine"),
    (("train", "digits_imf", "--batch", 64, "--parts", 64), "no row of a micro-batch of 1 has r < t"),
    (("sampel",), "Available subcommands: prepare, train, sample"),
    (("sample", "--nfe", "x"), "Error parsing --nfe"),
    (("train", "digits_imf", "--init", ""), "an argument is empty: is a variable of the shell not set?"),
    (("evaluate", "--reference="), "an argument is empty"),
    (("train", "digits_imf", "--name", "../up"), "name = '../up'; it names a folder"),
    (("train", "digits_imf", "--draws.p-mean", "1e10"), "beyond -10 and 10 all times are 0 or 1"),
    (("train", "digits_imf", "--draws.p-std", "1e-30"), "below 0.001 all times are the same"),
    (("train", "digits_imf", "--seed", 5_000_000_000), "the seed below 2^32"),
    (("train", "digits_imf", "--p", "1e30"), "p is at most 10"),
    (("sample", "--run", "trained", "--rows", -3), "rows = -3; it must be at least 1"),
    (("sample", "--run", "trained", "--nfe", 0), "nfe = 0; it must be at least 1"),
    (("sample", "--run", "trained", "--seed", -1), "seed = -1; it must be at least 0"),
    (("evaluate", "--run", "trained", "--seed", 1 << 32), "seed = 4294967296; it must be at least 0, and at most"),
    (("evaluate", "--run", "trained", "--batch", -5), "batch = -5; it must be at least 1"),
    (("evaluate", "--weights", "net", "--ema", 3), "--ema chooses among a run's averages"),
    (
        ("evaluate", "--weights", "net", "--size", 7),
        "--size, --latents and --noise-scale are for the authors' released files",
    ),
    (("sample", "--weights", "net", "--out", "."), "is a folder: give the name of a file"),
    (("sample", "--weights", "net", "--out", "real.npz/x"), "real.npz is a file. Choose another place"),
    (("evaluate", "--weights", "net", "--out", "real.npz"), "real.npz is a file. Choose another place"),
    (("search", "--weights", "net", "--out", "real.npz"), "real.npz is a file. Choose another place"),
    (
        ("evaluate", "--weights", "net", "--reference", "real.npz", "--inception", "absent.pth"),
        "use --extractor-weights",
    ),
    (("prepare", "images", "--batch", -1), "batch = -1; it must be at least 1"),
    (("prepare", "images", "--workers", -1), "workers = -1; it must be at least 0"),
    (("prepare", "images", "--vae", "vae", "--out", "images/latents"), "lies in the data set itself"),
]
"""exit code 2: the command cannot be what was meant"""

OTHERS = [
    (("train", "digits_imf", "--batch", 2000), "lower the batch"),
    (("train", "digits_imf", "--data", "mnist"), "no data set named 'mnist'"),
    (("train", "digits_imf", "--device", "gpu"), "device 'gpu' cannot be used here"),
    (("train", "digits_imf", "--out", "garbage.pth"), "is no folder"),
    (("train", "digits_imf", "--out", "garbage.pth/x"), "is no folder"),
    (("train", "digits_imf", "--out", "."), "holds other files"),
    (("sample", "--run", "nowhere"), "holds no checkpoint: train first"),
    (("evaluate", "--run", "nowhere"), "holds no checkpoint: train first"),
    (("train", "digits_imf", "--device", "meta"), "device 'meta' cannot be used here"),
    (("train", "digits_imf", "--fid.n", 20), "say how often, too, by --fid-every"),
    (("train", "digits_imf", "--fid-every", -5), "choose a multiple of both"),
    (("train", "digits_imf", "--fid-every", 1000, "--log-every", 300), "choose a multiple of both"),
    (("train", "digits_imf", "--net.width", 999999), "memory does not suffice"),
    (("train", "digits_imf", "--init", "net/model.safetensors"), "is a file: give the folder"),
    (("sample", "--weights", "https://example.org/x"), "is an address: fetch it first"),
    (("sample", "--weights", "cut"), "config.json is damaged (not JSON"),
    (("evaluate", "--weights", "net", "--n", 20, "--reference", "negative.npz", "--extractor", "digits"),
     "negative.npz: sigma is no covariance"),
    (("evaluate", "--weights", "net", "--n", 20, "--reference", "real.npz", "--extractor", "fashion"),
     "the extractor fashion does not take images of shape"),
    (("prepare", "vehicles", "--vae", "vae"), "if train is a class, move all classes into vehicles/train/"),
    (("prepare", "mixed", "--vae", "vae"), "holds images beside the folders of its classes"),
    (("evaluate", "--run", "trained", "--n", 105), "not a multiple of the 10 classes"),
    (("evaluate", "--run", "trained", "--n", 5000), "lower n"),
    (("sample", "--weights", "nan"), "hold numbers that are not finite: damaged"),
    (("evaluate", "--weights", "nan"), "hold numbers that are not finite: damaged"),
    (("evaluate", "--weights", "net", "--n", 0), "n = 0"),
    (("sample", "--weights", "plane_imf"), "makes points of shape (2,), not images"),
    (("sample", "--weights", "net", "--vae", "sd"), "makes pixels, not latents: leave out --vae"),
    (("evaluate", "--weights", "net", "--vae", "sd"), "makes pixels, not latents: leave out --vae"),
    (("sample", "--weights", "folder.pth"), "cannot be read as a file of weights"),
    (("sample", "--weights", "garbage.pth"), "cannot be read as a file of weights"),
    (("sample", "--weights", "net", "--omega", "nan"), "omega = nan; a guidance scale is at least 1"),
    (("sample", "--weights", "net", "--omega", 2, "--interval", 0.9, 0.2), "interval = 0.9, 0.2; it must be"),
    (("evaluate", "--weights", "net", "--extractor-weights", "trap.pth"), "Python objects, which are never loaded"),
    (("evaluate", "--weights", "net", "--extractor-weights", "absent.pth"), "there is no file of extractor weights"),
    (("evaluate", "--weights", "net", "--extractor", "clip-vit-b-32", "--extractor-weights", "script.pt",
      "--reference", "real.npz"), "script.pt is not clip-vit-b-32's file (its SHA-256 differs): fetch https://"),
    (("evaluate", "--weights", "net", "--extractor", "dinov2-vit-s-14", "--reference", "real.npz"),
     "would run code that torch.hub fetches"),
]  # fmt: skip
"""exit code 1: what was asked for cannot be done"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with whatever the table names."""
    folder = tmp_path_factory.mktemp("desk")
    save_network(folder / "nan", 0, spoil=True)
    save_network(folder / "net", 0)
    list(train(tiny(steps=1, ema=0.5), folder / "trained", device="cpu"))
    (folder / "folder.pth").mkdir()
    (folder / "garbage.pth").write_bytes(os.urandom(999))
    torch.save({"x": print}, folder / "trap.pth")
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1)), folder / "script.pt")
    np.savez(folder / "real.npz", mu=np.zeros(512), sigma=np.eye(512))
    np.savez(folder / "negative.npz", mu=np.zeros(64), sigma=-np.eye(64))
    (folder / "cut").mkdir()
    (folder / "cut" / "config.json").write_text((folder / "net" / "config.json").read_text()[:50])
    (folder / "cut" / "model.safetensors").write_bytes((folder / "net" / "model.safetensors").read_bytes())
    save_tiny_vae(folder / "vae")
    for name in ("images/a", "vehicles/bus", "vehicles/train", "mixed/a", "mixed"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / name / "1.png")
    return folder


@pytest.mark.parametrize("words, line", USAGE)
def test_usage_errors_are_one_line_and_code_2(desk, monkeypatch, capsys, words, line):
    monkeypatch.chdir(desk)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    shown = capsys.readouterr()
    assert stop.value.code == 2 and not shown.out
    assert line in shown.err and shown.err.count("\n") == 1 and shown.err.startswith("imf-lite: ")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("words, line", OTHERS)
def test_other_errors_are_one_line_and_code_1(desk, monkeypatch, words, line):
    monkeypatch.chdir(desk)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    said = str(stop.value.code)  # a text: Python prints it, and ends with 1
    assert said.startswith("imf-lite: ") and line in said and "\n" not in said
