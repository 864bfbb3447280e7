"""Both sides of a comparison where more is asked of a worker than the seconds of a step."""
import argparse
import contextlib
import json
import types

import numpy as np
import pairs
import worker
from nets import TOLERANCE, disagreement

SMALL = 8             # pictures on which both sides must agree before anything is timed
RATE = 1e-6           # of learning: what a step takes does not depend on it
SIDES = ("tinyalex", "torch")


class Listening(pairs.Worker):
    """A worker whose answers are kept whole, in the order in which they came."""

    def __init__(self, *args, **kwargs):
        self.answers = []
        super().__init__(*args, **kwargs)

    def run(self, command="step"):
        answer = super().run(command)
        self.answers.append(answer)
        return answer


def add_flags(flags):
    """Add the flags by which a script starts itself as the worker of one side."""
    flags.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    flags.add_argument("--data", help=argparse.SUPPRESS)
    flags.add_argument("--serve-threads", type=int, help=argparse.SUPPRESS)


@contextlib.contextmanager
def contest(script, file, threads=None):
    """Start `script` once for each side and see that both compute the same; gives both workers."""
    more = ["--data", file] + (["--serve-threads", threads] if threads else [])
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
           } if threads else None
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(Listening([script, "--serve", side, *more], env, side))
                        for side in SIDES)
        worst, where = disagreement(*(side.run(f"check {SMALL}") for side in (ours, theirs)))
        if not worst <= TOLERANCE["default"]:
            raise pairs.WorkerFailed(f"the two sides differ by {worst:.2g} in the {where}; what is "
                                     "not the same is not timed")
        yield ours, theirs


def open_side(args):
    """Return the side that the flags ask for, with the net and the pictures of ``--data``.

    It learns at the rate RATE: at the recipe's own a batch of a few pictures soon leads to NaN.
    """
    with np.load(args.data) as file:
        meta = json.loads(str(file["meta"]))
        meta["lr"], meta["bias_lr"] = RATE, None
        meta["rates"] = {name: (RATE, decay) for name, (_, decay) in meta["rates"].items()}
        make = {"tinyalex": worker.TinyAlex, "torch": worker.Torch}[args.serve]
        return make(file, meta, types.SimpleNamespace(threads=args.serve_threads,
                                                      variant="default"))


def sized(side, more=None):
    """Return worker.py's commands and `more`, with one word in front: how many pictures to take."""
    images, labels = side.x, side.y

    def on_some(run):
        def command(count, *arguments):
            side.x, side.y = images[:int(count)], labels[:int(count)]
            return {"pictures": len(side.x), **run(*arguments)}

        return command

    return {name: on_some(run) for name, run in {**worker.answer(side), **(more or {})}.items()}
