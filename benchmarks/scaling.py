#!/usr/bin/env python
"""What a second rank brings here, and what a model says of up to 1024 ranks on named networks.

    python benchmarks/scaling.py                  about four minutes; needs the extra mpi

Measured: the paper's net and mini on one rank and on two, one thread each, every rank with the
same number of pictures. Calculated: the alpha-beta model of the all-reduce, with its assumptions.
"""
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import tinyalex as ta
from report import WorkerFailed, need, note, parser, run, save, show
from tinyalex import functional as F
from tinyalex import models, optim
from tinyalex.train import parallel
from tinyalex.train.console import Mistake

PROGRAM = "scaling.py"
NETS = {"alexnet": 32, "mini": 64}                 # pictures of a rank in one step
STEPS = 3                                          # of which a round takes the median, after one
COLUMNS = ["net", "pictures a rank", "MB", "1 rank img/s", "2 ranks img/s", "2 over 1",
           "quartiles", "all-reduce ms", "share of a step", "model says"]

# ---- the model
GRADIENTS = 60_965_224 * 4                         # bytes of the paper's net in float32
CONV_SHARE = 0.0383                                # of those bytes; fc6-8 have the rest ...
READY_LATE = 0.62                                  # ... and are ready with so much of a step to go
BATCH = 128                                        # pictures of a rank in one step
RATES = (300, 3000, 10_000)                        # pictures/s that a rank trains alone
RANKS = (2, 8, 64, 256, 1024)
NETWORKS = {                                       # GB/s that arrive, and seconds of latency
    "1 Gb Ethernet": (0.117, 30e-6), "10 Gb Ethernet": (1.1, 20e-6),
    "25 Gb Ethernet": (2.8, 15e-6), "100 Gb InfiniBand EDR": (11, 3e-6),
    "200 Gb InfiniBand HDR": (22, 2e-6), "400 Gb InfiniBand NDR": (44, 2e-6),
    "NVLink 4, one machine": (350, 2e-6)}
ASSUMPTIONS = [
    "ring: 2 (N - 1) / N S / B + 2 (N - 1) alpha; tree: 2 S / B + 2 ceil(log2 N) alpha; the "
    "faster of the two counts, as NCCL chooses",
    f"S = {GRADIENTS:,} bytes; B and alpha as the table of networks has them",
    f"each rank trains {BATCH} pictures a step, so the global batch grows with the ranks; what "
    "that does to learning is not part of it (beyond some thousands plain SGD learns worse)",
    "one after the other is what the program does: efficiency = compute / (compute + all-reduce)",
    f"overlapped is what it could win: fc6-8 are sent during the last {READY_LATE:.0%} of a step, "
    "half of the convolutions' sum stays visible",
    "no stragglers, no reading of pictures, no shared links; one rank a link"]


def all_reduce(ranks, bandwidth, latency, nbytes=GRADIENTS):
    """Return the seconds of one all-reduce; `bandwidth` in GB/s.

    >>> round(all_reduce(2, 1.0, 0.0, 10**9), 3), all_reduce(1, 1.0, 1.0)
    (1.0, 0.0)
    """
    if ranks == 1:
        return 0.0
    carry = nbytes / (bandwidth * 1e9)
    ring = 2 * (ranks - 1) / ranks * carry + 2 * (ranks - 1) * latency
    tree = 2 * carry + 2 * math.ceil(math.log2(ranks)) * latency
    return min(ring, tree)


def efficiency(compute, reduce, overlapped=False):
    """Return which share of its time a rank computes.

    >>> efficiency(1.0, 1.0), efficiency(1.0, 0.5, overlapped=True) > 0.98
    (0.5, True)
    """
    if overlapped:
        reduce = max(0.0, reduce - READY_LATE * compute) + reduce * CONV_SHARE / 2
    return compute / (compute + reduce)


def model_rows():
    """Return rows of the efficiency in percent, for each network and rate."""
    rows = []
    for name, (bandwidth, latency) in NETWORKS.items():
        for rate in RATES:
            compute = BATCH / rate
            cells = []
            for ranks in RANKS:
                seconds = all_reduce(ranks, bandwidth, latency)
                cells.append(f"{100 * efficiency(compute, seconds):.0f} / "
                             f"{100 * efficiency(compute, seconds, True):.0f}")
            rows.append([name, bandwidth, latency * 1e6, rate, *cells])
    return rows


# ---- what is measured

def rank(argv):
    """Make steps as one rank of those that mpiexec has started; rank 0 prints their seconds."""
    name, batch, steps = argv[0], int(argv[1]), int(argv[2])
    ranks = parallel.start("mpi", 300)
    ta.set_num_threads(1)
    ta.manual_seed(0)
    net, recipe = models.build(name, 1000 if name == "alexnet" else 16)
    optimizer = optim.SGD(net.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay)
    rng = np.random.default_rng(ranks.rank)
    side = recipe.image_size
    images = rng.standard_normal((batch, 3, side, side), np.float32) * (70 / recipe.input_scale)
    labels = rng.integers(0, 16, batch)
    found = []
    for _ in range(1 + steps):
        ranks.gather("ready")
        marks = [time.perf_counter()]
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        ranks.gather("ready")                      # so that waiting is not taken for carrying
        marks.append(time.perf_counter())
        ranks.average(optimizer.params, 1 / ranks.size)
        marks.append(time.perf_counter())
        optimizer.step()
        ranks.gather("done")
        found.append([b - a for a, b in zip(marks, [*marks[1:], time.perf_counter()],
                                            strict=True)])
    ranks.must_match(steps, net)
    nbytes = sum(p.size * p.dtype.itemsize for p in optimizer.params)
    print(json.dumps({"steps": found[1:], "bytes": nbytes}))
    ranks.finish()
    return 0


def start(ranks, name, batch, steps):
    """Return what :func:`rank` prints on so many ranks."""
    done = subprocess.run([mpiexec(), "-n", str(ranks), sys.executable, __file__, "--rank", name,
                           str(batch), str(steps)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkerFailed(f"{ranks} ranks ended with {done.returncode}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def mpiexec():
    """Return the mpiexec beside this Python, or another."""
    beside = pathlib.Path(sys.executable).parent
    found = shutil.which("mpiexec", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise Mistake("there is no mpiexec; pip install -e '.[mpi]' brings one")
    return found


def measure(rounds, steps):
    """Return one plain record for each net: the rounds' steps on one rank and on two, in turn."""
    records = []
    for name, batch in NETS.items():
        record = {"net": name, "batch": batch, "1": [], "2": []}
        for i in range(rounds):
            for ranks in (1, 2) if i % 2 == 0 else (2, 1):
                found = start(ranks, name, batch, steps)
                record[str(ranks)].append(found["steps"])
            note(f"{PROGRAM}: {name}, round {i + 1} of {rounds}")
        records.append({**record, "bytes": found["bytes"]})
    return records


def measured_row(record):
    """Return the row of a record: medians over the rounds of each round's median step."""
    def median(ranks, part):
        return [statistics.median(part(step) for step in steps) for steps in record[str(ranks)]]

    one, two = median(1, sum), median(2, sum)
    ratios = [2 * a / b for a, b in zip(one, two, strict=True)]
    low, high = np.percentile(ratios, [25, 75])
    reduce = statistics.median(median(2, lambda step: step[2]))
    alone, both = statistics.median(one), statistics.median(two)
    return [record["net"], record["batch"], record["bytes"] / 1e6, record["batch"] / alone,
            2 * record["batch"] / both, statistics.median(ratios), f"{low:.2f} - {high:.2f}",
            1e3 * reduce, reduce / both, 2 * efficiency(alone, reduce)]


def main(argv=None):
    """Measure, show and write; or be one rank of a measurement."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--rank"]:
        return rank(argv[1:])
    args = parser(PROGRAM, "Measure two ranks, and model up to 1024.", 5).parse_args(argv)
    need("mpi4py", extra="mpi")
    rounds, steps = (1, 1) if args.quick else (args.rounds, STEPS)
    records = measure(rounds, steps)
    tables = [
        ("1 and 2 ranks on this machine, one thread each", COLUMNS,
         [measured_row(record) for record in records]),
        (f"the model: efficiency in %, one after the other / overlapped, {BATCH} pictures a rank",
         ["network", "GB/s", "latency us", "img/s alone", *(f"{n:,} ranks" for n in RANKS)],
         model_rows())]
    for one in tables:
        show(*one)
    print("\nThe model assumes:", *ASSUMPTIONS, sep="\n- ")
    save("scaling", {
        "rounds": rounds, "records": records, "assumptions": ASSUMPTIONS,
        "tables": [dict(zip(("title", "columns", "rows"), one, strict=True)) for one in tables]},
        args.output)
    return 0


if __name__ == "__main__":
    code = (parallel.run if "--rank" in sys.argv else run)(main, PROGRAM, sys.argv[1:])
    sys.exit(code)
