#!/usr/bin/env python
"""How fast pictures come in, beside PyTorch's DataLoader: from originals and from prepared stores.

    python benchmarks/loader.py --data DIR            DIR: some hundred pictures of ImageNet
    python benchmarks/loader.py --data DIR --cores 1 --rate 3000,6000 --quick

Both sides read the same files, all of them in the disk's cache: what is measured is the work, not
the disk. PyTorch has a process for each worker and one more, tinyalex has threads; both are kept to
as many cores as they have workers. Pictures a core are pictures per second of processor time, all
processes together: who else is at work on the machine weighs little on them. "By the clock" is the
ratio of the seconds that passed. In the end it says how many cores feed a GPU of a given speed.
It reads /proc, so it runs on Linux.
"""
import contextlib
import math
import os
import pathlib
import sys
import tempfile

import imports
import numpy as np
import pairs
from loader_side import BATCH, KINDS, SIZE, originals
from tinyalex.data import FileDataset, Subset, prepare
from tinyalex.train import console

PROGRAM = "loader.py"
SIDE = pathlib.Path(__file__).with_name("loader_side.py")
BATCHES = {"originals": 5, "jpeg": 15, "pixels": 50}       # batches in an epoch: some seconds
NAMES = {"originals": "originals", "jpeg": f"store of JPEGs, {SIZE} x {SIZE}",
         "pixels": "memory map of pixels"}
FORMATS = {"jpeg": "webdataset", "pixels": "memmap"}
WHAT = (("windows as float32, both", "floats", "floats", None),
        ("bytes for a GPU; PyTorch float32", "bytes", "floats", ">= 1.5"),
        ("bytes for a GPU, both", "bytes", "bytes", None))
COLUMNS = ["pictures from", "cores", "what is made", "tinyalex img/s a core",
           "PyTorch img/s a core", "ratio", "quartiles", "goal", "by the clock"]
RATES = (3000, 6000, 11000)
ALIKE = 10            # levels of 255 by which the mean colors of two random batches may differ


def stores(source, folder):
    """Prepare a store of each format; return where the pictures of each kind are."""
    names = originals(source)
    if not names:
        raise console.Mistake(f"--data {source}: there is no JPEG or PNG in this folder")
    dataset = FileDataset(source, names, np.zeros(len(names)), ["any"], resize=SIZE)
    found = {"originals": source}
    for kind, layout in FORMATS.items():
        found[kind] = os.path.join(folder, kind)
        prepare(dataset, Subset(dataset, range(1)), found[kind], SIZE, layout)
    return found


def measure(kind, source, cores, rounds, quick):
    """Let all sides serve epochs in turn.

    Returns
    -------
    dict of (str, str) to list of dict
        The answers by side and by what it makes, round by round; "busy" and "seconds" of a picture.
    """
    count = BATCH * BATCHES[kind] // (5 if quick else 1)
    flags = ["--kind", kind, "--source", source, "--count", count, "--cores", cores]
    with contextlib.ExitStack() as stack:
        workers = {(side, made): stack.enter_context(pairs.Worker(
            [SIDE, side, *flags, *(["--bytes"] if made == "bytes" else [])], name=side))
            for made in ("floats", "bytes") for side in ("tinyalex", "torch")}

        def epoch(name):
            answer = workers[name].run("epoch")
            return {**answer, **{key: answer[key] / count for key in ("busy", "seconds")}}

        found = imports.in_turn(list(workers), rounds, epoch)
    agree([answers[-1] for answers in found.values()])
    return found


def agree(answers):
    """Stop unless all served as many pictures, in batches of one shape, and about one color."""
    colors = np.array([answer["color"] for answer in answers])
    if len({(answer["pictures"], *answer["shape"]) for answer in answers}) > 1 or (
            np.ptp(colors, axis=0) > ALIKE).any():
        raise pairs.WorkerFailed(f"the sides do not serve the same: {answers}")


def rows(kind, cores, found):
    """Return the table's rows for one kind of files."""
    made = []
    for what, ours, theirs, goal in WHAT:
        busy, clock = (pairs.Pairs(*([answer[key] for answer in found[side]] for side in
                                     (("tinyalex", ours), ("torch", theirs))))
                       for key in ("busy", "seconds"))
        made.append([NAMES[kind], cores, what, 1 / busy.median_a, 1 / busy.median_b, busy.ratio,
                     f"{busy.low:.2f} - {busy.high:.2f}", goal, clock.ratio])
    return made


def cores_needed(table, rates):
    """Return rows that say how many cores keep up with a GPU, from :func:`rows` of most cores.

    >>> cores_needed([["map", 2, "bytes for a GPU, both", 900.0, 500.0, 1.8, "", None]], [3000])
    [['map', 900.0, 4, 500.0, 6]]
    """
    most = max(row[1] for row in table)
    return [[row[0], row[3], *(math.ceil(rate / row[3]) for rate in rates),
             row[4], *(math.ceil(rate / row[4]) for rate in rates)]
            for row in table if row[1] == most and row[2] == WHAT[2][0]]


def main(argv=None):
    """Measure, show the tables and write them down."""
    flags = pairs.parser(PROGRAM, "Time how pictures come in, beside PyTorch's DataLoader.", 5)
    flags.add_argument("--data", metavar="DIR", required=True,
                       help="a folder of pictures, as ImageNet's are: some hundred of them")
    flags.add_argument("--cores", metavar="N,N", type=numbers,
                       default=sorted({1, os.cpu_count()}),
                       help="how many cores each side is kept to; default: 1 and all")
    flags.add_argument("--rate", metavar="N,N", type=numbers, default=RATES,
                       help="images/s of the GPUs to be fed; default: 3000,6000,11000")
    args = flags.parse_args(argv)
    if sys.platform != "linux":
        raise console.Mistake(f"{PROGRAM} reads /proc, which {sys.platform} has not")
    pairs.need("torch")
    before = pairs.machine()                                # its load is that before ours
    rounds = min(args.rounds, 2) if args.quick else args.rounds
    table, every = [], {}
    with tempfile.TemporaryDirectory(prefix="tinyalex-") as folder:
        pairs.note(f"preparing stores of {args.data}")
        for kind, source in stores(args.data, folder).items():
            for cores in args.cores:
                pairs.note(f"{NAMES[kind]}, {cores} cores")
                found = measure(kind, source, cores, rounds, args.quick)
                table += rows(kind, cores, found)
                every[f"{kind} {cores}"] = {
                    " ".join(side): {key: [answer[key] for answer in answers]
                                     for key in ("busy", "seconds")}
                    for side, answers in found.items()}
    needed = ["pictures from", "tinyalex img/s a core", *(f"cores for {r:,}" for r in args.rate),
              "PyTorch img/s a core", *(f"{r:,}" for r in args.rate)]
    tables = [{"title": "How fast pictures come in", "columns": COLUMNS, "rows": table},
              {"title": "Cores that feed a GPU of so many images/s, bytes on both sides",
               "columns": needed, "rows": cores_needed(table, args.rate)}]
    for one in tables:
        pairs.show(**one)
    pairs.save("loader", {"machine": before, "rounds": rounds, "times": every,
                          "tables": tables}, args.output)
    return 0


def numbers(text):
    """Read whole numbers for argparse.

    >>> numbers("1,2")
    [1, 2]
    """
    one = console.number(int, least=1)
    return [one(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(pairs.run(main, PROGRAM))
