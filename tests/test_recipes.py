"""Recipes are data: refused when wrong, the same after a round trip."""

import dataclasses

import pytest

from imf_lite.configs import PRESETS, DiTConfig, DrawConfig, Fixed, Flexible
from imf_lite.recipes import RECIPES, Recipe, counterpart, get, override


@pytest.mark.parametrize("name", list(RECIPES))
def test_round_trip_through_json(name):
    recipe = get(name)
    assert recipe.name == name and Recipe.from_json(recipe.to_json()) == recipe
    assert RECIPES[name].__doc__


def test_round_trip_of_a_dit():
    recipe = dataclasses.replace(get("digits_imf"), net=DiTConfig(width=64, heads=4, v_depth=2))
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("guidance", [Fixed(0.2, 0.92, 0.0, 0.8), Flexible("same"), None])
@pytest.mark.parametrize("net", [PRESETS["mf_tiny"], PRESETS["imf_tiny"]])
def test_round_trip_of_transformers_and_guidance(guidance, net):
    net = dataclasses.replace(net, guided="omega" if isinstance(guidance, Flexible) else "no")
    draws = DrawConfig(class_dropout=0.1, dropout="independent", omega_beta=2.0)
    recipe = dataclasses.replace(get("digits_imf"), net=net, guidance=guidance, draws=draws)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"setps": 5}, "no field 'setps'; did you mean 'steps'"),
        ({"net.witdh": 5}, "MLPConfig has no field 'witdh'; did you mean 'width'"),
        ({"draws": {"p_mena": 0}}, "DrawConfig has no field 'p_mena'; did you mean 'p_mean'"),
        ({"steps": 0}, "steps = 0"),
        ({"ema": 1.0}, "ema = 1.0"),
        ({"lr": -1.0}, "lr = -1.0"),
        ({"method": "fm", "net.v_depth": None}, "flow matching"),
        ({"method": "mf"}, "does not train a v-head"),
        ({"method": "imeanflow"}, "'imeanflow'"),
        ({"net.guided": "interval"}, "flexible guidance needs"),
        ({"guidance": Flexible(), "draws.class_dropout": 0.1}, "flexible guidance needs"),
        ({"guidance": Flexible(), "net.guided": "omega"}, "set draws.class_dropout"),
        ({"guidance": Fixed(2.0)}, "set draws.class_dropout"),
        ({"draws.dropout": "last"}, "'last'"),
        (
            {"method": "mf", "net.v_depth": None, "net.guided": "omega", "guidance": Flexible()},
            "belongs to method 'imf'",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        get("digits_imf", **changes)


def test_unknown_recipe():
    with pytest.raises(ValueError, match="no recipe named 'digit_imf'; did you mean 'digits_imf'"):
        get("digit_imf")


def test_override_reaches_inside_and_leaves_the_rest():
    recipe = get("digits_imf", **{"net.width": 32, "net.depth": 4, "draws": {"p_mean": 0.0}})
    assert (recipe.net.width, recipe.net.depth, recipe.net.v_depth, recipe.draws.p_mean) == (32, 4, 2, 0.0)
    assert override(recipe, {}) == recipe


def test_compared_runs_differ_in_the_method_alone():
    imf, mf = get("digits_imf_boundary"), get("digits_mf")
    assert dataclasses.replace(imf, name="", method="mf") == dataclasses.replace(mf, name="")
    headed = get("digits_imf")
    assert dataclasses.replace(headed, name="", net=imf.net) == dataclasses.replace(imf, name="")


def test_the_guided_run_has_the_u_path_of_the_others():
    guided, plain = get("digits_guided"), get("digits_imf")
    off = {"net.guided": "no", "guidance": None, "draws": plain.draws, "name": plain.name}
    assert override(guided, off) == plain
    mf = counterpart(guided, "mf", Fixed(2.0))
    assert mf.guidance == Fixed(2.0) and mf.net.guided == "no" and mf.draws == guided.draws
