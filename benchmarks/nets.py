#!/usr/bin/env python
"""Whole nets, training and inference, tinyalex beside PyTorch: speed, memory, and the limit.

    python benchmarks/nets.py                       about a quarter of an hour
    python benchmarks/nets.py --nets 80sec,18pct

Both sides have the same weights, pictures, labels and recipe; before anything is timed they must
agree on the loss and on every gradient.
"""
import contextlib
import math
import os
import pathlib
import sys
import tempfile

from pairs import (Worker, WorkerFailed, alternate, ceilings, machine, need, note, parser, run,
                   save, show)
from tinyalex.train.console import Mistake

PROGRAM = "nets.py"
WORKER = pathlib.Path(__file__).with_name("worker.py")
SHORT = 1.0           # seconds: faster steps are repeated until one timing takes so long

# glibc keeps what was freed instead of handing it back to the system page by page, and asks for
# huge pages. NumPy asks for them by itself, so only PyTorch's side is ever given this.
TUNED = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4294967295:glibc.malloc.trim_threshold="
                           "17179869184:glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1"}

# What PyTorch's side is: the variant of its net, and whether its allocator is tuned.
OPPONENTS = {"default": ("default", False), "channels_last": ("channels_last", False),
             "tuned": ("default", True), "hand LRN, tuned": ("handwritten", True)}
TOLERANCE = {"default": 1e-3, "handwritten": 1e-3,
             "channels_last": 0.03}       # there LRN runs across the seam between the towers

# net: batches (None: the recipe's own), opponents
PLAN = {
    "paper": ((128, 32), ("default", "channels_last", "tuned", "hand LRN, tuned")),
    "paper-nolrn": ((128, 32), ("default", "tuned")),
    "80sec": ((None,), ("default", "tuned")),
    "18pct": ((None,), ("default", "tuned")),
    "mini32": ((None,), ("default", "tuned")),
    "mini64": ((None,), ("default", "tuned")),
}
QUICK = {"paper": ((32,), ("default",)), "mini32": ((None,), ("default",))}

# (net, batch, command, opponent): tinyalex over PyTorch, at least
GOALS = {
    ("paper", 128, "train", "default"): 1.45, ("paper", 128, "train", "tuned"): 1.05,
    ("paper", 128, "train", "hand LRN, tuned"): 0.9,
    ("paper", 128, "infer", "default"): 1.5, ("paper", 128, "infer", "tuned"): 1.05,
    ("paper-nolrn", 128, "train", "default"): 0.75,
    **{(net, batch, "train", "default"): 0.75
       for net, batch in (("80sec", 128), ("18pct", 128), ("mini32", 64), ("mini64", 64))}}
MEMORY_GOAL = 0.7     # tinyalex over PyTorch, at most, of the paper's net

SPEED = ["net", "batch", "what", "PyTorch", "tinyalex img/s", "PyTorch img/s", "ratio", "quartiles",
         "goal"]
MEMORY = ["net", "batch", "PyTorch", "tinyalex MB", "PyTorch MB", "ratio", "goal"]
LIMIT = ["net", "batch", "what", "GFLOP", "tinyalex GFLOP/s", "of sgemm", "PyTorch GFLOP/s",
         "of sgemm"]


# ---------------------------------------------------------------------------- a pair

@contextlib.contextmanager
def exported(net, batch=None):
    """Write what both sides load; gives (file, facts), and takes the file away in the end.

    Parameters
    ----------
    net : str
        One of worker.NETS.
    batch : int, optional
        The recipe's where None.
    """
    with tempfile.TemporaryDirectory(prefix="tinyalex-") as folder:
        file = os.path.join(folder, "net.npz")
        argv = [WORKER, "export", net, "--data", file] + (["--batch", batch] if batch else [])
        with Worker(argv, name=f"export {net}") as worker:
            facts = worker.facts
        yield file, facts


@contextlib.contextmanager
def contest(file, facts, variant="default", tuned=False, threads=None):
    """Start both sides and see that they compute the same; gives workers (tinyalex, torch)."""
    more = ["--threads", threads] if threads else []
    with Worker([WORKER, "tinyalex", facts["net"], "--data", file, *more], name="tinyalex") as ours:
        with Worker([WORKER, "torch", facts["net"], "--data", file, "--variant", variant, *more],
                    TUNED if tuned else None, name="torch") as theirs:
            worst, name = disagreement(ours.run("check"), theirs.run("check"))
            if not worst <= TOLERANCE[variant]:
                raise WorkerFailed(f"{facts['net']}: the two sides differ by {worst:.2g} in the "
                                   f"{name}; what is not the same is not timed")
            yield ours, theirs


def disagreement(a, b):
    """Return the largest relative difference between two answers to "check", and where it is.

    >>> disagreement({"loss": 2.0, "norms": {"w": 1.0}}, {"loss": 2.0, "norms": {"w": 1.5}})
    (0.5, 'gradient of w')
    """
    if a["norms"].keys() != b["norms"].keys():
        return math.inf, "list of parameters"
    pairs = {"loss": (a["loss"], b["loss"]),
             **{f"gradient of {name}": (a["norms"][name], b["norms"][name]) for name in a["norms"]}}
    differences = {name: abs(x - y) / abs(x) if x else abs(y) for name, (x, y) in pairs.items()}
    name = max(differences, key=lambda n: math.inf if math.isnan(differences[n]) else
               differences[n])
    return differences[name], name


def time_both(ours, theirs, command, rounds):
    """Time "train" or "infer" by turns; short steps are repeated, as often on both sides."""
    for _ in range(2):                # never counted: memory is found, and a tuned allocator fills
        slower = max(worker.run(command)["seconds"] for worker in (ours, theirs))
    count = max(1, min(100, math.ceil(SHORT / slower)))
    return alternate(ours, theirs, rounds, f"{command} {count}", warmup=0)


# ---------------------------------------------------------------------------- the tables

def measure(plan, rounds):
    """Run all pairs of `plan`, one at a time, and return a list of plain records."""
    records = []
    for net, (batches, opponents) in plan.items():
        for batch in batches:
            note(f"{net}, batch {batch or 'of its recipe'}: writing weights and pictures")
            with exported(net, batch) as (file, facts):
                for opponent in opponents:
                    records.append(duel(file, facts, opponent, rounds))
    return records


def duel(file, facts, opponent, rounds):
    """Return the record of tinyalex against one opponent: training, memory, then inference."""
    net, batch = facts["net"], facts["batch"]
    with contest(file, facts, *OPPONENTS[opponent]) as (ours, theirs):
        train = time_both(ours, theirs, "train", rounds)
        memory = [worker.run("memory")["bytes"] for worker in (ours, theirs)]
        infer = time_both(ours, theirs, "infer", rounds)
        note(f"  PyTorch {opponent}: training {train.ratio:.2f}, inference {infer.ratio:.2f}")
        return {"net": net, "batch": batch, "opponent": opponent, "memory": memory,
                "threads": [ours.facts["threads"], theirs.facts["threads"]],
                "flop": {"train": facts["flop_train"], "infer": facts["flop_infer"]},
                "train": train.to_dict(), "infer": infer.to_dict(),
                "medians": {"train": [train.median_a, train.median_b],
                            "infer": [infer.median_a, infer.median_b]}}


def speed_rows(records, command):
    """Return the rows of images per second."""
    rows = []
    for r in records:
        goal = GOALS.get((r["net"], r["batch"], command, r["opponent"]))
        a, b = r["medians"][command]
        rows.append([r["net"], r["batch"], command, r["opponent"], r["batch"] / a, r["batch"] / b,
                     r[command]["ratio"], f"{r[command]['low']:.2f} - {r[command]['high']:.2f}",
                     f">= {goal}" if goal else ""])
    return rows


def memory_rows(records):
    """Return the rows of the most memory held in training."""
    return [[r["net"], r["batch"], r["opponent"], r["memory"][0] / 1e6, r["memory"][1] / 1e6,
             r["memory"][0] / r["memory"][1],
             f"<= {MEMORY_GOAL}" if r["net"] == "paper" and r["opponent"] == "default" else ""]
            for r in records]


def limit_rows(records, sgemm):
    """Return the rows that hold each net's arithmetic against the measured matrix product."""
    rows = []
    for r in records:
        for command in ("train", "infer"):
            if r["opponent"] == "default":
                flop = r["flop"][command] / 1e9
                a, b = (flop / seconds for seconds in r["medians"][command])
                rows.append([r["net"], r["batch"], command, flop, a, f"{100 * a / sgemm:.0f} %", b,
                             f"{100 * b / sgemm:.0f} %"])
    return rows


def main(argv=None):
    """Measure, show and write."""
    flags = parser(PROGRAM, "Time whole nets, tinyalex beside PyTorch.", rounds=5)
    flags.add_argument("--nets", metavar="NET,NET", help=f"some of {','.join(PLAN)}; default: all")
    args = flags.parse_args(argv)
    need("torch")
    plan = QUICK if args.quick else PLAN
    if args.nets:
        wanted = args.nets.split(",")
        unknown = [net for net in wanted if net not in PLAN]
        if unknown:
            raise Mistake(f"--nets {args.nets}: there is no {unknown[0]}; "
                          f"choose from {', '.join(PLAN)}")
        plan = {net: plan.get(net, PLAN[net]) for net in wanted}
    before = machine()                        # its load is that before ours
    rounds = min(args.rounds, 2) if args.quick else args.rounds
    limits = ceilings()
    records = measure(plan, rounds)
    tables = [
        ("Whole nets: training", SPEED, speed_rows(records, "train")),
        ("Whole nets: inference", SPEED, speed_rows(records, "infer")),
        ("Peak memory after training steps", MEMORY, memory_rows(records)),
        (f"Arithmetic against the sgemm peak, {limits['sgemm_gflops']:.0f} GFLOP/s", LIMIT,
         limit_rows(records, limits["sgemm_gflops"]))]
    for one in tables:
        show(*one)
    save("nets", {"machine": before, "rounds": rounds, "ceilings": limits, "records": records,
                  "tables": [dict(zip(("title", "columns", "rows"), one, strict=True))
                             for one in tables]}, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, PROGRAM))
