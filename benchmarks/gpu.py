#!/usr/bin/env python
"""The paper's net on a graphics card, beside PyTorch: speed, memory, and what limits them.

    python benchmarks/gpu.py                   planned for less than 9 minutes on an H100
    python benchmarks/gpu.py --precision tf32 --batch 128 --quick
    python benchmarks/gpu.py --cifar DIR                   and 80sec on CIFAR-10, to 26 % error

It needs CuPy and a card. Without PyTorch the tables hold tinyalex's columns alone. What is done is
written to the JSON after each part, so that a run that is cut short leaves what it measured.
"""
import contextlib
import datetime
import importlib.util
import math
import pathlib
import re
import sys

import gpu_cifar
import gpu_side
import gpu_tables
import growth
import nets
import pairs
import report
import sides
from tinyalex.data import open_dataset
from tinyalex.device import Device, cuda
from tinyalex.train import console

PROGRAM = "gpu.py"
NET, BATCHES, LAYER_BATCH = "paper", (128, 256, 1024), 128
TOLERANCE = {"float32": nets.TOLERANCE["default"], "tf32": 0.02}   # which rounds to 10 bits
SECONDS, QUICK_SECONDS = 12.0, 2.0
STRETCH = 0.3               # seconds: so long a timing takes at least
ROUNDS = (3, 25)            # of pairs, at least and at most
WATCHED, LAUNCHED = 9, 7    # steps watched layer by layer, and launched one by one
SIZES = (16, 32, 64, 128, 256)              # of a convolution's columns, in Mi elements


def plan(seconds, budget):
    """Return (steps in one timing, rounds), from the seconds of one step on each side.

    >>> plan([0.01, 0.02], budget=9.0), plan([1.0, 2.0], budget=9.0)
    ((15, 20), (1, 3))
    """
    steps = max(1, math.ceil(STRETCH / max(seconds)))
    least, most = ROUNDS
    return steps, max(least, min(most, int(budget / (steps * sum(seconds)))))


# ---------------------------------------------------------------------------- the sides

@contextlib.contextmanager
def opened(file, precision):
    """Start both sides; gives their workers, tinyalex first, and why PyTorch is missing, or "".

    CuPy's products round as CUPY_TF32 says when the process starts.
    """
    more = ["--data", file, "--precision", precision]
    env = {"CUPY_TF32": str(int(precision == "tf32"))}
    with contextlib.ExitStack() as stack:
        def start(side):
            return stack.enter_context(
                sides.Listening([gpu_side.__file__, "--serve", side, *more], env, side))

        ours, missing = start("tinyalex"), "PyTorch is not installed"
        if importlib.util.find_spec("torch"):
            theirs = start("torch")
            missing = theirs.facts.get("missing", "")
        yield [ours] if missing else [ours, theirs], missing


def must_agree(both, precision):
    """Raise WorkerFailed where loss or gradients of a few pictures differ: such is not timed."""
    for side in both:
        side.run(f"batch {sides.SMALL}")
    worst, where = nets.disagreement(*(side.run("check") for side in (both[0], both[-1])))
    if not worst <= TOLERANCE[precision]:
        raise pairs.WorkerFailed(f"{precision}: the two sides differ by {worst:.2g} in the "
                                 f"{where}; what is not the same is not timed")


# ---------------------------------------------------------------------------- the parts

def time_both(both, command, budget):
    """Return the seconds of "train" or "infer", by turns: {"a", "b", "steps"}; alone no "b"."""
    for _ in range(2):                       # never counted: kernels and algorithms are chosen
        first = [side.run(command)["seconds"] for side in both]
    steps, rounds = plan(first, budget)
    if len(both) == 2:
        paired = pairs.alternate(*both, rounds, f"{command} {steps}", pause=0, warmup=0)
        return {"a": paired.a, "b": paired.b, "steps": steps}
    return {"a": [both[0].run(f"{command} {steps}")["seconds"] for _ in range(rounds)],
            "steps": steps}


def whole_net(both, precision, batch, facts, budget):
    """Return the record of one batch size: training, memory, launching, inference."""
    for side in both:
        side.run(f"batch {batch}")
    record = {"precision": precision, "batch": batch,
              "flop": {what: facts[f"flop_{what}"] * batch / facts["batch"]
                       for what in gpu_tables.WHAT},
              "train": time_both(both, "train", budget),
              "memory": [side.run("memory") for side in both],
              "enqueue": [side.run(f"enqueue {LAUNCHED}") for side in both],
              "infer": time_both(both, "infer", budget)}
    pairs.note(f"{PROGRAM}: {precision}, batch {batch}: " + ", ".join(
        f"{what} {1e3 * gpu_tables.timed(record[what]).median_a:.2f} ms, "
        f"ratio {gpu_tables.timed(record[what]).ratio:.2f}" for what in gpu_tables.WHAT))
    return record


def layer_by_layer(both, batch):
    """Return all answers of both sides to "step". From then on they are watched: time no more."""
    for side in both:
        side.run(f"batch {batch}")
    for i in range(-2, WATCHED):             # the first two do not count
        for side in both if i % 2 == 0 else both[::-1]:
            side.run("step")
    return {"answers": [side.answers[-WATCHED:] for side in both],
            **{key: both[0].facts[key] for key in ("layers", "parameters")}}


def column_sizes(ours, batch, budget):
    """Return the seconds of training steps with each size of a convolution's columns, by turns."""
    ours.run(f"batch {batch}")
    steps, rounds = plan([ours.run("train")["seconds"] for _ in range(2)][1:], budget / len(SIZES))
    before = ours.run(f"columns {SIZES[0]}")["before"]
    found = {mebi: {"seconds": []} for mebi in SIZES}
    for i in range(rounds):
        for mebi in SIZES if i % 2 == 0 else SIZES[::-1]:
            ours.run(f"columns {mebi}")
            found[mebi]["seconds"].append(ours.run(f"train {steps}")["seconds"])
            if i == 0:
                found[mebi]["held"] = ours.run("memory")["held"]
    ours.run(f"columns {before}")
    return {"batch": batch, "before": before, "sizes": found}


def race(worker):
    """Return the epochs of `80sec` up to the first that errs little enough, or the recipe's last.

    `worker` is left to train on its own data.
    """
    found = {**worker.facts, "epochs": []}
    for _ in range(worker.facts["epochs"]):
        found["epochs"].append(worker.run("epoch"))
        pairs.note("{}: 80sec, epoch {epoch}: {error:.1f} %".format(PROGRAM, **found["epochs"][-1]))
        if found["epochs"][-1]["error"] <= gpu_cifar.GOAL:
            break
    return found


# ---------------------------------------------------------------------------- all of it

def measure(found, settings, file, facts, keep, opened=opened):
    """Measure everything but the race, and fill `found`.

    Parameters
    ----------
    found : dict
        As :func:`empty` makes it.
    settings : argparse.Namespace
        batch, precision (lists), seconds, quick.
    file, facts
        As nets.exported gives them.
    keep : callable
        Called after each part.
    opened : callable
        Starts the sides: (file, precision) -> context of (workers, what is missing).
    """
    batches = settings.batch
    layer_batch = LAYER_BATCH if LAYER_BATCH in batches else batches[0]
    for precision in settings.precision:
        pairs.note(f"{PROGRAM}: {precision}: starting")
        with opened(file, precision) as (both, missing):
            found["without"] = missing
            for side in both:
                found["versions"].update(side.facts.get("versions", {}))
            must_agree(both, precision)
            found["ceilings"][precision] = both[0].run("ceilings")
            keep()
            for batch in batches:
                found["records"].append(
                    whole_net(both, precision, batch, facts, settings.seconds))
                keep()
            if precision == "float32" and not settings.quick:
                pairs.note(f"{PROGRAM}: columns of {', '.join(map(str, SIZES))} Mi")
                found["columns"] = column_sizes(both[0], layer_batch, 2 * settings.seconds)
                keep()
            pairs.note(f"{PROGRAM}: {precision}: layer by layer")
            found["layers"][precision] = layer_by_layer(both, layer_batch)
            keep()


def empty(card):
    """Return what :func:`measure` fills."""
    return {"card": card, "versions": {}, "without": "", "ceilings": {}, "records": [],
            "layers": {}, "columns": None, "race": None}


def describe(device):
    """Return what a card and its software are: plain values."""
    runtime = device.xp.cuda.runtime
    driver = pathlib.Path("/sys/module/nvidia/version")

    def version(number):                                         # 12040 is 12.4
        return f"{number // 1000}.{number % 1000 // 10}"

    return {"card": cuda.describe(device.index),
            "driver": driver.read_text().strip() if driver.exists() else "",
            "CUDA of the driver": version(runtime.driverGetVersion()),
            "CUDA": version(runtime.runtimeGetVersion()), "CuPy": device.xp.__version__}


def path_of(folder, card, today):
    """Return the JSON's path.

    >>> path_of("results", {"card": "NVIDIA H200, 139.8 GiB"}, datetime.date(2030, 1, 2)).name
    'gpu-2030-01-02-nvidia-h200.json'
    """
    name = re.sub(r"[^a-z0-9]+", "-", card["card"].partition(",")[0].lower()).strip("-")
    return pathlib.Path(folder) / f"gpu-{today.isoformat()}-{name}.json"


def parse(argv):
    """Return the flags."""
    flags = console.Parser(prog=PROGRAM, description="The paper's net on a graphics card.")
    flags.add_argument("--batch", metavar="N,N", default=",".join(map(str, BATCHES)),
                       help="default: %(default)s")
    flags.add_argument("--precision", metavar="NAME,NAME", default=",".join(gpu_side.PRECISIONS),
                       help="default: %(default)s")
    flags.add_argument("--seconds", type=console.number(above=0), metavar="S",
                       help=f"that a row of the table may take; default: {SECONDS:g}")
    flags.add_argument("--quick", action="store_true", help="a look, not a measurement")
    flags.add_argument("--cifar", metavar="DIR", help="train 80sec on this CIFAR-10, too")
    flags.add_argument("--output", metavar="DIR", default=report.RESULTS,
                       help="where the JSON goes; default: benchmarks/results")
    args = flags.parse_args(argv)
    args.batch = growth.whole("--batch", args.batch, 4096)
    args.precision = args.precision.split(",")
    unknown = [name for name in args.precision if name not in gpu_side.PRECISIONS]
    if unknown:
        raise console.Mistake(f"--precision {','.join(args.precision)}: there is no "
                              f"{unknown[0] or 'empty one'}; choose from "
                              f"{', '.join(gpu_side.PRECISIONS)}")
    if args.quick:
        args.batch = args.batch[:1]
    args.seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    return args


def main(argv=None):
    """Measure, show and write."""
    args = parse(argv)
    card = describe(Device("cuda:0"))
    if args.cifar:
        open_dataset(args.cifar, gpu_cifar.SIZE)                   # says now what is wrong with it
    before, found = pairs.machine(), empty(card)
    path = path_of(args.output, card, datetime.date.today())

    def keep():
        with contextlib.redirect_stdout(sys.stderr):   # stdout is for tables
            pairs.save("gpu", {"machine": before, **found, "tables": [
                dict(zip(("title", "columns", "rows"), one, strict=True))
                for one in gpu_tables.tables(found)]}, path)

    pairs.note(f"{PROGRAM}: {card['card']}: writing weights and pictures")
    with nets.exported(NET, max(args.batch[-1], sides.SMALL)) as (file, facts):
        measure(found, args, file, facts, keep)
    if args.cifar:
        pairs.note(f"{PROGRAM}: reading {args.cifar}")
        with pairs.Worker([gpu_cifar.__file__, "--data", args.cifar], {"CUPY_TF32": "0"},
                          "80sec") as worker:
            found["race"] = race(worker)
        keep()
    pairs.show("The card", ["what", "is"], [[k, str(v)] for k, v in
                                           {**card, **found["versions"]}.items() if v])
    for one in gpu_tables.tables(found):
        pairs.show(*one)
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(pairs.run(main, PROGRAM))
