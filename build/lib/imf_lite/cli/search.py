"""imf-lite search: guidance scales and intervals, each with its FID."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .options import MeasureOptions, load_network, load_reference, to_images


@dataclass(frozen=True, kw_only=True)
class Search(MeasureOptions):
    """Try guidance scales and intervals on few samples, of another seed than `evaluate` reports; writes search.csv.

    The same command again goes on where it stopped.
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
    """of the noise"""
    extractor: str = "inception-v3-compat"
    """as for `evaluate`"""
    out: Path | None = None
    """folder of the table; default: RUN/evaluation, or evaluation"""


def search(options: Search) -> None:
    """Measure every setting that was not measured before, and print the best."""
    from tqdm import tqdm

    from ..evaluation.protocol import evaluate
    from ..evaluation.search import search as settings
    from ..system import distributed
    from ..system.files import write_text

    ranks = distributed.init()
    net, notes = load_network(options, options.device or ranks.device())
    real = load_reference(options.reference, notes, options.extractor)
    intervals = [(a, b) for a in options.t_mins for b in options.t_maxs if a < b]
    out = (options.out or (options.run or Path(".")) / "evaluation") / "search.csv"
    key = {"step": float(notes.get("step", 0)), "nfe": float(options.nfe), "n": float(options.n)}
    key["seed"] = float(options.seed)
    known = ranks.broadcast(known_rows(out, key))
    if known and ranks.first:
        print(f"{len(known)} settings were measured before: {out}")
    total = len(options.omegas) * len(intervals) * options.n
    with tqdm(total=total, unit="sample", disable=not ranks.first) as bar:
        measure = partial(
            evaluate, net, to_images(net, notes, options), real, options.extractor, options.extractor_weights,
            options.nfe, options.n, options.seed, batch=options.batch, progress=bar.update, ranks=ranks,
        )  # fmt: skip
        for rows in settings(measure, options.omegas, intervals, known):
            if rows:
                table = [row | key for row in rows]
                lines = [",".join(table[0]), *(",".join(f"{value:.8g}" for value in row.values()) for row in table)]
                write_text(out, "\n".join(lines) + "\n")
    if not ranks.first:
        return
    best = min(known_rows(out, key), key=lambda row: row["fid"])
    print(f"best: omega {best['omega']:g} in [{best['t_min']:g}, {best['t_max']:g}], FID {best['fid']:.4g} ({out})")


def known_rows(path: Path, key: dict[str, float]) -> list[dict]:
    """Rows of a search's table that were measured with this key."""
    if not path.exists():
        return []
    head, *lines = path.read_text().splitlines()
    rows = [dict(zip(head.split(","), map(float, line.split(",")), strict=True)) for line in lines]
    return [{k: v for k, v in row.items() if k not in key} for row in rows if key.items() <= row.items()]
