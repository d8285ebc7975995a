"""Two ranks (gloo, on the CPU) against one process: same gradients, same training, same files."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, gradients, network, tiny
from PIL import Image
from test_weights import save_tiny_vae
from torch.testing import assert_close
from warm import Rank

from imf_lite import recipes, training
from imf_lite.draws import Draws
from imf_lite.objective import Objective
from imf_lite.system import distributed
from imf_lite.training import checkpoint

HERE = Path(__file__).parent


def start(size: int, *args, fresh: bool = False) -> list:
    """`size` ranks of tests/rank.py, in the environment that torchrun would give them.

    fresh: each in an interpreter of its own; what is forked cannot compile.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    env |= {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    words = tuple(map(str, args))
    each = [env | {"RANK": str(k), "LOCAL_RANK": str(k)} for k in range(size)]
    if not fresh:
        return [Rank(of_rank, words) for of_rank in each]
    command = [sys.executable, str(HERE / "rank.py"), *words]
    return [subprocess.Popen(command, env=of_rank, stderr=subprocess.PIPE, text=True) for of_rank in each]


def finish(ranks: list) -> list[str]:
    """Wait for all; their messages. Fails where one failed."""
    try:
        said = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(said)
    return said


def together(parts: list[Draws]) -> Draws:
    """Several batches as one: the rows with r = t first."""
    n = parts[0].n_eq
    joined = {}
    for name in Draws._fields[:-1]:
        values = [getattr(p, name) for p in parts]
        joined[name] = None if values[0] is None else torch.cat([*(v[:n] for v in values), *(v[n:] for v in values)])
    return Draws(**joined, n_eq=n * len(parts))


@pytest.mark.parametrize("kind, method", [("dit", "mf"), ("dit", "imf"), ("pmf", "imf")])
def test_gradients_of_two_ranks_are_those_of_all_their_draws(tmp_path, kind, method):
    finish(start(2, "gradients_of", kind, method, tmp_path))
    objective = Objective(network(kind, 1 if method == "imf" else None, torch.float64), method)
    _, expected = gradients(objective, together([drawn(dtype=torch.float64, seed=k) for k in (0, 1)]))
    for k in (0, 1):
        found = torch.load(tmp_path / f"{k}.pt")
        assert found.keys() == expected.keys()
        for name, g in expected.items():
            assert_close(found[name], g, rtol=1e-9, atol=1e-12)


def test_compiled_ranks_have_the_same_gradients(tmp_path):
    """DDP's own compiler would cut the graph into buckets, through the slope."""
    finish(start(2, "compiled", tmp_path, fresh=True))
    for method, k in itertools.product(("mf", "imf"), (0, 1)):
        eager, compiled = (torch.load(tmp_path / f"{method}-{kind}{k}.pt") for kind in ("eager", "compiled"))
        for name, g in eager.items():
            assert_close(compiled[name], g, rtol=1e-9, atol=1e-12)


def test_two_ranks_resume_exactly(tmp_path):
    finish(start(2, "train", tmp_path / "whole", 6))
    finish(start(2, "train", tmp_path / "cut", 3))
    finish(start(2, "train", tmp_path / "cut", 6))
    whole, cut = (checkpoint.load(checkpoint.latest(tmp_path / k / "checkpoints")) for k in ("whole", "cut"))
    assert whole[1] == cut[1] and all(torch.equal(cut[0][name], value) for name, value in whole[0].items())


def test_two_ranks_train_what_one_does_and_either_goes_on(tmp_path):
    """One process of two parts, two ranks of one part each, and a run that changes from two ranks to one."""
    finish(start(1, "train", tmp_path / "one", 6))
    finish(start(2, "train", tmp_path / "two", 6))
    finish(start(2, "train", tmp_path / "mixed", 3))
    finish(start(1, "train", tmp_path / "mixed", 6))
    one, *others = (checkpoint.load(checkpoint.latest(tmp_path / k / "checkpoints")) for k in ("one", "two", "mixed"))
    for tensors, counters in others:
        assert counters == one[1] and tensors.keys() == one[0].keys()
        for name, value in one[0].items():
            assert_close(tensors[name], value, rtol=1e-4, atol=1e-6)
    logs = [training.read_metrics(tmp_path / k) for k in ("one", "two", "mixed")]
    for log in logs[1:]:
        assert [r["step"] for r in log] == [1, 2, 3, 4, 5, 6]
        for a, b in zip(logs[0], log, strict=True):
            for key in ("loss", "raw_u_neq", "grad_norm"):
                assert_close(a[key], b[key], rtol=1e-4, atol=1e-6)


def test_a_killed_rank_leaves_a_checkpoint_and_no_hung_process(tmp_path):
    ranks = start(2, "train", tmp_path, 100_000)
    deadline = time.monotonic() + 60
    while checkpoint.latest(tmp_path / "checkpoints") is None and time.monotonic() < deadline:
        time.sleep(0.1)
    ranks[1].send_signal(signal.SIGKILL)
    assert ranks[0].wait(timeout=60) != 0  # it notices, and ends
    tensors, counters = checkpoint.load(checkpoint.latest(tmp_path / "checkpoints"))
    assert counters["step"] >= 3 and tensors
    for rank in ranks:
        rank.kill()


def test_ranks_that_disagree_are_stopped_at_once(tmp_path):
    ranks = start(2, "disagree", tmp_path)
    said = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert all(rank.returncode for rank in ranks)
    assert any("the ranks' gradients differ" in s for s in said)


def test_ranks_of_different_recipes_are_stopped_before_they_begin(tmp_path):
    ranks = start(2, "differ", tmp_path)
    said = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert all(rank.returncode for rank in ranks) and not (tmp_path / "run.json").exists()
    assert any("the ranks' recipes, code or data differ" in s for s in said)


def test_two_ranks_prepare_the_same_cache(tmp_path):
    """Seven pictures in batches of two: ranks take turns, and in the last round one of them has none."""
    rng, vae = np.random.default_rng(0), save_tiny_vae(tmp_path / "vae")
    for k in range(7):
        path = tmp_path / "pictures" / f"class{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    path.write_bytes(b"no picture")
    for size in (1, 2):
        finish(start(size, "prepare", tmp_path / "pictures", vae, tmp_path / f"cache{size}"))
    for name in ("moments.f32", "labels.i64", "meta.json"):
        assert (tmp_path / "cache1" / name).read_bytes() == (tmp_path / "cache2" / name).read_bytes()


def test_parts_are_shared_evenly_or_not_at_all():
    assert [list(distributed.Ranks(k, 2).share(4)) for k in (0, 1)] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="3 ranks cannot share 4 parts of an update: set parts to a multiple of 3"):
        distributed.Ranks(0, 3).share(4)
    with pytest.raises(ValueError, match="batch = 128 does not fall into parts = 3"):
        recipes.get("digits_imf", parts=3)


def test_more_processes_than_gpus_are_refused_instead_of_training_on_the_cpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"4 processes for 1 GPU\(s\): start as many, or hide them"):
        distributed.init()


def test_a_run_goes_on_with_other_parts_and_says_so(tmp_path):
    for record in training.train(tiny(parts=2), tmp_path, device="cpu"):
        if record.step == 4:
            break
    with pytest.warns(UserWarning, match="parts were 2 so far: from here on other draws"):
        rest = [r.step for r in training.train(tiny(parts=4), tmp_path, device="cpu")]
    assert rest == [4, 5, 6]  # from the checkpoint of update 3
    with pytest.raises(ValueError, match=r"holds another run: lr = "):
        list(training.train(tiny(parts=4, lr=1.0), tmp_path, device="cpu"))


def test_older_runs_know_nothing_of_newer_fields(tmp_path):
    recipe = recipes.get("digits_imf", steps=2, **{"net.width": 16, "net.depth": 2, "net.v_depth": 1})
    list(training.train(recipe, tmp_path, device="cpu"))
    run = json.loads((tmp_path / "run.json").read_text())
    for name in ("parts", "more_emas", "precision"):
        run["recipe"].pop(name)
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert list(training.train(recipe, tmp_path, device="cpu")) == []
