"""One contract for every network; both transformers against their references, and at their published sizes."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import CONFIGS, SHAPE, drawn, network, point
from parity import error, imf_network, load, mf_network
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from imf_lite import losses
from imf_lite.conditions import Cond
from imf_lite.configs import PRESETS, DiTConfig, MLPConfig
from imf_lite.networks import build
from imf_lite.networks.layers import rope_table, rotate, sincos_positions

KINDS = pytest.mark.parametrize("kind", ["mlp", "dit", "adaln", "mlp_x", "pmf"])


def call(net, draws, need="uv"):
    z, cond = point(draws)
    return net(z, draws.r, draws.t, cond, need=need)


@KINDS
@pytest.mark.parametrize("v_depth", [0, 1, 3])
def test_each_branch_alone_equals_the_joint_forward(kind, v_depth):
    net, draws = network(kind, v_depth, guided="interval"), drawn(guided="interval")
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
    assert not any(n.startswith(("u_head", "u_heads", "u_final", "final_layer")) for n in ran) and any(
        "v_" in n for n in ran
    )
    ran.clear()
    call(net, draws, "u")
    assert not any(n.startswith(("v_head", "v_heads", "v_blocks", "v_final")) for n in ran)


@KINDS
def test_the_v_branch_changes_no_weight_of_the_u_path(kind):
    plain = build(CONFIGS[kind], SHAPE, 10)
    headed = build(replace(CONFIGS[kind], v_depth=2), SHAPE, 10)
    ours, theirs = list(plain.parameters()), list(headed.parameters())
    assert len(theirs) > len(ours)
    for a, b in zip(ours, theirs, strict=False):
        assert torch.equal(a, b)


@KINDS
def test_a_new_network_outputs_zero(kind):
    net = build(replace(CONFIGS[kind], v_depth=1), SHAPE, 10)
    draws = drawn()
    u, v = call(net, draws)
    if net.config.predict == "x":  # the output is the image
        state = net.trunk(point(draws)[0], draws.r, draws.t, point(draws)[1])
        u, v = net.u_branch(*state), net.v_branch(*state)
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


def test_adaln_forward_is_the_published_one():
    f = load("forward", "mf")
    u, v = mf_network()(f["z"], f["t4"] - f["h4"], f["t4"], Cond(f["y"]))
    assert error(u, f["u"]) < 1e-5 and v is None


@KINDS
@pytest.mark.parametrize("guided, known", [("omega", ["omega"]), ("interval", ["omega", "t_min", "t_max"])])
def test_a_guided_network_hears_each_of_its_conditions(kind, guided, known):
    net, draws = network(kind, guided=guided), drawn(guided="interval")
    z, cond = point(draws)
    cond = cond._replace(**{k: None for k in ("omega", "t_min", "t_max") if k not in known})
    u = net.u(z, draws.r, draws.t, cond)
    for name in known:
        other = getattr(cond, name).flip(0)
        if name != "omega":
            other = torch.full_like(other, 0.25 if name == "t_min" else 0.75)
        assert not torch.allclose(net.u(z, draws.r, draws.t, cond._replace(**{name: other})), u)
        with pytest.raises(ValueError, match=f"needs the condition {name}"):
            net.u(z, draws.r, draws.t, cond._replace(**{name: None}))


@KINDS
def test_guidance_inputs_change_no_other_initial_weight(kind):
    plain, guided = (build(replace(CONFIGS[kind], v_depth=1, guided=g), SHAPE, 10) for g in ("no", "interval"))
    theirs = dict(guided.named_parameters())
    assert len(theirs) > len(list(plain.parameters()))
    for name, p in plain.named_parameters():
        other = theirs[name]
        if name == "pos_embed":  # guidance has positions of its own: those of the patches are the same
            p, other = p[-4:], other[-4:]
        assert torch.equal(p, other), name


@pytest.mark.parametrize("omega, t_min, t_max", [(0.5, 0, 1), (float("nan"), 0, 1), (2, 0.6, 0.4), (2, -0.1, 1)])
def test_impossible_guidance_is_refused(omega, t_min, t_max):
    draws = drawn()
    z, cond = point(draws)
    cond = cond._replace(
        **{k: torch.full((8,), float(v)) for k, v in zip(cond._fields[1:], (omega, t_min, t_max), strict=True)}
    )
    with pytest.raises(ValueError, match=r"omega = |interval must be"):
        network("dit", guided="interval").u(z, draws.r, draws.t, cond)


def test_the_prefix_is_class_omega_t_min_t_max_h_and_then_the_patches():
    net, draws = imf_network(), drawn(shape=(3, 8, 8), guided="interval")
    z, cond = point(draws)
    seen = []
    net.shared_blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net.u(z, draws.r, draws.t, cond)
    groups = net.condition_tokens(draws.t - draws.r, cond)
    assert [(k, v.shape[1]) for k, v in groups.items()] == [
        ("class", 8),
        ("omega", 4),
        ("t_min", 2),
        ("t_max", 2),
        ("h", 4),
    ]
    assert_close(seen[0], torch.cat([*groups.values(), net.x_embedder(z)], 1))


def test_only_h_tells_the_in_context_dit_the_time():
    net, draws = network("dit"), drawn(p_r_neq_t=1.0)
    z, cond = point(draws)
    assert_close(net.u(z, draws.r, draws.t, cond), net.u(z, torch.zeros_like(draws.r), draws.t - draws.r, cond))
    net = network("adaln")
    assert not torch.allclose(net.u(z, draws.r, draws.t, cond), net.u(z, draws.r * 0, draws.t - draws.r, cond))


def test_t_is_an_input_where_it_is_asked_for():
    """Besides h; its slope is that of finite differences, and all other weights are those of the network without."""
    config, other = (replace(CONFIGS["dit"], guided="interval", t_input=k) for k in (True, False))
    nets = [build(c, SHAPE, 10, seed=4) for c in (config, other)]
    weights = [net.state_dict() for net in nets]
    more = weights[0].keys() - weights[1].keys()
    assert {name.split(".")[0] for name in more} == {"t_embedder"} and not weights[1].keys() - weights[0].keys()
    assert all(torch.equal(weights[0][k], v) for k, v in weights[1].items())
    assert not torch.equal(nets[0].t_embedder.mlp[0].weight, nets[0].omega_embedder.mlp[0].weight)

    net, draws = network("dit", dtype=torch.float64, t_input=True), drawn(dtype=torch.float64, p_r_neq_t=1.0)
    z, cond = point(draws)
    t, r = draws.t.clamp(max=0.9), draws.r.clamp(max=0.5)
    moved = net.u(z, r + 0.05, t + 0.05, cond)
    assert (moved - net.u(z, r, t, cond)).abs().max() > 1e-3  # the same h
    slope = losses.slope(net, z, r, t, cond, 0, along=torch.zeros_like(z))
    step = 1e-6
    finite = (net.u(z, r, t + step, cond) - net.u(z, r, t - step, cond)) / (2 * step)
    assert_close(slope, finite, rtol=1e-5, atol=1e-7)


def test_sincos_positions_are_column_then_row():
    found = sincos_positions((2, 3), 8)
    row, column = 1, 2
    expected = [f(p * 1e4 ** (-i / 2)) for p in (column, row) for f in (math.sin, math.cos) for i in (0, 1)]
    assert_close(found[row * 3 + column], torch.tensor(expected))


def parameters(net) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name, without, with_v", [
    ("imf_b2", 88_948_256, 145_596_960),
    ("imf_m2", 173_921_312, 230_570_016),
    ("imf_l2", 409_071_648, 509_752_352),
    ("imf_xl2", 610_433_056, 711_113_760),
])  # fmt: skip
def test_in_context_parameter_counts_are_the_papers(name, without, with_v):
    """On 4 x 32 x 32 latents; the smaller count has the v-branch's final layer only."""
    with torch.device("meta"):
        for v_depth, expected in ((0, without), (8, with_v)):
            assert parameters(build(replace(PRESETS[name], v_depth=v_depth), (4, 32, 32), 1000)) == expected


@pytest.mark.parametrize("name, expected", [
    ("mf_s4", 33_142_336),
    ("mf_b4", 131_165_248),
    ("mf_b2", 131_091_472),
    ("mf_m2", 308_019_216),
    ("mf_l2", 459_137_040),
    ("mf_xl2", 676_440_592),
])  # fmt: skip
def test_adaln_parameter_counts_are_the_papers(name, expected):
    with torch.device("meta"):
        assert parameters(build(PRESETS[name], (4, 32, 32), 1000)) == expected


def test_in_context_conditioning_saves_a_third():
    """133M to 89M at B/2: adaLN-zero with omega, t_min and t_max summed, against tokens."""
    with torch.device("meta"):
        adaln = parameters(build(replace(PRESETS["mf_b2"], guided="interval"), (4, 32, 32), 1000))
        tokens = parameters(build(replace(PRESETS["imf_b2"], v_depth=None), (4, 32, 32), 1000))
    assert adaln == 131_091_472 + 3 * 787_968 == 133_455_376
    assert 0.32 < 1 - tokens / adaln < 0.35


@pytest.mark.parametrize("name, giga", [("imf_b2", 24.9), ("imf_m2", 49.7), ("imf_l2", 116), ("imf_xl2", 174)])
def test_multiply_adds_are_the_papers(name, giga):
    """The paper's "Gflops" are multiply-adds of u alone: FlopCounterMode counts two operations for each."""
    with torch.device("meta"):
        net = build(replace(PRESETS[name], v_depth=None), (4, 32, 32), 1000)
        z, one = torch.zeros(1, 4, 32, 32), torch.ones(1)
        cond = Cond(torch.zeros(1, dtype=torch.long), one, 0 * one, one)
        with FlopCounterMode(display=False) as counter:
            net.u(z, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), cond)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize("name", ["mf_tiny", "imf_tiny"])
def test_tiny_presets_run(name):
    net, guided = build(PRESETS[name], (1, 8, 8), 10), PRESETS[name].guided
    z, cond = point(draws := drawn(shape=(1, 8, 8), guided=guided))
    assert net.u(z, draws.r, draws.t, cond).shape == z.shape


@pytest.mark.parametrize("kind", ["mlp", "adaln"])
def test_summed_conditions_are_a_sum_with_omega_as_one_minus_its_inverse(kind):
    net, d = network(kind, guided="interval"), drawn(guided="interval")
    c = net.conditioning
    parts = [c.t_embedder(d.t), c.h_embedder(d.t - d.r), c.y_embedder(d.y), c.omega_embedder(1 - 1 / d.omega)]
    parts += [c.t_min_embedder(d.t_min), c.t_max_embedder(d.t_max)]
    assert_close(c(d.r, d.t, point(d)[1]), sum(parts))
