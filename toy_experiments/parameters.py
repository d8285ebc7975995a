"""Papermill's parameters, checked against the cell of defaults that they replace."""

from __future__ import annotations

import ast


def check(namespace: dict) -> None:
    """Check what papermill injected after the notebook's cell of defaults, and give it the defaults' types.

    Call it as `parameters.check(globals())` right after that cell. Papermill guesses types from text: 2e3 becomes the
    number 2000.0, where the default is the whole number 200, and a folder named 2026 becomes a number. Both are mended.

    Raises ValueError for a parameter that the notebook does not have, or whose value is of another kind.
    """
    cells = namespace["In"]
    injected = next((k for k in range(len(cells) - 1, 0, -1) if cells[k].startswith("# Parameters\n")), None)
    if injected is None:
        return
    defaults, given = assigned(cells[injected - 1]), assigned(cells[injected])
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"there is no parameter {name!r}; this notebook has: {', '.join(defaults)}.")
        namespace[name] = fit(name, value, defaults[name])


def fit(name: str, value: object, default: object) -> object:
    """The value converted to the default's type. Raises ValueError where it cannot be."""
    kind = type(default)
    if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind is str:
            return str(value)
        if kind is float or (kind is int and value == int(value)):
            return kind(value)
    raise ValueError(f"{name} = {value!r}; it must be like its default, {default!r} ({kind.__name__}).")


def assigned(cell: str) -> dict[str, object]:
    """Names and literal values that a cell assigns."""
    found: dict[str, object] = {}
    for node in ast.parse(cell).body:
        if isinstance(node, ast.Assign):
            value = ast.literal_eval(node.value)
            for target in node.targets:
                if isinstance(target, ast.Tuple):
                    found |= {ast.unparse(t): v for t, v in zip(target.elts, value, strict=True)}
                else:
                    found[ast.unparse(target)] = value
    return found
