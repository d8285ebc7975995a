"""Does all that training needs work on this machine, and how fast? Run by `make gpu`.

    python -m benchmarks.acceptance                     # every check, each in at most eight minutes
    python -m benchmarks.acceptance --only loop ranks   # some of them, again

With a GPU: its tests, iMF-B/2's step (eager and compiled, in every precision), the loop killed and resumed, sampling
and FID's features, export, two ranks. Without one, the same at toy size on the CPU. Every check is a process of its
own, and its result is written at once; a second run goes on with what is missing or failed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro

from imf_lite import recipes, training
from imf_lite.configs import Compile, DiTConfig
from imf_lite.data import Data, Split
from imf_lite.networks import Network, build
from imf_lite.recipes import Recipe
from imf_lite.system.files import read_json, write_text
from imf_lite.system.rng import generator

from . import imagenet_step
from .step_cost import leave_zero

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
ROOT = Path(__file__).parent.parent
TOY = DiTConfig(width=48, depth=2, heads=2, v_depth=1, guided="interval", class_tokens=1, omega_tokens=1,
                interval_tokens=1, time_tokens=1)  # fmt: skip
LIMIT = 480
"""seconds of one check"""
UPDATES = 200 if GPU else 12
"""of the run that is killed halfway"""


class NotHereError(RuntimeError):
    """A check that this machine cannot run; the message says why."""


def recipe(**changes) -> Recipe:
    """iMF-B/2 in two parts, without a warm-up, so that few updates move it far; on a CPU a network of its kind that
    trains in seconds."""
    size: dict[str, Any] = {"batch": 64} if GPU else {"batch": 8, "net": TOY, "precision": "fp32"}
    return recipes.get("imagenet_imf_b2", **{"parts": 2, "log_every": 1, "lr": 1e-3, "warmup": 0} | size | changes)


def latents() -> Data:
    """Random latents of ImageNet-256's shape; on a CPU smaller ones."""
    shape, count = ((4, 32, 32), 2000) if GPU else ((4, 8, 8), 100)
    x = torch.randn(count, *shape, generator=generator("cpu", 0))
    return Data(Split(x, torch.arange(count) % 10), None, 10)


def network() -> Network:
    """The recipe's network, with weights that are nowhere zero."""
    data = latents()
    net = build(recipe().net, data.train.shape, data.num_classes)
    leave_zero(net, generator("cpu", 1))
    return net.eval().requires_grad_(False)


def run(*words: str) -> str:
    """What a Python command prints. Raises RuntimeError with the end of it where the command fails."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-600:])
    return done.stdout


def tests(out: Path) -> dict:
    """The tests that need a GPU."""
    if not GPU:
        raise NotHereError("no GPU")
    return {"outcome": run("-m", "pytest", "-q", "tests/test_cuda.py").strip().splitlines()[-1]}


def step(out: Path, precision: str, compile: Compile) -> dict:
    """An update of B/2 without the loop: images per second, share of the peak, memory, compiling, the first error."""
    if not GPU and precision != "fp32":
        raise NotHereError("no GPU: fp32 only")
    size = (64, 20) if GPU else (2, 1)
    changes = {} if GPU else {"net": TOY}
    row = imagenet_step.measure("imagenet_imf_b2", precision, compile, *size, torch.device(DEVICE), changes)
    kept = ("images_per_s", "share_of_peak", "memory_gb", "first_step_s", "raw_u")
    return {k: row[k] for k in kept if row[k] != ""}


def apart(rows: list[dict], others: list[dict], bound: float) -> float:
    """Largest relative difference of error and gradient norm; the weighted loss is near 2 whatever happens.

    Raises RuntimeError where it exceeds the bound.
    """
    pairs = [(a[k], b[k]) for a, b in zip(rows, others, strict=True) for k in ("raw_u_neq", "grad_norm")]
    most = max(abs(a - b) / abs(b) for a, b in pairs)
    if most > bound:
        raise RuntimeError(f"errors or gradients differ by {most:.1e} (allowed: {bound:g})")
    return most


def trained(out: Path) -> Iterator[training.Record]:
    """The run of `loop`, or the rest of it."""
    return training.train(recipe(steps=UPDATES, save_every=UPDATES // 4), out, latents(), DEVICE)


def loop(out: Path) -> dict:
    """Updates through the loop, and the same ones killed halfway and resumed: they must agree."""
    whole = [record._asdict() for record in trained(out / "whole")]
    child = ["-m", "benchmarks.acceptance", "--child", "updates", "--out", str(out)]
    with subprocess.Popen([sys.executable, *child], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stdout or ():
            if line.strip() == str(UPDATES // 2 + 1):
                process.kill()  # like a machine that goes down
                break
    began = training.checkpoint.step_of(out / "cut" / "checkpoints")
    if not 0 < began < UPDATES:
        raise RuntimeError(f"the process that was killed left a checkpoint of update {began}")
    rest = [record._asdict() for record in trained(out / "cut")]
    differ = apart(rest, whole[began:], 1e-2 if GPU else 1e-6)  # a GPU sums in another order each time
    return {"resumed_after": began, "differ_by": differ, "images_per_s": whole[-1]["images_per_s"]}


def updates(out: Path) -> None:
    """The process that `loop` kills."""
    for record in trained(out / "cut"):
        print(record.step, flush=True)


def sampling(out: Path) -> dict:
    """Samples per second in one evaluation, and images per second of an Inception of the right shape."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    from imf_lite.evaluation.extractors import extract
    from imf_lite.sampling import generate

    count, size, pictures = (2000, 250, 1000) if GPU else (20, 10, 4)
    net, found = network().to(DEVICE), {}
    generate(net, size, omega=2.0, batch=size)
    start = time.perf_counter()
    generate(net, count, omega=2.0, batch=size)
    found["samples_per_s"] = count / (time.perf_counter() - start)
    kind = inception.FeatureExtractorInceptionV3
    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(kind, "load_state_dict", lambda *_: None),
    ):
        made = kind("inception-v3-compat", ["2048"])
    torch.save(made.state_dict(), out / "inception.pth")
    images = torch.randint(0, 256, (pictures, 3, 256, 256), dtype=torch.uint8)
    start = time.perf_counter()
    features = extract(images, "inception-v3-compat", str(out / "inception.pth"))
    if features.shape != (pictures, 2048):
        raise RuntimeError(f"features of shape {tuple(features.shape)}")
    return found | {"inception_images_per_s": pictures / (time.perf_counter() - start)}


def export(out: Path) -> dict:
    """The network as ONNX, compared with PyTorch."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise NotHereError(f"{missing[0]} is missing: pip install 'imf-lite[export]'")
    from imf_lite.pretrained import export, weights

    about = export.export_u(weights.without_v(network()), out / "u.onnx")
    return {"megabytes": about["bytes"] / 1e6, "differs_by": about["difference_from_pytorch"]}


def ranks(out: Path) -> dict:
    """The same updates by one process and by two: they must agree. Two GPUs by NCCL, else two CPUs by gloo."""
    if torch.cuda.device_count() == 1:
        raise NotHereError("one GPU: two ranks need two (without a GPU, gloo is tried on the CPU)")
    rows = {}
    for count in (1, 2):
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "--"]
        run(*words, "benchmarks.acceptance", "--child", "share", "--out", str(out / f"ranks{count}"))
        rows[count] = training.read_metrics(out / f"ranks{count}")
    return {"differ_by": apart(rows[2], rows[1], 1e-2 if GPU else 1e-5)}


def share(out: Path) -> None:
    """What every rank of `ranks` does."""
    for _ in training.train(recipe(steps=20 if GPU else 4), out, latents()):
        pass


CHECKS: dict[str, Callable[[Path], dict]] = {
    "tests": tests,
    **{f"step {p} {c}": partial(step, precision=p, compile=c)
       for c in ("no", "blocks", "whole") for p in ("fp32", "tf32", "bf16")},
    "loop": loop, "sampling": sampling, "export": export, "ranks": ranks,
}  # fmt: skip
CHILDREN = {"updates": updates, "share": share}


def check(name: str, out: Path) -> dict:
    """The result of one check, made here: its status, seconds, and what was found or why not."""
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=out) as folder:
            result = {"status": "ok", "found": CHECKS[name](Path(folder))}
    except NotHereError as reason:
        result = {"status": "not run", "why": str(reason)}
    except Exception as error:  # whatever goes wrong is the result
        result = {"status": "failed", "why": f"{type(error).__name__}: {' '.join(str(error).split())[-500:]}"}
    return result | {"seconds": round(time.perf_counter() - start, 1)}


def in_a_process(name: str, out: Path) -> dict:
    """The result of one check, made by a process that is stopped after LIMIT seconds."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.acceptance", "--child", name, "--out", str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"status": "failed", "why": f"not done after {LIMIT} s", "seconds": LIMIT}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"status": "failed", "why": f"the process died: {(done.stdout + done.stderr)[-500:]}", "seconds": 0}


def table(results: dict[str, dict]) -> str:
    """All results as Markdown."""
    lines = ["| check | | seconds | found |", "|---|---|---|---|"]
    for name, result in results.items():
        found = result.get("why") or ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in result["found"].items()
        )
        lines.append(f"| {name} | {result['status']} | {result['seconds']} | {' '.join(found.split())} |")
    return "\n".join(lines)


def main(out: Path = Path("runs/acceptance"), only: tuple[str, ...] = (), child: str | None = None) -> None:
    """Run the checks and print their table; exits with 1 where one failed.

    Args:
        out: folder of the results, a file for each device and version of the code.
        only: names of checks to run, also if they are done; default: all that are not.
        child: used by the checks themselves.
    """
    if child:
        out.mkdir(parents=True, exist_ok=True)
        CHILDREN[child](out) if child in CHILDREN else print(json.dumps(check(child, out)))
        return
    if unknown := set(only) - CHECKS.keys():
        raise SystemExit(f"no check {sorted(unknown)[0]!r}; there is: {', '.join(CHECKS)}.")
    device = torch.cuda.get_device_name() if GPU else "CPU"
    path = out / f"{device.replace(' ', '-')}-{training.fingerprint()}.json"
    results = read_json(path) if path.exists() else {}
    out.mkdir(parents=True, exist_ok=True)
    for name in only or [name for name in CHECKS if results.get(name, {}).get("status") in (None, "failed")]:
        results[name] = in_a_process(name, out.absolute())
        print(f"{name}: {results[name]['status']}", flush=True)
        write_text(path, json.dumps(results, indent=1))
    done = {name: results[name] for name in CHECKS if name in results}
    print(f"\n{device}, torch {torch.__version__}\n\n{table(done)}\n\n{path}")
    if any(result["status"] == "failed" for result in done.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
