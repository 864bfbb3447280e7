#!/usr/bin/env python
"""What one small op costs in the engine: a chain of 1,000 of them, there and back.

    python benchmarks/engine.py

The chain is ``y = y * a; y = y + b``, 500 times over, where y starts at x, and x, a and b all want
a gradient. On one number, or on arrays so small that arithmetic costs next to nothing, its time is
what a framework needs to record an op and to walk back over it. micrograd has no arrays: there an
array op is one op for each element, on a ``Value`` of its own.
"""
import contextlib
import pathlib
import statistics
import sys

import pairs
import sides

PROGRAM = "engine.py"
CHAINS = pathlib.Path(__file__).with_name("chains.py")
SIDES = ("tinyalex", "torch", "mygrad", "micrograd")
SIZES = {"one number": 0, "16 elements": 16, "1,024 elements": 1024}
COLUMNS = ["each op works on", "side", "forward, us", "backward, us", "both, us",
           "tinyalex over it", "quartiles"]


def compare(other, rounds):
    """Time tinyalex and `other` in turn at each size; return {size: (pairs, three medians each)}.

    An op on 1,024 elements takes micrograd a thousand times as long, so there 5 rounds do.
    """
    found = {}
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(sides.Listening([CHAINS, side], name=side))
                for side in ("tinyalex", other)]
        for name, size in SIZES.items():
            slow = other == "micrograd" and size > 100
            n, times = (min(rounds, 5), 1) if slow else (rounds, 10)
            paired = pairs.alternate(*both, n, f"chain {size} {times}")
            found[name] = paired, [[1e6 * statistics.median(answer[key]
                                                            for answer in side.answers[-n:])
                                    for key in ("forward", "backward", "seconds")]
                                   for side in both]
    return found


def table(compared):
    """Return the rows, from {other: what :func:`compare` returned}."""
    rows = []
    for size in SIZES:
        for i, (other, found) in enumerate(compared.items()):
            paired, (ours, theirs) = found[size]
            if i == 0:
                rows.append([size, "tinyalex", *ours, None, ""])
            rows.append([size, other, *theirs, paired.ratio,
                         f"{paired.low:.2f} - {paired.high:.2f}"])
    return rows


def main(argv=None):
    """Measure, show the table and write it down."""
    flags = pairs.parser(PROGRAM, "Time a chain of 1,000 small ops, forward and backward.", 11)
    args = flags.parse_args(argv)
    pairs.need(*SIDES[1:])
    before, compared = pairs.machine(), {}                  # its load is that before ours
    rounds = min(args.rounds, 3) if args.quick else args.rounds
    for other in SIDES[1:]:
        pairs.note(f"{PROGRAM}: tinyalex and {other}, {len(SIZES)} sizes")
        compared[other] = compare(other, rounds)
    title, rows = "one op of a chain of 1,000, in microseconds", table(compared)
    pairs.show(title, COLUMNS, rows)
    pairs.save("engine", {
        "machine": before, "rounds": rounds,
        "tables": [{"title": title, "columns": COLUMNS, "rows": rows}],
        "pairs": {other: {size: paired.to_dict() for size, (paired, _) in found.items()}
                  for other, found in compared.items()}}, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(pairs.run(main, PROGRAM))
