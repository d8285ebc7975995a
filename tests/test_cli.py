"""The command line: errors that a person can act on, and the same recipes as everywhere."""

import itertools
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

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
    assert len(list((tmp_path / "run" / "samples").glob("nfe3-seed0-*.png"))) == 1
    with pytest.raises(SystemExit, match=r"imf-lite: .*holds another run: seed = 0, not 1"):
        run(monkeypatch, "train", "digits_mf", "--out", tmp_path / "run", *small, "--seed", 1)


def papermill(notebook, *words):
    """What papermill does with a notebook's parameters: (exit code, what it printed)."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), "-", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words, compile",
    [([], "no"), (["--compile"], "auto"), (["--compile", "blocks"], "blocks"), (["--compile", "--verify"], "auto")],
)
def test_compile_may_stand_alone(monkeypatch, words, compile):
    for arguments in (["train", "digits_imf", *words], ["train", *words, "digits_imf"]):
        monkeypatch.setattr("sys.argv", ["imf-lite", *arguments])
        assert cli.parse().compile == compile


def test_papermill_parameters_are_checked_in_the_first_cell_and_take_the_type_of_their_default(tmp_path):
    cells = [
        new_code_cell("from toy_experiments import parameters"),
        new_code_cell('out, steps, lr = "", 200, 1.0', metadata={"tags": ["parameters"]}),
        new_code_cell("parameters.check(globals())"),
        new_code_cell("print('reached', repr(out), repr(steps), repr(lr))"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "lesson.ipynb")
    for words, code, said in (
        ((), 0, "reached '' 200 1.0"),
        (("-p", "out", "2026", "-p", "steps", "2e3", "-p", "lr", "2"), 0, "reached '2026' 2000 2.0"),
        (("-p", "output", "here"), 1, "there is no parameter 'output'; this notebook has: out, steps, lr."),
        (("-p", "steps", "2.5"), 1, "steps = 2.5; it must be like its default, 200 (int)."),
        (("-p", "steps", "many"), 1, "steps = 'many'; it must be like its default, 200 (int)."),
    ):
        found, printed = papermill(tmp_path / "lesson.ipynb", *words)
        assert (found, said in printed) == (code, True), (words, printed[-500:])
        assert ("reached '" in printed) == (code == 0)


def test_every_notebook_with_parameters_checks_them_at_once():
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        if path.stem == "one_page":  # it does without this package
            continue
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        for cell, following in itertools.pairwise(cells):
            if "parameters" in cell.metadata.get("tags", []):
                assert "parameters.check(globals())" in following.source, path.name
