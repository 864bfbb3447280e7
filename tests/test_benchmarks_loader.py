"""The benchmark of how pictures come in: both sides serve the same; no clock decides anything."""
import importlib.util
import json
import multiprocessing
import pathlib
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image
from tinyalex.train.console import Mistake

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))

import loader as benchmark  # noqa: E402
import loader_side  # noqa: E402
import pairs  # noqa: E402

has_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None,
                               reason="PyTorch is not installed")
COLOR = 200, 100, 50


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of pictures of one color, a few of them odd, and stores made of it."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(10):
        Image.new("RGB", (300 + 10 * i, 280), COLOR).save(folder / f"{i}.JPEG", quality=95)
    Image.new("RGB", (256, 400), COLOR).save(folder / "p.png")
    (folder / "notes.txt").write_text("no picture")
    return benchmark.stores(str(folder), str(tmp_path_factory.mktemp("stores")))


def side(name, sources, kind, as_bytes, count=11, cores=1):
    args = types.SimpleNamespace(kind=kind, source=sources[kind], count=count, cores=cores,
                                 bytes=as_bytes)
    return {"tinyalex": loader_side.TinyAlex, "torch": loader_side.Torch}[name](args)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("kind", loader_side.KINDS)
@pytest.mark.parametrize("name", ["tinyalex", pytest.param("torch", marks=has_torch)])
def test_each_side_serves_all_pictures_and_their_color(sources, name, kind, as_bytes):
    epoch = loader_side.answer(side(name, sources, kind, as_bytes))["epoch"]
    for _ in range(2):
        found = epoch()
        assert found["pictures"] == 11 and found["shape"] == [11, 3, 224, 224]
        assert found["color"] == pytest.approx(COLOR, abs=2)
        assert found["seconds"] > 0 and found["busy"] > 0


@pytest.mark.parametrize("name", ["tinyalex", pytest.param("torch", marks=has_torch)])
def test_an_epoch_goes_over_the_files_as_often_as_it_must(sources, name):
    found = loader_side.answer(side(name, sources, "jpeg", True, count=300))["epoch"]()
    assert found["pictures"] == 300 and found["shape"][0] == loader_side.BATCH


@has_torch
def test_pytorch_crops_and_mirrors_within_the_picture(sources):
    import torch
    pictures = loader_side.Pictures(torch, types.SimpleNamespace(
        kind="pixels", source=sources["pixels"], count=1, bytes=True))
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    pictures.pixels = np.stack([ramp, ramp.transpose(1, 0, 2)])
    torch.manual_seed(0)
    rows, columns = ([pictures[i][0].numpy() for _ in range(40)] for i in (0, 1))
    assert all((np.diff(one.astype(int), axis=1) == 1).all() for one in rows)
    steps = {int(one[0, 0, 1]) - int(one[0, 0, 0]) for one in columns}
    assert steps == {1, -1} and len({int(one.min()) for one in rows}) > 10


def test_processor_time_counts_the_workers():
    child = multiprocessing.get_context("spawn").Process(target=sum, args=(range(20_000_000),))
    child.start()
    theirs = []
    while child.is_alive():
        theirs.append(loader_side.processor_time() - time.process_time())
        time.sleep(0.01)
    assert max(theirs) > 0.1 and loader_side.processor_time() - time.process_time() < 0.1


# ---------------------------------------------------------------------------- rows

def made_up(busy, clock, **more):
    return {"busy": busy, "seconds": clock, "pictures": 7, "shape": [7, 3, 4, 4],
            "color": [1.0, 2.0, 3.0], **more}


def test_rows_hold_pictures_a_core_and_both_ratios():
    found = {("tinyalex", "floats"): [made_up(0.004, 0.002)] * 3,
             ("tinyalex", "bytes"): [made_up(0.002, 0.001)] * 3,
             ("torch", "floats"): [made_up(0.005, 0.004), made_up(0.006, 0.004)] + [
                 made_up(0.007, 0.004)],
             ("torch", "bytes"): [made_up(0.003, 0.002)] * 3}
    rows = benchmark.rows("jpeg", 2, found)
    assert [row[3:6] + row[8:] for row in rows] == [
        [250.0, pytest.approx(1000 / 6), 1.5, 2.0],
        [500.0, pytest.approx(1000 / 6), 3.0, 4.0],
        [500.0, pytest.approx(1000 / 3), 1.5, 2.0]]
    assert [row[7] for row in rows] == [None, ">= 1.5", None] and rows[1][6] == "2.75 - 3.25"
    one_core = benchmark.rows("jpeg", 1, found)
    assert benchmark.cores_needed(one_core + rows, [1000, 1001]) == [
        [rows[2][0], 500.0, 2, 3, pytest.approx(1000 / 3), 3, 4]]


@pytest.mark.parametrize("more", [{"pictures": 6}, {"shape": [7, 4, 4, 3]},
                                  {"color": [1.0, 2.0, 14.0]}])
def test_sides_that_differ_are_not_compared(more):
    benchmark.agree([made_up(1, 1), made_up(2, 2, color=[2.0, 3.0, 12.0])])
    with pytest.raises(pairs.WorkerFailed, match="do not serve the same"):
        benchmark.agree([made_up(1, 1), made_up(1, 1, **more)])


# ---------------------------------------------------------------------------- the program

class Fake:
    """A worker: tinyalex takes one second of each processor, PyTorch two."""

    def __init__(self, argv, name):
        self.argv, self.factor = [str(word) for word in argv], 1 + (name == "torch")
        assert pathlib.Path(argv[0]).exists()

    def run(self, command):
        assert command == "epoch"
        count = int(self.argv[self.argv.index("--count") + 1])
        return made_up(self.factor, self.factor, pictures=count)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_the_whole_program(sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pairs, "Worker", Fake)
    monkeypatch.setattr(pairs, "need", lambda *packages: None)
    output = tmp_path / "out.json"
    argv = ["--data", sources["originals"], "--rounds", "3", "--cores", "1,2", "--rate", "700",
            "--output", str(output)]
    assert pairs.run(benchmark.main, "loader.py", argv) == 0
    found = json.loads(output.read_text())
    table, needed = (one["rows"] for one in found["tables"])
    assert len(table) == 18 and all(row[5] == row[8] == 2.0 for row in table)
    assert [row[:4] for row in needed] == [
        [benchmark.NAMES["originals"], 640.0, 2, 320.0],
        [benchmark.NAMES["jpeg"], 1920.0, 1, 960.0],
        [benchmark.NAMES["pixels"], 6400.0, 1, 3200.0]]
    assert len(found["times"]["pixels 2"]["torch bytes"]["busy"]) == 3
    out = capsys.readouterr().out
    assert "How fast pictures come in" in out and "cores for 700" in out


@pytest.mark.parametrize("argv, what", [([], "--data"), (["--speling"], "--data"),
                                        (["--data", ".", "--cores", "0"], "0 is not a whole")])
def test_a_mistake_is_one_line(argv, what, capsys):
    assert pairs.run(benchmark.main, "loader.py", argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and what in said.err


def test_without_pytorch_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *args: None)
    assert pairs.run(benchmark.main, "loader.py", ["--data", "."]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "pip install -e '.[bench]'" in said.err


def test_a_folder_without_pictures_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="there is no JPEG or PNG in this folder"):
        benchmark.stores(str(tmp_path), str(tmp_path / "stores"))
