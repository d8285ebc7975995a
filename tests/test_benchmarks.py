"""The fast step is the published one: loss and every gradient, in every case that rows can be in."""

import json

import pytest
import torch
from helpers import drawn, network
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import acceptance, checkpoint, loader, loop, recompute, sampling, step_cost
from benchmarks.reference_step import ReferenceStep
from imf_lite import guidance
from imf_lite.configs import DiTConfig, Fixed, Flexible
from imf_lite.draws import Draws
from imf_lite.networks import build
from imf_lite.objective import Objective

VARIANTS = {
    "mf": ("mf", None, None),
    "mf guided": ("mf", None, Fixed(2.0)),
    "mf kappa": ("mf", None, Fixed(0.4, 0.5, 0.2, 0.8)),
    "boundary": ("imf", None, None),
    "boundary guided": ("imf", None, Flexible()),
    "head": ("imf", 1, None),
    "head fixed": ("imf", 1, Fixed(2.0, 0.2)),
    "head guided": ("imf", 1, Flexible()),
}
CASES = {
    "half": {},
    "another seed": {"seed": 4},
    "no row with r < t": {"p_r_neq_t": 0.0},
    "only rows with r < t": {"p_r_neq_t": 1.0},
    "some dropped": {"drop": range(2)},
    "all dropped": {"drop": range(8)},
    "more dropped than r = t": {"drop": range(6)},
    "omega one": {"omega": 1.0},
}


def case(guided: str, seed: int = 3, drop=(), omega: float | None = None, **config) -> Draws:
    """Eight rows in float64."""
    d = drawn(dtype=torch.float64, guided=guided, seed=seed, **config)
    mask = torch.zeros(8, dtype=torch.bool)
    mask[list(drop)] = True
    d = d._replace(drop=mask)
    return d if omega is None or d.omega is None else d._replace(omega=torch.full_like(d.omega, omega))


def graded(module, net, draws: Draws):
    """Loss and gradients (zeros where there is none)."""
    module.zero_grad(set_to_none=True)
    found = module(draws)
    loss = getattr(found, "loss", found)
    loss.backward()
    return loss.detach(), {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in net.named_parameters()}


@pytest.mark.parametrize("kind", ["mlp", "dit", "adaln"])
@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("rows", list(CASES))
def test_the_fast_step_is_the_published_one(kind, variant, rows):
    method, v_depth, config = VARIANTS[variant]
    guided = "interval" if isinstance(config, Flexible) else "no"
    net, draws = network(kind, v_depth, torch.float64, guided=guided), case(guided, **CASES[rows])
    loss, grads = graded(Objective(net, method, rule=guidance.rule(method, config)), net, draws)
    for branches in ("published", "plain"):
        expected, theirs = graded(ReferenceStep(net, method, config, branches), net, draws)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        for name, g in theirs.items():
            assert (grads[name] - g).abs().max() <= 1e-5 * g.abs().max() + 1e-12, (branches, name)


def layers(module, draws) -> float:
    """Counted work of a step in layers over the whole batch."""
    net = module.net
    cond = Objective(net, "imf").conditions(draws)
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused kernel
        with FlopCounterMode(display=False) as unit:
            net.u(draws.x, draws.r, draws.t, cond)  # 12 layers
        with FlopCounterMode(display=False) as counter:
            found = module(draws)
            getattr(found, "loss", found).backward()
    return 12 * counter.get_total_flops() / unit.get_total_flops()


def test_counted_costs_are_those_worked_out_by_hand():
    """4 shared + 8 u + 8 v layers, as in B/2. The references' tangents cost a third matmul for each Linear."""
    config = DiTConfig(width=64, depth=12, heads=1, v_depth=8, guided="interval")
    net = build(config, (1, 8, 8), 10).requires_grad_()
    draws = drawn(shape=(1, 8, 8), guided="interval", class_dropout=0.1)
    ours = layers(Objective(net, "imf", rule=guidance.rule("imf", Flexible())), draws)
    published, plain = (layers(ReferenceStep(net, "imf", Flexible(), b), draws) for b in ("published", "plain"))
    assert ours == pytest.approx(20 + 18 + 12 + 40, rel=0.02)
    assert 108 * 0.98 < published < (108 + 12) * 1.02  # the tangent's 12 layers become at most 24
    assert 140 * 0.98 < plain < (140 + 20) * 1.02


def test_the_benchmarks_run(capsys):
    step_cost.main(networks=("plane",), repeats=1, memory=False)
    assert "| iMF, v-head, guided |" in capsys.readouterr().out
    sampling.main(repeats=1, n=10)
    assert "64 NFE" in capsys.readouterr().out
    loader.main(threads=(0, 2), seconds=0.05, batch=10, count=50)
    assert "2 threads:" in capsys.readouterr().out
    checkpoint.main(parameters=1000)
    assert "training stands still" in capsys.readouterr().out
    loop.main(steps=3)
    assert "of it the loop" in capsys.readouterr().out
    recompute.main(networks=("digits",), repeats=1, batch=16)
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| digits")]
    assert len(rows) == 2 and all(float(row[4]) < 0.7 for row in rows)  # memory, counted by the allocator


def test_the_acceptance_runs_at_toy_size_says_what_it_leaves_out_and_goes_on(tmp_path, capsys, monkeypatch):
    checks = ("tests", "step fp32 no", "step bf16 no", "loop", "export")
    monkeypatch.setattr(acceptance, "in_a_process", acceptance.check)  # faster; by processes in the test below
    monkeypatch.setattr(acceptance, "GPU", False)  # at toy size on every machine
    monkeypatch.setattr(acceptance, "DEVICE", "cpu")
    monkeypatch.setattr(acceptance, "UPDATES", 12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the process that it starts
    acceptance.main(tmp_path, checks)
    (path,) = tmp_path.glob("CPU-*.json")
    results = json.loads(path.read_text())
    assert {name: r["status"] for name, r in results.items()} == {
        "tests": "not run", "step fp32 no": "ok", "step bf16 no": "not run", "loop": "ok", "export": "ok",
    }  # fmt: skip
    assert results["loop"]["found"]["resumed_after"] in (3, 6) and results["loop"]["found"]["differ_by"] < 1e-6
    assert "| tests | not run |" in capsys.readouterr().out
    monkeypatch.setattr(acceptance, "CHECKS", {name: acceptance.CHECKS[name] for name in checks} | {"new": None})
    with pytest.raises(SystemExit) as stop:
        acceptance.main(tmp_path)
    again = json.loads(path.read_text())
    assert stop.value.code == 1 and again.pop("new")["status"] == "failed" and again == results  # nothing else was run


def test_the_acceptance_compares_ranks_by_processes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that the processes use gloo on every machine
    acceptance.main(tmp_path, ("ranks",))
    assert "| ranks | ok |" in capsys.readouterr().out


def test_the_acceptance_sees_a_run_that_goes_on_differently():
    row = {"raw_u_neq": 1.0, "grad_norm": 2.0}
    assert acceptance.apart([row], [row], 0.0) == 0
    for key in row:
        with pytest.raises(RuntimeError, match=r"differ by 1\.0e-02"):
            acceptance.apart([row | {key: 1.01 * row[key]}], [row], 1e-3)


@pytest.mark.parametrize("row", [row for row, method in step_cost.METHODS.items() if method.method != "fm"])
def test_a_step_needs_at_most_seven_tenths_of_the_plain_ports_memory(row):
    """Counted by the allocator, so the same on an idle and on a busy machine."""
    case, method = step_cost.CASES["digits"], step_cost.METHODS[row]
    ours, plain = (step_cost.peak(*step_cost.setup(case, method, step)) for step in ("ours", "plain"))
    assert 0 < ours <= 0.7 * plain
