"""The graph's bookkeeping: recording modes, where leaves gather gradients, the walk backward.

Nodes refer to their parents' nodes and never to tensors, so the graph has no cycle and dies by
reference counting. They are numbered as they are made: a node's users always carry higher numbers
than itself, so taking the highest waiting number is a topological order, without recursion, and
always the same one. One order of sums, one set of bits.
"""
import contextlib
import heapq
import itertools
import threading

numbers = itertools.count()


class _Mode(threading.local):
    recording, anomaly = True, False

    def __init__(self):
        self.modules = []       # paths of the modules whose forward is running, outermost first


mode = _Mode()


@contextlib.contextmanager
def _switched(name, value):
    before = getattr(mode, name)
    setattr(mode, name, value)
    try:
        yield
    finally:
        setattr(mode, name, before)


def no_grad():
    """Context or decorator: the ops inside build no graph.

    >>> import tinyalex as ta
    >>> x = ta.Tensor([2.0], requires_grad=True)
    >>> with ta.no_grad():
    ...     (x * x).requires_grad
    False
    """
    return _switched("recording", False)


def enable_grad():
    """Context or decorator: the ops inside build a graph, also within ``no_grad()``.

    >>> import tinyalex as ta
    >>> x = ta.Tensor([2.0], requires_grad=True)
    >>> with ta.no_grad(), ta.enable_grad():
    ...     (x * x).requires_grad
    True
    """
    return _switched("recording", True)


def detect_anomaly():
    """Context: raise FloatingPointError naming the op and module of the first NaN or infinity.

    Every forward and backward result inside is read once more, so it is not free.

    >>> import numpy as np, tinyalex as ta
    >>> with ta.detect_anomaly(), np.errstate(divide="ignore"):
    ...     ta.Tensor([0.0]).log()
    Traceback (most recent call last):
    FloatingPointError: detect_anomaly: forward of Log gave NaN or infinity
    """
    return _switched("anomaly", True)


def check_finite(op, phase, device, arrays):
    """Raise FloatingPointError naming `op` if one of its `arrays` holds NaN or infinity."""
    with device.scope():
        if all(a is None or bool(device.xp.isfinite(a).all()) for a in arrays):
            return
    raise FloatingPointError(f"detect_anomaly: {phase} of {op} gave NaN or infinity")


def refuse_gradients(op, gxs, dtype):
    """Say which of the gradients that ``op.backward`` returned have a wrong shape or dtype."""
    got = [shape if gx is None else gx.shape for gx, shape in zip(gxs, op.shapes)]
    if got != op.shapes or len(gxs) != len(op.shapes):
        raise ValueError(f"{op}.backward returned gradients of shapes {got}; expected those of its "
                         f"inputs, {op.shapes}")
    got = [str(dtype if gx is None else gx.dtype) for gx in gxs]
    raise TypeError(f"{op}.backward returned dtypes {got}; expected {dtype}, that of its inputs")


class Accumulator:
    """Where the gradient of a leaf gathers: its place in the graph, and the owner of ``grad``."""

    __slots__ = ("__weakref__", "grad", "home", "keep", "number", "own")

    def __init__(self, device):
        self.home, self.grad, self.number = device, None, next(numbers)
        self.keep, self.own = True, False      # own: the engine allocated `grad`, may add into it

    def __deepcopy__(self, memo):
        return Accumulator(self.home)          # a copied leaf has a number of its own, no gradient


# Whose is a gradient that waits? An op may return gy itself, a view of it, or one array twice.
_BORROWED, _FRESH, _SUM = range(3)    # perhaps somebody else's too; nobody else's; the engine's own


def walk(root, gradient, retain_graph=False):
    """Send `gradient` from the node `root` down to the leaves, freeing the graph on the way."""
    root.home.ledger.hold(gradient)
    waiting = {root: (gradient, _BORROWED)}
    heap = [(-root.number, root)]
    while heap:
        node = heapq.heappop(heap)[1]
        gy, owner = waiting.pop(node)
        if node.keep:
            _gather(node, gy, owner)
        if isinstance(node, Accumulator):
            continue
        gxs = node.run_backward(gy)
        for parent, gx in zip(node.parents, gxs):
            if parent is None or gx is None:
                continue
            home = parent.home
            held = home.ledger.hold(gx, ~node.number)
            if parent not in waiting:
                owner = _owner(gx, held, node, gxs) if parent.keep else _BORROWED
                waiting[parent] = gx, owner
                heapq.heappush(heap, (-parent.number, parent))
                continue
            total, owner = waiting[parent]
            with home.scope():
                if owner == _SUM:
                    total += gx
                else:                                    # (NumPy adds 0-d arrays to a scalar)
                    waiting[parent] = home.xp.asarray(total + gx), _SUM
        if not retain_graph:
            node.release()


def _owner(gx, held, node, gxs):
    """Fresh is memory that was first booked here, all of it, and by one gradient alone."""
    if not getattr(gx.flags, "writeable", True):         # CuPy knows no arrays that are not
        return _BORROWED
    here = ~node.number
    stand = sum(held.ledger.hold(other, here) is held for other in gxs if other is not None)
    alone = held.maker == here and stand == 1 and gx.nbytes == held.nbytes
    return _FRESH if alone else _BORROWED


def _gather(node, gy, owner):
    """Add `gy` to the gradient that `node` keeps; adopt it only if nobody else holds it."""
    with node.home.scope():
        if node.grad is None:
            adopt = owner != _BORROWED and isinstance(node, Accumulator)
            node.grad, node.own = (gy, owner == _SUM) if adopt else (gy.copy(), True)
        elif node.own:
            node.grad += gy
        else:                                            # an op or the user made it
            node.grad, node.own = node.home.xp.asarray(node.grad + gy), True
    node.home.ledger.hold(node.grad)
