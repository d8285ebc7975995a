"""What full scale needs beside the shared code: recipes, costs, bands, evaluation over ranks, launching."""

import json
import math

import numpy as np
import pytest
import torch
import tyro
from helpers import network, tiny
from test_parallel import finish, start

from benchmarks import bands as write_bands
from imf_lite import guidance, recipes, training
from imf_lite.configs import DrawConfig
from imf_lite.data.images import to_uint8
from imf_lite.draws import draw
from imf_lite.evaluation import extractors, protocol, references, search
from imf_lite.networks import build
from imf_lite.objective import Objective
from imf_lite.recipes import bands
from imf_lite.sampling import blocks
from imf_lite.system import launch
from imf_lite.system.rng import generator
from imf_lite.training import flops
from toy_experiments import rehearsal

FULL = [n for n in recipes.RECIPES if n.startswith("imagenet")]


@pytest.mark.parametrize("name", FULL)
def test_a_step_of_every_full_size_recipe_on_the_meta_device(name):
    """Shapes of the whole objective, backward included, at full size; nothing is computed."""
    recipe = recipes.get(name)
    with torch.device("meta"):
        net = build(recipe.net, (4, 32, 32), 1000)
    objective = Objective(net, recipe.method, recipe.p, recipe.c, guidance.rule(recipe.method, recipe.guidance))
    y = torch.zeros(4, dtype=torch.int64)
    drawn = draw(torch.zeros(4, 4, 32, 32), y, recipe.draws, generator("cpu", 0), net.guided)
    step = objective(drawn._replace(**{k: v.to("meta") for k, v in drawn._asdict().items() if torch.is_tensor(v)}))
    step.loss.backward()
    assert step.raw_u.shape == (4,) and all(p.grad.shape == p.shape for p in net.parameters())


def test_published_schedules():
    imf, mf = recipes.get("imagenet_imf_xl2"), recipes.get("imagenet_mf_xl2")
    assert (imf.steps, imf.batch, imf.warmup, imf.lr, imf.ema) == (640 * 1251, 1024, 12510, 1e-4, 0.9999)
    assert (mf.steps, mf.batch, mf.warmup, mf.draws.p_r_neq_t) == (240 * 5004, 256, 0, 0.25)
    assert imf.draws.p_r_neq_t == 0.5 and (imf.normalisation, mf.normalisation) == ("imf", "mf")
    assert {recipes.get(f"imagenet_ablation_{row}").normalisation for row in recipes.imagenet.ABLATION} == {"imf"}


def test_operations_are_those_of_layers_counted_by_hand():
    """DiT-B/2: flow matching is three forwards of 12 layers; iMF's step is about 2.6 times its own (docs/speed.md)."""
    count = flops.per_image(recipes.get("imagenet_imf_b2"), (4, 32, 32), 1000)
    fm = recipes.get("imagenet_mf_b2", method="fm", guidance=None, **{"draws.p_r_neq_t": 0.0})
    one = flops.per_image(fm, (4, 32, 32), 1000)  # three forwards of 12 layers of another design
    assert 3.5e11 < count < 4e11 and 1.2e11 < one < 1.5e11
    digits = {k: flops.per_image(recipes.get("digits_mf", derivative=k), (1, 8, 8), 10) for k in ("jvp", "mixed")}
    assert 1.05 < digits["mixed"] / digits["jvp"] < 1.25  # v_theta is one more forward, on half of the rows
    assert flops.peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12 and flops.peak("a toaster", "bf16") is None


@pytest.mark.parametrize(
    ("net", "depths"),
    [
        ("imagenet_mf_b4", (4, None)), ("imagenet_ablation_head", (5, 3)), ("imagenet_ablation_head", (3, 0)),
        ("imagenet_imf_b2", (5, 3)), ("imagenet_pmf_b16", (3, 1)),
    ],
)  # fmt: skip
def test_operations_of_a_few_blocks_tell_those_of_all(net, depths):
    depth, v_depth = depths
    method = "mf" if net == "imagenet_mf_b4" and v_depth is None else "imf"
    sizes = {"depth": depth, "v_depth": v_depth, "width": 48, "heads": 4}
    small = recipes.override(recipes.get(net), {"method": method, "net": sizes})
    shape = (3, 256, 256) if "pmf" in net else (4, 32, 32)
    assert flops.per_image(small, shape, 1000) == flops.counted(small, shape, 1000)


def test_bf16_concerns_the_forwards_and_not_the_slope():
    """Close to float32, not equal; u, target and slope come out in float32."""
    found = {}
    for bf16 in (False, True):
        seen = []
        net = network("dit", 1, guided="interval")
        rule = guidance.rule("imf", guidance.Flexible())

        def slope(net, z, r, t, cond, n_eq, along, seen=seen):
            seen.append((z.dtype, along.dtype, torch.is_autocast_enabled("cpu")))
            return torch.zeros_like(z)

        g = generator("cpu", 0)
        y = torch.arange(8) % 10
        drawn = draw(torch.randn(8, *net.shape, generator=g), y, DrawConfig(class_dropout=0.1), g, "interval")
        step = Objective(net, "imf", rule=rule, slope=slope, bf16=bf16)(drawn)
        assert seen == [(torch.float32, torch.float32, False)] and step.loss.dtype == torch.float32
        found[bf16] = step.raw_u
    assert not torch.equal(found[False], found[True])
    torch.testing.assert_close(found[True], found[False], rtol=0.1, atol=0.1)


def test_a_run_that_leaves_its_band_is_told_so_once(tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "FOLDER", tmp_path)
    recipe = recipes.get("digits_imf", seed=5)
    assert bands.load(recipe) is None  # none written yet
    band = {"about": {}, "low": {"raw_u_neq": [1.0, 1.0]}, "high": {"raw_u_neq": [2.0, 2.0]}}
    (tmp_path / "digits_imf.json").write_text(json.dumps(band))
    assert bands.load(recipe) == band and bands.load(recipes.get("digits_imf", lr=1e-3)) is None

    def told(value):
        watch = bands.Watch(recipe)
        said = [watch({"step": k, **dict.fromkeys(bands.WATCHED, value)}) for k in range(1, 301)]
        return [s for s in said if s]

    assert told(1.5) == []
    (message,) = told(3.0)
    assert message == "updates 1 to 100 leave the band: raw_u_neq is 3, expected 1 to 2; check the set-up."


def test_a_band_is_written_and_a_run_stays_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["bands", "digits_mf", "--updates", "100", "--seeds", "2", "--out", str(tmp_path)])
    tyro.cli(write_bands.main)
    recipe = recipes.get("digits_mf", seed=1, save_every=10**9)  # two seeds make a band that a third may leave
    watch, said = bands.Watch(recipe), []
    assert watch.band["about"] | {"code": "", "device": ""} == {
        "recipe": "digits_mf", "seeds": 2, "updates": 100, "window": 100, "code": "", "device": ""
    }  # fmt: skip
    for record in training.train(recipe, tmp_path / "run", device="cpu"):
        said.append(watch(record._asdict()))
        if record.step == 100:
            break
    assert said == [None] * len(said)
    with pytest.raises(ValueError, match="seeds = 1: a band needs at least two"):
        write_bands.main("digits_mf", seeds=1)


@pytest.mark.parametrize("path", sorted(bands.FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_stored_bands_belong_to_recipes(path):
    band = bands.load(recipes.get(path.stem))
    assert band and band["about"]["seeds"] >= 2
    for name, low in band["low"].items():
        assert all(a < b for a, b in zip(low, band["high"][name], strict=True)), name


def test_the_result_does_not_depend_on_the_number_of_ranks(tmp_path):
    list(training.train(tiny("digits_guided", steps=3), tmp_path / "run", device="cpu"))
    features = extractors.extract(torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8), "stand-in")
    np.savez(tmp_path / "real.npz", **references.from_features(features, "").statistics)
    for size in (1, 2):
        finish(start(size, "evaluate", tmp_path / "run", tmp_path / "real.npz", tmp_path / f"{size}.json"))
    one, two = (json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 2))
    assert one == two and math.isfinite(one["fid"]) and one["inception_score"] >= 1
    assert one["protocol"]["n"] == 70 and one["kid"] is None


def test_samples_depend_neither_on_the_batch_nor_on_who_makes_them():
    net = network("dit", guided="interval")
    ask = {"omega": 2.0, "interval": (0.2, 0.9), "each": True}
    (whole, y), *rest = blocks(net, 30, batch=30, **ask)
    assert not rest and y.bincount().tolist() == [3] * 10
    for size in (7, 30):
        found = torch.cat([x for x, _ in blocks(net, 30, batch=size, **ask)])
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    second = next(blocks(net, 30, batch=7, which=slice(1, None, 2), **ask))[0]
    torch.testing.assert_close(second, whole[7:14], rtol=1e-4, atol=1e-4)
    assert not torch.equal(whole, next(blocks(net, 30, seed=1, batch=30, **ask))[0])


def test_guidance_below_one_is_refused_before_anything_is_made():
    real = references.from_features(torch.randn(50, 32), "")
    for omega in (0.0, 0.5):
        with pytest.raises(ValueError, match=f"omega = {omega:g}; a guidance scale is at least 1"):
            protocol.evaluate(network("dit", guided="interval"), to_uint8, real, "stand-in", n=20, omega=omega)
    with pytest.raises(ValueError, match="n = 25 is not a multiple of 10 classes"):
        protocol.evaluate(network("dit"), to_uint8, real, "stand-in", n=25)


def test_reference_statistics_that_are_missing_or_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match=r"no reference statistics at .*statistics.npz: give an .npz"):
        references.load_reference(tmp_path, "stand-in")
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match="holds a; statistics are mu and sigma"):
        references.load_reference(tmp_path / "other.npz", "stand-in")


def test_inception_that_cannot_be_had_is_named(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ValueError, match=r"fetch https://.*weights-inception.*pass its path as --extractor-weights"):
        extractors.load_extractor.__wrapped__("inception-v3-compat", None, "cpu")


def test_the_search_tries_all_and_puts_the_best_first():
    asked = []

    def measure(omega, interval):
        asked.append((omega, interval))
        return {"fid": abs(omega - 2) + interval[0], "inception_score": 1.0}

    spans = ((0.0, 1.0), (0.4, 0.65))
    *_, some, rows = search.search(measure, (1.0, 2.0, 4.0), spans)
    assert len(asked) == len(rows) == 6 and len(some) == 5
    assert list(search.search(measure, (1.0, 2.0, 4.0), spans, rows)) == [] and len(asked) == 6  # all known
    *_, again = search.search(measure, (1.0, 2.0, 4.0), spans, rows[:4])
    assert again == rows and len(asked) == 8
    assert rows[0] == {"omega": 2.0, "t_min": 0.0, "t_max": 1.0, "fid": 0.0, "inception_score": 1.0}
    assert list(search.search(lambda **_: None, (1.0,), ((0.0, 1.0),))) == [[]]  # a rank that has no result


def test_a_launched_command_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"`imf-lite train no_such_recipe` failed:(.|\n)*no_such_recipe"):
        list(launch.launch(1, "train", "no_such_recipe"))


def test_the_miniature_has_the_real_layout(tmp_path):
    folder = rehearsal.write_images(tmp_path / "imagenet", each=2)
    files = sorted(folder.rglob("*.JPEG"))
    assert len(files) == 8 and files[0].parent.parent.name == "train" and files[0].parent.name == "n01440764"


def test_uint8_rounds_and_clips():
    grey = torch.tensor([-2.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 99.6 / 127.5 - 1, 254.6 / 127.5 - 1, 1.0, 2.0])
    assert to_uint8(grey.view(1, 1, 1, -1)).flatten().tolist() == [0, 0, 0, 1, 100, 255, 255, 255]
    tie = to_uint8(torch.zeros(1, 1, 1, 1)).item()  # 127.5: to even
    assert tie == 128
