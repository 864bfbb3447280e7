"""A store is read by offset, and whatever is wrong with it has a name."""
import gc
import hashlib
import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinyalex.data import (ArrayDataset, Augment, BrokenPicture, DataError, Loader, StoreDataset,
                           open_dataset, prepare, statistics)
from tinyalex.data.store import INDEX, is_store, open_store

SIZE, COUNT = 20, 26
CLASSES = ("ant", "bee", "cat")


def some(count, seed):
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 160, (count, 1, 1, 3)) + 4 * np.arange(SIZE)[:, None, None]
    pictures = np.broadcast_to(levels, (count, SIZE, SIZE, 3)).astype(np.uint8)
    return ArrayDataset(pictures, np.arange(count) % 3, CLASSES)


@pytest.fixture(scope="module", params=["webdataset", "memmap"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s"
    prepare(some(COUNT, 0), some(7, 1), folder, size=SIZE, format=request.param, shard_size=10)
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """A store that a test may spoil."""
    return shutil.copytree(made, tmp_path / "copy")


def refused(folder, *parts, split="train"):
    with pytest.raises(DataError) as caught:
        StoreDataset(folder, split)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def shard(folder, number=1):
    path = folder / f"train-{number:06d}.tar"
    return path if path.exists() else folder / "train.npy"


# ---- reading --------------------------------------------------------------------------------

def test_pictures_labels_names_and_sizes(made):
    train, val = open_store(made)
    assert (len(train), len(val), train.classes, train.folders) == (COUNT, 7, CLASSES, CLASSES)
    assert np.bincount(train.labels).tolist() == [9, 9, 8] and train.labels.dtype == np.int64
    assert val.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    first = "train-000001.tar:" if train.format == "webdataset" else "train.npy:"
    assert train.name(17) == first + "000000017" and train.size(17) == (SIZE, SIZE)
    source = some(7, 1)
    for i in range(7):
        assert val.picture(i).dtype == np.uint8
        away = np.abs(val.picture(i).astype(int) - source.picture(i)).max()
        assert away == 0 if val.format == "memmap" else away < 12
    with pytest.raises(IndexError):
        train.picture(COUNT)
    with pytest.raises(DataError, match="split: got 'test'; expected 'train' or 'val'"):
        StoreDataset(made, "test")


def test_threads_read_the_same(made):
    train = StoreDataset(made, "train")
    alone = [train.picture(i).tobytes() for i in range(COUNT)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            assert list(pool.map(lambda i: train.picture(i).tobytes(), range(COUNT))) == alone


def test_open_dataset_opens_a_store(made):
    train, val = open_dataset(made, SIZE)
    assert isinstance(train, StoreDataset) and (train.split, val.split) == ("train", "val")
    assert train.resize == SIZE and train.note == "" and train.statistics.sample == COUNT
    assert train.statistics.mean.shape == (SIZE, SIZE, 3)
    assert is_store(made) and not is_store(made.parent)


def test_a_store_is_not_asked_for_statistics_again(made, monkeypatch):
    train = StoreDataset(made, "train")
    monkeypatch.setattr(StoreDataset, "picture", None)
    assert statistics(train, sample=5) is train.statistics


def test_another_size_has_no_statistics(made):
    train, val = open_dataset(made, 16, resize=18)
    assert train.resize == 18 and train.picture(0).shape == val.picture(0).shape == (18, 18, 3)
    assert train.statistics is None and train.size(0) == (SIZE, SIZE)
    assert statistics(train).mean.shape == (18, 18, 3)
    train, _ = open_dataset(made, 8)                     # far smaller: as with a folder
    assert train.resize == 9 and "brought to 9 x 9" in train.note
    assert StoreDataset(made, "train", resize=30).picture(1).shape == (30, 30, 3)


def test_an_epoch_is_the_same_for_any_number_of_workers(made):
    train, _ = open_dataset(made, 16)
    augment = Augment(16, train.statistics.mean)
    epochs = [[batch.images for batch in Loader(train, 8, augment, workers=workers).batches(3)]
              for workers in (0, 3)]
    assert [len(images) for images in epochs[0]] == [8, 8, 8, 2]
    for one, other in zip(*epochs, strict=True):
        assert np.array_equal(one, other)


def test_files_are_opened_once_and_closed_with_the_data_set(made):
    def opened():
        gc.collect()
        return [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{n}")].count(str(shard(made)))

    train = StoreDataset(made, "train")
    for i in range(COUNT):
        train.picture(i)
    assert opened() == 1
    del train
    assert opened() == 0


# ---- damage ---------------------------------------------------------------------------------

def test_verify_reads_all_and_names_the_file(copy):
    seen = []
    StoreDataset(copy, "val").verify(lambda *told: seen.append(told))
    files = len(os.listdir(copy)) - 1
    assert seen == [(i, files) for i in range(1, files + 1)]
    for path in sorted(copy.iterdir()):
        whole = path.read_bytes()
        if path.suffix in (".tar", ".npy") and "index" not in path.name:
            for place in (0, len(whole) // 2, len(whole) - 1):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
                with pytest.raises(DataError, match=f"{path.name} is damaged: its SHA-256 begins"):
                    StoreDataset(copy, "val").verify()
            path.write_bytes(whole)


@pytest.mark.parametrize("name", ["train-index.npy", "statistics.safetensors"])
def test_small_files_are_verified_when_a_store_is_opened(copy, name):
    path = copy / name
    whole = path.read_bytes()
    for place in (0, 9, 100, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        refused(copy, f"{name} is damaged")
    path.write_bytes(whole[:-1])
    refused(copy, f"{name} has {len(whole) - 1:,} bytes; store.json says {len(whole):,}")
    path.unlink()
    refused(copy, f"{copy}/{name}: No such file or directory")


def test_a_shard_of_another_length_is_refused(copy):
    path = shard(copy)
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(data)
        refused(copy, f"{path.name} has {len(data):,} bytes; store.json says {len(whole):,}")
    path.unlink()
    refused(copy, f"{path.name}: No such file or directory")
    StoreDataset(copy, "val")                            # whose files are whole


def test_a_file_cut_short_under_an_open_store_breaks_its_pictures_only(copy):
    train = StoreDataset(copy, "train")
    last = COUNT - 1 if train.format == "memmap" else 19
    os.truncate(shard(copy), train.index["offset"][last] + 5)
    with pytest.raises(BrokenPicture) as caught:
        train.picture(last)
    assert str(caught.value).startswith(f"{shard(copy).name}:{last:09d}: is cut short: 5 of ")
    train.picture(last - 1)


def test_a_disk_that_fails_breaks_the_pictures_on_it_only(made, monkeypatch):
    train = StoreDataset(made, "train")
    bad, pread = int(train.index["offset"][12]), os.pread

    def failing(number, length, offset):
        if offset == bad:
            raise OSError(5, "Input/output error")
        return pread(number, length, offset)
    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(BrokenPicture) as caught:
        train.picture(12)
    name = shard(made).name
    assert str(caught.value) == (f"{name}:000000012: {made}/{name}: Input/output error at byte "
                                 f"{bad:,}")
    train.picture(13)


def test_a_broken_record_names_shard_and_key(copy):
    train = StoreDataset(copy, "train")
    if train.format == "memmap":
        pytest.skip("any bytes are pixels; verify() compares them")
    shard_number, offset, length, _ = train.index[12].tolist()
    with open(shard(copy), "r+b") as file:
        file.seek(offset + length // 2)
        file.write(b"\xff\xd9" * 100)
        file.seek(int(train.index[11]["offset"]))
        file.write(b"GIF89a")
        file.seek(int(train.index[13]["offset"]))
        file.write(some_jpeg(SIZE + 1).ljust(int(train.index[13]["length"])))
    for i, reason in ((12, "is damaged"), (11, "is neither a JPEG nor a PNG"), (13, "has shape (")):
        with pytest.raises(BrokenPicture) as caught:
            train.picture(i)
        assert str(caught.value).startswith(f"train-000001.tar:{i:09d}: {reason}"), caught.value
    batches = list(Loader(train, 8, Augment(16, train.statistics.mean)).batches(0))
    assert sum(len(batch.skipped) for batch in batches) == 3


def some_jpeg(size):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (size, size)).save(file, "JPEG", quality=5)
    return file.getvalue()


# ---- store.json -----------------------------------------------------------------------------

def test_no_store(tmp_path):
    refused(tmp_path, "no store: it has no store.json")
    refused(tmp_path / "nowhere", "no store")
    (tmp_path / "store.json").mkdir()
    refused(tmp_path, "Is a directory")


@pytest.mark.parametrize("text, part", [
    (b"", "store.json: is damaged"), (b"{", "is damaged"), (b"\xff\xfe", "is damaged"),
    (b"[]", "describes no store of pictures"), (b"null", "describes no store"),
    (b'{"kind": "cookbook"}', "describes no store of pictures (kind 'cookbook')"),
    (b'{"kind": "tinyalex store"}', "is of version None; this program reads 1"),
    (b'{"kind": "tinyalex store", "version": 2}', "is of version 2; this program reads 1"),
    (b'{"kind": "tinyalex store", "version": 1}', "store.json is damaged (KeyError: 'size')")])
def test_other_descriptions(tmp_path, text, part):
    (tmp_path / "store.json").write_bytes(text)
    refused(tmp_path, part)


def change(folder, key, value):
    told = json.loads((folder / "store.json").read_text())
    *path, last = key
    place = told
    for step in path:
        place = place[step]
    place[last] = value
    (folder / "store.json").write_text(json.dumps(told))


@pytest.mark.parametrize("key, value, part", [
    (("format",), "pickle", "damaged (ValueError: format 'pickle', size 20)"),
    (("size",), 0, "damaged"), (("size",), "wide", "damaged"), (("size",), 10**9, "shapes"),
    (("size",), None, "damaged"), (("shards",), [], "damaged"), (("shards", "train"), 3, "damaged"),
    (("shards", "train", 0, "file"), "../train-000000.tar", "a shard's name"),
    (("shards", "train", 0, "file"), "/etc/passwd", "a shard's name"),
    (("shards", "train", 0, "bytes"), -1, "damaged"), (("shards", "train", 0, "bytes"), "x", ""),
    (("classes",), ["ant"], "damaged"), (("classes", 0), {"name": "ant"}, "damaged"),
    (("counts", "train"), 25, "train has 26 pictures"), (("indices",), {}, "damaged"),
    (("indices", "train", "file"), "../../etc/passwd", "No such file"),
    (("statistics",), {}, "damaged"), (("statistics", "bytes"), 7, "store.json says 7")])
def test_a_description_that_lies(copy, key, value, part):
    change(copy, key, value)
    refused(copy, part)


@pytest.mark.parametrize("name, value, part", [
    ("label", 3, "label 3; expected 0 to 2"), ("label", 2**31, "expected 0 to 2"),
    ("shard", 3, "points behind the end"), ("offset", 2**40, "points behind the end"),
    ("offset", 2**64 - 9, "points behind the end"), ("length", 2**31, "points behind the end")])
def test_an_index_that_lies(copy, name, value, part):
    index = np.load(copy / "train-index.npy")
    index[name][5] = value
    put_index(copy, index)
    refused(copy, part)


def put_index(folder, index, **options):
    np.save(folder / "train-index.npy", index, **options)
    data = (folder / "train-index.npy").read_bytes()
    for key, value in (("sha256", hashlib.sha256(data).hexdigest()), ("bytes", len(data))):
        change(folder, ("indices", "train", key), value)


def test_an_index_of_another_kind_or_with_pickles(copy):
    for index, part in ((np.zeros(COUNT), "train-index.npy is float64"),
                        (np.zeros((COUNT, 1), INDEX), f"of shape ({COUNT}, 1)"),
                        (np.array([{"a": 1}] * COUNT), "Object arrays cannot be loaded")):
        put_index(copy, index, allow_pickle=index.dtype == object)
        refused(copy, "damaged", part)


def test_a_record_of_another_length(copy):
    index = np.load(copy / "train-index.npy")
    index["length"][5] -= 1
    put_index(copy, index)
    train = StoreDataset(copy, "train")
    if train.format == "memmap":
        with pytest.raises(BrokenPicture, match="train.npy:000000005: has 1,199 bytes; expected"):
            train.picture(5)
