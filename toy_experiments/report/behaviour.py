"""A regression check: does changed code reproduce the first updates of every kind of run?

    python -m toy_experiments.report.behaviour

writes results/behaviour.json: by fingerprint of the code, the raw losses of those updates. A result
file made by older code remains valid as long as both fingerprints have the same losses.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tyro

from imf_lite import recipes, training
from imf_lite.recipes import digits, fashion
from imf_lite.system import files

from ..experiments import ablation
from ..experiments.runs import plane
from ..ground_truth.datasets import load
from ..tables import RESULTS

UPDATES = 20  # by 40, rounding alone has grown to 1e-2 on the digits
TOLERANCE = 1e-3  # relative: another machine, another order of sums
PATH = RESULTS / "behaviour.json"
ON_DIGITS = {"data": "digits", "lr": 2e-3, "net": {"width": 48, "depth": 3, "v_depth": 1, "patch": 2, "bottleneck": 3}}
RUNS = {
    "plane-mf": lambda: plane("mf"),
    "plane-boundary": lambda: plane("boundary"),
    "plane-head": lambda: plane("head"),
    "plane-head-p1": lambda: plane("head", p=1.0),
    "digits-fm": digits.digits_fm,
    "digits-mf": digits.digits_mf,
    "digits-boundary": digits.digits_imf_boundary,
    "digits-head": digits.digits_imf,
    "digits-guided": digits.digits_guided,
    "ablation-mf": lambda: ablation.recipe("mf, fixed"),
    "ablation-imf": lambda: ablation.recipe("modern"),
    "pixels": lambda: recipes.override(fashion.fashion_pixels_guided(), ON_DIGITS),
}


def first_updates(name: str) -> list[float]:
    """Raw u-losses of the first updates of a run, on the rows that its experiment reports."""
    recipe = recipes.override(RUNS[name](), {"steps": UPDATES, "decay": "constant", "log_every": 1})
    data = load("eight_gaussians", 4096) if name.startswith("plane") else None
    with tempfile.TemporaryDirectory() as out:
        records = list(training.train(recipe, out, data, "cpu"))
    return [r.raw_u_eq if r.raw_u_neq is None else r.raw_u_neq for r in records]


def stored() -> dict[str, dict[str, list[float]]]:
    """By fingerprint, by run: what was recorded."""
    return json.loads(PATH.read_text())


def same(a: dict[str, list[float]], b: dict[str, list[float]]) -> bool:
    """Whether two records agree on the runs that both hold. False if there is none."""
    common = a.keys() & b.keys()
    return bool(common) and all(np.allclose(a[k][:UPDATES], b[k][:UPDATES], rtol=TOLERANCE) for k in common)


def stands(codes: Iterable[str]) -> bool:
    """Whether results of these fingerprints are still what the code computes, going by the stored records."""
    now, known = training.fingerprint(), stored()
    return all(code == now or (code in known and now in known and same(known[code], known[now])) for code in codes)


def main(out: Path = PATH) -> None:
    """Record the present code's first updates beside those of earlier code.

    Args:
        out: the file.
    """
    known = json.loads(out.read_text()) if out.exists() else {}
    known[training.fingerprint()] = {name: [float(f"{v:.6g}") for v in first_updates(name)] for name in RUNS}
    files.write_text(out, json.dumps(known, indent=1))
    print(out)


if __name__ == "__main__":
    tyro.cli(main)
