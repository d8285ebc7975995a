"""Weights of our own and the released ones, through the files that a user would have."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import parity
import pytest
import torch
from helpers import drawn, network, point
from parity import FIXTURES, error
from PIL import Image
from released import AUTHORS, SIZES, TINY, names_of, of_authors
from test_cli import run
from torch.testing import assert_close

from imf_lite.conditions import Cond
from imf_lite.configs import DiTConfig
from imf_lite.data import autoencoder
from imf_lite.data.images import grid, to_uint8
from imf_lite.data.normalisation import CONSTANTS, latent_space
from imf_lite.networks import build
from imf_lite.pretrained import loading, released, weights
from imf_lite.sampling import generate, sample
from imf_lite.system.files import DamagedFileError

PARAMETERS = {"B": 88_948_256, "M": 173_921_312, "L": 409_071_648, "XL": 610_433_056}
"""of the published files (iMF, table 3)"""


@pytest.fixture
def released_file(tmp_path) -> Path:
    """The authors' layout in a file that a test may spoil."""
    return Path(shutil.copy(TINY, tmp_path / "iMF-tiny-2.pth"))


def test_a_file_in_the_authors_layout_gives_the_authors_u():
    net = weights.load(TINY, size=8)
    assert not net.has_v and not net.training and net.num_classes == 10 and net.shape == (3, 8, 8)
    given, cond = of_authors()
    assert error(net.u(given["z"], given["t"] - given["h"], given["t"], cond), AUTHORS["outputs"]["u"]) < 1e-5


@pytest.mark.parametrize("steps", [1, 2])
def test_a_file_in_the_authors_layout_gives_the_authors_samples(steps):
    given = AUTHORS["inputs"]
    span = given["sample_t_min"], given["sample_t_max"]
    x = sample(weights.load(TINY, 8), given["noise"], given["sample_y"], steps, given["sample_omega"], span)
    assert error(x, AUTHORS["outputs"][f"samples_{steps}nfe"]) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_every_name_and_shape_of_the_published_files_is_accounted_for(size):
    width, depth, heads = SIZES[size]
    names = names_of(width, depth, heads)
    assert len(names) == {"B": 186, "M": 342, "L": 446, "XL": 654}[size]
    tensors = {released.our_name(name): torch.empty(shape, device="meta") for name, shape in names.items()}
    config, shape, classes = released.read_config(tensors, Path("iMF.pth"))
    assert (config.width, config.depth, config.heads, config.v_depth) == (width, depth, heads, 8)
    assert (shape, classes) == ((4, 32, 32), 1000)
    with torch.device("meta"):
        loading.check(build(config, shape, classes), tensors, "", optional=("v_heads.",))
        slim = build(replace(config, v_depth=None), shape, classes)
    loading.check(slim, released.u_path(tensors, depth - 8), "")
    assert sum(p.numel() for p in slim.parameters()) + 17 * width + 16 == PARAMETERS[size]  # with v_final_layer


def test_the_recorded_v_heads_of_the_reference_code_are_loaded(tmp_path):
    tensors = {f"net.{k}": torch.tensor(v) for k, v in np.load(FIXTURES / "imf" / "params.npz").items()}
    torch.save(tensors, tmp_path / "whole.pth")
    net, recorded = weights.load(tmp_path / "whole.pth", 8), parity.load("forward")
    assert net.has_v and net.config.v_depth == 2
    cond = Cond(recorded["y"].long(), recorded["omega"], recorded["t_min"], recorded["t_max"])
    u, v = net(recorded["z"], recorded["t4"] - recorded["h4"], recorded["t4"], cond)
    assert error(u, recorded["u"]) < 1e-5 and error(v, recorded["v"]) < 1e-5


def test_a_size_that_cannot_be_read_off_the_file_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"of 3 channels.* say it \(size\)"):
        weights.load(TINY)


def test_everything_that_does_not_fit_is_listed_in_one_error(released_file):
    tensors = torch.load(released_file, weights_only=True)
    del tensors["net.u_final_layer.norm.weight"]
    tensors["net.surprise"] = torch.zeros(3)
    tensors["net.omega_tokens"] = torch.zeros(4, 31)
    torch.save(tensors, released_file)
    with pytest.raises(ValueError) as error:
        weights.load(released_file, 8)
    for part in (
        "missing u_final_layer.norm.weight (40,)",
        "unknown surprise (3,)",
        "misshapen omega_tokens: (4, 31), not (4, 40)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("block", ["shared_blocks.1", "u_heads.0"])
def test_a_missing_block_is_missed(released_file, block):
    tensors = {k: v for k, v in torch.load(released_file, weights_only=True).items() if f"{block}." not in k}
    torch.save(tensors, released_file)
    with pytest.raises(ValueError, match=f"missing {re.escape(block)}.attn.q_proj.weight"):
        weights.load(released_file, 8)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("this must not be printed",))

    torch.save({"net.x": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        weights.load(tmp_path / "trap.pth")


def test_other_dicts_are_refused(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="not a flat state dict"):
        weights.load(tmp_path / "nested.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold an iMF network"):
        weights.load(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "kind, v_depth, guided",
    [("mlp", 1, "interval"), ("dit", 0, "omega"), ("adaln", None, "no"), ("pmf", 1, "interval")],
)
def test_save_and_load_give_the_same_network(kind, v_depth, guided, tmp_path):
    net = network(kind, v_depth, guided=guided)
    weights.save_pretrained(net, tmp_path, {"recipe": "mine"})
    found = weights.load(tmp_path)
    assert found.config == net.config and found.shape == net.shape
    draws = drawn(guided=guided)
    z, cond = point(draws)
    for ours, theirs in zip(net(z, draws.r, draws.t, cond), found(z, draws.r, draws.t, cond), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_damaged_and_absent_folders_say_so(tmp_path):
    weights.save_pretrained(network("mlp"), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DamagedFileError, match="is damaged"):
        weights.load(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"holds no model\.safetensors"):
        weights.load(tmp_path)


@pytest.fixture
def offline(monkeypatch):
    """No network."""

    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(loading, "hf_hub_download", refuse)


def test_what_is_not_here_names_the_command_that_fetches_it(offline):
    with pytest.raises(ValueError, match=r"hf download Lyy0725/iMF iMF-B-2\.pth"):
        weights.load("iMF-B-2.pth")
    with pytest.raises(ValueError, match=r"hf download someone/model config\.json"):
        weights.load("someone/model")


def test_absent_and_damaged_released_files_say_so(released_file, tmp_path, monkeypatch):
    released_file.write_bytes(released_file.read_bytes()[:-500])
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        weights.load(released_file)
    for name in ("./iMF-B-2.pth", tmp_path / "iMF-B-2.pth"):
        with pytest.raises(ValueError, match=r"there is no file .*hf download Lyy0725/iMF iMF-B-2\.pth"):
            weights.load(name)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    weights.save_pretrained(network("mlp"), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width"', '"breadth"'))
    with pytest.raises(ValueError, match="does not describe a network of this version"):
        weights.load(tmp_path)


def test_hub_names_are_split_as_the_hub_wants_them(released_file, monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "hf_hub_download", lambda *words: asked.append(words) or str(released_file))
    weights.load("Lyy0725/iMF/iMF-M-2.pth", 8)
    weights.load("iMF-B-2.pth", 8)
    assert asked == [("Lyy0725/iMF", "iMF-M-2.pth"), ("Lyy0725/iMF", "iMF-B-2.pth")]


def save_tiny_vae(path: Path) -> Path:
    """An autoencoder of four scales in the real format, with random weights."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=256,
    ).save_pretrained(path)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def tiny_vae(tmp_path_factory) -> Path:
    return save_tiny_vae(tmp_path_factory.mktemp("vae"))


def test_decoding_undoes_the_normalisation(tiny_vae):
    z, net = torch.randn(3, 4, 4, 4), autoencoder.load_vae(tiny_vae)
    mean, std = (torch.tensor(v).view(4, 1, 1) for v in CONSTANTS["imf"])
    space = latent_space("imf", str(tiny_vae))
    assert_close(space.denormalise(z), z * std + mean)
    assert_close(space.normalise(space.denormalise(z)), z)
    assert_close(latent_space("mf", "").denormalise(z), z / 0.18215)
    assert torch.equal(space.images(z, batch=2), to_uint8(net.decode(z * std + mean).sample))
    with pytest.raises(ValueError, match="choose 'fitted'"):
        latent_space("imf", "", {"mean": [0.0], "std": [1.0]})
    with pytest.raises(ValueError, match="no autoencoder at"):
        autoencoder.load_vae(tiny_vae / "nothing")


def test_the_command_line_samples_a_file_in_the_authors_layout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ("sample", "--weights", TINY, "--size", 8, "--omega", 7.5, "--interval", 0.2, 0.6, "--classes", 3, 7)
    run(monkeypatch, *asked, "--rows", 2)
    assert "2 x 2 samples" in capsys.readouterr().out
    (made,) = Path("samples").glob("iMF-tiny-2-nfe1-omega7.5-interval0.2-0.6-classes3-7-seed0-*.png")
    picture = np.asarray(Image.open(made))
    x, _ = generate(weights.load(TINY, 8), 4, omega=7.5, interval=(0.2, 0.6), classes=(3, 7), batch=100)
    assert np.array_equal(picture[::8, ::8], grid(to_uint8(x), 2).permute(1, 2, 0).numpy())
    for words in (("sample",), ("sample", "--run", "x", "--weights", TINY)):
        with pytest.raises(SystemExit, match="either --run FOLDER or --weights FILE"):
            run(monkeypatch, *words)


def test_the_command_line_decodes_latents_of_a_network_by_diffusers_own_autoencoder(tiny_vae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = DiTConfig(width=32, depth=3, heads=4, v_depth=0, guided="interval")
    weights.save_pretrained(build(config, (4, 32, 32), 20), tmp_path / "mine")
    asked = ("sample", "--weights", "mine", "--omega", 8, "--interval", 0.4, 0.65, "--classes", 3, 7, "--rows", 2)
    name, folder = "mine-nfe1-omega8-interval0.4-0.65-classes3-7-seed0-*", Path("samples")
    run(monkeypatch, *asked)
    (latents,) = folder.glob(f"{name}.npy")
    assert np.load(latents).shape == (4, 4, 32, 32)
    run(monkeypatch, *asked, "--vae", tiny_vae)
    (picture,) = folder.glob(f"{name}.png")
    assert Image.open(picture).size == (512, 512)


@pytest.mark.parametrize("kind", ["mlp", "dit", "adaln", "pmf"])
def test_without_the_v_branch_u_is_the_same(kind):
    net, draws = network(kind, 2), drawn()
    slim, (z, cond) = weights.without_v(net), point(draws)
    assert not slim.has_v and sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    assert torch.equal(slim.u(z, draws.r, draws.t, cond), net.u(z, draws.r, draws.t, cond))


def test_half_precision_files_are_half_the_size(tmp_path):
    net = network("dit")
    weights.save_pretrained(net, tmp_path / "whole")
    weights.save_pretrained(net, tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / k / "model.safetensors").stat().st_size for k in ("whole", "half")]
    loaded = weights.from_pretrained(tmp_path / "half")
    assert sizes[1] < 0.6 * sizes[0] and next(loaded.parameters()).dtype == torch.float32
    assert_close(loaded.state_dict(), net.state_dict(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["fashion_imf", "fashion_mf_plain"])
def test_shipped_networks_have_names_which_win_over_the_hub(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "hf_hub_download", lambda *_: pytest.fail("asked the Hub"))
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "weights")
    assert f"\n{name} " in "\n" + capsys.readouterr().out
    assert weights.read_notes(name)["recipe"]["name"] == name
    run(monkeypatch, "sample", "--weights", name, "--rows", 1, "--classes", "dress", "bag")
    (picture,) = (tmp_path / "samples").glob(f"{name}-nfe1-classes3-8-seed0-*.png")
    assert Image.open(picture).size == (128, 64)


def test_a_name_that_is_nowhere_lists_what_ships(offline):
    with pytest.raises(ValueError, match=r"What ships with the package: fashion_fm_plain, fashion_imf"):
        weights.load("fashion_inf")
