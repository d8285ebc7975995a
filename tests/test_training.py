"""The loop: exact resume, stopping before a bad update, what it logs, and that it learns a known field."""

import json
import math
import time
from functools import partial

import pytest
import torch
from helpers import drawn, gradients, network, tiny
from torch.testing import assert_close

from imf_lite import guidance, training
from imf_lite.configs import DrawConfig, MLPConfig
from imf_lite.data import Data, Split
from imf_lite.networks.compiled import compile_blocks
from imf_lite.objective import Objective
from imf_lite.recipes import RECIPES, Recipe, get
from imf_lite.training import NonFiniteError, batches, checkpoint, load_network, read_metrics, records, train
from imf_lite.training.loop import learning_rate
from toy_experiments.ground_truth.exact import gaussian_u


def steps(recipe, out, stop=None, **kwargs):
    """Train, or be interrupted after record `stop`; the losses seen."""
    losses = []
    for record in train(recipe, out, **kwargs):
        losses.append((record.step, record.loss, record.grad_norm, record.raw_u_neq))
        if record.step == stop:
            break
    return losses


@pytest.mark.parametrize("name", ["digits_imf", "digits_mf"])
@pytest.mark.parametrize("stop", [3, 5])
def test_resume_is_exact_bit_for_bit(tmp_path, name, stop):
    recipe = tiny(name)
    whole = steps(recipe, tmp_path / "whole", device="cpu")
    steps(recipe, tmp_path / "parts", stop=stop, device="cpu")
    rest = steps(recipe, tmp_path / "parts", device="cpu")
    assert rest == whole[-len(rest) :] and rest[0][0] == (1 if stop == 3 else 4)
    logged = [(r["step"], r["loss"], r["grad_norm"], r["raw_u_neq"]) for r in read_metrics(tmp_path / "parts")]
    assert logged == whole
    a, b = (checkpoint.load(checkpoint.latest(tmp_path / run / "checkpoints"))[0] for run in ("whole", "parts"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert any(k.startswith("optimizer/exp_avg_sq/") for k in a)


def test_a_finished_run_does_nothing_more(tmp_path):
    recipe = tiny()
    steps(recipe, tmp_path)
    assert steps(recipe, tmp_path) == []
    assert len(read_metrics(tmp_path)) == recipe.steps


def test_a_half_written_line_is_left_out(tmp_path):
    steps(tiny(), tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 7, "lo')
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_folder_of_another_run_is_refused(tmp_path):
    steps(tiny(), tmp_path)
    with pytest.raises(ValueError, match=r"another run: lr = 0.002, not 0.1"):
        steps(tiny(lr=0.1), tmp_path)
    assert len(read_metrics(tmp_path)) == 6


def test_changed_code_is_pointed_out(tmp_path):
    steps(tiny(), tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(about | {"code": "other"}))
    with pytest.warns(UserWarning, match="code"):
        steps(tiny(), tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["code"] == "other"  # what began the run stays on record


def test_a_stop_names_a_checkpoint_that_was_still_being_written(tmp_path, monkeypatch):
    """A slow disk, and no record between the checkpoint of update 3 and the gradient of update 5."""
    written = checkpoint.write_tensors
    monkeypatch.setattr(checkpoint, "write_tensors", lambda *args: (time.sleep(1), written(*args)))
    losses = iter([1, 1, 1, 1, math.nan])
    forward = Objective.forward

    def poisoned(self, draws):
        step = forward(self, draws)
        return step._replace(loss=step.loss * next(losses))

    monkeypatch.setattr(Objective, "forward", poisoned)
    with pytest.raises(NonFiniteError, match=r"Last good checkpoint: .*step-000000003.safetensors"):
        steps(tiny(log_every=100), tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path, monkeypatch):
    recipe = tiny()
    calls = []

    def poisoned(self, draws, forward=Objective.forward):
        calls.append(1)
        step = forward(self, draws)
        return step._replace(loss=step.loss * math.nan) if len(calls) == 5 else step

    monkeypatch.setattr(Objective, "forward", poisoned)
    with pytest.raises(NonFiniteError, match=r"update 5; stopped before the update.*step-000000003.safetensors"):
        steps(recipe, tmp_path)
    tensors, counters = checkpoint.load(checkpoint.latest(tmp_path / "checkpoints"))
    assert counters["step"] == 3 and all(t.isfinite().all() for t in tensors.values())


def test_records_split_by_r_and_by_t():
    draws = drawn(batch=256, p_r_neq_t=0.25)
    t = draws.t.clamp(min=0.1)
    draws = draws._replace(t=t, r=torch.cat([t[:192], draws.r[192:]]))
    step = Objective(network("mlp", 1), "imf")(draws)
    m = records.means([step])
    assert m["raw_u_eq"] == pytest.approx(step.raw_u[:192].mean().item())
    assert m["raw_u_neq"] == pytest.approx(step.raw_u[192:].mean().item())
    assert m["raw_v_neq"] == pytest.approx(step.raw_v[192:].mean().item())
    assert m["h_du_dt"] == pytest.approx(step.h_du_dt[192:].mean().item())
    low = (draws.t.flatten() >= 0.3) & (draws.t.flatten() < 0.4)
    assert m["raw_u_by_t"][3] == pytest.approx(step.raw_u[low].mean().item())
    assert m["raw_u_by_t"][0] is None  # no time is that small
    low = low[192:]
    assert m["du_dt_by_t"][3] == pytest.approx((step.h_du_dt / step.h)[192:][low].mean().item())
    json.dumps(m, allow_nan=False)


def test_records_of_a_network_without_a_head_have_no_v():
    m = records.means([Objective(network("mlp"), "mf")(drawn(p_r_neq_t=1.0))])
    assert m["raw_v_neq"] is None and m["raw_v_by_t"] == [None] * 10 and m["raw_u_eq"] is None


def test_learning_rate():
    recipe = get("digits_imf", lr=1.0, warmup=10, steps=100, decay="constant")
    assert [learning_rate(recipe, k) for k in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]
    assert learning_rate(get("digits_imf", lr=1.0, steps=100), 75) == 0.25


def test_batches_go_through_the_data_once_an_epoch():
    recipe = tiny(batch=10)
    epoch = torch.cat([batches.batch_indices(45, recipe, k) for k in range(4)])
    assert len(set(epoch.tolist())) == 40
    following = torch.cat([batches.batch_indices(45, recipe, k) for k in range(4, 8)])
    assert len(set(following.tolist())) == 40 and not torch.equal(epoch, following)


def test_data_that_cannot_be_trained_on_is_refused(tmp_path):
    x, y = torch.zeros(20, 2), torch.zeros(20).long()
    for data, message in (
        (Data(Split(x, y + 3), Split(x, y), 3), "labels"),
        (Data(Split(x[:5], y[:5]), Split(x, y), 1), "lower the batch"),
    ):
        with pytest.raises(ValueError, match=message):
            steps(tiny(), tmp_path, data=data)
    with pytest.raises(ValueError, match="floating point"):
        Split(x.int(), y)
    with pytest.raises(ValueError, match="no data set named 'digit'"):
        steps(tiny(data="digit"), tmp_path)


def test_untrained_or_missing_runs_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint: train first"):
        load_network(tmp_path)


def test_the_ema_network_is_what_sampling_loads(tmp_path):
    steps(tiny(ema=0.9, save_every=1), tmp_path)
    before, after = (checkpoint.load(p)[0] for p in checkpoint.paths(tmp_path / "checkpoints"))
    ema, raw = "ema/z_embedder.weight", "net/z_embedder.weight"
    assert_close(after[ema], 0.9 * before[ema] + 0.1 * after[raw])
    assert not torch.equal(after[ema], after[raw])
    assert torch.equal(load_network(tmp_path).z_embedder.weight, after[ema])


def test_the_run_says_what_made_it(tmp_path):
    recipe = tiny()
    steps(recipe, tmp_path, device="cpu")
    about = json.loads((tmp_path / "run.json").read_text())
    assert Recipe.from_json(json.dumps(about["recipe"])) == recipe
    assert about["device"] == "cpu" == read_metrics(tmp_path)[0]["device"]
    assert about["code"] == training.fingerprint() and about["parameters"] > 0


@pytest.mark.parametrize("name", [n for n in RECIPES if get(n).data == "digits"])
def test_every_recipe_runs(tmp_path, name):
    assert len(steps(get(name, steps=2), tmp_path)) == 2


@pytest.mark.parametrize("method, v_depth", [("mf", None), ("imf", None), ("imf", 1)])
def test_a_small_network_learns_the_closed_form_u(tmp_path, method, v_depth):
    """On Gaussian data u is known; MF, iMF with the boundary and iMF with a head all find it."""
    m, s = torch.tensor([0.5, -0.5]), 0.5
    x = m + s * torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(
        "gauss", method, "none", MLPConfig(width=64, depth=2, time_scale=3.0, v_depth=v_depth),
        DrawConfig(times="uniform"), p=0.0, steps=600, batch=512, lr=3e-3, decay="linear", ema=0.98, log_every=100,
    )  # fmt: skip
    steps(recipe, tmp_path, data=Data(Split(x, None), Split(x, None), None))
    net = load_network(tmp_path, "cpu")
    e, one = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)), torch.ones(2000, 1)
    z = 0.5 * (m + s * e) + 0.5 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(2))
    for at, r, t in ((e, 0 * one, one), (z, 0.25 * one, 0.5 * one)):
        exact = gaussian_u(at, r, t, m, s)
        error = ((net.u(at, r, t) - exact).square().mean() / exact.square().mean()).item()
        assert error < 0.02


def test_compiled_and_eager_losses_and_gradients_agree():
    """The whole guided loss, slope included, on a network without a zero."""
    net, draws = network("mlp", 1, guided="interval"), drawn(guided="interval", class_dropout=0.3)
    objective = Objective(net, "imf", rule=guidance.rule("imf", guidance.Flexible()))
    loss, grads = gradients(objective, draws)
    compiled = torch.compile(objective)
    objective.zero_grad()
    step = compiled(draws)
    step.loss.backward()
    torch.testing.assert_close(step.loss.detach(), loss)
    assert step.h_du_dt[draws.n_eq :].min() > 0
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, grads[name], rtol=1e-3, atol=1e-5 * grads[name].abs().max().item())


@pytest.mark.parametrize("kind", ["adaln", "dit", "pmf"])
@pytest.mark.parametrize("method", ["mf", "imf"])
def test_the_compiled_loss_is_one_graph(kind, method):
    """A graph that breaks still trains, at the pace of eager mode."""
    rule = guidance.rule(method, guidance.Fixed(2.0))
    objective = Objective(network(kind, 1 if method == "imf" else None), method, rule=rule)
    step = torch.compile(objective, dynamic=False, fullgraph=True, backend="eager")(drawn(class_dropout=0.3))
    assert torch.isfinite(step.loss)  # fullgraph raises where the graph breaks


@pytest.mark.parametrize("what", ["whole", "blocks"])
def test_compiled_training_is_the_same_training(tmp_path, monkeypatch, what):
    monkeypatch.setattr(training.loop, "compile_blocks", partial(compile_blocks, backend="eager"))
    eager = steps(tiny(), tmp_path / "eager", device="cpu")
    compiled = steps(tiny(), tmp_path / "compiled", device="cpu", compile=what)
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=1e-4, atol=0)


def test_training_without_kept_activations_is_the_same_training(tmp_path):
    plain = steps(tiny(), tmp_path / "plain", device="cpu")
    again = steps(tiny(), tmp_path / "again", device="cpu", recompute=True)
    torch.testing.assert_close(torch.tensor(again), torch.tensor(plain), rtol=1e-5, atol=0)


def test_what_is_compiled_is_what_pays():
    blocks, whole = training.loop.BLOCKS_PAY, training.loop.WHOLE_PAYS
    assert [training.loop.pays(get("digits_imf", steps=n)) for n in (blocks - 1, blocks, whole, whole + 1)] == [
        "no", "blocks", "blocks", "whole",
    ]  # fmt: skip


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_prepared_ahead_come_in_order_and_few_at_a_time(threads):
    """In threads as for a GPU: no more jobs are ahead of what is used, and an error reaches the loop."""
    done = []
    jobs = [lambda k=k: (done.append(k), k)[1] for k in range(8)]
    for k, found in enumerate(batches.ahead(iter(jobs), threads)):
        assert found == k and len(done) <= k + 1 + threads
    assert sorted(done) == list(range(8))
    failing = batches.ahead(iter([lambda: 1, lambda: 1 / 0]), threads)
    assert next(failing) == 1
    with pytest.raises(ZeroDivisionError):
        next(failing)
