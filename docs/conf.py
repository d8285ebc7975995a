"""The book, by Sphinx: `make book`."""

import inspect
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import pages  # noqa: E402

pages.write()

project, author, release = "imf_lite", "the authors of imf_lite", "0.1.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_design"]
exclude_patterns = ["_build", "node_modules", "live"]
nb_execution_mode = "off"  # the notebooks as they are committed
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "ignore-module-all": True, "undoc-members": False, "show-inheritance": True}
napoleon_use_rtype = False
add_module_names = False
viewcode_follow_imported_members = False

suppress_warnings = ["design.card_legacy"]  # its successor is not in all versions

html_theme = "sphinx_book_theme"
html_title = "imf_lite"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": True,
    "navbar_persistent": [],
}
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_copy_source = True
html_show_sphinx = False
mathjax_path = "mathjax/tex-chtml.js"  # vendored by assets.py


kept: list[str] = []  # of an attribute, from before napoleon


def keep(app, what, name, obj, options, lines: list[str]) -> None:
    """napoleon would read "a: b" of an attribute as a type and a text."""
    kept[:] = lines


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn docstrings, written to be read in the source, into reStructuredText: mark `code`, escape other signs."""
    if what in ("attribute", "data"):
        lines[:] = kept
    if what == "module":
        lines[:] = literal(lines)
    inside = False
    for k, line in enumerate(lines):
        inside = line.endswith("::") or (inside and (not line or line.startswith(" ")))
        if inside or line.lstrip().startswith(("..", ">>>")):
            continue
        parts = re.split(r"(``[^`]*``|`[^`]*`|^\s*:[^:]+:)", line)  # code, or the name of a field
        for i, part in enumerate(parts):
            if part.startswith("`"):
                parts[i] = f"``{part.strip('`')}``"
            elif i % 2 == 0:
                parts[i] = re.sub(r"((?<!\w)\*\w[\w ]*\*(?!\w))|([*|]|(?<=\w)_(?!\w))", escaped, part)
        lines[k] = "".join(parts)


def escaped(match: re.Match) -> str:
    """Keep emphasis; escape every other special character."""
    return match[1] or f"\\{match[2]}"


def literal(lines: list[str]) -> list[str]:
    """Mark indented tables and examples as literal blocks."""
    made = []
    for k, line in enumerate(lines):
        if line.startswith("    ") and k > 1 and not lines[k - 1] and lines[k - 2] and lines[k - 2][0] != " ":
            made += ["::", ""]
        made.append(line)
    return made


def short(app, what, name, obj, options, signature: str | None, returns: str | None):
    """Shorten a very long signature (the command line's holds every recipe) to its parameters' names."""
    if signature and len(signature) > 2000:
        return f"({', '.join(inspect.signature(obj).parameters)})", returns
    return None


def skip(app, what, name, obj, skipped: bool, options) -> bool | None:
    """Skip the fields of a NamedTuple, which its docstring describes."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def relink(app, name: str, source: list[str]) -> None:
    """Rewrite links of hand-written pages to the repository's files, as is done for README."""
    path = DOCS / f"{name}.md"
    if path in pages.OWN:
        source[0] = pages.relink(source[0], path, path)


def copy_live(app, exception) -> None:
    """Copy the live page into the built book."""
    if exception is None and app.builder.name == "html":
        shutil.copytree(DOCS / "live", Path(app.outdir) / "live", dirs_exist_ok=True)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", keep, priority=100)
    app.connect("autodoc-process-signature", short)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", as_rst, priority=900)  # after napoleon
    app.connect("source-read", relink)
    app.connect("build-finished", copy_live)
