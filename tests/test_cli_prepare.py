"""examples/prepare_imagenet.py as a person uses it: archives in, a store out, and all mistakes."""
import importlib.util
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from test_data_real import members

from tinyalex.data import StoreDataset
from tinyalex.data import archives as archives_module
from tinyalex.train import checkpoint, console

pytest.importorskip("scipy", reason="SciPy, of the extra imagenet, reads meta.mat")
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "prepare_imagenet.py"
SMALL = ["--size", 24, "--shard-size", 10, "--workers", 2]


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = example("prepare_imagenet")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return ilsvrc.write(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """So many pictures that there is time to be interrupted."""
    few = [[ilsvrc.picture(label, i) for i in range(40)] for label in range(4)]
    data = {wnid: {f"{wnid}_{i}.JPEG": few[label][i % 40] for i in range(800)}
            for label, (wnid, _) in enumerate(ilsvrc.SYNSETS)}
    kit = ilsvrc.devkit(data=ilsvrc.meta(counts=dict.fromkeys(data, 800)))
    return ilsvrc.write(tmp_path_factory.mktemp("many"), train=data, kit=kit)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*args):
    return console.run(program.main, program.PROGRAM, [str(arg) for arg in args])


def fails(capsys, *args):
    """Return the one line on stderr of a command that has to end with exit code 2."""
    assert call(*args) == 2
    out, err = capsys.readouterr()
    assert err.startswith("prepare_imagenet.py: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


def start(*args):
    # Ctrl-C may fall between a file's opening and its "with": that alone may leave it open.
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", SCRIPT,
               *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)         # Ctrl-C here is not for the test


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*")) if path.is_file()}


# ---- what it says ---------------------------------------------------------------------------

def test_from_archives_to_a_store_and_to_training_on_it(source, capsys):
    assert call("--source", source, "--output", "my store", *SMALL) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == f"{source}: 36 pictures to learn from, 7 to validate, 4 classes"
    assert "  train-000003.tar: 6 pictures" in lines and "  val-000000.tar: 7 pictures" in lines
    assert sum(line.startswith("  left out: ILSVRC2012_img_train.tar:n02119789_30.JPEG: is ")
               for line in lines) == 1
    assert lines[-3].startswith("1 of 43 pictures could not be read and were left out; store.json")
    assert lines[-2].startswith("my store: 35 + 7 pictures of 24 x 24, 0.00 GB; train on them with")
    command = shlex.split(lines[-1])
    assert command == ["python", "examples/train_imagenet.py", "--data", "my store", "--model",
                       "alexnet"]
    train = example("train_imagenet")
    assert console.run(train.main, "t", ["--data", "my store", "--model", "mini", "--image-size",
                                         "32", "--batch-size", "6", "--max-steps", "2",
                                         "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "my store: 35 pictures to learn from, 7 held out, 4 classes" in out
    assert out.splitlines()[-1].startswith("top-1 error ")


def test_training_takes_mean_and_colors_from_the_store(source, capsys, monkeypatch):
    assert call("--source", source, "--output", "s", "--size", 36) == 0
    monkeypatch.setattr(StoreDataset, "picture", lambda self, i: np.full((36, 36, 3), i, np.uint8))
    assert console.run(example("train_imagenet").main, "t", [
        "--data", "s", "--model", "mini", "--image-size", "32", "--batch-size", "6",
        "--max-steps", "1", "--output-dir", "r"]) == 0
    arrays, meta = checkpoint.load_newest("r/checkpoints")[1:]
    assert meta["classes"] == ["tench", "crane, a bird", "kit fox", "crane"]
    for name, value in StoreDataset("s", "train").statistics.to_dict().items():
        assert arrays[f"statistics/{name}"].tobytes() == value.tobytes(), name


def test_help_names_all_flags_and_their_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        call("--help")
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in ("--source PATH [PATH ...]", "--output STORE", "default: 256", "--format",
                 "webdataset", "memmap", "default: 95", "--workers", "--verify", "goes on when"):
        assert part in out


def test_archives_one_by_one_in_both_formats(source, capsys):
    paths = [os.path.join(source, name) for name in (ilsvrc.DEVKIT, ilsvrc.TRAIN, ilsvrc.VAL)]
    assert call("--source", *paths, "--output", "a", *SMALL) == 0
    assert call("--source", source, "--output", "b", *SMALL, "--format", "memmap") == 0
    a, b = StoreDataset("a", "train"), StoreDataset("b", "train")
    assert (a.format, b.format) == ("webdataset", "memmap") and len(a) == len(b) == 35
    assert "train.npy: 10 pictures" in capsys.readouterr().out


def test_lines_now_and_then_tell_the_time_that_is_left(source, capsys, monkeypatch):
    monkeypatch.setattr(program, "SAY_SECONDS", 0)
    assert call("--source", source, "--output", "a", *SMALL) == 0
    out = capsys.readouterr().out
    assert re.search(r"  reading headers: \d of 4, 0:00:00 left\n", out)
    assert re.search(r"  preparing: \d+ of 43, 0:00:0\d left\n", out)


def test_a_bar_on_a_terminal(source):
    import pty
    import termios

    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    done = subprocess.Popen([sys.executable, SCRIPT, "--source", source, "--output", "a",
                             *map(str, SMALL)], stdout=child, stderr=child)
    os.close(child)
    out = b""
    try:
        while data := os.read(parent, 2**16):
            out += data
    except OSError:                                      # so a terminal ends
        pass
    os.close(parent)
    assert done.wait(30) == 0
    assert b"preparing:" in out and b"/43" in out and b"pictures/s" in out


def test_a_pipe_that_closes_is_no_fault_of_the_store(many):
    command = shlex.join([sys.executable, str(SCRIPT), "--source", many, "--output", "s", "--size",
                          "24", "--shard-size", "100"])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} | head -1"], timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == console.PIPE_CLOSED and done.stderr == ""
    assert not os.path.exists("s/store.json") and os.path.exists("s/unfinished")


# ---- mistakes -------------------------------------------------------------------------------

@pytest.mark.parametrize("args, part", [
    ([], "the following arguments are required: --source, --output"),
    (["--source", "x"], "required: --output"),
    (["--source", "nowhere", "--output", "s"], "--source 'nowhere': no such folder"),
    (["--source", "a", "b", "--output", "s"], "--source 'a b': a; expected ILSVRC2012_img_train"),
    (["--source", ".", "--output", "s"], "--source '.': no class folders"),
    (["--source", ".", "--output", "s", "--verify"], "--verify: there are no archives of ImageNet"),
    (["--source", ".", "--output", "s", "--size", "0"], "--size: 0 is not a whole number of 1"),
    (["--source", ".", "--output", "s", "--workers", "x"], "--workers: x is not a whole number"),
    (["--source", ".", "--output", "s", "--format", "lmdb"], "--format: invalid choice: 'lmdb'"),
    (["--source", ".", "--output", "s", "--formt", "x"], "unrecognized arguments: --formt x"),
    (["--source", ".", "--output", "s", "--format", "memmap", "--quality", "9"],
     "--quality is that of JPEGs")])
def test_mistakes(capsys, args, part):
    assert part in fails(capsys, *args)
    assert os.listdir() == []


def test_values_that_only_the_store_refuses(source, capsys):
    where = ["--source", source, "--output", "s"]
    assert "--quality got 101; expected 1 to 100" in fails(capsys, *where, "--quality", 101)
    assert "--size got 5000; expected 1 to 4096" in fails(capsys, *where, "--size", 5000)
    assert os.listdir() == []


def test_a_store_is_not_overwritten_and_other_settings_are_refused(source, capsys):
    assert call("--source", source, "--output", "s", *SMALL) == 0
    before = contents("s")
    capsys.readouterr()
    assert "--output 's': is a finished store" in fails(capsys, "--source", source, "--output", "s")
    assert contents("s") == before
    os.remove("s/store.json")
    assert "holds '" in fails(capsys, "--source", source, "--output", "s")


def test_archives_that_are_not_whole(source, capsys, tmp_path):
    for name in (ilsvrc.TRAIN, ilsvrc.VAL, ilsvrc.DEVKIT):
        folder = tmp_path / name.split(".")[0]
        ilsvrc.write(folder)
        os.truncate(folder / name, 700)
        assert name in fails(capsys, "--source", folder, "--output", "s", *SMALL)
        os.remove(folder / name)
        assert f"{name} not there" in fails(capsys, "--source", folder, "--output", "s", *SMALL)
        assert not os.path.exists("s")


def test_verify(source, capsys, monkeypatch):
    import hashlib

    where = ["--source", source, "--output", "s", *SMALL, "--verify"]
    assert "its MD5 is" in fails(capsys, *where)
    assert not os.path.exists("s")
    monkeypatch.setattr(archives_module, "MD5", {
        name: hashlib.md5((Path(source) / name).read_bytes()).hexdigest()
        for name in archives_module.MD5})
    assert call(*where) == 0
    assert "the MD5 of each archive is the official one" in capsys.readouterr().out


# ---- stopped, killed, and gone on with ------------------------------------------------------

@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "s"
    assert call("--source", many, "--output", folder, "--size", 24, "--shard-size", 100) == 0
    return contents(folder)


def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(many, whole):
    args = ["--source", many, "--output", "s", "--size", 24, "--shard-size", 100, "--workers", 1]
    running = start(*args)
    for line in running.stdout:
        if "train-000002" in line:
            break
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130 and err == ""
    assert "stopped; what is finished stays, and this goes on from there:\n" in out
    command = shlex.split(out.splitlines()[-1])
    assert command[-len(args):] == [str(arg) for arg in args]
    assert not os.path.exists("s/store.json") and os.path.exists("s/train-000002.tar")
    assert not [name for name in os.listdir("s") if name.endswith(".tmp")]
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0 and "train-000002" not in done.stdout
    assert contents("s") == whole


def test_killed_again_and_again_at_random_moments(many, whole):
    rng, kills = random.Random(0), 0
    for _ in range(30):
        running = start("--source", many, "--output", "s", "--size", 24, "--shard-size", 100,
                        "--workers", rng.choice([1, 2, 3]))
        for line in running.stdout:                      # it works: now at any moment
            if "pictures" in line:
                break
        time.sleep(rng.uniform(0.05, 0.6))
        running.kill()
        running.communicate()
        kills += running.returncode == -signal.SIGKILL
        if os.path.exists("s/store.json") and not os.path.exists("s/unfinished"):
            break                                        # it may have been at its very last line
    assert kills >= 2 and contents("s") == whole


# ---- the whole way, with pictures of full size ----------------------------------------------

def run(program, *args):
    done = subprocess.run([sys.executable, ROOT / "examples" / program, *map(str, args)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed_when(done, program, *args):
    """Run a program until `done()` is true, and kill it at once."""
    running = subprocess.Popen([sys.executable, ROOT / "examples" / program, *map(str, args)],
                               stdout=subprocess.DEVNULL)
    while not done():
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_from_archives_of_real_pictures_to_predictions(tmp_path):
    files = dict(members("imagenet-samples-100.tar.gz", 100))
    source = ilsvrc.real(tmp_path / "archives", files, copies=6)
    for form, begun in (("webdataset", "train-000002.tar"), ("memmap", "unfinished/train-000002.s"
                                                             "afetensors")):
        args = ["--source", source, "--shard-size", 100, "--format", form]
        run("prepare_imagenet.py", *args, "--output", f"{form}-whole", "--workers", 3)
        killed_when(lambda: os.path.exists(f"{form}/{begun}"), "prepare_imagenet.py", *args,
                    "--output", form)
        assert not os.path.exists(f"{form}/store.json")
        out = run("prepare_imagenet.py", *args, "--output", form, "--workers", 1)
        assert f"{form}: 600 + 100 pictures of 256 x 256" in out
        assert contents(form) == contents(f"{form}-whole")
    train, val = (StoreDataset("memmap", split) for split in ("train", "val"))
    assert np.bincount(train.labels).tolist() == [6] * 100 and sorted(files) == [
        next(name for name in files if name.startswith(val.folders[label]))
        for label in val.labels]

    args = ["--data", "webdataset", "--model", "alexnet", "--batch-size", 8, "--max-steps", 4,
            "--save-freq", 1, "--backend", "numpy", "--output-dir"]
    run("train_imagenet.py", *args, "whole")
    killed_when(lambda: list(Path("killed").glob("checkpoints/step-000002-*")),
                "train_imagenet.py", *args, "killed")
    run("train_imagenet.py", "--resume", "killed")
    assert (Path("killed/checkpoints/LATEST").read_bytes()
            == Path("whole/checkpoints/LATEST").read_bytes())
    arrays = checkpoint.load_newest("killed/checkpoints")[1]
    assert arrays["statistics/sample"] == 600 and arrays["statistics/mean"].shape == (256, 256, 3)
    Path("picture.jpg").write_bytes(files[sorted(files)[0]])
    out = run("predict.py", "picture.jpg", "--checkpoint", "killed")
    assert len(re.findall(r"thing \d+", out)) == 5
