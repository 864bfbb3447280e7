"""The arithmetic of the benchmarks' rows: layers, engine, growth and imports. Nothing is timed."""
import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import models, nn
from tinyalex.tensor import Function
from tinyalex.train.console import Mistake

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))

import chains  # noqa: E402
import engine  # noqa: E402
import growth  # noqa: E402
import imports  # noqa: E402
import layers  # noqa: E402
import pairs  # noqa: E402
import sides  # noqa: E402
import watch  # noqa: E402
import worker  # noqa: E402


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None,
                              reason=f"{package} is not installed")


# ---------------------------------------------------------------------------- layers

CEILINGS = {"sgemm_gflops": 400.0, "copy_gbs": 20.0}
SMALL = {"conv1": [10, 100], "pool1": [0, 40], "fc8": [20, 10]}     # multiply-adds, numbers out


@pytest.fixture(scope="module")
def paper():
    return layers.both_towers(models.summary(models.alexnet(image_size=227)).rows)


def test_the_papers_operations_are_counted(paper):
    work = layers.flops(paper)
    forward, backward = (sum(work[direction].values()) for direction in ("forward", "backward"))
    assert work["forward"]["conv1"] == 2 * 55 * 55 * 96 * 11 * 11 * 3 == work["backward"]["conv1"]
    assert work["backward"]["conv2"] == 2 * work["forward"]["conv2"]
    assert forward == 2 * 724_406_816
    assert backward == 2 * forward - work["forward"]["conv1"]
    assert list(work["forward"]) == [f"conv{i}" for i in range(1, 6)] + ["fc6", "fc7", "fc8"]


def test_the_papers_bytes_are_counted(paper):
    moved = layers.traffic(paper)
    maps = 4 * 96 * 55 * 55                                  # conv1's, both towers, in float32
    pooled = 96 * 27 * 27
    assert (moved["forward"]["relu1"], moved["backward"]["relu1"]) == (2 * maps, 3 * maps)
    assert (moved["forward"]["norm1"], moved["backward"]["norm1"]) == (2 * maps, 3 * maps)
    assert moved["forward"]["pool1"] == moved["backward"]["pool1"] == maps + 5 * pooled
    assert moved["forward"]["drop6"] == 9 * 4096
    assert "relu8" not in moved["forward"] and "conv1" not in moved["forward"]


def test_what_the_other_side_fuses_joins_the_layer_before():
    seconds = {"forward": {"conv1": 1.0, "relu1": 2.0, "pool1": 4.0},
               "backward": {"pool1": 8.0, "relu1": 16.0, "conv1": 32.0}}
    assert layers.folded(seconds, ["conv1", "pool1"]) == {
        "forward": {"conv1": 3.0, "pool1": 4.0}, "backward": {"pool1": 8.0, "conv1": 48.0}}
    assert layers.folded(seconds, list(seconds["forward"])) == seconds


def test_a_layers_row():
    row = layers.line("conv1", ([2.0, 4.0, 6.0], [4.0, 4.0, 6.0]), 4, (200e9, 0), CEILINGS)
    assert row == ["conv1", 1000.0, 1000.0, 1.0, "1.00 - 1.50", 200.0, None, "50 %", "50 %"]
    row = layers.line("pool1", ([2.0], [8.0]), 4, (0, 5e9), CEILINGS)
    assert row == ["pool1", 500.0, 2000.0, 4.0, "4.00 - 4.00", None, 10.0, "50 %", "12 %"]
    row = layers.line("exchange", ([2.0], None), 4, (0, 0), CEILINGS)
    assert row == ["exchange", 500.0, None, None, "", None, None, "", ""]


def round_of(factor, rows, pictures=10):
    """One side's answer: each layer takes `factor`, and each direction one second besides."""
    total = factor * len(rows) + 1
    return {"pictures": pictures, "rows": {"forward": dict.fromkeys(rows, factor),
                                           "backward": dict.fromkeys(reversed(rows), factor)},
            "forward": total, "backward": total, "update": factor, "seconds": 2 * total + factor}


def test_the_tables_of_a_step():
    ours = [round_of(1.0, ["conv1", "pool1", "exchange", "fc8"])] * 2
    theirs = [round_of(2.0, ["conv1", "relu1", "pool1", "fc8"])] * 2
    forward, backward, whole = layers.tables(ours, theirs, SMALL, 50, CEILINGS)
    cells = {row[0]: row[1:4] for row in forward[2]}
    assert cells == {"conv1": [100.0, 400.0, 4.0], "pool1": [100.0, 200.0, 2.0],
                     "exchange": [100.0, None, None], "fc8": [100.0, 200.0, 2.0],
                     "the rest": [100.0, 100.0, None]}
    assert [row[0] for row in backward[2]] == [row[0] for row in forward[2]]
    assert [row[:3] for row in whole[2]] == [["forward", 500.0, 900.0], ["backward", 500.0, 900.0],
                                             ["update", 100.0, 200.0], ["step", 1100.0, 2000.0]]
    flop = 2 * 30 + 2 * (10 + 2 * 20)                        # forward, backward; of one picture
    assert whole[2][-1][5] == pytest.approx(flop / 1.1 / 1e9)
    assert whole[2][2][6] == pytest.approx(5 * 4 * 50 / 1e9)             # bytes in a second
    assert all(len(row) == len(columns) for _, columns, rows in (forward, backward, whole)
               for row in rows)


def test_sides_that_saw_different_batches_make_no_table():
    with pytest.raises(ValueError):
        layers.tables([round_of(1.0, ["conv1"])], [round_of(1.0, ["conv1"], 8)], SMALL, 5, CEILINGS)


@pytest.fixture
def watching(monkeypatch):
    for owner, name in ((Function, "__call__"), (Function, "run_backward"),
                        (nn.Module, "__call__")):
        monkeypatch.setattr(owner, name, getattr(owner, name))           # put back afterwards
    watched = watch.Watch()
    watch.watch_tinyalex(watched)
    return watched


def test_every_layer_of_tinyalex_is_watched(watching):
    net = models.mini(image_size=32)
    loss = F.cross_entropy(net(ta.Tensor(np.ones((2, 3, 32, 32), np.float32))), np.array([0, 1]))
    loss.backward()
    forward, backward = watching.seconds["forward"], watching.seconds["backward"]
    assert {f"conv{i}" for i in range(1, 6)} | {"fc6", "fc7", "fc8", "norm1", "pool5", "drop7",
                                                "exchange", "loss"} <= set(forward)
    assert not [row for row in forward if row not in backward]
    assert all(value > 0 for column in (forward, backward) for value in column.values())
    watching.clear()
    assert watching.seconds == {"forward": {}, "backward": {}}


def test_a_watched_step_has_the_same_bits(watching):
    def gradient():
        ta.manual_seed(0)
        net = models.mini(image_size=32)
        x = ta.Tensor(np.linspace(-1, 1, 2 * 3 * 32 * 32, dtype=np.float32).reshape(2, 3, 32, 32))
        F.cross_entropy(net(x), np.array([0, 1])).backward()
        return next(net.parameters()).grad

    seen = gradient()
    Function.__call__ = Function.__call__.__wrapped__
    Function.run_backward = Function.run_backward.__wrapped__
    nn.Module.__call__ = nn.Module.__call__.__wrapped__
    assert np.array_equal(seen, gradient()) and seen.any()


def test_an_op_outside_a_layer_gets_the_number_of_the_layer_before():
    watched = watch.Watch()
    asked = [("towers.0.conv2", "Conv2d"), ("", "ReLU"), ("towers.0.fc6", "Linear"), ("", "ReLU"),
             ("", "Concatenate"), ("", "CrossEntropy"), ("towers.0", "ReLU")]
    assert [watched.row(*one) for one in asked] == ["conv2", "relu2", "fc6", "relu6", "exchange",
                                                    "loss", "relu6"]


@needs("torch")
def test_every_layer_of_pytorch_is_watched():
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential()
    for name, layer in {"conv1": torch.nn.Conv2d(3, 4, 3), "relu1": torch.nn.ReLU(inplace=True),
                        "flatten": torch.nn.Flatten(), "fc6": torch.nn.Linear(16, 2)}.items():
        net.add_module(name, layer)
    watched, x, y = watch.Watch(), torch.ones(2, 3, 4, 4), torch.tensor([0, 1])
    torch.nn.functional.cross_entropy(net(x), y).backward()
    plain = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    backward = watch.watch_torch(watched, net)
    backward(torch.nn.functional.cross_entropy(net(x), y))
    rows = ["conv1", "relu1", "flatten", "fc6"]
    assert list(watched.seconds["forward"]) == rows
    assert list(watched.seconds["backward"]) == ["loss", *reversed(rows)]
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, net.parameters(), strict=True))


# ---------------------------------------------------------------------------- sides

def test_commands_take_so_many_pictures(monkeypatch):
    class Side:
        x, y = np.arange(10), np.arange(10)

    side = Side()
    monkeypatch.setattr(worker, "answer",
                        lambda s: {"train": lambda times="1": {"sum": int(s.x.sum()) * int(times)}})
    commands = sides.sized(side, {"step": lambda: {"last": int(side.y[-1])}})
    assert commands["train"]("3", "2") == {"pictures": 3, "sum": 6}
    assert commands["step"]("10") == {"pictures": 10, "last": 9}


def test_sides_that_differ_are_not_timed(monkeypatch):
    class Stub:
        def __init__(self, argv, env, name):
            self.env, self.name = env, name

        def run(self, command):
            return {"loss": {"tinyalex": 2.0, "torch": 2.1}[self.name], "norms": {}}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(sides, "Listening", Stub)
    with pytest.raises(pairs.WorkerFailed, match="differ by 0.05 in the loss"):
        with sides.contest("some.py", "file"):
            pytest.fail("it was handed out")


# ---------------------------------------------------------------------------- engine

def test_the_chains_gradients_are_known():
    y, gx, ga, gb = chains.expected(4)                       # ((x a + b) a + b)
    x, a, b = chains.START
    assert np.allclose([y, gx, ga, gb], [(x * a + b) * a + b, a * a, 2 * x * a + b, a + 1])


@pytest.mark.parametrize("side", ["tinyalex", *(pytest.param(name, marks=needs(name))
                                                for name in engine.SIDES[1:])])
@pytest.mark.parametrize("size", [0, 2])
def test_all_engines_run_the_same_chain(side, size, monkeypatch):
    monkeypatch.setattr(chains, "LENGTH", 20)
    limit = sys.getrecursionlimit()
    try:
        forward, backward, found = chains.MAKE[side]()(size)
    finally:
        sys.setrecursionlimit(limit)
    assert forward > 0 and backward > 0
    assert np.allclose(found, chains.expected(20), rtol=1e-5)


def test_every_side_has_its_chain():
    assert tuple(chains.MAKE) == engine.SIDES


def test_the_engines_table():
    paired = pairs.Pairs([2.0], [1.0])
    found = {size: (paired, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) for size in engine.SIZES}
    rows = engine.table({"torch": found, "mygrad": found})
    assert rows[:3] == [["one number", "tinyalex", 1.0, 2.0, 3.0, None, ""],
                        ["one number", "torch", 4.0, 5.0, 6.0, 0.5, "0.50 - 0.50"],
                        ["one number", "mygrad", 4.0, 5.0, 6.0, 0.5, "0.50 - 0.50"]]
    assert len(rows) == 9 and all(len(row) == len(engine.COLUMNS) for row in rows)


# ---------------------------------------------------------------------------- growth

@pytest.mark.parametrize("seconds, rounds, expected", [
    ((0.05, 0.1), 7, (3, 7)),              # repeated until a timing takes 0.3 s
    ((1.0, 1.0), 7, (1, 5)),               # ten seconds in all
    ((4.0, 5.0), 7, (1, 1)), ((0.001, 0.001), 3, (300, 3))])
def test_slow_pairs_are_repeated_less_often(seconds, rounds, expected):
    assert growth.plan(seconds, rounds) == expected


class Slow:
    """A worker whose steps take as long as they are told."""

    def __init__(self, *seconds):
        self.seconds, self.log = iter(seconds), []

    def run(self, command):
        self.log.append(command)
        return {"seconds": next(self.seconds)}


def test_the_first_step_of_a_size_counts_only_where_it_is_long(monkeypatch):
    monkeypatch.setattr(pairs.time, "sleep", lambda seconds: None)
    ours, theirs = Slow(9.0, 10.0), Slow(18.0, 30.0)
    found = growth.one_figure((ours, theirs), "train", 256, 7)
    assert (found.a, found.b, ours.log) == ([9.0, 10.0], [18.0, 30.0], ["train 256"] * 2)
    found = growth.one_figure((Slow(9.0), Slow(18.0)), "train", 256, 1)
    assert (found.a, found.b) == ([9.0], [18.0])
    ours, theirs = Slow(0.2, 0.1, 0.3), Slow(0.2, 0.1, 0.6)
    found = growth.one_figure((ours, theirs), "infer", 1, 2)
    assert (found.a, found.b) == ([0.1, 0.3], [0.1, 0.6])
    assert ours.log == ["infer 1", "infer 1 2", "infer 1 2"]


def record(threads, what, batch, a, b):
    return {"threads": threads, "what": what, "batch": batch, "pairs": 2, "medians": [a, b],
            "ratio": b / a, "low": 1.0, "high": 2.0}


RECORDS = [record(1, "train", 1, 4.0, 2.0), record(1, "infer", 1, 2.0, 1.0),
           record(2, "train", 1, 2.0, 1.5), record(2, "infer", 1, 1.0, 1.0)]


def test_growths_tables():
    rows = growth.speed_rows(RECORDS)
    assert rows[0] == [1, "train", 1, 0.25, 0.5, 0.5, "1.00 - 2.00", 2]
    assert len(rows[0]) == len(growth.COLUMNS)
    assert growth.gain_rows(RECORDS) == [["train", 1, 2.0, 2.0 / 1.5], ["infer", 1, 2.0, 1.0]]
    assert growth.gain_rows(RECORDS[:2]) == []


def test_growths_picture():
    figure = growth.draw(RECORDS)
    assert [axes.get_title() for axes in figure.axes] == ["training", "inference"]
    assert [len(axes.lines) for axes in figure.axes] == [4, 4]
    assert figure.alt_text


@pytest.mark.parametrize("text", ["", "0", "two", "1,-2", "1.5", "9"])
def test_wrong_lists_of_numbers_are_refused(text):
    with pytest.raises(Mistake, match="--batches"):
        growth.whole("--batches", text, 8)


def test_lists_of_numbers_are_put_in_order():
    assert growth.whole("--batches", "8,1,8", 8) == [1, 8]


# ---------------------------------------------------------------------------- imports

def test_imports_take_turns():
    log = []
    times = imports.in_turn(("a", "b"), 2, lambda name: log.append(name) or float(len(log)))
    assert log == ["a", "b", "b", "a", "a", "b"]
    assert times == {"a": [4.0, 5.0], "b": [3.0, 6.0]}                   # the first do not count


def test_the_table_of_imports():
    rows = imports.table({"nothing": [0.25, 0.25], "tinyalex": [0.5, 1.0], "torch": [2.0, 2.0]})
    assert rows == [["nothing", 250.0, None, 0.375, "0.31 - 0.44"],
                    ["tinyalex", 750.0, 500.0, None, ""],
                    ["torch", 2000.0, 1750.0, 3.0, "2.50 - 3.50"]]


def test_a_broken_import_is_told(monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: no such luck\n")
    monkeypatch.setattr(imports.subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(pairs.WorkerFailed, match="import torch: ImportError: no such luck"):
        imports.seconds("torch")
