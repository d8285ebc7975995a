"""The judge is judged: known answers, refusals, and the classifier behind it."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch_fidelity import calculate_metrics

from imf_lite import data
from imf_lite.configs import MLPConfig
from imf_lite.data import pixels
from imf_lite.data.images import grid, save_png, to_uint8
from imf_lite.evaluation import classifiers, metrics, protocol
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.evaluation.extractors import extract
from imf_lite.evaluation.metrics import compare, disjoint, measure, nearest
from imf_lite.evaluation.references import from_features, from_file
from imf_lite.networks import build
from imf_lite.system import files
from imf_lite.system.rng import generator

DIGITS = data.load("digits")


@pytest.fixture(scope="module")
def judge():
    return Evaluator(DIGITS)


def test_the_digits_are_split_once_and_for_all():
    assert DIGITS.train.x.shape == (1297, 1, 8, 8) and DIGITS.held_out.x.shape == (500, 1, 8, 8)
    assert torch.bincount(DIGITS.held_out.y).tolist() == [50] * 10
    assert DIGITS.train.x.min() == -1 and DIGITS.train.x.max() == 1
    rows = torch.cat([DIGITS.train.x, DIGITS.held_out.x]).flatten(1)
    assert len(rows.unique(dim=0)) == 1797  # no digit is on both sides
    assert_close(data.load("digits").train.x, DIGITS.train.x, rtol=0, atol=0)


def test_the_classifier_knows_held_out_digits(judge):
    predicted = judge.classifier(judge.reference)[1].argmax(1)
    assert (predicted == DIGITS.held_out.y).float().mean() >= 0.97


def test_the_classifier_is_deterministic_and_its_file_is_checked(tmp_path, monkeypatch):
    train = partial(classifiers.train_classifier, classifiers.Classifier, to_uint8(DIGITS.train.x), DIGITS.train.y)
    a, b = (train(epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    monkeypatch.setenv("IMF_LITE_CACHE", str(tmp_path))
    monkeypatch.setattr(classifiers, "train_classifier", lambda make, *_: make())
    _, checksum = classifiers.digits_classifier()
    assert classifiers.digits_classifier()[1] == checksum
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged .*: it is made again"):
        assert classifiers.digits_classifier()[1] != checksum  # the stand-in's weights are random: these are new
    assert files.read_tensors(path)[0].keys() == classifiers.Classifier().state_dict().keys()


def test_real_against_itself_scores_perfectly_and_noise_badly(judge):
    own = judge.measure(judge.reference)
    assert abs(own["fid"]) < 1e-3 and own["precision"] == own["recall"] == 1
    noise = torch.randint(0, 256, (500, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert judge.measure(noise)["fid"] > 100 and judge.measure(noise)["kid"] > own["kid"] + 10


def test_one_class_alone_has_precision_without_recall(judge):
    ones = to_uint8(DIGITS.train.x[DIGITS.train.y == 1])
    found = judge.measure(ones)
    assert found["precision"] > 0.8 and found["recall"] < 0.3


def test_the_floor_is_between_disjoint_balanced_sets(judge):
    ours, theirs = disjoint(judge.pooled_labels(), 1000, 500, torch.Generator().manual_seed(0))
    assert not set(ours.tolist()) & set(theirs.tolist())
    assert torch.bincount(judge.pooled_labels()[ours]).tolist() == [100] * 10
    floor = judge.floor(1000)
    assert 0 < floor["fid"] < 2 and 0 < floor["fid_std"] < floor["fid"]
    with pytest.raises(ValueError, match="needs 250: lower n"):
        judge.floor(2000)


def test_float_images_are_refused():
    for bad in (torch.rand(4, 1, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="convert with to_uint8"):
            measure(bad, to_uint8(DIGITS.held_out.x))


def test_pixels_are_rounded_not_truncated():
    x = torch.tensor([-2.0, -1.0, 1 / 255 - 1 + 1e-4, 1 / 255 - 1 - 1e-4, 0.0, 1.0, 3.0])
    assert to_uint8(x).tolist() == [0, 0, 1, 0, 128, 255, 255]
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels.to(torch.uint8))


def test_nearest_training_distance():
    train = to_uint8(DIGITS.train.x)
    assert nearest(train[:50], train) == 0
    brighter = (train[:50].int() + 3).clamp(max=255)
    assert 0 < nearest(brighter, train) <= 3
    assert nearest(to_uint8(DIGITS.held_out.x), train) > 10


def test_the_judge_states_its_protocol(judge):
    result = judge(build(MLPConfig(width=16, depth=1), (1, 8, 8), 10), steps=2, n=100, seed=3)
    assert result["protocol"]["nfe"] == 2 and result["protocol"]["n"] == 100 and result["protocol"]["seed"] == 3
    assert result["protocol"]["extractor_checksum"] == judge.checksum and len(judge.checksum) == 64
    assert result["fid_excess"] == result["fid"] - result["floor"]["fid"] > 10  # it outputs noise
    assert result["agreement"] < 0.5


def test_of_many_features_those_compared_pair_by_pair_are_of_every_class(monkeypatch):
    """Sorted by class, as the floor's sets are: the first of them would be of one class, and recall a half."""
    g = torch.Generator().manual_seed(0)
    classes = torch.randn(800, 3, generator=g) + 50 * (torch.arange(800) >= 400)[:, None]
    real = from_features(classes[torch.randperm(800, generator=g)[:200]], "")
    whole = compare(classes, real)
    monkeypatch.setattr(metrics, "MOST", 300)
    part = compare(classes, real)
    assert part["fid"] == whole["fid"] and part["recall"] > 0.9


@pytest.fixture(scope="module")
def inception(tmp_path_factory) -> str:
    """A file of Inception's weights of the official format, here random."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with pytest.MonkeyPatch.context() as m:
        m.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        m.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(net.state_dict(), path)
    return str(path)


def test_the_standard_fid_of_small_images_is_torch_fidelitys(tmp_path, monkeypatch, inception):
    """Of the original 28 x 28 images in three equal channels, against all training images, which are read once."""
    monkeypatch.setenv("IMF_LITE_CACHE", str(tmp_path / "cache"))
    g = torch.Generator().manual_seed(0)
    train, made = (
        torch.randint(0, high, (n, 1, 32, 32), dtype=torch.uint8, generator=g) for n, high in ((12, 256), (9, 99))
    )
    for folder, images in (("train", train), ("made", made)):
        (tmp_path / folder).mkdir()
        for k, image in enumerate(images[:, 0, 2:30, 2:30]):
            Image.fromarray(image.numpy()).convert("RGB").save(tmp_path / folder / f"{k:02}.png")
    theirs = calculate_metrics(
        input1=str(tmp_path / "made"), input2=str(tmp_path / "train"), fid=True, cuda=False, verbose=False, cache=False,
        feature_extractor_weights_path=inception, batch_size=4, save_cpu_ram=True,
    )  # fmt: skip
    ours = protocol.standard_fid(made, pixels.in_memory(train, None), inception, border=2)
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    seen = []
    monkeypatch.setattr(protocol, "extract", lambda x, *a, **k: seen.append(x.shape) or extract(x, *a, **k))
    assert protocol.standard_fid(made, pixels.in_memory(train, None), inception, border=2) == ours
    assert seen == [(9, 1, 28, 28)]


def test_inception_is_reached_through_the_same_function(tmp_path, inception):
    """Its file is read, and its 2,048 features are compared."""
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = measure(images, images.flip(0), "inception-v3-compat", weights=inception)
    grey = images[:3, :1]
    as_rgb = (extract(x, "inception-v3-compat", inception) for x in (grey, grey.repeat(1, 3, 1, 1)))
    assert torch.equal(*as_rgb)
    assert abs(found["fid"]) < 1e-2 and found["precision"] == 1
    with pytest.raises(ValueError, match=r"none\.pth.*fetch https://"):
        measure(images, images, "inception-v3-compat", weights=str(tmp_path / "none.pth"))


def test_pictures(tmp_path):
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    picture = grid(images, columns=3)
    assert picture.shape == (1, 4, 6) and picture[0, :, ::2].tolist()[0::2] == [[0, 1, 2], [3, 4, 5]]
    save_png(tmp_path / "a" / "x.png", picture, zoom=2)
    from PIL import Image

    assert Image.open(tmp_path / "a" / "x.png").size == (12, 8)
    with pytest.raises(ValueError, match="rows of 4"):
        grid(images, columns=4)


class Rows(torch.utils.data.Dataset):
    """Images one by one, as torch-fidelity's own entry point wants them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def test_the_metrics_are_those_of_torch_fidelitys_entry_point(judge):
    generated = to_uint8(DIGITS.train.x[:600] + 0.1 * torch.randn(600, 1, 8, 8, generator=generator("cpu", 0)))
    theirs = calculate_metrics(
        input1=Rows(generated), input2=Rows(judge.reference), feature_extractor="digits", fid=True, kid=True, prc=True,
        kid_subset_size=100, batch_size=500, cuda=False, cache=False, save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    ours = measure(generated, judge.reference)
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert (ours["precision"], ours["recall"]) == (theirs["precision"], theirs["recall"])


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("ref_mu", "ref_sigma")])
def test_statistics_from_a_file_give_the_fid_of_the_images(judge, tmp_path, keys):
    images = to_uint8(DIGITS.train.x[:500])
    np.savez(tmp_path / "statistics.npz", **dict(zip(keys, judge.real.statistics.values(), strict=True)))
    found = compare(judge.extract(images), from_file(tmp_path / "statistics.npz"))
    assert found["fid"] == pytest.approx(judge.measure(images)["fid"], rel=1e-5) and found["kid"] is None
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    with pytest.raises(ValueError, match="holds mean; statistics are mu and sigma"):
        from_file(tmp_path / "other.npz")
