"""Lessons outside the repository: the page of plain torch, links to Colab, and a lesson run from an installed wheel."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from test_project import NOTEBOOKS, PROJECT, ROOT, build_wheel

REPOSITORY = PROJECT["urls"]["Repository"]
CLONE_ONLY = ("imagenet_run", "step_cost")  # papermill runs the first from a clone, the second uses benchmarks/
INSTALLED = [path for path in NOTEBOOKS if path.stem not in (*CLONE_ONLY, "one_page")]


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def test_the_citation_and_every_lesson_name_the_same_repository():
    assert f"repository-code: {REPOSITORY}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"git+{REPOSITORY}" in (ROOT / "README.md").read_text()
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    for path in NOTEBOOKS:
        text = path.read_text()
        colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{path.name}"
        assert text.count(colab) == (path.stem not in CLONE_ONLY), path.name
        installs = re.findall(r"git\+(https://[^\s\\\"]+)", text)
        assert installs == [REPOSITORY] * (path in INSTALLED), path.name


def test_one_page_needs_torch_and_matplotlib_alone():
    """Without imf_lite it runs to the end; after 20 updates there are no eight modes, and its own assert says so."""
    cells = code_cells(ROOT / "notebooks" / "one_page.ipynb")
    imported = {
        (n.module if isinstance(n, ast.ImportFrom) else n.names[0].name).split(".")[0]
        for n in ast.walk(ast.parse("\n".join(cells)))
        if isinstance(n, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"torch", "matplotlib", "imf_lite"}
    assert "imf_lite" not in "".join(cells[:-1]) and len("\n".join(cells[:-1]).split("\n")) < 100
    script = ["import sys, matplotlib; matplotlib.use('Agg'); sys.modules['imf_lite'] = None"]
    for cell in cells:
        cell = re.sub(r"^steps = \d+$", "steps = 20", cell, flags=re.M)
        assertion = "these are not eight separated modes" in cell
        script.append(
            f"try:\n    exec({cell!r})\nexcept AssertionError as error:\n    print(error)" if assertion else cell
        )
    run = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, check=True)
    assert "these are not eight separated modes" in run.stdout and "imf_lite is not installed" in run.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """An environment of its own with this one's libraries but without imf_lite, an empty folder, and the wheel."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    site.joinpath("libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files do not count
    (folder / "empty").mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return python, folder / "empty", build_wheel(folder), environment


def test_a_lesson_installs_the_package_and_runs_in_an_empty_folder(elsewhere):
    """The repository's address is replaced by the wheel. This one needs trained weights and stored results, too; the
    other lessons get as far as their imports."""
    python, empty, wheel, environment = elsewhere
    run = {"cwd": empty, "env": environment, "capture_output": True, "text": True}
    absent = subprocess.run([python, "-c", "import torch, imf_lite"], **run)
    assert "No module named 'imf_lite'" in absent.stderr

    lesson, original = empty / "lesson.ipynb", ROOT / "notebooks" / "06_in_context_conditioning.ipynb"
    lesson.write_text(original.read_text().replace(f"git+{REPOSITORY}", wheel.as_uri()))
    execute = (
        "import nbformat, nbclient, sys; nbclient.NotebookClient(nbformat.read(sys.argv[1], 4), timeout=300).execute()"
    )
    done = subprocess.run([python, "-c", execute, lesson], **run)
    assert not done.returncode, done.stderr[-3000:]
    where = subprocess.run([python, "-c", "import imf_lite; print(imf_lite.__file__)"], **run).stdout
    assert str(python.parent.parent) in where
    imports = [next(cell for cell in code_cells(path) if "import parameters" in cell or ", parameters" in cell)
               for path in INSTALLED]  # fmt: skip
    done = subprocess.run([python, "-c", "\n".join(imports)], **run)
    assert not done.returncode, done.stderr[-3000:]
