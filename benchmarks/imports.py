#!/usr/bin/env python
"""How long ``import tinyalex`` takes, beside what it stands on and what it is compared with.

    python benchmarks/imports.py

Each time is that of a whole fresh process, ``python -c "import X"``, and so holds the start of
Python itself; the first line of the table says how much that is.
"""
import functools
import importlib.util
import pathlib
import subprocess
import sys
import time

import pairs

PROGRAM = "imports.py"
ROOT = pathlib.Path(__file__).resolve().parent.parent
BARE = "nothing"
NAMES = (BARE, "numpy", "tinyalex", "torch", "mygrad", "micrograd")
COLUMNS = ["import", "ms", "without Python's start", "over tinyalex", "quartiles"]


def seconds(name):
    """Return the seconds that a fresh process takes to import `name`."""
    code = "pass" if name == BARE else f"import {name}"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise pairs.WorkerFailed(f"import {name}: {said}")
    return taken


def in_turn(names, rounds, measure=seconds):
    """Measure all `names` once per round, every second round backward; return lists of seconds.

    The first round does not count: it fills the disk's cache and writes the compiled files.
    """
    times = {name: [] for name in names}
    for i in range(-1, rounds):
        for name in names if i % 2 else reversed(names):
            taken = measure(name)
            if i >= 0:
                times[name].append(taken)
    return times


def table(times):
    """Return the rows: each name's median beside the median of its ratios to tinyalex."""
    paired = functools.partial(pairs.Pairs, times["tinyalex"])
    start = paired(times[BARE]).median_b
    rows = []
    for name, taken in times.items():
        pair = paired(taken)
        own = name == "tinyalex"
        rows.append([name, 1e3 * pair.median_b,
                     None if name == BARE else 1e3 * (pair.median_b - start),
                     None if own else pair.ratio,
                     "" if own else f"{pair.low:.2f} - {pair.high:.2f}"])
    return rows


def main(argv=None):
    """Measure, show the table and write it down."""
    flags = pairs.parser(PROGRAM, "Time import tinyalex and others in fresh processes.", 15)
    args = flags.parse_args(argv)
    names = [name for name in NAMES if name == BARE or importlib.util.find_spec(name)]
    missing = sorted(set(NAMES) - set(names))
    if missing:
        pairs.note(f"{PROGRAM}: not installed, so left out: {', '.join(missing)}")
    before = pairs.machine()                                # its load is that before ours
    rounds = min(args.rounds, 3) if args.quick else args.rounds
    times = in_turn(names, rounds)
    title, rows = "import, in milliseconds of a fresh process", table(times)
    pairs.show(title, COLUMNS, rows)
    pairs.save("imports", {"machine": before, "rounds": rounds, "seconds": times,
                           "tables": [{"title": title, "columns": COLUMNS, "rows": rows}]},
               args.output)
    return 0


if __name__ == "__main__":
    sys.exit(pairs.run(main, PROGRAM))
