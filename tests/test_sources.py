"""Data sets as people have them: every layout gives the same images under the same numbers, or says what it wants.

Files of foreign formats are written here by the libraries they belong to (pillow, tarfile, webdataset, datasets).
"""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import run
from test_weights import save_tiny_vae

from imf_lite import data
from imf_lite.data import cache, images
from imf_lite.data.sources import SafeDataset, folders, open_splits

WNIDS = ("n01440764", "n01443537", "n02123045")
COLOURS = {"n01440764": (250, 10, 10), "n01443537": (10, 250, 10), "n02123045": (10, 10, 250)}


def jpeg(colour, size=(40, 36)) -> bytes:
    """A JPEG file of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "jpeg", quality=95)
    return out.getvalue()


def write_classes(root: Path, names=WNIDS, each: int = 2) -> Path:
    """root/CLASS/CLASS_k.JPEG, the k-th class k grey levels brighter."""
    for c, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for k in range(each):
            (root / name / f"{name}_{k}.JPEG").write_bytes(jpeg(COLOURS.get(name, (9 * c, 9 * c, 9 * c))))
    return root


def labels(source) -> list[int]:
    return [source[k][1] for k in range(len(source))]


def check_wnids(source, each: int = 2) -> None:
    """Three classes of ImageNet, numbered in the order of their wnids, each image in its class's colour."""
    assert sorted(labels(source)) == [k for k in range(3) for _ in range(each)]
    for k in range(len(source)):
        image, label = source[k]
        assert image.shape == (3, 32, 32) and image.dtype == torch.uint8
        assert int(image.float().mean((1, 2)).argmax()) == label, source.name(k)


@pytest.mark.parametrize("inside", [".", "train", "ILSVRC/Data/CLS-LOC/train"])
def test_class_folders_as_imagenet_has_them(tmp_path, inside):
    write_classes(tmp_path / "imagenet" / inside)
    (tmp_path / "imagenet" / "._notes.JPEG").write_bytes(b"AppleDouble")
    source = open_splits(tmp_path / "imagenet", 32)["train"]
    assert source.classes == list(WNIDS) and len(source) == 6
    check_wnids(source)


def test_class_folders_are_numbered_as_by_torchvision_where_natural_order_is_its_own(tmp_path):
    from torchvision.datasets import ImageFolder

    theirs, ours = ImageFolder(str(write_classes(tmp_path / "x"))), folders.ClassFolders(tmp_path / "x", 32)
    assert ours.classes == theirs.classes and labels(ours) == theirs.targets


def test_numbered_class_folders_are_in_natural_order(tmp_path):
    write_classes(tmp_path / "train", [str(k) for k in range(12)], each=1)
    source = open_splits(tmp_path, 32)["train"]
    assert source.classes == [str(k) for k in range(12)] and labels(source) == list(range(12))
    assert folders.natural(["b10", "b9", "a", "b09", "b"]) == ["a", "b", "b09", "b9", "b10"]


def test_a_test_split_with_fewer_classes_has_the_numbers_of_the_training_split(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "val", WNIDS[2:])
    splits = open_splits(tmp_path, 32)
    assert labels(splits["test"]) == [2, 2] and splits["test"].classes == splits["train"].classes
    write_classes(tmp_path / "val2", ["n99999999"])
    with pytest.raises(ValueError, match=r"1 classes that the training split does not have, such as 'n99999999'"):
        folders.ClassFolders(tmp_path / "val2", 32, list(WNIDS))


def test_a_flat_test_folder_as_imagenet_and_kaggle_have_it_is_left_out(tmp_path):
    write_classes(tmp_path / "ILSVRC/Data/CLS-LOC/train")
    (tmp_path / "ILSVRC/Data/CLS-LOC/val").mkdir()
    (tmp_path / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg((1, 2, 3)))
    assert set(open_splits(tmp_path, 32)) == {"train"} == set(open_splits(tmp_path / "ILSVRC", 32))


def test_an_empty_class_folder_does_not_shift_the_numbers(tmp_path):
    write_classes(tmp_path / "train")
    (tmp_path / "train" / "n01440000").mkdir()
    with pytest.raises(ValueError, match=r"folders without images, such as 'n01440000'"):
        open_splits(tmp_path, 32)


def test_a_flat_folder_has_no_classes(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg((k, k, k)))
    source = open_splits(tmp_path, 32)["train"]
    assert source.classes == [] and len(source) == 3


def write_imagenet_tar(path: Path) -> Path:
    """ILSVRC2012_img_train.tar in small: a tar of one tar a class."""
    with tarfile.open(path, "w") as outer:
        for name in reversed(WNIDS):  # its members are not sorted
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for k in range(2):
                    info = tarfile.TarInfo(f"{name}_{k}.JPEG")
                    info.size = len(jpeg(COLOURS[name]))
                    tar.addfile(info, io.BytesIO(jpeg(COLOURS[name])))
            info = tarfile.TarInfo(f"{name}.tar")
            info.size = len(inner.getvalue())
            outer.addfile(info, io.BytesIO(inner.getvalue()))
    return path


def test_imagenets_tar_of_tars_as_torchvision_unpacks_it(tmp_path, monkeypatch):
    from torchvision.datasets import ImageFolder, imagenet

    archive = write_imagenet_tar(tmp_path / "ILSVRC2012_img_train.tar")
    for path in (archive, tmp_path):
        source = open_splits(path, 32)["train"]
        assert source.classes == list(WNIDS)
        check_wnids(source)
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *_: None)
    imagenet.parse_train_archive(str(tmp_path), str(archive), folder="unpacked")
    theirs = ImageFolder(str(tmp_path / "unpacked"))
    assert theirs.classes == source.classes
    ours = {source.name(k).rpartition("/")[2]: source[k] for k in range(len(source))}
    for path, label in theirs.samples:
        image, number = ours[Path(path).name]
        assert number == label and torch.equal(image, images.read_image(path, 32))


def test_a_truncated_archive_is_refused(tmp_path):
    archive = write_imagenet_tar(tmp_path / "ILSVRC2012_img_train.tar")
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cannot be read as a tar archive"):
        open_splits(archive, 32)


def test_webdataset_shards_as_its_own_writer_writes_them(tmp_path):
    import webdataset

    order = [2, 0, 1, 0, 2, 1]
    with webdataset.ShardWriter(str(tmp_path / "imagenet1k-train-%04d.tar"), maxcount=4, verbose=0) as writer:
        for k, label in enumerate(order):
            name = f"{WNIDS[label]}_{k}"
            writer.write({"__key__": name, "jpg": jpeg(COLOURS[WNIDS[label]]), "cls": label, "json": {"label": label}})
    assert len(list(tmp_path.glob("*.tar"))) == 2
    source = open_splits(tmp_path, 32)["train"]
    assert labels(source) == order and source.classes == ["0", "1", "2"]
    check_wnids(source)


def test_parquet_shards_as_the_datasets_library_writes_them(tmp_path):
    import datasets

    order = [1, 0, 2, 2, 1, 0]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["tench", "fish", "cat"])}
    )
    rows = {"image": [{"bytes": jpeg(COLOURS[WNIDS[k]]), "path": None} for k in order], "label": order}
    made = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "data").mkdir()
    for k in range(2):
        shard = made.shard(2, k, contiguous=True)
        shard.to_parquet(str(tmp_path / "data" / f"train-{k:05d}-of-00002.parquet"), batch_size=2)
    splits = open_splits(tmp_path, 32)
    assert labels(splits["train"]) == order and splits["train"].classes == ["tench", "fish", "cat"]
    check_wnids(splits["train"])
    theirs = np.array(made[0]["image"].convert("RGB"))
    assert torch.equal(splits["train"][0][0], images.read_image(io.BytesIO(rows["image"][0]["bytes"]), 32))
    assert abs(int(theirs[0, 0, 1]) - int(splits["train"][0][0][1, 0, 0])) <= 1
    made.select([0]).map(lambda row: {"label": -1}).to_parquet(str(tmp_path / "data" / "test-00000-of-00001.parquet"))
    assert set(open_splits(tmp_path, 32)) == {"train"}  # as ImageNet's on the Hub: no labels
    made.select([0, 1]).map(lambda row, k: {"label": -k}, with_indices=True).to_parquet(str(tmp_path / "rows.parquet"))
    mixed = open_splits(tmp_path, 32)["train"]
    assert mixed[0][1] == 0
    with pytest.raises(ValueError, match="the row has no label"):
        mixed[1]


@pytest.mark.parametrize("make", ["nothing", "empty", "text", "folders of text"])
def test_other_layouts_are_refused_with_those_that_are_understood(tmp_path, make):
    path = tmp_path / "x"
    if make == "text":
        path.write_text("not images")
    elif make != "nothing":
        (path / "train" / "a").mkdir(parents=True)
        if make == "folders of text":
            (path / "train" / "a" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"is not a data set(.|\n)*FOLDER/train/CLASS/\*\.jpg"):
        open_splits(path)


def read(path: Path) -> torch.Tensor:
    return images.read_image(path, 8)


def test_sixteen_bit_grey_is_scaled_and_not_white(tmp_path):
    for level in (0, 100, 200, 255):
        Image.fromarray(np.full((8, 8), 257 * level, np.uint16)).save(tmp_path / "grey.png")
        assert Image.open(tmp_path / "grey.png").mode.startswith("I")
        assert read(tmp_path / "grey.png").unique().tolist() == [level]


def test_palettes_and_transparency_are_read_as_by_adm_and_torchvision(tmp_path, recwarn):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.save(tmp_path / "palette.png", transparency=bytes([255, 0]))
    assert read(tmp_path / "palette.png")[:, 0, 0].tolist() == [200, 100, 50] and not recwarn.list
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "alpha.png")
    assert read(tmp_path / "alpha.png")[:, 0, 0].tolist() == [10, 20, 30]
    Image.new("LA", (8, 8), (40, 9)).save(tmp_path / "la.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    assert read(tmp_path / "la.png").unique().tolist() == [40] and read(tmp_path / "cmyk.jpg").unique().tolist() == [
        255
    ]


def test_exif_orientation_is_ignored_as_by_adm_and_torchvision(tmp_path):
    from torchvision.datasets.folder import pil_loader

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # bright above
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(
        read(tmp_path / "turned.png"), torch.tensor(np.array(pil_loader(str(tmp_path / "turned.png")))).permute(2, 0, 1)
    )
    assert read(tmp_path / "turned.png")[0, 0, 0] == 255


def test_images_that_cannot_be_read_are_named_and_do_not_stop_a_preparation(tmp_path, monkeypatch, capsys):
    root = write_classes(tmp_path / "pictures" / "train", ["a", "b"])
    bad = root / "a"
    Image.fromarray(np.ones((8, 8), np.float32)).save(bad / "float.tiff")
    Image.new("L", (4000, 20)).save(bad / "slender.png")
    os.symlink(root / "nowhere.jpg", bad / "dangling.jpg")
    os.symlink(bad, bad / "loop")
    (bad / "html.jpg").write_text("<html>")
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "._a_0.jpg").write_bytes(b"AppleDouble")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    (bad / "bomb.jpg").write_bytes(jpeg((1, 1, 1), (50, 50)))
    command = ("prepare", tmp_path / "pictures", "--vae", save_tiny_vae(tmp_path / "vae"), "--size", 32)
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path / "data"))
    run(monkeypatch, *command, "--workers", 0)
    said = capsys.readouterr().out
    for name in ("float.tiff", "slender.png", "dangling.jpg", "html.jpg", "empty.jpg", "bomb.jpg"):
        assert f"could not be read, left out: {bad / name}" in said, name
    assert "._a_0" not in said and "2 classes: 0 a, 1 b" in said and "decompression bomb" in said
    split, _ = cache.load(tmp_path / "data" / "latents" / "pictures" / "train", "fitted")
    write_classes(tmp_path / "good" / "train", ["a", "b"])
    run(monkeypatch, "prepare", tmp_path / "good", *command[2:], "--workers", 0)
    same, _ = cache.load(tmp_path / "data" / "latents" / "good" / "train", "fitted")
    assert len(split) == len(same) == 4 < len(split.moments)
    for found, expected in zip(split.batch(torch.arange(4), 0), same.batch(torch.arange(4), 0), strict=True):
        torch.testing.assert_close(found, expected)  # rows that hold no image are never drawn
    run(monkeypatch, *command, "--workers", 0)  # again: nothing to do


def test_a_cache_is_recognised_after_its_images_moved_and_not_with_others(tmp_path, monkeypatch):
    write_classes(tmp_path / "old" / "pictures")
    vae, out = save_tiny_vae(tmp_path / "vae"), tmp_path / "latents"
    command = ("--vae", vae, "--size", 32, "--out", out, "--workers", 0)
    run(monkeypatch, "prepare", tmp_path / "old" / "pictures", *command)
    before = {p.name: p.stat().st_mtime_ns for p in (out / "train").iterdir()}
    (tmp_path / "old").rename(tmp_path / "new")
    run(monkeypatch, "prepare", tmp_path / "new" / "pictures", *command)
    monkeypatch.chdir(tmp_path / "new" / "pictures")
    run(monkeypatch, "prepare", ".", *command)
    assert before == {p.name: p.stat().st_mtime_ns for p in (out / "train").iterdir()}
    (tmp_path / "new" / "pictures" / WNIDS[0] / "one_more.jpg").write_bytes(jpeg((3, 3, 3)))
    with pytest.raises(SystemExit, match="a cache of something else"):
        run(monkeypatch, "prepare", tmp_path / "new" / "pictures", *command)


def test_the_folder_in_which_one_stands_gives_the_cache_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(write_classes(tmp_path / "flowers"))
    monkeypatch.setenv("IMF_LITE_DATA", str(tmp_path / "data"))
    run(monkeypatch, "prepare", ".", "--vae", save_tiny_vae(tmp_path / "vae"), "--size", 32, "--workers", 0)
    assert data.load(str(tmp_path / "data" / "latents" / "flowers")).classes == WNIDS


@pytest.mark.parametrize("size", [0, 61, -8])
def test_sizes_that_an_autoencoder_does_not_encode_are_refused(tmp_path, monkeypatch, size):
    write_classes(tmp_path / "x")
    with pytest.raises(SystemExit, match=rf"size = {size}: .*a multiple of 8"):
        run(monkeypatch, "prepare", tmp_path / "x", "--vae", save_tiny_vae(tmp_path / "vae"), "--size", size)


def test_unlabelled_images_train_an_unconditional_network(tmp_path, monkeypatch):
    for k in range(20):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / f"{k}.jpg").write_bytes(jpeg((9 * k, k, k)))
    vae = save_tiny_vae(tmp_path / "vae")
    run(monkeypatch, "prepare", tmp_path / "x", "--vae", vae, "--size", 32, "--out", tmp_path / "cache", "--workers", 0)
    found = data.load(str(tmp_path / "cache"), "fitted")
    assert found.num_classes is None and found.train.batch(torch.arange(2), 0)[1] is None
    monkeypatch.chdir(tmp_path)
    plain = ("train", "fashion_imf_plain", "--data", tmp_path / "cache", "--steps", 2, "--batch", 4, "--net.width", 12)
    run(monkeypatch, *plain, "--net.heads", 2, "--out", tmp_path / "run")
    run(monkeypatch, "sample", "--run", tmp_path / "run", "--rows", 1)
    guided = ("train", "fashion_imf", "--data", tmp_path / "cache", "--batch", 4, "--out", tmp_path / "guided")
    with pytest.raises(SystemExit, match="guidance steers towards a class"):
        run(monkeypatch, *guided)


def test_classes_are_asked_for_by_name(tmp_path, monkeypatch, capsys):
    write_classes(tmp_path / "x", ["rose", "tulip", "7"], each=6)
    vae = save_tiny_vae(tmp_path / "vae")
    run(monkeypatch, "prepare", tmp_path / "x", "--vae", vae, "--size", 32, "--out", tmp_path / "cache", "--workers", 0)
    monkeypatch.chdir(tmp_path)
    plain = ("train", "fashion_imf_plain", "--data", tmp_path / "cache", "--steps", 2, "--batch", 4, "--net.width", 12)
    run(monkeypatch, *plain, "--net.heads", 2, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["classes"] == ["7", "rose", "tulip"]
    for words, numbers in ((("tulip", "7"), (2, 0)), (("1", "2"), (1, 2))):
        run(monkeypatch, "sample", "--run", "run", "--classes", *words, "--out", "named.png", "--rows", 1)
        run(monkeypatch, "sample", "--run", "run", "--classes", *numbers, "--out", "numbered.png", "--rows", 1)
        if words[0] == "1":
            assert Path("named.png").read_bytes() == Path("numbered.png").read_bytes()
    with pytest.raises(SystemExit, match=r"no class 'lily'.*They are called 7, rose, tulip"):
        run(monkeypatch, "sample", "--run", "run", "--classes", "lily")


def test_an_image_of_exactly_twice_the_size_is_halved_by_boxes_as_by_adm():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert np.array_equal(images.crop(noise, 32), noise.resize((32, 32), Image.Resampling.BOX))


def test_damaged_rows_name_their_error(tmp_path):
    write_classes(tmp_path)
    source = folders.ClassFolders(tmp_path, 32)
    (tmp_path / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").write_bytes(b"\xff\xd8 cut short")
    index, image, label, error = SafeDataset(source)[0]
    assert (index, label) == (0, -1) and "UnidentifiedImageError" in error and not image.any()
