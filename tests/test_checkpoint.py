"""A checkpoint is whole or not there, whatever happens to the process that writes it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from helpers import tiny
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from imf_lite.pretrained import weights
from imf_lite.system import files
from imf_lite.training import checkpoint, load_network, read_metrics, train
from imf_lite.training.checkpoint import CheckpointError

FOREVER = """
import os, sys
sys.path.insert(0, {here!r})
from helpers import tiny
from imf_lite.training import train
for line in sys.stdin:  # asks for a process that trains; a fork of this one has everything imported
    child = os.fork()
    if not child:
        for record in train(tiny(steps=100_000, save_every=1, **{{"net.width": 256}}), {out!r}, device="cpu"):
            print("update", record.step, flush=True)
    print("child", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def trained(out, steps=6):
    for _ in train(tiny(steps=steps), out, device="cpu"):
        pass
    return checkpoint.latest(out / "checkpoints")


def test_sigkill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    """Saving takes most of each step here, so that random moments fall into it."""
    code = FOREVER.format(here=os.path.dirname(__file__), out=str(tmp_path))
    command = [sys.executable, "-W", "ignore", "-c", code]
    last, mid_save, k = 0, 0, 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as parent:
        assert parent.stdin and parent.stdout
        while k < 6 or (not mid_save and k < 30):
            parent.stdin.write("another\n")
            said: list[list[str]] = []
            while len([words for words in said if words[0] == "update"]) < 2 or ["child"] not in [w[:1] for w in said]:
                said.append(parent.stdout.readline().split())
            time.sleep(0.0171 * k)
            k += 1
            os.kill(next(int(words[1]) for words in said if words[0] == "child"), signal.SIGKILL)
            while parent.stdout.readline() != "dead\n":
                pass
            mid_save += len(list((tmp_path / "checkpoints").glob("*.tmp")))
            _, counters = checkpoint.load(checkpoint.latest(tmp_path / "checkpoints"))
            assert counters["step"] > last  # it went on from where the last one was killed
            last = counters["step"]
            steps = [r["step"] for r in read_metrics(tmp_path)]
            assert steps == list(range(1, len(steps) + 1)) and steps[-1] >= last
        parent.stdin.close()
    assert mid_save > 0, "no kill fell into a save: the test did not test"


def test_a_truncated_checkpoint_is_one_clear_error(tmp_path):
    path = trained(tmp_path)
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"step-000000006.*is damaged.*go on from step-000000003"):
            list(train(tiny(), tmp_path, device="cpu"))
    path.unlink()  # the remedy that the message names
    assert [r.step for r in train(tiny(), tmp_path, device="cpu")] == [4, 5, 6]


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    path = trained(tmp_path)
    whole = path.read_bytes()
    for k in range(40):
        where = k * (len(whole) - 1) // 39
        altered = bytearray(whole)
        altered[where] ^= 1 << (k % 8)
        path.write_bytes(altered)
        with pytest.raises(CheckpointError, match="is damaged"):
            checkpoint.load(path)
    path.write_bytes(whole)
    checkpoint.load(path)


def test_a_failing_disk_costs_no_good_checkpoint(tmp_path, monkeypatch):
    path = trained(tmp_path)
    before = path.read_bytes()

    def full(tensors, filename, metadata):
        filename.write_bytes(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        files.write_tensors(path, {"a": torch.zeros(3)})
    assert path.read_bytes() == before


def test_only_the_newest_are_kept(tmp_path):
    trained(tmp_path, steps=12)
    assert [p.name for p in checkpoint.paths(tmp_path / "checkpoints")] == [
        "step-000000009.safetensors",
        "step-000000012.safetensors",
    ]


def test_tensors_of_every_kind_survive(tmp_path):
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.tensor(2), "c": torch.randn(2).bfloat16(), "d": torch.zeros(0, 3)}
    files.write_tensors(tmp_path / "x.safetensors", tensors, {"step": 5})
    found, counters = checkpoint.load(tmp_path / "x.safetensors")
    assert counters == {"step": 5}
    for k in tensors:
        assert_close(found[k], tensors[k])


def test_a_part_is_read_alone_and_checked_alone(tmp_path):
    """Sampling needs a quarter of a checkpoint, and reads no more."""
    path = trained(tmp_path)
    tensors, counters = checkpoint.load(path)
    of_ema, same = checkpoint.load(path, "ema")
    assert same == counters and of_ema.keys() == {k for k in tensors if k.startswith("ema/")}
    assert all(torch.equal(v, tensors[k]) for k, v in of_ema.items())
    assert checkpoint.load(path, "ema7")[0] == {}
    whole = path.read_bytes()
    there = tensors["optimizer/exp_avg/" + next(k for k in of_ema).removeprefix("ema/")].numpy().tobytes()
    altered = whole.replace(there, bytes(len(there)))
    assert altered != whole
    path.write_bytes(altered)
    assert checkpoint.load(path, "ema")[0].keys() == of_ema.keys()
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(path, "optimizer")


def test_names_without_a_slash_are_one_part(tmp_path):
    """A network's own file has hundreds of such names; a checksum of each would only make its header long."""
    path, tensors = tmp_path / "x.safetensors", {"a.weight": torch.randn(3), "b.weight": torch.randn(3)}
    files.write_tensors(path, tensors)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["parts"]).keys() == {""}
    assert files.read_tensors(path)[0].keys() == files.read_tensors(path, "")[0].keys() == tensors.keys()


def test_a_file_with_a_checksum_for_each_name_is_still_read_and_checked(tmp_path):
    """As versions before wrote names without a slash."""
    tensors = {"a.weight": torch.randn(3), "b.weight": torch.randn(3)}
    path, text = tmp_path / "x.safetensors", json.dumps({})
    parts = json.dumps({name: files.digest({name: tensor}) for name, tensor in tensors.items()})
    header = {"counters": text, "parts": parts, "sha256": files.digest({}, text + parts)}
    save_file(tensors, path, header)
    assert files.read_tensors(path)[0].keys() == tensors.keys()
    for changed in ({"a.weight": torch.randn(3)}, {"c.weight": torch.randn(3)}):  # altered, added
        save_file(tensors | changed, path, header)
        with pytest.raises(files.DamagedFileError, match="do not match"):
            files.read_tensors(path)


def test_a_tensor_that_no_checksum_covers_is_damage(tmp_path):
    path, tensors = tmp_path / "x.safetensors", {"net/a": torch.randn(3), "ema/a": torch.randn(3)}
    files.write_tensors(path, tensors)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(tensors | {"more/a": torch.randn(3)}, path, header)
    with pytest.raises(files.DamagedFileError, match="do not match"):
        files.read_tensors(path)


def test_a_file_with_one_checksum_for_all_is_still_read(tmp_path):
    """As versions before wrote it."""
    tensors, text = {"net/a": torch.randn(3), "ema/a": torch.randn(3)}, json.dumps({"step": 5})
    save_file(tensors, tmp_path / "x.safetensors", {"counters": text, "sha256": files.digest(tensors, text)})
    assert checkpoint.load(tmp_path / "x.safetensors")[0].keys() == tensors.keys()
    assert checkpoint.load(tmp_path / "x.safetensors", "ema")[0].keys() == {"ema/a"}
    save_file(tensors, tmp_path / "x.safetensors", {"counters": text, "sha256": files.digest({}, text)})
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(tmp_path / "x.safetensors", "ema")


def state():
    net = torch.nn.Linear(4, 4)
    return checkpoint.State(net, torch.optim.AdamW(net.parameters()))


def test_what_is_written_is_the_state_when_save_was_called(tmp_path, monkeypatch):
    """Training goes on while the file is written, and changes the weights in place."""
    begun, go_on, written = threading.Event(), threading.Event(), checkpoint.write_tensors

    def slow(*args):
        begun.set()
        assert go_on.wait(20)
        written(*args)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    current = state()
    before = current.net.weight.detach().clone()
    with checkpoint.Writer(tmp_path, 2) as writer:
        writer.save(current)
        assert begun.wait(20) and checkpoint.latest(tmp_path) is None
        current.net.weight.data += 1
        current.step = 1
        go_on.set()
        writer.save(current)  # waits for the one before
        assert checkpoint.latest(tmp_path) == tmp_path / "step-000000000.safetensors"
    first, second = (checkpoint.load(path)[0]["net/weight"] for path in checkpoint.paths(tmp_path))
    assert torch.equal(first, before) and torch.equal(second, before + 1)


def test_room_for_the_copies_is_made_while_training_goes_on(tmp_path):
    """So that the first save stalls no longer than the later ones."""
    current = state()
    with checkpoint.Writer(tmp_path) as writer:
        writer.reserve(current).result()
        room = {name: copy.data_ptr() for name, copy in writer.copies.items()}
        assert room.keys() == current.tensors().keys()
        writer.save(current)
        assert {name: copy.data_ptr() for name, copy in writer.copies.items()} == room
    assert torch.equal(checkpoint.load(checkpoint.latest(tmp_path))[0]["net/weight"], current.net.weight)


def test_a_run_makes_room_before_its_first_checkpoint(tmp_path, monkeypatch):
    room, save = [], checkpoint.Writer.save

    def seen(self, state, *args):
        room.append((set(self.copies) if self.room and self.room.result() is None else set(), set(state.tensors())))
        save(self, state, *args)

    monkeypatch.setattr(checkpoint.Writer, "save", seen)
    list(train(tiny(), tmp_path, device="cpu"))
    there, wanted = room[0]
    assert there == wanted and any(name.startswith("optimizer/exp_avg_sq/") for name in there)


def test_milestones_stay_when_their_checkpoints_are_gone(tmp_path):
    """The average alone, as a network that --weights reads."""
    recipe = tiny(steps=8, save_every=2, milestone_every=4, keep=1)
    for record in train(recipe, tmp_path, device="cpu"):
        if record.step == 5:
            expected = load_network(tmp_path, "cpu").state_dict()  # of update 4
    assert [path.name for path in checkpoint.paths(tmp_path / "checkpoints")] == ["step-000000008.safetensors"]
    assert sorted(p.name for p in (tmp_path / "averages").iterdir()) == ["step-000000004", "step-000000008"]
    kept = weights.load(tmp_path / "averages/step-000000004")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in kept.state_dict().items())
    notes = weights.read_notes(tmp_path / "averages/step-000000004")
    assert notes["step"] == 4 and notes["recipe"]["name"] == recipe.name
    with pytest.raises(ValueError, match="milestone_every = 3; it must be a multiple of save_every = 2"):
        tiny(save_every=2, milestone_every=3)


def test_a_disk_that_is_full_stops_the_run_at_the_next_record(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    records = []
    with pytest.raises(OSError, match=r"No space left on device\. The last good checkpoint: none yet"):
        for record in train(tiny(steps=6), tmp_path, device="cpu"):
            records.append(record.step)
    assert records == [1, 2, 3]  # the checkpoint of update 3 failed
    writer = checkpoint.Writer(tmp_path)
    with pytest.raises(KeyError), writer:  # an error on its way is not hidden by it
        writer.save(state())
        raise KeyError("other")


def test_whoever_is_told_of_an_update_finds_the_checkpoints_before_it(tmp_path, monkeypatch):
    written = checkpoint.write_tensors
    monkeypatch.setattr(checkpoint, "write_tensors", lambda *args: (time.sleep(0.2), written(*args)))
    for record in train(tiny(steps=7), tmp_path, device="cpu"):  # saves every three
        assert checkpoint.step_of(tmp_path / "checkpoints") == (record.step - 1) // 3 * 3
    assert checkpoint.step_of(tmp_path / "checkpoints") == 7
