"""How fast full-size training is on this device: images per second, memory, share of peak, on random latents or pixels.

    python -m benchmarks.imagenet_step                      # iMF B/2, eager and by blocks, every precision
    python -m benchmarks.imagenet_step --names imagenet_imf_xl2 --batch 64

Prints a table and adds its rows to toy_experiments/results/imagenet_step.csv, which the ImageNet notebook's planner
reads. One process, one device, no data set.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro

from imf_lite import guidance, recipes, training
from imf_lite.configs import Compile
from imf_lite.draws import draw
from imf_lite.networks import build
from imf_lite.objective import Objective
from imf_lite.system import devices
from imf_lite.system.devices import matmul_precision
from imf_lite.system.rng import generator
from imf_lite.training import flops
from imf_lite.training.loop import as_trained
from imf_lite.training.optimizers import make_optimizer
from toy_experiments.tables import RESULTS, read_table, write_table

from .step_cost import leave_zero

CLASSES = 1000
SAME = ("device", "recipe", "precision", "compiled", "batch")


def measure(
    name: str,
    precision: str,
    compile: Compile,
    batch: int,
    steps: int,
    device: torch.device,
    changes: dict | None = None,
) -> dict:
    """One variant: median seconds of an update (loss, backward, optimiser) after two untimed ones.

    compile: "no", "blocks" or "whole". changes: of the recipe. Without pMF's perceptual term, whose files may not be
    there. raw_u, the squared error, is that of the first update, of the same weights and draws for every variant.
    """
    recipe = recipes.get(name, precision=precision, **(changes or {}))
    torch._dynamo.reset()  # what the last variant compiled goes, and its memory
    shape = (3, 256, 256) if recipe.data == "imagenet_pixels" else (4, 32, 32)
    net = build(recipe.net, shape, CLASSES)
    leave_zero(net, generator("cpu", 1))
    net = net.to(device)
    rule = guidance.rule(recipe.method, recipe.guidance)
    objective = Objective(net, recipe.method, recipe.p, recipe.c, rule, bf16=precision == "bf16")
    loss = as_trained(objective, compile)
    optimizer = make_optimizer(recipe, net)
    x = torch.randn(batch, *shape, generator=generator("cpu", 2)).to(device)
    y = torch.arange(batch, device=device) % CLASSES
    cuda, seconds, raw_u = device.type == "cuda", [], None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for k in range(steps + 2):
        draws = draw(x, y, recipe.draws, generator(device, k), net.guided)
        start = time.perf_counter()
        net.zero_grad(set_to_none=True)
        with matmul_precision(precision):
            made = loss(draws)
            made.loss.backward()
        raw_u = made.raw_u.mean() if raw_u is None else raw_u
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    pace = batch / sorted(seconds[2:])[steps // 2]
    where = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    peak = flops.peak(where, precision)
    return {
        "device": where,
        "recipe": name,
        "precision": precision,
        "compiled": int(compile != "no"),
        "batch": batch,
        "images_per_s": pace,
        "share_of_peak": pace * flops.per_image(recipe, shape, CLASSES) / peak if peak else "",
        "first_step_s": seconds[0],
        "raw_u": float(raw_u),
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else "",
        "torch": torch.__version__,
        "code": training.fingerprint(),
    }


def main(
    names: tuple[str, ...] = ("imagenet_imf_b2",),
    batch: int | None = None,
    steps: int | None = None,
    device: str | None = None,
    out: Path = RESULTS,
) -> None:
    """Measure, print, and add to the table.

    Args:
        names: recipes.
        batch: images an update; default 64 on a GPU, 2 elsewhere.
        steps: timed updates; default 20 on a GPU, 1 elsewhere.
        device: cuda or cpu; default: the best there is.
        out: folder of imagenet_step.csv.
    """
    where = devices.pick_device(device)
    cuda = where.type == "cuda"
    variants = [(p, c) for c in ("no", "blocks") for p in (("fp32", "tf32", "bf16") if cuda else ("fp32",))]
    path = out / "imagenet_step.csv"
    for name in names:
        for precision, compile in variants:
            row = measure(name, precision, compile, batch or (64 if cuda else 2), steps or (20 if cuda else 1), where)
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            row = {k: v for k, v in row.items() if k not in ("first_step_s", "raw_u")}
            rows = read_table(path) if path.exists() else []
            write_table(path, [*(r for r in rows if any(r[k] != row[k] for k in SAME)), row])
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
