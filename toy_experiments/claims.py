"""CLAIMS.md from the result files: python -m toy_experiments.claims

One row a claim of the two papers (or of what is reported of them), beside what this project measured.
Rows that nobody here has checked say so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import tyro

from imf_lite import checkpoint

from . import behaviour
from .experiment import RESULTS, read_table

OPEN = "not checked here yet"
SETS = ("checkerboard", "eight_gaussians", "two_moons", "pinwheel")
HEAD = """# Claims

Each claim of MeanFlow (MF, arXiv 2505.13447) and improved MeanFlow (iMF, arXiv 2512.02012), and of what is reported of
them: the paper's number (**quoted**), what was measured here, where that is checked, and the command for full scale.
Written by `python -m toy_experiments.claims` from `toy_experiments/results`; a test fails when this file differs from
what that writes. `make claims` runs every experiment behind it again (about three hours on two CPU cores; it can
be interrupted, and goes on where it stopped). *Code*: "same" if losses, draws, guidance and objective are those that
were measured, or give the same first 40 updates of every kind of run (`python -m toy_experiments.behaviour`). "Not
checked here yet" means what it says.

| claim | paper (quoted) | measured here | checked by | code | at full scale |
|---|---|---|---|---|---|
"""


class Claim(NamedTuple):
    """One row. `measured` reads result files; None: not checked yet."""

    claim: str
    quoted: str
    measured: Callable[[], str] | None = None
    checked_by: str = OPEN
    table: str | None = None
    command: str = "–"


def spread(values: list[float]) -> str:
    """A mean with its range."""
    mean = sum(values) / len(values)
    return f"{mean:.2f} ({min(values):.2f} to {max(values):.2f})"


def pick(table: str, **where) -> list[dict]:
    """Rows of a result table with given values."""
    return [r for r in read_table(RESULTS / f"{table}.csv") if all(r[k] == v for k, v in where.items())]


def ratios(name: str) -> list[float]:
    """Spread of iMF's raw loss over MF's, seed by seed."""
    mf, head = pick("stability", set=name, variant="mf"), pick("stability", set=name, variant="head")
    return [h["spread"] / m["spread"] for h, m in zip(head, mf, strict=True)]


def plane_spread() -> str:
    """Stability in the plane."""
    seeds = len(pick("stability", set=SETS[0], variant="mf"))
    return f"ratio of step-to-step spreads, iMF / MF, {seeds} seeds: " + ", ".join(
        f"{name} {spread(ratios(name))}" for name in (*SETS, "swiss_roll")
    )


def plane_course() -> str:
    """Whether the loss falls."""
    texts = []
    for name in SETS:
        ends = {v: pick("stability", set=name, variant=v) for v in ("mf", "head")}
        mf, imf = (sum(r["end"] / r["start"] for r in ends[v]) / len(ends[v]) for v in ("mf", "head"))
        texts.append(f"{name} MF {mf:.2f}, iMF {imf:.2f}")
    return "last quarter / first 50 updates: " + ", ".join(texts)


def digits_spread() -> str:
    """Stability on the digits."""
    mf, head = pick("digits", variant="mf"), pick("digits", variant="head")
    found = [h["spread"] / m["spread"] for h, m in zip(head, mf, strict=True)]
    return f"digits, ratio of spreads iMF / MF, {len(mf)} seeds: {spread(found)}"


def fid(variant: str, nfe: int) -> str:
    """FID on the digits over its floor."""
    return spread([r[f"fid{nfe}"] / r["floor"] for r in pick("digits", variant=variant)])


def better(column: str) -> str:
    """At how many seeds iMF (boundary, v-head) scores below MF on the digits."""
    of = {v: [r[column] for r in pick("digits", variant=v)] for v in ("mf", "boundary", "head")}
    boundary, head = (sum(a < b for a, b in zip(of[v], of["mf"], strict=True)) for v in ("boundary", "head"))
    return f"on the digits better than MF at {boundary} (boundary) and {head} (v-head) of {len(of['mf'])} seeds"


def last(variant: str, column: str) -> str:
    """Distance on the checkerboard over its floor, at the end of the longer run."""
    rows = pick("quality", variant=variant)
    end = max(r["updates"] for r in rows)
    return spread([r[column] / r["floor"] for r in rows if r["updates"] == end])


def knob(name: str, value, variant: str, column: str) -> float:
    """Median of a column of knobs.csv over the seeds."""
    return median(r[column] for r in pick("knobs", knob=name, value=value, variant=variant))


def widths() -> str:
    """Stability under other times and mode widths."""
    found = [
        knob(f"mode width, {times} times", w, "head", "spread") / knob(f"mode width, {times} times", w, "mf", "spread")
        for times in ("logit_normal", "uniform")
        for w in (0.05, 0.1, 0.2)
    ]
    return (
        f"eight Gaussians, uniform or logit-normal times, std 0.05 to 0.2: ratio {min(found):.2f} to {max(found):.2f}"
    )


def spikes() -> str:
    """Spikes of the raw loss over a long run."""
    curves, texts = np.load(RESULTS / "knobs.npz"), []
    for key, name in (("mf-p0", "MF, p 0"), ("mf-p1", "MF, p 1"), ("head-p0", "iMF, p 0"), ("head-p1", "iMF, p 1")):
        quarters = np.array_split(curves[f"{key}-raw_u_neq"], 4)
        first, last = (1000 * (q > 3 * np.median(q)).mean() for q in (quarters[0], quarters[3]))
        texts.append(f"{name}: {first:.0f} → {last:.0f}")
    return "updates per 1,000 above 3 medians, first → last quarter: " + ", ".join(texts)


def chosen(seed: int, **where) -> dict:
    """iMF's guided digits: the scale and interval best on one half of the noise, as measured on the other."""
    best = min(pick("guidance", network="imf", half="choose", seed=seed, **where), key=lambda r: r["fid"])
    return pick("guidance", network="imf", half="report", **{k: best[k] for k in ("seed", "omega", "t_min", "t_max")})[
        0
    ]


def over_floor(rows: list[dict], column: str = "fid") -> str:
    """A column over the floor, mean and range."""
    return spread([r[column] / r["floor"] for r in rows])


def every_omega() -> str:
    """One guided network against none and against one MF network a scale."""
    mf = {w: pick("guidance", network=f"mf {w}", half="report") for w in (1.5, 2.0, 4.0)}
    seeds = len(mf[2.0])
    plain = pick("guidance", network="imf", half="report", omega=1, t_max=1)
    return (
        f"digits, FID / floor, 1 NFE, {seeds} seeds: one iMF network at ω = 1 {over_floor(plain)}, at the best ω and "
        f"interval {over_floor([chosen(s) for s in range(seeds)])}; MF trained for one scale: "
        + ", ".join(f"{w} {over_floor(rows)}" for w, rows in mf.items())
    )


def interval_helps() -> str:
    """The best scale with and without a choice of interval."""
    seeds = range(len(pick("guidance", network="mf 2.0", half="report")))
    always, free = [chosen(s, t_min=0, t_max=1) for s in seeds], [chosen(s) for s in seeds]
    return (
        f"digits, FID / floor at the best ω: guidance at all times {over_floor(always)}, best interval "
        f"{over_floor(free)}; recall {spread([r['recall'] for r in always])} and {spread([r['recall'] for r in free])}"
    )


def rows_of(name: str, column: str) -> str:
    """A row of the ablation."""
    return over_floor(pick("ablation", row=name), column)


def input_omega() -> str:
    """The ablation's steps to ω and interval as inputs."""
    return (
        f"digits, small transformers, FID / floor with guidance: fixed {rows_of('head, fixed', 'best1')}, ω an input "
        f"{rows_of('omega', 'best1')}, with interval {rows_of('interval', 'best1')}"
    )


def tokens_or_adaln() -> str:
    """adaLN-zero against tokens, by parameters and FID."""
    a, b = (pick("ablation", row=f"wide {kind}")[0]["parameters"] for kind in ("adaln", "tokens"))
    return (
        f"B/2: 133,455,376 → 88,948,256 (145,596,960 with the v-branch). Digits, width 96, {a:,} → {b:,}, best FID / "
        f"floor: adaLN {rows_of('wide adaln', 'best1')}, tokens {rows_of('wide tokens', 'best1')}, adaLN for as long "
        f"{rows_of('wide adaln, longer', 'best1')}"
    )


def modern_blocks() -> str:
    """Classic against modern blocks, in context."""
    return f"digits, small transformers, best FID / floor: {rows_of('tokens', 'best1')} → {rows_of('modern', 'best1')}"


N4, N3, N0, N5, N6 = (f"notebook {k}" for k in ("04", "03", "00", "05", "06"))
ABLATION = "notebook ablation"
FULL = "comes with the ImageNet notebook"
CLAIMS = [
    Claim(
        "iMF's loss varies less from step to step than MF's",
        "shown as curves (plain L2, no guidance, r ≠ t)",
        plane_spread,
        f"{N3}; tests/test_claims.py",
        "stability",
    ),
    Claim("... and falls in training, MF's does not", "shown as curves", plane_course, N3, "stability"),
    Claim("... in 64 dimensions, too", "–", digits_spread, f"{N3}, {N0}", "digits"),
    Claim("... whatever the times and the width of the modes", "–", widths, N4, "knobs"),
    Claim("the u-loss spikes more and more in long runs", "reported by users", spikes, N4, "knobs"),
    Claim(
        "with the same tangent the two losses are one loss",
        "follows by algebra",
        lambda: "loss and every gradient equal to rounding",
        "tests/test_losses.py, notebook 02",
    ),
    Claim(
        "one-step FID of iMF is better than MF's",
        '3.43 → 1.72 (XL/2), 6.17 → 3.39 (B/2), "50 % better"',
        lambda: (
            f"digits, FID / floor: MF {fid('mf', 1)}, iMF boundary {fid('boundary', 1)}, v-head {fid('head', 1)}; "
            f"checkerboard, distance / floor: MF {last('mf', 'sw1')}, boundary {last('boundary', 'sw1')}, "
            f"v-head {last('head', 'sw1')}; {better('fid1')}"
        ),
        f"{N0}, {N3}",
        "digits",
        FULL,
    ),
    Claim(
        "two-step FID of iMF is better than MF's",
        "2.93 → 1.54 (XL/2)",
        lambda: (
            f"digits, FID / floor at 2 and 4 NFE: MF {fid('mf', 2)}, {fid('mf', 4)}; iMF boundary "
            f"{fid('boundary', 2)}, {fid('boundary', 4)}, v-head {fid('head', 2)}, {fid('head', 4)}; {better('fid2')}"
        ),
        "tests/test_claims.py",
        "digits",
        FULL,
    ),
    Claim(
        "two steps are better than one",
        "1.72 → 1.54 (iMF XL/2)",
        lambda: (
            f"digits, FID / floor at 1, 2, 4 NFE: iMF {fid('head', 1)}, {fid('head', 2)}, {fid('head', 4)}; "
            f"MF {fid('mf', 1)}, {fid('mf', 2)}, {fid('mf', 4)}"
        ),
        f"{N0}; tests/test_claims.py",
        "digits",
        FULL,
    ),
    Claim(
        "one step is comparable to many steps of flow matching",
        "1.72 (1 NFE) beside multi-step models",
        lambda: (
            f"digits, FID / floor: FM at 64 NFE {fid('fm', 64)}, iMF at 1 NFE {fid('head', 1)}, at 2 {fid('head', 2)}"
        ),
        N0,
        "digits",
        FULL,
    ),
    Claim(
        "the boundary u(z, t, t) serves as v as well as a v-head",
        "29.42 and 30.76 without guidance, 5.97 and 5.68 with (B/2)",
        lambda: f"digits, 1-NFE FID / floor: boundary {fid('boundary', 1)}, v-head {fid('head', 1)}",
        N3,
        "digits",
        FULL,
    ),
    Claim("better than distilled one-step models", "as reported in the paper's comparison"),
    Claim("one network serves every guidance scale ω", "5.68 → 5.52 (B/2, + ω)", every_omega, N5, "guidance", FULL),
    Claim(
        "the guidance interval as an input helps further",
        "5.52 → 4.57 (B/2, + Ω)",
        interval_helps,
        N5,
        "guidance",
        FULL,
    ),
    Claim("... both in the ablation", "5.68 → 5.52 → 4.57 (B/2)", input_omega, ABLATION, "ablation", FULL),
    Claim(
        "in-context conditioning: a third fewer parameters, better FID",
        "133M → 89M; 4.57 → 4.09",
        tokens_or_adaln,
        f"{N6}; tests/test_networks.py",
        "ablation",
        FULL,
    ),
    Claim("SwiGLU, RMSNorm, RoPE: better FID", "4.09 → 3.82 (B/2)", modern_blocks, ABLATION, "ablation", FULL),
    Claim("1-NFE FID 1.72, 2-NFE 1.54 at ImageNet-256", "1.72, 1.54 (XL/2, 640 epochs)", command=FULL),
]


def row(claim: Claim) -> str:
    """A claim as a line of the table."""
    measured = claim.measured() if claim.measured else OPEN
    code = "–"
    if claim.table:
        used = {r["code"] for r in read_table(RESULTS / f"{claim.table}.csv")}
        code = "same" if behaviour.stands(used) else "changed"
    cells = (claim.claim, claim.quoted, measured, claim.checked_by if claim.measured else "–", code, claim.command)
    return "| " + " | ".join(cells) + " |\n"


def text() -> str:
    """CLAIMS.md."""
    return HEAD + "".join(map(row, CLAIMS))


def digits_table() -> str:
    """The README's table: FM, MF and iMF on the digits."""
    names = {"fm": "FM along its own `v`", "mf": "MF", "boundary": "iMF, boundary", "head": "iMF, v-head"}
    lines = ["| | FID / floor, 1 evaluation | 2 | 4 | 64 | recall, 1 | class as asked, 1 | spread |", "|---" * 8 + "|"]
    for variant, name in names.items():
        rows = pick("digits", variant=variant)
        other = [spread([r[column] for r in rows]) for column in ("recall1", "agreement1", "spread")]
        lines.append(f"| {name} | " + " | ".join([*(fid(variant, k) for k in (1, 2, 4, 64)), *other]) + " |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """The README with the table between its two marks written anew."""
    start, end = "<!-- digits table: python -m toy_experiments.claims -->\n", "<!-- end -->"
    before, rest = readme.split(start)
    return before + start + digits_table() + end + rest.split(end, 1)[1]


def main(out: Path = Path("CLAIMS.md"), readme: Path = Path("README.md")) -> None:
    """Write CLAIMS.md, and the README's table.

    Args:
        out: the file of claims.
        readme: the file with the marks of the table.
    """
    checkpoint.write_text(out, text())
    checkpoint.write_text(readme, with_table(readme.read_text()))


if __name__ == "__main__":
    tyro.cli(main)
