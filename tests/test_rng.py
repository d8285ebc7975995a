"""Streams of random numbers: every use has its own, and those that training used before have not moved."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from imf_lite import recipes, sampling, training
from imf_lite.data import Data
from imf_lite.data.cache import LatentSplit
from imf_lite.data.normalisation import Latents
from imf_lite.evaluation import metrics
from imf_lite.evaluation.classifiers import train_classifier
from imf_lite.evaluation.perceptual import eye_net
from imf_lite.system import rng
from imf_lite.system.rng import Stream, generator, stream
from imf_lite.training.vae_loop import VAERecipe, train_vae
from toy_experiments.ground_truth.streams import ToyStream

ROOT = Path(__file__).parent.parent


def first_number(g: torch.Generator) -> int:
    return int(torch.randint(1 << 62, (1,), generator=g))


def test_the_number_of_seeds_counts_and_no_free_seeds_are_a_stream():
    """(42, 2), (42, 2, 0) and (42, 2, 0, 0) were one stream: padded with zeros, they are the same four words."""
    tuples = [(42,), (42, 0), (42, 0, 0), (42, 0, 0, 0), (42, 2), (42, 2, 0), (42, 2, 0, 0), (2, 42), (42, 2, 0, 0, 0)]
    numbers = [first_number(generator("cpu", *seeds)) for seeds in tuples]
    numbers += [first_number(stream("cpu", use, 42)) for use in {*Stream, *ToyStream}]
    assert len(set(numbers)) == len(numbers)


def test_training_keeps_the_streams_it_had():
    """A run's order, draws, latents and flips by (seed, purpose, part, step), as numpy seeds them."""
    for use, number in ((Stream.ORDER, 1), (Stream.DRAWS, 2), (Stream.POSTERIOR, 3), (Stream.FLIP, 4)):
        seed = int(np.random.SeedSequence((7, number, 5, 9)).generate_state(1, np.uint64)[0]) >> 1
        assert first_number(stream("cpu", use, 7, 5, 9)) == first_number(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_seeds_out_of_range_are_refused(seed):
    """A larger number would be cut into two words, and (2^32, 5) be (0, 1, 5)."""
    for make in (lambda: stream("cpu", Stream.NOISE, seed), lambda: generator("cpu", 0, seed)):
        with pytest.raises(ValueError, match="from 0 to 4294967295"):
            make()


def test_every_use_of_a_stream_is_named_and_in_one_place():
    """Over all call sites of the library and of the experiments. One number is in both lists: an experiment has either
    points of the plane or images."""
    assert {int(use) for use in Stream} & {int(use) for use in ToyStream} == {Stream.CLASSIFIER} == {ToyStream.POINTS}
    sites = defaultdict(list)
    for path in [*ROOT.glob("imf_lite/**/*.py"), *ROOT.glob("toy_experiments/**/*.py")]:
        if path.name == "rng.py" or "exercises" in path.parts:  # exercises draw freely, as lessons do
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                assert call.func.id != "generator", f"{path.name}:{call.lineno} draws from no stream"
                if call.func.id == "stream":
                    sites[ast.unparse(call.args[1])].append(f"{path.name}:{call.lineno}")
    assert set(sites) == {str(f"{type(use).__name__}.{use.name}") for use in (*Stream, *ToyStream)}
    assert {use: places for use, places in sites.items() if len(places) > 1} == {}


def test_no_other_generator_is_made():
    """But of initial weights, of fixed choices and stand-ins, and where exercises draw freely."""
    known = {
        "rng.py": 1, "networks/__init__.py": 1, "embeddings.py": 1, "vae_loop.py": 1, "classifiers.py": 1,  # weights
        "extractors.py": 1, "rehearsal.py": 2, "pretrained/export.py": 2, "flops.py": 1,  # stand-ins, examples
        "data/digits.py": 1, "references.py": 1, "plane.py": 1,  # which digits and features; points to measure against
    }  # fmt: skip
    for path in [*ROOT.glob("imf_lite/**/*.py"), *ROOT.glob("toy_experiments/**/*.py")]:
        calls = [c.func for c in ast.walk(ast.parse(path.read_text())) if isinstance(c, ast.Call)]
        made = [f for f in calls if isinstance(f, ast.Attribute) and f.attr in ("manual_seed", "default_rng", "seed")]
        allowed = [count for name, count in known.items() if path.as_posix().endswith(f"/{name}")]
        assert "exercises" in path.parts or len(made) == sum(allowed), path


def test_no_two_uses_meet_in_a_run(tmp_path, monkeypatch):
    """All that a run, its samples, an autoencoder, a classifier and floors draw by seed 0: no stream has two uses."""
    uses, real = defaultdict(set), np.random.SeedSequence

    def recorded(words, spawn_key=()):
        site = next(frame for frame in inspect.stack()[1:] if frame.filename != rng.__file__)
        uses[(*words, *spawn_key)].add(f"{Path(site.filename).name}:{site.lineno}")
        return real(words, spawn_key=spawn_key)

    monkeypatch.setattr(rng.np.random, "SeedSequence", recorded)
    y, images = torch.arange(64) % 2, torch.randint(0, 256, (64, 1, 32, 32), dtype=torch.uint8)
    latents = Latents("a stand-in", (0.0,) * 4, (1.0,) * 4)
    cached = LatentSplit(np.ones((64, 8, 8, 8), np.float32), np.arange(64), y, latents, tmp_path, "none")
    small = {"net.width": 8, "net.depth": 2, "steps": 8, "batch": 16, "parts": 2, "flip": True}
    for _ in training.train(recipes.get("digits_imf", **small), tmp_path / "run", Data(cached, cached, 2), "cpu"):
        pass
    net = training.load_network(tmp_path / "run", "cpu")
    for each in (False, True):
        list(sampling.blocks(net, 8, batch=4, each=each))
    train_classifier(eye_net, images, y, epochs=1)
    monkeypatch.setattr(metrics, "MOST", 15)
    metrics.floor(torch.randn(64, 4), y, 20, 10, draws=4)
    list(train_vae(images, VAERecipe(channels=(8, 8, 8), steps=4, batch=4), eye_net().eval(), tmp_path / "vae"))
    assert {words: sites for words, sites in uses.items() if len(sites) > 1} == {}
    assert len(set.union(*uses.values())) == len(Stream)
