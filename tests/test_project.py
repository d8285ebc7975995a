"""The project keeps its own rules: requirements, arrows, notebooks, and a README whose commands work."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image
from released import save_narrow_b2, save_narrow_pmf
from test_weights import save_tiny_vae
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from imf_lite import cli
from imf_lite.cli.evaluate import Evaluate

sys.path.append(str(Path(__file__).parent.parent / "docs"))
import architecture
from architecture import METHOD, imports, room

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REQUIREMENTS = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def build_wheel(folder: Path) -> Path:
    """The project's wheel, as setuptools builds it."""
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def documented_commands() -> list[str]:
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/command_line.md", "docs/full_scale.md")]
    blocks = re.findall(r"```bash\n(.*?)```", "".join(texts), re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_and_pip_ask_for_the_same():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda[0] == f"python{PROJECT['requires-python']}"
    assert conda[-1]["pip"] == [*REQUIREMENTS, "-e ."]


def test_the_tested_versions_lie_in_the_ranges():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {r.name.lower().replace("_", "-"): r for r in map(Requirement, lines)}
    for wanted in map(Requirement, REQUIREMENTS):
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            version = str(pinned[wanted.name].specifier).removeprefix("==")
            assert wanted.specifier.contains(version), wanted


MAY_IMPORT = {
    # of imf_lite                     what it may import of the project
    "configs": set(),
    "system": {"configs"},
    "method": {"configs", "system"},
    "networks": {"configs", "method"},
    "data": {"configs", "system", "method"},
    "recipes": {"configs"},
    "training": {"configs", "system", "method", "networks", "data", "recipes", "pretrained"},
    "evaluation": {"configs", "system", "method", "networks", "data"},
    "pretrained": {"configs", "system", "method", "networks", "data"},
    "cli": {"configs", "system", "method", "networks", "data", "recipes", "training", "evaluation", "pretrained"},
    # of toy_experiments, which imports imf_lite, never the reverse
    "parameters": set(),
    "tables": set(),
    "rehearsal": set(),
    "fashion_assets": set(),
    "ground_truth": set(),
    "figures": set(),
    "exercises": {"tables", "ground_truth"},
    "experiments": {"tables", "ground_truth", "figures", "fashion_assets"},
    "report": {"tables", "ground_truth", "figures", "experiments"},
}
WITHIN_THE_METHOD = {
    "forward_mode": set(),
    "conditions": set(),
    "losses": {"forward_mode"},
    "relatives": {"losses"},
    "draws": {"conditions"},
    "guidance": {"conditions", "draws"},  # draws: for a type hint alone
    "sampling": {"conditions"},
    "objective": {"losses", "guidance", "conditions", "draws"},
}


@pytest.mark.parametrize("package", ["imf_lite", "toy_experiments"])
def test_folders_import_what_they_may(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        home = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if home is None:
            continue
        for name in imports(path):
            top, target = name.split(".")[0], room(name)
            assert top in ("imf_lite", package), f"{path} imports {name}"
            if top == package and target in MAY_IMPORT and target != home:
                assert target in MAY_IMPORT[home], f"{path} imports {name}"
    assert all(path.stem in {*MAY_IMPORT, *METHOD, "__init__", "results"} for path in (ROOT / package).glob("[a-z_]*"))


def test_the_method_is_eight_small_files_that_know_little_of_each_other():
    lines = 0
    for name, may in WITHIN_THE_METHOD.items():
        path = ROOT / "imf_lite" / f"{name}.py"
        lines += len(path.read_text().splitlines())
        found = {n.split(".")[1] for n in imports(path) if room(n) == "method"} - {name}
        assert found <= may, name
    assert set(WITHIN_THE_METHOD) == set(METHOD) and lines < 900


def test_the_picture_and_the_tree_of_the_architecture_are_of_the_present_code():
    again = "run `python docs/architecture.py`"
    assert (ROOT / "docs" / "architecture.svg").read_text() == architecture.svg(), again
    assert (ROOT / "docs" / "architecture.md").read_text() == architecture.page(), again


def test_modules_and_folders_stay_small():
    for package in ("imf_lite", "toy_experiments"):
        for folder in (ROOT / package, *(ROOT / package).rglob("*/")):
            modules = list(folder.glob("*.py"))
            most = 14 if folder.name == "experiments" else 10  # one command each
            assert len(modules) <= most, f"{folder} holds {len(modules)} modules"
            for path in modules:
                assert len(path.read_text().splitlines()) <= 300, path
            assert not modules or ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_the_library_plots_in_one_place_and_only_the_command_line_prints():
    for path in (ROOT / "imf_lite").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert "matplotlib" not in path.read_text() or path.name in ("comparison.py", "show.py"), path
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert path.parent.name == "cli" or "print" not in calls, path


def test_configurations_and_recipes_are_read_without_torch():
    code = "import sys; sys.modules['torch'] = None; import imf_lite.recipes; print(len(imf_lite.recipes.RECIPES))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) > 30


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_as_they_should_be(path):
    assert path.stat().st_size < 300_000
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1
    for c in code:
        assert len("".join(c["source"]).splitlines()) <= 25
        assert c["execution_count"], f"{path.name} is not executed"
        assert not any(o["output_type"] == "error" for o in c["outputs"])
    assert any("image/png" in o.get("data", {}) for c in code for o in c["outputs"])
    assert any(re.search(r"^assert ", "".join(c["source"]), re.M) for c in code)
    assert cells[0]["attachments"] or not re.search("attachment:", "".join(cells[0]["source"]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_that_show_stored_numbers_alone_must_come_out_as_committed(path):
    """nbval (lax) compares the outputs of tagged cells: these cannot be older than the code."""
    for c in json.loads(path.read_text())["cells"]:
        said = json.dumps(c.get("outputs", []))
        if "training.train(" in "".join(c["source"]):
            continue  # its progress differs from run to run
        if re.search(r"[*(]stored", said, re.I) and not re.search(r"[*(]live", said, re.I):
            assert "nbval-check-output" in c["metadata"].get("tags", []), "".join(c["source"])


def test_nothing_names_a_place_that_others_do_not_have():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in files:
        if name.endswith((".py", ".md", ".toml", ".yml", ".txt", ".ipynb", "Makefile", "run")):
            found = re.search(r"(?<![\w.])/(home|root|work|Users)/\w+|file:///", (ROOT / name).read_text())
            assert name == "tests/test_project.py" or not found, f"{name}: {found}"


def test_the_wheel_samples_from_an_empty_folder_by_the_name_of_a_shipped_network(tmp_path):
    """The wheel as setuptools builds it, unpacked beside this environment's libraries; nothing of the clone is used."""
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run([*PIP, "install", "--no-deps", "--target", tmp_path / "site", build_wheel(tmp_path)], check=True)
    packages = {p.parent.name for p in (tmp_path / "site").glob("*/__init__.py")}
    assert packages == {"imf_lite", "toy_experiments"}
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    code = "import imf_lite, toy_experiments.tables as t; t.read_table(t.RESULTS / 'digits.csv'); print(imf_lite)"
    where = [sys.executable, "-c", code]
    found = subprocess.run(where, cwd=empty, env=environment, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "site") in found
    command = [
        sys.executable,
        "-m",
        "imf_lite.cli",
        "sample",
        "--weights",
        "fashion_imf",
        "--omega",
        "2",
        "--rows",
        "1",
    ]
    subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True)
    (picture,) = (empty / "samples").glob("fashion_imf-nfe1-omega2-seed0-*.png")
    assert Image.open(picture).size == (640, 64)


def test_every_documented_command_works(tmp_path, monkeypatch, capsys):
    commands, printed = documented_commands(), []
    assert len(commands) >= 8
    monkeypatch.chdir(tmp_path)
    save_narrow_b2(tmp_path / "iMF-B-2.pth")  # in place of the downloads
    save_narrow_pmf(tmp_path / "pMF-B-16.pt")
    save_tiny_vae(tmp_path / "sd-vae")
    (tmp_path / "imf_lite").symlink_to(ROOT / "imf_lite")  # commands are given in the project's folder
    for k in range(2):
        (tmp_path / "FOLDER" / "train" / f"class{k}").mkdir(parents=True)
        Image.new("RGB", (300, 280)).save(tmp_path / "FOLDER" / "train" / f"class{k}" / "a.JPEG")
    for command in commands:
        words = shlex.split(command)
        match words[0]:
            case "git" | "cd":  # where the project comes from
                pass
            case "curl":  # network access; what torch-fidelity itself would fetch
                assert words[1:] == ["-LO", URL_INCEPTION_V3]
            case ".venv/bin/hf":  # network access, named as such
                assert words[1] == "download"
            case "make":
                subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
            case ".venv/bin/imf-lite" if "--inception" in words:  # hours, and a file that is not here
                options = asdict(Evaluate(weights="fashion_imf"))
                assert {w[2:] for w in words if w.startswith("--")} <= options.keys()
            case ".venv/bin/imf-lite" | "imf-lite":
                small = ["--steps", "2", "--net.width", "16"] if words[1] == "train" else []
                small += ["--batch", "2", "--net.width", "24"] if "fashion_pixels" in words else []
                monkeypatch.setattr(sys, "argv", [*words, *small])
                cli.main()
            case ".venv/bin/torchrun":  # that its options exist; tests/test_parallel.py and notebook 08 run such
                monkeypatch.setattr(sys, "argv", ["imf-lite", *words[words.index("imf_lite.cli") + 1 :], "--help"])
                printed.append(capsys.readouterr().out)
                with pytest.raises(SystemExit) as left:
                    cli.main()
                said = capsys.readouterr().out
                assert left.value.code == 0 and all(w in said for w in words[words.index("--") :] if w[:2] == "--" != w)
            case ".venv/bin/papermill":
                source = (ROOT / words[1]).read_text()
                cell = next(c for c in json.loads(source)["cells"] if "parameters" in c["metadata"].get("tags", []))
                for k, word in enumerate(words):
                    assert word != "-p" or re.search(rf"^{words[k + 1]} = ", "".join(cell["source"]), re.M), command
            case "conda":
                assert words[1] == "activate" or (ROOT / words[words.index("-f") + 1]).exists()
            case _:
                pytest.fail(f"nobody checks this command: {command}")
    assert list(tmp_path.glob("runs/*/samples/*.png")) and list(tmp_path.glob("runs/*/evaluation/*.json"))
    assert "fid_excess" in "".join([*printed, capsys.readouterr().out])


def test_links_of_the_documentation_lead_somewhere():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        if path.name in ("readme.md", "claims.md", "contributing.md", "index.md"):  # made by the book, or of its pages
            continue
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            there = (path.parent / target).exists() or target.startswith("lessons/")  # pages of the book
            assert there, f"{path.name}: {target}"


def test_the_shipped_weights_stay_small():
    """All networks, the autoencoder and the classifier; not the features of the test split."""
    weights = [
        p for p in (ROOT / "imf_lite" / "pretrained").rglob("*.safetensors") if p.name != "reference.safetensors"
    ]
    assert len(weights) >= 10 and sum(p.stat().st_size for p in weights) < 12e6
