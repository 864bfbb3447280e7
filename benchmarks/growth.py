#!/usr/bin/env python
"""How the time grows with the batch, and how it shrinks with a second thread.

    python benchmarks/growth.py                   about ten minutes, and a picture

The paper's whole net trains and infers on batches of 1, 2, 4, ..., 256 pictures, tinyalex and
PyTorch in turn, each with one thread and with two. A pair that takes long is repeated less often.
"""
import math
import os
import pathlib
import sys

import nets
import pairs
import sides
from tinyalex.train.console import Mistake

PROGRAM = "growth.py"
NET = "paper"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
THREADS = (1, 2)
WHAT = ("train", "infer")
SHORT = 0.3           # seconds: what is faster is repeated until one timing takes so long
BUDGET = 10.0         # seconds that the pairs of one figure should take together
COLUMNS = ["threads", "what", "batch", "tinyalex img/s", "PyTorch img/s", "tinyalex over PyTorch",
           "quartiles", "pairs"]
GAIN = ["what", "batch", "tinyalex", "PyTorch"]


def plan(seconds, rounds):
    """Return (steps in one timing, pairs), from the seconds of one step on either side.

    >>> plan((0.05, 0.1), rounds=7), plan((1.0, 2.0), rounds=7)
    ((3, 7), (1, 3))
    """
    steps = max(1, math.ceil(SHORT / max(seconds)))
    return steps, max(1, min(rounds, int(BUDGET / (steps * sum(seconds)))))


def one_figure(both, what, batch, rounds):
    """Return the pairs of one kind of step on one batch.

    The first step on a batch of a new size does not count, but where it takes so long that what is
    new about it is nothing: there it is one pair, and one more in the other order is the second.
    """
    ours, theirs = both
    first = [side.run(f"{what} {batch}")["seconds"] for side in both]
    if sum(first) > BUDGET:
        if rounds == 1:
            return pairs.Pairs(*([seconds] for seconds in first))
        second = pairs.alternate(theirs, ours, 1, f"{what} {batch}", warmup=0)
        return pairs.Pairs([first[0], *second.b], [first[1], *second.a])
    steps, n = plan(first, rounds)
    return pairs.alternate(ours, theirs, n, f"{what} {batch} {steps}", warmup=0)


def measure(file, batches, threads, rounds):
    """Return one plain record for each number of threads, kind of step and batch."""
    records = []
    for count in threads:
        with sides.contest(__file__, file, count) as both:
            for what in WHAT:
                for batch in batches:
                    found = one_figure(both, what, batch, rounds)
                    pairs.note(f"{PROGRAM}: {count} thread(s), {what} {batch}: {found.ratio:.2f}")
                    records.append({"threads": count, "what": what, "batch": batch,
                                    "pairs": len(found.a),
                                    "medians": [found.median_a, found.median_b],
                                    **found.to_dict()})
    return records


def speed_rows(records):
    """Return the rows of images per second."""
    return [[r["threads"], r["what"], r["batch"], *(r["batch"] / s for s in r["medians"]),
             r["ratio"], f"{r['low']:.2f} - {r['high']:.2f}", r["pairs"]] for r in records]


def gain_rows(records):
    """Return the rows of how many times faster the most threads are than the fewest."""
    seconds = {(r["threads"], r["what"], r["batch"]): r["medians"] for r in records}
    few, many = (pick(r["threads"] for r in records) for pick in (min, max))
    return [[what, batch, *(a / b for a, b in zip(slow, seconds[many, what, batch], strict=True))]
            for (threads, what, batch), slow in seconds.items() if threads == few < many]


def draw(records):
    """Return a figure: images per second over the batch, training and inference."""
    from tinyalex.viz import style

    figure = style.new_figure(8, 3.4, "images per second of the paper's net over the batch size, "
                              "tinyalex and PyTorch, by number of threads")
    for i, what in enumerate(WHAT):
        axes = figure.add_axes((0.08 + 0.48 * i, 0.17, 0.38, 0.7))
        for k, (side, color, marker) in enumerate((("tinyalex", style.BLUE, "o"),
                                                   ("PyTorch", style.VERMILLION, "s"))):
            for threads in sorted({r["threads"] for r in records}):
                line = [r for r in records if (r["what"], r["threads"]) == (what, threads)]
                name = f"{side}, {threads} thread{'s' * (threads > 1)}"
                axes.plot([r["batch"] for r in line],
                          [r["batch"] / r["medians"][k] for r in line], color=color, marker=marker,
                          markersize=4, linestyle="-" if threads > 1 else "--", label=name)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_ylim(bottom=0)
        axes.grid(color=style.FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("batch", fontsize=9)
        axes.set_ylabel("images per second", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_title({"train": "training", "infer": "inference"}[what], fontsize=10)
        if i == 0:
            axes.legend(fontsize=7, frameon=False, handlelength=4)
    return figure


def whole(name, text, most):
    """Return the numbers of a comma-separated flag, in order."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1 or numbers[-1] > most:
        raise Mistake(f"{name} {text}: expected whole numbers from 1 to {most} between commas")
    return numbers


def main(argv=None):
    """Measure, show, draw and write."""
    flags = pairs.parser(PROGRAM, "Time the paper's net over batch sizes and threads.", 7)
    flags.add_argument("--batches", metavar="N,N", default=",".join(map(str, BATCHES)),
                       help="default: %(default)s")
    flags.add_argument("--threads", metavar="N,N", default=",".join(map(str, THREADS)),
                       help="default: %(default)s")
    sides.add_flags(flags)
    args = flags.parse_args(argv)
    if args.serve:
        side = sides.open_side(args)
        pairs.serve(sides.sized(side), side.facts)
        return 0
    pairs.need("torch")
    batches = whole("--batches", args.batches, 4096)
    threads = whole("--threads", args.threads, os.cpu_count() or 1)
    if args.quick:
        batches = [n for n in batches if n <= 16][::2] or batches[:1]
    before = pairs.machine()                                # its load is that before ours
    rounds = min(args.rounds, 2) if args.quick else args.rounds
    with nets.exported(NET, max(batches[-1], sides.SMALL)) as (file, _):
        records = measure(file, batches, threads, rounds)
    tables = [("AlexNet over batch and threads", COLUMNS, speed_rows(records))]
    if len(threads) > 1:
        tables.append((f"{threads[-1]} threads over {threads[0]}", GAIN, gain_rows(records)))
    for one in tables:
        pairs.show(*one)
    path = pairs.save("growth", {
        "machine": before, "records": records,
        "tables": [dict(zip(("title", "columns", "rows"), one, strict=True)) for one in tables]},
        args.output)
    from tinyalex import viz

    pairs.note(f"drawn in {viz.save(draw(records), pathlib.Path(path).with_suffix('.png'))}")
    return 0


if __name__ == "__main__":
    sys.exit(pairs.run(main, PROGRAM))
