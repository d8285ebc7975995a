"""What the first updates of a recipe look like: its band, for `imf-lite train` to compare with.

    python -m benchmarks.bands fashion_imf --updates 300
    torchrun --nproc-per-node 8 -m benchmarks.bands imagenet_mf_b4 --updates 2000 --compile blocks

Trains the recipe's first updates at several seeds. For each window of updates the band is centred at the seeds' mean.
Its half-width, relative to that mean, is five times the standard deviation of the seeds, pooled over windows and
seeds, but at least a tenth.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import tyro

from imf_lite import recipes, training
from imf_lite.configs import Compile
from imf_lite.recipes import bands
from imf_lite.system import distributed, files


def main(
    recipe: tyro.conf.Positional[str],
    updates: int = 300,
    seeds: int = 3,
    compile: Compile = "no",
    out: Path = bands.FOLDER,
) -> None:
    """Write the band of a recipe.

    Args:
        recipe: its name.
        updates: how many; the learning rate is that of the whole run.
        seeds: runs, at least two.
        compile: as training.train's.
        out: folder of the bands.
    """
    if seeds < 2:
        raise ValueError(f"seeds = {seeds}: a band needs at least two.")
    if updates % bands.WINDOW or updates < 1:
        raise ValueError(f"updates = {updates}: give a multiple of {bands.WINDOW}, over which a band takes means.")
    windows = []
    for seed in range(seeds):
        run = recipes.get(recipe, seed=seed, save_every=10**9)
        folder = distributed.init().broadcast(tempfile.mkdtemp())
        records = []
        for record in training.train(run, folder, compile=compile):
            records.append(record._asdict())
            if record.step >= updates:
                break
        windows.append(bands.windows(records))
    low, high = {}, {}
    for name in windows[0]:
        values = np.array([f[name] for f in windows])  # (seeds, windows)
        middle = values.mean(0)
        spread = np.sqrt(((values / middle - 1) ** 2).sum() / ((seeds - 1) * len(middle)))
        width = max(0.1, 5 * spread)  # few seeds may agree by chance
        low[name], high[name] = ([float(f"{m * k:.5g}") for m in middle] for k in (1 - width, 1 + width))
    header = {"recipe": recipe, "seeds": seeds, "updates": updates, "code": training.fingerprint()}
    header |= {"device": records[-1]["device"], "window": bands.WINDOW}
    if distributed.init().first:
        files.write_text(out / f"{recipe}.json", json.dumps({"about": header, "low": low, "high": high}, indent=1))
        print(out / f"{recipe}.json")


if __name__ == "__main__":
    tyro.cli(main)
