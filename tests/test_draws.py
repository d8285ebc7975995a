"""Counts, distributions and reproducibility of what is random in a step."""

import pytest
import torch
from helpers import drawn
from torch.testing import assert_close

from imf_lite.configs import DrawConfig
from imf_lite.draws import draw
from imf_lite.system.rng import generator


@pytest.mark.parametrize("share, n_eq", [(0.0, 8), (0.25, 6), (0.5, 4), (1.0, 0)])
def test_a_fixed_count_of_first_rows_has_r_equal_t(share, n_eq):
    d = drawn(p_r_neq_t=share)
    assert d.n_eq == n_eq
    assert (d.r[:n_eq] == d.t[:n_eq]).all() and (d.r[n_eq:] < d.t[n_eq:]).all()
    assert d.t.shape == d.r.shape == (8, 1, 1, 1)


def test_times_are_the_extremes_of_two_logit_normals():
    d = draw(torch.zeros(100_000, 1), None, DrawConfig(p_r_neq_t=1.0), generator("cpu", 0))
    larger, smaller = d.t.logit(), d.r.logit()
    gap = 1 / torch.pi**0.5  # mean of the larger of two standard normals
    assert_close(larger.mean().item(), -0.4 + gap, atol=0.01, rtol=0)
    assert_close(smaller.mean().item(), -0.4 - gap, atol=0.01, rtol=0)
    pooled = torch.cat([larger, smaller])
    assert_close(pooled.std().item(), 1.0, atol=0.01, rtol=0)


def test_rows_with_r_equal_t_keep_the_larger_time():
    some, none = drawn(p_r_neq_t=0.5), drawn(p_r_neq_t=0.0)
    assert_close(some.t, none.t)
    assert_close(some.e, none.e)


def test_uniform_times():
    d = draw(torch.zeros(100_000, 1), None, DrawConfig(times="uniform", p_r_neq_t=1.0), generator("cpu", 0))
    assert_close(d.t.mean().item(), 2 / 3, atol=0.01, rtol=0)
    assert_close(d.r.mean().item(), 1 / 3, atol=0.01, rtol=0)


def test_a_share_of_uniform_times():
    """In about that share of the rows, with r = t or not, both times are uniform; the other rows keep theirs."""
    none, some, every = (
        draw(torch.zeros(100_000, 1), None, DrawConfig(p_std=0.2, uniform_share=share), generator("cpu", 0))
        for share in (0.0, 0.3, 1.0)
    )
    moved = (some.t != none.t).flatten()
    for rows in (moved, moved[: some.n_eq], moved[some.n_eq :]):
        assert_close(rows.float().mean().item(), 0.3, atol=0.01, rtol=0)
    assert_close(some.r[~moved], none.r[~moved], rtol=0, atol=0)
    assert_close(some.e, none.e, rtol=0, atol=0)
    for d, rows in ((some, moved.nonzero()[:, 0]), (every, torch.arange(100_000))):
        rows = rows[rows >= d.n_eq]
        t, r = d.t.flatten()[rows].sort().values, d.r.flatten()[rows].sort().values
        level = torch.linspace(0, 1, len(rows))
        assert_close(t.square(), level, atol=0.015, rtol=0)  # the larger of two uniform numbers: P(t < s) = s^2
        assert_close(1 - (1 - r).square(), level, atol=0.015, rtol=0)
    assert every.r.min() >= 0 and every.t.max() <= 1


def test_no_uniform_share_draws_what_was_always_drawn():
    """Bit for bit, and nothing more from the generator: the draws written out again as they were before."""
    config, g = DrawConfig(class_dropout=0.5, uniform_share=0.0), generator("cpu", 3)
    d = draw(torch.zeros(64, 2), torch.zeros(64).long(), config, g, guided="interval")
    old = generator("cpu", 3)
    e = torch.randn(64, 2, generator=old)
    pair = torch.randn(2, 64, generator=old).mul(1.0).add(-0.4).sigmoid()
    drop, omega, ends = torch.rand(64, generator=old), torch.rand(64, generator=old), torch.rand(2, 64, generator=old)
    assert torch.equal(d.e, e) and torch.equal(d.t[:, 0], pair.amax(0)) and torch.equal(d.r[32:, 0], pair.amin(0)[32:])
    assert d.drop.sum() == (drop < 0.5).sum() and torch.equal(d.omega, 8**omega)
    assert torch.equal(d.t_min[32:], 0.5 * ends[0, 32:])
    assert torch.equal(g.get_state(), old.get_state())


def test_dropout_takes_the_first_rows_and_a_tenth_on_average():
    counts = []
    for seed in range(200):
        d = draw(torch.zeros(100, 1), torch.zeros(100).long(), DrawConfig(class_dropout=0.1), generator("cpu", seed))
        counts.append(int(d.drop.sum()))
        assert d.drop[: counts[-1]].all()
    assert 9 < sum(counts) / len(counts) < 11 and len(set(counts)) > 5


def test_same_seeds_same_draws_and_other_seeds_others():
    a, b, c = (draw(torch.zeros(4, 2), None, DrawConfig(), generator("cpu", 7, s)) for s in (1, 1, 2))
    assert_close(a.e, b.e, rtol=0, atol=0)
    assert not torch.equal(a.e, c.e)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"torch.uint8.*floating point"):
        draw(torch.zeros(4, 2, dtype=torch.uint8), None, DrawConfig(), generator("cpu", 0))
    with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
        draw(torch.zeros(4, 2), torch.zeros(3).long(), DrawConfig(), generator("cpu", 0))
    with pytest.raises(ValueError, match=r"p_r_neq_t = 1.5.*\[0, 1\]"):
        DrawConfig(p_r_neq_t=1.5)
    with pytest.raises(ValueError, match=r"uniform_share = -0.1.*\[0, 1\]"):
        DrawConfig(uniform_share=-0.1)
    with pytest.raises(ValueError, match="'gaussian'"):
        DrawConfig(times="gaussian")


def test_training_rarely_looks_at_the_corner_of_one_step_and_wider_times_look_more_often():
    from toy_experiments.experiments import times

    usual, mixed, wide = (DrawConfig(), DrawConfig(uniform_share=0.1), DrawConfig(p_std=1.6))
    assert times.corner_rows(usual) < 10 < times.corner_rows(mixed) < times.corner_rows(wide)
    names = [job.name for job in times.jobs(2, 3, 3)]
    assert len(names) == len(set(names)) == 2 * sum(map(len, times.SETTINGS.values()))
