"""Draws the architecture from the imports: docs/architecture.svg, and the tree in docs/architecture.md.

    python docs/architecture.py

A test fails when either differs from what this writes.
"""

from __future__ import annotations

import ast
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
METHOD = ("draws", "conditions", "objective", "guidance", "losses", "relatives", "forward_mode", "sampling")
START, END = "<!-- drawn by docs/architecture.py -->\n", "<!-- end -->\n"
WIDTH, HEIGHT, GAP, MARGIN = 150, 46, 34, 14
INK, METHOD_FILL, FILL = "#444444", "#D6E6F2", "#F4F4F4"


def imports(path: Path) -> set[str]:
    """Modules of the project that a file imports when it runs, as dotted names; not those for type hints alone."""
    package = path.relative_to(ROOT).parent.parts
    tree, names = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] in ("imf_lite", "toy_experiments", "benchmarks")}


def room(name: str) -> str | None:
    """The folder that a dotted name lies in, "method" for a file of the method; None for a package itself."""
    parts = name.split(".")
    if len(parts) < 2 or parts[1] == "__init__":
        return None
    return "method" if parts[0] == "imf_lite" and parts[1] in METHOD else parts[1]


def box(name: str) -> str | None:
    """As `room`, but the packages beside imf_lite are one box each."""
    return room(name) if name.split(".")[0] == "imf_lite" else name.split(".")[0]


def arrows() -> dict[str, set[str]]:
    """By folder, the folders that it imports."""
    graph: dict[str, set[str]] = {}
    for package in ("imf_lite", "toy_experiments", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            home = box(".".join(path.relative_to(ROOT).with_suffix("").parts))
            if home:
                graph.setdefault(home, set()).update(filter(None, map(box, imports(path))))
    folders = set(graph)
    return {home: (targets & folders) - {home} for home, targets in graph.items()}


def floors(graph: dict[str, set[str]]) -> list[list[str]]:
    """Folders in levels: each stands above all that it imports. Raises ValueError for a circular import."""
    placed: dict[str, int] = {}
    while len(placed) < len(graph):
        ready = [home for home, targets in graph.items() if home not in placed and targets <= placed.keys()]
        if not ready:
            raise ValueError(f"folders import each other in a circle: {sorted(graph.keys() - placed.keys())}.")
        placed |= {home: 1 + max((placed[t] for t in graph[home]), default=-1) for home in ready}
    return [sorted(h for h, floor in placed.items() if floor == k) for k in range(max(placed.values()) + 1)]


def reduced(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no chain of others implies."""

    def reach(home: str) -> set[str]:
        return graph[home].union(*(reach(t) for t in graph[home]))

    return [
        (home, target)
        for home in sorted(graph)
        for target in sorted(graph[home])
        if not any(target in reach(other) for other in graph[home] - {target})
    ]


def svg() -> str:
    """The folders as boxes, what is imported below what imports it."""
    graph = arrows()
    levels = floors(graph)
    wide = max(map(len, levels)) * (WIDTH + GAP) - GAP + 2 * MARGIN
    tall = len(levels) * (HEIGHT + GAP) - GAP + 2 * MARGIN
    at = {}
    for k, level in enumerate(levels):
        left = (wide - len(level) * (WIDTH + GAP) + GAP) / 2
        for i, home in enumerate(level):
            at[home] = left + i * (WIDTH + GAP), tall - MARGIN - HEIGHT - k * (HEIGHT + GAP)
    style = f'font-family="sans-serif" font-size="13" fill="{INK}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" {style}>']
    lines += [
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>',
        f'<rect width="{wide}" height="{tall}" fill="white"/>',
    ]
    for home, target in reduced(graph):
        (x0, y0), (x1, y1) = at[home], at[target]
        lines.append(
            f'<path d="M{x0 + WIDTH / 2:g} {y0 + HEIGHT:g}L{x1 + WIDTH / 2:g} {y1:g}" stroke="{INK}" '
            'stroke-width="1" marker-end="url(#tip)"/>'
        )
    for home, (x, y) in sorted(at.items()):
        fill = METHOD_FILL if home == "method" else FILL
        lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="{INK}"/>'
        )
        text = "the method: 7 files" if home == "method" else home + ("" if home == "configs" else "/")
        lines.append(f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 5:g}" text-anchor="middle">{text}</text>')
    return "\n".join([*lines, "</svg>", ""])


def tree() -> str:
    """Every folder and file with the first sentence of its docstring."""
    lines = ["![Folders and their imports](architecture.svg)", "", "## The tree", ""]
    for package in ("imf_lite", "toy_experiments", "benchmarks"):
        folders = [ROOT / package, *sorted(p.parent for p in (ROOT / package).glob("*/**/__init__.py"))]
        for folder in folders:
            name = folder.relative_to(ROOT).as_posix()
            lines += [f"### {name}/", "", summary(folder / "__init__.py"), "", "| | |", "|---|---|"]
            files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
            lines += [f"| [{path.name}](../{name}/{path.name}) | {summary(path)} |" for path in files]
            lines.append("")
    return "\n".join(lines)


def summary(path: Path) -> str:
    """The first paragraph of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return first.replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """docs/architecture.md with the part between the marks written anew."""
    before, rest = (DOCS / "architecture.md").read_text().split(START)
    return before + START + tree() + "\n" + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    (DOCS / "architecture.md").write_text(page())
    (DOCS / "architecture.svg").write_text(svg())
