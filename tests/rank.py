"""One rank of test_parallel: what it is told to do."""

import itertools
import json
import sys
from functools import partial
from pathlib import Path

import torch
from helpers import drawn, network, tiny

from imf_lite import training
from imf_lite.data import preparation
from imf_lite.data.autoencoder import load_vae
from imf_lite.data.images import to_uint8
from imf_lite.data.sources import folders
from imf_lite.evaluation import protocol, references
from imf_lite.objective import Objective
from imf_lite.system import distributed, files


def gradients_of(kind: str, method: str, out: str) -> None:
    """The gradients of this rank's draws, averaged over the ranks, to a file."""
    ranks = distributed.init()
    objective = Objective(network(kind, 1 if method == "imf" else None, torch.float64), method)
    wrapped = ranks.wrap(objective)
    wrapped(drawn(dtype=torch.float64, seed=ranks.rank)).loss.backward()
    torch.save({k: p.grad for k, p in objective.net.named_parameters()}, Path(out) / f"{ranks.rank}.pt")


def compiled(out: str) -> None:
    """`gradients_of` compiled (for the eager backend: what matters is where graphs are cut), parameters above 1 MB."""
    torch.compile = partial(torch.compile, backend="aot_eager")
    ranks = distributed.init()
    for method, kind in itertools.product(("mf", "imf"), ("eager", "compiled")):
        objective = Objective(network("dit", 1 if method == "imf" else None, torch.float64, width=96), method)
        wrapped = ranks.wrap(objective, compile=kind == "compiled")
        wrapped(drawn(dtype=torch.float64, seed=ranks.rank)).loss.backward()
        grads = {k: p.grad.clone() for k, p in objective.net.named_parameters()}
        torch.save(grads, Path(out) / f"{method}-{kind}{ranks.rank}.pt")
        del wrapped


def train(out: str, until: str) -> None:
    """A tiny run of six updates (or very many) in two parts, stopped early if told so."""
    recipe = tiny(parts=2, more_emas=(0.5,), steps=max(6, int(until)))
    for record in training.train(recipe, out, device="cpu"):
        if record.step > int(until):  # its checkpoint is written
            break


def prepare(folder: str, vae: str, out: str) -> None:
    """A folder of pictures, encoded by all ranks."""
    for _ in preparation.prepare(folders.ClassFolders(folder, 32), load_vae(vae), "a vae", out, batch=2, save_every=2):
        pass


def evaluate(run: str, reference: str, out: str) -> None:
    """FID of a run's samples in several batches, the last one short."""
    net = training.load_network(run, "cpu")
    found = protocol.evaluate(
        net, to_uint8, references.load_reference(reference, "stand-in"), "stand-in", n=70, omega=2.0, batch=20
    )
    if found:
        files.write_text(Path(out), json.dumps(found))


def disagree(out: str) -> None:
    """Two ranks that would train different networks."""
    ranks = distributed.init()
    distributed.Ranks.wrap = lambda self, objective, compile=False: objective  # nobody averages
    list(training.train(tiny(parts=2), out, device="cpu"))
    assert ranks.size == 2


def differ(out: str) -> None:
    """Two ranks of two recipes."""
    list(training.train(tiny(parts=2, seed=distributed.init().rank), out, device="cpu"))


JOBS = {f.__name__: f for f in (gradients_of, compiled, train, prepare, evaluate, disagree, differ)}
if __name__ == "__main__":
    torch.set_num_threads(1)
    JOBS[sys.argv[1]](*sys.argv[2:])
