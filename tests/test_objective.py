"""The step as a whole: the published loss and every gradient, labels, and what is refused."""

import pytest
import torch
from helpers import drawn, network
from parity import error, imf_network, load, ours
from torch.testing import assert_close

from imf_lite import guidance
from imf_lite.draws import Draws
from imf_lite.objective import Objective


@pytest.mark.parametrize("name", ["beta2_drop30", "plain_l2"])
def test_loss_and_every_gradient_are_the_published_ones(name):
    """The recorded guided target and tangent are fed in; everything else is computed."""
    f, net = load(name), imf_network()
    n_eq = int(f["fm_mask"].sum())
    assert f["fm_mask"][:n_eq].all()
    y, drop, omega, t_min, t_max = (f[k] for k in ("labels", "drop_mask", "omega", "t_min", "t_max"))
    draws = Draws(f["x"], f["e"], y.long(), f["t4"], f["r4"], drop, omega, t_min, t_max, n_eq)
    recorded = (f["out/v_g"], f["out/v_c"])
    objective = Objective(net, "imf", float(f["hyper/norm_p"]), float(f["hyper/norm_eps"]), rule=lambda *_: recorded)
    step = objective(draws)
    step.loss.backward()
    assert error(step.loss, f["out/loss"]) < 1e-5
    assert error(step.raw_u, f["out/raw_u"]) < 1e-5 and error(step.raw_v, f["out/raw_v"]) < 1e-5
    h_du_dt = (f["t4"] - f["r4"]) * f["out/du_dt"]
    assert error(step.h_du_dt[n_eq:], h_du_dt.flatten(1).norm(dim=1)[n_eq:]) < 1e-5
    grads = {k.removeprefix("grad/"): v for k, v in f.items() if k.startswith("grad/")}
    parameters = dict(net.named_parameters())
    assert len(grads) == len(parameters) == 121
    for released, expected in grads.items():
        assert error(parameters[ours(released)].grad, expected) < 1e-4, released


def test_a_dropped_row_is_told_no_class():
    net, draws = network("mlp"), drawn()
    told = []
    net.conditioning.y_embedder.register_forward_pre_hook(lambda _, args: told.append(args[0].clone()))
    Objective(net, "mf")(draws._replace(drop=torch.arange(8) < 3))
    assert (told[0][:3] == 10).all() and torch.equal(told[0][3:], draws.y[3:])


@pytest.mark.parametrize("v_depth", [None, 1])
def test_unguided_imf_regresses_e_minus_x_along_its_own_velocity(v_depth):
    net, draws = network("dit", v_depth), drawn()
    z = (1 - draws.t) * draws.x + draws.t * draws.e
    cond = Objective(net, "imf").conditions(draws)
    u, v = net(z, draws.r, draws.t, cond)
    target, tangent = guidance.predicted(net, z, draws, cond, (u if v is None else v).detach())
    assert_close(target, draws.e - draws.x)
    assert_close(tangent, net.velocity(z, draws.t, cond).detach())  # also where it was taken from the trained forward
    assert not tangent.requires_grad


def test_the_head_is_trained_on_all_rows_and_reported():
    net, draws = network("mlp", 1), drawn()
    step = Objective(net, "imf", p=0)(draws)
    z = (1 - draws.t) * draws.x + draws.t * draws.e
    v = net.v(z, draws.r, draws.t, Objective(net, "imf").conditions(draws))
    assert_close(step.raw_v, (v - (draws.e - draws.x)).flatten(1).square().sum(1).detach())
    assert_close(step.loss, (step.raw_u + step.raw_v).mean())
    assert not any(s.requires_grad for s in step[1:])


def test_forward_passes_are_as_few_as_promised():
    """One trained forward; iMF's v_theta and every slope on the rows with r < t only."""
    draws = drawn(batch=8, p_r_neq_t=0.25)
    for method, v_depth, expected in (
        ("fm", None, [8]),
        ("mf", None, [8, 2]),
        ("imf", None, [8, 2, 2]),
        ("imf", 1, [8, 2, 2]),
    ):
        net, rows = network("mlp", v_depth), []
        net.z_embedder.register_forward_pre_hook(lambda _, args, rows=rows: rows.append(len(args[0])))
        Objective(net, method)(draws._replace(r=draws.t, n_eq=8) if method == "fm" else draws)
        assert rows == expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_eq": 9}, "n_eq = 9"),
        ({"n_eq": 6}, "r = t"),
        ({"e": torch.zeros(7, 1, 4, 4)}, r"draws.e has shape \(7, 1, 4, 4\)"),
        ({"x": torch.zeros(8, 1, 4, 4, dtype=torch.int32)}, "floating point"),
        ({"y": torch.full((8,), 12)}, "labels are 0 to 9"),
        ({"r": torch.ones(8, 1, 1, 1), "n_eq": 0}, "r > t"),
        ({"omega": torch.ones(8)}, "without the condition omega"),
    ],
)
def test_bad_draws_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Objective(network("mlp"), "imf")(drawn()._replace(**change))


def test_methods_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="'meanflow'"):
        Objective(network("mlp"), "meanflow")
    for method in ("mf", "fm"):
        with pytest.raises(ValueError, match="v_depth=None"):
            Objective(network("mlp", 1), method)
    with pytest.raises(ValueError, match="flow matching"):
        Objective(network("mlp"), "fm")(drawn())
