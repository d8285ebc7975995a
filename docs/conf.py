"""The book, by Sphinx: `make book`."""

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
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
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


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are written to be read in the source: `code` in single backticks, and signs that mean themselves."""
    for k, line in enumerate(lines):
        if line.lstrip().startswith(".."):
            continue
        parts = re.split(r"(``[^`]*``|`[^`]*`|^\s*:[^:]+:)", line)  # code, or the name of a field
        for i, part in enumerate(parts):
            if part.startswith("`"):
                parts[i] = f"``{part.strip('`')}``"
            elif i % 2 == 0:
                parts[i] = re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part)
        lines[k] = "".join(parts)


def copy_live(app, exception) -> None:
    """The live page, beside the book and on its own."""
    if exception is None and app.builder.name == "html":
        shutil.copytree(DOCS / "live", Path(app.outdir) / "live", dirs_exist_ok=True)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_rst, priority=900)  # after napoleon
    app.connect("build-finished", copy_live)
