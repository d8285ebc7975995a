"""What a training step costs: flow matching, MF and iMF, ours against the published algorithm.

    python -m benchmarks.step_cost                 # the MLP, the digits' transformer and B/2: about ten minutes
    python -m benchmarks.step_cost --networks digits --methods "iMF, v-head, guided" --compiled blocks whole
    python -m benchmarks.step_cost --networks b2 --batch 64 --device cuda --precision tf32

A step is loss and backward; the optimiser is the same for all. Variants of a row take turns in one
process, and ratios are formed within a turn, so that a slow moment hits both. "Counted" is
FlopCounterMode's count over flow matching's, which sees the forward-mode derivative. Memory is the peak of
one step above weights, gradients and optimiser, as the allocator reports it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import tyro
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from imf_lite import guidance
from imf_lite.configs import PRESETS, DiTConfig, DrawConfig, Fixed, Flexible, MLPConfig, NetConfig
from imf_lite.draws import Draws, draw
from imf_lite.networks import build
from imf_lite.objective import Objective
from imf_lite.recipes import override
from imf_lite.system.rng import generator
from imf_lite.training.loop import as_trained

from .reference_step import ReferenceStep

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler has much to say


class Case(NamedTuple):
    """A network with the batch that it is timed at."""

    net: NetConfig
    shape: tuple[int, ...]
    batch: int


class Method(NamedTuple):
    """A row of the table: how the network is built, what is drawn, and the loss."""

    method: str
    v_head: bool = False
    guidance: Fixed | Flexible | None = None
    p_r_neq_t: float = 0.5


CASES = {
    "plane": Case(MLPConfig(width=128, depth=4, time_scale=3.0, v_depth=1), (2,), 256),
    "digits": Case(
        DiTConfig(
            width=64, depth=4, heads=4, v_depth=2, class_tokens=4, omega_tokens=2, interval_tokens=1, time_tokens=2
        ),
        (1, 8, 8),
        64,
    ),
    "b2": Case(PRESETS["imf_b2"], (4, 32, 32), 2),
}
METHODS = {
    "FM": Method("fm", p_r_neq_t=0.0),
    "MF, 25 % r ≠ t": Method("mf", p_r_neq_t=0.25),
    "MF, 25 %, κ guidance": Method("mf", guidance=Fixed(1.0, 0.5), p_r_neq_t=0.25),
    "iMF, boundary": Method("imf"),
    "iMF, v-head": Method("imf", True),
    "iMF, v-head, guided": Method("imf", True, Flexible()),
}
STEPS = ("ours", "published", "plain")


def setup(case: Case, row: Method, step: str, device: str = "cpu") -> tuple[torch.nn.Module, Draws]:
    """The loss as a module, on a network whose weights are nowhere zero, and the draws of a batch."""
    guided = "interval" if isinstance(row.guidance, Flexible) else "no"
    changes = {"v_depth": case.net.v_depth if row.v_head else None, "guided": guided}
    net = build(override(case.net, changes), case.shape, 10)
    g = generator("cpu", 0)
    leave_zero(net, g)
    x, y = torch.randn(case.batch, *case.shape, generator=g), torch.randint(0, 10, (case.batch,), generator=g)
    if case.batch * row.p_r_neq_t < 1 and row.p_r_neq_t:
        row = row._replace(p_r_neq_t=1 / case.batch)  # two images cannot be quartered
    draws = draw(x, y, DrawConfig(p_r_neq_t=row.p_r_neq_t, class_dropout=0.1), g, guided)
    draws = draws._replace(**{k: v.to(device) for k, v in draws._asdict().items() if torch.is_tensor(v)})
    net = net.to(device)
    if step == "ours":
        objective = Objective(net, row.method, rule=guidance.rule(row.method, row.guidance))
        return objective, draws
    return ReferenceStep(net, row.method, row.guidance, step), draws


def leave_zero(net: torch.nn.Module, g: torch.Generator) -> None:
    """Move all weights a little: a network begins with gates and outputs of zero, by which every loss is the same."""
    for p in net.parameters():
        p.data += 0.02 * torch.randn(p.shape, generator=g)


def once(loss: Callable, draws: Draws) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    output = loss(draws)
    getattr(output, "loss", output).backward()
    if draws.x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def parts(loss: torch.nn.Module, draws: Draws) -> dict[str, float]:
    """Seconds of one step by part. The published step takes the slope together with the trained forward."""
    ours = isinstance(loss, Objective)
    names = (
        {"rule": "guidance", "slope": "slope"} if ours else {"guide": "guidance", loss.branches: "forward with slope"}
    )
    spent = dict.fromkeys([*names.values(), "forward", "backward"], 0.0)

    def timed(part: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent[part] += time.perf_counter() - start
            return result

        return wrapped

    originals = {name: getattr(loss, name) for name in names}
    for name, part in names.items():
        setattr(loss, name, timed(part, originals[name]))
    try:
        start = time.perf_counter()
        output = loss(draws)
        spent["forward"] = time.perf_counter() - start - sum(spent.values())
        start = time.perf_counter()
        getattr(output, "loss", output).backward()
        spent["backward"] = time.perf_counter() - start
    finally:
        for name, function in originals.items():
            setattr(loss, name, function)
    return spent


def counted(case: Case, row: Method, step: str) -> float:
    """Operations of one step, forward derivative included."""
    loss, draws = setup(case, row, step, "cpu")
    # written-out attention everywhere: the counter does not count the CPU's fused kernel
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        once(loss, draws)
    return counter.get_total_flops()


def timed(
    case: Case, rows: list[str], repeats: int, compiled: tuple[str, ...], device: str
) -> dict[tuple[str, str], list[float]]:
    """Seconds of every variant, `repeats` turns, after a first one that warms up, and compiles: it is printed."""
    variants = {}
    for name in rows:
        for step in STEPS if METHODS[name].method != "fm" else ("ours",):
            loss, draws = setup(case, METHODS[name], step, device)
            variants[name, step] = (loss, draws)
        for how in compiled if METHODS[name].method != "fm" else ():
            loss, draws = setup(case, METHODS[name], "ours", device)
            variants[name, how] = (as_trained(loss, how), draws)
    seconds = {key: [] for key in variants}
    for turn in range(repeats + 1):
        for key, (loss, draws) in variants.items():
            loss.zero_grad(set_to_none=True)
            took = once(loss, draws)
            if turn:
                seconds[key].append(took)
            elif key[1] in compiled:
                print(f"{key[0]}, compiled ({key[1]}): the first step takes {took:.0f} s", flush=True)
    return seconds


def peak(loss: torch.nn.Module, draws: Draws) -> float:
    """Peak memory of one step in MB above weights and gradients: the most that is allocated and not yet freed."""
    for p in loss.parameters():
        p.grad = torch.zeros_like(p)
    if draws.x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(loss, draws)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        once(loss, draws)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(itertools.accumulate(changes)) / 2**20


def ratio(a: list[float], b: list[float]) -> str:
    """Median of a / b turn by turn, with its range."""
    r = [x / y for x, y in zip(a, b, strict=True)]
    return f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})"


def table(
    case: Case, methods: tuple[str, ...], repeats: int, compiled: tuple[str, ...], memory: bool, device: str
) -> str:
    """The Markdown table of one network."""
    rows = ["FM", *(row for row in methods if row != "FM")]
    seconds = timed(case, rows, repeats, compiled, device)
    fm, base = seconds["FM", "ours"], counted(case, METHODS["FM"], "ours")
    head = ["", "ours, ms", "in FM steps", "counted", "published / ours", "counted", "plain port / ours", "counted"]
    head += [f"plain port, eager / ours, compiled ({how})" for how in compiled]
    head += ["peak memory, ours / plain port"] if memory else []
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|---" * len(head) + "|")
    for row in rows:
        ours, method = seconds[row, "ours"], METHODS[row]
        work = {step: counted(case, method, step) for step in STEPS if method.method != "fm" or step == "ours"}
        cells = [row, f"{1000 * statistics.median(ours):.3g}", ratio(ours, fm), f"{work['ours'] / base:.2f}"]
        for step in STEPS[1:]:
            if method.method == "fm":
                cells += ["", ""]
            else:
                cells += [ratio(seconds[row, step], ours), f"{work[step] / work['ours']:.2f}"]
        for how in compiled:
            cells.append("" if method.method == "fm" else ratio(seconds[row, "plain"], seconds[row, how]))
        if memory:
            steps = ("ours", "plain") if method.method != "fm" else ()
            peaks = [peak(*setup(case, method, step, device)) for step in steps]
            cells.append(f"{peaks[0] / peaks[1]:.2f}" if peaks else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    networks: tuple[str, ...] = tuple(CASES),
    methods: tuple[str, ...] = tuple(METHODS),
    repeats: int = 7,
    compiled: tuple[Literal["blocks", "whole"], ...] = (),
    memory: bool = True,
    threads: int = 1,
    batch: int | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> None:
    """Print what steps cost, as Markdown tables.

    Args:
        networks: plane, digits, b2.
        methods: rows of the table; flow matching is always one.
        repeats: timed turns.
        compiled: time our step compiled by blocks, or as a whole, too.
        memory: measure peak memory, too.
        threads: of the CPU.
        batch: instead of each network's own.
        device: cpu or cuda.
        precision: fp32 or tf32.
    """
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    where = f"{threads} thread(s)" if device == "cpu" else f"{torch.cuda.get_device_name(device)}, {precision}"
    for name in networks:
        case = CASES[name]._replace(batch=batch or CASES[name].batch)
        print(f"**{name}**: batch {case.batch}, {where}\n")
        print(table(case, methods, repeats, compiled, memory, device), end="\n\n", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
