"""From images to a cache of latents: what is written, what is refused, and what a kill or a full disk costs."""

import gzip
import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import run
from test_weights import save_tiny_vae
from torch.testing import assert_close
from torchvision.datasets import FashionMNIST

from imf_lite import data, recipes, training
from imf_lite.data import cache, fashion, images, preparation, sources
from imf_lite.data.autoencoder import load_vae
from imf_lite.data.normalisation import Latents
from imf_lite.data.sources import folders
from imf_lite.evaluation import extractors, protocol
from imf_lite.evaluation.classifiers import fashion_classifier
from imf_lite.evaluation.evaluator import StoredEvaluator
from imf_lite.evaluation.perceptual import eye_net
from imf_lite.pretrained import weights
from imf_lite.sampling import euler, generate, sample
from imf_lite.system.paths import pretrained_folder
from imf_lite.training import checkpoint
from imf_lite.training.vae_loop import VAERecipe, build_vae, train_vae
from toy_experiments import fashion_assets as assets
from toy_experiments.experiments import fashion as pipeline
from toy_experiments.experiments import runs, trainings
from toy_experiments.report import fashion as fashion_scores
from toy_experiments.tables import RESULTS, read_table

GREY = VAERecipe(channels=(8, 8, 8), steps=8, batch=4, save_every=6)


def write_idx(path: Path, array: np.ndarray) -> None:
    """A file of MNIST's format, compressed if its name says so."""
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def little_fashion(tmp_path, monkeypatch):
    """Fashion-MNIST's four files, with 200 and 20 images: the data folder is a fresh one."""
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    rng, raw = np.random.default_rng(0), tmp_path / "data" / "FashionMNIST" / "raw"
    for prefix, n in (("train", 200), ("t10k", 20)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(n) % 10)
    return tmp_path


@pytest.fixture(scope="module")
def grey_vae(tmp_path_factory) -> Path:
    """An autoencoder for 1 x 32 x 32 images, with random weights."""
    path = tmp_path_factory.mktemp("grey")
    build_vae(GREY, (1, 32, 32)).save_pretrained(path)
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    """An image folder of two classes, four pictures each, of several sizes."""
    rng = np.random.default_rng(0)
    for k in range(8):
        path = tmp_path / "pictures" / "train" / f"class{k % 2}" / f"{k}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + 9 * k, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def all_of(source, vae, out, **options) -> list[preparation.Progress]:
    """A whole preparation."""
    return list(preparation.prepare(source, load_vae(vae), str(vae), out, **options))


def test_fashion_is_found_in_either_place_and_padded(little_fashion):
    images, y = fashion.load_images("train")
    assert images.shape == (200, 1, 32, 32) and images.dtype == torch.uint8 and y[:3].tolist() == [0, 1, 2]
    assert not images[:, :, :2].any() and not images[..., -2:].any() and images[:, :, 2:-2, 2:-2].any()
    raw = little_fashion / "data" / "FashionMNIST" / "raw"
    for path in raw.iterdir():
        write_idx(little_fashion / "debian" / f"{path.name}.gz", fashion.read_idx(path).numpy())
        path.unlink()
    again, _ = fashion.load_images("train")
    assert torch.equal(again, images)
    (little_fashion / "debian" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b not a gzip file")
    with pytest.raises(ValueError, match="is damaged"):
        fashion.load_images("train")
    (little_fashion / "debian" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"FashionMNIST as F(.|\n)*apt-get install dataset-fashion-mnist"):
        fashion.load_images("test")


def test_the_four_files_are_read_as_torchvision_reads_them(little_fashion):
    for split in ("train", "test"):
        theirs = FashionMNIST(str(little_fashion / "data"), train=split == "train", download=False)
        images, y = fashion.load_images(split)
        assert torch.equal(images[:, 0, 2:-2, 2:-2], theirs.data) and torch.equal(y, theirs.targets)


@pytest.mark.skipif(not fashion.DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_package_is_read_as_torchvision_reads_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path))
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images, y = fashion.load_images("test")  # from the package: the data folder holds nothing
    for path in fashion.DEBIAN.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    theirs = FashionMNIST(str(tmp_path), train=False, download=False)
    assert torch.equal(images[:, 0, 2:-2, 2:-2], theirs.data) and torch.equal(y, theirs.targets) and len(y) == 10_000


def test_cached_moments_are_those_of_diffusers_autoencoder(little_fashion, grey_vae, tmp_path):
    source, out = sources.Fashion("train"), tmp_path / "cache"
    all_of(source, grey_vae, out, batch=16)
    split, classes = cache.load(out, "fitted")
    posterior = load_vae(grey_vae).encode(source.images.float() / 127.5 - 1).latent_dist
    assert_close(torch.from_numpy(np.array(split.moments)), torch.cat([posterior.mean, posterior.std], 1))
    assert (len(split), split.shape, classes) == (200, (4, 8, 8), list(fashion.CLASSES)) and torch.equal(
        split.y, source.labels
    )
    rows = torch.arange(200).repeat(60)
    z, y = split.batch(rows, 0)
    assert torch.equal(y, source.labels[rows])
    assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-2, rtol=0)
    assert_close(z.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    first, again = (split.batch(torch.arange(8), s)[0] for s in (1, 1))
    assert torch.equal(first, again) and not torch.equal(first, split.batch(torch.arange(8), 2)[0])
    cache.verify(out)


def test_preparing_twice_changes_nothing_and_a_kill_costs_a_batch(little_fashion, grey_vae, tmp_path):
    source = sources.Fashion("train")
    all_of(source, grey_vae, tmp_path / "whole", batch=16)
    half = preparation.prepare(source, load_vae(grey_vae), str(grey_vae), tmp_path / "cut", batch=16, save_every=1)
    for _ in range(2):
        next(half)
    half.close()
    with pytest.raises(ValueError, match="is unfinished: run the same"):
        cache.load(tmp_path / "cut", "fitted")
    with open(tmp_path / "cut" / "moments.f32", "ab") as file:
        file.write(b"half a row")  # what a kill in the middle of a write leaves
    with open(tmp_path / "cut" / "labels.i64", "r+b") as file:
        kept = file.read()
        file.truncate(8)  # what a power failure may leave
    with pytest.raises(ValueError, match=r"labels.i64 is shorter than it was"):
        all_of(source, grey_vae, tmp_path / "cut", batch=16)
    (tmp_path / "cut" / "labels.i64").write_bytes(kept)
    went_on = all_of(source, grey_vae, tmp_path / "cut", batch=16)
    assert went_on[0].read in (32, 48) and went_on[-1].read == 200
    for name in ("moments.f32", "labels.i64", "meta.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all_of(source, grey_vae, tmp_path / "whole") == []


def test_a_cache_of_something_else_is_refused(little_fashion, grey_vae, tmp_path):
    all_of(sources.Fashion("test"), grey_vae, tmp_path / "cache")
    before = (tmp_path / "cache" / "meta.json").read_bytes()
    with pytest.raises(ValueError, match=r"something else \(source was 'Fashion-MNIST, test.*choose another folder"):
        all_of(sources.Fashion("train"), grey_vae, tmp_path / "cache")
    assert (tmp_path / "cache" / "meta.json").read_bytes() == before
    with open(tmp_path / "cache" / "moments.f32", "r+b") as file:
        file.write(b"\xff\xff")
    with pytest.raises(ValueError, match=r"moments.f32 changed since"):
        cache.verify(tmp_path / "cache")
    with open(tmp_path / "cache" / "moments.f32", "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="has 100 bytes, not"):
        cache.load(tmp_path / "cache", "fitted")
    with pytest.raises(ValueError, match="holds no latents"):
        cache.load(tmp_path / "elsewhere", "fitted")


def test_corrupt_images_are_named_counted_and_left_out(pictures, tmp_path):
    vae, bad = save_tiny_vae(tmp_path / "vae"), pictures / "train" / "class1" / "3.jpeg"
    bad.write_bytes(bad.read_bytes()[:200])
    (last,) = all_of(folders.ClassFolders(pictures / "train", 32), vae, tmp_path / "cache")[-1:]
    assert [name for name, _ in last.corrupt] == [str(bad)] and last.read == last.total == 8
    split, _ = cache.load(tmp_path / "cache", "imf")
    assert len(split) == 7 and split.y.tolist() == [0, 0, 0, 0, 1, 1, 1] and split.shape == (4, 4, 4)
    assert (
        preparation.fit(split.moments, split.rows)[0]
        == json.loads((tmp_path / "cache/meta.json").read_text())["fitted"]["mean"]
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that takes nothing")
def test_a_full_disk_is_seen_before_and_survived_during(little_fashion, grey_vae, tmp_path, monkeypatch):
    source, out = sources.Fashion("train"), tmp_path / "cache"
    with monkeypatch.context() as m:
        m.setattr(preparation.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000}))
        with pytest.raises(ValueError, match=r"needs 0.00 GB more.*make room or choose another folder"):
            all_of(source, grey_vae, out)
    steps = preparation.prepare(source, load_vae(grey_vae), str(grey_vae), out, batch=16, save_every=1)
    next(steps)

    with monkeypatch.context() as m, open("/dev/full", "r+b", buffering=0) as full:
        m.setattr(preparation.Writer, "sync", lambda self: self.files.update(dict.fromkeys(self.files, full)))
        with pytest.raises(ValueError, match=r"No space left on device.*make room, then run the same command again"):
            list(steps)
    all_of(source, grey_vae, out, batch=16)
    assert len(cache.load(out, "fitted")[0]) == 200


def test_trouble_with_the_machine_is_not_taken_for_corrupt_images(little_fashion, grey_vae, tmp_path):
    source = sources.Fashion("train")

    class Unmounted(sources.Fashion):
        def __getitem__(self, i):
            if i >= 20:
                raise OSError(5, "Input/output error")
            return super().__getitem__(i)

    with pytest.raises(OSError, match="Input/output error"):
        all_of(Unmounted("train"), grey_vae, tmp_path / "cache", batch=16, save_every=1)
    assert all_of(source, grey_vae, tmp_path / "cache", batch=16)[0].read == 32  # from where it stopped


def test_features_and_statistics_from_the_same_pass(little_fashion, grey_vae, tmp_path):
    source = sources.Fashion("train")

    def halves(images):
        return images.float().unflatten(2, (2, -1)).mean((1, 3, 4))

    all_of(source, grey_vae, tmp_path / "cache", features=("halves", halves))
    with np.load(tmp_path / "cache" / "statistics.npz") as found:
        expected = halves(source.images).double().numpy()
        assert np.allclose(found["mu"], expected.mean(0)) and np.allclose(found["sigma"], np.cov(expected.T))
    with pytest.raises(ValueError, match="extractor was 'halves', is 'others'"):
        all_of(source, grey_vae, tmp_path / "cache", features=("others", halves))


def test_adm_crop():
    wide = Image.new("RGB", (2000, 1100))
    assert images.crop(wide, 256).size == (256, 256)
    stripes = np.zeros((300, 100, 3), np.uint8)
    stripes[100:200] = 255  # the centre square is white
    assert np.array(images.crop(Image.fromarray(stripes), 100)).min() > 250


def test_the_command_line_prepares(little_fashion, grey_vae, pictures, tmp_path, monkeypatch):
    run(monkeypatch, "prepare", "fashion", "--vae", grey_vae, "--workers", 0)
    loaded = data.load("fashion", "fitted")
    assert len(loaded.train) == 200 and len(loaded.held_out) == 20 and loaded.latents.vae == str(grey_vae)
    x, y = loaded.train.batch(torch.tensor([3]), 0)  # numpy takes a tensor of one number for a number
    assert x.shape == (1, 4, 8, 8) and y.shape == (1,)
    vae = save_tiny_vae(tmp_path / "vae")
    run(monkeypatch, "prepare", pictures, "--vae", vae, "--size", 32, "--out", tmp_path / "mine", "--workers", 0)
    assert data.load(str(tmp_path / "mine")).num_classes == 2


def test_wrong_folders_and_autoencoders_are_refused(little_fashion, grey_vae, pictures, tmp_path):
    with pytest.raises(ValueError, match="is not a data set: it must hold one folder a class"):
        folders.ClassFolders(tmp_path / "nothing")
    with pytest.raises(ValueError, match="encodes 1 channels; the images have 3"):
        all_of(folders.ClassFolders(pictures / "train", 32), grey_vae, tmp_path / "cache")
    with pytest.raises(ValueError, match="holds no latents: `imf-lite prepare"):
        data.load("fashion")


@pytest.mark.parametrize("name", [n for n in recipes.RECIPES if n.startswith("fashion") and "pixels" not in n])
def test_every_recipe_takes_three_steps(little_fashion, grey_vae, tmp_path, name):
    for split in ("train", "test"):
        all_of(sources.Fashion(split), grey_vae, little_fashion / "data" / "latents" / "fashion" / split)
    recipe = recipes.get(name, steps=3, batch=8, log_every=1, **{"net.width": 24})
    records = list(training.train(recipe, tmp_path / "run", device="cpu"))
    assert len(records) == 3 and all(np.isfinite(r.loss) for r in records)
    described = training.read_run(tmp_path / "run")["latents"]
    assert described["vae"] == str(grey_vae) and len(described["mean"]) == 4
    images = training.images_of(tmp_path / "run")(torch.randn(2, 4, 8, 8))
    assert images.shape == (2, 1, 32, 32) and images.dtype == torch.uint8


def test_the_autoencoder_learns(tmp_path):
    images = torch.arange(16, dtype=torch.uint8).mul(16).view(16, 1, 1, 1).expand(16, 1, 8, 8)
    recipe = replace(GREY, steps=150, batch=16)
    losses = [loss for _, loss in train_vae(images, recipe, eye_net().eval(), tmp_path)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_training_of_the_autoencoder_resumes(tmp_path):
    images = torch.arange(16, dtype=torch.uint8).mul(16).view(16, 1, 1, 1).expand(16, 1, 32, 32)
    train = partial(train_vae, images, GREY, eye_net().eval())
    whole = [loss for _, loss in train(tmp_path / "whole")]
    part = train(tmp_path / "cut")
    for _ in range(7):
        next(part)
    part.close()
    assert [loss for _, loss in train(tmp_path / "cut")] == whole[6:]  # from the checkpoint of update 6
    a, b = (load_vae(tmp_path / k / "vae").state_dict() for k in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ValueError, match="autoencoder of another recipe"):
        next(train_vae(images, VAERecipe(), eye_net(), tmp_path / "cut"))


@pytest.mark.parametrize(
    ("name", "next_name"), list(itertools.pairwise(("fashion_mf", *trainings.TO_IMF, "bridge_tokens", "fashion_imf")))
)
def test_a_step_of_the_bridge_changes_one_thing(name, next_name):
    """At equal seed: the loss, the v-head, the scale as input, the interval, tokens, modern blocks."""
    a, b = (json.loads(trainings.recipe(n, 1).to_json()) for n in (name, next_name))
    differ = {k for k in a if k != "name" and a[k] != b[k]}
    inside = {k for k in a["net"] if a["net"][k] != b["net"].get(k)} if differ >= {"net"} else set()
    allowed = {
        "bridge_boundary": ({"method"}, set()),
        "bridge_head": ({"net"}, {"v_depth"}),
        "bridge_omega": ({"net", "guidance"}, {"guided"}),
        "bridge_interval": ({"net"}, {"guided"}),
        "fashion_imf": ({"net"}, {"modern"}),
    }
    if next_name in allowed:
        assert (differ, inside) == allowed[next_name]
    else:  # another kind of network, of the same width, depth and input
        assert differ == {"net"} and all(a["net"][k] == b["net"][k] for k in ("width", "depth", "heads", "v_depth"))


def test_longer_trainings_and_the_bridge_are_asked_for():
    longer = trainings.recipe("fashion_imf_longer", 2)
    assert (longer.steps, longer.warmup, longer.seed) == (24_000, 400, 2) and longer.net == recipes.get(
        "fashion_imf"
    ).net
    of = {asked: [job.network for job in pipeline.jobs(*asked)] for asked in ((1, 0), (1, 1), (3, 0))}
    assert of[1, 0] == list(trainings.RECIPES) and of[1, 1] == [*trainings.RECIPES, *trainings.LONGER]
    every = (*trainings.RECIPES, *trainings.BRIDGE)
    assert {name: of[3, 0].count(name) for name in of[3, 0]} == dict.fromkeys(every, 3)


def test_the_training_that_ships_is_the_median_on_the_noise_to_choose_by():
    def rows(name, k, half, nfe, *fids):
        return [{"network": name, "training": k, "half": half, "nfe": nfe, "fid": fid} for fid in fids]

    table = rows("a", 0, "choose", 1, 9.0, 3.0) + rows("a", 1, "choose", 1, 5.0, 7.0) + rows("a", 2, "choose", 1, 4.0)
    other = rows("a", 0, "report", 1, 1.0) + rows("a", 1, "choose", 2, 0.0) + rows("b", 5, "choose", 1, 4.5)
    assert trainings.median_training(table + other, "a") == 2  # 3, 5 and 4
    assert trainings.median_training(table[:-1] + other, "a") == 0  # the lower of two
    assert trainings.median_training(table + other, "b") == 5


def test_the_whole_pipeline_on_a_stand_in(little_fashion, monkeypatch, capsys):
    ships, work, out = (little_fashion / name for name in ("ships", "work", "out"))
    monkeypatch.setenv("IMF_LITE_PRETRAINED", str(ships))
    monkeypatch.setattr(assets, "FLOORS", (20,))
    monkeypatch.setattr(pipeline, "map_jobs", lambda f, jobs, *args: [f(job, *args) for job in jobs])
    few = {nfe: [(1.0, (0.0, 1.0)), (2.0, (0.2, 0.8))] for nfe in (1, 2)}
    monkeypatch.setattr(runs, "CURVE_N", 20)
    small = {"N": 20, "CURVE_EVERY": 3, "GUIDANCE": few, "SEEDS": (("choose", 1), ("report", 0))}
    for name, value in small.items():
        monkeypatch.setattr(trainings, name, value)
    monkeypatch.setattr(trainings, "BRIDGE", ("bridge_omega",))
    pipeline.main(work, out, steps=3, vae=GREY, epochs=1, ship=ships / "fashion")
    rows = read_table(out / "fashion.csv")
    assert {r["network"] for r in rows} == set(trainings.RECIPES) and {r["nfe"] for r in rows} == {1, 2, 4, 64}
    curves = read_table(out / "fashion_curves.csv")
    assert [(r["network"], r["training"], r["step"]) for r in curves] == [(name, 0, 3) for name in trainings.RECIPES]
    made = ships / "fashion"
    assert {p.name for p in made.iterdir()} >= {"classifier.safetensors", "vae", "floors.json", "networks"}
    assert {p.name for p in (made / "networks").iterdir()} == set(trainings.SHIPPED)
    monkeypatch.setenv("IMF_LITE_PRETRAINED", str(ships))
    net, about = weights.load(made / "networks" / "fashion_imf"), weights.read_notes(made / "networks" / "fashion_imf")
    assert not net.has_v and net.guided == "interval" and about["recipe"]["steps"] == 3
    assert about["training"] == {"seed": 0, "of": 1, "rule": trainings.RULE}
    judge = StoredEvaluator(made, Latents(**about["latents"]).images, "fashion")
    result = judge(net, n=20, omega=2.0)
    assert np.isfinite(result["fid"]) and result["protocol"]["extractor"] == "fashion" and "nearest_train" not in result
    with pytest.raises(ValueError, match="was measured for n = 20, not 30"):
        judge(net, n=30)
    before = {p: p.stat().st_mtime_ns for p in work.rglob("scores.jsonl")}
    pipeline.main(work, out, steps=3, vae=GREY, epochs=1, ship=ships / "fashion", seeds=2)  # what is there stays
    assert len(before) == 5 and {p: p.stat().st_mtime_ns for p in before} == before
    more = read_table(out / "fashion.csv")
    assert [r for r in more if r["training"] == 0 and r["network"] != "bridge_omega"] == rows
    trained = {(r["network"], r["training"]) for r in more}
    assert trained == {(name, k) for name in (*trainings.RECIPES, "bridge_omega") for k in (0, 1)}
    best = trainings.median_training(more, "fashion_mf_plain")
    about = weights.read_notes(made / "networks" / "fashion_mf_plain")
    assert about["training"] == {"seed": best, "of": 2, "rule": trainings.RULE} and about["recipe"]["seed"] == best
    omegas = [(r["omega"], r["t_min"]) for r in more if r["network"] == "bridge_omega" and r["training"] == 1]
    assert set(omegas) == {(1, 0)}  # the setting with an interval is left out
    with pytest.raises(ValueError, match=r"holds a run with .*choose another folder"):
        pipeline.main(work, out, steps=4, vae=GREY, epochs=1)
    monkeypatch.setattr(assets, "FLOORS", (20, 100))  # also of more images than the test split has, once
    for _ in range(2):
        assets.reference_features(work / "pretrained" / "fashion")
        floors = json.loads((work / "pretrained" / "fashion" / "floors.json").read_text())["floors"]
        assert set(floors) == {"20", "100"}
        monkeypatch.setattr(assets.metrics, "floor", lambda *_: pytest.fail("measured again"))
    imf = made / "networks" / "fashion_imf"
    run(monkeypatch, "sample", "--weights", imf, "--omega", 2, "--rows", 1, "--out", work / "a.png")
    assert Image.open(work / "a.png").size == (640, 64)
    trained = work / "runs" / "fashion_mf-0"
    run(monkeypatch, "evaluate", "--run", trained, "--n", 20)
    assert "fid_excess" in (said := capsys.readouterr().out) and "fid_inception" not in said
    real = extractors.load_extractor
    monkeypatch.setattr(extractors, "load_extractor", lambda name, *a: real(name, *a) if name == "fashion" else None)
    seen = {}
    monkeypatch.setattr(protocol, "standard_fid", lambda images, **how: seen.update(how, n=len(images)) or 12.5)
    (work / "inception.pth").write_bytes(b"its checksum is part of what decides a score")
    run(monkeypatch, "evaluate", "--run", trained, "--n", 20, "--inception", work / "inception.pth")
    assert "fid_inception          12.5" in (said := capsys.readouterr().out) and "below the 2048 features" in said
    assert (seen["n"], seen["border"], len(seen["train"])) == (20, 2, 200)
    stored = [json.loads(path.read_text()) for path in (trained / "evaluation").glob("*.json")]  # both are kept
    assert sorted("fid_inception" in row for row in stored) == [False, True]


@pytest.mark.parametrize(("name", "along"), [("fashion_fm_plain", euler), ("fashion_mf_plain", sample)])
def test_a_file_of_weights_is_sampled_as_its_run_is(name, along, tmp_path, monkeypatch):
    """Flow matching steps along v, also where only its file of weights is there."""
    seen = []

    def watched(net, n, steps, seed, sampler, *more):
        seen.append(sampler)
        return generate(net, n, steps, seed, sampler, *more)

    monkeypatch.setattr("imf_lite.sampling.generate", watched)
    run(monkeypatch, "sample", "--weights", name, "--nfe", 4, "--rows", 1, "--out", tmp_path / "a.png")
    assert seen == [along]


def test_what_ships_fits_together():
    """The shipped autoencoder gives 4 x 8 x 8 latents and takes them back; the classifier reads its images."""
    vae, (classifier, checksum) = load_vae("fashion"), fashion_classifier()
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    assert preparation.encode(vae, images).shape == (2, 8, 8, 8) and len(checksum) == 64
    back = Latents("fashion", (0.0,) * 4, (1.0,) * 4).images(torch.from_numpy(preparation.encode(vae, images)[:, :4]))
    assert back.shape == images.shape and back.float().mean() < 8  # black stays black
    assert classifier(back)[0].shape == (2, 96)


@pytest.mark.parametrize("name", trainings.SHIPPED)
def test_stored_networks_load_strictly_and_say_what_made_them(name):
    folder = pretrained_folder("fashion") / "networks" / name
    net, about = weights.load(folder), weights.read_notes(folder)
    recipe = recipes.get(name, seed=about["recipe"]["seed"])  # the median's
    assert recipes.Recipe.from_json(json.dumps(about["recipe"])) == recipe
    assert not net.has_v and net.guided == recipe.net.guided and net.shape == (4, 8, 8) and net.num_classes == 10
    tensors, _ = checkpoint.load(folder / "model.safetensors")
    assert {v.dtype for v in tensors.values()} == {torch.float16}


def test_the_stored_network_gives_the_recorded_samples():
    folder, recorded = pretrained_folder("fashion") / "networks" / "fashion_imf", np.load(RESULTS / "fashion.npz")
    x, y = generate(weights.load(folder), 30, 1, seed=0, omega=2.0)
    images = Latents(**weights.read_notes(folder)["latents"]).images(x)
    assert torch.equal(y, torch.from_numpy(recorded["y"]))
    difference = (images.int() - torch.from_numpy(recorded["samples"]).int()).abs()
    assert difference.max() <= 3 and difference.float().mean() < 0.05  # another machine, another order of sums


def test_stored_scores_meet_the_bars():
    """Reconstruction within 10 floors; one step at omega = 2 within 50, and 93 % of the class asked for."""
    stored = json.loads((pretrained_folder("fashion") / "floors.json").read_text())
    assert stored["bound"]["its copies by the autoencoder"]["fid"] < 10 * stored["floors"]["10000"]["fid"]
    guided = {"omega": 2, "t_max": 1}
    assert fashion_scores.scores("fashion_imf", 1, **guided).max() < 50
    of_shipped = fashion_scores.scores(
        "fashion_imf", 1, "agreement", training=fashion_scores.shipped("fashion_imf"), **guided
    )
    assert of_shipped.min() >= 0.93
