#!/usr/bin/env python
"""Fair pairs: two programs timed in turn, each in a process of its own, and what is made of it.

    python benchmarks/pairs.py        this machine, and what it can do at most

A laptop's clock, its neighbors and its memory drift by ten percent and more within minutes. So no
two figures here are compared that were not taken one right after the other: both sides run in
turn, the order is swapped every round, and what counts is the median of the rounds' ratios.
"""
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from host import machine, measure_ceilings
from report import WorkerFailed, cell, need, note, parser, run, save, show, table
from serving import peak_memory, serve
from tinyalex.train import console

__all__ = ["Pairs", "Worker", "WorkerFailed", "alternate", "ceilings", "cell", "machine", "need",
           "note", "parser", "peak_memory", "quartiles", "run", "save", "serve", "show", "table"]
QUIET = 0.15          # seconds in which threads of OpenMP and OpenBLAS stop spinning


# ---------------------------------------------------------------------------- processes

class Worker:
    """A child process that answers each line on its stdin with a line of JSON on its stdout.

    Use it in a ``with``; it ends with that, and by itself where the parent dies.

    Parameters
    ----------
    argv : list of str
        A Python file and its arguments; the file calls :func:`serve`.
    env : dict, optional
        Environment variables on top of the parent's.
    name : str
        For messages.

    Attributes
    ----------
    facts : dict
        What the child said of itself when it was ready.

    Raises
    ------
    WorkerFailed
    """

    def __init__(self, argv, env=None, name=""):
        self.name = name or os.path.basename(str(argv[0]))
        self._errors = tempfile.TemporaryFile()      # a pipe that nobody reads could fill up
        self._child = subprocess.Popen(
            [sys.executable, *map(str, argv)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, env={**os.environ, **(env or {})}, text=True)
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, command="step"):
        """Send a command (words after the first are its arguments) and return the answer."""
        try:
            self._child.stdin.write(command + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass                                     # the missing answer tells what happened
        return self._answer()

    def _answer(self):
        line = self._child.stdout.readline()
        if line:
            return json.loads(line)
        code = self._child.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        tail = [line for line in said if line.strip(" ^~")][-6:]
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            ended += " (out of memory?)"
        raise WorkerFailed(f"worker {self.name} {ended}: " + "\n  ".join(tail))

    def close(self):
        """End the child, whatever it is doing."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            try:
                stream.close()
            except BrokenPipeError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


# ---------------------------------------------------------------------------- pairs

class Pairs:
    """Seconds of side a and side b, round by round.

    Attributes
    ----------
    a, b : list of float
    ratios : list of float
        b over a in each round: above 1, a was faster.
    ratio, low, high : float
        Their median and quartiles.
    median_a, median_b : float
    """

    def __init__(self, a, b):
        if not a or len(a) != len(b):
            raise ValueError(f"Pairs: {len(a)} and {len(b)} times make no pairs")
        self.a, self.b = list(a), list(b)
        self.ratios = [y / x for x, y in zip(a, b, strict=True)]
        self.ratio = statistics.median(self.ratios)
        self.low, self.high = quartiles(self.ratios)
        self.median_a, self.median_b = statistics.median(a), statistics.median(b)

    def to_dict(self):
        """Return all of it as plain values, for JSON."""
        return {"a": self.a, "b": self.b, "ratio": self.ratio, "low": self.low, "high": self.high}


def quartiles(values):
    """Return the first and the third quartile.

    >>> quartiles([1, 2, 3, 4, 5])
    (2.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def alternate(a, b, rounds, command="step", pause=QUIET, warmup=1):
    """Let workers `a` and `b` run `command` in turn, and return the :class:`Pairs`.

    The order is swapped every round; `warmup` rounds come first and do not count. The parent only
    waits while a step runs, and for `pause` seconds before each, so that the threads of the side
    that has just stopped are asleep.
    """
    times = {a: [], b: []}
    for i in range(-warmup, rounds):
        for worker in (a, b) if i % 2 == 0 else (b, a):
            time.sleep(pause)
            seconds = worker.run(command)["seconds"]
            if i >= 0:
                times[worker].append(seconds)
    return Pairs(times[a], times[b])


def ceilings():
    """Measure what this machine can do at most, in a process of its own.

    Returns
    -------
    dict
        "sgemm_gflops": NumPy's best product of large squares in float32, on all cores;
        "copy_gbs": bytes read and written per second by all cores copying a large array.
    """
    with Worker([__file__, "--serve"], name="ceilings") as worker:
        return worker.run("ceilings")


def main(argv=None):
    """Show the machine and its ceilings."""
    flags = console.Parser(prog="pairs.py", description="Show this machine, and what it can do.")
    flags.add_argument("--serve", action="store_true", help="be the worker that measures it")
    if flags.parse_args(argv).serve:
        serve({"ceilings": measure_ceilings})
        return 0
    show("This machine", ["what", "is"], [[key, str(value)] for key, value in machine().items()])
    found = ceilings()
    show("What it can do", ["what", "at most"],
         [["float32 matrix product, GFLOP/s", found["sgemm_gflops"]],
          ["copy, read and written, GB/s", found["copy_gbs"]]])
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "pairs.py"))
