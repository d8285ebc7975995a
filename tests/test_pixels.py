"""Pixels without an autoencoder: x-prediction, pMF's network and files, data sets of pixels, recipes."""

import json
import pickle
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, gradients, network, point, tiny
from parity import error
from PIL import Image
from released import AUTHORS_PMF, PMF, TINY, TINY_PMF, of_authors
from test_cli import run
from torch.testing import assert_close
from torchvision.datasets import CIFAR10

from imf_lite import data, guidance, losses, recipes, training
from imf_lite.conditions import Cond
from imf_lite.configs import PRESETS, T_CLIP, DiTConfig, DrawConfig, MLPConfig
from imf_lite.data import cache, pixels, preparation
from imf_lite.data.sources.folders import FlatFolder
from imf_lite.draws import draw
from imf_lite.evaluation import perceptual
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.evaluation.perceptual import Perceptual, eye_net
from imf_lite.networks import build
from imf_lite.networks.base import velocity_from
from imf_lite.networks.layers import grid_rope_table, rope_table
from imf_lite.objective import Objective
from imf_lite.pretrained import export, released, weights
from imf_lite.sampling import euler, generate, sample
from imf_lite.system.rng import generator
from imf_lite.training import checkpoint
from imf_lite.training.optimizers import make_optimizer
from toy_experiments import rehearsal
from toy_experiments.experiments import pixels as experiment
from toy_experiments.tables import read_table

# x-prediction


@pytest.mark.parametrize("kind", ["mlp_x", "pmf"])
def test_one_step_from_noise_is_the_output_of_the_last_layer(kind):
    net, draws = network(kind), drawn()
    one = torch.ones_like(draws.t)
    x_hat = net.denoised(draws.e, 0 * one, one, Cond(draws.y))
    assert_close(sample(net, draws.e, draws.y), x_hat)
    raw = net.u_branch(*net.trunk(draws.e, 0 * one, one, Cond(draws.y)))
    assert torch.equal(x_hat, raw) and x_hat.std() > 0.1


@pytest.mark.parametrize("t", [0.02, 0.05, 0.3, 1.0])
def test_u_and_v_follow_from_their_images_with_the_clip(t):
    net, draws = network("pmf", 1), drawn()
    z, cond = point(draws)
    t = torch.full_like(draws.t, t)
    u, v = net(z, t / 2, t, cond)
    state = net.trunk(z, t / 2, t, cond)
    for velocity, image in ((u, net.u_branch(*state)), (v, net.v_branch(*state))):
        assert_close(velocity, (z - image) / max(float(t[0]), 0.05))
    assert_close(net.denoised(z, t / 2, t, cond), net.u_branch(*state))


def test_a_perfect_image_has_no_loss_at_any_time():
    """Target and prediction have the same clip: without it in the target, a perfect x would have a loss at small t."""

    net, x = build(MLPConfig(predict="x", width=8, depth=1), (2,), None), torch.randn(64, 2)
    e, t = torch.randn(64, 2), torch.linspace(0.001, 1, 64)[:, None]
    z = (1 - t) * x + t * e
    assert_close(net.conditional_velocity(z, x, e, t), velocity_from(x, z, t))
    late = t.flatten() >= T_CLIP
    assert_close(net.conditional_velocity(z, x, e, t)[late], (e - x)[late], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(net.conditional_velocity(z, x, e, t)[~late], (e - x)[~late], rtol=0.1)
    plain = build(MLPConfig(width=8, depth=1), (2,), None)
    assert torch.equal(plain.conditional_velocity(z, x, e, t), e - x)
    for rule in (guidance.conditional, guidance.predicted):
        d = drawn(64, shape=(2,))._replace(x=x, e=e, t=t, r=t, n_eq=64)
        target, _ = rule(net, z, d, Cond(), e)
        assert_close(target, velocity_from(x, z, t))


@pytest.mark.parametrize("kind", ["mlp_x", "pmf"])
@pytest.mark.parametrize("t", [0.02, 0.049, 0.051, 0.1, 0.5, 1.0 - 1e-5])
def test_the_slope_through_the_division_equals_finite_differences(kind, t):
    net, draws = network(kind, dtype=torch.float64), drawn(dtype=torch.float64, p_r_neq_t=1.0)
    z, cond = point(draws)
    t, along, eps = torch.full_like(draws.t, t), torch.randn_like(z), 1e-6
    du_dt = losses.slope(net, z, t / 3, t, cond, 0, along)
    ahead, behind = (net.u(z + s * eps * along, t / 3, t + s * eps, cond) for s in (1, -1))
    assert_close(du_dt, ((ahead - behind) / (2 * eps)).detach(), rtol=1e-5, atol=1e-7 * du_dt.abs().max().item())
    assert du_dt.abs().max() > 1e-2


# pMF's network and its released files


def test_a_file_in_the_layout_of_pmf_gives_the_authors_u_and_samples():
    net = weights.load(TINY_PMF)
    assert net.shape == (3, 16, 16) and net.num_classes == 10 and not net.has_v
    assert sum(p.numel() for p in net.parameters()) == json.loads((PMF / "config.json").read_text())["params"]
    given, cond = of_authors(AUTHORS_PMF["inputs"])
    out = AUTHORS_PMF["outputs"]
    assert error(net.u(given["z"], given["t"] - given["h"], given["t"], cond), out["u"]) < 1e-5
    span = given["sample_t_min"], given["sample_t_max"]
    for steps in (1, 2):
        with pytest.warns(UserWarning, match=r"omega 8\.5 is larger"):
            x = sample(net, given["noise"], given["sample_y"], steps, given["sample_omega"], span)
        assert error(x, out[f"samples_{steps}nfe"]) < 1e-5


def test_every_name_of_pmf_b16_is_accounted_for_and_the_sizes_are_the_published_ones():
    names = json.loads((PMF / "pMF-B-16.names.json").read_text())
    tensors = {released.our_name(k): torch.empty(shape, device="meta") for k, shape in names.items()}
    kept = {k: released.without_batch(k, v) for k, v in tensors.items() if k not in released.EXTRAS}
    assert len(tensors) - len(kept) == 1
    config, shape, classes = released.read_config(kept, Path("pMF-B-16.pt"))
    assert (shape, classes, config) == ((3, 256, 256), 1000, PRESETS["pmf_b16"])
    with torch.device("meta"):
        net = build(replace(config, v_depth=None), shape, classes)
    theirs = released.u_path(kept, config.depth - config.v_depth)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(
    "name, D, depth, heads, bottleneck, hidden",
    [("pmf_b16", 768, 16, 12, 128, 2048), ("pmf_l16", 1024, 32, 16, 128, 2730), ("pmf_h16", 1280, 48, 16, 256, 3416)],
)
def test_parameters_of_the_presets(name, D, depth, heads, bottleneck, hidden):
    """By pMF's published sizes (arXiv 2601.22158); SwiGLU's hidden width is a multiple of 8 above width 1,024."""
    with torch.device("meta"):
        net = build(replace(PRESETS[name], v_depth=None), (3, 256, 256), 1000)
    embedders = 4 * (256 * D + D + D * D + D) + 1001 * D
    patches = 768 * bottleneck + bottleneck + bottleneck * D + D
    block = 4 * D * D + 3 * D * hidden + 4 * D + 2 * D // heads
    expected = embedders + patches + (20 + 276) * D + depth * block + D + 768 * D + 768
    count = sum(p.numel() for p in net.parameters())
    assert count == expected and (name != "pmf_b16" or count == 118_234_240)
    assert net.noise_scale == {"pmf_h16": 2.0}.get(name, 1.0)


@pytest.fixture
def spoilt(tmp_path):
    """pMF's tiny file with changed tensors."""

    def write(**changes):
        tensors = torch.load(TINY_PMF, weights_only=True)
        for name, value in changes.items():
            name = "net." + name.replace("__", ".")
            tensors.pop(name, None) if value is None else tensors.__setitem__(name, value)
        torch.save(tensors, tmp_path / "pMF-spoilt.pt")
        return tmp_path / "pMF-spoilt.pt"

    return write


def test_known_extras_are_left_out_by_name_and_anything_else_is_refused(spoilt):
    plain = weights.load(TINY_PMF)
    branch = {"v_final_layer__norm__weight": torch.ones(48), "rope_freqs": torch.ones(16, 6, dtype=torch.complex64)}
    extra = weights.load(spoilt(**branch))
    assert not extra.has_v
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), extra.parameters(), strict=True))
    with pytest.raises(ValueError, match="unknown surprise"):
        weights.load(spoilt(surprise=torch.ones(3)))
    with pytest.raises(ValueError, match=r"unknown v_final_layer\.surprise"):
        weights.load(spoilt(v_final_layer__surprise=torch.ones(3)))
    with pytest.raises(ValueError, match=r"misshapen v_final_layer.norm.weight"):
        weights.load(spoilt(v_final_layer__norm__weight=torch.ones(7)))
    with pytest.raises(ValueError, match=r"missing x_embedder.proj2.bias"):
        weights.load(spoilt(x_embedder__proj2__bias=None))
    with pytest.raises(ValueError, match=r"hf download Lyy0725/pMF pMF-B-16\.pt"):
        weights.load("./nowhere/pMF-B-16.pt")


def test_what_would_have_no_effect_or_no_sense_is_refused(spoilt, monkeypatch):
    with pytest.raises(ValueError, match="leave size out"):
        weights.load(TINY_PMF, size=64)
    with pytest.raises(ValueError, match="do not fill a square"):
        weights.load(spoilt(pos_embed=torch.zeros(1, 35, 48)))
    with pytest.raises(ValueError, match="do not fill a square"):
        weights.load(spoilt(pos_embed=torch.zeros(1, 5, 48)))
    with pytest.raises(ValueError, match="do not fill a square"):  # two batches of tokens are not the first of them
        weights.load(spoilt(class_tokens=torch.zeros(2, 8, 48)))
    assert weights.load(TINY_PMF, noise_scale=2.0).noise_scale == 2
    with pytest.raises(ValueError, match="whose noise has scale 1"):
        weights.load(TINY, size=8, noise_scale=2.0)
    x, u = (build(MLPConfig(width=8, depth=1, predict=p), (2,), None) for p in ("x", "u"))
    with pytest.raises(ValueError, match=r"init has net.predict = 'u', this run 'x'"):
        training.runs.copy_weights(u, x)


def test_rows_turn_with_the_row_and_columns_with_the_column_and_the_prefix_not_at_all():
    cos, sin = grid_rope_table(3, (2, 4), 8)
    assert (cos[:3] == 1).all() and (sin[:3] == 0).all() and cos.shape == (3 + 8, 8)
    one_cos, one_sin = rope_table(4, 4)
    for patch in range(8):
        row, column = divmod(patch, 4)
        assert_close(cos[3 + patch], torch.cat([one_cos[row], one_cos[column]]))
        assert_close(sin[3 + patch], torch.cat([one_sin[row], one_sin[column]]))


def test_positions_and_the_bottleneck_leave_guidance_out_of_the_other_weights():
    plain = DiTConfig(width=16, depth=2, heads=2, patch=2, bottleneck=3, grid_positions=True)
    a, b = (build(c, (1, 4, 4), 10) for c in (plain, replace(plain, guided="interval", v_depth=1)))
    guided = b.state_dict()
    for name, value in a.state_dict().items():
        assert (
            torch.equal(value[-4:], guided[name][-4:])
            if name == "pos_embed"
            else torch.equal(value, guided[name.replace("shared_blocks.1", "u_heads.0")])
        ), name
    assert not {"x_embedder.proj.weight"} & a.state_dict().keys()


# noise of another size


def test_noise_scale_is_applied_by_draws_samplers_and_export(tmp_path):
    net = build(MLPConfig(width=8, depth=1, noise_scale=4.0), (2,), None)  # u = 0 at the start
    e = torch.randn(5, 2)
    assert_close(sample(net, e), 4 * e)
    x, _ = generate(net, 1000)
    assert 3.8 < x.std() < 4.2
    config = recipes.get("digits_imf").draws
    one, four = (draw(torch.zeros(6, 2), None, config, generator("cpu", 1), "no", s) for s in (1.0, 4.0))
    assert_close(four.e, 4 * one.e)
    assert torch.equal(four.t, one.t)
    loaded = weights.load(weights.save_pretrained(net, tmp_path))
    assert loaded.noise_scale == 4 and torch.equal(sample(loaded, e), 4 * e) and torch.equal(euler(loaded, e), 4 * e)
    said = export.export_u(loaded, tmp_path / "u.onnx")
    assert said["noise_scale"] == 4 and said["ranges"]["z"].endswith("N(0, 4^2)")


def test_a_run_trains_on_noise_of_its_networks_scale(tmp_path):
    loud, quiet = (
        next(training.train(tiny("digits_imf", **{"net.noise_scale": s}), tmp_path / str(s), device="cpu"))
        for s in (4.0, 1.0)
    )
    assert loud.raw_u_eq > 5 * quiet.raw_u_eq  # u = 0 at the start, so the loss is |e - x|^2


# data sets of pixels


def pictures(folder: Path, classes=("cats", "dogs"), each: int = 12, size: int = 40) -> Path:
    """A folder of drawn PNGs, one folder a class."""
    g = np.random.default_rng(0)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            picture = np.zeros((size, size, 3), np.uint8)
            picture[g.integers(0, 20) :, :, k] = 200
            Image.fromarray(picture).save(folder / name / f"{i}.png")
    return folder


def test_the_three_lines_of_the_readme_from_a_folder_of_pictures_to_samples(tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    lines = [
        "imf-lite prepare FOLDER --vae none --size 32",
        "imf-lite train fashion_pixels --data data/pixels/FOLDER --out runs/mine",
        "imf-lite sample --run runs/mine",
    ]
    assert "\n".join(lines) in readme
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "FOLDER")
    run(monkeypatch, *lines[0].split()[1:], "--workers", "0")
    assert "0 cats, 1 dogs" in capsys.readouterr().out
    small = ["--steps", "4", "--batch", "8", "--net.width", "24", "--net.depth", "2", "--net.v-depth", "1"]
    run(monkeypatch, *lines[1].split()[1:], *small)
    run(monkeypatch, *lines[2].split()[1:])
    (picture,) = (tmp_path / "runs/mine/samples").glob("*.png")
    assert Image.open(picture).size == (2 * 64, 10 * 64) and Image.open(picture).mode == "RGB"


def test_a_prepared_folder_holds_the_pixels_that_were_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = pictures(tmp_path / "mine", size=32)
    (folder / "cats" / "broken.png").write_bytes(b"no image")
    run(monkeypatch, "prepare", str(folder), "--vae", "none", "--size", "32", "--workers", "0")
    found = data.load("data/pixels/mine")
    assert found.latents is None and found.num_classes == 2 and found.classes == ("cats", "dogs")
    assert len(found.train) == 24 and found.train.shape == (3, 32, 32) and isinstance(found.train, pixels.PixelSplit)
    assert found.train.batch(torch.tensor([23]))[0].shape == (1, 3, 32, 32)
    x, y = found.train.batch(torch.tensor([0, 23]))
    first = torch.from_numpy(np.array(Image.open(folder / "cats" / "0.png"))).permute(2, 0, 1)
    assert torch.equal(((x[0] + 1) * 127.5).round().to(torch.uint8), first) and y.tolist() == [0, 1]
    kept = tmp_path / "data/pixels/mine/train"
    assert (kept / "pixels.u8").stat().st_size == 25 * 3 * 32 * 32 and not (kept / "moments.f32").exists()
    cache.verify(kept)
    with open(kept / "pixels.u8", "r+b") as file:
        file.write(b"\x01\x02\x03")
    with pytest.raises(ValueError, match=r"pixels.u8 changed"):
        cache.verify(kept)


def test_a_preparation_of_pixels_that_was_cut_short_goes_on(tmp_path):
    source = FlatFolder(pictures(tmp_path / "mine") / "cats", 16)
    whole = preparation.prepare(source, None, None, tmp_path / "whole", batch=5)
    assert [step.read for step in whole] == [5, 10, 12]
    cut = preparation.prepare(source, None, None, tmp_path / "cut", batch=5, save_every=1)
    next(cut), next(cut)
    cut.close()
    assert [step.read for step in preparation.prepare(source, None, None, tmp_path / "cut", batch=5)] == [12]
    a, b = ((tmp_path / k / "pixels.u8").read_bytes() for k in ("whole", "cut"))
    assert a == b and len(a) == 12 * 3 * 16 * 16
    with pytest.raises(ValueError, match="is a cache of something else"):
        list(preparation.prepare(FlatFolder(tmp_path / "mine" / "cats", 8), None, None, tmp_path / "whole"))


def test_pictures_without_classes_train_unconditionally(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = pictures(tmp_path / "flat" / "sub")
    for k, path in enumerate(sorted(folder.rglob("*.png"))):
        shutil.move(path, tmp_path / "flat" / f"{k}.png")
    shutil.rmtree(folder)
    run(monkeypatch, "prepare", "flat", "--vae", "none", "--size", "16", "--workers", "0")
    net = {"width": 24, "depth": 1, "v_depth": 1}
    recipe = recipes.get("fashion_pixels", data="data/pixels/flat", steps=2, batch=8, net=net)
    list(training.train(recipe, tmp_path / "run", device="cpu"))
    net = training.load_network(tmp_path / "run", "cpu")
    assert net.num_classes is None and net.shape == (3, 16, 16)


def idx(path: Path, array: np.ndarray) -> None:
    """A file in MNIST's format (yann.lecun.com/exdb/mnist): magic, sizes as big-endian int32, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes())


def test_torchvisions_mnist_is_read_where_torchvision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"MNIST is not in .*download=True"):
        data.load("MNIST")
    g = np.random.default_rng(0)
    for split, n in (("train", 30), ("t10k", 20)):
        images, labels = g.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 10
        idx(tmp_path / "MNIST/raw" / f"{split}-images-idx3-ubyte", images)
        idx(tmp_path / "MNIST/raw" / f"{split}-labels-idx1-ubyte", labels)
    found = data.load("MNIST")
    assert len(found.train) == 30 and len(found.held_out) == 20 and found.num_classes == 10
    assert found.train.shape == (1, 32, 32) and found.classes[3] == "3 - three"
    last = found.held_out.images[-1, 0]
    assert torch.equal(last[2:-2, 2:-2], torch.from_numpy(images[-1])) and last[:2].sum() == 0
    assert found.held_out.y[-1] == labels[-1] and found.fingerprint() != found.held_out.fingerprint()


def test_cifar_is_read_as_torchvision_reads_it_and_named_with_its_command_where_it_is_not(tmp_path, monkeypatch):
    """Files in the layout of cs.toronto.edu/~kriz/cifar.html: pickled rows of 3,072 bytes, channel by channel."""
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="import CIFAR10 as D; D"):
        data.load("CIFAR10")
    folder, g = tmp_path / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = {"data": g.integers(0, 256, (4, 3072), np.uint8), "labels": [k, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(rows))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{k}" for k in range(10)]}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # the checksums are those of the real files
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    found = data.load("CIFAR10")
    assert found.train.shape == (3, 32, 32) and len(found.train) == 20 and found.classes[4] == "c4"
    assert torch.equal(found.held_out.images[0], torch.from_numpy(rows["data"][0]).view(3, 32, 32))
    assert found.train.y.tolist()[::4] == [0, 1, 2, 3, 4]


def test_flips_are_random_reproducible_and_for_pixels_alone(tmp_path, monkeypatch):
    from imf_lite.training import batches

    pictures_ = torch.arange(20 * 9, dtype=torch.uint8).view(20, 1, 3, 3)
    split = pixels.in_memory(pictures_, None)
    found = data.Data(split, None, None)
    flipped, plain = (tiny("digits_imf", flip=f, batch=20, data="x") for f in (True, False))
    (x, _), (same, _), (straight, _) = (batches.batch(r, found, 3, 0) for r in (flipped, flipped, plain))
    assert torch.equal(x, same)
    mirrored = [torch.equal(a, b.flip(-1)) and not torch.equal(a, b) for a, b in zip(x, straight, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(x, straight, strict=True)]
    assert sum(mirrored) + sum(kept) == 20 and 4 < sum(mirrored) < 16
    latents = found._replace(latents=data.Latents("", (0.0,), (1.0,)))
    with pytest.raises(ValueError, match="prepare the images with --vae none"):
        next(training.train(flipped, tmp_path / "run", latents, "cpu"))
    points = data.Data(data.Split(torch.randn(40, 2), None), None, None)
    with pytest.raises(ValueError, match="these are points: leave it out"):
        next(training.train(flipped, tmp_path / "run", points, "cpu"))


@pytest.fixture
def little_fashion(tmp_path, monkeypatch):
    """Fashion-MNIST's files with 40 and 20 random images."""
    g, folder = np.random.default_rng(0), tmp_path / "data" / "FashionMNIST" / "raw"
    for split, n in (("train", 40), ("t10k", 20)):
        idx(folder / f"{split}-images-idx3-ubyte", g.integers(0, 256, (n, 28, 28), np.uint8))
        idx(folder / f"{split}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path / "data"))


# the recipes' options


@pytest.mark.parametrize("name", [n for n in recipes.RECIPES if n.startswith("fashion_pixels")])
def test_every_recipe_of_pixels_takes_three_steps(name, tmp_path, little_fashion):
    recipe = recipes.get(name, steps=3, batch=8, log_every=1, **{"net.width": 24})
    records = list(training.train(recipe, tmp_path / "run", device="cpu"))
    assert len(records) == 3 and all(np.isfinite(r.loss) for r in records)
    made = training.images_of(tmp_path / "run")(torch.randn(2, 1, 32, 32))
    assert made.shape == (2, 1, 32, 32) and made.dtype == torch.uint8


@pytest.mark.parametrize("name, changes", {
    "fashion_pixels_u": {"net.predict": "u"},
    "fashion_pixels_mf": {"method": "mf", "net.v_depth": None},
    "fashion_pixels_guided": {"net.guided": "interval", "guidance": guidance.Flexible(), "draws.class_dropout": 0.1},
}.items())  # fmt: skip
def test_the_recipes_differ_from_fashion_pixels_in_what_they_say(name, changes):
    assert recipes.get(name) == recipes.override(recipes.get("fashion_pixels"), {"name": name} | changes)


def test_half_lives_are_decays_per_update(tmp_path):
    recipe = recipes.get("imagenet_pmf_b16")
    assert recipe.decays() == pytest.approx([0.5 ** (1024 / 5e5), 0.5 ** (1024 / 1e6), 0.5 ** (1024 / 2e6)])
    early = [0.5 ** (1024 / 5e5), *2 * [0.5 ** (1024 / 7e5)]]  # EDM's ramp-up: a twentieth of the images so far
    assert recipe.decays(14_000_000) == pytest.approx(early)
    assert recipes.get("digits_imf").decays(1) == (0.995,)
    assert recipes.Recipe.from_json(recipe.to_json()) == recipe
    small = tiny("digits_imf", ema_half_life=(0.05, 0.002), save_every=1, keep=9)
    list(training.train(small, tmp_path / "run", device="cpu"))
    saved = [checkpoint.load(path) for path in checkpoint.paths(tmp_path / "run" / "checkpoints")]
    assert saved[0][1]["decays"] == pytest.approx([0.5 ** (16 / 50), 0.5 ** (16 / 2)])
    name = "u_head.linear.weight"
    for (before, _), (after, counters) in pairwise(saved):
        for k, decay in enumerate(0.5 ** (16 / min(h, 0.05 * counters["images"])) for h in (50, 2)):
            averaged = before[f"ema{k or ''}/{name}"].lerp(after[f"net/{name}"], 1 - decay)
            assert_close(after[f"ema{k or ''}/{name}"], averaged, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="must be positive"):
        tiny("digits_imf", ema_half_life=(0.0,))


def test_muon_updates_matrices_as_torch_does_and_adamw_the_rest():
    recipe = tiny("digits_imf", optimizer="muon", lr=0.01)
    net, again = (network("pmf", 1) for _ in range(2))
    optimizer = make_optimizer(recipe, net)
    learnt_vectors = ("tokens", "pos_embed")  # two-dimensional, but no maps
    is_matrix = {k: p.ndim == 2 and not k.endswith(learnt_vectors) for k, p in again.named_parameters()}
    matrices, rest = ([p for k, p in again.named_parameters() if is_matrix[k] == m] for m in (True, False))
    both = (
        torch.optim.Muon(matrices, 0.01, weight_decay=0.0),
        torch.optim.AdamW(rest, 0.01, (0.9, 0.95), weight_decay=0.0),
    )
    for seed in range(3):
        for p, q in zip(net.parameters(), again.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator("cpu", seed, p.numel()))
            q.grad = p.grad.clone()
        optimizer.step()
        for part in both:
            part.step()
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        assert_close(p, q)
    for name, p in net.named_parameters():
        assert (set(optimizer.state[p]) == {"momentum_buffer"}) == is_matrix[name], name


@pytest.mark.parametrize("name", ["digits_imf", "fashion_pixels"])
def test_muon_and_half_lives_resume_to_the_same_weights(name, tmp_path):
    changes = {"optimizer": "muon", "ema_half_life": (0.05,)}
    if name == "fashion_pixels":
        net = {"width": 24, "depth": 2, "v_depth": 1, "patch": 4}
        recipe = recipes.get(name, data="digits", flip=True, net=net, steps=6, batch=16, save_every=3, **changes)
    else:
        recipe = tiny(name, **changes)
    list(training.train(recipe, tmp_path / "whole", device="cpu"))
    for record in training.train(recipe, tmp_path / "cut", device="cpu"):
        if record.step == 4:
            break
    list(training.train(recipe, tmp_path / "cut", device="cpu"))
    whole, cut = (checkpoint.load(checkpoint.latest(tmp_path / k / "checkpoints"))[0] for k in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(cut[k], v) for k, v in whole.items())


def test_an_incomplete_state_of_muon_is_refused(tmp_path):
    recipe = tiny("digits_imf", optimizer="muon")
    list(training.train(recipe, tmp_path, device="cpu"))
    path = checkpoint.latest(tmp_path / "checkpoints")
    tensors, counters = checkpoint.load(path)
    left = next(k for k in tensors if k.startswith("optimizer/momentum_buffer/"))
    checkpoint.write_tensors(path, {k: v for k, v in tensors.items() if k != left}, counters)
    with pytest.raises(checkpoint.CheckpointError, match="optimiser state is incomplete"):
        list(training.train(replace(recipe, log_every=2), tmp_path, device="cpu"))


# the perceptual term


def test_the_perceptual_term_is_added_where_t_is_below_its_limit():
    net, draws = network("pmf", 1), drawn(16)
    seen = []

    def distance(x_hat, x):
        seen.append((x_hat.detach(), x))
        return (x_hat - x).square().sum((1, 2, 3))

    plain, _ = gradients(Objective(net, "imf"), draws)
    with_it, _ = gradients(Objective(net, "imf", perceptual=distance, perceptual_weight=0.4), draws)
    (x_hat, x) = seen[0]
    z, cond = point(draws)
    assert torch.equal(x, draws.x)
    assert_close(x_hat, net.denoised(z, draws.r, draws.t, cond).detach(), rtol=1e-3, atol=1e-4)
    d = (x_hat - x).square().sum((1, 2, 3)) * (draws.t.flatten() < 0.8)
    assert_close(with_it - plain, 0.4 * (d / (d + 0.01)).mean(), rtol=1e-4, atol=1e-5)
    assert 0 < (draws.t < 0.8).sum() < 16


def test_the_eye_sees_a_difference_and_gives_a_gradient(tmp_path, monkeypatch):
    net = eye_net().eval()
    distance = perceptual.in_maps(net)
    x = torch.rand(4, 1, 32, 32) * 2 - 1
    near, far = (x + s * torch.randn(4, 1, 32, 32) for s in (0.05, 0.5))
    near.requires_grad_()
    assert (distance(x, x) == 0).all() and (distance(near, x) < distance(far, x)).all()
    distance(near, x).sum().backward()
    assert near.grad.abs().max() > 0
    with pytest.raises(ValueError, match="compares images of shape"):
        perceptual.load("eye", (3, 32, 32))


def test_lpips_is_that_of_torch_fidelity_on_its_scale_and_its_files_are_asked_for(tmp_path, monkeypatch):
    from torch_fidelity import sample_similarity_lpips as theirs
    from torchvision.models import vgg16

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"wget -P .*weights-vgg16-lpips.pth"):
        perceptual.load("lpips", (3, 64, 64))
    for (
        name
    ) in perceptual.LPIPS_FILES:  # of the official names; what is in them, of the official shapes, is given below
        (tmp_path / "hub/checkpoints").mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub/checkpoints" / name).touch()

    class Features:  # the classifier of VGG-16 holds 120 million weights that LPIPS does not use
        features = vgg16_features = None

    with torch.device("meta"):
        whole = vgg16(weights=None).features
    torch.manual_seed(0)
    Features.features = whole.to_empty(device="cpu")
    for p in Features.features.parameters():
        torch.nn.init.normal_(p, std=0.05)
    per_layer = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate((64, 128, 256, 512, 512))}
    monkeypatch.setattr(theirs, "torchvision_load_pretrained_vgg16", lambda **_: Features)
    monkeypatch.setattr(
        theirs.SampleSimilarityLPIPS,
        "load_state_dict",
        lambda self, state, **_: torch.nn.Module.load_state_dict(self, state, strict=False),
    )
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: per_layer)
    distance = perceptual.load("lpips", (3, 64, 64))
    x, y = (torch.rand(2, 3, 64, 64) * 2 - 1 for _ in range(2))
    assert_close(distance(x, y), theirs.SampleSimilarityLPIPS("lpips-vgg16")(*((i + 1) * 127.5 for i in (x, y))))
    x.requires_grad_()
    distance(x, y).sum().backward()
    assert x.grad.abs().max() > 0 and (distance(y, y) == 0).all()


def test_a_perceptual_term_that_is_not_given_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"perceptual is 'eye': pass perceptual="):
        next(training.train(tiny(perceptual="eye"), tmp_path, device="cpu"))
    with pytest.raises(ValueError, match=r"perceptual is 'no': pass perceptual="):
        next(training.train(tiny(), tmp_path, device="cpu", perceptual=Perceptual("eye", "", lambda x, y: x)))


def test_a_run_with_a_perceptual_term_trains_and_resumes_with_the_same_one(little_fashion, tmp_path, monkeypatch):
    monkeypatch.setattr("imf_lite.evaluation.perceptual.eye", lambda: eye_net().eval().requires_grad_(False))
    net = {"width": 24, "depth": 1, "v_depth": 1}
    recipe = recipes.get("fashion_pixels", perceptual="eye", net=net, steps=2, batch=8, save_every=1, log_every=1)
    one, other = (perceptual.load("eye", (1, 32, 32)) for _ in range(2))  # other initial weights
    assert one.sha256 != other.sha256
    plain = replace(recipe, perceptual="no")
    (alone, *_), (with_it, *_) = (
        list(training.train(r, tmp_path / r.perceptual, device="cpu", perceptual=p))
        for r, p in ((plain, None), (recipe, one))
    )
    assert alone.raw_u_eq == with_it.raw_u_eq and with_it.loss > alone.loss
    with pytest.raises(ValueError, match="other weights of the perceptual term 'eye'"):
        next(training.train(replace(recipe, keep=3), tmp_path / "eye", device="cpu", perceptual=other))


def test_the_perceptual_term_compiles_into_one_graph_and_stays_in_float32_beside_bf16():
    net, draws = network("pmf", 1), drawn(16)
    distance = lambda x_hat, x: (x_hat - x).square().sum((1, 2, 3))  # noqa: E731
    plain = Objective(net, "imf", perceptual=distance)
    compiled = torch.compile(plain, dynamic=False, fullgraph=True, backend="eager")
    assert_close(compiled(draws).loss, plain(draws).loss)
    half = Objective(net, "imf", bf16=True, perceptual=lambda x_hat, x: distance(x_hat, x) * (x_hat.dtype == x.dtype))
    assert_close(half(draws).loss, plain(draws).loss, rtol=2e-2, atol=0)


# full scale in miniature


def test_every_stage_of_pmf_at_full_scale_in_miniature(tmp_path, monkeypatch, capsys):
    """The stages of notebooks/imagenet_run.ipynb, on drawn JPEGs of ImageNet's layout: pixels, FID while training,
    search, measurement, samples, export."""
    monkeypatch.chdir(tmp_path)
    rehearsal.write_images(tmp_path / "imagenet", each=9)
    seen, small = ("--extractor", "stand-in"), ("--net.patch", 32, "--steps", 4, "--save-every", 2, "--batch", 8)
    run(monkeypatch, "prepare", "imagenet", "--vae", "none", *seen, "--workers", 0)
    assert "could not be read, left out" in capsys.readouterr().out
    named = "imagenet_pmf_rehearsal"
    fid = ("--fid-every", 2, "--fid.n", 8, "--fid.extractor", "stand-in", "--fid.batch", 4)
    run(monkeypatch, "train", named, "--out", "runs/pmf", *small, *fid, "--perceptual", "no")
    records, rows = training.read_metrics("runs/pmf"), (tmp_path / "runs/pmf/fid.jsonl").read_text().splitlines()
    assert len(records) == 4 and len(rows) == 2 and training.read_run("runs/pmf")["recipe"]["optimizer"] == "muon"
    asked = ("--run", "runs/pmf", *seen, "--n", 8, "--batch", 4)
    run(monkeypatch, "search", *asked, "--omegas", 1, 4, "--t-mins", 0.1, "--t-maxs", 0.7)
    run(monkeypatch, "evaluate", *asked, "--omega", 4, "--interval", 0.1, 0.7)
    (found,) = (tmp_path / "runs/pmf/evaluation").glob("*nfe1*.json")
    scores = json.loads(found.read_text())
    assert np.isfinite(scores["fid"]) and scores["protocol"]["reference"].startswith("data/pixels/imagenet/train")
    run(monkeypatch, "sample", "--run", "runs/pmf", "--omega", 4, "--rows", 2, "--ema", 1)
    (picture,) = (tmp_path / "runs/pmf/samples").glob("*.png")
    assert Image.open(picture).size == (4 * 256, 2 * 256)
    run(monkeypatch, "export", "--run", "runs/pmf", "--onnx", "runs/onnx")
    said = json.loads(Path("runs/onnx/u.json").read_text())
    assert said["noise_scale"] == 1 and said["shape"] == [3, 256, 256] and not Path("runs/onnx/decoder.onnx").exists()


def test_a_data_set_of_pixels_is_measured_with_a_floor_that_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMF_LITE_CACHE", str(tmp_path / "cache"))
    for k in range(7):  # classes of unequal size
        (pictures(tmp_path / "mine", each=30) if k == 0 else tmp_path / "mine").joinpath(f"dogs/{k}.png").rename(
            tmp_path / f"mine/cats/more{k}.png"
        )
    run(monkeypatch, "prepare", "mine", "--vae", "none", "--size", 32, "--workers", 0)
    small = ("--steps", 2, "--batch", 8, "--net.width", 24, "--net.depth", 1, "--net.v-depth", 1)
    run(monkeypatch, "train", "fashion_pixels", "--data", "data/pixels/mine", "--out", "runs/mine", *small)
    measured = []
    for name in ("first", "second"):
        run(monkeypatch, "evaluate", "--run", "runs/mine", "--extractor", "stand-in", "--n", 20, "--out", name)
        (path,) = Path(name).glob("*.json")
        measured.append(json.loads(path.read_text()))
        if name == "first":
            (features,) = (tmp_path / "cache").glob("features-*.safetensors")
            written = features.stat().st_mtime_ns
    assert features.stat().st_mtime_ns == written and len(list((tmp_path / "cache").glob("features-*"))) == 2
    for path in (tmp_path / "cache").glob("features-*"):  # a cache that was cut short is made again
        path.write_bytes(path.read_bytes()[:30])
    capsys.readouterr()
    run(monkeypatch, "evaluate", "--run", "runs/mine", "--extractor", "stand-in", "--n", 20, "--out", "third")
    assert "it is made again" in capsys.readouterr().err
    (path,) = Path("third").glob("*.json")
    measured.append(json.loads(path.read_text()))
    assert measured[2]["fid"] == measured[0]["fid"] and measured[2]["floor"] == measured[0]["floor"]
    assert (
        measured[0]["fid"] == measured[1]["fid"] and measured[0]["protocol"]["reference"] == "training split, 60 images"
    )
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "evaluate", "--run", "runs/mine", "--extractor", "stand-in", "--n", 60)
    assert "no test split: the smallest class has 23 images" in capsys.readouterr().err + str(stop.value)
    assert measured[0]["fid_excess"] == measured[0]["fid"] - measured[0]["floor"]["fid"] > 0
    assert data.load("data/pixels/mine").held_out is None and measured[0]["agreement"] is None


def test_the_experiment_adds_trainings_to_its_tables(tmp_path, little_fashion, monkeypatch):
    monkeypatch.setattr(experiment, "DIMS", (2, 8))
    monkeypatch.setattr(experiment, "map_jobs", lambda work, jobs, *args, workers: [work(job, *args) for job in jobs])
    monkeypatch.setattr(experiment.trainings, "SEEDS", (("report", 0),))
    score = {"fid": 9.0, "kid": 1.0, "precision": 0.5, "recall": 0.5, "agreement": 0.5, "floor": {"fid": 1.0}}
    monkeypatch.setattr(
        experiment.trainings, "evaluator_of", lambda *_: lambda net, *_, **__: score
    )  # tested elsewhere
    main = partial(experiment.main, plane_steps=3, steps=2, out=tmp_path / "out", work=tmp_path / "work")
    monkeypatch.setattr(experiment, "TRAININGS", {"fashion_pixels_u": 2, "fashion_pixels_mf": 1})
    main(seeds=1, only=("fashion_pixels_u",), which=(0, 1))
    plane = read_table(tmp_path / "out" / "pixels-plane.csv")
    assert [(r["dims"], r["predict"]) for r in plane] == [(2, "u"), (2, "x"), (8, "u"), (8, "x")]
    assert plane[0]["off_plane"] < 1e-3 < plane[2]["off_plane"]  # in the plane itself nothing is off it
    before = read_table(tmp_path / "out" / "pixels.csv")
    main(seeds=0, only=("fashion_pixels_mf",), which=(0, 1))  # meant to be trained once
    after = read_table(tmp_path / "out" / "pixels.csv")
    assert after[: len(before)] == before and {(r["network"], r["training"]) for r in after} == {
        ("fashion_pixels_u", 0), ("fashion_pixels_u", 1), ("fashion_pixels_mf", 0)
    }  # fmt: skip
    assert {r["nfe"] for r in after} == {1, 2, 4} and all(r["fid"] > r["floor"] > 0 for r in after)
    with np.load(tmp_path / "out" / "pixels.npz") as kept:
        assert (
            kept["samples_fashion_pixels_u_1"].shape == (80, 1, 32, 32)
            and len(kept.files) == 7
            and kept["test"].shape == (10, 1, 32, 32)
        )
    frame = experiment.frame(32)
    assert_close(frame.T @ frame, torch.eye(2), atol=1e-5, rtol=0)


def test_the_classes_of_foreign_data_are_not_judged():
    held = pixels.in_memory(torch.randint(0, 256, (60, 1, 32, 32), dtype=torch.uint8), torch.arange(60) % 10)
    foreign = data.Data(held, held, 10, classes=tuple("abcdefghij"))
    judge = Evaluator(foreign, "fashion")
    known = Evaluator(foreign._replace(classes=data.fashion.CLASSES), "fashion")
    assert judge.classifier is None and known.classifier is not None


def test_rows_with_equal_times_keep_the_larger_or_the_first():
    configs = [DrawConfig(equal_t=rule) for rule in ("larger", "first")]
    larger, first = (draw(torch.zeros(4000, 2), None, config, generator("cpu", 0)) for config in configs)
    n = first.n_eq
    assert torch.equal(first.t[n:], larger.t[n:]) and torch.equal(first.r[n:], larger.r[n:])
    assert (first.t[:n] <= larger.t[:n]).all() and torch.equal(first.t[:n], first.r[:n])
    logit = first.t[:n].logit()  # one draw of the logit-normal, not the larger of two
    assert abs(logit.mean() + 0.4) < 0.07 < larger.t[:n].logit().mean() + 0.4
