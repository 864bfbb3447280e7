"""The benchmark of many ranks: what the model says, what a row is made of, that two ranks run."""
import importlib.util
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))

import report  # noqa: E402
import scaling  # noqa: E402

has_mpi = pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None,
                             reason="mpi4py is missing")


# ---------------------------------------------------------------------------- the model

def test_more_ranks_never_take_less_and_the_tree_wins_where_latency_counts():
    for bandwidth, latency in scaling.NETWORKS.values():
        seconds = [scaling.all_reduce(n, bandwidth, latency) for n in (1, *scaling.RANKS)]
        assert seconds == sorted(seconds) and seconds[0] == 0
    ring = 2 * 1023 / 1024 * scaling.GRADIENTS / 44e9 + 2 * 1023 * 2e-6
    tree = 2 * scaling.GRADIENTS / 44e9 + 2 * 10 * 2e-6
    assert scaling.all_reduce(1024, 44, 2e-6) == pytest.approx(tree) and tree < ring
    assert scaling.all_reduce(2, 44, 2e-6) == pytest.approx(scaling.GRADIENTS / 44e9 + 4e-6)


@pytest.mark.parametrize("network, rate, ranks, expected", [
    ("1 Gb Ethernet", 300, 8, "10 / 11"), ("10 Gb Ethernet", 300, 64, "49 / 70"),
    ("25 Gb Ethernet", 3000, 8, "22 / 25"), ("100 Gb InfiniBand EDR", 3000, 1024, "49 / 69"),
    ("400 Gb InfiniBand NDR", 3000, 8, "81 / 100"),
    ("NVLink 4, one machine", 3000, 64, "97 / 100")])
def test_the_table_of_the_model(network, rate, ranks, expected):
    row = next(r for r in scaling.model_rows() if r[0] == network and r[3] == rate)
    assert row[4 + scaling.RANKS.index(ranks)] == expected


def test_the_model_counts_the_papers_net():
    from tinyalex import models
    layers = {name: p.size for name, p in models.alexnet().named_parameters()}
    convolutions = sum(n for name, n in layers.items() if "conv" in name)
    assert 4 * sum(layers.values()) == scaling.GRADIENTS
    assert convolutions / sum(layers.values()) == pytest.approx(scaling.CONV_SHARE, abs=5e-5)
    assert scaling.efficiency(0.1, 0.05, overlapped=True) > scaling.efficiency(0.1, 0.05)


# ---------------------------------------------------------------------------- rows

def steps(*each):
    """Rounds of steps: what computes, waits, carries and updates."""
    return [[list(step) for step in round] for round in each]


def test_a_row_is_made_of_the_medians_of_each_rounds_steps():
    record = {"net": "mini", "batch": 10, "bytes": 2_000_000,
              "1": steps([(0.9, 0, 0, 0.1)] * 3, [(1.9, 0, 0, 0.1)] * 3),
              "2": steps([(0.9, 0.1, 0.2, 0.1), (0.7, 0.1, 0.1, 0.1), (9, 9, 9, 9)],
                         [(1.9, 0.5, 0.5, 0.1)] * 3)}
    row = scaling.measured_row(record)
    assert len(row) == len(scaling.COLUMNS)
    assert row[:4] == ["mini", 10, 2.0, pytest.approx(10 / 1.5)]
    assert row[4] == pytest.approx(20 / 2.15)                     # of 1.3 and 3.0 seconds
    assert row[5] == pytest.approx((2 / 1.3 + 4 / 3) / 2)         # ratios by round, then the median
    assert row[7] == pytest.approx(350) and row[8] == pytest.approx(0.35 / 2.15)


# ---------------------------------------------------------------------------- the program

@has_mpi
def test_two_ranks_make_the_same_steps():
    found = scaling.start(2, "mini", 4, 2)
    assert len(found["steps"]) == 2 and all(len(step) == 4 for step in found["steps"])
    assert all(seconds > 0 for step in found["steps"] for seconds in step)
    assert found["bytes"] > 2_000_000


@has_mpi
def test_a_rank_that_fails_is_one_message():
    with pytest.raises(report.WorkerFailed, match="2 ranks ended with"):
        scaling.start(2, "no such net", 4, 1)


def test_the_whole_program(tmp_path, monkeypatch, capsys):
    def start(ranks, name, batch, count):
        return {"steps": [[1.0, 0.0, 0.25 * (ranks - 1), 0.0]] * count, "bytes": 8_000_000}

    monkeypatch.setattr(scaling, "start", start)
    monkeypatch.setattr(scaling, "need", lambda *packages, extra: None)
    output = tmp_path / "out.json"
    assert report.run(scaling.main, "scaling.py", ["--rounds", "2", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    measured, model = found["tables"]
    assert all(row[5] == row[9] == 1.6 for row in measured["rows"])
    assert len(model["rows"]) == len(scaling.NETWORKS) * len(scaling.RATES)
    out = capsys.readouterr().out
    assert all(assumption in out for assumption in scaling.ASSUMPTIONS)


@pytest.mark.parametrize("argv", [["--speling"], ["--rounds", "0"]])
def test_a_mistake_is_one_line(argv, capsys):
    assert report.run(scaling.main, "scaling.py", argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and argv[0] in said.err


@pytest.mark.parametrize("missing", ["mpi4py", "mpiexec"])
def test_without_mpi_one_line_says_what_to_install(missing, monkeypatch, capsys):
    if missing == "mpi4py":
        monkeypatch.setattr(importlib.util, "find_spec", lambda *args: None)
    else:
        monkeypatch.setattr(scaling, "need", lambda *packages, extra: None)
        monkeypatch.setattr(scaling.shutil, "which", lambda *args, **how: None)
    assert report.run(scaling.main, "scaling.py", ["--quick"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and missing in said.err and "'.[mpi]'" in said.err
