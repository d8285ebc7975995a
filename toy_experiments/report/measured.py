"""What the result files say, in words: one function per claim; `claims` puts them into its table."""

from __future__ import annotations

from statistics import median

import numpy as np

from .. import tables
from ..tables import RESULTS, pick
from . import fashion
from .apart import difference

PREDICTED = {"u": "fashion_pixels_u", "image": "fashion_pixels"}
SETS = ("checkerboard", "eight_gaussians", "two_moons", "pinwheel")


def spread(values: list[float], digits: int = 2) -> str:
    """A mean with its range."""
    mean, low, high = (f"{v:.{digits}f}" for v in (sum(values) / len(values), min(values), max(values)))
    return f"{mean} ({low} to {high})"


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


def scores(variant: str, nfe: int) -> list[float]:
    """Excess FID on the digits, by training."""
    return of_rows(pick("digits", variant=variant), f"fid{nfe}")


def minus(a: str, b: str, nfe: int, other: int | None = None) -> str:
    """By how much a variant lies above another on the digits, and whether that is settled; other: the second's NFE."""
    return str(difference(scores(a, nfe), scores(b, other or nfe)))


def last(variant: str, column: str) -> str:
    """Distance on the checkerboard at the end of the longer run."""
    rows = pick("quality", variant=variant)
    end = max(r["updates"] for r in rows)
    return spread([r[column] for r in rows if r["updates"] == end], 3)


def one_step() -> str:
    """MF and iMF in one step, on the digits."""
    return (
        f"digits, excess FID: MF {fid('mf', 1)}, iMF boundary {fid('boundary', 1)}, v-head {fid('head', 1)}; "
        f"checkerboard, sliced Wasserstein distance: MF {last('mf', 'sw1')}, boundary {last('boundary', 'sw1')}, "
        f"v-head {last('head', 'sw1')}. Digits, minus MF: boundary {minus('boundary', 'mf', 1)}; v-head "
        f"{minus('head', 'mf', 1)}"
    )


def two_steps() -> str:
    """MF and iMF in two and four steps, on the digits."""
    return (
        f"digits, excess FID at 2 and 4 NFE: MF {fid('mf', 2)}, {fid('mf', 4)}; iMF boundary "
        f"{fid('boundary', 2)}, {fid('boundary', 4)}, v-head {fid('head', 2)}, {fid('head', 4)}. Minus MF: boundary "
        f"{minus('boundary', 'mf', 2)}; {minus('boundary', 'mf', 4)}; v-head {minus('head', 'mf', 2)}; "
        f"{minus('head', 'mf', 4)}"
    )


def more_steps() -> str:
    """Two steps against one, on the digits."""
    return (
        f"digits, excess FID at 1, 2, 4 NFE: iMF (v-head) {fid('head', 1)}, {fid('head', 2)}, {fid('head', 4)}; "
        f"MF {fid('mf', 1)}, {fid('mf', 2)}, {fid('mf', 4)}. Two minus one: iMF {minus('head', 'head', 2, 1)}; MF "
        f"{minus('mf', 'mf', 2, 1)}"
    )


def many_steps() -> str:
    """Few steps beside flow matching's many, on the digits."""
    return (
        f"digits, excess FID: FM at 64 NFE {fid('fm', 64)}, iMF (v-head) at 1 NFE {fid('head', 1)}, "
        f"at 2 {fid('head', 2)}, at 4 {fid('head', 4)}; minus FM: {minus('head', 'fm', 1, 64)}; "
        f"{minus('head', 'fm', 2, 64)}; {minus('head', 'fm', 4, 64)}"
    )


def boundary_or_head() -> str:
    """What serves as v, on the digits."""
    return (
        f"digits, 1-NFE excess FID: boundary {fid('boundary', 1)}, v-head {fid('head', 1)}; boundary minus v-head "
        f"{minus('boundary', 'head', 1)}"
    )


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
    return spread(of_rows(rows, column))


def every_omega() -> str:
    """One guided network against none and against one MF network a scale."""
    mf = {w: pick("guidance", network=f"mf {w}", half="report") for w in (1.5, 2.0, 4.0)}
    best = [chosen(s) for s in range(len(mf[2.0]))]
    plain = pick("guidance", network="imf", half="report", omega=1, t_max=1)
    apart = {w: difference(of_rows(best), of_rows(rows)) for w, rows in mf.items()}
    return (
        f"digits, excess FID, 1 NFE: one iMF network at ω = 1 {excess(plain)}, at the best ω and interval "
        f"{excess(best)}, the latter minus the former {difference(of_rows(best), of_rows(plain))}; MF trained for one "
        "scale: " + ", ".join(f"{w} {excess(rows)}, iMF minus it {apart[w]}" for w, rows in mf.items())
    )


def of_rows(rows: list[dict], column: str = "fid") -> list[float]:
    """Excess of a column, row by row."""
    return [tables.excess(r, column) for r in rows]


def interval_helps() -> str:
    """The best scale with and without a choice of interval."""
    seeds = range(len(pick("guidance", network="mf 2.0", half="report")))
    always, free = [chosen(s, t_min=0, t_max=1) for s in seeds], [chosen(s) for s in seeds]
    return (
        f"digits, excess FID at the best ω: guidance at all times {excess(always)}, best interval {excess(free)}, the "
        f"latter minus the former {difference(of_rows(free), of_rows(always))}; recall "
        f"{spread([r['recall'] for r in always])} and {spread([r['recall'] for r in free])}"
    )


def rows_of(name: str, column: str) -> str:
    """A row of the ablation."""
    return excess(pick("ablation", row=name), column)


def step(before: str, after: str) -> str:
    """A row of the ablation minus another, at the best setting."""
    return str(difference(*(of_rows(pick("ablation", row=name), "best1") for name in (after, before))))


def input_omega() -> str:
    """The ablation's steps to ω and interval as inputs."""
    return (
        f"digits, small transformers, excess FID with guidance: fixed {rows_of('head, fixed', 'best1')}, ω an input "
        f"{rows_of('omega', 'best1')} (minus the former {step('head, fixed', 'omega')}), with interval "
        f"{rows_of('interval', 'best1')} (minus the former {step('omega', 'interval')})"
    )


def tokens_or_adaln() -> str:
    """adaLN-zero against tokens, by parameters and FID."""
    a, b = (pick("ablation", row=f"wide {kind}")[0]["parameters"] for kind in ("adaln", "tokens"))
    return (
        f"B/2: 133,455,376 → 88,948,256 (145,596,960 with the v-branch). Digits, width 96, {a:,} → {b:,}, best excess "
        f"FID: adaLN {rows_of('wide adaln', 'best1')}, tokens {rows_of('wide tokens', 'best1')} (minus adaLN "
        f"{step('wide adaln', 'wide tokens')}), adaLN for as long {rows_of('wide adaln, longer', 'best1')}; classic "
        f"blocks, width 64: adaLN {rows_of('interval', 'best1')}, tokens minus it {step('interval', 'tokens')}"
    )


def token_counts() -> str:
    """FID by the number of condition tokens."""
    rows = {5: "5 tokens", 10: "modern", 20: "20 tokens"}
    parts = [f"{n} tokens {rows_of(row, 'fid1')}, {rows_of(row, 'best1')}" for n, row in rows.items()]
    return "digits, excess FID at ω = 1 and at the best ω: " + "; ".join(parts)


def modern_blocks() -> str:
    """Classic against modern blocks, in context."""
    return (
        f"digits, small transformers, best excess FID: {rows_of('tokens', 'best1')} → "
        f"{rows_of('modern', 'best1')}, {step('tokens', 'modern')}"
    )


def pixels(network: str, nfe: int, column: str = "fid") -> np.ndarray:
    """A column of the pixel networks' scores, trainings by seeds of the noise; the FID as its excess."""
    return fashion.by_training(pick("pixels", network=network, nfe=nfe), column)


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
    of = {k: {nfe: pixels(name, nfe) for nfe in (1, 2, 4)} for k, name in PREDICTED.items()}
    apart = "; ".join(f"{nfe} NFE {difference(of['image'][nfe], of['u'][nfe])}" for nfe in (1, 2, 4))
    return (
        "Fashion-MNIST's pixels, patches of 64 numbers, width 96, excess FID at 1 NFE: "
        + "; ".join(
            f"{k} {fashion.said(of[k][1])}, class as asked {fashion.said(pixels(name, 1, 'agreement'))}"
            for k, name in PREDICTED.items()
        )
        + f"; image minus u: {apart}"
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
