"""MF's relatives are tied to the two losses, and to the exact average velocity of a Gaussian."""

import pytest
import torch
from helpers import drawn, gradients, network, tiny
from torch.testing import assert_close

from imf_lite import relatives
from imf_lite.conditions import Cond
from imf_lite.configs import DrawConfig
from imf_lite.draws import draw
from imf_lite.objective import Objective
from imf_lite.recipes import get
from imf_lite.recipes.recipe import override
from imf_lite.system.rng import generator
from imf_lite.training.loop import train


def graded(method: str, slope=None, kind: str = "mlp", **config):
    """Loss and gradients of plain L2, in float64."""
    net = network(kind, None, torch.float64)
    more = {} if slope is None else {"slope": slope}
    return gradients(Objective(net, method, p=0, **more), drawn(dtype=torch.float64, **config))


def assert_same(a, b, **tolerance):
    assert_close(a[0], b[0], **tolerance)
    for name in a[1]:
        assert_close(a[1][name], b[1][name], msg=name, **tolerance)


@pytest.mark.parametrize("kind", ["mlp", "dit", "pmf"])
@pytest.mark.parametrize("beta, method", [(0.0, "mf"), (1.0, "imf")])
def test_the_mixed_tangent_ends_at_mf_and_at_imf(kind, beta, method):
    assert_same(graded("mf", relatives.slope("mixed", beta), kind), graded(method, kind=kind), rtol=1e-9, atol=1e-12)


def test_the_mixed_tangent_is_affine_in_between():
    net, d = network("mlp", None, torch.float64), drawn(dtype=torch.float64)
    arguments = (net, (1 - d.t) * d.x + d.t * d.e, d.r, d.t, Cond(d.y), d.n_eq, d.e - d.x)
    zero, half, one = (relatives.mixed(*arguments, beta=b) for b in (0.0, 0.5, 1.0))
    assert_close(half, (zero + one) / 2)
    assert not torch.allclose(zero, one)


@pytest.mark.parametrize("kind", ["mlp", "dit", "pmf"])
def test_the_chord_becomes_the_derivative_and_at_one_flow_matching(kind):
    mf = graded("mf", kind=kind)
    far, near = (graded("mf", relatives.slope("chord", a), kind) for a in (1e-2, 1e-3))
    distance = [max((g[1][k] - mf[1][k]).abs().max() for k in mf[1]) for g in (far, near)]
    assert distance[1] < 0.2 * distance[0]  # of first order in alpha
    still = graded("mf", lambda *_, along: torch.zeros_like(along), kind)
    assert_same(graded("mf", relatives.slope("chord", 1.0), kind), still)


class Gaussian:
    """The exact flow of N(mean, std^2) data as a network: u and v in closed form."""

    def __init__(self, mean: float, std: float):
        self.mean, self.std = mean, std

    def scale(self, t):
        return ((1 - t).square() * self.std**2 + t.square()).sqrt()

    def moved(self, z, t, s):
        """z at time t, carried by the flow to time s."""
        return (1 - s) * self.mean + self.scale(s) / self.scale(t) * (z - (1 - t) * self.mean)

    def u(self, z, r, t, cond=None):
        h = (t - r).clamp(min=1e-9)
        return torch.where(r < t, (z - self.moved(z, t, r)) / h, self.velocity(z, t))

    def velocity(self, z, t, cond=None):
        growth = (t - (1 - t) * self.std**2) / self.scale(t).square()
        return -self.mean + growth * (z - (1 - t) * self.mean)


def fixed_point_error(slope, std: float) -> float:
    """Largest residual of MF's loss at the exact u, with the marginal velocity in the place of v_cond, its mean."""
    exact, g = Gaussian(0.7, std), generator("cpu", 0)
    t = 0.3 + 0.7 * torch.rand(500, 1, generator=g, dtype=torch.float64)
    r = t * torch.rand(500, 1, generator=g, dtype=torch.float64)
    z = (1 - t) * 0.7 + exact.scale(t) * torch.randn(500, 1, generator=g, dtype=torch.float64)
    v = exact.velocity(z, t)  # the residual is affine in v_cond here, as u is in z
    residual = exact.u(z, r, t) - (v - (t - r) * slope(exact, z, r, t, Cond(), 0, along=v))
    return float(residual.abs().max())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_exact_u_is_a_fixed_point_of_every_tangent(share):
    assert fixed_point_error(relatives.slope("mixed", share), 0.4) < 1e-6


def test_the_exact_u_is_a_fixed_point_of_splitting():
    assert fixed_point_error(relatives.split, 0.4) < 1e-9


def test_the_chord_is_exact_on_straight_paths_and_of_first_order_on_curved_ones():
    assert fixed_point_error(relatives.slope("chord", 0.5), 1e-6) < 1e-4  # all paths lead straight to one point
    errors = [fixed_point_error(relatives.slope("chord", a), 0.4) for a in (0.2, 0.1, 0.05)]
    assert errors[0] > 1.7 * errors[1] > 1.7**2 * errors[2] > 1e-3


def test_a_wrong_u_is_no_fixed_point_of_splitting():
    class Wrong(Gaussian):
        def u(self, z, r, t, cond=None):
            return super().u(z, r, t) + (t - r)

    exact, wrong = Gaussian(0.7, 0.4), Wrong(0.7, 0.4)
    t, r, z = (torch.full((4, 1), x, dtype=torch.float64) for x in (0.9, 0.1, 0.3))
    v = exact.velocity(z, t)
    residual = wrong.u(z, r, t) - (v - (t - r) * relatives.split(wrong, z, r, t, Cond(), 0, along=v))
    assert residual.abs().min() > 0.1


def test_consistency_training_is_the_chord_with_r_at_zero():
    """x0(z, t) = z - t u(z, 0, t) is regressed on x0 at the earlier time t' = (1 - alpha) t of the same pair."""
    net, alpha, g = network("mlp", None, torch.float64), 0.25, generator("cpu", 1)
    x = torch.randn(8, 1, 4, 4, generator=g, dtype=torch.float64)
    d, cond = draw(x, None, DrawConfig(p_r_neq_t=1.0, r_zero=True), g), Cond(torch.zeros(8, dtype=torch.int64))
    t = d.t.double()
    assert (d.r == 0).all() and (t > 0).all()
    z, zero, v_cond = (1 - t) * d.x + t * d.e, torch.zeros_like(t), d.e - d.x
    mf = net.u(z, zero, t, cond) - (v_cond - t * relatives.chord(net, z, zero, t, cond, 0, along=v_cond, alpha=alpha))
    early = t - alpha * t
    z_early = (1 - early) * d.x + early * d.e
    x0 = z - t * net.u(z, zero, t, cond)
    x0_early = z_early - early * net.u(z_early, zero, early, cond)
    assert_close(x0_early - x0, alpha * t * mf)


@pytest.mark.parametrize("kind", ["mixed", "chord", "split"])
def test_slopes_are_zero_where_r_equals_t_and_carry_no_gradient(kind):
    net = network("mlp", None, torch.float64).requires_grad_(True)
    for share in (0.0, 0.5, 1.0):
        d = drawn(dtype=torch.float64, p_r_neq_t=share)
        z = (1 - d.t) * d.x + d.t * d.e
        found = relatives.slope(kind, 0.5)(net, z, d.r, d.t, Cond(d.y), d.n_eq, along=d.e - d.x)
        assert found.shape == z.shape and not found.requires_grad and (found[: d.n_eq] == 0).all()


def test_a_finite_chord_has_another_fixed_point():
    """For data and noise N(0, 1) the true u(e, 0, 1) is 0: MF's mean residual is 0 there, a long chord's is not."""
    g, one = generator("cpu", 1), torch.ones(400_000, 1, dtype=torch.float64)
    exact, (e, x) = Gaussian(0.0, 1.0), torch.randn(2, len(one), 1, generator=g, dtype=torch.float64)

    def residual(alpha):
        slope = relatives.chord(exact, e, 0 * one, one, Cond(), 0, e - x, alpha)
        mean = (exact.u(e, 0 * one, one) - (e - x - slope)) * e
        return float(mean.mean() / e.square().mean())

    assert residual(0.5) == pytest.approx(-2 * (1 - 0.5**0.5), abs=0.02)  # by hand, see notebooks/family.ipynb
    assert abs(residual(0.01)) < 0.02 < abs(residual(0.1))


def test_recipes_of_relatives_are_mf_but_for_the_slope():
    mf = get("digits_mf")
    for name, kind, p in (("digits_alpha", "chord", 1.0), ("digits_split", "split", 0.0)):
        found = get(name)
        assert override(found, {"name": "digits_mf", "derivative": "jvp", "p": mf.p}) == mf
        assert (found.derivative, found.p) == (kind, p)
    with pytest.raises(ValueError, match="set method to 'mf'"):
        get("digits_imf", derivative="chord")
    with pytest.raises(ValueError, match="it is a share, of chord above 0"):
        get("digits_alpha", derivative_share=0.0)


@pytest.mark.parametrize("kind", ["mixed", "chord", "split"])
def test_they_train_by_the_loop(tmp_path, kind):
    base = get("digits_mf", derivative=kind)
    recipe = tiny(method="mf", **{"net.v_depth": None, "derivative": kind, "p": base.p})
    records = list(train(recipe, tmp_path / kind, device="cpu"))
    plain = list(train(tiny(method="mf", **{"net.v_depth": None}), tmp_path / "mf", device="cpu"))
    assert records[0].raw_u_eq == plain[0].raw_u_eq and records[-1].raw_u_neq != plain[-1].raw_u_neq
