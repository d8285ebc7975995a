"""What Fashion-MNIST's networks score over several trainings.

A score is an array of trainings by seeds of the sampling noise; only the spread over trainings says how far another
training might lie.
"""

from __future__ import annotations

import numpy as np

from imf_lite.pretrained import weights
from imf_lite.system.paths import pretrained_folder

from .. import tables
from ..ground_truth import distances
from ..tables import RESULTS
from .apart import difference

SETTING = ("omega", "t_min", "t_max")


def rows(network: str, nfe: int, half: str, **where) -> list[dict]:
    """Rows of the table. Raises ValueError if there are none."""
    where |= {"network": network, "nfe": nfe, "half": half}
    found = tables.pick("fashion", **where)
    if not found:
        raise ValueError(f"fashion.csv has no row with {where}.")
    return found


def trainings(network: str) -> list[int]:
    """The trainings of a network that were measured."""
    return sorted({r["training"] for r in rows(network, 1, "report")})


def shipped(network: str) -> int:
    """The training whose weights ship."""
    return weights.read_notes(pretrained_folder("fashion") / "networks" / network)["recipe"]["seed"]


def best(network: str, training: int, nfe: int = 1) -> dict[str, float]:
    """A training's scale and interval with the lowest FID, on the noise that they are chosen on."""
    asked = rows(network, nfe, "choose", training=training)
    return {k: min(asked, key=lambda r: r["fid"])[k] for k in SETTING}


def scores(network: str, nfe: int, column: str = "fid", **where) -> np.ndarray:
    """A column by trainings and seeds of the noise, the FID as its excess, at a setting or with none to set."""
    return by_training(rows(network, nfe, "report", **where), column)


def by_training(rows: list[dict], column: str) -> np.ndarray:
    """A column of a table's rows by trainings and seeds of the noise, the FID as its excess."""
    ordered = sorted(rows, key=lambda r: r["training"])
    values = [tables.excess(r) if column == "fid" else r[column] for r in ordered]
    return np.array(values).reshape(len({r["training"] for r in ordered}), -1)


def best_scores(network: str, nfe: int, column: str = "fid") -> np.ndarray:
    """The same, each training at its own best setting."""
    each = [scores(network, nfe, column, training=k, **best(network, k, nfe)) for k in trainings(network)]
    return np.concatenate(each)


def said(values: np.ndarray, digits: int = 2) -> str:
    """Mean, its range over trainings where there are several, and the mean range over seeds of the noise."""
    mean, noise = values.mean(1), np.ptp(values, axis=1).mean()
    over = f" ({mean.min():.{digits}f} to {mean.max():.{digits}f})" if len(mean) > 1 else ""
    return f"{mean.mean():.{digits}f}{over}, noise {noise:.{digits}f}"


def steps() -> str:
    """MF and iMF without guidance in one and two steps."""
    both = {k: [scores(f"fashion_{k}_plain", nfe) for nfe in (1, 2)] for k in ("mf", "imf")}
    apart = [str(difference(*pair)) for pair in zip(both["imf"], both["mf"], strict=True)]
    mf, imf = (", ".join(map(said, both[k])) for k in ("mf", "imf"))
    return f"Fashion-MNIST's latents, excess FID at 1 and 2 NFE: MF {mf}; iMF {imf}; iMF minus MF {'; '.join(apart)}"


def stability() -> str:
    """Stability on latents, of the one pair of trainings whose losses are stored."""
    curves = np.load(RESULTS / "fashion.npz")
    imf, mf = (distances.spread(curves[f"raw_fashion_{k}_plain"]) for k in ("imf", "mf"))
    return (
        f"Fashion-MNIST's latents (p = 1, no guidance): ratio of spreads iMF / MF {imf / mf:.2f} (one training "
        "each: not settled)"
    )


def guided() -> str:
    """The guided network at no guidance, at its best, and MF trained for one scale."""
    best_of_each, mf = best_scores("fashion_imf", 1), scores("fashion_mf", 1)
    always = scores("fashion_imf", 1, omega=2, t_max=1)
    return (
        "Fashion-MNIST's latents, excess FID, 1 NFE: iMF at ω = 1 "
        f"{said(scores('fashion_imf', 1, omega=1, t_max=1))}, at each training's best scale and interval "
        f"{said(best_of_each)}, class as asked {said(best_scores('fashion_imf', 1, 'agreement'))}; MF trained for "
        f"ω = 2 {said(mf)}. iMF minus MF: at its best {difference(best_of_each, mf)}, at ω = 2 {difference(always, mf)}"
    )


def many_steps() -> str:
    """One step beside flow matching's many."""
    many, one, two = (scores(f"fashion_{k}_plain", nfe) for k, nfe in (("fm", 64), ("imf", 1), ("imf", 2)))
    return (
        f"Fashion-MNIST's latents, excess FID: FM at 64 NFE {said(many)}, iMF without guidance at 1 {said(one)}, at 2 "
        f"{said(two)}; minus FM: {difference(one, many)}; {difference(two, many)}"
    )
