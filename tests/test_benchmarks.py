"""The benchmarks' own arithmetic and machinery: pairing, workers, tables. Nothing here is timed."""
import importlib
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import time

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))              # the scripts import each other as one folder

import host  # noqa: E402
import nets  # noqa: E402
import pairs  # noqa: E402
import worker as sides  # noqa: E402
from tinyalex.train.console import Mistake  # noqa: E402

FILES = sorted(FOLDER.glob("*.py"))
COMMANDS = ["all", "engine", "growth", "imports", "layers", "nets", "pairs"]
has_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None,
                               reason="PyTorch is not installed")


# ---------------------------------------------------------------------------- pairs

def test_the_ratio_is_the_median_of_the_rounds_ratios():
    made = pairs.Pairs([1.0, 10.0, 2.0], [2.0, 10.0, 16.0])
    assert made.ratios == [2.0, 1.0, 8.0]
    assert (made.ratio, made.low, made.high) == (2.0, 1.5, 5.0)
    assert (made.median_a, made.median_b) == (2.0, 10.0)         # whose ratio would be 5
    assert made.to_dict() == {"a": [1.0, 10.0, 2.0], "b": [2.0, 10.0, 16.0], "ratio": 2.0,
                              "low": 1.5, "high": 5.0}


def test_one_pair_is_its_own_median():
    made = pairs.Pairs([2.0], [3.0])
    assert (made.ratio, made.low, made.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("a, b", [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_what_makes_no_pairs_is_refused(a, b):
    with pytest.raises(ValueError, match="make no pairs"):
        pairs.Pairs(a, b)


class Fake:
    """A worker that notes when it was called."""

    def __init__(self, name, log, *seconds):
        self.name, self.log, self.seconds = name, log, iter(seconds)

    def run(self, command):
        self.log.append((self.name, command))
        return {"seconds": next(self.seconds)}


def test_sides_take_turns_and_the_first_rounds_do_not_count(monkeypatch):
    log = []
    monkeypatch.setattr(time, "sleep", log.append)
    a, b = Fake("a", log, 100.0, 1.0, 2.0, 3.0), Fake("b", log, 100.0, 2.0, 8.0, 9.0)
    made = pairs.alternate(a, b, 3, "train 4", pause=0.5)
    assert (made.a, made.b) == ([1.0, 2.0, 3.0], [2.0, 8.0, 9.0])
    assert log[::2] == [0.5] * 8                                  # a pause before every step
    assert [name for name, _ in log[1::2]] == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {command for _, command in log[1::2]} == {"train 4"}


def test_short_steps_are_repeated_as_often_on_both_sides(monkeypatch):
    log = []
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    a, b = Fake("a", log, 9.0, 0.2, 1.0), Fake("b", log, 9.0, 0.4, 1.0)
    nets.time_both(a, b, "infer", 1)
    assert log == [("a", "infer"), ("b", "infer")] * 2 + [("a", "infer 3"), ("b", "infer 3")]


# ---------------------------------------------------------------------------- workers

STUB = f"""
import os, sys, time
sys.path.insert(0, {str(FOLDER)!r})
from serving import serve
if "broken" in sys.argv:
    raise ValueError("cannot be built")

def step(count="1"):
    print("a library says hello")
    os.write(1, b"and so does one written in C")
    return {{"seconds": 0.5 * int(count), "mood": os.environ.get("MOOD")}}

def wrong():
    raise RuntimeError("what a pity")

serve({{"step": step, "wrong": wrong, "die": lambda: os.kill(os.getpid(), 9),
       "sleep": lambda: time.sleep(60)}}, {{"threads": 2, "pid": os.getpid()}})
"""


@pytest.fixture
def stub(tmp_path):
    path = tmp_path / "stub.py"
    path.write_text(STUB)
    return path


def is_there(pid):
    """Whether a process runs; one that ended and was not asked for its end is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_answers(stub):
    with pairs.Worker([stub], {"MOOD": "good"}) as one:
        assert (one.facts["ready"], one.facts["threads"], one.name) == (True, 2, "stub.py")
        assert one.run() == {"seconds": 0.5, "mood": "good"}
        assert one.run("step 3")["seconds"] == 1.5
        assert is_there(one.facts["pid"])
    assert not is_there(one.facts["pid"])


def test_two_workers_make_pairs(stub):
    with pairs.Worker([stub], name="a") as a, pairs.Worker([stub], name="b") as b:
        made = pairs.alternate(a, b, 2, pause=0)
    assert made.ratios == [1.0, 1.0]


@pytest.mark.parametrize("argv, command, message", [
    (["broken"], "step", "worker it ended with exit code 1: .*ValueError: cannot be built"),
    ([], "wrong", "worker it ended with exit code 1: .*RuntimeError: what a pity"),
    ([], "unheard-of", "worker it ended with exit code 1: .*KeyError: 'unheard-of'"),
    ([], "die", "worker it was killed by signal 9"),
])
def test_a_workers_end_is_told_with_its_reason(stub, argv, command, message):
    with pytest.raises(pairs.WorkerFailed, match=f"(?s){message}"):
        with pairs.Worker([stub, *argv], name="it") as one:
            one.run(command)


def test_a_worker_ends_in_the_middle_of_a_step(stub):
    with pytest.raises(KeyboardInterrupt):
        with pairs.Worker([stub]) as one:
            one._child.stdin.write("sleep\n")
            one._child.stdin.flush()
            raise KeyboardInterrupt
    assert not is_there(one.facts["pid"])


def test_a_worker_does_not_outlive_its_parent(stub):
    parent = (f"import sys, os; sys.path.insert(0, {str(FOLDER)!r}); from pairs import Worker\n"
              f"one = Worker([{str(stub)!r}]); print(one.facts['pid'], flush=True)\n"
              "os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True,
                          timeout=60)
    pid = int(done.stdout)
    for _ in range(600):
        if not is_there(pid):
            return
        time.sleep(0.1)
    pytest.fail("it is still there")


# ---------------------------------------------------------------------------- what is shown

def test_a_table_reads_as_text_and_as_markdown(capsys):
    text = pairs.show("Speed", ["net", "img/s", "n"], [["paper", 43.21, 128], ["x", None, 1234]])
    assert text == ("**Speed**\n\n"
                    "| net   | img/s |     n |\n"
                    "|-------|------:|------:|\n"
                    "| paper |  43.2 |   128 |\n"
                    "| x     |       | 1,234 |")
    assert capsys.readouterr().out == f"\n{text}\n"


def test_a_result_says_where_and_when(tmp_path, capsys):
    path = pairs.save("some", {"tables": [], "rounds": 3}, tmp_path / "new" / "some.json")
    found = json.loads(path.read_text())
    assert (found["name"], found["rounds"], found["tables"]) == ("some", 3, [])
    assert found["machine"]["cores"] >= 1 and "NumPy" in found["machine"] and found["date"]


def test_the_machine_is_described():
    found = pairs.machine()
    assert {"cores", "Python", "NumPy", "tinyalex"} <= set(found) and all(found.values())
    assert json.loads(json.dumps(found)) == found
    assert pairs.peak_memory() > 2**24


def test_the_ceilings_are_measured_in_a_process_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "measure_ceilings", None)           # not in this one
    stand_in = tmp_path / "pairs.py"
    stand_in.write_text(STUB.replace('{"step"', '{"ceilings": lambda: {"copy_gbs": 1}, "step"'))
    monkeypatch.setattr(pairs, "__file__", str(stand_in))
    assert pairs.ceilings() == {"copy_gbs": 1}


def result(name, cpu="fast", load="1.0"):
    return {"name": name, "date": "2030-01-02", "rounds": 5, "machine": {"CPU": cpu, "load": load},
            "tables": [{"title": f"T {name}", "columns": ["a"], "rows": [[1.5]]}]}


def test_the_readme_gets_all_tables():
    text = importlib.import_module("all").tables([result("nets"), result("layers", load="2.0")])
    assert text.count("fast") == 1 and "load" not in text and "another machine" not in text
    assert text.index("### nets.py") < text.index("**T nets**") < text.index("### layers.py")
    assert "Measured on 2030-01-02, 5 rounds." in text


def test_the_readme_says_what_was_measured_elsewhere():
    text = importlib.import_module("all").tables([result("nets"), result("layers", cpu="slow")])
    assert "On another machine than above: CPU: slow." in text


def test_tables_go_between_the_markers():
    script = importlib.import_module("all")
    text = script.README.read_text()
    once = script.between_markers(text, "new")
    assert script.between_markers(once, "new") == once            # and the rest stays as it is
    assert once.split(script.BEGIN)[0] == text.split(script.BEGIN)[0]
    assert once.split(script.END)[1] == text.split(script.END)[1]
    with pytest.raises(Mistake, match="no place for the tables"):
        script.between_markers(text.replace(script.END, ""), "new")


# ---------------------------------------------------------------------------- command lines

@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_one_line(name, capsys):
    script = importlib.import_module(name)
    assert pairs.run(script.main, f"{name}.py", ["--speling"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "--speling" in said.err


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("pairs", "imports")])
def test_without_pytorch_one_line_says_what_to_install(name, capsys, monkeypatch):
    script = importlib.import_module(name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda module, *args: None if module == "torch" else find(module, *args))
    assert pairs.run(script.main, f"{name}.py", ["--quick"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "pip install -e '.[bench]'" in said.err


@pytest.mark.parametrize("argv", [["--nets", "paper,vgg"], ["--rounds", "0"]])
def test_nets_refuses_what_it_does_not_know(argv):
    with pytest.raises(Mistake):
        nets.main(argv)


def test_a_failed_worker_is_no_traceback(capsys):
    def main(argv):
        raise pairs.WorkerFailed("worker a ended")

    assert pairs.run(main, "some.py", []) == 1
    assert capsys.readouterr().err == "some.py: worker a ended\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_can_be_read_at_one_sitting(path):
    lines = path.read_text().split("\n")
    assert len(lines) <= 301 and all(len(line) <= 100 for line in lines)


# ---------------------------------------------------------------------------- nets

def test_what_differs_is_found():
    def answer(loss=2.0, **norms):
        return {"loss": loss, "norms": {"w": 1.0, "b": 4.0, **norms}}

    assert nets.disagreement(answer(), answer()) == (0.0, "loss")
    assert nets.disagreement(answer(), answer(b=5.0)) == (0.25, "gradient of b")
    assert nets.disagreement(answer(), answer(loss=1.0, b=5.0)) == (0.5, "loss")
    assert nets.disagreement(answer(), answer(more=1.0))[0] == math.inf
    assert math.isnan(nets.disagreement(answer(), answer(w=math.nan))[0])


def test_a_pair_that_differs_is_not_timed(monkeypatch):
    class Stub:
        def __init__(self, argv, env=None, name=""):
            self.facts, self.name = {"env": env}, name

        def run(self, command):
            return {"loss": {"tinyalex": 2.0, "torch": 2.01}[self.name], "norms": {}}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(nets, "Worker", Stub)
    what = "paper: the two sides differ by 0.005 in the loss"
    with pytest.raises(pairs.WorkerFailed, match=what):
        with nets.contest("file", {"net": "paper"}):
            pytest.fail("it was handed out")
    with nets.contest("file", {"net": "paper"}, "channels_last", True) as (ours, theirs):
        assert (ours.facts, theirs.facts) == ({"env": None}, {"env": nets.TUNED})


def test_rows_are_made_of_records():
    times = {"a": [1.0], "b": [2.0], "ratio": 2.0, "low": 1.5, "high": 2.5}
    one = {"net": "paper", "batch": 128, "opponent": "default", "memory": [1e9, 2e9],
           "flop": {"train": 64e9, "infer": 32e9}, "train": times, "infer": times,
           "medians": {"train": [2.0, 4.0], "infer": [1.0, 2.0]}}
    other = {**one, "opponent": "channels_last"}
    assert nets.speed_rows([one, other], "train") == [
        ["paper", 128, "train", "default", 64.0, 32.0, 2.0, "1.50 - 2.50", ">= 1.45"],
        ["paper", 128, "train", "channels_last", 64.0, 32.0, 2.0, "1.50 - 2.50", ""]]
    assert nets.memory_rows([one, other]) == [
        ["paper", 128, "default", 1000.0, 2000.0, 0.5, "<= 0.7"],
        ["paper", 128, "channels_last", 1000.0, 2000.0, 0.5, ""]]
    assert nets.limit_rows([one, other], 64.0) == [
        ["paper", 128, "train", 64.0, 32.0, "50 %", 16.0, "25 %"],
        ["paper", 128, "infer", 32.0, 32.0, "50 %", 16.0, "25 %"]]


def test_every_goal_has_its_row():
    recipes = {"80sec": 128, "18pct": 128, "mini32": 64, "mini64": 64}
    rows = {(net, batch or recipes[net], command, opponent)
            for net, (batches, opponents) in nets.PLAN.items() for batch in batches
            for opponent in opponents for command in ("train", "infer")}
    assert set(nets.GOALS) <= rows
    assert set(nets.PLAN) == set(sides.NETS)


@pytest.fixture(scope="module")
def mini():
    with nets.exported("mini32", 4) as made:
        yield made


def test_operations_are_counted_from_the_shapes(mini):
    _, facts = mini
    conv1 = 15 * 15 * 32 * 3 * 5 * 5
    macs = conv1 + 2 * (7 * 7 * 48 * 16 * 25 + 3 * 3 * 64 * (96 + 64 + 64) * 9) \
        + 128 * 512 + 512 * 512 + 512 * 16
    assert facts["flop_infer"] == 4 * 2 * macs
    assert facts["flop_train"] == 4 * 2 * (3 * macs - conv1)


def test_tinyalexs_side(mini):
    file, facts = mini
    assert (facts["batch"], facts["dropout"], facts["momentum"]) == (4, 0.2, 0.9)
    with pairs.Worker([nets.WORKER, "tinyalex", "mini32", "--data", file, "--threads", 1]) as side:
        assert side.facts["threads"] == 1
        first, again = side.run("check"), side.run("check")
        assert first == again and abs(first["loss"] - math.log(16)) < 0.5
        assert len(first["norms"]) == 16 and all(first["norms"].values())
        trained = side.run("train 2")
        assert trained["seconds"] > 0 and trained["loss"] != first["loss"]
        assert side.run("infer 2")["seconds"] > 0 and side.run("memory")["bytes"] > 2**24
        assert side.run("check") != first                         # it has learned


@has_torch
@pytest.mark.parametrize("net, variant", [
    ("mini32", "default"), ("mini64", "channels_last"), ("mini64", "handwritten"),
    ("80sec", "default"), ("18pct", "default"),
    pytest.param("paper", "default", marks=pytest.mark.slow),
    pytest.param("paper-nolrn", "default", marks=pytest.mark.slow)])
def test_both_sides_compute_the_same(net, variant):
    with nets.exported(net, 4) as (file, facts):
        with nets.contest(file, facts, variant) as (ours, theirs):
            # dropout off, and the same recipe: after a step they must agree still
            for side in (ours, theirs):
                if not facts["dropout"]:
                    side.run("train 2")
            assert nets.disagreement(ours.run("check"), theirs.run("check"))[0] < \
                nets.TOLERANCE[variant]
            assert theirs.run("infer")["seconds"] > 0
