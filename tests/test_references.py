"""Reference statistics as others publish them: read without executing anything, checked before a sample is made."""

import pickle

import numpy as np
import pytest
import torch
from test_cli import run
from torch_fidelity import calculate_metrics

from imf_lite.configs import MLPConfig
from imf_lite.data.images import to_uint8
from imf_lite.evaluation import protocol
from imf_lite.evaluation.extractors import extract
from imf_lite.evaluation.references import from_features, from_file
from imf_lite.networks import build
from imf_lite.pretrained import weights

IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Images(torch.utils.data.Dataset):
    """As torch-fidelity wants them."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, i: int) -> torch.Tensor:
        return IMAGES[i]


@pytest.fixture(scope="module")
def statistics() -> dict[str, np.ndarray]:
    return from_features(extract(IMAGES, "digits"), "").statistics


def test_adms_file_is_read_without_its_images(tmp_path, statistics):
    """Keys of the guided-diffusion evaluator's reference batches: arr_0, mu, sigma, mu_s, sigma_s."""
    np.savez(tmp_path / "VIRTUAL.npz", arr_0=np.zeros((9, 8, 8, 3), np.uint8), mu_s=np.zeros(3), **statistics)
    found = from_file(tmp_path / "VIRTUAL.npz")
    assert np.array_equal(found.statistics["mu"], statistics["mu"]) and found.features is None


def test_ref_mu_and_ref_sigma_are_read(tmp_path, statistics):
    np.savez(tmp_path / "ref.npz", ref_mu=statistics["mu"], ref_sigma=statistics["sigma"])
    assert np.array_equal(from_file(tmp_path / "ref.npz").statistics["sigma"], statistics["sigma"])


def test_files_that_torch_fidelity_cached_are_read(tmp_path, statistics):
    calculate_metrics(
        input1=Images(), input2=Images(), fid=True, cuda=False, feature_extractor="digits", cache_root=str(tmp_path),
        input1_cache_name="mine", verbose=False, cache=True, save_cpu_ram=True,
    )  # fmt: skip
    files = {path.name: path for path in tmp_path.glob("mine-*.pt")}
    statistics_file = next(path for name, path in files.items() if "stat-fid" in name)
    features_file = next(path for name, path in files.items() if "features-features" in name)
    for path in (statistics_file, features_file):
        found = from_file(path)
        assert np.allclose(found.statistics["mu"], statistics["mu"]) and (found.features is not None) == (
            path == features_file
        )


class Trap:
    def __reduce__(self):
        return (print, ("this must not be printed",))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("page.npz", b"<!DOCTYPE html><html>404</html>", "an HTML page, so the download failed"),
        ("text.npz", b"mu sigma\n1 2\n", "it is not an .npz file"),
        ("empty.npz", b"", "it is not an .npz file"),
        ("pickle.npz", pickle.dumps({"mu": 1}), "it is not an .npz file"),
        ("trap.pt", pickle.dumps(Trap()), "cannot be read as a file of weights"),
        ("text.pt", b"hello", "cannot be read as a file of weights"),
    ],
)
def test_files_that_hold_no_statistics_are_refused(tmp_path, name, content, message, capsys):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        from_file(tmp_path / name)
    assert "allow_pickle" not in str(error.value) and "printed" not in capsys.readouterr().out


def spoiled(statistics: dict, kind: str) -> dict:
    """Statistics with one thing wrong."""
    mu, sigma = statistics["mu"], statistics["sigma"]
    return {
        "short": {"mu": mu[:5], "sigma": sigma},
        "nan": {"mu": mu, "sigma": np.where(sigma == sigma.max(), np.nan, sigma)},
        "flat": {"mu": mu[None], "sigma": sigma},
        "objects": {"mu": np.array([None]), "sigma": sigma},
        "integers": {"mu": mu.astype(int), "sigma": sigma},
        "others": {"mean": mu, "cov": sigma},
    }[kind]


@pytest.mark.parametrize(
    "kind, message",
    [
        ("short", r"mu is float\d+, \(5,\)"),
        ("nan", "holds numbers that are not finite"),
        ("flat", r"must be floating point, \(F,\)"),
        ("objects", "Python objects, which are never loaded"),
        ("integers", "must be floating point"),
        ("others", "holds mean, cov; statistics are mu and sigma"),
    ],
)
def test_wrong_statistics_are_refused(tmp_path, statistics, kind, message):
    np.savez(tmp_path / "x.npz", **spoiled(statistics, kind))
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / "x.npz")


def test_statistics_of_another_extractor_are_refused_before_a_sample_is_made(tmp_path):
    wrong, made = from_features(torch.randn(20, 7), "seven features"), []
    net = build(MLPConfig(width=8, depth=1), (1, 8, 8), 10)
    with pytest.raises(ValueError, match=r"seven features holds statistics of 7 features; digits gives 64"):
        protocol.evaluate(net, to_uint8, wrong, "digits", n=10, sampler=lambda *_: made.append(1))
    assert not made


def test_the_command_line_refuses_a_page_before_it_samples(tmp_path, monkeypatch):
    weights.save_pretrained(build(MLPConfig(width=8, depth=1), (1, 8, 8), 10), tmp_path / "net")
    (tmp_path / "page.npz").write_text("<html>")
    words = ("evaluate", "--weights", tmp_path / "net", "--reference", tmp_path / "page.npz", "--extractor", "digits")
    with pytest.raises(SystemExit, match=r"page\.npz does not hold reference statistics: it is an HTML page"):
        run(monkeypatch, *words, "--n", 10)
