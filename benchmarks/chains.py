"""One side of engine.py: a chain of small ops in one framework, in a process of its own.

    python benchmarks/chains.py micrograd

Nothing is imported here but that framework and the standard library: what else lies in memory,
Python's collector would have to look through again and again, on the clock.
"""
import argparse
import math
import sys
import time

import serving

LENGTH = 1000                            # ops in a chain
START = (1.0, 1.001, 0.001)              # x, a, b: y ends at about 2.4 and stays finite


def expected(length=LENGTH):
    """Return y, dL/dx, dL/da and dL/db of the chain, by the rule of the product and of the sum."""
    y, a, b = START
    gx, ga, gb = 1.0, 0.0, 0.0           # dy/dx, dy/da and dy/db so far
    for _ in range(length // 2):
        y, gx, ga, gb = y * a + b, gx * a, ga * a + y, gb * a + 1
    return [y, gx, ga, gb]


# ---------------------------------------------------------------------------- one side

def chain(x, a, b):
    """Return y after a chain of ops on whatever knows ``*`` and ``+``."""
    y = x
    for _ in range(LENGTH // 2):
        y = y * a
        y = y + b
    return y


def array_side(make, ones):
    """Return a function (size) -> forward seconds, backward seconds, [y, gx, ga, gb]."""
    def once(size):
        shape = (size,) if size else ()
        leaves = [make(shape, value) for value in START]
        gradient = ones(shape)
        start = time.perf_counter()
        y = chain(*leaves)
        middle = time.perf_counter()
        y.backward(gradient)
        last = y.data
        del y                                    # what is left of the graph dies on the clock
        end = time.perf_counter()
        found = [last, *(leaf.grad for leaf in leaves)]
        return middle - start, end - middle, [float(v.reshape(-1)[-1]) for v in found]

    return once


def tinyalex_side():
    """tinyalex, as it is imported."""
    import numpy as np

    import tinyalex as ta

    return array_side(
        lambda shape, v: ta.Tensor(np.full(shape, v, np.float32), requires_grad=True),
        lambda shape: np.ones(shape, np.float32))


def torch_side():
    """PyTorch, as it is imported."""
    import torch

    return array_side(
        lambda shape, v: torch.full(shape, v, dtype=torch.float32, requires_grad=True),
        lambda shape: torch.ones(shape, dtype=torch.float32))


def mygrad_side():
    """MyGrad, as it is imported: its guard of memory is on."""
    import mygrad
    import numpy as np

    return array_side(lambda shape, v: mygrad.tensor(np.full(shape, v, np.float32)),
                      lambda shape: np.ones(shape, np.float32))


def micrograd_side():
    """micrograd: the elements one after the other, each with a chain of its own.

    Its graphs are circles of references: Python's collector ends them now and then, on the clock.
    """
    from micrograd.engine import Value

    sys.setrecursionlimit(10 * LENGTH)           # its backward calls itself once for each op

    def once(size):
        forward = backward = 0.0
        for _ in range(max(size, 1)):
            leaves = [Value(v) for v in START]
            start = time.perf_counter()
            y = chain(*leaves)
            middle = time.perf_counter()
            y.backward()
            end = time.perf_counter()
            forward += middle - start
            backward += end - middle
        return forward, backward, [y.data, *(leaf.grad for leaf in leaves)]

    return once


MAKE = {"tinyalex": tinyalex_side, "torch": torch_side, "mygrad": mygrad_side,
        "micrograd": micrograd_side}


def serve(side):
    """Be the worker of one side: ``chain SIZE TIMES`` times so many chains and checks them."""
    once = MAKE[side]()

    def run(size, times):
        forward = backward = 0.0
        for _ in range(int(times)):
            there, back, found = once(int(size))
            forward, backward = forward + there, backward + back
            for name, value, right in zip(("y", "dx", "da", "db"), found, expected(), strict=True):
                if not math.isclose(value, right, rel_tol=1e-3):
                    raise ArithmeticError(f"{side}: {name} is {value}; expected {right}")
        ops = int(times) * LENGTH
        return {"seconds": (forward + backward) / ops, "forward": forward / ops,
                "backward": backward / ops}

    serving.serve({"chain": run})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One side of a pair; engine.py starts it.")
    parser.add_argument("side", choices=MAKE)
    serve(parser.parse_args().side)
