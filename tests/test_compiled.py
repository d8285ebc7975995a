"""Compiled by blocks, a network has the loss, the gradients and the slope that it has eagerly."""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from helpers import SHAPE, drawn, gradients, network, point
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from imf_lite import guidance, losses
from imf_lite.configs import DiTConfig
from imf_lite.forward_mode import jvp
from imf_lite.networks import build
from imf_lite.networks.base import call
from imf_lite.networks.compiled import checkpoint_activations, compile_blocks
from imf_lite.objective import Objective

KINDS = [("mlp", {}), ("dit", {}), ("dit", {"modern": False}), ("adaln", {}), ("pmf", {})]


@pytest.fixture(autouse=True)
def apart():
    torch._dynamo.reset()


def objectives(kind, method, bf16=False, backend="eager", dtype=torch.float32, **changes):
    """Two losses on equal networks, the second compiled by blocks."""
    made = []
    for _ in range(2):
        guided = "interval" if method == "imf" else "no"
        net = network(kind, 1 if method == "imf" else None, dtype, guided=guided, **changes)
        given = guidance.Flexible() if method == "imf" else guidance.Fixed(2.0, kappa=0.3)
        made.append(Objective(net, method, rule=guidance.rule(method, given), bf16=bf16))
    compile_blocks(made[1].net, backend)
    return *made, drawn(dtype=dtype, guided=guided, class_dropout=0.3)


def assert_same(eager, compiled, draws, rtol=1e-5):
    (loss, grads), (found, of_blocks) = gradients(eager, draws), gradients(compiled, draws)
    assert_close(found, loss, rtol=rtol, atol=0)
    for name, g in grads.items():
        assert_close(of_blocks[name], g, rtol=rtol, atol=rtol * g.abs().max().item(), msg=name)


def flat(objective, draws):
    return torch.cat([g.flatten() for g in gradients(objective, draws)[1].values()])


@pytest.mark.parametrize("method", ["mf", "imf"])
@pytest.mark.parametrize("kind, changes", KINDS)
def test_loss_and_gradients_are_those_of_eager_mode(kind, changes, method):
    eager, compiled, draws = objectives(kind, method, dtype=torch.float64, **changes)
    assert_same(eager, compiled, draws, rtol=1e-10)
    assert len(compiled.net.run.with_tangent) == 1  # one graph, used for every block
    assert_same(eager, compiled, draws, rtol=1e-10)


def test_inductor_gives_the_same():
    eager, compiled, draws = objectives("mlp", "imf", backend="inductor")
    assert_same(eager, compiled, draws, rtol=1e-4)


def test_in_bfloat16_the_difference_is_one_of_rounding():
    """By the gradients: the weighted loss is near 2 whatever happens."""
    eager, compiled, draws = objectives("dit", "imf", bf16=True)
    low, found = flat(eager, draws), flat(compiled, draws)
    eager.bf16 = False
    exact = flat(eager, draws)
    rounding = (low - exact).norm() / exact.norm()
    assert 1e-4 < rounding < 0.05 and (found - exact).norm() / exact.norm() < 2 * rounding


def test_the_slope_is_the_derivative():
    """Against torch.func.jvp of the eager network, in float64."""
    net, draws = network("dit", 1, torch.float64), drawn(dtype=torch.float64, p_r_neq_t=1.0)
    z, cond = point(draws)
    at = (z, draws.r, draws.t), (z, torch.zeros_like(draws.r), torch.ones_like(draws.t))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        expected = torch.func.jvp(lambda *p: net.u(*p, cond), *at)[1]
    compile_blocks(net, "eager")
    assert_close(losses.slope(net, z, draws.r, draws.t, cond, 0, z), expected, rtol=1e-11, atol=1e-11)
    assert len(net.run.with_tangent) == 1
    with_graph = jvp(lambda *p: net.u(*p, cond), *at)[1]  # where a gradient is wanted
    assert with_graph.requires_grad
    assert_close(with_graph, expected, rtol=1e-11, atol=1e-11)


def test_every_shape_has_a_graph_of_its_own():
    net = network("dit", 1)
    compile_blocks(net, "eager")
    for p_r_neq_t in (0.5, 1.0):
        draws = drawn(p_r_neq_t=p_r_neq_t)
        z, cond = point(draws)
        losses.slope(net, z, draws.r, draws.t, cond, draws.n_eq, z)
    assert len(net.run.with_tangent) == 2


def test_a_copy_runs_eagerly():
    net = network("dit", 1)
    compile_blocks(net, "eager")
    assert deepcopy(net).run is call and net.run is not call
    assert deepcopy(net).state_dict().keys() == network("dit", 1).state_dict().keys()


def test_blocks_of_different_weights_share_a_graph_and_keep_their_weights():
    """A graph that had kept the first block's weights would make all blocks equal."""
    net = build(DiTConfig(width=16, depth=3, heads=2, patch=2), SHAPE, 10)
    g = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=g)
    draws = drawn(p_r_neq_t=1.0)
    z, cond = point(draws)
    expected = losses.slope(net, z, draws.r, draws.t, cond, 0, z)
    compile_blocks(net, "eager")
    assert_close(losses.slope(net, z, draws.r, draws.t, cond, 0, z), expected, rtol=1e-4, atol=1e-5)
    weights = [b.attn.q_proj.weight for b in (*net.shared_blocks, *net.u_heads)]
    assert len(weights) == 3 and all((a != b).any() for a, b in pairwise(weights))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind, method", [("mlp", "imf"), ("dit", "imf"), ("adaln", "mf"), ("pmf", "imf")])
def test_without_kept_activations_the_gradients_are_the_same(kind, method, compiled):
    eager, other, draws = objectives(kind, method)
    if not compiled:
        other.net.run = call
    checkpoint_activations(other.net)
    assert_same(eager, other, draws)


def test_fewer_activations_are_kept():
    def kept(objective, draws):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            objective(draws)
        return sum(sizes)

    eager, other, draws = objectives("dit", "imf")
    other.net.run = call
    checkpoint_activations(other.net)
    assert kept(other, draws) < 0.4 * kept(eager, draws)
