"""Weights of our own and the released ones, through the files that a user would have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, network, point
from test_cli import run
from torch.testing import assert_close

from imf_lite import vae, weights
from imf_lite.checkpoint import CheckpointError
from imf_lite.images import to_uint8
from imf_lite.latents import CONSTANTS, named
from imf_lite.networks import DiTConfig, build

SMALL = DiTConfig(width=32, depth=3, heads=4, v_depth=0, guided="interval")


def released_names(net) -> dict[str, torch.Tensor]:
    """A network's tensors under the names of the released files."""
    names = {}
    for name, tensor in net.state_dict().items():
        head, _, last = name.rpartition(".")
        if name == "y_embedder.weight":
            name = "y_embedder.embedding_table._flax_embedding.weight"
        elif last in ("weight", "bias") and tensor.ndim <= 2 and "norm" not in head and "x_embedder" not in head:
            name = f"{head}._flax_linear.{last}"
        name = name.replace("t_min_embedder", "cfg_t_start_embedder").replace("t_max_embedder", "cfg_t_end_embedder")
        names[f"net.{name}"] = tensor
    return names


@pytest.fixture
def released(tmp_path) -> tuple[torch.nn.Module, Path]:
    """A small network of ours, nowhere zero, as a file like the released ones."""
    net = build(SMALL, (4, 32, 32), 20, seed=1)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    torch.save(released_names(net), tmp_path / "iMF-S-2.pth")
    return net, tmp_path / "iMF-S-2.pth"


def test_b2_has_as_many_tensors_as_the_released_file():
    with torch.device("meta"):
        net = build(DiTConfig(v_depth=0, guided="interval"), (4, 32, 32), 1000)
    assert len(net.state_dict()) == 186


def test_a_released_file_is_read_whole(released):
    net, path = released
    found = weights.load(path)
    assert found.config == replace(SMALL, v_depth=None) and found.num_classes == 20 and not found.training
    assert not found.has_v  # the file has no blocks for it
    draws = drawn(shape=(4, 32, 32), guided="interval")
    z, cond = point(draws)
    assert_close(found.u(z, draws.r, draws.t, cond), net.u(z, draws.r, draws.t, cond), rtol=0, atol=0)


def test_everything_that_does_not_fit_is_listed_in_one_error(released):
    _, path = released
    tensors = torch.load(path, weights_only=True)
    del tensors["net.u_final_layer.norm.weight"]
    tensors["net.surprise"] = torch.zeros(3)
    tensors["net.omega_tokens"] = torch.zeros(4, 31)
    torch.save(tensors, path)
    with pytest.raises(ValueError) as error:
        weights.load(path)
    for part in (
        "missing u_final_layer.norm.weight (32,)",
        "unknown surprise (3,)",
        "misshapen omega_tokens: (4, 31), not (4, 32)",
    ):
        assert part in str(error.value)


def test_a_missing_block_in_the_middle_is_missed(released):
    _, path = released
    tensors = {k: v for k, v in torch.load(path, weights_only=True).items() if "shared_blocks.1." not in k}
    torch.save(tensors, path)
    with pytest.raises(ValueError, match=r"missing shared_blocks\.1\.attn\.q_proj\.weight"):
        weights.load(path)


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


@pytest.mark.parametrize("kind, v_depth, guided", [("mlp", 1, "interval"), ("dit", 0, "omega"), ("adaln", None, "no")])
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
    with pytest.raises(CheckpointError, match="is damaged"):
        weights.load(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"holds no model\.safetensors"):
        weights.load(tmp_path)


def test_what_is_not_here_names_the_command_that_fetches_it(monkeypatch):
    def offline(*_):
        raise OSError("no network")

    monkeypatch.setattr(weights, "hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"hf download Lyy0725/iMF iMF-B-2\.pth"):
        weights.load("iMF-B-2.pth")
    with pytest.raises(ValueError, match=r"hf download someone/model config\.json"):
        weights.load("someone/model")


def test_absent_and_damaged_released_files_say_so(released, tmp_path, monkeypatch):
    _, path = released
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        weights.load(path)
    for name in ("./iMF-B-2.pth", tmp_path / "iMF-B-2.pth"):
        with pytest.raises(ValueError, match=r"there is no file .*hf download Lyy0725/iMF iMF-B-2\.pth"):
            weights.load(name)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    weights.save_pretrained(network("mlp"), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width"', '"breadth"'))
    with pytest.raises(ValueError, match="does not describe a network of this version"):
        weights.load(tmp_path)


def test_hub_names_are_split_as_the_hub_wants_them(released, monkeypatch):
    _, path = released
    asked = []
    monkeypatch.setattr(weights, "hf_hub_download", lambda *words: asked.append(words) or str(path))
    weights.load("Lyy0725/iMF/iMF-M-2.pth")
    weights.load("iMF-B-2.pth")
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
    z, net = torch.randn(3, 4, 4, 4), vae.load_vae(tiny_vae)
    mean, std = (torch.tensor(v).view(4, 1, 1) for v in CONSTANTS["imf"])
    space = named("imf", str(tiny_vae))
    assert_close(space.denormalise(z), z * std + mean)
    assert_close(space.normalise(space.denormalise(z)), z)
    assert_close(named("mf", "").denormalise(z), z / 0.18215)
    assert torch.equal(space.images(z, batch=2), to_uint8(net.decode(z * std + mean).sample))
    with pytest.raises(ValueError, match="choose 'fitted'"):
        named("imf", "", {"mean": [0.0], "std": [1.0]})
    with pytest.raises(ValueError, match="no autoencoder at"):
        vae.load_vae(tiny_vae / "nothing")


def test_the_command_line_samples_released_weights(released, tiny_vae, tmp_path, monkeypatch, capsys):
    _, path = released
    monkeypatch.chdir(tmp_path)
    asked = ("sample", "--weights", path, "--omega", 8, "--interval", 0.4, 0.65, "--classes", 3, 7, "--rows", 2)
    run(monkeypatch, *asked)
    assert np.load("samples/iMF-S-2-nfe1-omega8-interval0.4-0.65-seed0.npy").shape == (4, 4, 32, 32)
    run(monkeypatch, *asked, "--vae", tiny_vae)
    assert (
        "2 x 2 samples" in capsys.readouterr().out
        and Path("samples/iMF-S-2-nfe1-omega8-interval0.4-0.65-seed0.png").exists()
    )
    for words in (("sample",), ("sample", "--run", "x", "--weights", path)):
        with pytest.raises(SystemExit, match="either --run FOLDER or --weights FILE"):
            run(monkeypatch, *words)


@pytest.mark.parametrize("kind", ["mlp", "dit", "adaln"])
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
