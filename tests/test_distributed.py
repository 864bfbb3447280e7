"""Many ranks train as one, and end as one. Each test starts mpiexec with a tiny net on the CPU."""
import dataclasses
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cards
import numpy as np
import pytest
import tiny_runs
from tinyalex import nn, optim
from tinyalex.train import console, restore
from tinyalex.train.buckets import buckets
from tinyalex.train.trainer import Trainer

ROOT = Path(__file__).parents[1]
WORKER = ROOT / "tests" / "dist" / "worker.py"
PROGRAM = ROOT / "examples" / "train_imagenet.py"
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent),
                                                        os.environ.get("PATH", "")]))
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is missing"),
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec"),
]
ENVIRONMENT = {**os.environ, "MPLBACKEND": "Agg", "TINYALEX_THREADS": "1"}
SMALL = ["--model", "mini", "--image-size", "32", "--workers", "0", "--print-freq", "1"]
RATE = 0.02              # of mini's recipe, for its batches of 64
EPOCH = 5                # steps of the worker's run: 37 pictures in batches of 8


def begin(ranks, *command, **settings):
    """Start a command on so many ranks."""
    return subprocess.Popen([MPIEXEC, "-n", str(ranks), sys.executable, *map(str, command)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=ENVIRONMENT, **settings)


def end(process, timeout=90):
    """Wait for the end; return exit code, output, errors. Nobody is left behind."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"did not end in {timeout} s: {process.communicate()}")
    return process.returncode, out, err


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two classes: 24 noisy pictures to learn from, 6 held out."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("data") / "pets", np.random.default_rng(0)
    for part, each in (("train", 12), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for i in range(each):
                picture = rng.integers(0, 150, (36, 36, 3), np.uint8)
                picture[..., label] += 100
                Image.fromarray(picture).save(folder / part / name / f"{i}.png")
    return folder


def work(ranks, folder, **told):
    """Run the worker; return exit code, output, errors and the seconds it took."""
    folder.mkdir(exist_ok=True)
    start = time.monotonic()
    code, out, err = end(begin(ranks, WORKER, json.dumps({"folder": str(folder), **told})))
    return code, out, err, time.monotonic() - start


def left(folder, ranks):
    """What each rank of a run has left: a dict of arrays for each."""
    return [dict(np.load(folder / f"rank-{rank}-of-{ranks}.npz")) for rank in range(ranks)]


def trained(ranks, folder, **told):
    """Run the worker to its good end, and return what each rank has left."""
    code, out, err, _ = work(ranks, folder, **told)
    assert code == 0, err
    return left(folder, ranks)


def weights(rank):
    return {name: array for name, array in rank.items() if name.startswith("model/")}


def farthest(a, b):
    """The largest difference of two ranks' weights, as a share of the largest weight."""
    return max(np.abs(x - b[name]).max() / np.abs(x).max() for name, x in weights(a).items())


def log(folder):
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k not in ("images_per_s", "waiting_for_data")}
            for row in rows]


# ---- any number of ranks trains the same net

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two epochs on 1, 2 and 4 ranks, two pictures broken; in float64."""
    folders = {n: tmp_path_factory.mktemp(f"on-{n}") for n in (1, 2, 4)}
    return {n: (folder, trained(n, folder, broken=[3, 20])) for n, folder in folders.items()}


@pytest.mark.parametrize("ranks", [2, 4])
def test_all_ranks_hold_the_same_bits(runs, ranks):
    first, *others = runs[ranks][1]
    for other in others:
        for name, array in weights(first).items():
            assert array.tobytes() == other[name].tobytes(), name
        assert np.array_equal(first["score"], other["score"])


@pytest.mark.parametrize("ranks", [2, 4])
def test_many_ranks_train_the_weights_of_one(runs, ranks):
    """With crops, color noise, dropout, a last batch of 5, and broken pictures.

    What is left is the order of sums: in float64 1e-13 of the largest weight.
    """
    one, many = runs[1][1][0], runs[ranks][1][0]
    assert farthest(one, many) < 1e-13
    assert np.allclose(one["score"], many["score"], rtol=1e-12)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_log_of_many_ranks_is_that_of_one(runs, ranks):
    ours, theirs = log(runs[1][0]), log(runs[ranks][0])
    assert len(ours) == len(theirs) > 6
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == b[key] if key == "kind" else a[key] == pytest.approx(b[key], rel=1e-5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_order_of_the_pictures_does_not_depend_on_the_ranks(runs, ranks):
    """The ranks' shares of each batch, one after the other, are what one rank sees."""
    one = runs[1][1][0]["shown"][37:]                       # first of all come the statistics
    many = [iter(rank["shown"][37:]) for rank in runs[ranks][1]]
    again = []
    for size in [8, 8, 8, 8, 5] * 2:
        share, rest = divmod(size, ranks)
        for rank, shown in enumerate(many):
            again += itertools.islice(shown, share + (rank < rest))
    assert again == one.tolist() and sorted(again[:37]) == list(range(37))


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, runs, before, after):
    """In the middle of an epoch, with the same pictures in the same order."""
    code, *_ = work(before, tmp_path, broken=[3, 20], fault="interrupt", at=EPOCH + 2)
    assert code == 130
    again = trained(after, tmp_path, broken=[3, 20], resume=True)
    assert farthest(runs[1][1][0], again[0]) < 1e-13
    shown = sorted(int(i) for rank in again for i in rank["shown"])
    whole = runs[1][1][0]["shown"][37 + 37 + 16:].tolist()  # all but two batches of epoch 2
    assert shown == sorted(whole) and len(shown) == 21
    for a, b in zip(log(runs[1][0])[-3:], log(tmp_path)[-3:], strict=True):
        assert a == {**a, **b} or a["loss"] == pytest.approx(b["loss"], rel=1e-9)


# ---- all end together, and say why

def test_an_exception_on_one_rank_ends_all(tmp_path):
    code, _, err, seconds = work(2, tmp_path, fault="raise")
    assert code == 1 and seconds < 30
    assert "worker.py (rank 1 of 2): ValueError ends all ranks: planted" in err
    assert 'raise ValueError("planted")' in err             # the traceback is there


def test_a_fault_of_all_ranks_is_told_once_and_ends_them_quietly(tmp_path):
    code, _, err, _ = work(4, tmp_path, fault="diverge")
    assert code == 1 and err.count("Diverged ends all ranks: planted") == 1
    assert "rank 0 of 4" in err and "rank 1 of 4" not in err and "MPI_Abort" not in err


def test_a_rank_that_hangs_says_where_and_ends_all(tmp_path):
    code, _, err, seconds = work(2, tmp_path, fault="hang", watchdog=2)
    assert code == 75 and seconds < 30
    assert "worker.py (rank 1 of 2): no progress for 2." in err and "(--watchdog 2)" in err
    assert "time.sleep(1000)" in err


def test_a_rank_that_is_frozen_is_missed_by_the_others(tmp_path):
    code, _, err, seconds = work(2, tmp_path, fault="freeze", watchdog=2)
    assert code == 75 and seconds < 30
    assert "worker.py (rank 0 of 2): has waited 3." in err and "one of them hangs" in err


@pytest.mark.parametrize("fault", ["kill", "exit"])
def test_a_rank_that_is_gone_ends_all(tmp_path, fault):
    code, out, err, seconds = work(2, tmp_path, fault=fault)
    assert code != 0 and seconds < 30
    word = {"kill": "Killed (signal 9)", "exit": "(rank 1 of 2): ended before the others"}[fault]
    assert word in out + err                                # the first is mpiexec's own


def test_weights_that_differ_are_found_and_named(tmp_path):
    """One bit of one weight of one rank of four."""
    code, _, err, _ = work(4, tmp_path, fault="flip")
    assert code == 1
    assert err.splitlines()[-1] == ("worker.py (rank 0 of 4): after step 4 the weights of rank 1 "
                                    "are not those of rank 0: inner.0.weight")


def test_they_are_found_before_they_are_saved(tmp_path):
    code, _, err, _ = work(2, tmp_path, fault="flip", check_freq=0)
    assert code == 1 and "after step 5 the weights of rank 1 are not those of rank 0: " in err
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_one_rank_that_is_asked_to_stop_stops_all_and_nothing_is_lost(tmp_path, runs):
    code, out, err, _ = work(2, tmp_path, fault="interrupt", broken=[3, 20])
    assert code == 130 and "step 4, None" in out
    again = trained(2, tmp_path, broken=[3, 20], resume=True)
    assert all(array.tobytes() == again[0][name].tobytes()
               for name, array in weights(runs[2][1][0]).items())


# ---- cards

@pytest.mark.parametrize(("how", "said"), [
    ("nccl", "gradients are summed between the cards, by NCCL"),
    ("shared", "ranks share a card: gradients are summed on the hosts, by MPI"),
    ("missing", "CuPy finds no NCCL library: gradients are summed on the hosts, by MPI"),
])
def test_gradients_on_cards_are_summed_between_them_or_on_the_hosts(how, said):
    """On the stand-in's cards, whose memory any copy that nothing orders would betray."""
    if cards.MISSING:
        pytest.skip(cards.MISSING)
    code, out, err = end(begin(2, ROOT / "tests" / "dist" / "averages.py", how))
    assert code == 0, err
    assert out.splitlines() == [str([said, [[1.25], [2.5], [0.0]]])] * 2


# ---- the command

def test_rank_0_alone_speaks_and_writes(tmp_path, data):
    code, out, err = end(begin(2, PROGRAM, "--distributed", "mpi", *SMALL, "--batch-size", 8,
                               "--max-steps", 2, "--data", data, "--ten-crop", cwd=tmp_path))
    assert code == 0 and err == ""
    for line in ("mini (paper) on 2 ranks: ", "2 steps of 8 pictures; ", "step 2/2: ", "left in "):
        assert out.count(line) == 1, line
    assert os.listdir(tmp_path) == ["runs"] and os.listdir(tmp_path / "runs") == ["pets-mini"]
    run = tmp_path / "runs" / "pets-mini"
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in rows] == [("train", 1), ("train", 2), ("val", 2),
                                                         ("ten-crop", 2)]
    assert sorted(os.listdir(run)) == ["checkpoints", "curves.png", "filters.png", "log.jsonl",
                                       "predictions.png"]
    assert len(list(run.glob("checkpoints/step-*"))) == 1


def test_a_small_alexnet_learns_the_same_on_two_ranks_up_to_sums(tmp_path, data):
    """In float32, as it is used: after 6 steps 1e-5 of a parameter's largest weight."""
    weights = []
    for ranks in (1, 2):
        run = tmp_path / f"on-{ranks}"
        code, _, err = end(begin(ranks, PROGRAM, "--distributed", "mpi", *SMALL, "--batch-size", 8,
                                 "--max-steps", 6, "--output-dir", run, "--data", data,
                                 "--lr-warmup-epochs", 1, "--scale-lr", cwd=tmp_path))
        assert code == 0, err
        _, arrays, meta = restore.read(run)
        weights.append(restore.part(arrays, "model"))
    one, two = weights
    differences = [np.abs(one[k] - two[k]).max() / np.abs(one[k]).max() for k in one]
    assert 0 < max(differences) < 1e-5
    assert meta["recipe"]["lr"] == pytest.approx(RATE * 8 / 64)


@pytest.mark.parametrize(("flags", "message"), [
    (["--batch-size", 10], "--batch-size 10: 4 ranks cannot share it equally; 8 or 12 would do"),
    (["--batch-size", 8, "--gpus", "0"], "--gpus 0: with --distributed each rank takes the card "
     "of its own number on its machine; leave it out"),
    (["--resume", "nowhere"], "nowhere: there is no such file"),
])
def test_a_mistake_is_one_line(tmp_path, flags, message):
    code, out, err = end(begin(4, PROGRAM, "--distributed", "mpi", *SMALL, *flags, cwd=tmp_path))
    assert code == 2 and out == ""
    assert err == f"train_imagenet.py (rank 0 of 4): {message}\n"
    assert os.listdir(tmp_path) == []


def test_ctrl_c_saves_and_ends_all(tmp_path, data):
    process = begin(2, PROGRAM, "--distributed", "mpi", *SMALL, "--batch-size", 8, "--data", data,
                    "--epochs", 5000, cwd=tmp_path)
    for line in process.stdout:
        if "step 3/" in line:
            break
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == 130
    assert "and saved; go on with\n  mpiexec -n 2 " in out
    assert out.rstrip().endswith("--resume runs/pets-mini --distributed mpi")
    assert len(list(tmp_path.glob("runs/pets-mini/checkpoints/step-*"))) == 1


def test_without_mpi4py_one_line_says_what_to_install(tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('No module: planted')")
    done = subprocess.run([sys.executable, PROGRAM, "--distributed", "mpi"], text=True,
                          capture_output=True, cwd=tmp_path, timeout=60,
                          env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == ("train_imagenet.py: --distributed mpi: No module: planted; "
                           "pip install -e '.[mpi]' brings mpi4py and an MPI\n")


# ---- rates

def rates_of(monkeypatch, folder, **settings):
    """The learning rate of each step of a tiny run that one process trains."""
    seen = []
    step = optim.SGD.step
    monkeypatch.setattr(optim.SGD, "step",
                        lambda self: (seen.append((self.lr, self.bias_lr)), step(self)))
    recipe = dataclasses.replace(tiny_runs.RECIPE, lr=0.1, bias_lr=0.2, milestones=(0.8,))
    trainer = tiny_runs.trainer(folder, recipe=recipe, steps=10, **settings)
    trainer._draw = lambda finished=False: None
    trainer.fit()
    return np.array(seen)


def test_the_rate_climbs_linearly_and_falls_as_ever(tmp_path, monkeypatch):
    plain = [0.1] * 8 + [0.01] * 2
    assert np.allclose(rates_of(monkeypatch, tmp_path / "a")[:, 0], plain)
    climbing = rates_of(monkeypatch, tmp_path / "b", warmup=1.2)              # of 5 steps: 6
    shares = np.minimum(1, np.arange(1, 11) / 6)
    assert np.allclose(climbing, np.multiply.outer(plain * shares, [1, 2]))


def test_the_rate_is_scaled_once_and_only_on_request(tmp_path, data, monkeypatch):
    monkeypatch.setattr(Trainer, "_draw", lambda self, finished=False: None)
    spec = importlib.util.spec_from_file_location("program", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    flags = [*SMALL, "--data", str(data), "--batch-size", "16", "--max-steps", "1",
             "--lr-epochs", "never"]
    for folder, more, expected in (("a", [], RATE), ("b", ["--scale-lr"], RATE / 4),
                                   ("c", ["--scale-lr", "--lr", "0.08"], 0.02)):
        folder = str(tmp_path / folder)
        program.main([*flags, *more, "--output-dir", folder])
        meta = restore.read(folder)[2]
        assert meta["recipe"]["lr"] == meta["optimizer"]["lr"] == pytest.approx(expected)
    program.main(["--resume", folder, "--max-steps", "2"])
    assert restore.read(folder)[2]["optimizer"]["lr"] == pytest.approx(0.02)
    with pytest.raises(console.Mistake, match="--scale-lr: the rate was settled"):
        program.main(["--resume", folder, "--scale-lr"])


# ---- parts

def test_buckets_hold_each_parameter_that_learns_once():
    params = [nn.Parameter(np.ones(n, np.float32)) for n in (5, 400, 3, 7)]
    params[2].requires_grad_(False)
    found = buckets(params, ranks=4, nbytes=100)
    assert [[p.size for p in bucket.params] for bucket in found] == [[7], [400], [5]]
    assert [len(bucket.flat) for bucket in found] == [8, 400, 8]


def test_a_rank_without_pictures_adds_nothing_to_the_gradients():
    p = nn.Parameter(np.ones(3, np.float32))
    (bucket,) = buckets([p], ranks=2)
    for grad, share, expected in ((7, 0.5, 3.5), (7, 0, 0), (np.nan, 0, 0), (None, 0.5, 0)):
        p.grad = None if grad is None else np.full(3, grad, np.float32)
        bucket.fill(share)
        bucket.hand_out()
        assert p.grad.tolist() == [expected] * 3
