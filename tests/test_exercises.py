"""The checks of the exercises: right answers pass, typical mistakes are told apart, and lessons and solutions agree."""

import json
from pathlib import Path

import pytest
import torch

from imf_lite import guidance, losses
from imf_lite.data.normalisation import Latents
from toy_experiments import exercises
from toy_experiments.exercises import other_lessons
from toy_experiments.ground_truth.datasets import EIGHT

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LESSONS = {
    "00": "00_quickstart",
    "01": "01_from_velocity_to_average_velocity",
    "02": "02_meanflow_and_its_jvp",
    "03": "03_improved_meanflow_stability",
    "04": "04_what_breaks_it",
    "05": "05_guidance_as_a_condition",
    "06": "06_in_context_conditioning",
    "07": "07_fashion_mnist",
    "step_cost": "step_cost",
    "ablation": "ablation",
    "08": "08_what_changes_with_scale",
    "family": "family",
    "09": "09_pixels_without_an_autoencoder",
}


def rule(target, tangent):
    """A rule from functions of z and the draws."""
    return lambda net, z, d, cond, own: (target(z, d), tangent(z, d))


def v_cond(z, d):
    return d.e - d.x


def moving_r(net, z, r, t, cond, n_eq, along):
    tangent = (along, torch.ones_like(r), torch.ones_like(t))
    return torch.func.jvp(lambda z, r, t: net.u(z, r, t, cond), (z, r, t), tangent)[1]


def unscaled(z, latents, vae):
    return Latents("fashion", (0.0,) * 4, (1.0,) * 4).images(z, vae)


ANSWERS = {  # name: (right, a typical mistake, what is said of the mistake)
    "00.1": (0.6, 0.24, "after 2,000 updates"),
    "00.2": (rule(v_cond, v_cond), guidance.predicted, "still the network's own"),
    "00.3": ("velocity", "forward", "does not evaluate u where r is t"),
    "01.1": (0.1, 0.04, "the clusters as they were"),
    "01.2": ((0.54, 0.62), (0.0, 0.0), "t still moves"),
    "01.3": (lambda a, b, r, s, t: ((t - s) * a + (s - r) * b) / (t - r), lambda a, b, *_: (a + b) / 2, "the length"),
    "02.1": ((0.5, 1 / 7), (1.0, 0.28), "p_r_neq_t = 0.5"),
    "02.2": ((1.0, 0.58), (1.0, 1.0), "still detached"),
    "02.3": (rule(v_cond, lambda z, d: 100 * d.x), rule(v_cond, v_cond), "makes sense"),
    "03.1": (0.85, 4.0, "much too large"),
    "03.2": (rule(v_cond, lambda z, d: EIGHT.v(z, d.t)), guidance.conditional, "MF's tangent"),
    "03.3": (lambda b, d, h, c: (b * (d - h * c)).sum(1), lambda b, d, h, c: (b * d).sum(1), "iMF's noise"),
    "04.1": ((0.01, 0.03), (0.03, 0.01), "swap"),
    "04.2": (moving_r, losses.slope, "nothing is broken"),
    "04.3": (lambda v, flow, z, r, t: v(flow(z, r, t), r), lambda v, flow, z, r, t: v(z, t), "this end"),
    "05.1": ("B", "A", "rows without a label"),
    "05.2": (2.0, 1.0, "too small"),
    "05.3": (lambda w, k: w / (1 - k), lambda w, k: w + k, "one round"),
    "06.1": ((1 / 3,) * 4, (0.334, 0.443, 0.117, 0.104), "published depth and width"),
    "06.2": (lambda groups: dict(reversed(groups.items())), lambda groups: groups, "the same order"),
    "06.3": ((2, 14, 55), (55, 55, 55), "not 0"),
    "07.1": ((1.5, -7.3), (-1.5, 7.3), "the other way round"),
    "07.2": (unscaled, lambda z, latents, vae: latents.images(z, vae), "the right images"),
    "07.3": (lambda n: 886 * (1 / n + 1e-4), lambda n: 975 / n, "the reference set"),
    "step_cost.1": (0.157, 0.283, "guidance"),
    "step_cost.2": (lambda d: (torch.arange(len(d.x)) < d.n_eq) & ~d.drop, lambda d: ~d.drop, "r < t"),
    "step_cost.3": ((0.0, 1.0), (0.5, 0.5), "look at `draw`"),
    "ablation.1": ((0, 1), (2, 3), "one evaluation"),
    "ablation.2": (0.46, -0.748, "the medians"),
    "ablation.3": (lambda n: 2.0 ** (1 - n), lambda n: 0.5**n, "or on being worse"),
    "08.1": (0.9999 ** (800_640 / 2000), 0.99, "half-life of 69.0 updates"),
    "08.2": ((0.0, 0.5), (0.2, 0.5), "still counts once"),
    "08.3": (lambda d, n: 2 * d / n, lambda d, n: d / n, "two sets have two"),
    "family.1": (0.26, 1.0, "does nothing change"),
    "family.2": (10.0, 9.0, "the other u"),
    "family.3": (
        lambda u, v, du, h, k: (k * v + (h - k) * (u - k * du)) / h,
        lambda u, v, du, h, k: (k * v + (h - k) * u) / h,
        "terms of first order",
    ),
    "09.1": (0.0125, 0.0, "without the clip"),
    "09.2": (lambda t: max(0, 1 - t / 0.05) ** 2, lambda t: max(0, 1 - t / 0.05), "is its square"),
    "09.3": (lambda D, w: max(0, D - 2 - w) ** 0.5, lambda D, w: max(0, D - 2 - w), "its square"),
}


@pytest.fixture
def said(capsys):
    """What a check prints, without the name."""

    def ask(name, answer):
        exercises.check(name, answer)
        out = capsys.readouterr().out
        assert out.startswith(f"{name}: ") and out.endswith("\n") and "\n" not in out[:-1]
        return out.removeprefix(f"{name}: ").strip()

    return ask


def test_every_lesson_has_three():
    assert list(ANSWERS) == list(exercises.CHECKS) == [f"{lesson}.{k}" for lesson in LESSONS for k in (1, 2, 3)]


@pytest.mark.parametrize("name", ANSWERS)
def test_nothing_the_right_answer_and_a_mistake(name, said):
    right, wrong, about = ANSWERS[name]
    assert said(name, None).startswith("not done yet. Asked for: ")
    assert said(name, right).startswith("right")
    found = said(name, wrong)
    assert not found.startswith("right") and about in found


def test_a_wrong_kind_is_said_not_raised(said):
    for name in ANSWERS:
        found = said(name, object())
        assert not found.startswith("right") and "Asked for: " in found, name
    assert "stopped with ZeroDivisionError" in said("05.3", lambda w, k: w / 0)
    assert "stopped with TypeError" in said("01.3", lambda a: a)
    assert "returns nothing" in said("04.3", lambda *a: None)
    assert "two tensors" in said("00.2", lambda *a: (1, 2, 3))
    assert "this is not 2 numbers" in said("02.2", 1.0) and "this is not a number" in said("05.2", "two")
    assert "the shape is (4000, 2)" in said("03.3", lambda b, d, h, c: b * d)
    assert "not finite" in said("01.3", lambda a, *_: a / 0)


def test_numbers_may_be_tensors_with_gradients(said):
    assert said("02.2", (torch.tensor(1.0, requires_grad=True), torch.tensor(0.58))).startswith("right")


def test_what_is_said_of_sign_and_size(said):
    exact = rule(v_cond, lambda z, d: -2 * EIGHT.v(z, d.t))
    assert said("03.2", exact) == "of the tangent: not yet: the sign is wrong, the size 2 times what it should be."
    assert said("07.1", (1.5, 7.3)) == "not yet: number 2 has the wrong sign."
    assert "moves r" in said("04.2", moving_r)


def test_the_truth_is_read_from_the_tables(said, monkeypatch):
    """Exchange two rows of the ablation, and the right answer is right no more."""
    stored, other = other_lessons.pick, {"head, fixed": "mf, fixed", "mf, fixed": "head, fixed"}
    monkeypatch.setattr(other_lessons, "pick", lambda table, row: stored(table, row=other.get(row, row)))
    assert not said("ablation.1", (0, 1)).startswith("right") and said("ablation.1", (3, 1)).startswith("right")


def test_the_truth_is_computed_by_the_library(said, monkeypatch):
    """With flow matching in place of iMF's guidance no target depends on v_c."""
    monkeypatch.setattr(guidance, "rule", lambda *_: guidance.conditional)
    assert not said("step_cost.2", ANSWERS["step_cost.2"][0]).startswith("right")


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(ValueError, match=r"no exercise '10.1'; there is: 00.1, .*, 09.3"):
        exercises.check("10.1", None)


def test_a_guess_is_judged():
    assert exercises.guess(None, right="B") == "You did not guess"
    assert exercises.guess("b", right="B") == "You guessed B, and so it is"
    assert exercises.guess("A", right="B") == "You guessed A, which is not it; read on"
    assert exercises.guess("D", right="B") == "You guessed 'D', which is none of A, B, C"


@pytest.mark.parametrize("lesson", LESSONS)
def test_lessons_and_solutions_show_what_the_checks_say(lesson, said):
    """Starter cells, untouched, show what the check says today; every answer of the solutions passed."""
    name = LESSONS[lesson]
    cells, solved = (
        json.loads((folder / f"{name}.ipynb").read_text())["cells"] for folder in (NOTEBOOKS, NOTEBOOKS / "solutions")
    )
    assert cells[-1]["cell_type"] == "markdown" and "Exercises" not in "".join(cells[-1]["source"])
    assert "".join(cells[-5]["source"]).count("<summary>Hint</summary>") == 3
    for k, starter in enumerate(cells[-4:-1], 1):
        key, source = f"{lesson}.{k}", "".join(starter["source"])
        assert "answer = None  # TODO" in source and source.endswith(f'exercises.check("{key}", answer)')
        assert "".join(starter["outputs"][0]["text"]) == f"{key}: {said(key, None)}\n"
        (check,) = (c for c in solved if f'exercises.check("{key}"' in "".join(c["source"]))
        assert f"{key}: right" in "".join("".join(o["text"]) for o in check["outputs"])
        assert check["metadata"]["tags"] == ["nbval-check-output"]  # so that a fresh run must say it, too
