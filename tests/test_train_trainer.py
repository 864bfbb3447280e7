"""The loop: what it writes, when it stops, and that it goes on to the same bits."""
import contextlib
import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny_runs
from test_data_crops import card  # noqa: F401  (a fixture)
from tiny_runs import EPOCH, RECIPE

import tinyalex as ta
from tinyalex import nn
from tinyalex.data import BrokenPicture, disk
from tinyalex.train import checkpoint, progress, restore, trainer as trainer_module
from tinyalex.train.checkpoint import CheckpointError, load
from tinyalex.train.evaluate import Score
from tinyalex.train.progress import Stop, StuckWatch
from tinyalex.train.rundir import RunNote
from tinyalex.train.trainer import Diverged


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    t = tiny_runs.trainer(folder)
    score = t.fit()
    return folder, score


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Drawing takes longer than these runs; only `whole`, made before, has its pictures."""
    monkeypatch.setattr(trainer_module.Trainer, "_draw", lambda self, finished: None)


def at_step(t, step, action):
    """Let a Trainer do `action()` when it has made so many steps."""
    before = t._train_on

    def after(batch):
        before(batch)
        if t.step == step:
            action()

    t._train_on = after
    return t


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_leaves_its_log_its_pictures_and_its_checkpoints(whole):
    folder, score = whole
    assert sorted(os.listdir(folder)) == [
        "checkpoints", "curves.png", "filters.png", "log.jsonl", "predictions.png"]
    rows = tiny_runs.log(folder)
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("train", 2), ("train", 4), ("train", 5), ("val", 5),
        ("train", 6), ("train", 8), ("train", 10), ("val", 10),
        ("train", 12), ("train", 14), ("train", 15), ("val", 15)]
    assert all({"epoch", "loss", "top1", "top5", "lr"} < row.keys() for row in rows)
    assert [row["epoch"] for row in rows if row["kind"] == "val"] == [1, 2, 3]
    assert {key: rows[-1][key] for key in ("loss", "top1", "top5")} == score.row()
    for name in ("curves.png", "filters.png", "predictions.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_it_learns(whole):
    rows = [row for row in tiny_runs.log(whole[0]) if row["kind"] == "val"]
    assert rows[0]["loss"] > rows[1]["loss"] > rows[2]["loss"]
    assert rows[2]["top1"] < 34                       # chance is 66.7


def test_the_rate_falls_at_its_share_of_the_run(whole):
    rates = {row["step"]: row["lr"] for row in tiny_runs.log(whole[0])}
    assert rates[8] == 0.01 and rates[10] == pytest.approx(0.001)      # round(0.7 * 15) = 10
    assert rates[15] == pytest.approx(0.001)


def test_the_same_run_gives_the_same_files(whole, tmp_path):
    tiny_runs.trainer(tmp_path / "again", workers=3).fit()
    assert tiny_runs.saved(tmp_path / "again") == tiny_runs.saved(whole[0])
    assert tiny_runs.log(tmp_path / "again") == tiny_runs.log(whole[0])
    tiny_runs.trainer(tmp_path / "other", seed=1).fit()
    assert tiny_runs.saved(tmp_path / "other")[-1] != tiny_runs.saved(whole[0])[-1]


def go_on(folder, **settings):
    """Resume in a process that remembers nothing: another seed, another net, other random draws."""
    ta.manual_seed(99)
    _, arrays, meta = restore.read(folder)
    return tiny_runs.trainer(folder, resume=(arrays, meta), seed=meta["random"]["seed"],
                             net=tiny_runs.net(), **settings)


@pytest.mark.parametrize("step", [1, 3, EPOCH, 7, 2 * EPOCH, 12, 14])
def test_resuming_after_ctrl_c_ends_with_the_same_bits(whole, tmp_path, step, capfd):
    folder = tmp_path / "run"
    assert at_step(tiny_runs.trainer(folder), step, interrupt).fit() is None
    assert "finishing this step, then saving" in capfd.readouterr().err
    assert checkpoint.load_newest(folder / "checkpoints")[2]["step"] == step
    assert go_on(folder).fit() == whole[1]
    # The last file's name holds the hash of weights, velocities, schedule, random state, ...
    assert tiny_runs.saved(folder)[-1] == tiny_runs.saved(whole[0])[-1]
    assert tiny_runs.log(folder) == tiny_runs.log(whole[0])


def test_resuming_again_and_again_ends_with_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    at_step(tiny_runs.trainer(folder), 2, interrupt).fit()
    for step in (4, 5, 9, 10, 11):
        assert at_step(go_on(folder), step, interrupt).fit() is None
    assert go_on(folder).fit() == whole[1]
    assert tiny_runs.saved(folder)[-1] == tiny_runs.saved(whole[0])[-1]
    assert tiny_runs.log(folder) == tiny_runs.log(whole[0])


def test_ctrl_c_within_a_validation_loses_nothing(whole, tmp_path):
    folder = tmp_path / "run"
    t = tiny_runs.trainer(folder)
    before = t.val_loader.batches
    t.val_loader.batches = lambda epoch: (interrupt(), before(epoch))[1]
    assert t.fit() is None
    meta = restore.read(folder)[2]
    assert (meta["step"], meta["validated"]) == (EPOCH, 0)
    assert [row["kind"] for row in tiny_runs.log(folder)] == ["train"] * 3
    assert go_on(folder).fit() == whole[1]
    assert tiny_runs.saved(folder)[-1] == tiny_runs.saved(whole[0])[-1]
    assert tiny_runs.log(folder) == tiny_runs.log(whole[0])


class Killed(BaseException):
    """Stands in for a power cut: nothing is saved on the way out."""


# Saved are the steps 3, 5, 6, 9, 10, 12 and 15; the cut comes just before its own step is.
@pytest.mark.parametrize("step, last", [(4, 3), (6, 5), (9, 6), (13, 12)])
def test_resuming_from_an_older_checkpoint_repeats_what_was_lost(whole, tmp_path, step, last):
    folder = tmp_path / "run"

    def kill():
        raise Killed

    with pytest.raises(Killed):
        at_step(tiny_runs.trainer(folder, save_freq=3), step, kill).fit()
    assert checkpoint.load_newest(folder / "checkpoints")[2]["step"] == last
    assert go_on(folder, save_freq=3).fit() == whole[1]
    assert tiny_runs.saved(folder)[-1] == tiny_runs.saved(whole[0])[-1]
    assert tiny_runs.log(folder) == tiny_runs.log(whole[0])


def test_a_finished_run_resumed_stays_as_it_is(whole, tmp_path):
    folder = tmp_path / "run"
    tiny_runs.trainer(folder).fit()
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.suffix != ".png"}
    assert go_on(folder).fit() == whole[1]
    assert {path: path.read_bytes() for path in before} == before


def test_a_longer_run_goes_on(whole, tmp_path):
    folder = tmp_path / "run"
    tiny_runs.trainer(folder).fit()
    t = go_on(folder, steps=17)
    assert t.step == 15 and t.fit().pictures == 10
    assert tiny_runs.log(folder)[-1]["step"] == 17


# ---- the validation error and the rate

def test_the_rate_falls_when_the_validation_error_stops_improving(tmp_path, monkeypatch):
    #        best  best  1 bad  2 bad: falls   best  1 bad  2 bad: falls
    errors = [50.0, 40.0, 40.0, 41.0,          39.0, 39.0, 39.0,      39.0]
    rates = [1e-2, 1e-2, 1e-2, 1e-2,           1e-3, 1e-3, 1e-3,      1e-4]
    scores = iter(Score(1.0, error, 0.0, 10) for error in errors)
    monkeypatch.setattr(trainer_module, "measure", lambda net, batches, ranks: next(scores))
    recipe = dataclasses.replace(RECIPE, plateau=1, milestones=(), epochs=8)
    t = tiny_runs.trainer(tmp_path / "run", recipe=recipe)
    t.fit()
    rows = [row for row in tiny_runs.log(t.run.path) if row["kind"] == "val"]
    assert [row["lr"] for row in rows] == pytest.approx(rates)
    assert [row["top1"] for row in rows] == errors
    assert t.best == 39.0
    best = (t.run.checkpoints / "BEST").read_text().split()[1]
    assert checkpoint.step_of(best) == 5 * EPOCH and (t.run.checkpoints / best).exists()


def test_the_rate_falls_after_listed_epochs_instead(tmp_path):
    recipe = dataclasses.replace(RECIPE, plateau=None, milestones=(0.1,), lr_epochs=(1, 2.0))
    t = tiny_runs.trainer(tmp_path / "run", recipe=recipe)
    t.fit()
    rates = {row["step"]: row["lr"] for row in tiny_runs.log(t.run.path)}
    assert [rates[step] for step in (EPOCH - 1, EPOCH, 2 * EPOCH)] == pytest.approx(
        [1e-2, 1e-3, 1e-4])


def test_without_augmentation_training_sees_centers(tmp_path):
    t = tiny_runs.trainer(tmp_path / "run", recipe=dataclasses.replace(RECIPE, augment=False))
    for batch in t.loader.batches(0):
        pictures = [t.train.picture(i) for i in t.loader.order(0)[:len(batch.rows)]]
        assert np.array_equal(batch.images, t.augment.center(pictures))
        break
    t.run.close()


def test_a_plateau_and_the_best_are_remembered_over_a_resume(tmp_path, monkeypatch):
    errors = [50.0, 40.0, 45.0, 45.0, 45.0]            # falls after the fourth
    monkeypatch.setattr(trainer_module, "measure",
                        lambda net, batches, ranks: Score(1.0, scores.pop(0), 0.0, 10))
    recipe = dataclasses.replace(RECIPE, plateau=1, milestones=(), epochs=5)
    scores = list(errors)
    tiny_runs.trainer(tmp_path / "whole", recipe=recipe).fit()
    scores = list(errors)
    at_step(tiny_runs.trainer(tmp_path / "run", recipe=recipe), 11, interrupt).fit()
    go_on(tmp_path / "run", recipe=recipe).fit()
    assert tiny_runs.saved(tmp_path / "run")[-1] == tiny_runs.saved(tmp_path / "whole")[-1]
    rates = [row["lr"] for row in tiny_runs.log(tmp_path / "run") if row["kind"] == "val"]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001])
    best = checkpoint.pointed(tmp_path / "run" / "checkpoints", "BEST")
    assert checkpoint.step_of(best) == 10 and load(best)[1]["best"] == 40.0


# ---- trouble

def poison(t):
    weight = next(t.net.parameters())
    weight.data[0] = np.nan


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    t = tiny_runs.trainer(tmp_path / "run")
    with pytest.raises(Diverged, match=r"the loss became nan in step 8; the last good checkpoint "
                                       r"is .*step-000005-.*safetensors$"):
        at_step(t, 7, lambda: poison(t)).fit()
    (name,) = tiny_runs.saved(tmp_path / "run")
    arrays, meta = load(tmp_path / "run" / "checkpoints" / name)
    assert meta["step"] == 5 and all(np.isfinite(a).all() for a in arrays.values())
    assert all(np.isfinite(row["loss"]) for row in tiny_runs.log(tmp_path / "run"))


def test_nan_that_only_the_validation_or_the_weights_show_is_not_saved(tmp_path):
    t = tiny_runs.trainer(tmp_path / "validation")
    with pytest.raises(Diverged, match="nan in the validation after step 5; there is no check"):
        at_step(t, EPOCH, lambda: poison(t)).fit()
    assert tiny_runs.saved(tmp_path / "validation") == []
    t = tiny_runs.trainer(tmp_path / "weights", save_freq=3)
    with pytest.raises(Diverged, match="after step 3 model/0.weight holds NaN or infinity"):
        at_step(t, 3, lambda: poison(t)).fit()
    assert tiny_runs.saved(tmp_path / "weights") == []


def test_infinity_stops_too(tmp_path):
    recipe = dataclasses.replace(RECIPE, lr=1e30)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="the loss became (inf|nan)"):
        tiny_runs.trainer(tmp_path / "run", recipe=recipe).fit()
    assert tiny_runs.saved(tmp_path / "run") == []


def test_a_loss_that_stays_at_ln_of_the_classes_is_explained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "STUCK_STEPS", 6)
    net = tiny_runs.net()
    for p in net.parameters():
        p.data[:] = 0                    # and so are all gradients but the last biases'
    recipe = dataclasses.replace(RECIPE, lr=1e-9)
    with pytest.warns(RunNote) as notes:
        tiny_runs.trainer(tmp_path / "run", net=net, recipe=recipe).fit()
    assert len(notes) == 1
    text = str(notes[0].message)
    assert "stood at 1.099 for 6 steps; ln(3) = 1.099" in text
    assert "initial weights" in text and "learning rate" in text and "labels" in text


def test_a_healthy_run_is_not_scolded(recwarn):
    watch = StuckWatch(np.arange(160) % 16, 16)
    for step, loss in [(50, 3.1), (100, 2.9), (150, 2.78), (200, 2.77), (250, 2.77), (300, 2.6),
                       (350, 2.77), (400, 2.77), (450, 2.77)]:
        watch.look(step, loss, 0.01)
    assert not recwarn.list
    with pytest.warns(RunNote, match=r"ln\(16\) = 2.773"):
        watch.look(500, 2.775, 0.01)


def test_unequal_classes_have_a_lower_loss_to_be_stuck_at():
    watch = StuckWatch(np.array([0] * 9 + [1]), 2)
    assert watch.blank == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)))
    with pytest.warns(RunNote):
        watch.look(200, 0.325, 0.01)


def test_a_full_disk_warns_goes_on_and_fails_only_at_the_end(tmp_path, monkeypatch):
    real, full = open, [True]

    def refuse(path, mode):
        if full[0] and "step-" in os.fspath(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode)

    monkeypatch.setattr(disk, "open", refuse, raising=False)
    t = tiny_runs.trainer(tmp_path / "run")
    with pytest.warns(RunNote) as notes, \
            pytest.raises(CheckpointError, match="step-000015.*No space left on device"):
        t.fit()
    found = [re.search("step-0000(..)-.*No space left.*goes on; there is no", str(note.message))
             for note in notes]
    assert [match[1] for match in found] == ["05", "10", "15"]
    assert t.step == 15 and tiny_runs.saved(tmp_path / "run") == []
    full[0] = False
    with pytest.warns(RunNote):
        t = tiny_runs.trainer(tmp_path / "freed")
        full[0] = True
        at_step(t, 7, lambda: full.__setitem__(0, False)).fit()
    assert len(tiny_runs.saved(tmp_path / "freed")) == 2


class Broken(type(tiny_runs.dataset(1))):
    """Some pictures cannot be read."""

    broken = range(0)

    def picture(self, i):
        if i in self.broken:
            raise BrokenPicture(self.name(i), "is damaged")
        return super().picture(i)


def with_broken(count, broken, seed=0):
    plain = tiny_runs.dataset(count, seed)
    data = Broken(plain.pictures, plain.labels, plain.classes, name="pets")
    data.broken = broken
    return data


def test_broken_pictures_are_named_counted_and_never_fatal(tmp_path, capsys):
    t = tiny_runs.trainer(tmp_path / "run", train=with_broken(16, [3, 11]),
                          val=with_broken(10, [4], seed=1))
    score = t.fit()
    assert score.pictures == 9 and t.step == 6
    assert t.skipped == {"pets[3]: is damaged", "pets[11]: is damaged", "pets[4]: is damaged"}
    assert capsys.readouterr().out.count("left out: pets[3]: is damaged") == 1


def test_a_batch_of_nothing_but_broken_pictures_is_passed_over(tmp_path):
    recipe = dataclasses.replace(RECIPE, batch_size=2, epochs=1)
    data = with_broken(8, [])
    t = tiny_runs.trainer(tmp_path / "run", recipe=recipe, train=data, print_freq=1)
    data.broken = t.loader.order(0)[2:4]               # all of the second batch
    t.fit()
    assert t.step == 4
    assert [row["step"] for row in tiny_runs.log(t.run.path) if row["kind"] == "train"] == [1, 3, 4]


# ---- results that are read one step late, as a GPU's are

def late(t):
    """Let a Trainer work as it does for a GPU: bytes to the device, results a step late."""
    t.late = 1
    t.loader.device = t.val_loader.device = ta.Device("cpu:0")
    return t


def test_a_late_run_leaves_the_same_files(whole, tmp_path):
    t = late(tiny_runs.trainer(tmp_path / "run", workers=2))
    assert t.fit() == whole[1] and not t.unread
    assert tiny_runs.saved(tmp_path / "run") == tiny_runs.saved(whole[0])
    assert tiny_runs.log(tmp_path / "run") == tiny_runs.log(whole[0])


@pytest.mark.parametrize("step", [1, 3, EPOCH, 7, 14])
def test_a_late_run_resumes_to_the_same_bits(whole, tmp_path, step):
    at_step(late(tiny_runs.trainer(tmp_path / "run", print_freq=0, save_freq=3)), step,
            interrupt).fit()
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[2]["step"] == step
    assert late(go_on(tmp_path / "run", print_freq=0, save_freq=3)).fit() == whole[1]
    tiny_runs.trainer(tmp_path / "plain", print_freq=0, save_freq=3).fit()
    assert tiny_runs.saved(tmp_path / "run")[-1] == tiny_runs.saved(tmp_path / "plain")[-1]
    assert tiny_runs.log(tmp_path / "run") == tiny_runs.log(tmp_path / "plain")


class Slow(ta.Device):
    """A CPU that notes who waits for it. What is fetched is poison before that."""

    def _open(self):
        self.events, self.in_step = [], False

    def fetch(self, array):
        return Coming(self, array)

    def numpy(self, array):
        assert not self.in_step, "a step waits for the device"
        return array


class Coming:
    """An array under way; each step has two."""

    def __init__(self, device, array):
        self.device, self.right, self.host = device, array.copy(), np.full(array.shape, np.nan)
        self.step = sum(event.startswith("L") for event in device.events) // 2 + 1
        device.events.append(f"L{self.step}")           # launched

    def result(self):
        self.device.events.append(f"R{self.step}")      # read
        self.host[...] = self.right
        return self.host


def slow_run(folder, monkeypatch, **settings):
    """A Trainer for one epoch on a Slow device, and the device."""
    monkeypatch.setitem(ta.Device.kinds, "cpu", Slow)
    monkeypatch.setattr(ta.Device, "_interned", dict(ta.Device._interned))
    slow = ta.Device("cpu:6")
    slow.events.clear()
    ta.manual_seed(0)
    t = tiny_runs.trainer(folder, net=tiny_runs.net().to(slow), steps=EPOCH, **settings)
    before = t._train_on

    def step(batch):
        slow.in_step = True
        before(batch)
        slow.in_step = False

    t._train_on = step
    return t, slow


@pytest.mark.parametrize("print_freq, save_freq, expected", [
    (0, 0, "L1 L2 R1 L3 R2 L4 R3 L5 R4 R5"),
    (2, 0, "L1 L2 R1 R2 L3 L4 R3 R4 L5 R5"),            # all is read before a row of the log
    (0, 3, "L1 L2 R1 L3 R2 R3 L4 L5 R4 R5")])           # and before a checkpoint
def test_no_step_waits_for_the_device(tmp_path, monkeypatch, print_freq, save_freq, expected):
    settings = {"print_freq": print_freq, "save_freq": save_freq}
    t, slow = slow_run(tmp_path / "run", monkeypatch, **settings)
    t.late = 1
    t.fit()
    assert list(dict.fromkeys(slow.events)) == expected.split()
    at_once, slow = slow_run(tmp_path / "at once", monkeypatch, **settings)
    at_once.fit()
    assert list(dict.fromkeys(slow.events)) == "L1 R1 L2 R2 L3 R3 L4 R4 L5 R5".split()
    assert tiny_runs.log(tmp_path / "run") == tiny_runs.log(tmp_path / "at once")
    assert tiny_runs.saved(tmp_path / "run") == tiny_runs.saved(tmp_path / "at once")


def test_only_a_gpu_is_read_late_and_given_bytes(tmp_path, card):  # noqa: F811
    for device, kind in (("cpu:1", None), (card, card)):
        t = tiny_runs.trainer(tmp_path / str(device), net=tiny_runs.net().to(device))
        assert (t.late, t.loader.device, t.val_loader.device) == (bool(kind), kind, kind)
        t.run.close()


def test_every_device_there_is_trains_alike(whole, tmp_path, device):
    ta.manual_seed(0)
    t = tiny_runs.trainer(tmp_path / "run", net=tiny_runs.net().to(device))
    assert t.late == (device.kind == "cuda")
    t.fit()
    for row, right in zip(tiny_runs.log(tmp_path / "run"), tiny_runs.log(whole[0]), strict=True):
        assert row.keys() == right.keys() and row["step"] == right["step"]
        assert row["loss"] == pytest.approx(right["loss"], rel=1e-3)


def test_nan_is_found_a_step_late_and_before_anything_is_saved(tmp_path):
    t = late(tiny_runs.trainer(tmp_path / "run", print_freq=0))
    with pytest.raises(Diverged, match=r"became nan in step 8; the last good checkpoint is .*05-"):
        at_step(t, 7, lambda: poison(t)).fit()
    assert t.step == 8                                   # the ninth step was launched by then
    t = late(tiny_runs.trainer(tmp_path / "saving", print_freq=0, save_freq=3))
    with pytest.raises(Diverged, match="the loss became nan in step 3; there is no checkpoint"):
        at_step(t, 2, lambda: poison(t)).fit()
    assert tiny_runs.saved(tmp_path / "saving") == []
    t = late(tiny_runs.trainer(tmp_path / "logging", print_freq=3))
    with pytest.raises(Diverged, match="nan in step 3"):
        at_step(t, 2, lambda: poison(t)).fit()
    assert not (tmp_path / "logging").exists()           # no row was written


def test_a_late_run_passes_over_a_batch_of_broken_pictures(tmp_path):
    recipe = dataclasses.replace(RECIPE, batch_size=2, epochs=1)
    logs = []
    for name, how in (("plain", lambda t: t), ("late", late)):
        data = with_broken(8, [])
        t = how(tiny_runs.trainer(tmp_path / name, recipe=recipe, train=data, print_freq=3))
        data.broken = t.loader.order(0)[2:4]
        t.fit()
        logs.append(tiny_runs.log(t.run.path))
    assert logs[0] == logs[1] and len(logs[0]) == 3


# ---- other people's checkpoints

@pytest.mark.parametrize("change, message", [
    (dict(train=tiny_runs.dataset(37, classes=("a", "b"))), "other classes: 3 there, 2 here"),
    (dict(train=tiny_runs.dataset(37, classes=("a", "b", "c"))), "other class names"),
    (dict(train=tiny_runs.dataset(38)), "other pictures to train on: 37 there, 38 here"),
    (dict(recipe=dataclasses.replace(RECIPE, batch_size=4)), "pictures in a batch: 8 there, 4"),
    (dict(net=nn.Sequential(nn.Flatten(), nn.Linear(300, 3))), "another net: .*1.weight is"),
])
def test_a_checkpoint_of_something_else_is_refused(whole, tmp_path, change, message):
    _, arrays, meta = restore.read(whole[0])
    with pytest.raises(CheckpointError, match=message) as caught:
        tiny_runs.trainer(tmp_path / "run", resume=(arrays, meta), **change)
    assert "\n" not in str(caught.value)


def test_reading_takes_a_file_a_folder_or_a_run_and_offers_a_good_one(whole, tmp_path):
    path = restore.read(whole[0])[0]
    assert path.name == tiny_runs.saved(whole[0])[-1]
    assert restore.read(path)[2] == restore.read(path.parent)[2] == restore.read(whole[0])[2]
    for name in tiny_runs.saved(whole[0]):
        (tmp_path / name).write_bytes((path.parent / name).read_bytes())
    bad = tmp_path / path.name
    bad.write_bytes(bad.read_bytes()[:-9])
    good = tiny_runs.saved(whole[0])[0]
    with pytest.raises(CheckpointError, match=f"cut short.*a good one beside it is .*{good}"):
        restore.read(bad)


def test_a_newer_format_is_named(tmp_path):
    path = checkpoint.save(tmp_path, {}, {"step": 1, "format": 99})
    with pytest.raises(CheckpointError, match=r"newer tinyalex \(format 99, this one reads 1\)"):
        restore.read(path)


# ---- Ctrl-C itself

def test_stop_remembers_the_first_signal_and_gives_the_second_its_force_back(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with Stop() as stop:
            assert not stop.asked
            os.kill(os.getpid(), number)
            assert stop.asked
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "once more to quit at once" in capfd.readouterr().err


def test_a_run_on_another_thread_does_not_touch_signals(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        score = pool.submit(tiny_runs.trainer(tmp_path / "run", steps=2).fit).result()
    assert score.pictures == 10 and signal.getsignal(signal.SIGINT) is before


# ---- on a terminal

def test_the_bar_on_a_terminal_shows_rate_loss_and_time_left(tmp_path):
    """Elsewhere it is lines: see the log that tests capture."""
    pty = pytest.importorskip("pty")
    import fcntl
    import select
    import struct
    import termios

    code = ("import time\nfrom tinyalex.train.progress import Progress\n"
            "with Progress(total=40, done=10) as bar:\n"
            "    for _ in range(30):\n"
            "        bar.step('812 images/s, loss 1.234'); bar.row('a row'); time.sleep(0.02)\n"
            "    bar.say('epoch 1')\n")
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen([sys.executable, "-c", code], stderr=there, stdout=subprocess.PIPE,
                          text=True) as process:
        os.close(there)
        shown = b""
        with contextlib.suppress(OSError):           # Linux: EIO when the other end is closed
            while select.select([here], [], [], 30)[0] and (part := os.read(here, 4096)):
                shown += part
        assert process.stdout.read() == "epoch 1\n"  # what is said stays out of the bar's way
    os.close(here)
    states = [state.strip() for state in shown.decode().split("\r") if state.strip()]
    assert re.fullmatch(r" ?25%\|.*\| step 10/40, \? left", states[0])
    later = r" ?\d+%\|.*\| step \d+/40, 00:0\d left, 812 images/s, loss 1.234"
    assert all(re.fullmatch(later, state) for state in states[1:]) and len(states) > 3
