"""The benchmark on a graphics card: its arithmetic and machinery. No clock decides anything here.

The whole program runs on every Device there is, of which the stand-in's card is one, and on the
host with a card's clock made up; so does PyTorch's side.
"""
import argparse
import contextlib
import importlib.util
import json
import pathlib
import sys
import time
import types

import numpy as np
import pytest
import tinyalex as ta
from PIL import Image
from tinyalex import nn
from tinyalex.device import Device
from tinyalex.ops import conv_cuda
from tinyalex.tensor import Function
from tinyalex.train.console import Mistake

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))

import gpu  # noqa: E402
import gpu_cards  # noqa: E402
import gpu_cifar  # noqa: E402
import gpu_side  # noqa: E402
import gpu_tables  # noqa: E402
import nets  # noqa: E402
import pairs  # noqa: E402
import sides  # noqa: E402
import watch  # noqa: E402

has_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None,
                               reason="PyTorch is not installed")
CEILINGS = {"float32": {"sgemm_gflops": 50e3, "copy_gbs": 2000.0}}
CARD = {"card": "NVIDIA H200, 139.8 GiB, compute capability 9.0"}


class Fake:
    """A worker that answers from a table, and notes what it was asked."""

    def __init__(self, facts=None, **answers):
        self.facts, self.table, self.asked, self.answers = facts or {}, answers, [], []

    def run(self, command):
        name, *arguments = command.split()
        self.asked.append(command)
        answer = self.table.get(name, {})
        self.answers.append(answer(*arguments) if callable(answer) else answer)
        return self.answers[-1]


def fake(factor=1.0, **more):
    """A side whose steps take `factor` times 10 ms in training and 5 ms in inference."""
    rows = {"conv1": factor, "pool1": factor}
    step = {"pictures": 128, "rows": {"forward": rows, "backward": rows}, "forward": 3 * factor,
            "backward": 2 * factor, "update": factor, "seconds": 6 * factor}
    answers = {"check": {"loss": 2.0, "norms": {"w": 1.0}}, "ceilings": CEILINGS["float32"],
               "train": {"seconds": 0.01 * factor}, "infer": {"seconds": 0.005 * factor},
               "memory": {"used": int(1e9 * factor), "held": int(2e9 * factor)},
               "enqueue": {"host": [0.002] * 7, "done": [0.01 * factor] * 7}, "step": step,
               "columns": {"before": 32}}
    return Fake({"layers": {"conv1": [10, 100], "pool1": [0, 40]}, "parameters": 50},
                **{**answers, **more})


SETTINGS = argparse.Namespace(batch=[128, 256], precision=["float32"], seconds=1.0, quick=False)
FACTS = {"batch": 256, "flop_train": 256 * 4e9, "flop_infer": 256 * 1.5e9}


def measured(both, missing="", settings=SETTINGS, keep=lambda: None):
    @contextlib.contextmanager
    def opened(file, precision):
        yield both, missing

    found = gpu.empty(CARD)
    gpu.measure(found, settings, "file", FACTS, keep, opened)
    return found


# ---------------------------------------------------------------------------- arithmetic

@pytest.mark.parametrize("seconds, budget, expected", [
    ([0.01, 0.02], 9.0, (15, 20)),         # a timing of 0.3 s on the slower side, twenty pairs
    ([0.01, 0.02], 100.0, (15, 25)),       # never more than 25
    ([2.0, 3.0], 9.0, (1, 3)),             # and never fewer than 3
    ([0.1], 3.1, (3, 10))])                # alone
def test_rounds_follow_from_the_time_there_is(seconds, budget, expected):
    assert gpu.plan(seconds, budget) == expected


def test_sides_take_turns_and_the_first_steps_do_not_count(monkeypatch):
    log = []

    def side(name, *seconds):
        times = iter(seconds)
        return Fake(train=lambda *_: log.append(name) or {"seconds": next(times)})

    monkeypatch.setattr(gpu, "ROUNDS", (3, 3))
    a, b = side("a", 9.0, 0.1, 1.0, 2.0, 3.0), side("b", 9.0, 0.1, 4.0, 2.0, 6.0)
    found = gpu.time_both([a, b], "train", 1.0)
    assert found == {"a": [1.0, 2.0, 3.0], "b": [4.0, 2.0, 6.0], "steps": 3}
    assert "".join(log) == "abab" + "abbaab"
    assert a.asked == ["train"] * 2 + ["train 3"] * 3
    alone = gpu.time_both([side("c", 9.0, 0.1, 1.0, 2.0, 3.0)], "train", 1.0)
    assert alone == {"a": [1.0, 2.0, 3.0], "steps": 3}


def test_one_batch_is_one_record():
    ours, theirs = fake(), fake(2.0)
    record = gpu.whole_net([ours, theirs], "float32", 128, FACTS, 1.0)
    assert record["flop"] == {"train": 128 * 4e9, "infer": 128 * 1.5e9}
    assert record["memory"] == [{"used": 10**9, "held": 2 * 10**9},
                                {"used": 2 * 10**9, "held": 4 * 10**9}]
    assert set(record["train"]["a"]) == {0.01} and set(record["infer"]["b"]) == {0.01}
    assert ours.asked[0] == theirs.asked[0] == "batch 128"
    order = list(dict.fromkeys(command.split()[0] for command in ours.asked))
    assert order == ["batch", "train", "memory", "enqueue", "infer"]


RECORD = {"precision": "float32", "batch": 128, "flop": {"train": 400e9, "infer": 150e9},
          "train": {"a": [0.02, 0.01, 0.01], "b": [0.02, 0.02, 0.02], "steps": 3},
          "infer": {"a": [0.005] * 3, "b": [0.006] * 3, "steps": 3},
          "memory": [{"used": 10**9, "held": 3 * 10**9}, {"used": 2 * 10**9, "held": 2 * 10**9}],
          "enqueue": [{"host": [0.004, 0.009, 0.004], "done": [0.016] * 3},
                      {"host": [0.003] * 3, "done": [0.012] * 3}]}


def test_the_table_of_the_whole_net():
    train, infer = gpu_tables.speed_rows([RECORD], CEILINGS)
    assert train == ["float32", 128, "train", 10.0, 20.0, pytest.approx(12800), 6400.0, 2.0,
                     "1.50 - 2.00", 3, pytest.approx(40.0), "80 %", pytest.approx(20.0), "40 %"]
    assert infer[:3] + infer[7:8] == ["float32", 128, "infer", pytest.approx(1.2)]
    assert len(train) == len(gpu_tables.SPEED)


def test_the_tables_of_memory_and_launching():
    assert gpu_tables.memory_rows([RECORD]) == [["float32", 128, 1e3, 3e3, 2e3, 2e3, 0.5, 1.5]]
    assert gpu_tables.launch_rows([RECORD]) == [["float32", 128, 4.0, 16.0, "25 %", 3.0, 12.0,
                                                 "25 %"]]
    assert gpu_tables.ceiling_rows(CEILINGS) == [["float32", 50.0, 2000.0]]


def test_the_table_of_the_columns():
    sweep = {"batch": 128, "before": 32, "sizes": {
        "16": {"seconds": [0.01, 0.02, 0.03], "held": 5 * 10**9},
        "32": {"seconds": [0.01] * 3, "held": 6 * 10**9}}}
    assert gpu_tables.column_rows(sweep) == [
        [16, 16 * 2**22 / 1e6, 20.0, "15.00 - 25.00", 5000.0, ""],
        [32, 32 * 2**22 / 1e6, 10.0, "10.00 - 10.00", 6000.0, "here"]]


def epoch(number, error):
    return {"epoch": number, "seconds": 4.0, "waited": 1.0, "validation": 0.5, "error": error}


def test_the_table_of_the_race():
    race = {"reading": 9.0, "epochs": [epoch(1, 60.0), epoch(2, 25.9)]}
    assert gpu_tables.race_rows(race) == [[1, 4.0, 1.0, 0.5, 60.0], [2, 8.0, 2.0, 1.0, 25.9]]
    assert gpu_tables.race_title(race).endswith("8.0 s of training to 26 % error")
    assert "80 s on a GTX 580" in gpu_tables.race_title(race)
    race["epochs"].pop()
    assert gpu_tables.race_title(race).endswith("26 % not reached, 60.0 % at best")


def test_a_race_ends_at_the_goal_or_with_the_recipe():
    errors = iter([40.0, 26.0, 20.0])
    worker = Fake({"reading": 9.0, "pictures": 50, "epochs": 10},
                  epoch=lambda: epoch(0, next(errors)))
    assert [one["error"] for one in gpu.race(worker)["epochs"]] == [40.0, 26.0]
    worker = Fake({"epochs": 3}, epoch=epoch(1, 90.0))
    assert len(gpu.race(worker)["epochs"]) == 3


# ---------------------------------------------------------------------------- the run

def test_everything_is_measured_and_kept_part_by_part():
    ours, theirs, kept = fake(), fake(2.0), []
    found = measured([ours, theirs], keep=lambda: kept.append(len(ours.asked)))
    assert len(kept) == 5                    # ceilings, two batches, columns, layers
    assert [r["batch"] for r in found["records"]] == [128, 256]
    assert list(found["columns"]["sizes"]) == list(gpu.SIZES)
    assert ours.asked[:3] == ["batch 8", "check", "ceilings"]
    assert [c for c in ours.asked if c.startswith("columns")][-1] == "columns 32"   # as it was
    last = max(i for i, c in enumerate(ours.asked) if c.startswith(("train", "infer")))
    assert ours.asked.index("step") > last   # a side that is watched is not timed any more
    assert "columns 4" not in theirs.asked
    answers = found["layers"]["float32"]["answers"]
    assert [len(side) for side in answers] == [gpu.WATCHED] * 2


def test_all_tables_have_their_columns():
    made = gpu_tables.tables(measured([fake(), fake(2.0)]))
    assert len(made) == 1 + 3 + 3 + 1
    assert all(len(row) == len(columns) for _, columns, rows in made for row in rows)
    titles = " ".join(title for title, _, _ in made)
    assert gpu_tables.GOALS in titles and gpu_tables.MEMORY_GOAL in titles
    assert all(goal in titles for goal in (">= 1.0", ">= 0.8", "<= 1.0"))
    forward = next((columns, rows) for title, columns, rows in made if "forward" in title)
    named = dict(zip(forward[0], forward[1][0], strict=True))
    assert named["layer"] == "conv1" and named["tinyalex ms"] == pytest.approx(1000.0)
    assert named["TFLOP/s"] == pytest.approx(2 * 10 * 128 / 1e12)
    assert named["tinyalex over PyTorch"] == 2.0


def test_without_pytorch_the_tables_hold_tinyalex_alone_and_say_so():
    made = gpu_tables.tables(measured([fake()], "PyTorch is not installed"))
    assert "tinyalex alone: PyTorch is not installed" in made[1][0]
    assert not [name for _, columns, _ in made for name in columns if "PyTorch" in name]
    assert all(len(row) == len(columns) for _, columns, rows in made for row in rows)
    assert "ratio" not in made[1][1] and "tinyalex ms" in made[1][1]
    assert len(made) == 8


def test_quick_leaves_the_columns_out():
    quick = argparse.Namespace(**{**vars(SETTINGS), "quick": True})
    ours = fake()
    assert measured([ours], "none", quick)["columns"] is None
    assert not [command for command in ours.asked if command.startswith("columns")]


def test_a_side_that_differs_is_not_timed():
    def differing(loss):
        return fake(check={"loss": loss, "norms": {"w": 1.0}})

    with pytest.raises(pairs.WorkerFailed, match="float32: the two sides differ by 0.01 in the lo"):
        gpu.must_agree([fake(), differing(2.02)], "float32")
    gpu.must_agree([fake(), differing(2.02)], "tf32")
    with pytest.raises(pairs.WorkerFailed, match="tf32"):
        gpu.must_agree([fake(), differing(2.1)], "tf32")
    with pytest.raises(pairs.WorkerFailed, match="nan"):
        gpu.must_agree([differing(float("nan"))], "float32")


# ---------------------------------------------------------------------------- processes

@pytest.fixture
def started(monkeypatch):
    """The workers that would have been started: (arguments, environment, name)."""
    log = []

    class Stub:
        facts = {}

        def __init__(self, argv, env, name):
            log.append((argv, env, name))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            log.append(f"{log[0][2]} ended")

    monkeypatch.setattr(sides, "Listening", Stub)
    return log


@pytest.mark.parametrize("precision, tf32", [("float32", "0"), ("tf32", "1")])
def test_each_precision_has_processes_of_its_own(started, monkeypatch, precision, tf32):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "torch")
    with gpu.opened("file", precision) as (both, missing):
        assert len(both) == 2 and missing == ""
    for argv, env, name in started[:2]:
        assert env == {"CUPY_TF32": tf32}
        assert argv[1:] == ["--serve", name, "--data", "file", "--precision", precision]
    assert [one[2] for one in started[:2]] == ["tinyalex", "torch"]


def test_pytorch_may_be_missing(started, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with gpu.opened("file", "float32") as (both, missing):
        assert len(both) == 1 and missing == "PyTorch is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "torch")
    monkeypatch.setattr(sides.Listening, "facts", {"missing": "PyTorch 2 finds no GPU"})
    with gpu.opened("file", "float32") as (both, missing):
        assert len(both) == 1 and missing == "PyTorch 2 finds no GPU"


# ---------------------------------------------------------------------------- command lines

def test_without_a_card_one_line_says_so_and_nothing_is_written(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)           # import cupy raises ImportError
    monkeypatch.setattr(Device, "_interned", {})
    assert pairs.run(gpu.main, gpu.PROGRAM, ["--output", str(tmp_path / "new")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("gpu.py: CuPy is not installed: pip install 'tinyalex[cupy]'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv, word", [
    (["--speling"], "--speling"), (["--batch", "128,0"], "--batch 128,0"),
    (["--batch", "many"], "--batch many"), (["--precision", "float32,int8"], "there is no int8"),
    (["--precision", ""], "--precision"), (["--seconds", "0"], "0 is not a number above 0")])
def test_a_mistake_is_one_line(argv, word, capsys):
    assert pairs.run(gpu.main, gpu.PROGRAM, argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and word in said.err


def test_flags_and_their_defaults():
    args = gpu.parse([])
    assert (args.batch, args.precision) == ([128, 256, 1024], ["float32", "tf32"])
    assert args.seconds == gpu.SECONDS and not args.quick
    args = gpu.parse(["--quick", "--batch", "256,32"])
    assert (args.batch, args.seconds) == ([32], gpu.QUICK_SECONDS)
    assert gpu.parse(["--quick", "--seconds", "5"]).seconds == 5.0
    with pytest.raises(Mistake):
        gpu_side.main(["--precision", "float16"])


@pytest.fixture
def runs(monkeypatch):
    """gpu.main, on a card that is made up, with sides that are made up."""
    monkeypatch.setattr(gpu, "Device", lambda name: name)
    monkeypatch.setattr(gpu, "describe", lambda device: CARD)
    monkeypatch.setattr(nets, "exported",
                        lambda net, batch: contextlib.nullcontext(("file", FACTS)))

    def run(both, *argv):
        @contextlib.contextmanager
        def opened(file, precision):
            yield both, "" if both[1:] else "PyTorch is not installed"

        measure = gpu.measure
        monkeypatch.setattr(gpu, "measure", lambda *args: measure(*args, opened=opened))
        return pairs.run(gpu.main, gpu.PROGRAM, list(map(str, argv)))

    return run


def test_a_run_leaves_its_json_and_shows_its_tables(runs, tmp_path, capsys):
    assert runs([fake(), fake(2.0)], "--output", tmp_path, "--batch", 128, "--precision",
                "float32") == 0
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("gpu-") and file.name.endswith("-nvidia-h200.json")
    found = json.loads(file.read_text())
    assert found["card"] == CARD and found["machine"]["cores"] and found["date"] in file.name
    assert len(found["tables"]) == 8 and found["records"][0]["train"]["a"]
    out = capsys.readouterr().out
    assert out.count("**") == 2 * 9 and str(file) in out     # the card, and the tables
    shown = gpu_tables.tables(found)                         # the file holds what they are made of
    assert [[title, *rest] for title, *rest in json.loads(json.dumps(shown))] == \
        [[one["title"], one["columns"], one["rows"]] for one in found["tables"]]


def test_a_run_that_is_cut_short_leaves_what_it_measured(runs, tmp_path, capsys):
    def lost(*arguments):
        raise pairs.WorkerFailed("worker tinyalex was killed")

    assert runs([fake(columns=lost)], "--output", tmp_path, "--batch", "128,256") == 1
    (file,) = tmp_path.iterdir()
    found = json.loads(file.read_text())
    assert [r["batch"] for r in found["records"]] == [128, 256] and not found["layers"]
    assert len(found["tables"]) == 4
    assert capsys.readouterr().err.endswith("gpu.py: worker tinyalex was killed\n")


def test_a_wrong_folder_is_told_before_anything_runs(runs, tmp_path, capsys):
    ours = fake()
    assert runs([ours], "--cifar", tmp_path / "none", "--output", tmp_path / "new") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not ours.asked and not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- on a card

class Here:
    """A worker without a process."""

    def __init__(self, commands, facts):
        self.commands, self.facts, self.answers = commands, facts, []

    def run(self, command="step"):
        name, *arguments = command.split()
        self.answers.append(json.loads(json.dumps(self.commands[name](*arguments))))
        return self.answers[-1]


@pytest.fixture(scope="module")
def mini():
    with nets.exported("mini32", 8) as made:
        yield made


@pytest.fixture
def small(monkeypatch):
    """Nothing takes long, and what watches is undone."""
    for owner, name in ((Function, "__call__"), (Function, "run_backward"),
                        (nn.Module, "__call__"), (watch, "now")):
        monkeypatch.setattr(owner, name, getattr(owner, name))           # put back afterwards
    for owner, name, value in (
            (gpu_cards, "SQUARES", (16, 32)), (gpu_cards, "COPIED", 1 << 16),
            (gpu_cards, "LEAD", 1e-6), (gpu_cards, "REPEATS", 2), (gpu, "STRETCH", 1e-6),
            (gpu, "ROUNDS", (2, 2)), (gpu, "WATCHED", 2), (gpu, "LAUNCHED", 2),
            (gpu, "SIZES", (4, 8))):
        monkeypatch.setattr(owner, name, value)
    state = ta.random.get_state()
    yield
    ta.random.set_state(**state)


def opened_side(file, serve):
    return sides.open_side(argparse.Namespace(serve=serve, data=file, serve_threads=None))


class Clock:
    """A card's events on the host's clock."""

    def __init__(self, enable_timing=False):
        self.enable_timing, self.at = enable_timing, None

    def record(self):
        assert self.enable_timing
        self.at = time.perf_counter()

    def elapsed_time(self, later):
        return 1e3 * (later.at - self.at)


def check_side(side, n):
    """What every side has to do with `n` pictures of mini."""
    assert side.run(f"batch {n}") == {"pictures": n}
    first, again = side.run("check"), side.run("check")
    assert first == again and len(first["norms"]) == 16 and all(first["norms"].values())
    assert side.run("train 3")["seconds"] > 0 and side.run("infer 2")["seconds"] > 0
    launched = side.run("enqueue 2")
    assert all(0 < a < b for a, b in zip(launched["host"], launched["done"], strict=True))
    memory = side.run("memory")
    assert 0 < memory["used"] <= memory["held"]
    for _ in range(2):
        step = side.run("step")
        assert step["pictures"] == n and step["seconds"] > 0
        layers = {"conv1", "norm1", "pool2", "conv5", "fc8"}
        for direction in ("forward", "backward"):
            row = step["rows"][direction]
            assert layers | {"loss"} <= set(row) and min(row.values()) >= 0
            assert 0 < sum(row.values()) <= step[direction] * 1.001
        assert step["forward"] + step["backward"] + step["update"] == pytest.approx(step["seconds"])
    return first


@has_torch
def test_pytorchs_side(mini, small, monkeypatch):
    import torch

    waits, memory = [], iter(range(10**6, 10**9))
    for name, stand_in in {
            "synchronize": lambda: waits.append(1), "empty_cache": lambda: None, "Event": Clock,
            "reset_peak_memory_stats": lambda: None, "max_memory_allocated": lambda: next(memory),
            "max_memory_reserved": lambda: next(memory)}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    backends = torch.backends
    before = (backends.cudnn.benchmark, backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32)
    try:
        for precision in ("tf32", "float32"):
            card = gpu_cards.OnTorch(opened_side(mini[0], "torch"), precision, "cpu")
            assert backends.cudnn.benchmark
            assert backends.cudnn.allow_tf32 == backends.cuda.matmul.allow_tf32 == \
                (precision == "tf32")
        theirs = check_side(Here(gpu_side.answer(card), {}), 4)
    finally:
        backends.cudnn.benchmark, backends.cudnn.allow_tf32 = before[:2]
        backends.cuda.matmul.allow_tf32 = before[2]
    assert waits
    file = np.load(mini[0])
    assert abs(theirs["loss"] - np.log(len(set(file["labels"])))) < 2


def with_clock(monkeypatch, xp):
    """Give an array module what of CuPy's clock and memory hooks it lacks."""
    class Hook:
        def __enter__(self):
            self.malloc_postprocess(size=1)                  # one allocation
            return self

        def __exit__(self, *error):
            self.malloc_postprocess(size=1)

    def record():
        event = Clock(enable_timing=True)
        event.record()
        return event

    if not hasattr(xp, "cuda"):
        monkeypatch.setattr(xp, "cuda", types.SimpleNamespace(
            get_current_stream=lambda: types.SimpleNamespace(record=record)), raising=False)
    for name, value in {"MemoryHook": Hook, "get_elapsed_time": Clock.elapsed_time}.items():
        if not hasattr(xp.cuda, name):
            monkeypatch.setattr(xp.cuda, name, value, raising=False)


def our_side(file, device, monkeypatch):
    with_clock(monkeypatch, device.xp)
    card = gpu_cards.OnCuPy(opened_side(file, "tinyalex"), device)
    return Here(*gpu_side.described(card))


def test_tinyalexs_side(device, mini, small, monkeypatch):
    side = our_side(mini[0], device, monkeypatch)
    assert side.facts["parameters"] == 645_488 - 3 * 32 * (11**2 - 5**2)
    assert side.facts["layers"]["conv1"] == [15 * 15 * 32 * 3 * 25, 15 * 15 * 32]
    few = check_side(side, 4)
    ceilings = side.run("ceilings")
    assert set(ceilings) == {"sgemm_gflops", "copy_gbs"} and min(ceilings.values()) > 0
    with pairs.Worker([nets.WORKER, "tinyalex", "mini32", "--data", mini[0]]) as host:
        whole = host.run("check")                            # of all 8 pictures
    side = our_side(mini[0], device, monkeypatch)
    side.run("batch 8")
    assert nets.disagreement(side.run("check"), whole)[0] < 1e-4
    assert few["norms"].keys() == whole["norms"].keys()


def test_the_size_of_the_columns_is_changed_and_told(device, mini, small, monkeypatch):
    side = our_side(mini[0], device, monkeypatch)
    monkeypatch.setattr(conv_cuda, "COLUMNS", 32 << 20)
    side.run("batch 4")
    assert side.run("columns 4") == {"before": 32} and conv_cuda.COLUMNS == 4 << 20
    assert side.run("columns 32") == {"before": 4} and conv_cuda.COLUMNS == 32 << 20


def test_the_peak_in_use_is_that_of_any_allocation(mini, small, monkeypatch):
    side = our_side(mini[0], ta.Device("cpu:0"), monkeypatch)
    used = iter([5, 3, 1])
    monkeypatch.setattr(Device, "memory",
                        lambda self: {"used_bytes": next(used), "held_bytes": 9})
    side.run("batch 4")
    assert side.run("memory") == {"used": 5, "held": 9}


def test_the_whole_program(device, mini, small, monkeypatch):
    both, settings = [our_side(mini[0], device, monkeypatch)], argparse.Namespace(
        batch=[2, 4], precision=["float32"], seconds=0.1, quick=False)

    @contextlib.contextmanager
    def opened(file, precision):
        yield both, "PyTorch is not asked"

    found = gpu.empty(CARD)
    gpu.measure(found, settings, *mini, lambda: json.dumps(found), opened)
    made = gpu_tables.tables(json.loads(json.dumps(found)))
    assert len(made) == 8 and all(len(row) == len(columns) and None not in row[:3]
                                  for _, columns, rows in made[:4] for row in rows)
    assert [row[1] for row in made[1][2]] == [2, 2, 4, 4]
    layer_rows = [row[0] for row in made[4][2]]
    assert {"conv1", "norm1", "pool5", "fc8", "loss", "the rest"} <= set(layer_rows)


# ---------------------------------------------------------------------------- the race

@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that a net tells apart at once: dark pictures and bright ones."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for name, level in (("dark", 40), ("bright", 200)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level - 30, level + 30, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.jpg")
    return folder


def test_80sec_learns_and_its_seconds_are_told_apart(pictures):
    state = ta.random.get_state()
    try:
        race = gpu_cifar.Race(pictures, "cpu:0")
        assert race.reading > 0 and len(race.train) == 80 and race.number == 0
        fresh, _ = race.net, race.begin()
        for p, q in zip(fresh.parameters(), race.net.parameters(), strict=True):
            assert np.array_equal(p.data, q.data)            # the trial step left no trace
        start = time.perf_counter()
        epochs = [race.epoch() for _ in range(9)]
        taken = time.perf_counter() - start
    finally:
        ta.random.set_state(**state)
    assert [one["epoch"] for one in epochs] == list(range(1, 10))
    told = sum(one["seconds"] + one["validation"] for one in epochs)
    assert 0 < told <= taken and all(0 <= one["waited"] <= one["seconds"] for one in epochs)
    assert epochs[-1]["error"] == 0.0
    assert race.optimizer.lr == pytest.approx(race.recipe.lr / 10)   # it fell after 8 of 10


def test_the_race_runs_in_a_process_of_its_own(monkeypatch, pictures):
    served = []
    monkeypatch.setattr(gpu_cifar, "serve", lambda *args: served.append(args))
    monkeypatch.setattr(gpu_cifar, "Race", lambda folder: types.SimpleNamespace(
        epoch=len, reading=1.5, train=[0] * 80, recipe=types.SimpleNamespace(epochs=10)))
    assert gpu_cifar.main(["--data", str(pictures)]) == 0
    assert served == [({"epoch": len}, {"reading": 1.5, "pictures": 80, "epochs": 10})]
