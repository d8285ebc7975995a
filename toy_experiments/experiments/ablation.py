"""From MF to iMF one change at a time, on the digits, mirroring the paper's ablation; three seeds.

    python -m toy_experiments.experiments.ablation --seeds 3 --out toy_experiments/results

Rows of the paper's ablation have the same data order, draws, learning rate and number of updates. Those before
"omega" are trained twice, without guidance and with a fixed scale; the others take the scale as an input.
Writes ablation.csv. Later rows compare adaLN-zero with tokens at width 96, at equal updates and at equal
time, and several numbers of tokens. The last ones, trained only when --rows names them, change one thing of "modern",
to find out why it trails; where they are two runs, each has its own falling learning rate.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import median

import torch
import tyro

from imf_lite import data, training
from imf_lite.configs import AdaLNConfig, DiTConfig, DrawConfig, Fixed, Flexible
from imf_lite.evaluation.evaluator import Evaluator
from imf_lite.networks import Network, build
from imf_lite.recipes import Recipe, override
from imf_lite.system import files

from ..tables import RESULTS, write_table
from .runs import map_jobs, merged

FIXED = Fixed(omega=1.5)
OMEGAS = (1.0, 1.5, 2.5)
INTERVALS = ((0.0, 1.0), (0.0, 0.6))
TOKENS = {"class_tokens": 4, "omega_tokens": 2, "interval_tokens": 1, "time_tokens": 2}


def in_context(width: int = 64, depth: int = 4, modern: bool = True, **tokens: int) -> DiTConfig:
    """A small in-context transformer with a v-branch; ten condition tokens unless told otherwise."""
    return DiTConfig(
        width=width, depth=depth, heads=4, v_depth=2, guided="interval", modern=modern, **(TOKENS | tokens)
    )


HEAD = {"method": "imf", "net.v_depth": 2}
WIDE = HEAD | {
    "steps": 1.5,
    "net": AdaLNConfig(width=96, depth=6, heads=4, v_depth=2, guided="interval"),
    "guidance": Flexible(),
}
ROWS: dict[str, dict] = {
    "mf": {},
    "mf, fixed": {"guidance": FIXED},
    "boundary": {"method": "imf"},
    "boundary, fixed": {"method": "imf", "guidance": FIXED},
    "head": HEAD,
    "head, fixed": HEAD | {"guidance": FIXED},
    "omega": HEAD | {"net.guided": "omega", "guidance": Flexible()},
    "interval": HEAD | {"net.guided": "interval", "guidance": Flexible()},
    "tokens": {"method": "imf", "net": in_context(modern=False), "guidance": Flexible()},
    "modern": {"method": "imf", "net": in_context(), "guidance": Flexible()},
    "wide adaln": WIDE,
    "wide tokens": {"method": "imf", "net": in_context(96, 6), "guidance": Flexible(), "steps": 1.5},
    "wide adaln, longer": WIDE | {"steps": 2.2},  # about as long as "wide tokens" takes
}
for count, tokens in {5: (1, 1, 1, 1), 20: (8, 4, 2, 4)}.items():  # "modern" has 10
    net = in_context(**dict(zip(TOKENS, tokens, strict=True)))
    ROWS[f"{count} tokens"] = {"method": "imf", "net": net, "guidance": Flexible()}
WHY: dict[str, dict] = {
    # what may hold guided iMF back: tokens that do not know t, or whatever the guidance, which scales it sees, how it
    # starts, its times, its learning rate, its budget
    "t an input": {"net.t_input": True},
    "fixed": {"net.guided": "no", "guidance": FIXED},
    "scales uniform": {"draws.omega_beta": 0.0},
    "scales near 1": {"draws.omega_beta": 4.0},
    "after unguided": {"before": {"guidance": None, "net.guided": "no"}, "share": 0.5},
    "after r = t": {"before": {"draws.p_r_neq_t": 0.0}, "share": 0.1},
    "wider times": {"draws.p_std": 1.6},
    "a fifth uniform": {"draws.uniform_share": 0.2},
    "half the rate": {"lr": 2e-3},
    "twice the rate": {"lr": 8e-3},
    "v_u at omega": {"guidance": Flexible(v_u_omega="same")},
    "four times": {"steps": 4},
}
PAPER = tuple(ROWS)
ROWS |= {f"modern, {name}": ROWS["modern"] | changes for name, changes in WHY.items()}
ROWS["interval, four times"] = ROWS["interval"] | {"steps": 4}
OWN = ("steps", "before", "share")
"""of a row, not of a recipe: a factor; what differs in a first run, whose weights begin the second; its share"""


def recipe(row: str, seed: int = 0, steps: int = 1000) -> Recipe:
    """The run behind a row."""
    base = Recipe(
        name="ablation",
        method="mf",
        data="digits",
        net=AdaLNConfig(width=64, depth=4, heads=4),
        draws=DrawConfig(class_dropout=0.1),
        steps=steps,
        batch=64,
        lr=4e-3,
        decay="linear",
        ema=0.995,
        seed=seed,
        log_every=10,
        save_every=10**9,
    )
    changes = {k: v for k, v in ROWS[row].items() if k not in OWN}
    net = {k: changes.pop(k) for k in ("net",) if k in changes}
    longer = {"steps": round(steps * ROWS[row].get("steps", 1))}
    if net:
        changes.pop("net.v_depth", None)
    return override(base, net | changes | longer)


def parameters(of: Recipe, inference: bool) -> int:
    """Weights of a recipe's network on the digits; at inference there is no v-branch."""
    net = override(of.net, {"v_depth": None}) if inference else of.net
    with torch.device("meta"):
        return sum(p.numel() for p in build(net, (1, 8, 8), 10).parameters())


def trained(recipe: Recipe, out: Path, init: Network | None = None) -> Network:
    """The averaged network of a run, which begins with the weights of `init`."""
    for _ in training.train(recipe, out, device="cpu", compile="whole" if recipe.steps >= 500 else "no", init=init):
        pass
    return training.load_network(out, "cpu")


def run(job: tuple[int, str], steps: int, folder: Path) -> dict:
    """Train one row with one seed (a finished run is taken as it is) and measure it."""
    torch.set_num_threads(1)
    seed, row = job
    chosen, out = recipe(row, seed, steps), folder / f"{row.replace(', ', '-').replace(' ', '_')}-{seed}"
    done = out / "row.json"
    if done.exists() and (result := json.loads(done.read_text()))["code"] == training.fingerprint():
        return result
    first, updates = None, chosen.steps
    if share := ROWS[row].get("share"):
        own = {"steps": round(chosen.steps * share), "seed": seed + 1000}  # other draws than those of the second run
        before = override(chosen, own | ROWS[row]["before"])
        chosen = override(chosen, {"steps": chosen.steps - before.steps})
        first = trained(before, out.with_name(f"{out.name}-before"))
    net = trained(chosen, out, first)
    evaluator = Evaluator(data.load("digits"))
    records = training.read_metrics(out)
    result = {
        "row": row,
        "seed": seed,
        "updates": updates,
        "parameters": parameters(chosen, True),
        "trained": parameters(chosen, False),
        "ms": 1000 * median(chosen.batch / r["images_per_s"] for r in records),
    }
    plain = [evaluator(net, nfe, seed=seed) for nfe in (1, 2)]
    result |= {"fid1": plain[0]["fid"], "fid2": plain[1]["fid"], "agreement1": plain[0]["agreement"]}
    result |= {"omega": 1.0, "t_min": 0.0, "t_max": 1.0, "best1": plain[0]["fid"], "best2": plain[1]["fid"]}
    if net.guided != "no":
        intervals = INTERVALS if net.guided == "interval" else (None,)
        grid = list(itertools.product(OMEGAS, intervals))
        # chosen on other noise than what is reported
        omega, interval = min(grid, key=lambda g: evaluator(net, 1, seed=1000 + seed, omega=g[0], interval=g[1])["fid"])
        best = [evaluator(net, nfe, seed=seed, omega=omega, interval=interval)["fid"] for nfe in (1, 2)]
        t_min, t_max = interval or (0.0, 1.0)
        result |= {"omega": omega, "t_min": t_min, "t_max": t_max, "best1": best[0], "best2": best[1]}
    result |= {"floor": evaluator.floor(1000)["fid"], "code": training.fingerprint()}
    files.write_text(done, json.dumps(result))
    return result


def main(
    seeds: int = 3,
    steps: int = 1000,
    rows: tuple[str, ...] = PAPER,
    out: Path = RESULTS,
    runs: Path = Path("runs/ablation"),
) -> None:
    """Train every row with each seed and write the table; rows that are not asked for stay as they are.

    Args:
        seeds: number of seeds, 0, 1, ...
        steps: updates of each run.
        rows: which rows; default: those that are not there to find out why.
        out: folder of the results.
        runs: folder of the runs; what is finished there is not trained again.
    """
    jobs = [(seed, row) for seed in range(seeds) for row in rows]  # by seed: a row is compiled once
    result = map_jobs(run, jobs, steps, runs / str(steps))
    out.mkdir(parents=True, exist_ok=True)
    every = merged(out / "ablation.csv", result, ("row", "seed"))
    write_table(out / "ablation.csv", sorted(every, key=lambda r: (list(ROWS).index(r["row"]), r["seed"])))
    print(out / "ablation.csv")


if __name__ == "__main__":
    tyro.cli(main)
