#!/usr/bin/env python
"""Where the time of a training step goes: AlexNet layer by layer, beside PyTorch.

    python benchmarks/layers.py

Both sides run whole training steps in turn, on the same pictures and weights, and every layer is
timed in its place (watch.py). Layers that are matrix products are held against this machine's best
product of large squares, the others against its rate of copying: against the least that they must
read and write, each array once. A layer whose arrays fit the caches can be faster than a copy, and
a convolution by fewer multiplications (Winograd's) faster than the product it stands for: what is
counted is always the plain way.
"""
import math
import statistics
import sys
import time

import nets
import pairs
import sides
import watch
from tinyalex.train import console

PROGRAM = "layers.py"
NET = "paper"
PARTS = ("forward", "backward", "update")
REST = "the rest"                        # Python between the layers, sums where the graph joins
COLUMNS = ["layer", "tinyalex ms/image", "PyTorch ms/image", "tinyalex over PyTorch", "quartiles",
           "GFLOP/s", "GB/s", "of the ceiling", "PyTorch, of it"]


# ---------------------------------------------------------------------------- arithmetic

def both_towers(rows):
    """Return {layer: [multiply-adds, numbers put out]} per picture, from a Summary's rows.

    >>> both_towers([{"layer": "towers.0.conv1", "macs": 6, "output": (2, 3, 3)},
    ...              {"layer": "towers.1.conv1", "macs": 6, "output": (2, 3, 3)}])
    {'conv1': [12, 36]}
    """
    layers = {}
    for row in rows:
        total = layers.setdefault(row["layer"].rpartition(".")[2], [0, 0])
        total[0] += row["macs"]
        total[1] += math.prod(row["output"])
    return layers


def flops(layers):
    """Return {direction: {layer: FLOP per picture}} of the layers that are matrix products.

    Backward there are two products, for the weights and for the input; the first layer's input is
    the picture, whose gradient nobody asks for.
    """
    forward = {row: 2 * macs for row, (macs, _) in layers.items() if macs}
    first = next(iter(forward))
    return {"forward": forward,
            "backward": {row: n if row == first else 2 * n for row, n in forward.items()}}


def traffic(layers):
    """Return {direction: {layer: bytes per picture}} that the others at least read and write.

    In float32. Forward x is read and y written; backward ReLU and the norm read gy and one of x
    and y, and write gx. A pool and dropout get by with a byte for each unit of y, which says who
    won or who spoke, written forward and read backward.
    """
    found, before = {"forward": {}, "backward": {}}, 0
    for row, (macs, units) in layers.items():
        x, y, marks = 4 * before, 4 * units, units
        if macs and row != list(layers)[-1]:
            row = row.replace("conv", "relu").replace("fc", "relu")
            found["forward"][row], found["backward"][row] = 2 * y, 3 * y
        elif row.startswith("norm"):
            found["forward"][row], found["backward"][row] = 2 * y, 3 * y
        elif row.startswith(("pool", "drop")):
            found["forward"][row] = found["backward"][row] = x + y + marks
        before = units
    return found


def folded(seconds, rows):
    """Return {direction: {row: seconds}} with no other rows than `rows`.

    What one side does in a layer of its own and the other in the layer before (a ReLU that is part
    of its convolution) is added to that layer, or else the two could not be compared.

    >>> folded({"forward": {"conv1": 2, "relu1": 1}, "backward": {"relu1": 3}}, ["conv1"])
    {'forward': {'conv1': 3}, 'backward': {'conv1': 3}}
    """
    target, last = {}, None
    for row in seconds["forward"]:
        last = row if row in rows or last is None else last
        target[row] = last
    found = {}
    for direction, column in seconds.items():
        found[direction] = {}
        for row, value in column.items():
            row = target.get(row, row)
            found[direction][row] = found[direction].get(row, 0) + value
    return found


# ---------------------------------------------------------------------------- one side

def steps_of(side, watching):
    """Return the command "step": one whole training step, and the seconds of all its parts."""
    if hasattr(side, "torch"):
        backward = watch.watch_torch(watching, side.net)
        cross_entropy = side.torch.nn.functional.cross_entropy
    else:
        watch.watch_tinyalex(watching)
        backward, cross_entropy = side.ta.Tensor.backward, side.F.cross_entropy

    def step():
        watching.clear()
        side.net.train()
        times = [time.perf_counter()]
        logits = side.net(side.x)
        begin = time.perf_counter()
        loss = cross_entropy(logits, side.y)
        times.append(time.perf_counter())
        watching.seconds["forward"]["loss"] = times[1] - begin
        backward(loss)
        times.append(time.perf_counter())
        side.optimizer.step()
        side.optimizer.zero_grad()
        times.append(time.perf_counter())
        parts = [end - start for start, end in zip(times, times[1:], strict=False)]
        return {"seconds": times[-1] - times[0], "loss": loss.item(), "rows": watching.seconds,
                **dict(zip(PARTS, parts, strict=True))}

    return step


def serve(args):
    """Be the worker of one side, and tell what the net's layers are."""
    side, facts = sides.open_side(args), {}
    if args.serve == "tinyalex":
        from tinyalex import models

        table = models.summary(side.net)
        facts = {"layers": both_towers(table.rows), "parameters": table.total["parameters"]}
    pairs.serve(sides.sized(side, {"step": steps_of(side, watch.Watch())}), facts)


# ---------------------------------------------------------------------------- the tables

def line(name, taken, batch, work, ceilings):
    """Return a row: a layer's times, and how near both sides come to what the machine can do.

    Parameters
    ----------
    taken : (list of float or None, list of float or None)
        Seconds of tinyalex and of PyTorch, round by round; None where a side has no such layer.
    work : (float, float)
        FLOP and bytes per picture; 0 where neither fits.
    """
    ours, theirs = taken
    paired = pairs.Pairs(ours, theirs) if ours and theirs else None
    medians = [statistics.median(seconds) / batch if seconds else None for seconds in taken]
    rates = [None if not (work[i] and medians[0]) else work[i] / medians[0] / 1e9 for i in (0, 1)]
    ceiling = ceilings["sgemm_gflops"] if work[0] else ceilings["copy_gbs"]
    shares = [f"{100 * max(work) / m / 1e9 / ceiling:.0f} %" if m and max(work) else ""
              for m in medians]
    return [name, *(1e3 * m if m else None for m in medians), paired and paired.ratio,
            f"{paired.low:.2f} - {paired.high:.2f}" if paired else "", *rates, *shares]


def tables(ours, theirs, layers, parameters, ceilings):
    """Return (title, columns, rows) of the layers forward and backward, and of the whole step.

    `ours` and `theirs` are the answers of both sides, round by round.
    """
    (batch,) = {answer["pictures"] for answer in (*ours, *theirs)}
    known = list(ours[0]["rows"]["forward"])
    columns = [[answer["rows"] for answer in ours],
               [folded(answer["rows"], known) for answer in theirs]]
    work, made = (flops(layers), traffic(layers)), []
    for direction in ("forward", "backward"):
        rows = []
        for name in known:
            taken = [[found[direction].get(name) for found in side] for side in columns]
            taken = [None if None in seconds else seconds for seconds in taken]
            if any(taken):
                rows.append(line(name, taken, batch, [kind[direction].get(name, 0)
                                                      for kind in work], ceilings))
        rest = [[answer[direction] - sum(found[direction].values())
                 for answer, found in zip(answers, side, strict=True)]
                for answers, side in zip((ours, theirs), columns, strict=True)]
        rows.append([REST, *(1e3 * statistics.median(seconds) / batch for seconds in rest),
                     None, "", None, None, "", ""])
        made.append((f"{direction}, layer by layer", COLUMNS, rows))
    total = {part: sum(work[0].get(part, {}).values()) for part in PARTS}
    total["seconds"] = sum(total.values())
    moved = {"update": 5 * 4 * parameters / batch}       # reads w, g, v; writes w, v
    made.append(("whole step", ["part", *COLUMNS[1:]], [
        line("step" if part == "seconds" else part,
             [[answer[part] for answer in side] for side in (ours, theirs)], batch,
             (total[part], moved.get(part, 0)), ceilings) for part in (*PARTS, "seconds")]))
    return made


def main(argv=None):
    """Measure, show the tables and write them down."""
    flags = pairs.parser(PROGRAM, "Time AlexNet's layers in a training step, beside PyTorch.", 7)
    flags.add_argument("--batch-size", type=console.number(int, least=sides.SMALL), default=128,
                       metavar="N", help="pictures; default: 128")
    sides.add_flags(flags)
    args = flags.parse_args(argv)
    if args.serve:
        serve(args)
        return 0
    pairs.need("torch")
    rounds, batch = (2, min(args.batch_size, 32)) if args.quick else (args.rounds, args.batch_size)
    before = pairs.machine()                                # its load is that before ours
    measured = [pairs.ceilings()]
    with nets.exported(NET, batch) as (file, _), sides.contest(__file__, file) as both:
        pairs.note(f"{PROGRAM}: {rounds} rounds of a step of {batch} pictures on each side")
        pairs.alternate(*both, rounds, f"step {batch}")
        ours, theirs = (side.answers[-rounds:] for side in both)
        facts = both[0].facts
    measured.append(pairs.ceilings())                       # the machine may have been busy once
    ceilings = {key: max(found[key] for found in measured) for key in measured[0]}
    made = tables(ours, theirs, facts["layers"], facts["parameters"], ceilings)
    for title, columns, rows in made:
        pairs.show(f"AlexNet at batch {batch}: {title}", columns, rows)
    print(f"\nThe ceilings: sgemm {ceilings['sgemm_gflops']:.0f} GFLOP/s, "
          f"copy {ceilings['copy_gbs']:.1f} GB/s. "
          f"A whole step runs at {made[-1][2][-1][-2]} of the sgemm peak.")
    pairs.save("layers", {
        "machine": before, "batch": batch, "rounds": rounds, "ceilings": ceilings,
        "tinyalex": ours, "torch": theirs,
        "tables": [{"title": f"AlexNet at batch {batch}: {title}", "columns": columns,
                    "rows": rows} for title, columns, rows in made]}, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(pairs.run(main, PROGRAM))
