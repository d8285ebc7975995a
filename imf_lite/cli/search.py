"""imf-lite search: guidance scales and intervals, each with its FID."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .options import (
    MeasureOptions,
    check_counts,
    check_folder,
    latent_space,
    load_network,
    load_reference,
    sampler,
    to_images,
)

if TYPE_CHECKING:
    from ..system.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class Search(MeasureOptions):
    """Try guidance scales and intervals on few samples, with another seed than `evaluate` uses; writes search.csv.

    Running the same command again continues where it stopped. Choosing by FID alone misleads: large scales can lower
    it at the cost of diversity (arXiv 2603.14186), so precision and recall stand beside it where the features of the
    real images are at hand.
    """

    omegas: tuple[float, ...] = (1, 2, 4, 6, 8)
    """scales to try"""
    t_mins: tuple[float, ...] = (0.0, 0.2, 0.4)
    """beginnings of the interval to try"""
    t_maxs: tuple[float, ...] = (0.65, 0.8, 1.0)
    """ends of the interval to try"""
    n: int = 5000
    """samples for each"""
    seed: int = 1
    """seed of the noise"""
    extractor: str = "inception-v3-compat"
    """as for `evaluate`"""
    out: Path | None = None
    """folder of the table; default: RUN/evaluation, or evaluation"""


def search(options: Search) -> None:
    """Measure every setting that was not measured before, and print the best of those asked for."""
    from ..evaluation.search import check_settings
    from ..system import distributed
    from ..system.lock import locked

    check_counts(options, nfe=1, seed=0, batch=1)
    check_folder(options.out)
    intervals = [(a, b) for a in options.t_mins for b in options.t_maxs if a < b]
    check_settings(options.omegas, intervals)
    ranks = distributed.init()
    out = (options.out or (options.run or Path(".")) / "evaluation") / "search.csv"
    with locked(out.parent) if ranks.first else nullcontext():
        measure_all(options, intervals, out, ranks)


def measure_all(options: Search, intervals: list[tuple[float, float]], out: Path, ranks: Ranks) -> None:
    """The search itself, with its folder locked."""
    from ..evaluation.identity import identity
    from ..evaluation.protocol import bias_warning, evaluate
    from ..evaluation.search import search as settings
    from ..system.devices import matmul_precision
    from ..system.files import read_csv, short, write_csv
    from ..system.progress import Progress

    net, notes = load_network(options, options.device or ranks.device())
    if net.guided != "interval":
        raise ValueError("this network has no guidance interval as an input: there is nothing to search for.")
    real, sample = load_reference(options.reference, notes, options.extractor), sampler(notes)
    asked = {"n": options.n, "nfe": options.nfe, "seed": options.seed, "sampler": sample.__name__}
    space = latent_space(net, notes, options)
    key = short(identity(net, space, options.extractor, options.extractor_weights, real, options.precision, **asked))
    # older tables have no key: their rows are kept, never used
    table = ranks.broadcast([{"key": "unknown"} | row for row in read_csv(out, text=("key",))])
    mine = [row["key"] == key and usable(row) for row in table]
    known, others = ([row for row, own in zip(table, mine, strict=True) if own == which] for which in (True, False))
    others = [row for row in others if row["key"] != key]  # what is broken of our own is measured again
    if known and ranks.first:
        print(f"{len(known)} settings were measured before: {out}")
    if ranks.first and (warning := bias_warning(options.n, len(real.statistics["mu"]))):
        print(warning)
    total, rows = len(options.omegas) * len(intervals) * options.n, known
    with Progress(total, "sample", show=ranks.first) as progress, matmul_precision(options.precision):
        measure = partial(
            evaluate, net, to_images(net, notes, options), real, options.extractor, options.extractor_weights,
            options.nfe, options.n, options.seed, sample, batch=options.batch, progress=progress.add, ranks=ranks,
        )  # fmt: skip
        for rows in settings(measure, options.omegas, intervals, known):
            if ranks.first:
                asked_for = {"key": key, "step": notes.get("step", 0), **asked}
                write_csv(out, [*others, *(asked_for | row for row in rows)], digits=None)
    if not ranks.first:
        return
    wanted = {(w, *span) for w in options.omegas for span in intervals}
    best = min((r for r in rows if (r["omega"], r["t_min"], r["t_max"]) in wanted), key=lambda row: row["fid"])
    print(f"best: omega {best['omega']:g} in [{best['t_min']:g}, {best['t_max']:g}], FID {best['fid']:.4g} ({out})")


def usable(row: dict) -> bool:
    """Whether a row of the table holds a setting and a score that a measurement can have given."""
    numbers = [row.get(name) for name in ("omega", "t_min", "t_max", "fid")]
    return all(isinstance(x, int | float) and math.isfinite(x) for x in numbers) and row["fid"] > -1e-3
