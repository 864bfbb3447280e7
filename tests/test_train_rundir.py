"""A run's folder: whose it is, and a log that holds whole rows, each of them once."""
import errno
import json
import os
import subprocess
import sys

import pytest

from tinyalex.train import rundir
from tinyalex.train.rundir import RunError, RunFolder, RunNote, newest_run


def test_a_second_run_makes_a_new_folder(tmp_path):
    runs = [RunFolder.fresh(tmp_path / "runs", "mini") for _ in range(3)]
    assert [run.path.name for run in runs] == ["mini", "mini-2", "mini-3"]
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_a_named_folder_that_holds_a_run_is_refused_but_may_be_resumed(tmp_path):
    (tmp_path / "empty").mkdir()
    with RunFolder(tmp_path / "empty") as run:
        run.log({"kind": "train", "step": 1})
    with pytest.raises(RunError, match="already holds a run: .*--resume"):
        RunFolder(tmp_path / "empty")
    with RunFolder(tmp_path / "empty", resume=True) as run:
        assert run.rows() == [{"kind": "train", "step": 1}]


def test_two_processes_do_not_share_a_folder(tmp_path):
    with RunFolder(tmp_path / "a"):
        code = ("import sys; from tinyalex.train.rundir import *\n"
                "try: RunFolder(sys.argv[1], resume=True)\n"
                "except RunError as error: print(error)")
        other = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], text=True,
                               capture_output=True, check=True)
        assert "another process is training in" in other.stdout
        with pytest.raises(RunError, match="another process"):
            RunFolder(tmp_path / "a", resume=True)
        assert (tmp_path / "a" / "log.jsonl").exists()
    RunFolder(tmp_path / "a", resume=True).close()


def test_a_folder_in_which_nothing_came_about_is_removed(tmp_path):
    with RunFolder.fresh(tmp_path, "mini"):
        pass
    assert list(tmp_path.iterdir()) == []
    with RunFolder(tmp_path / "kept") as run:
        (run.path / "mine.txt").write_text("notes")
    assert sorted(os.listdir(tmp_path / "kept")) == ["log.jsonl", "mine.txt"]


@pytest.mark.parametrize("make", [RunFolder, lambda path: RunFolder.fresh(path, "mini")])
def test_where_no_folder_can_be_made_is_named(tmp_path, make):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=f"cannot write to {tmp_path}/file"):
        make(tmp_path / "file")
    with pytest.raises(RunError, match=f"cannot write to {tmp_path}/file.*Not a directory"):
        make(tmp_path / "file" / "inner")


def test_an_unwritable_folder_is_named_before_training(tmp_path, monkeypatch):
    def refuse(path, *mode, **how):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(rundir, "open", refuse, raising=False)
    with pytest.raises(RunError, match="cannot write to .*/a: Permission denied"):
        RunFolder(tmp_path / "a")


class FullDisk:
    """Stands in for open(): writes take `room` bytes and then fail, until `room` is None."""

    room = 10

    def __call__(self, path, mode, buffering=-1):
        return FullFile(open(path, mode, buffering=buffering), self)


class FullFile:
    def __init__(self, file, disk):
        self.file, self.disk = file, disk
        self.seek, self.truncate = file.seek, file.truncate

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        if self.disk.room is None:
            return self.file.write(data)
        if self.disk.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[:self.disk.room])     # a raw file may take a part
        self.disk.room -= written
        return written


def test_a_full_disk_is_named_and_no_row_is_lost_or_torn(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "a")
    run.log({"kind": "train", "step": 1})
    before = (run.path / "log.jsonl").read_bytes()
    disk = FullDisk()
    monkeypatch.setattr(rundir, "open", disk, raising=False)
    with pytest.warns(RunNote, match="log.jsonl: No space left on device; the rows are kept"):
        run.log({"kind": "train", "step": 2})
    assert (run.path / "log.jsonl").read_bytes() == before and run.held_back == 1
    disk.room = None
    run.log({"kind": "train", "step": 3})
    assert [row["step"] for row in run.rows()] == [1, 2, 3] and run.held_back == 0


def test_a_row_cut_short_by_a_kill_is_left_out(tmp_path):
    run = RunFolder(tmp_path / "a")
    run.log({"kind": "train", "step": 1})
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    assert [row["step"] for row in run.rows()] == [1]
    run.go_back(1, 0)
    assert (run.path / "log.jsonl").read_text() == '{"kind": "train", "step": 1}\n'


def test_going_back_drops_what_will_be_written_again(tmp_path):
    run = RunFolder(tmp_path / "a")
    for step in range(1, 7):
        run.log({"kind": "train", "step": step})
        if step % 2 == 0:
            run.log({"kind": "val", "step": step})
    run.log({"kind": "ten-crop", "step": 6})
    run.go_back(step=4, validated=2)            # stopped within the validation after step 4
    assert [(row["kind"], row["step"]) for row in run.rows()] == [
        ("train", 1), ("train", 2), ("val", 2), ("train", 3), ("train", 4)]


def test_a_row_must_be_json_that_others_can_read(tmp_path):
    run = RunFolder(tmp_path / "a")
    with pytest.raises(ValueError, match="JSON compliant"):
        run.log({"kind": "train", "loss": float("nan")})
    run.log({"kind": "train", "step": 1})
    lines = (run.path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]


def test_the_newest_run_is_the_one_with_the_highest_number_and_checkpoints(tmp_path):
    assert newest_run(tmp_path / "missing", "mini") is None
    for name in ("mini", "mini-2", "mini-10", "mini-11", "mini-x", "mini-big", "other"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        if name != "mini-11":
            (tmp_path / name / "checkpoints" / "step-000001-0.safetensors").touch()
    assert newest_run(tmp_path, "mini").name == "mini-10"
    assert newest_run(tmp_path, "min") is None
