"""Folders become data sets, and every bad one is told in one line."""
import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from tinyalex.data import (ArrayDataset, BrokenPicture, DataError, FileDataset, Shapes, Subset,
                           open_dataset)
from tinyalex.data.cifar10 import ARCHIVE, FOLDER, META, TEST, TRAIN


def put(path, level=100, size=(8, 8), kind=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path, kind)


def tree(root, classes=("cat", "ant", "bee"), splits=("train", "val"), count=3, size=(8, 8)):
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for i in range(count):
                put(f"{root}/{split}/{name}/{i}.png", 100 * s + 10 * c + i, size)
    return str(root)


def refused(where, *parts, **options):
    """Check that the data set is refused in one line with these parts; return the line."""
    with pytest.raises(DataError) as caught:
        open_dataset(where, 8, **options)
    message = str(caught.value)
    assert "\n" not in message and isinstance(caught.value, ValueError)
    for part in parts:
        assert part in message, message
    return message


# ---- one folder for each class --------------------------------------------------------------

@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test")])
def test_class_folders_sorted_give_the_labels(tmp_path, splits):
    where = tree(tmp_path, splits=splits)
    train, val = open_dataset(tmp_path, 8)
    assert train.classes == train.folders == val.classes == ("ant", "bee", "cat")
    assert train.labels.tolist() == val.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert train.labels.dtype == np.int64 and len(train) == 9 and train.note == ""
    assert train.name(3) == f"{where}/train/bee/0.png"
    assert train.picture(3).tolist() == np.full((8, 8, 3), 20).tolist()
    assert val.picture(8).max() == 102


def test_val_comes_before_test(tmp_path):
    _, val = open_dataset(tree(tmp_path, splits=("train", "test", "val")), 8)
    assert val.picture(0).max() == 210


def test_hidden_and_other_files_are_passed_over_and_links_followed(tmp_path):
    where = tree(tmp_path / "real", count=2)
    for name in (".hidden.png", "notes.txt", "boxes.csv", "old.gif"):
        (tmp_path / "real/train/ant" / name).write_text("nothing")
    os.makedirs(f"{where}/train/.cache")
    os.makedirs(f"{where}/train/__MACOSX")
    put(f"{where}/train/ant/more/deep.JPEG", kind="JPEG")
    put(f"{tmp_path}/elsewhere/x.PNG", kind="PNG")
    os.symlink(tmp_path / "elsewhere", f"{where}/train/dog")
    os.symlink(where, tmp_path / "link")
    os.symlink(f"{where}/train/ant", f"{where}/train/ant/loop")     # must not turn for ever
    train, _ = open_dataset(tmp_path / "link", 8)
    assert train.classes == ("ant", "bee", "cat", "dog")
    assert [f for f in train.files if f.startswith(("ant", "dog"))] == [
        "ant/0.png", "ant/1.png", "ant/more/deep.JPEG", "dog/x.PNG"]
    assert train.note == f"1 of 4 classes have no pictures in {tmp_path}/link/val"


@pytest.mark.parametrize("below", ["", "/train"])
def test_without_val_a_seeded_tenth_of_each_class_is_held_out(tmp_path, below):
    tree(tmp_path, splits=("train",), count=20)
    train, val = open_dataset(f"{tmp_path}{below}", 8, seed=3)
    assert np.bincount(train.labels).tolist() == [18] * 3
    assert np.bincount(val.labels).tolist() == [2] * 3
    assert not set(train.files) & set(val.files) and len({*train.files, *val.files}) == 60
    assert "6 of 60 pictures" in train.note and "seed 3" in val.note
    again, other = open_dataset(tmp_path, 8, seed=3)[1], open_dataset(tmp_path, 8, seed=4)[1]
    assert again.files == val.files != other.files


def test_a_class_too_small_to_share_is_refused(tmp_path):
    tree(tmp_path, splits=("train",), count=2)
    assert np.bincount(open_dataset(tmp_path, 8)[1].labels).tolist() == [1] * 3
    put(f"{tmp_path}/train/one/0.png")
    refused(tmp_path, "class 'one' has 1 picture", "hold out")


def test_wrong_places(tmp_path):
    put(f"{tmp_path}/photo.jpg")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "nowhere", "nowhere'", "no such folder", "'shapes' or 'cifar10'")
    refused("", "no such folder")
    refused("a\0b", "no such folder")
    refused(tmp_path / "photo.jpg", "is one picture")
    refused(tmp_path / "notes.txt", "not a whole tar archive")
    refused(tmp_path / "empty", "no class folders")


def test_imagenets_archives_are_for_prepare(tmp_path):
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path, "are read once only, by examples/prepare_imagenet.py; give the store")
        refused(tmp_path / name, f"{name}': ImageNet's archives are read once only")
        (tmp_path / name).unlink()
    refused(tmp_path, "no class folders")


def test_wrong_classes(tmp_path):
    where = tree(tmp_path / "one", classes=("cat",))
    refused(where, "one class only ('cat'", "at least two")
    where = tree(tmp_path / "unknown")
    put(f"{where}/val/dog/0.png")
    refused(where, "class 'dog'", "which train/ has not")
    where = tree(tmp_path / "hollow")
    (tmp_path / "hollow/train/dog").mkdir()
    (tmp_path / "hollow/train/dog/x.webp").write_bytes(b"RIFF")
    refused(where, "class 'dog' has no pictures", ".jpg, .jpeg, .png")
    where = tree(tmp_path / "bare", splits=("train",))
    os.makedirs(f"{where}/val/cat")
    refused(where, "no pictures in", "val")


def test_a_folder_above_or_beside_the_right_one(tmp_path):
    refused(tree(tmp_path / "a", splits=("val", "test")), "has test/ but no train/")
    tree(tmp_path / "b/pets")
    refused(tmp_path / "b", "pets/ in it has a train/ of its own")


def test_unreadable_folders_are_named(tmp_path, monkeypatch):
    where = tree(tmp_path)
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("bee/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)
    monkeypatch.setattr(os, "scandir", locked)
    refused(where, "bee", "Permission denied")


def test_readable_names(tmp_path):
    where = tree(tmp_path, classes=("n01", "n02", "n03", "n04"))
    (tmp_path / "words.txt").write_text(
        "n01\tgoldfish, Carassius auratus\nn02\tcrane, bird\n\nn03\tcrane, machine\nn99\tother\n")
    assert open_dataset(where, 8)[0].classes == (
        "goldfish", "crane, bird", "crane, machine", "n04")
    (tmp_path / "words.txt").write_text("n01\tcrane\nn02\tcrane\n")
    assert open_dataset(where, 8)[0].classes == ("crane (n01)", "crane (n02)", "n03", "n04")
    (tmp_path / "words.txt").write_text("n01\tfish\nn02\n")
    refused(where, "words.txt: line 2 is 'n02'")
    (tmp_path / "words.txt").rename(tmp_path / "LOC_synset_mapping.txt")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\n")
    assert open_dataset(where, 8)[0].classes == ("tench", "n02", "n03", "n04")


# ---- Tiny ImageNet's layout -----------------------------------------------------------------

def tiny(root):
    for wnid in ("n02", "n01"):
        for i in range(2):
            put(f"{root}/train/{wnid}/images/{wnid}_{i}.JPEG")
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text("n02_0.JPEG\t0\t0\t9\t9\n")
    for i in range(3):
        put(f"{root}/val/images/val_{i}.JPEG", 50 * i)
    (root / "val/val_annotations.txt").write_text(
        "val_2.JPEG\tn02\t0\t0\t9\t9\nval_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\n")
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n01\tgoldfish\nn02\tbullfrog, frog\n")
    return root


def test_tiny_imagenet(tmp_path):
    train, val = open_dataset(tiny(tmp_path), 8)
    assert train.classes == ("goldfish", "bullfrog") and train.folders == ("n01", "n02")
    assert train.files[0] == "n01/images/n01_0.JPEG" and train.labels.tolist() == [0, 0, 1, 1]
    assert val.files == tuple(f"images/val_{i}.JPEG" for i in (2, 0, 1))
    assert val.labels.tolist() == [1, 0, 1] and abs(int(val.picture(0).max()) - 100) < 3


@pytest.mark.parametrize("text, parts", [
    ("val_0.JPEG n01\n", ("line 1", "'val_0.JPEG n01'", "a tab")),
    ("val_0.JPEG\tn01\nval_1.JPEG\n", ("line 2", "'val_1.JPEG'")),
    ("val_0.JPEG\tn07\n", ("line 1", "n07", "a class of train/")),
    ("val_9.JPEG\tn01\n", ("line 1", "'val_9.JPEG'", "not in")),
    ("val_0.JPEG\tn01\n" * 2, ("line 2", "a line already")),
    ("val_0.JPEG\tn01\n", ("1 lines for 3 pictures (val_1.JPEG)",)),
    ("../../secret\tn01\n", ("line 1", "not in")),
    ("\udcff\udcfe\x00\n", ("line 1",)),
    ("", ("0 lines for 3 pictures",)),
])
def test_malformed_annotations(tmp_path, text, parts):
    (tiny(tmp_path) / "val/val_annotations.txt").write_bytes(os.fsencode(text))
    refused(tmp_path, "val_annotations.txt", *parts)


def test_missing_annotations_images_and_classes(tmp_path):
    root = tiny(tmp_path)
    (root / "wnids.txt").write_text("n02\nn01\nn03\n")
    refused(root, "wnids.txt lists 'n03' (1 in all)", "everything extracted")
    (root / "wnids.txt").unlink()
    (root / "val/images").rename(root / "val/pictures")
    refused(root, "images: no such folder")
    (root / "val/pictures").rename(root / "val/images")
    (root / "val/val_annotations.txt").unlink()
    refused(root, "val/images has no labels", "val_annotations.txt")


# ---- CIFAR-10's binary version --------------------------------------------------------------

def cifar(folder, count=4):
    rng = np.random.default_rng(0)
    os.makedirs(folder, exist_ok=True)
    kept = {}
    for name in (*TRAIN, TEST):
        kept[name] = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)[:, None]
        with open(f"{folder}/{name}", "wb") as file:
            file.write(np.concatenate([labels, kept[name].reshape(count, -1)], 1).tobytes())
    with open(f"{folder}/{META}", "w") as file:
        file.write("\n".join("airplane automobile bird cat deer dog frog horse ship truck".split())
                   + "\n\n")
    return kept


def pack(folder, archive):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, FOLDER)


def check_cifar(where, kept):
    train, val = open_dataset(where, 32)
    assert len(train) == 20 and len(val) == 4 and train.classes[3] == "cat"
    assert train.labels.tolist() == [0, 1, 2, 3] * 5
    assert np.array_equal(train.picture(5), kept[TRAIN[1]][1].transpose(1, 2, 0))
    assert np.array_equal(val.picture(3), kept[TEST][3].transpose(1, 2, 0))
    assert train.name(5) == "cifar10 train[5]"


def test_cifar10_as_folder_and_as_archive(tmp_path):
    kept = cifar(tmp_path / FOLDER)
    check_cifar(tmp_path, kept)
    check_cifar(tmp_path / FOLDER, kept)
    pack(tmp_path / FOLDER, tmp_path / "any-name.tgz")
    check_cifar(tmp_path / "any-name.tgz", kept)
    (tmp_path / "below").mkdir()
    (tmp_path / "any-name.tgz").rename(tmp_path / "below" / ARCHIVE)
    check_cifar(tmp_path / "below", kept)
    assert os.listdir(tmp_path / "below") == [ARCHIVE]             # nothing is extracted


@pytest.mark.parametrize("place", ["TINYALEX_DATA", "data", ".cache/tinyalex"])
def test_cifar10_is_found_in_the_usual_places(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TINYALEX_DATA", raising=False)
    monkeypatch.setenv("TINYALEX_OFFLINE", "1")
    message = refused("cifar10", "where='cifar10'", "data, ", f"{tmp_path}/.cache/tinyalex",
                      ARCHIVE, "TINYALEX_DATA")
    assert "Python version" not in message
    os.makedirs("data/cifar-10-batches-py")
    refused("cifar10", "data has the Python version, whose pickles are not opened")
    if place == "TINYALEX_DATA":
        monkeypatch.setenv(place, f"{tmp_path}/own")
        place = "own"
    check_cifar("cifar10", cifar(tmp_path / place / FOLDER))


def test_cifar10_damaged(tmp_path):
    folder = tmp_path / FOLDER
    cifar(folder)
    pack(folder, tmp_path / "whole.tar.gz")
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:len(whole) // 2])
    refused(tmp_path / "cut.tar.gz", "not a whole tar archive")
    (folder / TEST).write_bytes((folder / TEST).read_bytes()[:-1])
    refused(folder, "test_batch.bin has 12,291 bytes", "3,073")
    (folder / TEST).write_bytes(bytes([11]) + bytes(3072))
    refused(folder, "label 11 in record 0")
    (folder / TEST).unlink()
    refused(folder, "test_batch.bin not there")
    cifar(folder)
    (folder / META).write_text("cat\ndog\n")
    refused(folder, "names 2 classes, expected 10")
    pickled = tmp_path / "cifar-10-batches-py"
    pickled.mkdir()
    (pickled / "data_batch_1").write_bytes(b"\x80\x04.")
    refused(pickled, "Python version", "binary version")


def test_a_hostile_archive_leaves_no_trace(tmp_path):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, kind in (("../../data_batch_1.bin", tarfile.REGTYPE),
                           ("data_batch_2.bin", tarfile.SYMTYPE),
                           ("test_batch.bin", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO())
    refused(archive, "data_batch_2.bin", "test_batch.bin", "not there")
    assert os.listdir(tmp_path) == ["evil.tar.gz"]


# ---- sizes, memory, small classes -----------------------------------------------------------

@pytest.mark.parametrize("size, image_size, resize", [
    ((64, 64), 67, None), ((72, 72), 64, None), ((48, 60), 64, None), ((85, 85), 64, None),
    ((47, 60), 64, 73), ((86, 86), 64, 73), ((500, 375), 224, 256), ((32, 32), 224, 256)])
def test_pictures_far_from_the_input_are_resized_and_it_is_said(tmp_path, size, image_size,
                                                                resize):
    train, val = open_dataset(tree(tmp_path, size=size, count=1), image_size)
    assert train.resize == val.resize == resize
    assert train.picture(0).shape == ((resize, resize, 3) if resize else (*size[::-1], 3))
    assert (f"brought to {resize} x {resize}" in train.note) == bool(resize)


def test_an_explicit_resize_wins(tmp_path):
    train, val = open_dataset(tree(tmp_path, size=(30, 20)), 8, resize=16)
    assert train.resize == 16 and val.picture(0).shape == (16, 16, 3) and train.note == ""
    shapes, _ = open_dataset("shapes", 224, resize=256)
    assert shapes.resize == 256 and shapes.note == ""
    few = Shapes("train", count=2)
    few.resize = 256
    assert few.picture(1).shape == (256, 256, 3) and few.size(1) == (72, 72)
    for options in ({"resize": 0}, {"resize": "256"}):
        refused(tmp_path, "resize: got", **options)
    with pytest.raises(DataError, match="image_size: got 0"):
        open_dataset(tmp_path, 0)


def test_small_sets_are_kept_in_memory_and_large_ones_not(tmp_path):
    where = tree(tmp_path)
    kept, _ = open_dataset(where, 8)
    first = kept.picture(0)
    assert kept.picture(0) is first and not first.flags.writeable
    fresh, _ = open_dataset(where, 8, keep_bytes=9 * 192 - 1)
    assert fresh.picture(0) is not fresh.picture(0)
    full = FileDataset(f"{where}/train", kept.files, kept.labels, kept.classes, keep_bytes=200)
    assert full.picture(0) is full.picture(0) and full.picture(1) is not full.picture(1)


def test_broken_files_are_named_when_read_and_when_all_are(tmp_path):
    where = tree(tmp_path)
    with open(f"{where}/train/bee/1.png", "wb") as file:
        file.write(b"\x89PNG")
    train, _ = open_dataset(where, 8)
    with pytest.raises(BrokenPicture, match="bee/1.png: is damaged"):
        train.picture(4)
    for name in train.files:
        open(f"{where}/train/{name}", "wb").close()
    refused(where, "is empty", "all pictures looked at")


def test_array_dataset_and_subset():
    pictures = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    whole = ArrayDataset(pictures, [0, 1, 1, 0], ("a", "b"))
    part = Subset(whole, [2, 0])
    assert part.labels.tolist() == [1, 0] and part.name(0) == "array[2]" and len(part) == 2
    assert np.array_equal(part.picture(1), pictures[0]) and part.size(0) == (2, 2)
    assert repr(whole) == "ArrayDataset(4 pictures, 2 classes)"
    for labels, match in (([0, 1, 2, 0], "picture 2 has label 2; expected 0 to 1"),
                          ([0, 1], "expected one label for each")):
        with pytest.raises(DataError, match=match):
            ArrayDataset(pictures, labels, ("a", "b"))
    with pytest.raises(DataError, match=r"expected uint8 of shape \(n, H, W, 3\)"):
        ArrayDataset(pictures.astype(float), [0, 1, 1, 0], ("a", "b"))
