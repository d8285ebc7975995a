"""What only a GPU can show; left out where there is none."""

import copy

import pytest
import torch
from helpers import drawn, gradients, network, tiny
from torch.testing import assert_close

from imf_lite import guidance, training
from imf_lite.configs import Flexible
from imf_lite.data.images import to_uint8
from imf_lite.draws import Draws
from imf_lite.evaluation import extractors, protocol, references
from imf_lite.objective import Objective
from imf_lite.training import checkpoint, flops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
KINDS = [("dit", "imf", 1), ("adaln", "mf", None)]


def on_gpu(draws: Draws) -> Draws:
    return draws._replace(**{k: v.cuda() for k, v in draws._asdict().items() if torch.is_tensor(v)})


def objective(kind: str, method: str, v_depth: int | None, dtype=torch.float32, **options) -> tuple[Objective, Draws]:
    """With guidance as an input for iMF, and draws for it; on the CPU."""
    guided = "interval" if method == "imf" else "no"
    net = network(kind, v_depth, dtype, guided=guided)
    made = Objective(net, method, rule=guidance.rule(method, Flexible() if method == "imf" else None), **options)
    return made, drawn(dtype=dtype, guided=guided, class_dropout=0.1)


@pytest.mark.parametrize(("kind", "method", "v_depth"), KINDS)
def test_gradients_are_those_of_the_cpu(kind, method, v_depth):
    here, draws = objective(kind, method, v_depth, torch.float64)
    loss, expected = gradients(here, draws)
    loss_there, found = gradients(copy.deepcopy(here).cuda(), on_gpu(draws))
    assert_close(loss_there.cpu(), loss)
    for name, grad in expected.items():
        assert_close(found[name].cpu(), grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("kind", "method", "v_depth"), KINDS)
def test_the_compiled_loss_is_the_eager_one(kind, method, v_depth, bf16):
    """Compiled bf16 rounds at other places: it must be about as close to float32 as eager bf16 is."""
    made, draws = objective(kind, method, v_depth)
    made, draws = made.cuda(), on_gpu(draws)
    exact = flat(made, made, draws)
    made.bf16 = bf16
    eager = apart(flat(made, made, draws), exact)
    torch._dynamo.reset()
    compiled = apart(flat(torch.compile(made, dynamic=False, fullgraph=True), made, draws), exact)
    assert compiled < (2 * eager if bf16 else 1e-4) and eager < 0.05, (compiled, eager)


def flat(loss, made: Objective, draws: Draws) -> torch.Tensor:
    """All gradients as one vector."""
    made.zero_grad()
    loss(draws).loss.backward()
    return torch.cat([p.grad.flatten() for p in made.net.parameters()])


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_training_goes_on_where_it_stopped(tmp_path, precision):
    """Batches are prepared ahead in a thread: stopping and resuming must neither skip nor repeat one."""
    recipe = tiny("digits_guided", precision=precision, parts=2, more_emas=(0.5,))
    whole = list(training.train(recipe, tmp_path / "whole", device="cuda"))
    for record in training.train(recipe, tmp_path / "cut", device="cuda"):
        if record.step == 4:
            break
    rest = list(training.train(recipe, tmp_path / "cut", device="cuda"))
    assert [r.step for r in rest] == [4, 5, 6]
    assert_close([r.loss for r in rest], [r.loss for r in whole[3:]], rtol=1e-4, atol=0)
    runs = [checkpoint.load(checkpoint.latest(tmp_path / run / "checkpoints"))[0] for run in ("whole", "cut")]
    for name, value in runs[0].items():
        assert_close(runs[1][name], value, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    if flops.peak(torch.cuda.get_device_name(), precision):
        assert all(0 < r.peak_share < 1 for r in whole)
    # the CPU sees the same data, not the same noise
    cpu = list(training.train(tiny("digits_guided", parts=2, more_emas=(0.5,)), tmp_path / "cpu", device="cpu"))
    assert [r.images for r in cpu] == [r.images for r in whole]


def test_evaluation_and_samples(tmp_path):
    list(training.train(tiny("digits_guided", steps=3), tmp_path, device="cuda"))
    net = training.load_network(tmp_path)
    assert next(net.parameters()).is_cuda
    features = extractors.extract(torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8), "stand-in")
    real = references.from_features(features, "")
    found = protocol.evaluate(net, to_uint8, real, "stand-in", n=70, omega=2.0, batch=20)
    assert found["fid"] > 0 and found["protocol"]["n"] == 70
