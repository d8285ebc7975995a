"""The samplers with a field that is known exactly."""

import pytest
import torch
from helpers import network
from torch import nn
from torch.testing import assert_close

from imf_lite.sampling import euler, generate, sample
from toy_experiments.ground_truth.exact import gaussian_flow, gaussian_u, gaussian_v

M, S = torch.tensor([1.0, -2.0]), 0.3


class Exact(nn.Module):
    """The true fields for x ~ N(M, S^2 I), called like a network."""

    def u(self, z, r, t, cond):
        return gaussian_u(z, r, t, M, S)

    def velocity(self, z, t, cond):
        return gaussian_v(z, t, M, S)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_exact_u_hits_the_data_in_any_number_of_steps(steps):
    e = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    x = sample(Exact(), e, steps=steps)
    assert_close(x, M + S * e, atol=1e-5, rtol=1e-5)  # the flow maps noise e to m + s e
    assert_close(x.mean(0), M, atol=0.01, rtol=0)
    assert_close(x.std(0), torch.full((2,), S), atol=0.01, rtol=0)


def test_euler_needs_many_steps_where_u_needs_one():
    e = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = e.new_ones(1000, 1)
    assert_close(euler(Exact(), e, steps=1), e - gaussian_v(e, one, M, S))  # velocity at the step's beginning
    half = e - 0.5 * gaussian_v(e, one, M, S)
    assert_close(euler(Exact(), e, steps=2), half - 0.5 * gaussian_v(half, 0.5 * one, M, S))
    errors = [(euler(Exact(), e, steps=n) - (M + S * e)).abs().max().item() for n in (1, 16, 64, 256)]
    assert errors[0] > 0.5
    assert_close(errors[3] / errors[2], 0.25, rtol=0.1, atol=0)  # first order


def test_closed_form_u_is_the_integral_of_v():
    g = torch.Generator().manual_seed(0)
    z, t = torch.randn(64, 2, generator=g, dtype=torch.float64), torch.rand(64, 1, generator=g, dtype=torch.float64)
    r, m, n = t * torch.rand(64, 1, generator=g, dtype=torch.float64), M.double(), 4000
    total = torch.zeros_like(z)
    for k in range(n):  # midpoint rule along the exact flow
        s = t - (k + 0.5) / n * (t - r)
        total += gaussian_v(gaussian_flow(z, s, t, m, S), s, m, S) / n
    assert_close(gaussian_u(z, r, t, m, S), total, atol=1e-6, rtol=1e-6)
    assert_close(gaussian_u(z, t, t, m, S), gaussian_v(z, t, m, S))


def test_generate_asks_for_each_class_in_turn_and_repeats():
    net = network("mlp")
    x, y = generate(net, 25, steps=2, seed=4, batch=10)
    assert x.shape == (25, 1, 4, 4) and y.tolist() == [i % 10 for i in range(25)]
    again, _ = generate(net, 25, steps=2, seed=4, batch=10)
    assert torch.equal(x, again)
    other, _ = generate(net, 25, steps=2, seed=5, batch=10)
    assert not torch.allclose(x, other)
    assert generate(network("mlp", num_classes=None), 5)[1] is None


def test_steps_and_conditions_are_checked():
    net = network("mlp")
    with pytest.raises(ValueError, match="steps = 0"):
        sample(net, torch.randn(2, 1, 4, 4), torch.zeros(2).long(), steps=0)
    with pytest.raises(ValueError, match="needs classes: pass y"):
        sample(net, torch.randn(2, 1, 4, 4))


class Listener:
    """A network that says what it was told."""

    guided, num_classes = "interval", 10

    def __init__(self):
        self.told = []

    def u(self, z, r, t, cond):
        self.told.append(cond)
        return torch.zeros_like(z)

    def velocity(self, z, t, cond):
        return self.u(z, t, t, cond)


def test_every_step_is_told_the_same_raw_guidance():
    net, e, y = Listener(), torch.randn(3, 2), torch.tensor([1, 2, 3])
    sample(net, e, y, steps=4, omega=5.0, interval=(0.4, 0.6))
    sample(net, e, y, omega=torch.tensor([1.0, 2.0, 3.0]))
    sample(net, e, y)
    assert len(net.told) == 6
    for cond in net.told[:4]:
        assert cond.omega.tolist() == [5, 5, 5] and torch.equal(cond.y, y)
        assert_close(cond.t_min, torch.full((3,), 0.4))
        assert_close(cond.t_max, torch.full((3,), 0.6))
    assert net.told[4].omega.tolist() == [1, 2, 3]
    assert net.told[5].omega.tolist() == [1, 1, 1] and net.told[5].t_max.tolist() == [1, 1, 1]


def test_guidance_that_the_network_does_not_know_is_refused():
    e, y = torch.randn(2, 1, 4, 4), torch.zeros(2).long()
    with pytest.raises(ValueError, match="no input for omega"):
        sample(network("mlp"), e, y, omega=2.0)
    with pytest.raises(ValueError, match="no input for interval"):
        sample(network("mlp", guided="omega"), e, y, omega=2.0, interval=(0.1, 0.9))
    with pytest.raises(ValueError, match="at least 1"):
        sample(network("mlp", guided="omega"), e, y, omega=0.5)
    with pytest.warns(UserWarning, match=r"omega 10.5 is larger than any in training, 8"):
        sample(network("mlp", guided="omega"), e, y, omega=10.5)


def test_generate_takes_classes_in_turn():
    assert generate(network("mlp"), 5, classes=(7, 3))[1].tolist() == [7, 3, 7, 3, 7]


def test_euler_applies_the_interval_itself():
    """At r = t the network knows the interval (0, 1) only."""
    net = Listener()
    euler(net, torch.randn(3, 2), torch.tensor([1, 2, 3]), steps=4, omega=5.0, interval=(0.4, 0.8))
    assert [cond.omega.tolist() for cond in net.told] == [[1] * 3, [5] * 3, [5] * 3, [1] * 3]  # t = 1, .75, .5, .25
    assert all(cond.t_min.eq(0).all() and cond.t_max.eq(1).all() for cond in net.told)


def test_requests_that_cannot_be_meant_are_refused():
    net, e, y = network("mlp", guided="interval"), torch.randn(2, 1, 4, 4), torch.zeros(2).long()
    with pytest.raises(ValueError, match="this network needs classes: pass y"):
        sample(net, e)
    with pytest.raises(ValueError, match=r"omega has shape \(3,\)"):
        sample(net, e, y, omega=torch.ones(3))
    with pytest.warns(UserWarning, match="guides nothing"):
        sample(net, e, y, interval=(0.2, 0.8))
    with pytest.raises(ValueError, match="has classes 0 to 9"):
        generate(net, 4, classes=(3, 10))
