"""The command line: errors that a person can act on, and the same recipes as everywhere."""

import sys

import pytest

from imf_lite import cli
from imf_lite.recipes import RECIPES


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["imf-lite", *map(str, words)])
    cli.main()


def test_recipes_are_listed(monkeypatch, capsys):
    run(monkeypatch, "recipes")
    out = capsys.readouterr().out
    assert all(name in out for name in RECIPES)


def test_help_names_every_field(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "train", "digits_imf", "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for field in ("--steps", "--net.width", "--net.v-depth", "--draws.p-r-neq-t", "--out", "--device"):
        assert field in out


def test_train_takes_overrides_and_says_where_and_on_what(monkeypatch, capsys, tmp_path):
    small = ("--steps", 2, "--net.width", 16, "--draws.p-r-neq-t", 0.25, "--device", "cpu")
    run(monkeypatch, "train", "digits_mf", "--out", tmp_path / "run", *small)
    out = capsys.readouterr().out
    assert "digits_mf on cpu: 2 updates of 128 samples" in out and "step-000000002.safetensors" in out
    run(monkeypatch, "sample", "--run", tmp_path / "run", "--nfe", 3, "--rows", 2)
    assert (tmp_path / "run" / "samples" / "nfe3-seed0.png").exists()
    with pytest.raises(SystemExit, match=r"imf-lite: .*holds another run: seed = 0, not 1"):
        run(monkeypatch, "train", "digits_mf", "--out", tmp_path / "run", *small, "--seed", 1)


@pytest.mark.parametrize(
    "words, message",
    [
        (("train", "digits_imf", "--batch", 2000), "lower the batch"),
        (("train", "digits_imf", "--data", "mnist"), "no data set named 'mnist'"),
        (("sample", "--run", "nowhere"), "holds no checkpoint: train first"),
        (("evaluate", "--run", "nowhere"), "holds no checkpoint: train first"),
        (("train", "digits_imf", "--device", "gpu"), "device 'gpu' cannot be used here"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as stop:
        run(monkeypatch, *words)
    assert str(stop.value.code).startswith("imf-lite: ")


def test_an_unknown_recipe_or_field_names_the_known_ones(monkeypatch, capsys):
    for words, named in (
        (("train", "digits_imff"), "digits_imf_boundary"),
        (("train", "digits_imf", "--stepz", 3), "--steps"),
        (("train", "digits_mf", "--method", "fm"), "flow matching knows r = t only"),
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
    ):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, *words)
        shown = capsys.readouterr()
        assert stop.value.code == 2 and not shown.out, words
        assert named in shown.err and shown.err.count("\n") == 1 and shown.err.startswith("imf-lite: "), words


def test_numbers_of_samples_that_make_no_sense(monkeypatch, tmp_path):
    run(monkeypatch, "train", "digits_mf", "--out", tmp_path, "--steps", 1, "--net.width", 16)
    for words, message in (
        (("sample", "--rows", 0), "n = 0"),
        (("sample", "--nfe", 0), "steps = 0"),
        (("evaluate", "--n", 105), "not a multiple of the 10 classes"),
        (("evaluate", "--n", 5000), "lower n"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, words[0], "--run", tmp_path, *words[1:])
