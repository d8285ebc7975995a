"""What the result files say, in words: one function per claim; `claims` puts them into its table."""

from __future__ import annotations

from statistics import median

import numpy as np

from .. import tables
from ..ground_truth import distances
from ..tables import RESULTS, read_table
from . import fashion

SETS = ("checkerboard", "eight_gaussians", "two_moons", "pinwheel")


def spread(values: list[float], digits: int = 2) -> str:
    """A mean with its range."""
    mean, low, high = (f"{v:.{digits}f}" for v in (sum(values) / len(values), min(values), max(values)))
    return f"{mean} ({low} to {high})"


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
    return f"ratio of step-to-step spreads, iMF (v-head) / MF, {seeds} seeds: " + ", ".join(
        f"{name} {spread(ratios(name))}" for name in (*SETS, "swiss_roll")
    )


def plane_course() -> str:
    """Whether the loss falls."""
    texts = []
    for name in SETS:
        ends = {v: pick("stability", set=name, variant=v) for v in ("mf", "head")}
        mf, imf = (sum(r["end"] / r["start"] for r in ends[v]) / len(ends[v]) for v in ("mf", "head"))
        texts.append(f"{name} MF {mf:.2f}, iMF (v-head) {imf:.2f}")
    return "last quarter / first 50 updates: " + ", ".join(texts)


def digits_spread() -> str:
    """Stability on the digits."""
    mf, head = pick("digits", variant="mf"), pick("digits", variant="head")
    values = [h["spread"] / m["spread"] for h, m in zip(head, mf, strict=True)]
    return f"digits, ratio of spreads iMF (v-head) / MF, {len(mf)} seeds: {spread(values)}"


def fid(variant: str, nfe: int) -> str:
    """Excess FID on the digits."""
    return excess(pick("digits", variant=variant), f"fid{nfe}")


def better(column: str) -> str:
    """At how many seeds iMF (boundary, v-head) scores below MF on the digits."""
    of = {v: [r[column] for r in pick("digits", variant=v)] for v in ("mf", "boundary", "head")}
    boundary, head = (sum(a < b for a, b in zip(of[v], of["mf"], strict=True)) for v in ("boundary", "head"))
    return f"on the digits better than MF at {boundary} (boundary) and {head} (v-head) of {len(of['mf'])} seeds"


def last(variant: str, column: str) -> str:
    """Distance on the checkerboard at the end of the longer run."""
    rows = pick("quality", variant=variant)
    end = max(r["updates"] for r in rows)
    return spread([r[column] for r in rows if r["updates"] == end], 3)


def knob(name: str, value, variant: str, column: str) -> float:
    """Median of a column of knobs.csv over the seeds."""
    return median(r[column] for r in pick("knobs", knob=name, value=value, variant=variant))


def widths() -> str:
    """Stability under other times and mode widths."""
    values = [
        knob(f"mode width, {times} times", w, "head", "spread") / knob(f"mode width, {times} times", w, "mf", "spread")
        for times in ("logit_normal", "uniform")
        for w in (0.05, 0.1, 0.2)
    ]
    return (
        "eight Gaussians, uniform or logit-normal times, std 0.05 to 0.2: ratio iMF (v-head) / MF "
        f"{min(values):.2f} to {max(values):.2f}"
    )


def spikes() -> str:
    """Spikes of the raw loss over a long run."""
    curves, texts = np.load(RESULTS / "knobs.npz"), []
    for key, name in (
        ("mf-p0", "MF, p 0"),
        ("mf-p1", "MF, p 1"),
        ("head-p0", "v-head, p 0"),
        ("head-p1", "v-head, p 1"),
    ):
        quarters = np.array_split(curves[f"{key}-raw_u_neq"], 4)
        first, last = (1000 * (q > 3 * np.median(q)).mean() for q in (quarters[0], quarters[3]))
        texts.append(f"{name}: {first:.0f} → {last:.0f}")
    return (
        "not settled at this size (one run each). Updates per 1,000 above 3 medians, first → last quarter: "
        + ", ".join(texts)
    )


def chosen(seed: int, **where) -> dict:
    """iMF's guided digits: the scale and interval best on one half of the noise, as measured on the other."""
    best = min(pick("guidance", network="imf", half="choose", seed=seed, **where), key=lambda r: r["fid"])
    return pick("guidance", network="imf", half="report", **{k: best[k] for k in ("seed", "omega", "t_min", "t_max")})[
        0
    ]


def excess(rows: list[dict], column: str = "fid") -> str:
    """Excess of a column, its mean and range: see tables.excess."""
    return spread([tables.excess(r, column) for r in rows])


def every_omega() -> str:
    """One guided network against none and against one MF network a scale."""
    mf = {w: pick("guidance", network=f"mf {w}", half="report") for w in (1.5, 2.0, 4.0)}
    seeds = len(mf[2.0])
    plain = pick("guidance", network="imf", half="report", omega=1, t_max=1)
    return (
        f"digits, excess FID, 1 NFE, {seeds} seeds: one iMF network at ω = 1 {excess(plain)}, at the best ω and "
        f"interval {excess([chosen(s) for s in range(seeds)])}; MF trained for one scale: "
        + ", ".join(f"{w} {excess(rows)}" for w, rows in mf.items())
    )


def interval_helps() -> str:
    """The best scale with and without a choice of interval."""
    seeds = range(len(pick("guidance", network="mf 2.0", half="report")))
    always, free = [chosen(s, t_min=0, t_max=1) for s in seeds], [chosen(s) for s in seeds]
    return (
        f"digits, excess FID at the best ω: guidance at all times {excess(always)}, best interval "
        f"{excess(free)}; recall {spread([r['recall'] for r in always])} and {spread([r['recall'] for r in free])}"
    )


def rows_of(name: str, column: str) -> str:
    """A row of the ablation."""
    return excess(pick("ablation", row=name), column)


def input_omega() -> str:
    """The ablation's steps to ω and interval as inputs."""
    return (
        f"digits, small transformers, excess FID with guidance: fixed {rows_of('head, fixed', 'best1')}, ω an input "
        f"{rows_of('omega', 'best1')}, with interval {rows_of('interval', 'best1')}"
    )


def tokens_or_adaln() -> str:
    """adaLN-zero against tokens, by parameters and FID."""
    a, b = (pick("ablation", row=f"wide {kind}")[0]["parameters"] for kind in ("adaln", "tokens"))
    return (
        f"B/2: 133,455,376 → 88,948,256 (145,596,960 with the v-branch). Digits, width 96, {a:,} → {b:,}, best excess "
        f"FID: adaLN {rows_of('wide adaln', 'best1')}, tokens {rows_of('wide tokens', 'best1')}, adaLN for as long "
        f"{rows_of('wide adaln, longer', 'best1')}"
    )


def token_counts() -> str:
    """FID by the number of condition tokens."""
    rows = {5: "5 tokens", 10: "modern", 20: "20 tokens"}
    parts = [f"{n} tokens {rows_of(row, 'fid1')}, {rows_of(row, 'best1')}" for n, row in rows.items()]
    return "digits, excess FID at ω = 1 and at the best ω: " + "; ".join(parts)


def modern_blocks() -> str:
    """Classic against modern blocks, in context."""
    return f"digits, small transformers, best excess FID: {rows_of('tokens', 'best1')} → {rows_of('modern', 'best1')}"


def fashion_steps() -> str:
    """MF and iMF without guidance in one and two steps."""
    both = {k: [fashion.scores(f"fashion_{k}_plain", nfe) for nfe in (1, 2)] for k in ("mf", "imf")}
    apart = [str(fashion.difference(*pair)) for pair in zip(both["imf"], both["mf"], strict=True)]
    mf, imf = (", ".join(map(fashion.said, both[k])) for k in ("mf", "imf"))
    return f"Fashion-MNIST's latents, excess FID at 1 and 2 NFE: MF {mf}; iMF {imf}; iMF minus MF {'; '.join(apart)}"


def fashion_spread() -> str:
    """Stability on latents."""
    curves = np.load(RESULTS / "fashion.npz")
    imf, mf = (distances.spread(curves[f"raw_fashion_{k}_plain"]) for k in ("imf", "mf"))
    return f"Fashion-MNIST's latents, one training each (p = 1, no guidance): ratio of spreads iMF / MF {imf / mf:.2f}"


def fashion_guided() -> str:
    """The guided network at no guidance, at its best, and MF trained for one scale."""
    chosen, mf = fashion.best_scores("fashion_imf", 1), fashion.scores("fashion_mf", 1)
    always = fashion.scores("fashion_imf", 1, omega=2, t_max=1)
    return (
        "Fashion-MNIST's latents, excess FID, 1 NFE: iMF at ω = 1 "
        f"{fashion.said(fashion.scores('fashion_imf', 1, omega=1, t_max=1))}, at each training's best scale and "
        f"interval {fashion.said(chosen)}, class as asked "
        f"{fashion.said(fashion.best_scores('fashion_imf', 1, 'agreement'))}; MF trained for ω = 2 {fashion.said(mf)}. "
        f"iMF at its best minus MF: {fashion.difference(chosen, mf)}; at ω = 2: {fashion.difference(always, mf)}"
    )


def fashion_many() -> str:
    """One step beside flow matching's many."""
    many, one, two = (fashion.scores(f"fashion_{k}_plain", nfe) for k, nfe in (("fm", 64), ("imf", 1), ("imf", 2)))
    return (
        f"Fashion-MNIST's latents, excess FID: FM at 64 NFE {fashion.said(many)}, iMF without guidance at 1 "
        f"{fashion.said(one)}, at 2 {fashion.said(two)}; minus FM: {fashion.difference(one, many)}; "
        f"{fashion.difference(two, many)}"
    )


def pixels(network: str, nfe: int, column: str = "fid") -> list[float]:
    """A column of the pixel networks' scores, over trainings and seeds of the noise; the FID as its excess."""
    rows = pick("pixels", network=network, nfe=nfe)
    return [tables.excess(r) if column == "fid" else r[column] for r in rows]


def predicted_in_space() -> str:
    """u- against x-prediction where the data fill few of many dimensions."""
    of = {
        (k, dims): spread([r["distance"] for r in pick("pixels-plane", dims=dims, predict=k)])
        for k in ("u", "x") for dims in (2, 128)
    }  # fmt: skip
    return (
        "eight Gaussians in a plane of D dimensions, width 96, sliced Wasserstein distance in the plane at D = 2 and "
        f"128: u {of['u', 2]}, {of['u', 128]}; image {of['x', 2]}, {of['x', 128]}"
    )


def predicted_in_pixels() -> str:
    """u- against x-prediction on Fashion-MNIST's pixels."""
    names = {"u": "fashion_pixels_u", "image": "fashion_pixels"}
    return "Fashion-MNIST's pixels, patches of 64 numbers, width 96, excess FID at 1 NFE: " + "; ".join(
        f"{k} {spread(pixels(name, 1))}, class as asked {spread(pixels(name, 1, 'agreement'))}"
        for k, name in names.items()
    )


def digits_table() -> str:
    """The README's table: FM, MF and iMF on the digits."""
    names = {"fm": "FM along its own `v`", "mf": "MF", "boundary": "iMF, boundary", "head": "iMF, v-head"}
    lines = ["| | excess FID, 1 evaluation | 2 | 4 | 64 | recall, 1 | class as asked, 1 | spread |", "|---" * 8 + "|"]
    for variant, name in names.items():
        rows = pick("digits", variant=variant)
        other = [spread([r[column] for r in rows]) for column in ("recall1", "agreement1", "spread")]
        lines.append(f"| {name} | " + " | ".join([*(fid(variant, k) for k in (1, 2, 4, 64)), *other]) + " |")
    return "\n".join(lines) + "\n"
