"""The facts that separate MF from iMF, and the slope against finite differences."""

from functools import partial

import pytest
import torch
from helpers import drawn, gradients, network, point
from torch.testing import assert_close

from imf_lite import guidance, losses
from imf_lite.objective import Objective
from imf_lite.system.rng import generator

KINDS = pytest.mark.parametrize("kind", ["mlp", "dit", "adaln", "mlp_x", "pmf"])


@KINDS
def test_same_tangent_means_same_loss_and_gradient(kind):
    net, draws = network(kind), drawn()
    loss_mf, grad_mf = gradients(Objective(net, "mf", p=0.5), draws)
    loss_imf, grad_imf = gradients(Objective(net, "imf", p=0.5, rule=guidance.conditional), draws)
    assert_close(loss_imf, loss_mf)
    for name in grad_mf:
        assert_close(grad_imf[name], grad_mf[name], rtol=1e-4, atol=1e-5 * grad_mf[name].abs().max().item())
        assert grad_mf[name].abs().max() > 0, f"{name} does not train"


@KINDS
def test_the_tangent_alone_separates_them(kind):
    net, draws = network(kind), drawn()
    loss_mf, _ = gradients(Objective(net, "mf"), draws)
    loss_imf, _ = gradients(Objective(net, "imf", p=0), draws)
    assert abs(loss_mf - loss_imf) > 1e-3


@KINDS
def test_at_fixed_z_only_mf_feels_the_pair(kind):
    """iMF's V is a function of z_t; MF's compound, residual + v_t, changes with (x, e)."""
    net, draws = network(kind), drawn(p_r_neq_t=1.0)
    shift = 2 * torch.randn(draws.x.shape, generator=generator("cpu", 9))
    other = draws._replace(e=draws.e + shift, x=draws.x - draws.t / (1 - draws.t) * shift)
    compound = {"mf": [], "imf": []}
    for d in (draws, other):
        z, cond = point(d)
        v, h = d.e - d.x, d.t - d.r
        u = net.u(z, d.r, d.t, cond)
        slope = partial(losses.slope, net, z, d.r, d.t, cond, 0)
        v_theta = net.velocity(z, d.t, cond).detach()
        compound["mf"].append(losses.mf(u, h, v, slope) + v)
        compound["imf"].append(losses.imf(u, h, v, v_theta, slope) + v)
    assert_close(*compound["imf"], rtol=1e-3, atol=1e-3)
    change = (compound["mf"][0] - compound["mf"][1]).norm() / compound["mf"][0].norm()
    assert change > 0.05


@KINDS
def test_slope_equals_finite_differences(kind):
    net, draws = network(kind, dtype=torch.float64), drawn(dtype=torch.float64, p_r_neq_t=1.0)
    z, cond = point(draws)
    along, eps = torch.randn(z.shape, generator=generator("cpu", 8), dtype=z.dtype), 1e-6
    du_dt = losses.slope(net, z, draws.r, draws.t, cond, 0, along)
    ahead = net.u(z + eps * along, draws.r, draws.t + eps, cond)
    behind = net.u(z - eps * along, draws.r, draws.t - eps, cond)
    assert_close(du_dt, ((ahead - behind) / (2 * eps)).detach(), rtol=1e-5, atol=1e-7 * du_dt.abs().max().item())
    assert du_dt.abs().max() > 1e-2


@KINDS
@pytest.mark.parametrize("n_eq", [0, 3, 8])
def test_slope_is_zero_on_the_first_rows_and_right_on_the_others(kind, n_eq):
    net, draws = network(kind), drawn(p_r_neq_t=1.0)
    z, cond = point(draws)
    du_dt = losses.slope(net, z, draws.r, draws.t, cond, n_eq, draws.e)
    whole = losses.slope(net, z, draws.r, draws.t, cond, 0, draws.e)
    assert du_dt.shape == z.shape and not du_dt.requires_grad
    assert (du_dt[:n_eq] == 0).all()
    assert_close(du_dt[n_eq:], whole[n_eq:], rtol=1e-4, atol=1e-4)


def test_query_and_key_train_and_move_the_slope():
    """A rotary embedding through a complex view would drop both, silently."""
    net, draws = network("dit"), drawn(p_r_neq_t=1.0)
    _, grads = gradients(Objective(net, "imf"), draws)
    for name in ("q_proj", "k_proj"):
        found = [g for k, g in grads.items() if name in k]
        assert len(found) == 3 and all(g.abs().max() > 1e-8 for g in found)
    z, cond = point(draws)
    before = losses.slope(net, z, draws.r, draws.t, cond, 0, draws.e)
    net.shared_blocks[0].attn.q_norm.weight.data *= 2
    assert not torch.allclose(before, losses.slope(net, z, draws.r, draws.t, cond, 0, draws.e), rtol=1e-3)


@KINDS
@pytest.mark.parametrize("method", ["mf", "imf"])
def test_no_gradient_flows_through_the_slope(kind, method):
    """The gradient is that of the same loss with the slope's value written in as a constant."""
    net, draws = network(kind), drawn()
    kept = []

    def remembered(*args, **kwargs):
        kept.append(losses.slope(*args, **kwargs))
        return kept[-1]

    _, live = gradients(Objective(net, method, slope=remembered), draws)
    _, frozen = gradients(Objective(net, method, slope=lambda *a, **k: kept[0].clone()), draws)
    for name in live:
        assert_close(live[name], frozen[name])


@KINDS
@pytest.mark.parametrize("method", ["mf", "imf"])
def test_all_rows_at_r_equal_t_is_flow_matching(kind, method):
    net, draws = network(kind), drawn(p_r_neq_t=0.0)
    assert draws.n_eq == len(draws.x)
    loss, grads = gradients(Objective(net, method), draws)
    loss_fm, grads_fm = gradients(Objective(net, "fm"), draws)
    assert_close(loss, loss_fm)
    for name in grads:
        assert_close(grads[name], grads_fm[name])


def test_adaptive_weight():
    raw = torch.tensor([0.0, 1.0, 99.0], requires_grad=True)
    assert_close(losses.adaptive(raw, p=0, c=1.0), raw)
    weighted = losses.adaptive(raw, p=1, c=1.0)
    assert_close(weighted, torch.tensor([0.0, 0.5, 0.99]))
    weighted.sum().backward()
    assert_close(raw.grad, torch.tensor([1.0, 0.5, 0.01]))  # the weight itself has no gradient
