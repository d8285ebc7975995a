"""Which samples an update sees: the order of the data, micro-batches, prefetching."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import torch

from ..data import Data
from ..recipes import Recipe
from ..system.rng import Stream, stream


def batch(recipe: Recipe, data: Data, step: int, part: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Samples and labels of one micro-batch of an update; they depend on its number, not on the rank that asks."""
    rows = batch_indices(len(data.train), recipe, step).chunk(recipe.parts)[part]
    x, y = data.train.batch(rows, recipe.seed, part, step)
    if recipe.flip:
        mirrored = torch.rand(len(x), generator=stream("cpu", Stream.FLIP, recipe.seed, part, step)) < 0.5
        x = torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
    return x, y


def batch_indices(n: int, recipe: Recipe, step: int) -> torch.Tensor:
    """Rows of batch `step`: each epoch is a permutation fixed by (seed, epoch), its remainder dropped."""
    epoch, k = divmod(step, n // recipe.batch)
    return epoch_order(n, recipe.seed, epoch)[k * recipe.batch : (k + 1) * recipe.batch]


@lru_cache(maxsize=1)
def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of an epoch, kept while it lasts."""
    return torch.randperm(n, generator=stream("cpu", Stream.ORDER, seed, epoch))


def ahead(jobs: Iterable[Callable], threads: int) -> Iterator:
    """The jobs' results, in order, of which up to `threads` are prepared while the last one is used; 0: none is."""
    if not threads:
        yield from (job() for job in jobs)
        return
    coming: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for job in jobs:
            coming.append(pool.submit(job))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
