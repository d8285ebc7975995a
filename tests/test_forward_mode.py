"""The short way of forward mode gives what torch.func.jvp gives."""

import pytest
import torch
import torch.nn.functional as F
from helpers import drawn, network, point
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from imf_lite import losses
from imf_lite.forward_mode import jvp


@pytest.mark.parametrize(
    "kind, changes",
    [("mlp", {}), ("dit", {}), ("dit", {"modern": False}), ("adaln", {}), ("dit", {"guided": "interval"}), ("pmf", {})],
)
def test_value_and_rate_are_those_of_torch(kind, changes):
    guided = changes.get("guided", "no")
    net, draws = network(kind, 1, torch.float64, **changes), drawn(dtype=torch.float64, guided=guided, p_r_neq_t=1.0)
    z, cond = point(draws)
    at, along = (z, draws.r, draws.t), (torch.randn_like(z), torch.zeros_like(draws.r), torch.ones_like(draws.t))

    def u(z, r, t):
        return net.u(z, r, t, cond)

    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.func.jvp(u, at, along)
    with torch.no_grad():
        found = jvp(u, at, along)
    assert expected[1].abs().max() > 0.1
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=1e-11, atol=1e-11)
    with_graph = jvp(u, at, along)  # where a gradient is wanted, there is one
    assert with_graph[1].requires_grad and not found[1].requires_grad
    assert_close(with_graph[1], expected[1], rtol=1e-11, atol=1e-11)


RULES = {
    "product with a constant, either side": lambda x, c: (c * x) * c + torch.sin(x) * x,
    "constant alone": lambda x, c: (c * c).sum(-1, keepdim=True) + 0 * x,
    "linear, with and without bias": lambda x, c: F.linear(x, c.T @ c, c[0]) + F.linear(x, c.T @ c),
    "norm": lambda x, c: F.rms_norm(x, (6,), weight=c[0], eps=1e-3) * F.rms_norm(x, (6,)),
    "attention": lambda x, c: F.scaled_dot_product_attention(x[None], x[None] * 2, c[None])[0],
    "masked attention": lambda x, c: F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)[0],
    "norm, other calls": lambda x, c: F.rms_norm(x, (6,), weight=c[0]) + F.rms_norm(x, (5, 6), weight=c, eps=1e-3),
    "a weight that moves": lambda x, c: F.linear(c, x.T @ c, x[0]) + F.rms_norm(x, (6,), weight=x[0], eps=1e-3),
    "by keyword": lambda x, c: F.linear(x, weight=c, bias=c[0, :5]) @ c + x.mul(other=c),
    "broadcast": lambda x, c: x[:, :1] * c + c[:1] * x,
}


@pytest.mark.parametrize("name", RULES)
def test_every_short_rule(name):
    g = torch.Generator().manual_seed(0)
    x, x_t, c = (torch.randn(5, 6, dtype=torch.float64, generator=g) for _ in range(3))
    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.func.jvp(lambda x: RULES[name](x, c), (x,), (x_t,))
    with torch.no_grad():
        found = jvp(lambda x: RULES[name](x, c), (x,), (x_t,))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_a_derivative_that_is_not_there_is_an_error_and_not_zero():
    with pytest.raises(RuntimeError, match="gave no derivative"):
        jvp(lambda x: torch.ones(3), (torch.randn(3),), (torch.randn(3),))


@torch.no_grad()
def test_the_slope_of_a_compiled_network_is_that_of_the_network():
    """Compiled by inductor, torch before 2.14 drops tangents: du/dt was silently zero."""
    net, draws = network("mlp"), drawn(p_r_neq_t=1.0)
    z, cond = point(draws)
    expected = losses.slope(net, z, draws.r, draws.t, cond, 0, z)
    net.compile()
    net(z, draws.r, draws.t, cond)  # compiled now
    assert_close(losses.slope(net, z, draws.r, draws.t, cond, 0, z), expected)


@torch.no_grad()
def test_the_short_rules_are_taken():
    net, draws = network("dit"), drawn(p_r_neq_t=1.0)
    z, cond = point(draws)
    along = (z, torch.zeros_like(draws.r), torch.ones_like(draws.t))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        jvp(lambda z, r, t: net.u(z, r, t, cond), (z, draws.r, draws.t), along)
    seen = {event.key: event.count for event in profiler.key_averages()}
    blocks = len(net.shared_blocks)
    assert seen["ShortLinear"] >= 7 * blocks and seen["ShortNorm"] >= 4 * blocks and seen["ShortProduct"] >= 6 * blocks
