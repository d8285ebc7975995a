"""Runs side by side: the numbers by hand, real runs by the command line, and what can go wrong."""

import itertools
import json
import re
import statistics

import numpy as np
import pytest
from helpers import tiny
from test_cli import run

from imf_lite.recipes import get
from imf_lite.training import comparison
from imf_lite.training.loop import train
from imf_lite.training.records import Record
from toy_experiments.figures import plots
from toy_experiments.tables import RESULTS

pytestmark = pytest.mark.filterwarnings("ignore:after .* updates the average")


def write_log(folder, raw, norms, recipe, fids=()):
    """A run's folder with a log that is made up: raw u-loss where r < t, and gradient norms."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"recipe": json.loads(recipe.to_json())}))
    ten = [1.0] * 10
    record = Record(0, 0, 1.0, 1e-3, 0.0, 2.0, 0.0, None, None, 1.0, ten, ten, ten, 0.0, 9.0, None, "cpu")
    lines = [
        record._replace(step=k + 1, seconds=60.0 * (k + 1), raw_u_neq=a, grad_norm=b, raw_u_by_t=[k, None] * 5)
        for k, (a, b) in enumerate(zip(raw, norms, strict=True))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line._asdict()) + "\n" for line in lines))
    if fids:
        (folder / "fid.jsonl").write_text("".join(json.dumps({"step": s, "fid": f}) + "\n" for s, f in fids))
    return folder


@pytest.fixture
def two(tmp_path):
    raw = [4.0] * 50 + [2.0] * 100 + [1.0, 3.0] * 24 + [20.0, 2.0]  # the last quarter: 50 values with one spike
    a = write_log(tmp_path / "a", raw, [1.0] * 199 + [8.0], get("digits_mf"), [(100, 30.0), (200, 20.0)])
    b = write_log(tmp_path / "b", [5.0] * 8, [2.0] * 8, get("digits_imf", **{"net.width": 64}))
    return a, b


def test_the_summary_is_what_a_hand_computes(two):
    a, b = (comparison.read(folder).summary() for folder in two)
    jumps = np.array([2.0, -2.0] * 23 + [2.0, 17.0, -18.0])  # 1 3 1 3 ... 1 3 20 2
    assert a["raw u, start"] == 4.0 and a["raw u, end"] == pytest.approx((24 * 4 + 22) / 50)
    assert a["spread"] == pytest.approx(np.sqrt(((jumps - jumps.mean()) ** 2).mean()) / np.sqrt(2))
    assert a["spikes per 1,000"] == pytest.approx(1000 / 50)  # 20 is above three medians, 3 x 2
    assert a["gradient norm"] == 1.0 and a["largest / median"] == 8.0
    assert a["updates"] == 200 and a["minutes"] == 200.0 and a["FID"] == 20.0
    assert b["spread"] == 0.0 and b["FID"] is None and b["method"] == "imf" and a["raw u, r = t"] == 2.0
    by_t = comparison.read(two[0]).by_t()
    assert by_t[0] == pytest.approx(np.arange(150, 200).mean()) and np.isnan(by_t[1])


def test_the_logs_that_ship_give_the_numbers_of_a_second_calculation():
    for name, last in (("digits_mf", 800), ("digits_imf_boundary", 800)):
        lines = [json.loads(line) for line in (RESULTS / "logs" / name / "metrics.jsonl").read_text().splitlines()]
        raw = [line["raw_u_neq"] for line in lines]
        found, quarter = comparison.read(RESULTS / "logs" / name).summary(), raw[-(len(raw) // 4) :]
        jumps = [b - a for a, b in itertools.pairwise(quarter)]
        assert found["updates"] == lines[-1]["step"] == last and len(lines) == 200
        assert found["raw u, start"] == pytest.approx(statistics.fmean(raw[:50]))
        assert found["raw u, end"] == pytest.approx(statistics.fmean(quarter))
        assert found["spread"] == pytest.approx(statistics.pstdev(jumps) / 2**0.5)
        norms = [line["grad_norm"] for line in lines][-len(quarter) :]
        assert found["gradient norm"] == pytest.approx(statistics.median(norms))
        assert found["largest / median"] == pytest.approx(max(norms) / statistics.median(norms))
        assert found["spikes per 1,000"] == 1000 * sum(r > 3 * statistics.median(quarter) for r in quarter) / len(
            quarter
        )
        fourth = [line["raw_u_by_t"][3] for line in lines[-len(quarter) :]]
        by_t = comparison.read(RESULTS / "logs" / name).by_t()
        assert by_t[3] == pytest.approx(statistics.fmean(v for v in fourth if v is not None))


def test_mf_and_imf_have_the_colours_of_the_lessons(two):
    figure = comparison.figure([comparison.read(folder) for folder in two])
    curves = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert curves["a"] == plots.COLORS["mf"] and curves["b"] == plots.COLORS["imf"]


def test_what_differs_is_named_by_dotted_fields(two):
    fields = comparison.differences([comparison.read(folder) for folder in two])
    assert fields["method"] == ["mf", "imf"] and fields["net.width"] == [256, 64]
    assert "lr" not in fields and "draws.p_std" not in fields


def test_the_command_compares_runs_that_were_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, changes in (("imf", {}), ("fm", {"method": "fm", "net.v_depth": None, "draws.p_r_neq_t": 0.0})):
        list(train(tiny(**changes), tmp_path / name, device="cpu"))
    run(monkeypatch, "compare", "imf", "fm")
    said = capsys.readouterr().out
    assert re.search(r"^updates +6 +6$", said, re.M) and "recipes differ: method = imf, fm" in said
    page = (tmp_path / "comparison" / "comparison.html").read_text()
    assert "data:image/png;base64" in page and "<td>p_r_neq_t" not in page and "draws.p_r_neq_t" in page
    assert (tmp_path / "comparison" / "comparison.png").stat().st_size > 10_000


def test_mistakes_are_one_line(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_text((two[0] / "run.json").read_text())
    for words, line in (
        (("a",), "compare at least two runs"),
        (("a", "nowhere"), "nowhere holds no run: train first"),
        (("a", "new"), "new has logged nothing yet"),
    ):
        with pytest.raises(SystemExit, match=line):
            run(monkeypatch, "compare", *words)
