"""ImageNet's archives become a store: all of it, nothing twice, and the same bytes each time."""
import gc
import gzip
import io
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile

import ilsvrc
import numpy as np
import pytest
from PIL import Image

from tinyalex.data import (ArrayDataset, Augment, DataError, FileDataset, Loader, Shapes,
                           StoreDataset, Subset, decode_picture, open_dataset, prepare, statistics)
from tinyalex.data import archives as archives_module
from tinyalex.data import devkit as devkit_module
from tinyalex.data.archives import find_archives, verify
from tinyalex.data.receipts import Receipts
from tinyalex.data.sources import fingerprint, open_source

pytest.importorskip("scipy", reason="SciPy, of the extra imagenet, reads meta.mat")
SIZE, SHARD = 24, 10
WNIDS = sorted(wnid for wnid, _ in ilsvrc.SYNSETS)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return ilsvrc.write(tmp_path_factory.mktemp("archives"))


def make(source, output, **options):
    options = {"size": SIZE, "shard_size": SHARD, **options}
    train, val = open_source([source], options["size"])
    return prepare(train, val, output, **options)


@pytest.fixture(scope="module", params=["webdataset", "memmap"])
def store(request, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "store"
    make(source, folder, format=request.param)
    return folder


@pytest.fixture(scope="module")
def exact(source, tmp_path_factory):
    """A store of pixels, as they were before any JPEG."""
    folder = tmp_path_factory.mktemp("exact") / "store"
    make(source, folder, format="memmap")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


def squares():
    """All readable training pictures as they ought to be stored: (label, bytes), sorted."""
    return sorted((WNIDS.index(wnid), decode_picture(data, resize=SIZE).tobytes())
                  for wnid, files in ilsvrc.train_pictures().items()
                  for name, data in files.items() if name != "n02119789_30.JPEG")


# ---- what is in it --------------------------------------------------------------------------

def test_every_training_picture_is_there_once_with_its_label(exact):
    train = StoreDataset(exact, "train")
    found = [(int(train.labels[i]), train.picture(i).tobytes()) for i in range(len(train))]
    assert sorted(found) == squares() and len(found) == 35
    assert found != squares()                            # shuffled once, so that ...
    first = train.labels[:SHARD].tolist()                # ... a shard is a fair sample
    assert len(set(first)) > 2 and first != sorted(first)


def test_val_keeps_its_order_and_ground_truth_becomes_ranks(exact):
    val = StoreDataset(exact, "val")
    assert val.labels.tolist() == [WNIDS.index(ilsvrc.SYNSETS[n - 1][0]) for n in ilsvrc.TRUTH]
    for i, data in enumerate(ilsvrc.val_pictures().values()):
        assert np.array_equal(val.picture(i), decode_picture(data, resize=SIZE))
    assert val.folders == tuple(WNIDS) == ("n01440764", "n02012849", "n02119789", "n03126707")
    assert val.classes == ("tench", "crane, a bird", "kit fox", "crane")
    assert val.description["classes"][0] == {
        "wnid": "n01440764", "name": "tench", "words": "tench, Tinca tinca"}


def test_jpegs_are_close_to_the_pixels_and_closer_at_a_higher_quality(source, exact, tmp_path):
    def distance(quality):
        make(source, tmp_path / str(quality), quality=quality)
        stored = StoreDataset(tmp_path / str(quality), "train")
        assert np.array_equal(stored.labels, pixels.labels)
        return np.mean([np.abs(stored.picture(i).astype(int) - pixels.picture(i)).mean()
                        for i in range(len(pixels))])

    pixels = StoreDataset(exact, "train")
    assert distance(95) < 4 < distance(20)


def test_statistics_are_those_of_all_training_pictures_to_the_bit(store, exact):
    expected = statistics(StoreDataset(exact, "train")).to_dict()
    for split in ("train", "val"):
        found = StoreDataset(store, split).statistics.to_dict()
        assert found["sample"] == 35 and found["mean"].shape == (SIZE, SIZE, 3)
        assert found["mean"].dtype == np.float32
        for name in found:
            assert found[name].tobytes() == expected[name].tobytes(), name


def test_what_cannot_be_read_is_named_counted_and_left_out(store):
    told = StoreDataset(store, "train").description
    assert told["counts"] == {"train": 35, "val": 7} and told["left_out"]["val"] == []
    (line,) = told["left_out"]["train"]
    assert line.startswith("ILSVRC2012_img_train.tar:n02119789_30.JPEG: is damaged")


def test_nothing_but_the_store_is_left(store):
    names = set(contents(store))
    shards = {"train.npy", "val.npy"} if (store / "train.npy").exists() else {
        *(f"train-{i:06d}.tar" for i in range(4)), "val-000000.tar"}
    assert names == shards | {"store.json", "statistics.safetensors", "train-index.npy",
                              "val-index.npy"}
    assert not (store / "unfinished").exists()


def test_numpy_maps_the_pixels(exact):
    pixels = np.load(exact / "train.npy", mmap_mode="r")
    train = StoreDataset(exact, "train")
    assert pixels.shape == (35, SIZE, SIZE, 3) and pixels.dtype == np.uint8
    assert all(np.array_equal(pixels[i], train.picture(i)) for i in range(35))


def test_shards_are_plain_tars_in_webdatasets_layout(source, tmp_path):
    make(source, tmp_path / "s")
    train, found = StoreDataset(tmp_path / "s", "train"), []
    for shard in train.shards:
        with tarfile.open(tmp_path / "s" / shard) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.mode) == (0, 0, 0o444)
                found.append((member.name, tar.extractfile(member).read()))
    assert [name for name, _ in found] == [f"{i:09d}.{end}" for i in range(35)
                                           for end in ("jpg", "cls")]
    assert [int(data) for _, data in found[1::2]] == train.labels.tolist()
    for i, (_, data) in enumerate(found[::2]):
        assert np.array_equal(decode_picture(data), train.picture(i))


@pytest.mark.filterwarnings("ignore::ResourceWarning",       # it leaves files to be collected
                            "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(source, tmp_path, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")                # no unpickling, no commands
    webdataset = pytest.importorskip("webdataset", reason="it is in the extra test")
    make(source, tmp_path / "s")
    train = StoreDataset(tmp_path / "s", "train")
    samples = list(webdataset.WebDataset(str(tmp_path / "s" / "train-{000000..000003}.tar"),
                                         shardshuffle=False))
    assert [s["__key__"] for s in samples] == [f"{i:09d}" for i in range(35)]
    assert [int(s["cls"]) for s in samples] == train.labels.tolist()
    for i, sample in enumerate(samples):
        assert np.array_equal(decode_picture(sample["jpg"]), train.picture(i))
    del samples
    gc.collect()


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 5}])
def test_workers_change_no_byte(source, store, tmp_path, options):
    make(source, tmp_path / "other", format=StoreDataset(store, "val").format, **options)
    assert contents(tmp_path / "other") == contents(store)


def test_a_folder_tree_gives_the_same_pictures(tmp_path, exact):
    for wnid, files in ilsvrc.train_pictures().items():
        (tmp_path / "tree/train" / wnid).mkdir(parents=True)
        for name, data in files.items():
            (tmp_path / "tree/train" / wnid / name).write_bytes(data)
    for (name, data), number in zip(ilsvrc.val_pictures().items(), ilsvrc.TRUTH, strict=True):
        folder = tmp_path / "tree/val" / ilsvrc.SYNSETS[number - 1][0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    told = make(str(tmp_path / "tree"), tmp_path / "store", format="memmap")
    assert contents(tmp_path / "store")["train.npy"] == contents(exact)["train.npy"]
    assert told["left_out"]["train"][0].startswith("n02119789/n02119789_30.JPEG: is damaged")
    assert str(tmp_path) not in (tmp_path / "store/store.json").read_text()


def test_a_store_can_be_made_from_a_store(exact, tmp_path):
    make(str(exact), tmp_path / "small", size=12, format="memmap")
    assert len(StoreDataset(tmp_path / "small", "train")) == 35


def test_shards_hold_ten_thousand_pictures_or_a_gigabyte(monkeypatch, tmp_path):
    sizes = {}
    for size in (64, 256, 512):
        monkeypatch.setattr(Receipts, "__init__", lambda self, output, settings: sizes.update(
            {settings["size"]: settings["shard-size"]}) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(Shapes(count=16), Shapes("val", 16), tmp_path, size=size)
    assert sizes == {64: 10_000, 256: 10_000, 512: 2730}


# ---- killed, and begun again ----------------------------------------------------------------

KILLER = """
import os, pathlib, signal, sys
from tinyalex.data import prepare
from tinyalex.data.sources import open_source
source, output, form, step = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def run(output):
    train, val = open_source([source], 24)
    prepare(train, val, output, size=24, shard_size=15, format=form, workers=2)

def killed(output, moment):
    "Run until the disk has been asked for something `moment` times; return whether it ended."
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    asked = 0
    def counted(call):
        def wrapped(*args, **options):
            nonlocal asked
            asked += 1
            if asked == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return wrapped
    for name in ("fsync", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    try:
        run(output)
    except BaseException as problem:
        print(problem, flush=True)
        os._exit(3)
    os._exit(0)

def contents(output):
    return {path.name: path.is_file() and path.read_bytes() for path in output.iterdir()}

run(output / "whole")
whole, moment, code = contents(output / "whole"), 0, -9
while code == -9:
    moment += step
    place = output / str(moment)
    code = killed(place, moment)
    if code == -9 and not ((place / "store.json").exists() and not (place / "unfinished").exists()):
        run(place)
    assert contents(place) == whole, moment
assert code == 0
place, runs = output / "often", 1
while runs < 20 and killed(place, 22) == -9:
    runs += 1
    if (place / "store.json").exists():
        assert contents(place).items() >= whole.items()
assert contents(place) == whole
print(moment, runs)
"""


@pytest.mark.parametrize("form, step", [("webdataset", 1), ("memmap", 2)])
def test_killed_at_any_moment_and_begun_again_gives_the_same_bytes(source, tmp_path, form, step):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLER, source, str(tmp_path),
                           form, str(step)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    moments, runs = map(int, done.stdout.split())
    assert moments > 40 and 2 < runs < 20


@pytest.mark.parametrize("form", ["webdataset", "memmap"])
def test_what_is_finished_is_not_made_again(source, tmp_path, form):
    def stop(done, total, line):
        if line.startswith(("train-000001", "train.npy")) and done >= 2 * SHARD:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "s", format=form, watch=stop)
    assert not [name for name in contents(tmp_path / "s") if name == "store.json"]
    seen = []
    make(source, tmp_path / "s", format=form, watch=lambda *told: seen.append(told))
    assert seen[0][:2] == (2 * SHARD, 43) and seen[-1][0] == 43
    make(source, tmp_path / "whole", format=form)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["shard", "receipt", "behind"])
def test_what_is_damaged_meanwhile_is_made_again(source, tmp_path, damage):
    def stop(done, total, line):
        if line.startswith("train-000002"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "s", watch=stop)
    name = {"shard": "train-000001.tar", "receipt": "unfinished/train-000001.safetensors",
            "behind": ".train-000003.tar.tmp"}[damage]
    (tmp_path / "s" / name).write_bytes(b"half a file")
    make(source, tmp_path / "s")
    make(source, tmp_path / "whole")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def refused(output, *parts, source=None, **options):
    with pytest.raises(DataError) as caught:
        make(source, output, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message


def test_other_settings_or_another_source_are_refused(source, tmp_path):
    def stop(done, total, line):
        if line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "s", watch=stop)
    before = contents(tmp_path / "s")
    for options, part in [({"size": 32}, "size 24, not 32"), ({"quality": 90}, "quality 95, not"),
                          ({"format": "memmap"}, "webdataset, not memmap"),
                          ({"shard_size": 9}, "shard-size 10, not 9")]:
        refused(tmp_path / "s", "an unfinished store, begun with", part, source=source, **options)
    other = ilsvrc.write(tmp_path / "other", kit=ilsvrc.devkit([1, *ilsvrc.TRUTH[1:]]))
    refused(tmp_path / "s", "begun with another source", source=other)
    assert contents(tmp_path / "s") == before
    refused_open = pytest.raises(DataError, match="not finished; the command that began it")
    with refused_open:
        StoreDataset(tmp_path / "s", "train")
    with refused_open:
        open_dataset(tmp_path / "s", SIZE)
    (tmp_path / "s/unfinished/settings.json").write_text("[1")
    refused(tmp_path / "s", "settings.json: is damaged", source=source)


def test_sources_are_told_from_one_another(source, exact, tmp_path):
    (tmp_path / "a.jpg").write_bytes(ilsvrc.picture(0, 1))
    file = FileDataset(str(tmp_path), ["a.jpg"], [0], ["a", "b"])
    before = fingerprint(file)
    os.utime(tmp_path / "a.jpg", (1, 1))
    shapes, zeros = Shapes(count=32), np.zeros((2, 3, 3, 3), np.uint8)
    found = [before, fingerprint(file), fingerprint(shapes), fingerprint(Shapes(count=32, seed=1)),
             fingerprint(Subset(shapes, range(16))), fingerprint(Subset(shapes, range(16, 32))),
             fingerprint(ArrayDataset(zeros, [0, 1], ["a", "b"])),
             fingerprint(ArrayDataset(zeros + 1, [0, 1], ["a", "b"])),
             fingerprint(*open_source([source])), fingerprint(StoreDataset(exact, "train"))]
    assert len(set(found)) == len(found)
    assert fingerprint(*open_source([source])) in found and fingerprint(Shapes(count=32)) in found
    (tmp_path / "a.jpg").unlink()
    assert fingerprint(file) not in found


def test_a_finished_store_or_a_foreign_folder_is_not_touched(source, store, tmp_path):
    before = contents(store)
    refused(store, "is a finished store, which is not overwritten", source=source)
    assert contents(store) == before
    (tmp_path / "thesis.txt").write_text("three years")
    refused(tmp_path, "holds 'thesis.txt' and is no store", source=source)
    assert contents(tmp_path) == {"thesis.txt": b"three years"}
    refused(tmp_path / "thesis.txt", "File exists", source=source)
    refused(tmp_path / "thesis.txt/x", "Not a directory", source=source)


def test_two_processes_do_not_write_one_store(source, tmp_path):
    with Receipts(tmp_path / "s", {}):
        refused(tmp_path / "s", "another process is writing this store", source=source)
    make(str(source), tmp_path / "t")


def test_arguments_out_of_range(source, tmp_path):
    for options, part in [({"size": 0}, "size: got 0"), ({"quality": 101}, "quality: got 101"),
                          ({"workers": 0}, "workers: got 0"), ({"shard_size": 0}, "shard_size: "),
                          ({"format": "lmdb"}, "format: got 'lmdb'; expected webdataset or")]:
        with pytest.raises(DataError, match=part):
            prepare(Shapes(count=16), Shapes("val", 16), tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_a_split_without_one_readable_picture_is_refused(tmp_path):
    broken = FileDataset(str(tmp_path), ["a.jpg"], [0], ["a", "b"])
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(DataError, match="none of 1 pictures in val can be read; the first is a"):
        prepare(Shapes(count=16), broken, tmp_path / "s", size=24)
    assert not (tmp_path / "s/store.json").exists()


def test_a_folder_that_goes_away_is_no_broken_picture(tmp_path):
    gone = FileDataset(str(tmp_path / "gone"), ["a.jpg"], [0], ["a", "b"])
    with pytest.raises(DataError, match="gone is no longer there"):
        prepare(gone, Shapes("val", 16), tmp_path / "s", size=24)


def test_an_archive_that_shrinks_while_it_is_read_is_no_broken_picture(tmp_path):
    source = ilsvrc.write(tmp_path / "src")
    train, val = open_source([source], SIZE)
    os.truncate(tmp_path / "src" / ilsvrc.TRAIN, 40_000)
    with pytest.raises(DataError, match="became shorter while it was read"):
        prepare(train, val, tmp_path / "s", size=SIZE)
    assert not (tmp_path / "s/store.json").exists()


# ---- the disk -------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from tinyalex.data import DataError, prepare
from tinyalex.data.sources import open_source
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
train, val = open_source([sys.argv[1]], 24)
try:
    prepare(train, val, sys.argv[2], size=24, shard_size=10, format=sys.argv[4])
except DataError as problem:
    print(problem)
"""


def limited(source, output, limit, form, *front):
    command = [*front, sys.executable, "-c", LIMITED, source, str(output), str(limit), form]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("form, limit", [("webdataset", 24_300), ("memmap", 50_000)])
def test_a_file_that_may_not_grow_is_one_line_and_can_be_gone_on_with(source, tmp_path, form,
                                                                      limit):
    out = limited(source, tmp_path / "s", limit, form)
    assert "File too large; what is finished stays" in out and out.count("\n") == 1
    kept = contents(tmp_path / "s")
    assert "store.json" not in kept
    assert form == "memmap" or not [name for name in kept if name.startswith(".train")]
    make(source, tmp_path / "s", format=form)
    make(source, tmp_path / "whole", format=form)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize("form", ["webdataset", "memmap"])
def test_a_full_disk_and_a_read_only_one(source, tmp_path, form):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    front = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=$SIZE tmpfs {mounted} && '
             f'{{ [ $SIZE = 100k ] || mount -o remount,ro {mounted}; }} && "$@"; code=$?; '
             f'cp -r {mounted} {tmp_path}/kept-$SIZE; exit $code', "sh"]
    probe = subprocess.run(front[:2] + ["mount", "-t", "tmpfs", "tmpfs", str(mounted)],
                           capture_output=True) if shutil.which("unshare") else None
    if probe is None or probe.returncode:
        pytest.skip("this user may not mount a small file system")
    out = limited(source, mounted / "s", 0, form, "env", "SIZE=100k", *front)
    assert "No space left on device; what is finished stays" in out and out.count("\n") == 1
    kept = tmp_path / "kept-100k" / "s"
    assert "store.json" not in contents(kept) and list((kept / "unfinished").glob("train-*"))
    make(source, kept, format=form)                      # on a larger disk
    make(source, tmp_path / "whole", format=form)
    assert contents(kept) == contents(tmp_path / "whole")
    out = limited(source, mounted / "s", 0, form, "env", "SIZE=101k", *front)
    assert "Read-only file system" in out and out.count("\n") == 1


# ---- archives that are not what they ought to be --------------------------------------------

def inner(extra=b"", **changes):
    """The train archive with members added to tench's tar, or files changed in it."""
    pictures = ilsvrc.train_pictures()
    pictures["n01440764"] |= changes
    tars = {f"{wnid}.tar": ilsvrc.tar(files, extra if wnid == "n01440764" else b"")
            for wnid, files in pictures.items()}
    return ilsvrc.tar(tars)


def outer(extra):
    return ilsvrc.tar({f"{wnid}.tar": ilsvrc.tar(files)
                       for wnid, files in ilsvrc.train_pictures().items()}, extra)


NAME = "n01440764_99.JPEG"
HOSTILE = {
    "up": (ilsvrc.member("../../etc/n01440764_99.JPEG", b"x"), "does not belong there"),
    "absolute": (ilsvrc.member("/n01440764_99.JPEG", b"x"), "does not belong there"),
    "deep": (ilsvrc.member("a/n01440764_99.JPEG", b"x"), "does not belong there"),
    "other": (ilsvrc.member("n02119789_99.JPEG", b"x"), "does not belong there"),
    "nested": (ilsvrc.member("n01440764_99.tar", ilsvrc.tar({})), "does not belong there"),
    "newline": (ilsvrc.member("n01440764_9\n.JPEG", b"x"), "n01440764_9\\n.JPEG"),
    "bytes": (ilsvrc.member("n01440764_\udcff.JPEG", b"x"), "n01440764_\\udcff.JPEG"),
    "link": (ilsvrc.member(NAME, kind=tarfile.SYMTYPE, link="/etc/passwd"), "no links"),
    "hard": (ilsvrc.member(NAME, kind=tarfile.LNKTYPE, link="n01440764_2.JPEG"), "no links"),
    "device": (ilsvrc.member(NAME, kind=tarfile.CHRTYPE), "links, devices or sparse"),
    "pipe": (ilsvrc.member(NAME, kind=tarfile.FIFOTYPE), "links, devices or sparse"),
    "sparse": (ilsvrc.member(NAME, kind=tarfile.GNUTYPE_SPARSE), "links, devices or sparse"),
    "long": (ilsvrc.member("n01440764_" + "9" * 200 + ".JPEG", b"x"), "tar's kind 'L'"),
    "unknown": (ilsvrc.member(NAME, kind=b"Q"), "tar's kind 'Q'"),
    "twice": (ilsvrc.member("n01440764_2.JPEG", b"x"), "'n01440764_2.JPEG' is there twice"),
    "one more": (ilsvrc.member(NAME, b"x"), "10 pictures, the development kit says 9"),
    "huge": (ilsvrc.member(NAME, size=8**11 - 1), "declares 8,589,934,591 bytes"),
    "bomb": (ilsvrc.member(NAME, size=2**62), "declares 4,611,686,018,427,387,904 bytes"),
    "negative": (ilsvrc.member(NAME, size=-4096), "declares -4,096 bytes"),
    "renamed": (ilsvrc.member("x", b"30 path=n01440764_7.JPEG\n", tarfile.XHDTYPE),
                "changes what a member is"),
    "resized": (ilsvrc.member("x", b"12 size=99\n", tarfile.XGLTYPE), "changes what a member is"),
    "pax": (ilsvrc.member("x", b"9" * 10**5, tarfile.XHDTYPE), "changes what a member is"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(tmp_path, name):
    data, part = HOSTILE[name]
    source = ilsvrc.write(tmp_path / "src", train=inner(data))
    message = refused(tmp_path / "s", part, source=source)
    assert f"{ilsvrc.TRAIN}:n01440764.tar: " in message or name == "twice"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("extra, part", [
    (ilsvrc.member("readme.txt", b"x"), "'readme.txt' does not belong there"),
    (ilsvrc.member("../n01440765.tar", b"x"), "does not belong there"),
    (ilsvrc.member("n01440764.tar", b"x"), "'n01440764.tar' is there twice"),
    (ilsvrc.member("n01440765.tar", ilsvrc.tar({})), "n01440765 is missing in the kit"),
    (ilsvrc.member("n01440765.tar", kind=tarfile.SYMTYPE, link="x"), "no links"),
])
def test_hostile_inner_archives(tmp_path, extra, part):
    refused(tmp_path / "s", part, source=ilsvrc.write(tmp_path / "src", train=outer(extra)))


def test_folders_and_times_in_a_tar_are_harmless(tmp_path, source):
    harmless = (ilsvrc.member("x", b"20 mtime=1345.5678\n", tarfile.XHDTYPE)
                + ilsvrc.member("./", kind=tarfile.DIRTYPE))
    data = ilsvrc.tar({f"./{wnid}.tar": ilsvrc.tar(files, harmless)
                       for wnid, files in ilsvrc.train_pictures().items()}, harmless)
    train, _ = open_source([ilsvrc.write(tmp_path / "src", train=data)], SIZE)
    assert len(train) == 36 and train.name(0) == f"{ilsvrc.TRAIN}:n01440764_12.JPEG"


@pytest.mark.parametrize("name, data", [
    ("tar", ilsvrc.tar({"n01440764_1.JPEG": b"x"})), ("empty", b""), ("text", b"hello"),
    ("pixels", ilsvrc.encoded(Image.new("1", (20_000, 10_000)), "PNG"))])
def test_what_is_no_picture_is_left_out_by_name(tmp_path, name, data):
    source = ilsvrc.write(tmp_path / "src", train=inner(**{"n01440764_2.JPEG": data}))
    told = make(source, tmp_path / "s")
    assert told["counts"]["train"] == 34
    assert sum(":n01440764_2.JPEG: is " in line for line in told["left_out"]["train"]) == 1


def test_archives_cut_short_anywhere_are_refused(tmp_path):
    source = ilsvrc.write(tmp_path / "src")
    for name in (ilsvrc.TRAIN, ilsvrc.VAL, ilsvrc.DEVKIT):
        path = pathlib.Path(source) / name
        whole = path.read_bytes()
        needed = len(whole.rstrip(b"\0"))
        needed += -needed % 512 + 1024                   # up to the end mark, with no filling
        lengths = {*range(0, len(whole), 5 if name == ilsvrc.DEVKIT else 2048), needed - 1,
                   needed - 512, needed - 513, needed - 1024}
        for length in sorted(length for length in lengths
                             if length < (len(whole) if name == ilsvrc.DEVKIT else needed)):
            path.write_bytes(whole[:length])
            message = refused(tmp_path / "s", source=source)
            assert name in message, length
        path.write_bytes(whole)
    assert not (tmp_path / "s").exists()
    open_source([source], SIZE)


def test_inner_archives_cut_short_are_refused(tmp_path):
    pictures = ilsvrc.train_pictures()
    for cut in (512, 1024, 1025, 5000):
        tars = {f"{wnid}.tar": ilsvrc.tar(files) for wnid, files in pictures.items()}
        end = len(tars["n01440764.tar"].rstrip(b"\0"))
        tars["n01440764.tar"] = tars["n01440764.tar"][:end + 1024 - cut]
        source = ilsvrc.write(tmp_path / "src", train=ilsvrc.tar(tars))
        refused(tmp_path / "s", ":n01440764.tar: ", source=source)


def test_a_flipped_bit_in_any_header_is_refused_or_changes_nothing(tmp_path):
    source = ilsvrc.write(tmp_path / "src")
    path = pathlib.Path(source) / ilsvrc.VAL
    whole, expected = path.read_bytes(), open_source([source], SIZE)[1].fingerprint
    rng, passed = random.Random(1), 0
    second = whole.index(b"ILSVRC2012_val_00000002")
    for place in [start + i for start in (0, second) for i in rng.sample(range(512), 40)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)])
                         + whole[place + 1:])
        try:
            _, val = open_source([source], SIZE)
        except DataError as problem:
            assert ilsvrc.VAL in str(problem)
        else:
            passed += 1
            assert val.fingerprint == expected           # the checksum field's own filling
    assert passed < 4


# ---- labels ---------------------------------------------------------------------------------

def kit_refused(tmp_path, kit, *parts, **archives):
    source = ilsvrc.write(tmp_path / "src", kit=kit, **archives)
    return refused(tmp_path / "s", *parts, source=source)


def test_ground_truth_that_does_not_fit(tmp_path):
    truth = ilsvrc.TRUTH
    kit_refused(tmp_path, ilsvrc.devkit(truth[:-1]), "7 pictures for 6 lines of ground truth",
                "ILSVRC2012_val_00000007.JPEG")
    kit_refused(tmp_path, ilsvrc.devkit([*truth, 1]), "7 pictures for 8 lines",
                "ILSVRC2012_val_00000008.JPEG")
    for wrong in (0, 5, -1, "x", 10**9, "1.0"):
        kit_refused(tmp_path, ilsvrc.devkit([*truth[:3], wrong, *truth[4:]]), "line 4 of",
                    "expected 1 to 4")
    kit_refused(tmp_path, ilsvrc.devkit([]), "is empty")


def test_a_kit_that_does_not_know_the_archives_classes(tmp_path):
    renamed = [("n09999999", "x") if w == "n01440764" else (w, n) for w, n in ilsvrc.SYNSETS]
    kit_refused(tmp_path, ilsvrc.devkit(data=ilsvrc.meta(renamed)), "4 classes, the development "
                "kit has 4; n01440764 is missing in the kit")
    more = [*ilsvrc.SYNSETS, ("n09999999", "x")]
    kit_refused(tmp_path, ilsvrc.devkit(data=ilsvrc.meta(more)), "n09999999 is missing in the "
                "archive")
    kit_refused(tmp_path, ilsvrc.devkit(data=ilsvrc.meta(counts={"n03126707": 1300})),
                "n03126707.tar: 9 pictures, the development kit says 1,300")


def test_a_kit_that_contradicts_itself(tmp_path):
    twice = [*ilsvrc.SYNSETS, ilsvrc.SYNSETS[0]]
    kit_refused(tmp_path, ilsvrc.devkit(data=ilsvrc.meta(twice)), "is there twice")
    strange = [*ilsvrc.SYNSETS[:3], ("../../etc", "x")]
    kit_refused(tmp_path, ilsvrc.devkit(data=ilsvrc.meta(strange)), "'../../etc' is not a wnid")
    kit_refused(tmp_path, ilsvrc.devkit(data=ilsvrc.meta(ilsvrc.SYNSETS[:1])), "1 classes")
    kit_refused(tmp_path, gzip.compress(ilsvrc.tar({"a/meta.mat": b""})), "not in it")
    kit_refused(tmp_path, gzip.compress(ilsvrc.tar({})), "meta.mat and ILSVRC2012_validation")
    kit_refused(tmp_path, b"PK not gzip", "not a whole tar.gz")


def test_meta_of_any_bytes_is_one_line(tmp_path):
    whole, rng = ilsvrc.meta(), random.Random(0)
    for length in (0, 1, 127, 128, 140, len(whole) // 2, len(whole) - 1):
        kit_refused(tmp_path, ilsvrc.devkit(data=whole[:length] or b"\0"), "meta.mat")
    for _ in range(40):
        place = rng.randrange(124, len(whole))
        source = ilsvrc.write(tmp_path / "src", kit=ilsvrc.devkit(
            data=whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1:]))
        try:
            open_source([source], SIZE)
        except DataError as problem:
            assert "meta.mat" in str(problem) and "\n" not in str(problem)


def test_kits_that_unpack_to_too_much(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setattr(devkit_module, "MAX_KIT", 2**18)
    kit_refused(tmp_path, gzip.compress(bytes(2**19)), "unpacks to more than")
    file = io.BytesIO()
    savemat(file, {"synsets": np.zeros(2**17)}, do_compression=True)     # a megabyte
    assert len(file.getvalue()) < 2**12
    kit_refused(tmp_path, ilsvrc.devkit(data=file.getvalue()), "meta.mat: it unpacks to more")


def test_without_scipy_the_line_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(tmp_path / "s", "SciPy, which is not installed: pip install 'tinyalex[imagenet]'",
            source=source)


# ---- the official ones ----------------------------------------------------------------------

def test_of_the_official_archives_no_picture_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(archives_module, "OFFICIAL", {"classes": 4, "train": 36, "val": 7})
    pictures, name = ilsvrc.train_pictures(), "n02119789_30.JPEG"
    whole = pictures["n02119789"][name] = ilsvrc.picture(0, 3)
    pictures["n02119789"][name] = whole[:300].ljust(len(whole), b"?")
    source = ilsvrc.write(tmp_path / "src", pictures)
    refused(tmp_path / "s", f"{name}: is damaged", "ImageNet has no such picture", "--verify",
            source=source)
    assert "store.json" not in contents(tmp_path / "s")
    pictures["n02119789"][name] = whole                  # the archive is put right: it goes on
    ilsvrc.write(tmp_path / "src", pictures)
    assert make(source, tmp_path / "s")["counts"] == {"train": 36, "val": 7}
    for split, count in (("train", 1_281_167), ("val", 50_000)):
        with monkeypatch.context() as patch:
            patch.setitem(archives_module.OFFICIAL, split, count)
            refused(tmp_path / "t", f"pictures in {split}; ImageNet of 2012 has {count:,}",
                    source=source)


def test_verify_compares_checksums(source, monkeypatch):
    archives = find_archives([source])
    with pytest.raises(DataError, match="its MD5 is .*; it is damaged or another one"):
        verify(archives)
    import hashlib
    monkeypatch.setattr(archives_module, "MD5", {
        name: hashlib.md5(pathlib.Path(path).read_bytes()).hexdigest()
        for name, path in archives.items()})
    seen = []
    verify(archives, lambda *told: seen.append(told))
    total = sum(os.path.getsize(path) for path in archives.values())
    assert seen[-1] == (total, total)


def test_archives_are_found_in_a_folder_or_one_by_one(source, tmp_path):
    one_by_one = [os.path.join(source, name) for name in (ilsvrc.VAL, ilsvrc.DEVKIT, ilsvrc.TRAIN)]
    assert find_archives(one_by_one) == find_archives([source])
    for paths in (one_by_one[:2], [*one_by_one, one_by_one[0]], [source, source],
                  [*one_by_one[:2], str(tmp_path / ilsvrc.TRAIN)], [*one_by_one, __file__]):
        with pytest.raises(DataError, match="expected ILSVRC2012_img_train.tar, ILSVRC2012_img_v"):
            find_archives(paths)
    shutil.copy(one_by_one[0], tmp_path)
    with pytest.raises(DataError, match="ILSVRC2012_img_train.tar, .*gz not there"):
        find_archives([str(tmp_path)])
    (tmp_path / "train").mkdir()                         # somebody has extracted the rest
    assert find_archives([str(tmp_path)]) is None


# ---- real pictures --------------------------------------------------------------------------

def test_real_pictures_from_archive_to_batch(tmp_path):
    from test_data_real import members

    files = dict(members("imagenet-samples-100.tar.gz", 100))
    wnids = sorted(name[:9] for name in files)
    source = ilsvrc.real(tmp_path / "src", files)
    make(source, tmp_path / "s", size=256, shard_size=40)
    train, val = open_dataset(tmp_path / "s", 224)
    assert (len(train), len(val), train.resize, train.folders) == (100, 100, 256, tuple(wnids))
    assert sorted(train.labels.tolist()) == val.labels.tolist() == list(range(100))
    augment = Augment(224, train.statistics.mean, 1, train.statistics.eigenvalues,
                      train.statistics.eigenvectors, 0.1)
    batches = list(Loader(train, 32, augment).batches(0))
    assert [len(batch.labels) for batch in batches] == [32, 32, 32, 4]
    assert not any(batch.skipped for batch in batches)
    images = np.concatenate([batch.images for batch in batches])
    assert np.abs(images.mean()) < 10 and 40 < images.std() < 80
    one = Subset(val, [3])
    square = decode_picture(files[next(n for n in files if n.startswith(wnids[3]))], resize=256)
    assert np.abs(one.picture(0).astype(int) - square).mean() < 4
