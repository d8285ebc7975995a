"""What was tampered with, swapped, or done twice at once is refused or kept apart, and never mixed."""

import json
import shutil

import numpy as np
import pytest
from helpers import save_network, tiny
from test_cli import run
from test_weights import save_tiny_vae

from imf_lite.data import cache, normalisation, preparation, sources
from imf_lite.data.autoencoder import load_vae
from imf_lite.evaluation.identity import identity
from imf_lite.system import files
from imf_lite.system.lock import locked
from imf_lite.training import checkpoint
from imf_lite.training.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:after .* updates the average")
ASKED = ("--extractor", "digits", "--n", 20, "--t-mins", 0, "--t-maxs", 1)


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """A network, a reference and a table of two settings."""
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", mu=np.zeros(64), sigma=np.eye(64))
    save_network(tmp_path / "net", 0)
    run(monkeypatch, "search", "--weights", "net", "--reference", "real.npz", *ASKED, "--omegas", 1, 2)
    return tmp_path / "evaluation" / "search.csv"


def search(monkeypatch, capsys, *words) -> str:
    capsys.readouterr()
    run(monkeypatch, "search", "--weights", "net", "--reference", "real.npz", *ASKED, *words)
    return capsys.readouterr().out


@pytest.mark.parametrize("fid", ["nan", "-5", "", "many"])
def test_a_row_that_no_measurement_gave_is_measured_again(searched, monkeypatch, capsys, fid):
    rows = files.read_csv(searched, text=("key",))
    files.write_csv(searched, [rows[0] | {"fid": fid}, rows[1]], None)
    search(monkeypatch, capsys, "--omegas", 1, 2)
    again = sorted(files.read_csv(searched), key=lambda row: row["omega"])
    assert [row["fid"] for row in again] == sorted((row["fid"] for row in rows), key=[r["fid"] for r in again].index)


def test_a_table_that_was_cut_loses_its_last_row_only(searched, monkeypatch, capsys):
    whole = searched.read_text()
    searched.write_text(whole[: whole.rindex(",")])
    assert "1 settings were measured before" in search(monkeypatch, capsys, "--omegas", 1, 2)
    assert len(searched.read_text().splitlines()) == 3


def test_the_best_is_one_of_those_asked_for_and_any_number_is_found_again(searched, monkeypatch, capsys):
    rows = sorted(files.read_csv(searched), key=lambda row: row["fid"])
    worse = int(rows[1]["omega"])
    assert f"best: omega {worse} in" in search(monkeypatch, capsys, "--omegas", worse)
    odd = ("--omegas", 1.23456789123)
    search(monkeypatch, capsys, *odd)
    assert "measured before" in search(monkeypatch, capsys, *odd)
    assert len(searched.read_text().splitlines()) == 4


def test_a_table_is_written_by_one_search_at_a_time(searched, monkeypatch):
    with locked(searched.parent), pytest.raises(SystemExit, match="is being written by process"):
        run(monkeypatch, "search", "--weights", "net", "--reference", "real.npz", *ASKED, "--omegas", 3)


def test_an_autoencoder_with_other_weights_is_another_and_is_refused(tmp_path):
    first, second = save_tiny_vae(tmp_path / "a"), save_tiny_vae(tmp_path / "b")
    space = normalisation.Latents(str(first), (0.0,) * 4, (1.0,) * 4, files.digest(load_vae(first).state_dict()))
    net = type("Net", (), {"state_dict": dict, "config": tiny().net})()
    asked = ("digits", None, "text", "fp32")
    kept = identity(net, space, *asked)
    moved = identity(net, normalisation.Latents(str(second), space.mean, space.std, space.vae_sha256), *asked)
    assert kept == moved  # where it lies does not matter
    net_b = load_vae(second)
    net_b.decoder.conv_out.bias.data += 1
    net_b.save_pretrained(first)
    assert identity(net, normalisation.Latents(str(first), space.mean, space.std), *asked) != kept
    with pytest.raises(ValueError, match="is not the one that these latents were made by"):
        space.autoencoder()


def test_a_checkpoint_of_another_run_or_under_another_number_is_refused(tmp_path):
    for name, seed in (("mine", 0), ("other", 5)):
        list(train(tiny(steps=4, seed=seed, save_every=2, keep=5), tmp_path / name, device="cpu"))
    mine, other = (tmp_path / name / "checkpoints" for name in ("mine", "other"))
    newest, recipe = checkpoint.latest(mine), tiny(steps=4, save_every=2, keep=5)
    shutil.copy(checkpoint.latest(other), newest)
    with pytest.raises(ValueError, match=r"is a checkpoint of another run: seed differ"):
        list(train(recipe, tmp_path / "mine", device="cpu"))
    shutil.copy(mine / "step-000000002.safetensors", newest)
    with pytest.raises(ValueError, match="is a checkpoint of update 2, not of what its name says"):
        list(train(recipe, tmp_path / "mine", device="cpu"))
    newest.unlink()
    shutil.copy(mine / "step-000000002.safetensors", mine / "step-latest.safetensors")  # a copy under a name of its own
    assert [r.step for r in train(recipe, tmp_path / "mine", device="cpu")] == [3, 4]


def test_fewer_updates_than_there_are_is_refused_and_leaves_run_json(tmp_path):
    list(train(tiny(steps=4, decay="constant"), tmp_path, device="cpu"))
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="has 4 updates already, more than steps = 2"):
        list(train(tiny(steps=2, decay="constant"), tmp_path, device="cpu"))
    assert (tmp_path / "run.json").read_bytes() == before


def test_what_a_killed_writer_left_does_not_keep_a_run_from_beginning(tmp_path):
    (tmp_path / "run.json.123.tmp").write_text("{")
    assert len(list(train(tiny(), tmp_path, device="cpu"))) == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_lines_without_a_step_are_named_and_left_out(tmp_path):
    list(train(tiny(steps=4, save_every=2), tmp_path, device="cpu"))
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n' + (tmp_path / "metrics.jsonl").read_text())
    checkpoint.latest(tmp_path / "checkpoints").unlink()
    with pytest.warns(UserWarning, match="line 1, is broken"):
        assert [r.step for r in train(tiny(steps=4, save_every=2), tmp_path, device="cpu")] == [3, 4]


def test_fids_of_two_references_stand_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, mean in (("real", 0), ("other", 1)):
        np.savez(f"{name}.npz", mu=np.full(64, float(mean)), sigma=np.eye(64))
    small = ("train", "digits_mf", "--net.width", 16, "--steps", 2, "--save-every", 2, "--fid-every", 2, "--out", "run")
    for name in ("real", "other", "real"):
        run(monkeypatch, *small, "--fid.extractor", "digits", "--fid.n", 20, "--fid.reference", f"{name}.npz")
    rows = files.read_json_lines(tmp_path / "run" / "fid.jsonl")
    assert [row["step"] for row in rows] == [2, 2] and len({row["protocol"] for row in rows}) == 2


def test_samples_of_two_networks_do_not_overwrite_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate("ab"):
        save_network(tmp_path / name / "net", k)
        run(monkeypatch, "sample", "--weights", f"{name}/net", "--rows", 1)
    run(monkeypatch, "sample", "--weights", "a/net", "--rows", 2)
    run(monkeypatch, "sample", "--weights", "a/net", "--rows", 1)
    assert len(list((tmp_path / "samples").glob("*.png"))) == 3


def test_images_that_were_replaced_under_their_names_are_another_data_set(tmp_path):
    from test_sources import write_classes

    root, vae = write_classes(tmp_path / "images"), load_vae(save_tiny_vae(tmp_path / "vae"))

    def prepare():
        return list(preparation.prepare(sources.open_splits(root, 32)["train"], vae, "vae", tmp_path / "latents"))

    prepare()
    path = next(p for p in root.rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match="is a cache of something else"):
        prepare()


def test_classes_of_which_nothing_could_be_read_are_named(tmp_path, monkeypatch, capsys):
    from test_sources import write_classes

    root = write_classes(tmp_path / "images", ["a", "b"])
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    vae = save_tiny_vae(tmp_path / "vae")
    run(monkeypatch, "prepare", root, "--vae", vae, "--size", 32, "--out", tmp_path / "out", "--workers", 0)
    assert "no image could be read of b" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "train" / "meta.json").read_text())["about"]["classes"] == ["a", "b"]
    assert len(cache.load(tmp_path / "out" / "train", "fitted")[0]) > 0
