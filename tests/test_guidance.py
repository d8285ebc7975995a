"""Guidance against METHOD-by-hand in float64, row by row, and the numbers of the reference code."""

import pytest
import torch
from helpers import drawn, network, point
from parity import error, imf_network, load, mf_network, ours
from scipy import stats
from torch.testing import assert_close

from imf_lite import guidance
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig, Fixed, Flexible
from imf_lite.draws import Draws, draw, power_law
from imf_lite.objective import Objective
from imf_lite.system.rng import generator

KINDS = pytest.mark.parametrize("kind", ["mlp", "dit", "adaln", "mlp_x", "pmf"])
HEADS = pytest.mark.parametrize("v_depth", [None, 1])


def guided_draws(drop=(), dtype=torch.float64, **config) -> Draws:
    """Eight rows; half have r = t, those of `drop` no label. The last one lies outside of its interval."""
    d = drawn(dtype=dtype, guided="interval", **config)
    mask = torch.zeros(8, dtype=torch.bool)
    mask[list(drop)] = True
    t_max = torch.cat([d.t_max[:7], 0.9 * d.t.flatten()[7:]])
    return d._replace(drop=mask, t_min=torch.minimum(d.t_min, t_max), t_max=t_max)


def evaluate(net, draws: Draws, method: str, config, objective=None):
    """Target and tangent of a rule, called as the objective calls it."""
    z, _ = point(draws)
    cond = Objective(net, method).conditions(draws)
    u, v = net(z, draws.r, draws.t, cond)
    return guidance.rule(method, config)(net, z, draws, cond, (u if v is None else v).detach())


def by_hand(net, d: Draws, k: int, same: bool):
    """Row k of METHOD's steps 2 to 5: v_c and v_u by forwards of their own."""
    one = slice(k, k + 1)
    z, t = ((1 - d.t) * d.x + d.t * d.e)[one], d.t[one]
    omega = d.omega[k] if d.t_min[k] <= d.t[k].item() <= d.t_max[k] else torch.ones((), dtype=z.dtype)

    def velocity(y, w):
        return net.velocity(z, t, Cond(y.view(1), w.view(1), z.new_zeros(1), z.new_ones(1)))[0].detach()

    v_c = velocity(d.y[k], omega)
    v_u = velocity(torch.tensor(10), omega if same else torch.ones_like(omega))
    v_t = (d.e - d.x)[k]
    if d.drop[k]:
        return v_t, v_u
    return v_t + (1 - 1 / omega) * (v_c - v_u), v_c


@KINDS
@HEADS
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("drop", [(), (0, 1), (1, 4, 7), range(6), range(8)])
def test_flexible_guidance_is_the_methods(kind, v_depth, same, drop):
    net = network(kind, v_depth, torch.float64, guided="interval")
    d = guided_draws(drop)
    target, tangent = evaluate(net, d, "imf", Flexible(v_u_omega="same" if same else "one"))
    assert not target.requires_grad and not tangent.requires_grad
    for k in range(8):
        expected_target, expected_tangent = by_hand(net, d, k, same)
        assert_close(target[k], expected_target)
        if k >= d.n_eq:  # elsewhere the slope is multiplied by zero, and nobody asks
            assert_close(tangent[k], expected_tangent)
    inside = (d.t_min <= d.t.flatten()) & (d.t.flatten() <= d.t_max)
    assert inside[4:].any() and not inside[4:].all()  # both kinds of rows were tested


@KINDS
@pytest.mark.parametrize("method", ["mf", "imf"])
@pytest.mark.parametrize("config", [Fixed(3.0), Fixed(0.4, 0.5, 0.3, 0.7)])
@pytest.mark.parametrize("drop", [(), (0, 1), (1, 4, 7), range(8)])
def test_fixed_guidance_is_the_methods(kind, method, config, drop):
    net, d = network(kind, dtype=torch.float64), guided_draws(drop)._replace(omega=None, t_min=None, t_max=None)
    target, tangent = evaluate(net, d, method, config)
    z, _ = point(d)
    v_t = d.e - d.x
    v_c, v_u = (net.u(z, d.t, d.t, Cond(y)).detach() for y in (d.y, torch.full_like(d.y, 10)))
    guided = config.omega * v_t + (1 - config.omega - config.kappa) * v_u + config.kappa * v_c
    for k in range(8):
        on = config.t_start <= d.t[k].item() <= config.t_end and not d.drop[k]
        assert_close(target[k], guided[k] if on else v_t[k])
        if k >= d.n_eq:
            of_imf = v_u[k] if d.drop[k] else v_c[k]
            assert_close(tangent[k], target[k] if method == "mf" else of_imf)


@KINDS
def test_omega_one_is_no_guidance(kind):
    net, d = network(kind, 1, guided="interval"), guided_draws(dtype=torch.float32)
    target, _ = evaluate(net, d._replace(omega=torch.ones(8)), "imf", Flexible())
    v_cond = net.conditional_velocity(point(d)[0], d.x, d.e, d.t)  # e - x, clipped where x is predicted
    assert torch.equal(target, v_cond) and (kind in ("mlp_x", "pmf") or torch.equal(v_cond, d.e - d.x))
    plain, d = network(kind), d._replace(omega=None, t_min=None, t_max=None)
    target, tangent = evaluate(plain, d, "mf", Fixed(1.0))
    assert torch.equal(target, v_cond) and torch.equal(tangent, v_cond)


def test_rows_outside_the_interval_are_not_guided():
    net, d = network("dit", 1, guided="interval"), guided_draws(dtype=torch.float32)
    shut = d._replace(t_min=torch.where(torch.arange(8) < 4, 0.0, 0.9999), t_max=torch.ones(8))
    target, _ = evaluate(net, shut, "imf", Flexible())
    assert torch.equal(target[4:], (d.e - d.x)[4:]) and not torch.allclose(target[:4], (d.e - d.x)[:4])
    edge = d._replace(t_min=d.t.flatten().clone(), t_max=d.t.flatten().clone())  # both ends belong to it
    assert torch.equal(Cond(None, *edge[6:9]).omega_at(edge.t.flatten()), d.omega)


def test_the_trained_forward_is_told_raw_omega_and_interval():
    net, d = network("dit", 1, guided="interval"), guided_draws(dtype=torch.float32)
    told = {}
    for name in ("omega", "t_min", "t_max"):

        def remember(_, args, name=name):
            told.setdefault(name, args[0].clone())

        getattr(net, f"{name}_embedder").register_forward_pre_hook(remember)
    Objective(net, "imf", rule=guidance.rule("imf", Flexible()))(d)
    assert_close(told["omega"], 1 - 1 / d.omega)
    assert_close(told["t_min"], d.t_min)
    assert_close(told["t_max"], d.t_max)


@pytest.mark.parametrize("method, v_depth, config, expected", [
    ("imf", 1, Flexible(), [8, 8 + 2, 2]),  # trained forward, v_u and v_c, slope
    ("imf", None, Flexible(), [8, 8 + 2, 2]),
    ("mf", None, Fixed(2.0), [8, 8, 2]),  # without kappa no v_c
    ("mf", None, Fixed(0.5, 0.5), [8, 8 + 2, 2]),
    ("imf", None, Fixed(2.0), [8, 8 + 2, 2]),
])  # fmt: skip
def test_guidance_costs_one_forward(method, v_depth, config, expected):
    guided = "interval" if isinstance(config, Flexible) else "no"
    net, rows = network("mlp", v_depth, guided=guided), []
    net.z_embedder.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    d = drawn(p_r_neq_t=0.25, guided=guided, class_dropout=0.1)
    Objective(net, method, rule=guidance.rule(method, config))(d)
    assert rows == expected


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_omega_follows_the_power_law(beta):
    d = draw(torch.zeros(20_000, 2), None, DrawConfig(omega_beta=beta), generator("cpu", 0), "omega")

    def cdf(w):  # of density w^-beta on [1, 8]
        return torch.log(w) / torch.log(torch.tensor(8.0)) if beta == 1 else (1 - 1 / w) / (1 - 1 / 8)

    assert stats.kstest(d.omega.numpy(), lambda w: cdf(torch.tensor(w)).numpy()).pvalue > 0.01
    assert (
        stats.kstest(power_law(torch.rand(20_000), 3 - beta).numpy(), lambda w: cdf(torch.tensor(w)).numpy()).pvalue
        < 1e-9
    )
    assert d.t_min is None and d.omega.min() >= 1 and d.omega.max() <= 8


def test_the_interval_is_drawn_where_r_differs_from_t():
    d = draw(torch.zeros(10_000, 2), None, DrawConfig(), generator("cpu", 0), "interval")
    assert (d.t_min[: d.n_eq] == 0).all() and (d.t_max[: d.n_eq] == 1).all()
    for drawn_, low in ((d.t_min[d.n_eq :], 0.0), (d.t_max[d.n_eq :], 0.5)):
        assert stats.kstest(drawn_.numpy(), stats.uniform(low, 0.5).cdf).pvalue > 0.01


def test_guidance_changes_no_other_draw():
    plain, guided = drawn(class_dropout=0.3), drawn(class_dropout=0.3, guided="interval")
    for name in ("x", "e", "y", "t", "r", "drop"):
        assert torch.equal(getattr(plain, name), getattr(guided, name))


def test_independent_dropout_falls_anywhere():
    config = DrawConfig(class_dropout=0.1, dropout="independent")
    x, y = torch.zeros(20, 2), torch.zeros(20).long()
    share = torch.stack([draw(x, y, config, generator("cpu", s)).drop for s in range(2000)]).float().mean(0)
    assert (share - 0.1).abs().max() < 0.03


@pytest.mark.parametrize("name", ["beta2_drop30", "plain_l2"])
def test_imfs_guided_loss_and_every_gradient_are_the_published_ones(name):
    f, net = load(name), imf_network()
    n_eq = int(f["fm_mask"].sum())
    y, drop, omega, t_min, t_max = (f[k] for k in ("labels", "drop_mask", "omega", "t_min", "t_max"))
    draws = Draws(f["x"], f["e"], y.long(), f["t4"], f["r4"], drop, omega, t_min, t_max, n_eq)
    rule = guidance.rule("imf", Flexible())
    step = Objective(net, "imf", float(f["hyper/norm_p"]), float(f["hyper/norm_eps"]), rule)(draws)
    step.loss.backward()
    assert error(step.loss, f["out/loss"]) < 1e-5
    assert error(step.raw_u, f["out/raw_u"]) < 1e-5 and error(step.raw_v, f["out/raw_v"]) < 1e-5
    target, tangent = evaluate(net, draws, "imf", Flexible())
    assert error(target, f["out/v_g"]) < 1e-5 and error(tangent[n_eq:], f["out/v_c"][n_eq:]) < 1e-5
    for released, expected in ((k.removeprefix("grad/"), v) for k, v in f.items() if k.startswith("grad/")):
        assert error(net.get_parameter(ours(released)).grad, expected) < 1e-4, released


@pytest.mark.parametrize("name", ["default", "interval"])
def test_mfs_guided_loss_and_every_gradient_are_the_published_ones(name):
    f, net = load(name, "mf"), mf_network()
    n_eq = int((f["t"] == f["r"]).sum())
    draws = Draws(f["x"], f["e"], f["labels"].long(), f["t4"], f["r4"], f["drop_mask"], None, None, None, n_eq)
    config = Fixed(*(float(f[f"hyper/{k}"]) for k in ("omega", "kappa", "t_start", "t_end")))
    rule = guidance.rule("mf", config)
    step = Objective(net, "mf", float(f["hyper/norm_p"]), float(f["hyper/norm_eps"]), rule)(draws)
    step.loss.backward()
    assert error(step.loss, f["out/loss"]) < 1e-5 and error(step.raw_u, f["out/raw_u"]) < 1e-5
    assert error(evaluate(net, draws, "mf", config)[0], f["out/v_g"]) < 1e-5
    grads = {k.removeprefix("grad/"): v for k, v in f.items() if k.startswith("grad/")}
    assert len(grads) == len(list(net.parameters()))
    for released, expected in grads.items():
        assert error(net.get_parameter(ours(released, "mf")).grad, expected) < 1e-4, released


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="belongs to method 'imf'"):
        guidance.rule("mf", Flexible())
    with pytest.raises(ValueError, match=r"kappa in \[0, 1\)"):
        Fixed(kappa=1.0)
    with pytest.raises(ValueError, match="'both'"):
        Flexible(v_u_omega="both")
    with pytest.raises(ValueError, match="labels"):
        evaluate(network("mlp", num_classes=None), drawn()._replace(y=None, drop=None), "mf", Fixed(2.0))
    net, d = network("mlp", guided="interval"), guided_draws(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"interval \(0, 1\)"):
        Objective(net, "imf")(d._replace(t_min=torch.full((8,), 0.1)))
