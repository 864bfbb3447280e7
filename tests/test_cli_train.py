"""examples/train_imagenet.py as a person uses it: flags, mistakes, Ctrl-C, kill and resume."""
import dataclasses
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinyalex import models
from tinyalex.device import OutOfMemory
from tinyalex.device.cuda import device_count
from tinyalex.train import checkpoint, console, options, restore
from tinyalex.train.trainer import Trainer

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "train_imagenet.py"
SMALL = ["--model", "mini", "--image-size", "32", "--batch-size", "6", "--workers", "1",
         "--print-freq", "2"]
MAKE_STEP = Trainer._train_on


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = example("train_imagenet")


def draw(folder, each, seed=0, classes=("cat", "dog", "ox")):
    """Write `each` noisy pictures a class, each class of a color of its own."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            picture = rng.integers(0, 150, (36, 36, 3), np.uint8)
            picture[..., label % 3] += 100
            Image.fromarray(picture).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of three classes, ten pictures each to learn from: five steps an epoch."""
    folder = tmp_path_factory.mktemp("data") / "pets"
    draw(folder / "train", 10)
    draw(folder / "val", 3, seed=1)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, request):
    """Every test starts in an empty folder; drawing, which is slow, is left to one that asks."""
    monkeypatch.chdir(tmp_path)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(Trainer, "_draw", lambda self, finished: None)


@pytest.fixture
def pictures():
    """Ask for the run's pictures."""


def call(*args):
    return console.run(program.main, program.PROGRAM, [str(arg) for arg in args])


def fails(capsys, *args):
    """Return the one line on stderr of a command that has to end with exit code 2."""
    assert call(*args) == 2
    out, err = capsys.readouterr()
    assert err.startswith("train_imagenet.py: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


# ---- a run

@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run of two epochs."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert call("--data", data, *SMALL, "--epochs", 2, "--output-dir", run) == 0
    return run


def test_a_run_ends_with_its_errors_which_the_log_holds_too(data, capsys, pictures):
    assert call("--data", data, *SMALL, "--epochs", 2) == 0
    out, err = capsys.readouterr()
    last = re.fullmatch(r"top-1 error (\d+\.\d) %, top-5 error 0.0 %", out.splitlines()[-1])
    rows = [json.loads(line) for line in open_text("runs/pets-mini/log.jsonl").splitlines()]
    assert rows[-1]["kind"] == "val" and last[1] == f"{rows[-1]['top1']:.1f}"
    assert sorted(os.listdir("runs/pets-mini")) == [
        "checkpoints", "curves.png", "filters.png", "log.jsonl", "predictions.png"]
    assert err == "" and "10 steps of 6 pictures; see runs/pets-mini" in out


def open_text(path):
    return Path(path).read_text(encoding="utf-8")


def test_a_second_run_makes_a_new_folder_and_leaves_the_first(data, capsys):
    args = ["--data", data, *SMALL, "--max-steps", 1]
    for name in ("pets-mini", "pets-mini-2", "pets-mini-3"):
        assert call(*args) == 0
        assert f"see runs/{name}\n" in capsys.readouterr().out
    steps = {name: len(open_text(f"runs/{name}/log.jsonl").splitlines())
             for name in os.listdir("runs")}
    assert steps == {"pets-mini": 2, "pets-mini-2": 2, "pets-mini-3": 2}


def test_resume_alone_is_enough_and_auto_finds_the_last_run(data, trained, capsys):
    args = ["--data", data, *SMALL, "--epochs", 2]
    assert call(*args, "--resume", "auto", "--max-steps", 3) == 0      # nothing there: a new run
    assert call(*args, "--max-steps", 3) == 0
    capsys.readouterr()
    assert call("--resume", "runs/pets-mini-2", "--epochs", 2) == 0
    assert "going on after step 3; see runs/pets-mini-2" in capsys.readouterr().out
    assert call("--resume", "auto", "--data", data, "--epochs", 3) == 0
    assert "going on after step 10; see runs/pets-mini-2" in capsys.readouterr().out
    assert sorted(os.listdir("runs")) == ["pets-mini", "pets-mini-2"]
    rows = [json.loads(line) for line in open_text("runs/pets-mini-2/log.jsonl").splitlines()]
    places = [(row["kind"], row["step"]) for row in rows]
    assert len(set(places)) == len(places) and places[-1] == ("val", 15)


def test_auto_begins_again_what_was_killed_before_its_first_checkpoint(data):
    args = ["--data", data, *SMALL, "--max-steps", 4, "--output-dir", "a", "--resume", "auto"]
    Path("a/checkpoints").mkdir(parents=True)
    Path("a/log.jsonl").write_text('{"kind": "train", "step": 2, "loss": 9.0}\n{"kind": "tr')
    assert call(*args) == 0
    rows = [json.loads(line) for line in open_text("a/log.jsonl").splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 4] and rows[0]["loss"] != 9.0


def test_resume_with_a_new_rate_uses_it_from_there_on(data, capsys):
    assert call("--data", data, *SMALL, "--max-steps", 2, "--output-dir", "a") == 0
    assert call("--resume", "a", "--max-steps", 9, "--lr", "0.0007") == 0
    rows = [json.loads(line) for line in open_text("a/log.jsonl").splitlines()]
    rates = {row["step"]: row["lr"] for row in rows}
    assert rates[2] != rates[4] == 0.0007 and rates[9] < 0.0007         # and then it falls


def test_a_damaged_checkpoint_falls_back_with_a_note(data, capsys):
    assert call("--data", data, *SMALL, "--epochs", 2, "--output-dir", "a") == 0
    capsys.readouterr()
    newest = Path("a/checkpoints") / open_text("a/checkpoints/LATEST").split()[1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert call("--resume", "a") == 0
    out, err = capsys.readouterr()
    assert re.search(r"note: .*step-000010-.*cut short.*falling back to step-000005", err)
    assert "going on after step 5" in out and checkpoint.load(newest)[1]["step"] == 10
    newest.write_bytes(b"")
    assert "cut short" in fails(capsys, "--resume", newest)


def test_test_only_measures_and_writes_nothing(data, trained, capsys, tmp_path):
    assert call("--test-only", "--resume", trained, "--ten-crop") == 0
    lines = capsys.readouterr().out.splitlines()
    last = json.loads(open_text(trained / "log.jsonl").splitlines()[-1])
    assert lines[1] == f"top-1 error {last['top1']:.1f} %, top-5 error {last['top5']:.1f} %"
    assert f"9 pictures by their center, loss {last['loss']:.3f}" in lines[0]
    assert "9 pictures by ten windows" in lines[2] and lines[3].startswith("top-1 error ")
    assert list(tmp_path.iterdir()) == []


def test_average_of_checkpoints(data, trained, capsys):
    both = sorted((trained / "checkpoints").glob("step-*"))
    assert call("--test-only", "--average", *both) == 0
    out = capsys.readouterr().out
    assert all(path.name in out for path in both)
    # by hand, over the same pictures
    from tinyalex.data import Loader, open_dataset
    from tinyalex.train.evaluate import predict, top_k_error
    _, val = open_dataset(str(data), 32)
    p = 0
    for path in both:
        saved = restore.open_net(path)
        (batch,) = Loader(val, 9, saved.plain, shuffle=False, mode="center").batches(0)
        p = p + predict(saved.net, batch.images) / 2
    loss = -np.log(p[np.arange(9), batch.labels]).mean()
    assert f"loss {loss:.3f}" in out
    assert f"top-1 error {top_k_error(p, batch.labels):.1f} %" in out.splitlines()[-1]


def test_ten_crop_after_training_is_logged(data, capsys):
    assert call("--data", data, *SMALL, "--max-steps", 2, "--ten-crop", "--output-dir", "a") == 0
    out = capsys.readouterr().out.splitlines()
    row = json.loads(open_text("a/log.jsonl").splitlines()[-1])
    assert row["kind"] == "ten-crop" and out[-1].startswith(f"top-1 error {row['top1']:.1f} %")
    assert out[-2].startswith("center: top-1 error ")


def test_a_new_last_layer_and_frozen_ones(trained, tmp_path, capsys):
    draw(tmp_path / "other" / "train", 6, classes=("hen", "cow"))
    draw(tmp_path / "other" / "val", 2, classes=("hen", "cow"))
    assert call("--data", "other", *SMALL, "--max-steps", 3, "--init-from", trained,
                "--freeze", "conv1,conv2", "--output-dir", "a") == 0
    assert "; the last layer begins anew" in capsys.readouterr().out
    before, after = (restore.part(restore.read(path)[1], "model") for path in (trained, "a"))
    same = {name for name in after if np.array_equal(before[name], after[name])}
    assert same == {f"towers.{t}.{layer}.{part}" for t in (0, 1) for layer in ("conv1", "conv2")
                    for part in ("weight", "bias")}
    assert after["fc8.weight"].shape[0] == 2
    assert call("--data", "other", *SMALL, "--max-steps", 3, "--init-from", trained, "--finetune",
                "--output-dir", "b") == 0
    tuned = restore.part(restore.read("b")[1], "model")
    assert {name for name in tuned if not np.array_equal(before[name], tuned[name])} == {
        "fc8.weight", "fc8.bias"}
    # frozen stays frozen, and --init-from is not done twice
    assert call("--resume", "b", "--max-steps", 5) == 0
    again = restore.part(restore.read("b")[1], "model")
    assert not np.array_equal(again["fc8.weight"], tuned["fc8.weight"])
    assert all(np.array_equal(again[name], tuned[name]) for name in tuned if "fc8" not in name)


def test_two_logical_devices_are_announced_and_train_to_the_same_weights(data, trained, capsys):
    capsys.readouterr()
    assert call("--data", data, *SMALL, "--epochs", 2, "--gpus", "0,1", "--backend", "numpy",
                "--output-dir", "a") == 0
    out = capsys.readouterr().out
    assert "--gpus 0,1 under numpy: the logical devices cpu:0, cpu:1" in out
    assert "mini (paper) on cpu:0, cpu:1" in out
    one, two = (restore.part(restore.read(path)[1], "model") for path in (trained, "a"))
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_dry_run_needs_no_data_and_writes_nothing(tmp_path, data, capsys):
    assert call("--dry-run", "--model", "mini", "--batch-size", 4, "--gpus", "0,1",
                "--backend", "numpy") == 0
    out = capsys.readouterr().out
    assert "645,488 parameters" in out and "ln 16 = 2.773" in out and "cpu:1" in out
    assert "nothing was written" in out
    assert call("--dry-run", "--model", "18pct", "--batch-size", 4, "--data", data) == 0
    assert "ln 3 = 1.099" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


# ---- mistakes: one line, exit code 2, no traceback, nothing left behind

@pytest.mark.parametrize("args, message", [
    (["--batch-size", "0"], "--batch-size: 0 is not a whole number of 1 or more"),
    (["--batch-size", "1.5"], "--batch-size: 1.5 is not a whole number of 1 or more"),
    (["--lr", "nan"], "--lr: nan is not a number above 0"),
    (["--lr", "inf"], "--lr: inf is not a number above 0"),
    (["--lr", "0"], "--lr: 0 is not a number above 0"),
    (["--momentum", "-1"], "--momentum: -1 is not a number of 0 or more"),
    (["--dropout", "1"], "--dropout: 1 is not a number of 0 or more and below 1"),
    (["--epochs", "many"], "--epochs: many is not a whole number"),
    (["--seed", "-3"], "--seed: -3 is not"),
    (["--model", "vgg"], "--model: invalid choice: 'vgg'.*alexnet.*mini"),
    (["--variant", "2013"], "--variant: got '2013'; choose one of paper, source2012"),
    (["--variant", "caffe", "--gpus", "0,1", "--model", "alexnet"], "--variant 'caffe'"),
    (["--variant", "source2012", "--model", "80sec"], "--model 80sec has no variants"),
    (["--model", "80sec", "--gpus", "0,1", "--backend", "numpy"], "one tower.*got 2 device"),
    (["--image-size", "65"], "image_size is 65; expected one of"),
    (["--gpus", "0,,x", "--backend", "numpy"], "--gpus 0,,x: expected one number or two"),
    (["--gpus", "-1"], "--gpus -1: expected one number or two|expected one argument"),
    (["--gpus", "0,1,2", "--backend", "numpy"], "--gpus 0,1,2: expected one number or two"),
    (["--gpus", "1.5"], "--gpus 1.5: expected"),
    (["--gpu-memory", "0"], "--gpu-memory: 0 is not a number above 0"),
    (["--gpu-memory", "4GiB"], "--gpu-memory: 4GiB is not a number above 0"),
    (["--backend", "torch"], "--backend: invalid choice: 'torch'"),
    (["--data", "nowhere"], "--data '.*nowhere': no such folder"),
    (["--lr-epochs", "3,x"], "--lr-epochs: x is not a number above 0"),
    (["--init", "he"], "init: got 'he'; mini has one start"),
    (["--input-scale", "0"], "--input-scale: 0 is not a number above 0"),
    (["--resume", "nothing.safetensors"], "nothing.safetensors: there is no such file"),
    (["--resume", "."], "there is no checkpoint in this folder"),
    (["--init-from", "nothing"], "nothing: there is no such file"),
    (["--freeze", "conv9"], "no layer 'conv9'; choose of conv1, conv2"),
    (["--freeze", "but-last,fc8"], "no layer is left to learn"),
    (["--num-classes", "7"], "--num-classes 7: shapes has 16"),
    (["--test-only"], "--test-only needs a checkpoint"),
    (["--test-only", "--resume", "auto"], "there is no checkpoint to test"),
    (["--average", "a", "b"], "--average only measures: add --test-only"),
    (["--test-only", "--average", "a"], "a: there is no such file"),
    (["--resume", "auto", "--init-from", "a"], "--init-from begins a run, --resume goes on"),
    (["--resume", "a", "--dry-run"], "--dry-run shows a new run: leave --resume out"),
    (["--speling"], "unrecognized arguments: --speling"),
    (["--output-dir", "/proc/nothing/here"], "cannot write to /proc/nothing/here"),
])
def test_a_mistake_is_one_line(args, message, capsys, tmp_path):
    assert re.search(message, fails(capsys, *args))
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "runs"])


def test_folders_that_hold_no_data_set(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no class folders" in fails(capsys, "--data", "empty")
    draw(tmp_path / "one" / "train", 2, classes=("cat",))
    assert "one class only ('cat'" in fails(capsys, "--data", "one")
    (tmp_path / "file").write_text("")
    assert "cannot write to file" in fails(capsys, "--output-dir", "file")
    assert "cannot write to file/x" in fails(capsys, "--output-dir", "file/x")


@pytest.mark.parametrize("name", ["cifar10", "tinyimagenet"])
def test_a_data_set_that_may_not_be_fetched(name, capsys, tmp_path, monkeypatch):
    """It goes by its name, which is no path."""
    for variable, value in [("HOME", tmp_path), ("TINYALEX_DATA", "own"), ("TINYALEX_OFFLINE", 1)]:
        monkeypatch.setenv(variable, str(value))
    line = fails(capsys, "--data", name)
    assert f"--data '{name}': not found in own, data, {tmp_path}/.cache/tinyalex, and TINY" in line


@pytest.mark.skipif(device_count() > 0, reason="this machine has a GPU, so nothing is missing")
def test_cupy_without_cupy_or_a_driver_says_what_to_do(capsys):
    text = fails(capsys, "--backend", "cupy")
    assert "CuPy" in text and ("pip install" in text or "doctor" in text)


def test_which_devices_the_flags_mean(monkeypatch):
    monkeypatch.setattr(console, "Device", namedtuple("Device", "name"))
    for gpus, backend, count, expected in [
            (None, None, 0, ["cpu:0"]), (None, None, 2, ["cuda:0"]), ("1", "auto", 2, ["cuda:1"]),
            ("0,1", "auto", 0, ["cpu:0", "cpu:1"]), ("0,1", None, 2, ["cuda:0", "cuda:1"]),
            ("0,0", "cupy", 1, ["cuda:0", "cuda:0#1"]), (" 1, 0", "cupy", 2, ["cuda:1", "cuda:0"]),
            ("0,1", "numpy", 2, ["cpu:0", "cpu:1"])]:
        monkeypatch.setattr(console, "device_count", lambda count=count: count)
        devices, note = console.choose_devices(backend, gpus)
        assert [device.name for device in devices] == expected
        assert bool(note) == (gpus is not None and expected[0].startswith("cpu"))


class Limited(namedtuple("Device", "name")):
    """A card of 8 GiB that remembers how much of them it may hold."""

    limits = {}

    def memory(self):
        return {"total_bytes": 8 * 2**30}

    def limit_memory(self, nbytes):
        self.limits[self.name] = nbytes


def test_each_gpu_is_limited_and_no_cpu_is(monkeypatch, capsys):
    monkeypatch.setattr(console, "Device", Limited)
    monkeypatch.setattr(console, "device_count", lambda: 2)
    _, note = console.choose_devices("cupy", "0,1", gpu_memory=1.5)
    assert Limited.limits == {"cuda:0": 1.5 * 2**30, "cuda:1": 1.5 * 2**30} and note == ""
    Limited.limits.clear()
    assert console.choose_devices(None, "0")[1] == "" and Limited.limits == {}
    with pytest.raises(console.Mistake, match=r"^--gpu-memory 8.1: cuda:0 has 8.00 GiB$"):
        console.choose_devices("cupy", gpu_memory=8.1)
    assert Limited.limits == {}
    notes = [console.choose_devices("numpy", gpus, gpu_memory=2)[1] for gpus in (None, "1")]
    text = "--gpu-memory 2 under numpy: there is no GPU to limit"
    assert notes == [text, f"--gpus 1 under numpy: the logical device cpu:1; {text}"]
    monkeypatch.undo()
    assert call("--dry-run", "--batch-size", 1, "--backend", "numpy", "--gpu-memory", 2) == 0
    assert capsys.readouterr().out.startswith(text + "\n")


def test_checkpoints_of_something_else(data, trained, tmp_path, capsys):
    for flag, value, old in (("--model", "80sec", "mini"), ("--variant", "source2012", "paper"),
                             ("--image-size", "64", "32"), ("--batch-size", "7", "6"),
                             ("--seed", "5", "0")):
        text = fails(capsys, "--resume", trained, flag, value)
        assert f"{flag} {value}: " in text and f"with {flag} {old}, which cannot change" in text
    draw(tmp_path / "other" / "train", 6, classes=("hen", "cow"))
    draw(tmp_path / "other" / "val", 2, classes=("hen", "cow"))
    assert "other classes: 3 there, 2 here" in fails(capsys, "--resume", trained, "--data", "other")
    text = fails(capsys, "--test-only", "--resume", trained, "--data", "other")
    assert "knows 3 classes" in text
    text = fails(capsys, "--init-from", trained, "--model", "80sec", "--data", data)
    assert "do not fit this net" in text and "only the last layer" in text
    assert "already holds a run" in fails(capsys, "--data", data, *SMALL, "--output-dir", trained)
    (tmp_path / "cat.png").write_bytes(b"\x89PNG" + bytes(99))
    assert "cat.png: not a safetensors file" in errors_of(capsys, "--resume", "cat.png")


def errors_of(capsys, *args):
    assert call(*args) == 2
    return capsys.readouterr().err


def test_a_rate_that_is_too_high_stops_with_advice(data, capsys):
    assert call("--data", data, *SMALL, "--lr", "1e6", "--output-dir", "a") == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r"train_imagenet.py: the loss became (nan|inf) in step \d; there is no "
                        r"checkpoint yet. Most often the learning rate is too high: try\n"
                        r"  --lr 100000\n", err)
    assert not Path("a/checkpoints").exists()
    assert call("--data", data, *SMALL, "--max-steps", 2, "--output-dir", "b") == 0
    assert call("--resume", "b", "--max-steps", 9, "--lr", "1e6") == 1
    err = capsys.readouterr().err
    assert "the last good checkpoint is b/checkpoints/step-000002-" in err
    assert re.search(r"\n  .*--resume b/checkpoints/step-000002-\w+.safetensors --lr \d+\n$", err)


def test_too_little_memory_is_one_line(capsys, monkeypatch):
    def greedy(args):
        raise MemoryError("Unable to allocate 3.64 TiB")

    monkeypatch.setattr(program, "dry_run", greedy)
    assert call("--dry-run") == 1
    assert capsys.readouterr().err == ("train_imagenet.py: out of memory (Unable to allocate "
                                       "3.64 TiB); a smaller batch needs less\n")


def full(name="cpu:0", total=2e9, limit=None):
    """What a card raises that has no room; the nets of these tests live on the CPU."""
    memory = {"used_bytes": 3e6, "held_bytes": 5e6, "limit_bytes": limit, "total_bytes": total}
    return OutOfMemory(SimpleNamespace(name=name, memory=lambda: memory), f"{name}: no room")


def fill_up(monkeypatch, step, error):
    """Let the card be full when a Trainer is about to make a step."""
    def train_on(self, batch):
        if self.step == step - 1:
            raise error
        MAKE_STEP(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", train_on)


def test_a_batch_that_does_not_fit_a_gpu_is_a_mistake(data, tmp_path, capsys, monkeypatch):
    net = models.mini(3, image_size=32)
    table = models.summary(net)
    fill_up(monkeypatch, 1, full(total=table.memory(6) - 1, limit=table.memory(4)))
    text = fails(capsys, "--data", data, *SMALL, "--output-dir", "a")
    assert text == ("train_imagenet.py: --batch-size 6: does not fit cpu:0, which has 0.01 GiB, of "
                    "which 0.01 may be used; the largest that would is about 4\n")
    assert list(tmp_path.iterdir()) == []                # no run was left behind
    fill_up(monkeypatch, 3, full())
    assert call("--data", data, *SMALL, "--output-dir", "a", "--save-freq", 1) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r"train_imagenet.py: --batch-size 6: does not fit cpu:0, which has 1.86 "
                        r"GiB; the largest that would is about 3; the last good checkpoint "
                        r"is a/checkpoints/step-000002-\w+.safetensors\n", err)
    # gone on with, it fails at the start: nothing more is lost
    assert "--batch-size 6: does not fit" in fails(capsys, "--resume", "a")
    assert checkpoint.load_newest("a/checkpoints")[2]["step"] == 2


def test_a_dry_run_tells_what_fits_too(capsys, monkeypatch):
    def no_room(logits, labels):
        raise full(total=1e6)

    monkeypatch.setattr(program.F, "cross_entropy", no_room)
    assert call("--dry-run", "--batch-size", 512) == 2
    assert capsys.readouterr().err == (
        "train_imagenet.py: --batch-size 512: does not fit cpu:0, which has 0.00 GiB; not even one "
        "picture would: a smaller --model, or --gpus 0,1, needs less\n")


def test_a_pool_is_told_of_in_megabytes():
    assert program.pool(full("cuda:0", 8e9).device) == "cuda:0: 3 MB in use and 5 MB held, of " \
                                                       "8,000 MB"
    assert program.pool(full("cuda:1", 8e9, 1e9).device).endswith("of 1,000 MB")


def test_what_fits_is_counted_for_the_card_that_is_full():
    table = models.summary(models.mini(image_size=32, devices=("cpu:0", "cpu:1")))
    first, second = (table.memory(100, [name]) for name in ("cpu:0", "cpu:1"))
    assert first > second
    for name, total, fits in (("cpu:0", first, 100), ("cpu:1", second, 100), ("cpu:0", second, 99)):
        assert f"is about {fits}" in options.too_large(full(name, total), table, 128)
    rows = [{**row, "device": {"cpu:0": "cuda:0", "cpu:1": "cuda:0#1"}[row["device"]]}
            for row in table.rows]
    one_card = models.summary(models.mini(image_size=32))
    for name in ("cuda:0", "cuda:0#1"):                  # both towers share its memory
        text = options.too_large(full(name, one_card.memory(100)),
                                 dataclasses.replace(table, rows=rows), 128)
        assert "is about 100" in text


def test_a_gpu_that_is_full_elsewhere_is_one_line(capsys, monkeypatch):
    def no_room(*args):
        raise full("cuda:0")

    monkeypatch.setattr(program.options, "build", no_room)
    assert fails(capsys, "--dry-run") == "train_imagenet.py: cuda:0: no room\n"


def test_ctrl_c_before_the_first_step_leaves_nothing(data, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "Trainer", interrupted)
    assert call("--data", data, *SMALL, "--output-dir", "a") == console.INTERRUPTED
    assert capsys.readouterr().err == "train_imagenet.py: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_flag_of_the_design(capsys):
    with pytest.raises(SystemExit) as ended:
        call("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in ("data model variant backend gpus batch-size lr bias-lr momentum weight-decay "
                 "epochs seed output-dir resume dry-run image-size max-steps workers print-freq "
                 "test-only tf32 gpu-memory").split():
        assert f"--{flag} " in text or f"--{flag}\n" in text


# ---- the real thing, in a process of its own

def start(*args, **how):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, args)], text=True, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


LONG = [*SMALL, "--epochs", "6", "--save-freq", "2"]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert call("--data", data, *LONG, "--output-dir", run) == 0
    return run


def newest(run):
    return open_text(Path(run) / "checkpoints" / "LATEST")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_command_it_names_goes_on(data, uninterrupted, number):
    process = start("--data", data, *LONG, "--output-dir", "run")
    wait_for(lambda: Path("run/checkpoints/LATEST").exists(), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    words = shlex.split(out.splitlines()[-1])
    assert words == [sys.executable, str(SCRIPT), "--resume", "run"]
    again = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
                           capture_output=True, timeout=60)
    assert again.returncode == 0 and "going on after step" in again.stdout, again.stderr
    assert newest("run") == newest(uninterrupted)      # the hash of weights, velocities and all


def test_a_killed_run_goes_on_to_the_same_weights(data, uninterrupted):
    process = start("--data", data, *LONG, "--output-dir", "run")
    wait_for(lambda: Path("run/checkpoints/LATEST").exists()
             and len(open_text("run/log.jsonl").splitlines()) > 4, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert call("--resume", "run") == 0
    assert newest("run") == newest(uninterrupted)
    rows = [[json.loads(line) for line in open_text(Path(run) / "log.jsonl").splitlines()]
            for run in ("run", uninterrupted)]
    for row in rows[0] + rows[1]:
        row.pop("images_per_s", None)
        row.pop("waiting_for_data", None)
    assert rows[0] == rows[1]


def test_a_closed_pipe_is_quiet():
    with start("--dry-run", "--batch-size", "1") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == console.PIPE_CLOSED


@pytest.mark.slow
def test_the_default_run_learns_the_shapes(tmp_path):
    """The median error over five seeds is at most 5 %."""
    errors = []
    for seed in range(5):
        process = start("--seed", seed)
        out, err = process.communicate()
        assert process.returncode == 0, err
        errors.append(float(re.fullmatch(r"top-1 error (\S+) %, top-5 error \S+ %",
                                         out.splitlines()[-1])[1]))
    print(errors)
    assert sorted(errors)[2] <= 5.0, errors
    rows = [json.loads(line) for line in open_text("runs/shapes-mini/log.jsonl").splitlines()]
    assert f"{rows[-1]['top1']:.1f}" == f"{errors[0]:.1f}"
    assert all(f"runs/shapes-mini-{n}" in str(list(Path("runs").iterdir())) for n in range(2, 6))
