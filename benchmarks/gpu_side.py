#!/usr/bin/env python
"""One side of a comparison on a graphics card: it holds the paper's net there and takes commands.

    python benchmarks/gpu_side.py --serve torch --data FILE --precision tf32

gpu.py starts one process for each side and precision, because CuPy reads CUPY_TF32 once. Weights,
pictures and labels come from the file that worker.py wrote. The commands:

    batch N     put N pictures on the card; memory that was freed goes back to it
    check       loss and the norm of each gradient, dropout off: both sides must agree
    train K     K steps of training, one behind the other; seconds of one
    infer K     K times forward without gradients; seconds of one
    enqueue K   K steps, one by one: how long the host takes to launch one, and the card to do it
    memory      the most bytes in use, and held, in a step of training
    step        one step of training, layer by layer on the card's own clock
    ceilings    the best matrix product and copy of this card (tinyalex)
    columns N   let a convolution have N Mi elements of columns at a time (tinyalex)
"""
import math
import sys
import time

import layers
import sides
import watch
import worker
from gpu_cards import OnCuPy, OnTorch
from serving import serve
from tinyalex import models
from tinyalex.train import console

PRECISIONS = ("float32", "tf32")


# ---------------------------------------------------------------------------- layer by layer

class CardWatch(watch.Watch):
    """A Watch in spans of the card's own time, so that the host waits for nothing meanwhile."""

    def add(self, row, direction, span):
        self.seconds[direction].setdefault(row, []).append(span)

    def read(self, elapsed):
        """Return the seconds by direction and row, once the card has passed all marks."""
        return {direction: {row: sum(map(elapsed, spans)) for row, spans in column.items()}
                for direction, column in self.seconds.items()}


def watched(card):
    """Return the command "step": the seconds of all parts of a step, as layers.py has them.

    The card is given other work first, and the host launches the whole step meanwhile: from then
    on the card never waits, and what passes between two marks is its own time.
    """
    watching, side = CardWatch(), card.side
    watch.now = card.moment
    if isinstance(card, OnTorch):
        backward = watch.watch_torch(watching, side.net)
    else:
        watch.watch_tinyalex(watching)
        backward = side.ta.Tensor.backward

    def step():
        side.net.train()
        watching.clear()
        card.lead()
        times = [card.moment()]
        logits = side.net(side.x)
        begin = card.moment()
        loss = card.cross_entropy(logits, side.y)
        times.append(card.moment())
        watching.seconds["forward"]["loss"] = [times[1] - begin]
        backward(loss)
        times.append(card.moment())
        side.optimizer.step()
        side.optimizer.zero_grad()
        times.append(card.moment())
        card.wait()
        parts = [card.elapsed(b - a) for a, b in zip(times, times[1:], strict=False)]
        return {"seconds": card.elapsed(times[-1] - times[0]), "pictures": len(side.x),
                "rows": watching.read(card.elapsed),
                **dict(zip(layers.PARTS, parts, strict=True))}

    return step


# ---------------------------------------------------------------------------- commands

def answer(card):
    """Return the commands of one side, as :func:`serving.serve` takes them."""
    side = card.side

    def batch(n):
        card.take(int(n))
        return {"pictures": len(side.x)}

    def check():
        drops = [m for m in side.net.modules() if isinstance(m, card.dropout)]
        before = [m.p for m in drops]
        for m in drops:
            m.p = 0.0
        loss, squares = side.backward(), {}
        for m, p in zip(drops, before, strict=True):
            m.p = p
        for name, gradient in card.gradients():
            squares[name] = squares.get(name, 0.0) + worker.sum_of_squares(gradient)
        side.optimizer.zero_grad()
        return {"loss": loss, "norms": {name: math.sqrt(s) for name, s in squares.items()}}

    def train(count="1"):
        side.net.train()
        seconds, loss = card.stretch(card.step, int(count))
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss became {loss.item()}: not worth timing")
        return {"seconds": seconds}

    def infer(count="1"):
        side.net.eval()
        return {"seconds": card.stretch(side.infer, int(count))[0]}

    def enqueue(count):
        side.net.train()
        host, done = [], []
        for _ in range(int(count)):
            card.wait()
            start = time.perf_counter()
            card.step()
            host.append(time.perf_counter() - start)
            card.wait()
            done.append(time.perf_counter() - start)
        return {"host": host, "done": done}

    def memory():
        side.net.train()
        return card.memory()

    steps = []                    # what watches slows all steps a little: it begins when asked for

    def step():
        if not steps:
            steps.append(watched(card))
        return steps[0]()

    commands = {"batch": batch, "check": check, "train": train, "infer": infer,
                "enqueue": enqueue, "memory": memory, "step": step}
    if isinstance(card, OnCuPy):
        commands |= {"ceilings": card.ceilings, "columns": lambda n: card.columns(int(n))}
    return commands


def described(card):
    """Return tinyalex's commands, and what its net is made of."""
    table = models.summary(card.side.net)
    return answer(card), {"layers": layers.both_towers(table.rows),
                          "parameters": table.total["parameters"]}


def open_cupy(args):
    """Return tinyalex's commands and facts."""
    return described(OnCuPy(sides.open_side(args)))


def open_torch(args):
    """Return PyTorch's commands and versions; no commands, and why, where it has no GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}, {"missing": f"PyTorch {torch.__version__} finds no GPU"}
    card = OnTorch(sides.open_side(args), args.precision)
    return answer(card), {"versions": {
        "PyTorch": torch.__version__, "PyTorch's CUDA": torch.version.cuda,
        "cuDNN": str(torch.backends.cudnn.version())}}


def main(argv=None):
    """Be what the arguments say."""
    flags = console.Parser(prog="gpu_side.py", description="One side; gpu.py starts it.")
    sides.add_flags(flags)
    flags.add_argument("--precision", choices=PRECISIONS, default="float32")
    args = flags.parse_args(argv)
    serve(*{"tinyalex": open_cupy, "torch": open_torch}[args.serve](args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
