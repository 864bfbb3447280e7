"""examples/predict.py as a person uses it."""
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from test_cli_train import ROOT, SMALL, call as train
from test_cli_train import data, draw, example  # noqa: F401  (data is a fixture)

from tinyalex.data import read_picture
from tinyalex.train import console, restore
from tinyalex.train.evaluate import predict

program = example("predict")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("predict") / "run"
    assert train("--data", data, *SMALL, "--max-steps", 8, "--output-dir", folder) == 0
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*args):
    return console.run(program.main, program.PROGRAM, [str(arg) for arg in args])


def test_the_best_guesses_with_bars(run, data, capsys):  # noqa: F811
    file = data / "val" / "cat" / "0.png"
    assert call(file, "--checkpoint", run) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == str(file) and len(lines) == 4 and err == ""
    saved = restore.open_net(run)
    p = predict(saved.net, saved.augment.center([read_picture(file)]))[0]
    for line, k in zip(lines[1:], np.argsort(-p), strict=True):
        name, percent, rest = re.fullmatch(r"  (\w+) +([\d.]+) %(.*)", line).groups()
        assert name == saved.classes[k] and float(percent) == pytest.approx(100 * p[k], abs=0.051)
        assert set(rest.strip()) <= set("█▏▎▍▌▋▊▉")
    assert call(file, "--checkpoint", run, "--top", 1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_picture_is_brought_to_the_size_of_those_trained_on(run, data):  # noqa: F811
    from PIL import Image

    saved = restore.open_net(run)
    file = data / "val" / "ox" / "1.png"
    small = read_picture(file)
    large = np.asarray(Image.fromarray(small).resize((720, 720), Image.Resampling.NEAREST))
    a, b = (saved.augment.center([x]) for x in (small, large))
    assert np.abs(a - b).mean() < 0.5 * np.abs(a).mean()          # noise, smoothed a little
    assert saved.augment.center([np.zeros((50, 400, 3), np.uint8)]).shape == (1, 3, 32, 32)


def test_ten_crop_averages(run, data, capsys):  # noqa: F811
    file = data / "val" / "dog" / "2.png"
    assert call(file, "--checkpoint", run, "--ten-crop") == 0
    saved = restore.open_net(run)
    p = predict(saved.net, saved.augment.ten([read_picture(file)]))[0]
    assert f"{100 * p.max():.1f} %" in capsys.readouterr().out.splitlines()[1]


def test_folders_and_broken_pictures(run, data, tmp_path, capsys):  # noqa: F811
    draw(tmp_path / "deep", 1)
    (tmp_path / "deep" / "notes.txt").write_text("no picture")
    (tmp_path / "deep" / "ox" / "broken.jpg").write_bytes(b"\xff\xd8\xff junk")
    assert call("deep", "missing.jpg", data / "val" / "cat", "--checkpoint", run) == 1
    out, err = capsys.readouterr()
    shown = [line for line in out.splitlines() if not line.startswith("  ")]
    assert shown == ["deep/cat/0.png", "deep/dog/0.png", "deep/ox/0.png",
                     *(str(data / "val" / "cat" / f"{i}.png") for i in range(3))]
    assert err.count("\n") == 2
    assert re.search(r"predict.py: deep/ox/broken.jpg: is ", err)
    assert "predict.py: missing.jpg: No such file" in err


def test_save_draws_the_pictures(run, data, tmp_path, capsys):  # noqa: F811
    assert call(data / "val", "--checkpoint", run, "--save", "seen.png") == 0
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    assert call(data / "val", "--checkpoint", run, "--save", "no/such/seen.png") == 2
    assert "--save no/such/seen.png" in capsys.readouterr().err


@pytest.mark.parametrize("args, message", [
    (["cat.jpg", "--checkpoint", "nothing"], "nothing: there is no such file"),
    (["cat.jpg"], "the following arguments are required: --checkpoint"),
    (["--checkpoint", "nothing"], "the following arguments are required: IMAGE"),
    (["cat.jpg", "--checkpoint", "x", "--save", "y.gif"], "ends in .png, .svg or .pdf"),
    (["cat.jpg", "--checkpoint", "x", "--top", "0"], "--top: 0 is not a whole number of 1 or more"),
    (["cat.jpg", "--checkpoint", "x", "--gpus", "a"], "--gpus a: expected one number or two"),
])
def test_a_mistake_is_one_line(args, message, capsys):
    assert call(*args) == 2
    err = capsys.readouterr().err
    assert err.startswith("predict.py: ") and err.count("\n") == 1 and message in err


def test_wrong_checkpoints_and_empty_folders(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert call("empty", "--checkpoint", run) == 2
    assert "there is no .jpg, .jpeg, .png file in this folder" in capsys.readouterr().err
    assert call("x.png", "--checkpoint", "empty") == 2
    assert "there is no checkpoint in this folder" in capsys.readouterr().err
    newest = restore.read(run)[0]
    (tmp_path / newest.name).write_bytes(newest.read_bytes()[:-1])
    assert call("x.png", "--checkpoint", newest.name) == 2
    assert "cut short" in capsys.readouterr().err


def test_a_renamed_checkpoint_is_all_it_takes(run, data, tmp_path, capsys):  # noqa: F811
    (tmp_path / "mine.safetensors").write_bytes(restore.read(run)[0].read_bytes())
    file = data / "val" / "cat" / "0.png"
    assert call(file, "--checkpoint", "mine.safetensors") == 0
    out, err = capsys.readouterr()
    assert "note: mine.safetensors: its name holds no hash" in err
    assert call(file, "--checkpoint", run) == 0
    assert capsys.readouterr().out == out


def test_bars():
    fine = {0.0: "", 0.0125: "▏", 0.5: "█████", 0.9875: "█" * 9 + "▉", 1.0: "█" * 10}
    assert {share: program.bar(share, 10, "utf-8") for share in fine} == fine
    plain = {0.0: "", 0.5: "#####", 1.0: "#" * 10}
    assert {share: program.bar(share, 10, "ascii") for share in plain} == plain


def test_a_plain_terminal_and_a_pipe_that_closes(run, tmp_path):
    draw(tmp_path / "many", 40, classes=("cat", "dög"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    words = [sys.executable, ROOT / "examples" / "predict.py", "many", "--checkpoint", run]
    done = subprocess.run(words, env=env, capture_output=True, timeout=60, check=True)
    text = done.stdout.decode("ascii")
    assert "many/d\\xf6g/0.png" in text and "#" in text
    assert all(len(line) <= 60 for line in text.splitlines() if line.startswith("  "))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=env, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) in (0, console.PIPE_CLOSED)
