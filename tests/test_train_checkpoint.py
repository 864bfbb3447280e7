"""Checkpoints: what is written is read back, or the fault is named; nothing is half there."""
import errno
import hashlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from tinyalex.data import disk
from tinyalex.train import checkpoint
from tinyalex.train.checkpoint import (CheckpointError, CheckpointNote, NotFinite, load,
                                         load_newest, save)

A = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
LAYOUTS = {
    "contiguous": A,
    "transposed": A.T,
    "reversed": A[::-1, :, ::-1],
    "fortran": np.asfortranarray(A),
    "sliced": A[:, 1:, ::2],
    "broadcast": np.broadcast_to(A[0, 0], (3, 4)),
    "channels_last": np.moveaxis(A, 0, -1),
    "big_endian": A.astype(">f4"),
    "number": np.float64(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "int64": np.arange(5)[::-1],
    "uint8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False, True])[::-1],
    "float16": A.astype(np.float16)[1],
}


def files(folder):
    return sorted(os.listdir(folder))


def test_every_layout_comes_back_as_it_was(tmp_path):
    arrays, meta = load(save(tmp_path, LAYOUTS, {"step": 3, "lr": 0.1, "classes": ["ä", "b"]}))
    assert meta == {"step": 3, "lr": 0.1, "classes": ["ä", "b"]}
    assert arrays.keys() == LAYOUTS.keys()
    for name, array in LAYOUTS.items():
        assert arrays[name].shape == np.shape(array), name
        assert arrays[name].dtype == array.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    arrays["contiguous"][0] = 0        # loaded arrays are to be trained on, so they are writable


def test_the_library_alone_writes_wrong_bytes_for_a_transposed_array():
    """Why save() copies: the day this fails, the copy may go."""
    import safetensors.numpy

    back = safetensors.numpy.load(safetensors.numpy.save({"x": A.T}))["x"]
    assert not np.array_equal(back, A.T)


def test_the_name_and_latest_hold_the_hash_of_the_whole_file(tmp_path):
    path = save(tmp_path, {"a": A}, {"step": 750})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"step-000750-{digest[:16]}.safetensors"
    assert (tmp_path / "LATEST").read_text() == f"{digest}  {path.name}\n"
    assert files(tmp_path) == ["LATEST", path.name]


def test_equal_contents_give_equal_files(tmp_path):
    meta = {"step": 1, "b": 2, "a": {"y": 1, "x": 2}}
    one = save(tmp_path / "1", {"a": A, "b": A.T}, meta)
    two = save(tmp_path / "2", {"b": A.T, "a": A}, dict(reversed(meta.items())))
    assert one.name == two.name
    assert save(tmp_path / "1", {"a": A, "b": A.T}, meta) == one


def test_the_last_two_and_the_best_stay(tmp_path):
    for step in range(1, 7):
        save(tmp_path, {"a": A * step}, {"step": step}, best=step in (1, 2))
    steps = [checkpoint.step_of(name) for name in files(tmp_path) if name.startswith("step")]
    assert steps == [2, 5, 6]
    assert (tmp_path / "BEST").read_text().split()[1].startswith("step-000002-")
    assert load_newest(tmp_path)[2]["step"] == 6


def test_going_back_leaves_later_files_alone(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, {"a": A}, {"step": step}, keep=3)
    save(tmp_path, {"a": A + 1}, {"step": 15}, keep=1)
    steps = [checkpoint.step_of(name) for name in files(tmp_path) if name.startswith("step")]
    assert steps == [15, 20, 30]
    assert load_newest(tmp_path)[2]["step"] == 15       # LATEST, not the highest number


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_but_finite_numbers_is_written(tmp_path, bad):
    path = save(tmp_path, {"a": A}, {"step": 1})
    broken = A.copy()
    broken[1, 2, 3] = bad
    with pytest.raises(NotFinite, match="momentum/fc8 holds NaN or infinity"):
        save(tmp_path, {"a": A, "momentum/fc8": broken}, {"step": 2})
    assert files(tmp_path) == ["LATEST", path.name]


@pytest.mark.parametrize("thing", [np.array([object()]), np.array(["text"]),
                                   np.zeros(2, np.complex64), np.zeros(2, np.longdouble)])
def test_what_is_no_plain_number_is_refused(tmp_path, thing):
    with pytest.raises(TypeError, match="'x' has dtype"):
        save(tmp_path, {"x": thing}, {"step": 1})


# ---- damage

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("whole")
    path = save(folder, {f"w{i}": rng.normal(size=(2, 3)) for i in range(4)}, {"step": 2})
    return path.name, path.read_bytes()


@pytest.fixture
def pair(tmp_path, whole):
    """A folder with a good checkpoint of step 1 and, as its LATEST says, that of `whole`."""
    save(tmp_path, {"a": A}, {"step": 1})
    name, data = whole
    (tmp_path / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "LATEST").write_text(f"{digest}  {name}\n")
    assert load_newest(tmp_path)[2] == {"step": 2}
    return tmp_path


def content(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def one_before(folder, fault):
    """Assert that the earlier checkpoint is read, the fault named and nothing touched."""
    before = content(folder)
    with pytest.warns(CheckpointNote, match=f"{fault}.*; falling back to step-000001-"):
        assert load_newest(folder)[2] == {"step": 1}
    assert content(folder) == before


def test_every_flipped_byte_is_noticed_and_the_one_before_is_used(pair, whole):
    name, data = whole
    assert len(data) < 800
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        (pair / name).write_bytes(broken)
        one_before(pair, f"{name}: (changed since it was written|cut short)")
    (pair / name).write_bytes(data)
    assert load_newest(pair)[2] == {"step": 2}


def test_every_cut_is_called_one_and_the_one_before_is_used(pair, whole):
    name, data = whole
    for length in range(len(data)):
        (pair / name).write_bytes(data[:length])
        one_before(pair, rf"{name}: cut short.*\b{length:,}\b")


def test_every_flipped_byte_of_the_pointers_is_noticed_or_harmless(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, {"a": A}, {"step": step}, best=step == 1)
    whole = content(tmp_path)
    for pointer in ("LATEST", "BEST"):
        for place in range(len(whole[pointer])):
            broken = bytearray(whole[pointer])
            broken[place] ^= 1 << place % 8
            (tmp_path / pointer).write_bytes(broken)
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                assert load_newest(tmp_path)[2] == {"step": 3}
            damaged = checkpoint.pointed(tmp_path, pointer) not in tmp_path.iterdir()
            assert len(notes) == (pointer == "LATEST" and damaged)
            assert damaged or 16 <= place < 64 or broken.split() == whole[pointer].split()
        (tmp_path / pointer).write_bytes(whole[pointer])


def test_a_renamed_file_is_read_with_a_note(tmp_path, whole):
    name, data = whole
    (tmp_path / "mine.safetensors").write_bytes(data)
    with pytest.warns(CheckpointNote, match="mine.safetensors: its name holds no hash"):
        arrays, meta = load(tmp_path / "mine.safetensors")
    assert meta == {"step": 2} and len(arrays) == 4


def test_a_renamed_file_that_was_cut_is_named(tmp_path, whole):
    name, data = whole
    for length in (0, 5, 100, len(data) - 1):
        (tmp_path / "mine.safetensors").write_bytes(data[:length])
        with pytest.warns(CheckpointNote), pytest.raises(CheckpointError, match="cut short"):
            load(tmp_path / "mine.safetensors")


def test_other_files_are_named_for_what_they_are(tmp_path):
    import safetensors.numpy

    with pytest.raises(CheckpointError, match="there is no such file"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.warns(CheckpointNote), pytest.raises(CheckpointError, match="not a safetensors"):
        load(tmp_path / "cat.png")
    safetensors.numpy.save_file({"a": A}, tmp_path / "foreign.safetensors")
    with pytest.warns(CheckpointNote), pytest.raises(CheckpointError, match="not one of tinyalex"):
        load(tmp_path / "foreign.safetensors")


# ---- falling back

def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path):
    save(tmp_path, {"a": A}, {"step": 1})
    newest = save(tmp_path, {"a": A}, {"step": 2})
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(CheckpointNote, match="step-000002.*cut short.*falling back to step-000001"):
        path, arrays, meta = load_newest(tmp_path)
    assert meta == {"step": 1} and checkpoint.step_of(path) == 1


def test_a_damaged_latest_is_not_believed(tmp_path):
    save(tmp_path, {"a": A}, {"step": 1})
    save(tmp_path, {"a": A}, {"step": 2})
    for text in (b"", b"\xff\xfe", b"0" * 64 + b"  step-000001-0000000000000000.safetensors\n",
                 b"f" * 64 + (tmp_path / "LATEST").read_bytes()[64:], b"one two three"):
        (tmp_path / "LATEST").write_bytes(text)
        with pytest.warns(CheckpointNote, match="LATEST is damaged or names a file that is gone"):
            assert load_newest(tmp_path)[2] == {"step": 2}
    (tmp_path / "LATEST").unlink()               # so it is after a kill within the first save
    assert load_newest(tmp_path)[2] == {"step": 2}


def test_no_good_checkpoint_at_all(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        load_newest(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        load_newest(tmp_path / "missing")
    save(tmp_path, {"a": A}, {"step": 1}).write_bytes(b"")
    with pytest.raises(CheckpointError, match="cut short"):
        load_newest(tmp_path)


# ---- a disk that refuses

class FullDisk:
    """Stands in for open(): the file whose name holds `where` takes some bytes, then is full."""

    def __init__(self, where, room=100):
        self.where, self.room = where, room

    def __call__(self, path, mode):
        file = open(path, mode)
        if self.where in os.fspath(path):
            write = file.write

            def fill(data):
                write(data[:self.room])
                raise OSError(errno.ENOSPC, "No space left on device")

            return Proxy(file, fill)
        return file


class Proxy:
    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize("where", ["step-000002", "BEST", "LATEST"])
def test_a_full_disk_is_named_and_leaves_all_as_it_was(tmp_path, monkeypatch, where):
    first = save(tmp_path, {"a": A}, {"step": 1}, best=True)
    before = content(tmp_path)
    monkeypatch.setattr(disk, "open", FullDisk(where), raising=False)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, {"a": A + 1}, {"step": 2}, keep=1, best=True)
    text = str(caught.value)
    assert "No space left on device (0.0 MB are needed)" in text and "step-000002" in text
    assert "\n" not in text
    assert content(tmp_path) == before
    monkeypatch.undo()
    assert load_newest(tmp_path)[0] == first
    save(tmp_path, {"a": A + 1}, {"step": 2})           # and once there is room, it goes on


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    save(tmp_path, {"a": A}, {"step": 1})
    before = files(tmp_path)

    def refuse(path, mode):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(disk, "open", refuse, raising=False)
    with pytest.raises(CheckpointError, match="could not write .*step-000002.*: Read-only file"):
        save(tmp_path, {"a": A}, {"step": 2})
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not write .*: (Not a directory|File exists)"):
        save(tmp_path / "file" / "checkpoints", {"a": A}, {"step": 1})


GROWN = """
import resource, sys
import numpy as np
from tinyalex.train.checkpoint import CheckpointError, load_newest, save
folder = sys.argv[1]
save(folder, {"a": np.zeros(1000)}, {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    save(folder, {"a": np.zeros(10_000)}, {"step": 2}, keep=1, best=True)
except CheckpointError as error:
    print(error)
print(load_newest(folder)[2])
"""


def test_a_file_that_may_not_grow_is_named_and_leaves_all_as_it_was(tmp_path):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-W", "error", "-c", GROWN, tmp_path], text=True,
                          capture_output=True, check=True)
    error, meta = done.stdout.splitlines()
    assert "could not write" in error and "step-000002" in error and "File too large" in error
    assert meta == "{'step': 1}" and len(files(tmp_path)) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB of its own; gives its folder and a function that mounts it anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder],
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    if sys.platform != "linux" or os.geteuid():
        pytest.skip("mounting a small disk takes Linux and root; the tests above need neither")
    mount("size=64k")
    yield folder, lambda *options: mount("remount", *options)
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_or_read_only(small_disk):
    folder, mount_again = small_disk
    first = save(folder, {"a": np.zeros(2000)}, {"step": 1}, best=True)        # 16 kB
    before = content(folder)
    with pytest.raises(CheckpointError, match=r"step-000002.*No space left on device \(0.1 MB are"):
        save(folder, {"a": np.ones(10_000)}, {"step": 2}, keep=1, best=True)
    assert content(folder) == before
    mount_again("size=1m")
    second = save(folder, {"a": np.ones(10_000)}, {"step": 2}, keep=1)
    assert files(folder) == ["BEST", "LATEST", first.name, second.name]
    before = content(folder)
    mount_again("ro")
    with pytest.raises(CheckpointError, match="could not write .*step-000003.*: Read-only file"):
        save(folder, {"a": np.ones(9)}, {"step": 3}, keep=1, best=True)
    assert content(folder) == before and load_newest(folder)[0] == second


def test_an_old_file_that_cannot_be_removed_is_a_note(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, {"a": A}, {"step": step})

    def refuse(path):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(checkpoint.Path, "unlink", refuse)
    with pytest.warns(CheckpointNote, match="could not remove .*step-000001-.*: Operation not"):
        save(tmp_path, {"a": A}, {"step": 3})
    assert load_newest(tmp_path)[2] == {"step": 3}


def test_what_a_kill_left_behind_is_swept_up(tmp_path):
    for name in (".step-000001-0123456789abcdef.safetensors.tmp", ".BEST.tmp"):
        (tmp_path / name).write_bytes(b"half")
    path = save(tmp_path, {"a": A}, {"step": 2})
    assert files(tmp_path) == ["LATEST", path.name]


def test_the_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(disk.os, name,
                            lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    disk.write_in_order((tmp_path / "a", b"x"), (tmp_path / "b", b"y"))
    assert calls == ["fsync", "fsync"] + ["replace", "fsync"] * 2     # files, then name and folder
    path = tmp_path / "checkpoints"
    monkeypatch.setattr(disk.os, "replace", lambda a, b: names.append(os.fspath(b)))
    names = []
    save(path, {"a": A}, {"step": 1}, best=True)
    assert [name.rpartition("/")[2][:6] for name in names] == ["step-0", "BEST", "LATEST"]
