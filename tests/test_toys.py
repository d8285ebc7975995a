"""Point sets, exact fields, metrics with a known answer, and the experiments' commands on a tiny budget."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
import tyro
from scipy.integrate import solve_ivp
from torch.func import jvp
from torch.testing import assert_close

from imf_lite import recipes, training
from imf_lite.system.rng import generator
from toy_experiments import tables
from toy_experiments.experiments import (
    ablation,
    digits,
    family,
    fashion,
    guidance,
    knobs,
    quality,
    runs,
    stability,
    tangent,
    times,
)
from toy_experiments.figures import sheets
from toy_experiments.ground_truth import copies, datasets, distances
from toy_experiments.ground_truth.datasets import EIGHT, GAUSSIAN, TRIANGLE
from toy_experiments.ground_truth.exact import gaussian_u, gaussian_v, runge_kutta
from toy_experiments.report import behaviour, claims, plane


def drawn_times(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = 0.02 + 0.98 * torch.rand(n, 1, generator=g, dtype=torch.float64)
    return t * torch.rand(n, 1, generator=g, dtype=torch.float64), t, 1.5 * torch.randn(n, 2, generator=g).double()


@pytest.mark.parametrize("name", list(datasets.DATASETS))
def test_point_sets_are_fixed_by_seed_centred_and_as_wide_as_noise(name):
    x = datasets.points(name, 4000)
    assert x.shape == (4000, 2) and x.isfinite().all()
    assert_close(x, datasets.points(name, 4000), rtol=0, atol=0)
    assert not torch.equal(x, datasets.points(name, 4000, seed=1))
    assert x.mean(0).norm() < 0.8 and 0.4 < x.std() < 1.3 and x.abs().max() < 3
    data = datasets.load(name, n=100)
    assert len(data.train.x) == 100 and len(data.held_out.x) == 8000


def test_the_checkerboard_has_eight_full_squares():
    x = datasets.points("checkerboard", 8000)
    squares = torch.bincount(((x[:, 0] + 2).long() * 4 + (x[:, 1] + 2).long()), minlength=16)
    assert (squares > 0).sum() == 8 and (squares[squares > 0] - 1000).abs().max() < 150


def test_unknown_sets_are_named():
    with pytest.raises(ValueError, match="no point set named 'moons'"):
        datasets.points("moons", 3)


@pytest.mark.parametrize("mixture", [GAUSSIAN, EIGHT, TRIANGLE])
def test_mixture_u_equals_an_independent_integration(mixture):
    r, t, z = drawn_times(12)
    u = mixture.u(z, r, t, steps=200)
    for k in range(12):
        field = lambda s, y: mixture.v(torch.tensor(y)[None], torch.tensor([[s]], dtype=torch.float64))[0].numpy()  # noqa: E731
        found = solve_ivp(field, (t[k].item(), r[k].item()), z[k].numpy(), rtol=1e-8, atol=1e-10)
        expected = (z[k].numpy() - found.y[:, -1]) / (t[k] - r[k]).item()
        np.testing.assert_allclose(u[k].numpy(), expected, atol=1e-4)


def test_one_component_is_the_closed_form():
    r, t, z = drawn_times(100)
    m = GAUSSIAN.means[0].double()
    assert_close(GAUSSIAN.v(z, t), gaussian_v(z, t, m, 0.5))
    assert_close(GAUSSIAN.u(z, r, t), gaussian_u(z, r, t, m, 0.5), atol=1e-6, rtol=1e-6)
    assert_close(GAUSSIAN.u(z, t, t), GAUSSIAN.v(z, t))


def test_mixture_v_is_the_mean_of_e_minus_x():
    g = torch.Generator().manual_seed(0)
    x, e = TRIANGLE.sample(400_000, g), torch.randn(400_000, 2, generator=g)
    near = (0.5 * x + 0.5 * e - torch.tensor([0.2, 0.1])).norm(dim=1) < 0.08
    v = TRIANGLE.v(torch.tensor([[0.2, 0.1]]), torch.tensor([[0.5]]))[0]
    error = (e - x)[near].std(0) / near.sum() ** 0.5
    assert ((e - x)[near].mean(0) - v).abs().le(4 * error + 0.01).all()


@pytest.mark.parametrize("mixture", [GAUSSIAN, TRIANGLE])
def test_the_meanflow_identity(mixture):
    r, t, z = drawn_times(50)
    along = (mixture.v(z, t), torch.zeros_like(r), torch.ones_like(t))
    u, du_dt = jvp(lambda z, r, t: mixture.u(z, r, t, steps=200), (z, r, t), along)
    assert_close(u, mixture.v(z, t) - (t - r) * du_dt, atol=1e-4, rtol=1e-4)


def test_runge_kutta_is_of_fourth_order():
    z, one = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(runge_kutta(lambda z, s: z, z, 0 * one, one, n)[-1].item() - np.exp(-1)) for n in (4, 8)]
    assert 12 < errors[0] / errors[1] < 20


def test_distances_with_a_known_answer():
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    assert distances.sliced_wasserstein(x, x.flip(0)) == 0
    shift = torch.tensor([3.0, 4.0])  # every projection moves by 5 cos(angle): root mean square 5 / sqrt 2
    assert distances.sliced_wasserstein(x, x + shift, projections=20_000) == pytest.approx(5 / 2**0.5, rel=0.02)
    assert distances.exact_wasserstein(x, x + shift) == pytest.approx(5, rel=1e-4)
    assert distances.exact_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-4)
    with pytest.raises(ValueError, match="must agree"):
        distances.sliced_wasserstein(x, x[:5])


def test_the_floor_falls_as_one_over_root_n():
    small, _ = distances.floor("gaussian", 500)
    large, std = distances.floor("gaussian", 8000)
    assert 2.5 < small / large < 6 and std < large


def test_tables_survive_and_missing_ones_name_their_command(tmp_path):
    rows = [{"a": "x, y", "b": 1, "c": 0.123456789, "d": None}]
    tables.write_table(tmp_path / "t.csv", rows)
    assert tables.read_table(tmp_path / "t.csv") == [{"a": "x, y", "b": 1, "c": 0.12346, "d": None}]
    with pytest.raises(ValueError, match=r"python -m toy_experiments\.experiments\.stability"):
        tables.read_table(tmp_path / "stability.csv")


def test_loss_summary_and_thinning():
    values = [10.0] * 50 + [4.0] * 50 + [2.0, 4.0] * 50
    found = runs.loss_summary(values)
    assert found["start"] == 10 and found["end"] == 3 and found["spread"] == pytest.approx(2 / 2**0.5, rel=0.02)
    assert runs.loss_summary(np.linspace(9, 1, 400))["spread"] < 1e-6  # a trend is no spread
    assert runs.thinned(values, 4)[:, 0].tolist() == [10, 4, 3, 3]


def test_compared_runs_share_all_but_the_method():
    mf, boundary, head = (runs.plane(v) for v in ("mf", "boundary", "head"))
    assert mf.net == boundary.net and mf.draws == boundary.draws == head.draws and mf.lr == head.lr
    assert (mf.method, boundary.method, head.method, mf.p) == ("mf", "imf", "imf", 0.0)


def test_networks_in_the_plane_are_trained_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plane, "map_jobs", serially)
    monkeypatch.setattr(plane, "NFES", (1,))
    plane.main(tmp_path / "runs", tmp_path / "out", steps=4)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"fm", "mf", "imf"}
    assert "imf  distance by evaluations: {1: " in capsys.readouterr().out


@pytest.mark.parametrize("module, more", [(stability, {"sets": ("two_moons",)}), (quality, {"every": 4}), (knobs, {})])
def test_experiments_run_and_write_their_tables(module, more, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "map_jobs", serially)
    monkeypatch.setattr(quality, "map_jobs", serially)
    every = knobs.jobs(1, 8)
    monkeypatch.setattr(knobs, "jobs", lambda seeds, steps: every[::7] + every[-2:])
    module.main(seeds=1, steps=8, out=tmp_path, runs=tmp_path / "runs", **more)
    name = module.__name__.split(".")[-1]
    rows = tables.read_table(tmp_path / f"{name}.csv")
    assert rows and all(r["code"] and r["floor"] > 0 for r in rows)
    assert f"{name}.csv" in capsys.readouterr().out


def test_quality_goes_on_where_it_stopped(tmp_path):
    job = runs.Job({"variant": "mf"}, "two_moons", quality.good("mf", steps=6, save_every=2))
    first = quality.watch(job, tmp_path)
    assert [row["updates"] for row in first] == [2, 4, 6]
    assert quality.watch(job, tmp_path) == first  # nothing is trained, nothing is lost


def test_the_digits_experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "map_jobs", serially)
    monkeypatch.setattr(digits, "VARIANTS", {"mf": "digits_mf"})
    digits.main(seeds=1, steps=2, out=tmp_path, runs=tmp_path / "runs")
    assert tables.read_table(tmp_path / "digits.csv")[0]["fid1"] > 1


def test_the_guidance_experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(guidance, "map_jobs", serially)
    monkeypatch.setattr(guidance, "OMEGAS", (1.0, 4.0))
    monkeypatch.setattr(guidance, "INTERVALS", ((0.0, 0.6),))
    monkeypatch.setattr(guidance, "FIXED", (2.0,))
    monkeypatch.setattr(guidance, "PLANE_N", 900)
    monkeypatch.setattr(guidance, "PLANE_OMEGAS", (1.0, 8.0))
    guidance.main(seeds=1, steps=2, out=tmp_path, runs=tmp_path / "runs")
    rows = tables.read_table(tmp_path / "guidance.csv")
    assert [(r["network"], r["omega"], r["half"]) for r in rows] == [
        ("imf", 1, "choose"), ("imf", 1, "report"), ("imf", 4, "choose"), ("imf", 4, "report"),
        ("mf 2.0", 2, "choose"), ("mf 2.0", 2, "report"),
    ]  # fmt: skip
    assert rows[0]["fid"] != rows[1]["fid"] and rows[0]["t_max"] == 0.6
    rows = tables.read_table(tmp_path / "guidance-plane.csv")
    assert [(r["omega"], r["nfe"], r["updates"]) for r in rows] == [(1, 1, 8), (1, 4, 8), (8, 1, 8), (8, 4, 8)]
    assert all(r["floor"] < r["distance"] for r in rows)  # eight updates are not enough
    kept = guidance.plane_net(tmp_path / "guidance-plane.npz")
    assert guidance.measure_plane(kept)[0]["rms"] == pytest.approx(rows[0]["rms"], rel=1e-3)


def test_the_family_experiment(tmp_path, monkeypatch):
    few = ("MF", "SplitMeanFlow", "consistency training")
    monkeypatch.setattr(family, "map_jobs", serially)
    monkeypatch.setattr(family, "METHODS", {name: family.METHODS[name] for name in few})
    monkeypatch.setattr(family, "PLACES", ("eight_gaussians", "digits"))
    family.main(seeds=1, steps=4, digits_steps=4, out=tmp_path, runs=tmp_path / "runs")
    rows = tables.read_table(tmp_path / "family.csv")
    assert [(r["place"], r["method"]) for r in rows] == [(p, m) for p in ("eight_gaussians", "digits") for m in few]
    assert all(r["error1"] > r["floor"] > 0 for r in rows)
    assert [r["recall1"] is None for r in rows] == 3 * [True] + 3 * [False]


def test_the_nearest_training_image_and_the_share_of_samples_that_lie_nearer():
    train = torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    images = torch.tensor([130, 3], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    distance, index = copies.nearest(images, train)
    assert distance.tolist() == [30, 3] and index.tolist() == [1, 0]
    shown = copies.arrays("samples", images, train, shown=1, closest=1)
    assert shown["samples_closest"].max() == 3 and shown["samples_closest_nearest"].max() == 0
    real = np.arange(1, 101.0)
    assert copies.share_nearer(real, real, 0.25) == 0.25
    assert copies.share_nearer(np.r_[np.zeros(50), np.full(50, 99)], real, 0.01) == 0.5  # half are copies


def test_a_sheet_shows_every_image_in_its_place():
    images = torch.arange(0, 240, 20, dtype=torch.uint8).view(2, 3, 2, 1, 1).expand(2, 3, 2, 4, 4)
    fig = sheets.sheet(images, ["a", "b"], ["x", "y", "z"], zoom=3)
    picture = fig.axes[0].images[0].get_array()
    block, cell = 2 * 12 + sheets.GAP, 14
    assert picture.shape == (2 * cell, 3 * block)
    for i, j, k in ((0, 0, 0), (0, 2, 1), (1, 1, 0)):
        tile = picture[i * cell : i * cell + 12, j * block + 12 * k : j * block + 12 * (k + 1)]
        assert tile.min() == tile.max() and abs(int(tile.min()) - int(images[i, j, k, 0, 0])) <= 9
    assert [text.get_text() for text in fig.axes[0].texts] == ["a", "b", "x", "y", "z"]


def test_the_ablation_experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "map_jobs", serially)
    monkeypatch.setattr(ablation, "OMEGAS", (1.0, 2.0))
    monkeypatch.setattr(ablation, "INTERVALS", ((0.0, 1.0),))
    ablation.main(seeds=1, steps=2, rows=("mf, fixed", "omega", "modern"), out=tmp_path, runs=tmp_path / "runs")
    rows = tables.read_table(tmp_path / "ablation.csv")
    assert [r["row"] for r in rows] == ["mf, fixed", "omega", "modern"]
    assert rows[0]["best1"] == rows[0]["fid1"] and rows[0]["trained"] == rows[0]["parameters"]
    assert all(r["omega"] in (1, 2) and r["trained"] > r["parameters"] for r in rows[1:])


def test_a_row_of_two_runs_shares_the_updates_and_keeps_other_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "map_jobs", serially)
    monkeypatch.setattr(ablation, "OMEGAS", (1.0,))
    monkeypatch.setattr(ablation, "INTERVALS", ((0.0, 1.0),))
    where = {"seeds": 1, "steps": 4, "out": tmp_path, "runs": tmp_path / "runs"}
    ablation.main(rows=("modern, after unguided",), **where)
    ablation.main(rows=("mf",), **where)
    assert [(r["row"], r["updates"]) for r in tables.read_table(tmp_path / "ablation.csv")] == [
        ("mf", 4), ("modern, after unguided", 4)
    ]  # fmt: skip
    first, second = (
        training.read_run(tmp_path / "runs" / "4" / f"modern-after_unguided-0{k}") for k in ("-before", "")
    )
    assert first["recipe"]["steps"] == second["recipe"]["steps"] == 2
    assert first["init_sha256"] is None and second["init_sha256"]  # the second begins with the weights of the first
    assert first["recipe"]["seed"] != second["recipe"]["seed"]
    assert first["recipe"]["guidance"] is None and second["recipe"]["guidance"] is not None


def test_ablation_rows_differ_in_what_they_name():
    rows = {row: ablation.recipe(row) for row in ablation.ROWS}
    for name, other in rows.items():
        assert other.batch == 64 and other.data == "digits"
        if not name.startswith("modern, "):
            assert (other.draws, other.lr) == (rows["mf"].draws, rows["mf"].lr)
    for name, changes in ablation.WHY.items():
        own = {k: v for k, v in changes.items() if k not in ablation.OWN}
        longer = {"steps": 4000} if name == "four times" else {}
        assert rows[f"modern, {name}"] == recipes.override(rows["modern"], own | longer)
        assert recipes.override(rows["modern"], own | longer | changes.get("before", {})) != rows["modern"]
    assert rows["interval, four times"] == dataclasses.replace(rows["interval"], steps=4000)
    assert rows["5 tokens"].steps == rows["20 tokens"].steps == 1000
    assert rows["boundary"].net == rows["mf"].net and rows["head"].net.v_depth == 2
    assert rows["omega"].net.guided == "omega" and rows["interval"].net.guided == "interval"
    assert rows["tokens"].net == dataclasses.replace(rows["modern"].net, modern=False)
    assert (
        rows["wide adaln, longer"].steps == 2200 and rows["wide tokens"].net.width >= 96 <= rows["wide adaln"].net.width
    )
    inference = {row: ablation.parameters(r, True) for row, r in rows.items()}
    assert inference["head"] == inference["boundary"] == inference["mf"] < ablation.parameters(rows["head"], False)
    assert inference["wide tokens"] <= 0.75 * inference["wide adaln"]


def test_spread_within_a_class_is_the_deviation_from_its_mean():
    x = torch.tensor([0.0, 0.2, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    found = guidance.class_spread(x, torch.tensor([0, 0, 1, 1]))  # grey levels 128 and 153; 255 and 255
    assert found == pytest.approx((12.5**2 / 2) ** 0.5, rel=0.05)


def test_the_exact_guided_field():
    mixture, g = datasets.THREE_CLASSES, generator("cpu", 1)
    z, y = torch.randn(50, 2, generator=g), torch.arange(50) % 3
    t = torch.full((50, 1), 0.7)
    own = torch.stack([gaussian_v(z[k], t[k], mixture.means[y[k]], mixture.std) for k in range(50)])
    assert_close(mixture.guided_v(z, t, y, 1.0), own)
    assert_close(mixture.guided_v(z, t, y, 4.0), 4 * own - 3 * mixture.v(z, t))
    assert_close(mixture.guided_v(z, t, y, 4.0, (0.0, 0.6)), own)
    x, label = mixture.labelled(3000, g)
    for k in range(3):
        assert_close(x[label == k].mean(0), mixture.means[k], atol=0.05, rtol=0)


def serially(work, jobs, *args, workers=1):
    return [work(job, *args) for job in jobs]


def test_wrong_slopes_are_wrong_and_the_right_one_is_not():
    from helpers import drawn, network, point

    from imf_lite import losses

    net, draws = network("mlp"), drawn(p_r_neq_t=1.0)
    z, cond = point(draws)
    right = losses.slope(net, z, draws.r, draws.t, cond, 0, draws.e)
    for name, slope in knobs.SLOPES.items():
        found = slope(net, z, draws.r, draws.t, cond, 0, draws.e)
        if name == "gradient not stopped":
            assert found.requires_grad
            assert_close(found.detach(), right)
        else:
            assert not torch.allclose(found, right, rtol=1e-2)


COMMANDS = (stability, knobs, quality, digits, guidance, ablation, tangent, times, family, fashion, behaviour, claims)


@pytest.mark.parametrize("module", COMMANDS)
def test_commands_have_help(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit) as stop:
        tyro.cli(module.main)
    assert stop.value.code == 0 and "--out" in capsys.readouterr().out


def test_plots_draw_what_they_are_given():
    import matplotlib.pyplot as plt

    from toy_experiments.figures import plots

    plots.style()
    fig, ax = plt.subplots()
    z, t = plots.lattice(n=5), torch.full((25, 1), 0.5)
    plots.plane(ax, "field", limit=3)
    plots.density(ax, datasets.points("mixture", 500), limit=3)
    plots.arrows(ax, z, TRIANGLE.v(z, t))
    path = torch.stack(runge_kutta(TRIANGLE.v, z, 0 * t, t, 10))
    plots.trajectories(ax, path, "imf")
    fig.canvas.draw()
    assert z.shape == (25, 2) and z.abs().max() == pytest.approx(2.4)
    assert len(ax.lines) == 25 and len(ax.images) == 1 and ax.get_xlim() == (-3, 3)
    quiver = next(c for c in ax.collections if hasattr(c, "U"))
    np.testing.assert_allclose(quiver.U, 0.25 * TRIANGLE.v(z, t)[:, 0], rtol=1e-5)
    plt.close(fig)
