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
    with pytest.raises(ValueError, match="'gaussian'"):
        DrawConfig(times="gaussian")
