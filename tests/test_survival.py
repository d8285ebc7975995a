"""Runs outlive their owner and results do not lie: real processes, real signals, files that were tampered with."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import save_network, tiny
from safetensors.torch import load_file, save_file
from test_cli import run

from imf_lite import training
from imf_lite.data import Data, Split
from imf_lite.pretrained import weights
from imf_lite.system import files
from imf_lite.training import checkpoint, flops
from imf_lite.training.loop import train, warn_of_initial_weights

ENDLESS = ("train", "digits_imf", "--net.width", "16", "--net.depth", "2", "--net.v-depth", "1", "--steps", "1000000")
pytestmark = pytest.mark.filterwarnings("ignore:after .* updates the average")


def start(*words, **options) -> subprocess.Popen:
    """The command line in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "imf_lite.cli", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def wait_for(path: Path, process: subprocess.Popen, lines: int = 5) -> None:
    """Until a run has logged so many updates."""
    for _ in range(1200):
        if path.exists() and path.read_text().count("\n") >= lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise TimeoutError(path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_saves_and_ends_with_a_code_of_its_own_and_the_same_command_goes_on(tmp_path, name):
    words = (*ENDLESS, "--decay", "constant", "--out", tmp_path / "run")
    process = start(*words)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    step = checkpoint.step_of(tmp_path / "run" / "checkpoints")
    assert process.returncode == 75 and f"stopped after update {step}, which is saved" in said
    assert len(training.read_metrics(tmp_path / "run")) == step >= 5
    recipe = tiny(steps=step + 2, batch=128, save_every=1000, decay="constant")
    assert [r.step for r in train(recipe, tmp_path / "run", device="cpu")] == [step + 1, step + 2]


@pytest.mark.parametrize("whom", ["torchrun", "one rank"])
def test_ranks_stop_together_at_an_update_that_is_saved(tmp_path, whom):
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = (*ENDLESS, "--parts", 2, "--decay", "constant", "--out", tmp_path / "run")
    command = [*torchrun, "-m", "--", "imf_lite.cli", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid if whom == "torchrun" else int(ranks[-1]), signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    step = checkpoint.step_of(tmp_path / "run" / "checkpoints")
    assert process.returncode and len(training.read_metrics(tmp_path / "run")) == step >= 5, said
    recipe = tiny(steps=step + 1, batch=128, parts=2, save_every=1000, decay="constant")
    assert [r.step for r in train(recipe, tmp_path / "run", device="cpu")] == [step + 1]


def test_a_second_process_in_a_folder_is_refused_and_the_first_goes_on(tmp_path):
    first = start(*ENDLESS, "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", first)
    before = len(training.read_metrics(tmp_path / "run"))
    second = start(*ENDLESS, "--out", tmp_path / "run")
    _, said = second.communicate(timeout=120)
    assert second.returncode == 1 and f"is being written by process {first.pid} on" in said
    wait_for(tmp_path / "run" / "metrics.jsonl", first, before + 5)
    first.kill()
    first.communicate()
    steps = [r["step"] for r in training.read_metrics(tmp_path / "run")]
    assert steps == list(range(1, len(steps) + 1))
    next(iter(train(tiny(), tmp_path / "other", device="cpu")))  # no lock is left behind where nobody is
    third = start(*ENDLESS, "--out", tmp_path / "run")  # the dead one's lock is taken over
    wait_for(tmp_path / "run" / "metrics.jsonl", third)
    third.kill()
    third.communicate()


def test_a_full_disk_is_one_line_that_names_the_last_good_checkpoint(tmp_path):
    list(train(tiny(steps=3), tmp_path / "run", device="cpu"))
    size = checkpoint.latest(tmp_path / "run" / "checkpoints").stat().st_size
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    words = ("train", "digits_imf", "--steps", 6, "--batch", 16, "--save-every", 3, "--net.width", 16, "--net.depth", 2)
    words += ("--net.v-depth", 1, "--out", tmp_path / "run", "--decay", "linear")
    edit(tmp_path / "run" / "run.json", lambda r: r["recipe"].update(steps=6))
    process = start(*words, preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), limit()))
    _, said = process.communicate(timeout=120)
    last = [line for line in said.splitlines() if line.startswith("imf-lite:")]
    assert process.returncode == 1 and len(last) == 1 and "Traceback" not in said
    assert "cannot be written" in last[0] and "last good checkpoint: " in last[0] and "step-000000003" in last[0]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000000003.safetensors"]


def edit(path: Path, change) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def points(seed: int) -> Data:
    return Data(Split(torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(64) % 10),
                None, 10)  # fmt: skip


def test_swapped_data_are_refused_and_run_json_stays_as_it_was(tmp_path):
    list(train(tiny(steps=3), tmp_path, points(0), "cpu"))
    before = (tmp_path / "run.json").read_bytes()
    for recipe in (tiny(steps=3), tiny(steps=3, log_every=2)):
        with pytest.raises(ValueError, match="was begun on other data than 'digits' holds now"):
            list(train(recipe, tmp_path, points(1), "cpu"))
    list(train(tiny(steps=3), tmp_path, points(0), "cpu"))  # finished: nothing moves
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize("kind", ["missing", "empty", "half", "a list"])
def test_a_lost_run_json_is_taken_from_the_checkpoint_and_other_settings_are_refused(tmp_path, kind):
    list(train(tiny(steps=3, decay="constant"), tmp_path, device="cpu"))
    whole = (tmp_path / "run.json").read_text()
    text = {"missing": None, "empty": "", "half": whole[: len(whole) // 2], "a list": "[1]"}[kind]
    (tmp_path / "run.json").unlink() if text is None else (tmp_path / "run.json").write_text(text)
    with (
        pytest.warns(UserWarning, match=r"run.json is missing or damaged: what .*step-000000003"),
        pytest.raises(ValueError, match=r"holds another run: p = 1\.0, not 0\.0"),
    ):
        list(train(tiny(steps=3, decay="constant", p=0.0), tmp_path, device="cpu"))
    with pytest.warns(UserWarning, match="missing or damaged"):
        list(train(tiny(steps=5, decay="constant"), tmp_path, device="cpu"))
    after = json.loads((tmp_path / "run.json").read_text())
    assert after["recipe"]["steps"] == 5 and after["data_sha256"] == json.loads(whole)["data_sha256"]


def test_a_broken_line_of_the_log_is_named_and_the_run_goes_on(tmp_path):
    list(train(tiny(steps=3, decay="constant"), tmp_path, device="cpu"))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text(lines[0] + '{"step": 2, "ima\n' + lines[2])
    with pytest.warns(UserWarning, match=r"metrics.jsonl, line 2, is broken"):
        assert [r.step for r in train(tiny(steps=4, decay="constant"), tmp_path, device="cpu")] == [4]
    assert [r["step"] for r in training.read_metrics(tmp_path)] == [1, 3, 4]


@pytest.mark.parametrize(
    "drop, message",
    [
        ("optimizer/", "it lacks optimizer"),
        ("optimizer/exp_avg/", "its optimiser state is incomplete"),
        ("ema/", "it lacks ema"),
        ("net/z_embedder", "do not fit this network"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_one_clear_error(tmp_path, drop, message):
    list(train(tiny(steps=3, decay="constant"), tmp_path, device="cpu"))
    path = checkpoint.latest(tmp_path / "checkpoints")
    tensors, counters = checkpoint.load(path)
    kept = {k: v for k, v in tensors.items() if not k.startswith(drop)}
    files.write_tensors(path, kept, counters)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        list(train(tiny(steps=5, decay="constant"), tmp_path, device="cpu"))
    files.write_tensors(path, tensors | {"surprise/x": torch.zeros(1)}, counters)
    with pytest.raises(checkpoint.CheckpointError, match="has surprise besides"):
        list(train(tiny(steps=5, decay="constant"), tmp_path, device="cpu"))


def test_what_may_change_is_applied_and_noted_and_the_rest_is_refused(tmp_path):
    list(train(tiny(steps=3), tmp_path, device="cpu"))
    for changes, message in (
        ({"steps": 9}, r"steps = 3, not 9 \(the learning rate falls over the whole run"),
        ({"lr": 1e-4}, r"lr = 0.002, not 0.0001 \(it may be lowered after a stop"),
        ({"draws.p_mean": 0.0}, r"draws = p_mean: -0.4, not 0.0\. Choose"),
        ({"seed": 1}, "seed = 0, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            list(train(tiny(**({"steps": 3} | changes)), tmp_path, device="cpu"))
    list(train(tiny(steps=3, log_every=3, keep=5, save_every=2, more_emas=(0.5,)), tmp_path, device="cpu"))
    changed = json.loads((tmp_path / "run.json").read_text())["changes"]
    assert [c["field"] for c in changed] == ["more_emas", "keep", "log_every", "save_every"]
    assert all(c["after_update"] == 3 for c in changed)


def test_an_average_that_is_new_begins_at_the_weights(tmp_path):
    list(train(tiny(steps=3, decay="constant"), tmp_path, device="cpu"))
    list(train(tiny(steps=4, decay="constant", more_emas=(0.0,)), tmp_path, device="cpu"))
    tensors, counters = checkpoint.load(checkpoint.latest(tmp_path / "checkpoints"))
    assert counters["decays"] == [0.995, 0.0]
    assert all(torch.equal(tensors[k.replace("net/", "ema1/")], v) for k, v in tensors.items() if k.startswith("net/"))
    first, second = (training.load_network(tmp_path, "cpu", k).state_dict() for k in (0, 1))
    assert any(not torch.equal(first[k], second[k]) for k in first)  # which of the averages is asked for matters


def explode(net, z, r, t, cond, n_eq, along):
    """A slope that is infinite at the third update."""
    explode.calls += 1
    return torch.full_like(z, float("inf") if explode.calls == 3 else 0.0)


def test_after_a_stop_at_a_gradient_that_is_not_finite_a_lower_rate_is_taken(tmp_path):
    explode.calls = 0
    with pytest.raises(training.NonFiniteError, match="Try a lower lr"):
        list(train(tiny(save_every=1), tmp_path, device="cpu", slope=explode))
    with pytest.raises(training.NonFiniteError):  # anything else may change and the stop is still known
        explode.calls = 2
        list(train(tiny(save_every=1, keep=7), tmp_path, device="cpu", slope=explode))
    assert (tmp_path / "non_finite.json").exists()
    assert [r.step for r in train(tiny(save_every=1, lr=1e-4), tmp_path, device="cpu")] == [3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"lr = 0\.0001, not 0\.002"):
        list(train(tiny(save_every=1), tmp_path, device="cpu"))


def test_an_update_that_is_not_finite_can_be_left_out_and_is_counted(tmp_path):
    explode.calls = 0
    records = list(train(tiny(), tmp_path, device="cpu", slope=explode, on_non_finite="skip"))
    assert [r.skipped for r in records] == [0, 0, 1, 1, 1, 1] and not np.isfinite(records[2].grad_norm)
    with pytest.raises(training.NonFiniteError):
        list(train(tiny(steps=40), tmp_path / "b", device="cpu", slope=lambda net, z, *_, along: z / 0,
                   on_non_finite="skip"))  # fmt: skip
    assert len(training.read_metrics(tmp_path / "b")) == 9


def test_clipping_scales_the_gradient_and_not_what_is_logged(tmp_path):
    plain = list(train(tiny(steps=2, p=0.0), tmp_path / "a", device="cpu"))
    clipped = list(train(tiny(steps=2, p=0.0, clip=1e-9), tmp_path / "b", device="cpu"))
    assert clipped[0].grad_norm == plain[0].grad_norm > 1e-9
    assert clipped[1].raw_u_neq != plain[1].raw_u_neq


@pytest.mark.parametrize("begin", ["digits_fm", "digits_imf_boundary", "digits_imf"])
def test_a_run_begins_with_the_weights_of_another(tmp_path, begin):
    small = {"net.width": 16, "net.depth": 2, "steps": 2, "batch": 16}
    list(train(tiny(begin, **small), tmp_path / "first", device="cpu"))
    trained = training.load_network(tmp_path / "first", "cpu")
    with pytest.warns(UserWarning) as warned:
        list(train(tiny(**small, lr=1e-12), tmp_path / "second", device="cpu", init=trained))
    net = training.load_network(tmp_path / "second", "cpu")
    torch.testing.assert_close(net.blocks.state_dict(), trained.blocks.state_dict())
    missing = [str(w.message) for w in warned if "init does not have" in str(w.message)]
    assert bool(missing) == (begin != "digits_imf") and all("v_blocks, v_head" in m for m in missing)
    assert json.loads((tmp_path / "second" / "run.json").read_text())["init_sha256"]


def test_an_average_of_initial_weights_and_an_untaught_v_are_pointed_out(tmp_path):
    with pytest.warns(UserWarning, match=r"the average of decay 0.9999 is still 100% the initial weights"):
        list(train(tiny(ema=0.9999), tmp_path / "a", device="cpu"))
    with pytest.warns(UserWarning, match="nothing teaches v"):
        list(train(tiny("digits_imf_boundary", **{"draws.p_r_neq_t": 1.0}), tmp_path / "b", device="cpu"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        list(train(tiny(ema=0.01), tmp_path / "c", device="cpu"))
    assert not [str(w.message) for w in said if "initial weights" in str(w.message) or "teaches" in str(w.message)]


def test_updates_left_out_do_not_age_an_average():
    state = SimpleNamespace(decays=[0.99], step=200, skipped=180)  # 0.99^20 = 0.82, but 0.99^200 = 0.13
    with pytest.warns(UserWarning, match="is still 82% the initial weights"):
        warn_of_initial_weights(state)
    state.skipped = 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_of_initial_weights(state)
    assert not said


def test_the_gradient_of_parts_is_their_mean(tmp_path):
    norms = [
        next(iter(train(tiny(batch=512, parts=parts), tmp_path / str(parts), device="cpu"))).grad_norm
        for parts in (1, 2, 4)
    ]
    assert max(norms) < 1.4 * min(norms)  # other draws of the same loss; a sum would be two and four times as long


def test_the_rate_does_not_count_what_the_caller_does_in_between(tmp_path):
    records = []
    for record in train(tiny(steps=4), tmp_path, device="cpu"):
        records.append(record)
        time.sleep(0.5)
    assert records[-1].seconds < 1.5 and records[-1].images_per_s > 16 / 0.4


def test_a_search_never_takes_one_networks_numbers_for_anothers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.savez("other.npz", mu=np.ones(64), sigma=np.eye(64))
    asked = ("--extractor", "digits", "--n", 20, "--omegas", 1, 2, "--t-mins", 0, "--t-maxs", 1)
    found = {}
    for name, more in (
        ("a", ()), ("b", ()), ("a", ("--reference", "other.npz")), ("a", ("--nfe", 2)), ("a", ("--precision", "tf32")),
    ):  # fmt: skip
        save_network(tmp_path / name, ord(name))
        words = ("search", "--weights", name, "--reference", "real.npz", *asked, *more)
        run(monkeypatch, *words)
        said = capsys.readouterr().out
        assert "measured before" not in said and "n = 20 is below the 64 features" in said
        found[(name, *more)] = said.split(", FID ")[1].split(" ")[0]
    assert len({v for k, v in found.items() if k[1:2] != ("--precision",)}) == 4
    rows = (tmp_path / "evaluation" / "search.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 * 2 and len({row.split(",")[0] for row in rows}) == 1 + 5
    run(monkeypatch, "search", "--weights", "a", "--reference", "real.npz", *asked)
    assert "2 settings were measured before" in capsys.readouterr().out
    assert sorted((tmp_path / "evaluation" / "search.csv").read_text().splitlines()) == sorted(rows)


def test_an_evaluation_overwrites_only_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.savez("other.npz", mu=np.ones(64), sigma=np.eye(64))
    for seed in (0, 1, 1):
        save_network(tmp_path / "net", seed)
        for reference in ("real.npz", "other.npz"):
            words = ("evaluate", "--weights", "net", "--reference", reference, "--extractor", "digits", "--n", 20)
            run(monkeypatch, *words, "--omega", 2)
    results = [json.loads(p.read_text()) for p in (tmp_path / "evaluation").glob("*.json")]
    assert len(results) == 4 == len({r["fid"] for r in results})
    assert all(r["identity"]["precision"] == "fp32" for r in results)


def test_a_bad_setting_is_refused_before_the_first_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_network(tmp_path / "net", 0)
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64))
    words = ("search", "--weights", "net", "--reference", "real.npz", "--extractor", "digits", "--n", 20)
    with pytest.raises(SystemExit, match=r"omega = 0.5; a guidance scale is at least 1"):
        run(monkeypatch, *words, "--omegas", 2, 0.5)
    assert not (tmp_path / "evaluation").exists()


def test_a_terminal_that_knows_ascii_alone_is_no_obstacle():
    command, ascii_only = [sys.executable, "-m", "imf_lite.cli", "recipes"], os.environ | {"PYTHONIOENCODING": "ascii"}
    process = subprocess.run(command, capture_output=True, env=ascii_only)
    assert process.returncode == 0 and b"imagenet_ablation" in process.stdout


def test_a_whole_file_of_others_is_not_called_damaged(tmp_path):
    save_network(tmp_path / "net", 0)
    path = tmp_path / "net" / "model.safetensors"
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="a whole safetensors file, but not of imf_lite") as error:
        weights.load(tmp_path / "net")
    assert "Delete" not in str(error.value)


def test_a_log_file_gets_lines_and_no_bar(tmp_path):
    process = start("train", "digits_mf", "--steps", 3, "--net.width", 16, "--out", tmp_path / "run")
    _, said = process.communicate(timeout=120)
    assert "\r" not in said and said.count("update 3 of 3") == 1 and "/s" in said


@pytest.mark.parametrize(
    "name, bf16",
    [
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA RTX A1000", None), ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", None), ("NVIDIA GH200 480GB", None), ("NVIDIA H200", 989e12),
    ],
)  # fmt: skip
def test_peaks_are_those_of_the_device_that_is_named(name, bf16):
    assert flops.peak(name, "bf16") == bf16


def test_help_lists_and_usage_errors_do_not_load_torch():
    code = """
import sys
from imf_lite.cli import main
sys.argv[1:] = {!r}.split()
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    for words, rc in (("--help", 0), ("train digits_imf --help", 0), ("recipes", 0), ("train --stepz", 2), ("foo", 2)):
        done = subprocess.run([sys.executable, "-c", code.format(words)], capture_output=True, text=True)
        assert done.returncode == rc, done.stderr


@pytest.mark.parametrize(
    "words, line",
    [
        ((), "there are no reference statistics at"),
        (("--fid.reference", "real.npz", "--fid.n", 25), "fid.n = 25; it must hold equally many of each of 10 classes"),
        (("--fid.reference", "real.npz", "--fid.omega", 0), "omega = 0; a guidance scale"),
        (("--fid.reference", "real.npz", "--fid.extractor", "eye"), "no extractor 'eye'"),
    ],
)
def test_fid_while_training_is_checked_before_the_first_update(tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64))
    small = ("train", "digits_mf", "--steps", 2, "--net.width", 16, "--save-every", 1, "--fid-every", 1)
    with pytest.raises(SystemExit, match=line):
        run(monkeypatch, *small, "--out", "run", "--fid.extractor", "digits", *words)
    assert not (tmp_path / "run").exists()


def test_fid_while_training_is_measured_once_and_cut_on_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64))
    small = ("train", "digits_mf", "--net.width", 16, "--decay", "constant", "--save-every", 2, "--fid-every", 2)
    fid = ("--fid.extractor", "digits", "--fid.reference", "real.npz", "--fid.n", 20, "--out", "run")
    run(monkeypatch, *small, "--steps", 4, *fid)
    rows = files.read_json_lines(tmp_path / "run" / "fid.jsonl")
    assert [row["step"] for row in rows] == [2, 4] and all(row["fid"] > 0 for row in rows)
    checkpoint.latest(tmp_path / "run" / "checkpoints").unlink()
    run(monkeypatch, *small, "--steps", 4, *fid)
    again = files.read_json_lines(tmp_path / "run" / "fid.jsonl")
    assert [row["step"] for row in again] == [2, 4] and again[1]["fid"] == pytest.approx(rows[1]["fid"], rel=1e-3)


def test_products_are_computed_in_the_precision_of_the_recipe_and_the_process_keeps_its_own(tmp_path):
    seen = []

    def watched(*of, along):
        seen.append(torch.get_float32_matmul_precision())
        return torch.zeros_like(along)

    for precision in ("fp32", "tf32"):
        recipe = tiny(steps=1, precision=precision)
        list(train(recipe, tmp_path / precision, device="cpu", slope=watched))
        assert torch.get_float32_matmul_precision() == "highest"
    assert seen == ["highest", "high"]
