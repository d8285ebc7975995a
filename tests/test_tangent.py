"""The tangent between MF's and iMF's: its limits, its gradient's errors, and the exact fields behind them."""

from functools import partial

import pytest
import torch

from imf_lite import guidance
from imf_lite.configs import DrawConfig, MLPConfig
from imf_lite.draws import draw
from imf_lite.networks import build
from imf_lite.objective import Objective
from imf_lite.system.rng import generator
from toy_experiments import tables
from toy_experiments.experiments import tangent
from toy_experiments.ground_truth import datasets, decomposition


@pytest.fixture
def net():
    network = build(MLPConfig(width=32, depth=2), (2,), None, seed=0)
    g = generator("cpu", 0)
    for p in network.parameters():
        p.data += 0.4 * torch.randn(p.shape, generator=g)
    return network


@pytest.fixture
def draws():
    return draw(datasets.points("checkerboard", 64), None, DrawConfig(), generator("cpu", 1))


def rule(net, z, draws, cond, own, beta):
    """As the lesson writes it."""
    v_cond, v_theta = guidance.predicted(net, z, draws, cond, own)
    return v_cond, beta * v_theta + (1 - beta) * v_cond


def gradient(net, draws, method, **kwargs):
    loss = Objective(net, method, p=0, **kwargs)(draws).loss
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


@pytest.mark.parametrize("beta, method", [(0.0, "mf"), (1.0, "imf")])
def test_the_ends_of_the_mixture_are_the_two_methods(net, draws, beta, method):
    expected = gradient(net, draws, method)
    torch.testing.assert_close(gradient(net, draws, "imf", rule=partial(rule, beta=beta)), expected)
    torch.testing.assert_close(gradient(net, draws, "mf", slope=partial(tangent.mixed, beta=beta)), expected)
    other = gradient(net, draws, {"mf": "imf", "imf": "mf"}[method])
    assert (expected - other).norm() > 0.1  # the two methods do differ here: the tolerance above is about 1e-4


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_the_rule_and_the_slope_agree_and_the_gradient_is_affine_in_beta(net, draws, beta):
    found = gradient(net, draws, "imf", rule=partial(rule, beta=beta))
    torch.testing.assert_close(gradient(net, draws, "mf", slope=partial(tangent.mixed, beta=beta)), found)
    ends = gradient(net, draws, "mf"), gradient(net, draws, "imf")
    torch.testing.assert_close(ends[0].lerp(ends[1], beta), found, rtol=1e-3, atol=1e-5)


def test_errors_at_the_ends_are_those_of_each_methods_gradient(net):
    x, k = datasets.points("eight_gaussians", 4096), 6
    errors = decomposition.tangent_errors(net, datasets.EIGHT, x, batch=64, batches=k)
    for beta, method in ((0.0, "mf"), (1.0, "imf")):
        many = []
        for i in range(k):
            many.append(gradient(net, decomposition.mini_batch(x, 64, DrawConfig(), i), method))
        bias, variance = decomposition.at_beta(errors, beta)
        assert variance == pytest.approx(float(torch.stack(many).var(0).sum()), rel=1e-3)
        assert bias == pytest.approx(beta * errors["bias"])


def test_the_best_beta_is_the_lowest_point():
    errors = {"bias": 2.0, "var0": 5.0, "var1": 1.0, "cov": 1.5}
    best = decomposition.best_beta(errors)
    total = {b / 100: sum(decomposition.at_beta(errors, b / 100)) for b in range(101)}
    assert min(total, key=total.get) == pytest.approx(best, abs=0.01) and 0 < best < 1
    assert decomposition.best_beta(errors, batches=1e9) == pytest.approx(0, abs=1e-6)  # with no noise, no bias


@pytest.mark.parametrize("name", tangent.FIELDS)
def test_exact_fields_are_conditional_means(name):
    """E[(e - x - v) f(z_t)] = 0 for whatever f."""
    g, n = generator("cpu", 0), 100_000
    x, e = datasets.points(name, n), torch.randn(n, 2, generator=g)
    t = 0.05 + 0.9 * torch.rand(n, 1, generator=g)
    z = (1 - t) * x + t * e
    delta = e - x - tangent.FIELDS[name].v(z, t)
    for f in (torch.ones_like(z), z, (3 * z).sin(), (z.norm(dim=1, keepdim=True) < 1) * t):
        product = delta * f
        assert (product.mean(0).abs() < 4 * product.std(0) / n**0.5).all()
    assert delta.square().mean() < (e - x).square().mean()


def test_the_exact_slope_follows_the_field(net, draws):
    z, v_cond = (1 - draws.t) * draws.x + draws.t * draws.e, draws.e - draws.x
    field = tangent.FIELDS["checkerboard"].v(z, draws.t)

    def along_field(net, z, draws, cond, own):
        return v_cond, field

    found = gradient(net, draws, "mf", slope=partial(tangent.exact, points="checkerboard"))
    torch.testing.assert_close(found, gradient(net, draws, "imf", rule=along_field))


def test_the_posterior_of_the_mixture_has_the_marginal_velocity_as_its_mean():
    z, t, n = torch.tensor([0.3, -0.2]), 0.7, 50_000
    x = datasets.EIGHT.given(z, t, n, generator("cpu", 0))
    v_cond = (z - (1 - t) * x) / t - x
    error = v_cond.mean(0) - datasets.EIGHT.v(z[None], torch.tensor([[t]]))[0]
    assert (error.abs() < 4 * v_cond.std(0) / n**0.5).all()


def test_the_sweep_runs_and_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tangent, "map_jobs", lambda work, jobs, *args, workers: [work(job, *args) for job in jobs])
    monkeypatch.setattr(tangent, "BETAS", (0.0, 1.0))
    monkeypatch.setattr(decomposition.tangent_errors, "__defaults__", (64, 2))
    tangent.main(seeds=1, steps=8, out=tmp_path, runs=tmp_path / "runs")
    rows = tables.read_table(tmp_path / "tangent.csv")
    assert [row["beta"] for row in rows] == [0, 1, "exact"] * 2
    assert all(row["sw1"] > row["floor"] > 0 and row["var0"] > 0 for row in rows)
    assert len(tangent.figure(rows).axes) == 6
