"""How many samples a second can be prepared, by one thread and by several.

    python -m benchmarks.loader                                # a synthetic cache of ImageNet's latents, 1.3 GB
    python -m benchmarks.loader --data latents/imagenet        # a prepared one

Reads rows of a memory-mapped cache in random order, draws from the posterior and normalises, as in training. What was
just written is still in memory: on a cold disk, --data with a cache larger than memory tells more.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tyro

from imf_lite import recipes
from imf_lite.data import Data, cache, load
from imf_lite.training.batches import ahead, batch


def synthetic(folder: Path, count: int) -> Data:
    """A cache of `count` random latents of ImageNet-256's shape, written as prepare writes it."""
    shape = (8, 32, 32)
    moments = np.memmap(folder / "moments.f32", np.float32, "w+", shape=(count, *shape))
    for first in range(0, count, 1000):
        moments[first : first + 1000] = np.random.default_rng(first).standard_normal((min(1000, count - first), *shape))
    moments.flush()
    (np.arange(count) % 1000).astype(np.int64).tofile(folder / "labels.i64")
    arrays = {"moments.f32": shape, "labels.i64": ()}
    about = {
        "count": count,
        "arrays": arrays,
        "classes": [str(k) for k in range(1000)],
        "vae": "sd",
        "vae_sha256": None,
    }
    fitted = {"mean": [0.0] * 4, "std": [1.0] * 4}
    (folder / "meta.json").write_text(json.dumps({"about": about, "fitted": fitted, "sha256": {}}))
    return Data(cache.load(folder, "fitted")[0], None, 1000)


def rate(data: Data, threads: int, seconds: float, size: int) -> float:
    """Samples a second of batches of `size`."""
    recipe = recipes.get("imagenet_imf_b2", batch=size, parts=1)
    jobs = (partial(batch, recipe, data, step, 0) for step in range(10**9))
    batches = ahead(jobs, threads)
    for _ in islice(batches, threads + 1):
        pass
    start, made = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        made += len(next(batches)[0])
    took = time.perf_counter() - start
    batches.close()
    return made / took


def main(
    data: str | None = None, threads: tuple[int, ...] = (0, 1, 2, 4), seconds: float = 5.0, batch: int = 256,
    count: int = 40_000,
) -> None:  # fmt: skip
    """Print samples per second.

    Args:
        data: a prepared data set; default: a synthetic one.
        threads: numbers of threads to try; 0 prepares in the loop itself.
        seconds: of every measurement.
        batch: samples of a batch.
        count: samples of the synthetic cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = load(data, "fitted") if data else synthetic(Path(folder), count)
        for number in threads:
            print(f"{number} threads: {rate(source, number, seconds, batch):8,.0f} samples/s", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
