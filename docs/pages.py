"""Makes the book's pages from what is in the repository: README, CLAIMS.md and the notebooks as they are committed.

Links between files become links between pages; links to other files of the repository become downloads.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LESSONS = DOCS / "lessons"
ORDER = ("one_page", "0*", "imagenet_run", "step_cost", "ablation", "family", "compare")
"""of the lessons, as the README lists them"""
NOTEBOOKS = [path for pattern in ORDER for path in sorted((ROOT / "notebooks").glob(f"{pattern}.ipynb"))]
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
PAGES = {ROOT / name: DOCS / f"{name.lower()}" for name in ("README.md", "CLAIMS.md", "CONTRIBUTING.md")}
PAGES |= {path: LESSONS / path.name for path in NOTEBOOKS}
PAGES |= {path: LESSONS / "solutions" / path.name for path in SOLUTIONS}
OWN = {path: path for path in DOCS.glob("*.md") if path not in PAGES.values()}
"""pages that are written by hand"""


class Card(NamedTuple):
    """What the index says of a notebook."""

    name: str
    title: str
    question: str
    time: str


def write() -> None:
    """Write all pages; delete the lessons of an earlier build first."""
    shutil.rmtree(LESSONS, ignore_errors=True)
    shutil.copytree(ROOT / "notebooks" / "figures", LESSONS / "figures")
    for source, page in PAGES.items():
        page.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".ipynb":
            page.write_text(json.dumps(notebook(source, page)))
        else:
            page.write_text(relink(linked(source.read_text()), source, page))
    (LESSONS / "index.md").write_text(index())


def notebook(source: Path, page: Path) -> dict:
    """A notebook whose attached picture is a file, and whose links lead into the book."""
    book = json.loads(source.read_text())
    for cell in book["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for name, content in cell.pop("attachments", {}).items():
            picture = LESSONS / "figures" / f"{source.stem}-{name}"
            picture.write_bytes(base64.b64decode(content["image/png"]))
            cell["source"] = "".join(cell["source"]).replace(f"attachment:{name}", f"figures/{picture.name}")
        cell["source"] = relink(without_badge(displayed("".join(cell["source"]))), source, page)
    return book


def without_badge(text: str) -> str:
    """The badge "Open in Colab" as a link of words: the book loads nothing from elsewhere."""
    return re.sub(r"\[!\[(.*?)\]\(.*?\)\]", r"[\1]", text)


def linked(text: str) -> str:
    """README under a title of its own, and in CLAIMS.md "notebook 03" as a link."""
    text = text.replace("# imf_lite\n", "# README: run it\n", 1)
    by_number = {path.stem[:2] if path.stem[:2].isdigit() else path.stem: path.name for path in NOTEBOOKS}
    return re.sub(
        r"(?<!`)notebook (\d\d|ablation|imagenet_run)\b", lambda m: f"[{m[0]}](notebooks/{by_number[m[1]]})", text
    )


def displayed(text: str) -> str:
    """Set formulas between double dollars as paragraphs of their own, as MyST requires and Jupyter does not."""
    lines, inside = [], False
    for line in text.split("\n"):
        marks = line.count("$$")
        if marks and not inside:
            lines.append("")
        lines.append(line)
        inside ^= marks % 2 == 1
        if marks and not inside:
            lines.append("")
    return "\n".join(lines)


def relink(text: str, source: Path, page: Path) -> str:
    """Markdown of `source` with its relative links as those of `page`. Raises ValueError for a link to nothing."""

    def one(match: re.Match) -> str:
        bang, words, target, anchor = match.groups()
        here = (source.parent / target).resolve()
        if not here.exists():
            if (page.parent / target).exists():
                return match.group()  # a picture that was just written
            raise ValueError(f"{source.relative_to(ROOT)} links to {target}, which is not there.")
        if here in PAGES | OWN:
            return f"[{words}]({os.path.relpath((PAGES | OWN)[here], page.parent)}{anchor or ''})"
        if here.parent == ROOT / "notebooks" / "figures":
            return f"{bang}[{words}]({os.path.relpath(LESSONS / 'figures' / here.name, page.parent)})"
        if bang:
            return f"![{words}]({os.path.relpath(here, page.parent)})"
        words = words.replace("`", "")
        if (module := module_of(here)) is not None:
            return f"{{py:mod}}`{words} <{module}>`"
        if here.is_file():
            return f"{{download}}`{words} <{os.path.relpath(here, page.parent)}>`"
        return f"`{words}`"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#|attachment:)([^)#]+)(#[^)]*)?\)", one, text)


def module_of(path: Path) -> str | None:
    """The documented module of a file or folder; None for all else."""
    if ROOT / "imf_lite" not in (path, *path.parents) or not (path.suffix == ".py" or (path / "__init__.py").exists()):
        return None
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def card(path: Path) -> Card:
    """Title, question and run time of a notebook, from its first cell. Raises ValueError where one is missing."""
    first = "".join(json.loads(path.read_text())["cells"][0]["source"])
    parts = [re.search(p, first, re.M) for p in (r"^# (.*)", r"\*\*The question\.\*\* (.*)", r"Time: ([^.(]*)")]
    if not all(parts):
        raise ValueError(f"{path.name}: its first cell needs a title, '**The question.** ...' and 'Time: ...'.")
    return Card(path.stem, *(p.group(1).strip() for p in parts))


def number(path: Path) -> str:
    """A lesson's number as a prefix of its title, e.g. "3. "; empty for a notebook without one."""
    return f"{int(path.stem[:2])}. " if path.stem[:2].isdigit() else ""


def index() -> str:
    """The lessons as cards with picture, question and run time."""
    lines = [
        "# Lessons",
        "",
        "Read them in order; lesson 0 is the whole story in five minutes. You need PyTorch and the idea of a ",
    ]
    lines[-1] += "derivative along a direction; you need not know diffusion models."
    lines += ["", "::::{grid} 1 1 2 2", ":gutter: 3", ""]
    for path in NOTEBOOKS:
        c = card(path)
        lines += [f":::{{grid-item-card}} {number(path)}{c.title}", f":link: {c.name}", ":link-type: doc"]
        lines += [f":img-top: figures/{c.name}.png", "", c.question, "+++", f"Time: {c.time}", ":::", ""]
    entries = [f"{number(path)}{card(path).title} <{path.stem}>" for path in NOTEBOOKS]
    lines += ["::::", "", "```{toctree}", ":hidden:", "", *entries, "solutions/index", "```"]
    solutions = [
        "# Solutions",
        "",
        "The exercises at the ends of the lessons, solved; try them first, as each lesson checks your answers. Every ",
    ]
    solutions[-1] += "run of the tests executes these pages, assertions included."
    solutions += ["", "```{toctree}"]
    solutions += [f"{number(p)}{card(ROOT / 'notebooks' / p.name).title} <{p.stem}>" for p in SOLUTIONS]
    (LESSONS / "solutions" / "index.md").write_text("\n".join([*solutions, "```", ""]))
    return "\n".join([*lines, ""])
