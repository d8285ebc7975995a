"""The book's pages, made from the repository (Sphinx itself runs in `make book`)."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "docs"))
import check
import pages


def test_links_lead_into_the_book():
    readme, page = pages.ROOT / "README.md", pages.DOCS / "readme.md"
    text = "[a](CLAIMS.md#b) [c](notebooks/00_quickstart.ipynb) ![d](notebooks/figures/graphs.png) [e](https://f.org)"
    assert pages.relink(text, readme, page) == (
        "[a](claims.md#b) [c](lessons/00_quickstart.ipynb) ![d](lessons/figures/graphs.png) [e](https://f.org)"
    )
    found = pages.relink("[`l`](imf_lite/losses.py) [n](imf_lite/networks) [t](tests) [s](cluster.slurm)", readme, page)
    assert found == (
        "{py:mod}`l <imf_lite.losses>` {py:mod}`n <imf_lite.networks>` `t` {download}`s <../cluster.slurm>`"
    )
    solution = pages.SOLUTIONS[0]
    assert pages.relink(f"[x](../{solution.name})", solution, pages.PAGES[solution]) == f"[x](../{solution.name})"
    with pytest.raises(ValueError, match=r"README.md links to gone.md, which is not there"):
        pages.relink("[x](gone.md)", readme, page)


def test_displayed_formulas_are_paragraphs():
    assert pages.displayed("a $x$\n$$y\n= z$$\nb") == "a $x$\n\n$$y\n= z$$\n\nb"
    assert pages.displayed("a\n$$y$$\nb") == "a\n\n$$y$$\n\nb"


def test_every_notebook_has_a_card():
    cards = [pages.card(path) for path in pages.NOTEBOOKS]
    assert len(cards) >= 11 and all(len(c.question) > 20 and c.time for c in cards)


def test_the_check_finds_what_is_broken(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">x</a><a href="https://elsewhere.org">ok</a>')
    (tmp_path / "b.html").write_text('<p id="here">x</p>')
    assert check.problems(tmp_path) == []
    bad = '<a href="gone.html"></a><a href="b.html#no"></a><script src="https://cdn.org/x.js"></script>'
    (tmp_path / "a.html").write_text(bad)
    assert len(check.problems(tmp_path)) == 3


def test_lessons_come_in_the_order_of_the_readme():
    listed = re.findall(r"^\| \[\w+\]\(notebooks/(\w+)\.ipynb\)", (pages.ROOT / "README.md").read_text(), re.M)
    assert [path.stem for path in pages.NOTEBOOKS] == listed
    assert {path.stem for path in (pages.ROOT / "notebooks").glob("*.ipynb")} == set(listed)


def test_badges_become_words():
    assert (
        pages.without_badge("[![Open in Colab](https://a/b.svg)](https://c/d.ipynb)")
        == "[Open in Colab](https://c/d.ipynb)"
    )


def test_the_modules_of_the_reference_are_there():
    named = re.findall(r"automodule:: (\S+)", "".join(path.read_text() for path in (pages.DOCS / "api").glob("*.md")))
    assert len(named) > 30 and all(importlib.util.find_spec(name) for name in named)
