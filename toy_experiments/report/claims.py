"""CLAIMS.md from the result files: python -m toy_experiments.report.claims

One row per claim of the papers (or reported of them), beside what was measured here or "not checked here yet".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tyro

from imf_lite import recipes
from imf_lite.system import files

from ..tables import RESULTS, read_table
from . import behaviour, fashion, measured

OPEN = "not checked here yet"
HEAD = """# Claims

Each claim of MeanFlow (MF, arXiv 2505.13447) and improved MeanFlow (iMF, arXiv 2512.02012), and of what is reported of
them: the paper's number (**quoted**), what was measured here, where that is checked, and the command for full scale.
`python -m toy_experiments.report.claims` writes this file from `toy_experiments/results`; a test fails when they
differ. `make claims` repeats every experiment behind it (three to four hours on two CPU cores), `make fashion` those on
Fashion-MNIST (about four hours), `make pixels` those on pixels (an hour and a half); all resume after an interruption.

*Code* is "same" if the method, the networks and their configurations are those that were measured, or give the same
first 20 updates of every kind of run (`python -m toy_experiments.report.behaviour`); the noise of the samples may have
changed since. *Trainings* is the number of training runs behind each number, *n* the number of samples of each. A range
is over training runs; on Fashion-MNIST each network is sampled with three noises besides, and "noise" is the range over
these, averaged over the trainings. iMF has a v-head where the boundary is not named.

One training ranks nothing, and three agree on a sign by chance once in four times. Two networks are *told apart* if the
95 % interval (Student's t) of their mean difference, paired by seed, does not contain zero; otherwise the row says how
large the mean would have to be. A row holds several such tests, so that one in twenty may pass by chance.

*Stored* numbers are those of this table; *live* means that the named notebook or test trains or measures anew, with
fewer updates or samples, and asserts what comes out.
*At full scale*: `papermill notebooks/imagenet_run.ipynb OUT.ipynb -p images IMAGENET -p vae sd-vae -p out OUT`, and
the recipe that is named.

| claim | paper (quoted) | measured here | trainings | n | checked by | code | at full scale |
|---|---|---|---|---|---|---|---|
"""


class Claim(NamedTuple):
    """One row. `measured` reads result files; None: not checked yet. `n`: samples measured of each network."""

    claim: str
    quoted: str
    measured: Callable[[], str] | None = None
    checked_by: str = OPEN
    table: str | None = None
    command: str = "–"
    n: str = "–"
    trainings: str = ""  # where the rows of the table do not tell
    networks: tuple[str, ...] = ()  # of Fashion-MNIST, whose rows' seeds are of the noise


N4, N3, N0, N5, N6, N7, N9 = (f"notebook {k}" for k in ("04", "03", "00", "05", "06", "07", "09"))
ABLATION = "stored: notebook ablation"
TESTS = "tests/test_claims.py"
PLAIN = ("fashion_imf_plain", "fashion_mf_plain")


def full(*names: str) -> str:
    """How a claim is tried at full scale."""
    for name in names:
        recipes.get(f"imagenet_{name}")
    return "notebook imagenet_run, `-p recipe " + "`, `".join(names) + "`"


CLAIMS = [
    Claim(
        "iMF's loss varies less from step to step than MF's",
        "shown as curves (plain L2, no guidance, r ≠ t)",
        measured.plane_spread,
        f"stored: {N3}, {TESTS}; live: {N3} (eight Gaussians), {TESTS} (gradients)",
        "stability",
    ),
    Claim(
        "... and falls in training, MF's does not",
        "shown as curves",
        measured.plane_course,
        f"stored and live: {N3}",
        "stability",
    ),
    Claim("... in 64 dimensions, too", "–", measured.digits_spread, f"stored: {N3}, {TESTS}; live: {N0}", "digits"),
    Claim("... and on the latents of real images", "–", fashion.stability, f"stored: {N7}", "fashion", trainings="1"),
    Claim("... whatever the times and the width of the modes", "–", measured.widths, f"stored: {N4}", "knobs"),
    Claim(
        "the u-loss spikes more and more in long runs",
        "reported by users",
        measured.spikes,
        f"stored: {N4}",
        "knobs",
        trainings="1",
    ),
    Claim(
        "with the same tangent the two losses are one loss",
        "follows by algebra",
        lambda: "loss and every gradient equal to rounding",
        "live: tests/test_losses.py, notebook 02",
    ),
    Claim(
        "one-step FID of iMF is better than MF's",
        '3.43 → 1.72 (XL/2), 6.17 → 3.39 (B/2), "50 % better"',
        measured.one_step,
        f"stored: {N0}, {N3}; live: {N0} (one seed)",
        "digits",
        full("mf_xl2", "imf_xl2"),
        "1,000; 8,000",
    ),
    Claim(
        "two-step FID of iMF is better than MF's",
        "2.93 → 1.54 (XL/2)",
        measured.two_steps,
        f"stored: {TESTS}, {N3}",
        "digits",
        full("mf_xl2", "imf_xl2"),
        "1,000",
    ),
    Claim(
        "... one and two steps, on Fashion-MNIST",
        "–",
        fashion.steps,
        f"stored: {N7}",
        "fashion",
        n="2,000",
        networks=PLAIN,
    ),
    Claim(
        "two steps are better than one",
        "1.72 → 1.54 (iMF XL/2)",
        measured.more_steps,
        f"stored: {N0}, {TESTS}; live: {N0} (one seed)",
        "digits",
        full("imf_xl2"),
        "1,000",
    ),
    Claim(
        "one step is comparable to many steps of flow matching",
        "1.72 (1 NFE) beside multi-step models",
        measured.many_steps,
        f"stored: {N0}; live: {N0} (one seed)",
        "digits",
        full("imf_xl2"),
        "1,000",
    ),
    Claim(
        "... on Fashion-MNIST",
        "–",
        fashion.many_steps,
        f"stored: {N7}",
        "fashion",
        n="2,000",
        networks=(*PLAIN, "fashion_fm_plain"),
    ),
    Claim(
        "the boundary u(z, t, t) serves as v as well as a v-head",
        "29.42 and 30.76 without guidance, 5.97 and 5.68 with (B/2)",
        measured.boundary_or_head,
        f"stored: {N3}",
        "digits",
        full("ablation_boundary", "ablation_head"),
        "1,000",
    ),
    Claim("better than distilled one-step models", "as reported in the paper's comparison"),
    Claim(
        "one network serves every guidance scale ω",
        "5.68 → 5.52 (B/2, + ω)",
        measured.every_omega,
        f"stored: {N5}, {TESTS}; live: {TESTS} (in the plane)",
        "guidance",
        full("ablation_head", "ablation_omega"),
        "1,000",
    ),
    Claim(
        "... on Fashion-MNIST",
        "–",
        fashion.guided,
        f"stored: {N7}; live: {N7} (the network that ships)",
        "fashion",
        n="2,000",
        networks=("fashion_imf", "fashion_mf"),
    ),
    Claim(
        "the guidance interval as an input helps further",
        "5.52 → 4.57 (B/2, + Ω)",
        measured.interval_helps,
        f"stored: {N5}",
        "guidance",
        full("ablation_omega", "ablation_interval"),
        "1,000",
    ),
    Claim(
        "... both in the ablation",
        "5.68 → 5.52 → 4.57 (B/2)",
        measured.input_omega,
        ABLATION,
        "ablation",
        full("ablation_head", "ablation_omega", "ablation_interval"),
        "1,000",
    ),
    Claim(
        "in-context conditioning: a third fewer parameters, better FID",
        "133M → 89M; 4.57 → 4.09",
        measured.tokens_or_adaln,
        f"stored: {N6}; live: {N6}, tests/test_networks.py (parameters)",
        "ablation",
        full("ablation_interval", "ablation_tokens"),
        "1,000",
    ),
    Claim(
        "... with several tokens a condition",
        "20 in all (not ablated)",
        measured.token_counts,
        f"stored: {N6}",
        "ablation",
        full("ablation_tokens"),
        "1,000",
    ),
    Claim(
        "SwiGLU, RMSNorm, RoPE: better FID",
        "4.09 → 3.82 (B/2)",
        measured.modern_blocks,
        ABLATION,
        "ablation",
        full("ablation_tokens", "ablation_modern"),
        "1,000",
    ),
    Claim(
        "predicting the image works where predicting u breaks down (pMF)",
        "said of patches of 768 numbers at width 768",
        measured.predicted_in_space,
        f"stored: {N9}",
        "pixels-plane",
        full("pmf_b16"),
        "8,000",
    ),
    Claim(
        "... on Fashion-MNIST", "–", measured.predicted_in_pixels, f"stored: {N9}", "pixels", n="2,000", trainings="2"
    ),
    Claim("1-NFE FID 1.72, 2-NFE 1.54 at ImageNet-256", "1.72, 1.54 (XL/2, 640 epochs)", command=full("imf_xl2")),
]


def trainings(claim: Claim, rows: list[dict]) -> str:
    """How many trainings stand behind each number of a claim; rows: of its result table."""
    if claim.networks:
        counts = {len({r["training"] for r in rows if r["network"] == name}) for name in claim.networks}
        return " to ".join(str(k) for k in sorted({min(counts), max(counts)}))
    return claim.trainings or str(len({r["seed"] for r in rows}))


def row(claim: Claim) -> str:
    """A claim as a line of the table."""
    found = claim.measured() if claim.measured else OPEN
    code = many = "–"
    if claim.table:
        rows = read_table(RESULTS / f"{claim.table}.csv")
        code = "same" if behaviour.stands({r["code"] for r in rows}) else "changed"
        many = trainings(claim, rows)
    checked = claim.checked_by if claim.measured else "–"
    cells = (claim.claim, claim.quoted, found, many, claim.n, checked, code, claim.command)
    return "| " + " | ".join(cells) + " |\n"


def text() -> str:
    """CLAIMS.md."""
    return HEAD + "".join(map(row, CLAIMS))


def with_table(readme: str) -> str:
    """The README with the table between its two marks written anew."""
    start, end = "<!-- digits table: python -m toy_experiments.report.claims -->\n", "<!-- end -->"
    before, rest = readme.split(start)
    return before + start + measured.digits_table() + end + rest.split(end, 1)[1]


def main(out: Path = Path("CLAIMS.md"), readme: Path = Path("README.md")) -> None:
    """Write CLAIMS.md, and the README's table.

    Args:
        out: the file of claims.
        readme: the file with the marks of the table.
    """
    files.write_text(out, text())
    files.write_text(readme, with_table(readme.read_text()))


if __name__ == "__main__":
    tyro.cli(main)
