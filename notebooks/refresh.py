"""Execute notebooks in place, as they are committed: python notebooks/refresh.py 00_quickstart solutions/00_quickstart

Takes progress bars and execution times out of the outputs, and pins the picture of the cell tagged
`figure` to the top of the notebook (and to notebooks/figures, for the README).
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
LESSONS, SOLUTIONS = (sorted(p.stem for p in folder.glob("*.ipynb")) for folder in (HERE, HERE / "solutions"))


def refresh(name: str) -> None:
    """Execute one notebook and write it back. Raises CellExecutionError, and writes nothing, if a cell fails."""
    path = HERE / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(HERE.parent)}}).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not progress(o)]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
        if "figure" in cell.metadata.get("tags", []):
            picture = next(o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
            notebook.cells[0].attachments = {"figure.png": {"image/png": picture}}
            (HERE / "figures").mkdir(exist_ok=True)
            (HERE / "figures" / f"{name}.png").write_bytes(base64.b64decode(picture))
    nbformat.write(notebook, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


def smaller(png: str) -> str:
    """A base64 PNG with a palette of 32 colours: a third of the size, and no visible difference in plots."""
    out = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(32).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def progress(output) -> bool:
    """Whether an output is a progress bar."""
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


if __name__ == "__main__":
    for notebook_name in sys.argv[1:] or [*LESSONS, *(f"solutions/{name}" for name in SOLUTIONS)]:
        refresh(notebook_name)
