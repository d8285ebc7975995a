"""One contract for every network; the in-context DiT against its reference."""

import pytest
import torch
from helpers import drawn, network, point
from parity import error, imf_network, load
from torch.testing import assert_close

from imf_lite.conditions import Cond
from imf_lite.networks import DiTConfig, MLPConfig, build
from imf_lite.networks.layers import rope_table, rotate

KINDS = pytest.mark.parametrize("kind", ["mlp", "dit"])


def call(net, draws, need="uv"):
    z, cond = point(draws)
    return net(z, draws.r, draws.t, cond, need=need)


@KINDS
@pytest.mark.parametrize("v_depth", [0, 1, 3])
def test_each_branch_alone_equals_the_joint_forward(kind, v_depth):
    net, draws = network(kind, v_depth), drawn()
    u, v = call(net, draws)
    assert u.shape == v.shape == draws.x.shape
    assert_close(call(net, draws, "u")[0], u)
    assert_close(call(net, draws, "v")[1], v)
    assert call(net, draws, "u")[1] is None and call(net, draws, "v")[0] is None
    assert not torch.allclose(u, v)


@KINDS
def test_a_branch_alone_does_not_run_the_other(kind):
    net, draws = network(kind, 2), drawn()
    ran = set()
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    call(net, draws, "v")
    assert not any(n.startswith(("u_head", "u_heads", "u_final")) for n in ran) and any("v_" in n for n in ran)
    ran.clear()
    call(net, draws, "u")
    assert not any(n.startswith(("v_head", "v_heads", "v_blocks", "v_final")) for n in ran)


@KINDS
def test_the_v_branch_changes_no_weight_of_the_u_path(kind):
    config = {"mlp": MLPConfig(width=16, depth=3), "dit": DiTConfig(width=24, depth=3, heads=2)}[kind]
    plain = build(config, (1, 4, 4), 10)
    headed = build(config.__class__(**(config.__dict__ | {"v_depth": 2})), (1, 4, 4), 10)
    ours, theirs = list(plain.parameters()), list(headed.parameters())
    assert len(theirs) > len(ours)
    for a, b in zip(ours, theirs, strict=False):
        assert torch.equal(a, b)


@KINDS
def test_a_new_network_outputs_zero(kind):
    net = build(
        {"mlp": MLPConfig(v_depth=1), "dit": DiTConfig(width=24, depth=2, heads=2, v_depth=1)}[kind], (1, 4, 4), 10
    )
    u, v = call(net, drawn())
    assert (u == 0).all() and (v == 0).all()


@KINDS
def test_velocity_is_the_head_at_r_equal_t_or_the_boundary(kind):
    draws = drawn()
    z, cond = point(draws)
    plain, headed = network(kind), network(kind, 1)
    assert_close(plain.velocity(z, draws.t, cond), plain.u(z, draws.t, draws.t, cond))
    assert_close(headed.velocity(z, draws.t, cond), headed.v(z, draws.t, draws.t, cond))


@KINDS
@pytest.mark.parametrize(
    "change, message",
    [
        ({"t": 1.2}, "lie in"),
        ({"t": float("nan")}, "lie in"),
        ({"r": 0.9}, "r > t"),
        ({"flat": True}, r"t has shape \(8,\).*needs \(8, 1, 1, 1\)"),
        ({"rows": 3}, r"a batch of 8 needs \(8,\)"),
        ({"y": 11}, "labels are 0 to 9"),
        ({"y": 0.5}, "integers"),
        ({"omega": True}, "without the condition omega"),
        ({"y": None}, "needs the condition y"),
        ({"z": torch.uint8}, "floating point"),
        ({"z": (2, 4, 4)}, r"shape \(2, 4, 4\); this network was built for \(1, 4, 4\)"),
    ],
)
def test_bad_input_is_one_clear_error(kind, change, message):
    net = network(kind)
    z, r, t, y = torch.randn(8, 1, 4, 4), torch.full((8, 1, 1, 1), 0.2), torch.full((8, 1, 1, 1), 0.8), torch.zeros(8)
    cond = Cond(y.long())
    match change:
        case {"t": value}:
            t = t * 0 + value
        case {"r": value}:
            r = r * 0 + value
        case {"flat": _}:
            t = t.flatten()
        case {"rows": n}:
            cond = cond.rows(slice(n))
        case {"y": None}:
            cond = Cond()
        case {"y": value}:
            cond = Cond(torch.full((8,), value))
        case {"omega": _}:
            cond = cond._replace(omega=torch.ones(8))
        case {"z": torch.dtype() as dtype}:
            z = z.to(dtype)
        case {"z": shape}:
            z = torch.randn(8, *shape)
    with pytest.raises(ValueError, match=message):
        net(z, r, t, cond)


def test_no_head_no_v():
    with pytest.raises(ValueError, match="no v-head"):
        call(network("mlp"), drawn(), "v")
    with pytest.raises(ValueError, match="v_depth = 4"):
        build(MLPConfig(depth=3, v_depth=4), (2,), None)
    with pytest.raises(ValueError, match="even width"):
        DiTConfig(width=30, heads=6)
    with pytest.raises(ValueError, match="patch 2 does not divide"):
        build(DiTConfig(width=24, heads=2), (1, 5, 5), 10)


def test_rope_equals_complex_multiplication():
    x = torch.randn(2, 3, 7, 8)
    angle = torch.arange(7)[:, None] * 1e4 ** (-2 * torch.arange(4) / 8)
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
    assert_close(rotate(x, *rope_table(7, 8)), torch.view_as_real(turned).flatten(-2))


def test_dit_forward_is_the_published_one():
    f = load("forward")
    u, v = imf_network()(f["z"], f["t4"] - f["h4"], f["t4"], Cond(f["y"], f["omega"], f["t_min"], f["t_max"]))
    assert error(u, f["u"]) < 1e-5 and error(v, f["v"]) < 1e-5


@pytest.mark.parametrize(
    "width, depth, heads, parameters, with_v",
    [
        (768, 12, 12, 88_948_256, 145_596_960),
        (768, 24, 12, 173_921_312, 230_570_016),
        (1024, 32, 16, 409_071_648, 509_752_352),
        (1024, 48, 16, 610_433_056, 711_113_760),
    ],
)
def test_parameter_counts_are_the_papers(width, depth, heads, parameters, with_v):
    """B/2, M/2, L/2 and XL/2 on 4 x 32 x 32 latents; the smaller count has the v-branch's final layer only."""
    with torch.device("meta"):
        for v_depth, expected in ((0, parameters), (8, with_v)):
            config = DiTConfig(width=width, depth=depth, heads=heads, v_depth=v_depth, guided="interval")
            net = build(config, (4, 32, 32), 1000)
            assert sum(p.numel() for p in net.parameters()) == expected
