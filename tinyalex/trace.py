"""trace(): what every op was given and gave, forward and backward, one step after the other.

While nobody traces, nothing is asked: the context puts two functions of its own in the place of
``Function.__call__`` and ``Function.run_backward``, and puts the engine's back at its end.
"""
import threading
import time
import weakref

from .steps import Leaf, Step, snapshot, words
from .tensor import Function, Tensor


def trace(keep=1024, **names):
    """Context: record each op that runs inside, and the gradients that come back through it.

    In a notebook the trace shows itself as a strip to walk through, forward and backward;
    ``print(t)`` gives a table, and ``t[0]`` is the first :class:`~tinyalex.steps.Step`.

    Parameters
    ----------
    keep : int
        Arrays of no more elements are kept whole. Of a larger one stay its statistics and a
        thinned piece: of the first picture at most 4 maps, 16 x 16 pixels of each; of a matrix
        32 x 32 elements; of a row 1024. Its pixels are the array's own, evenly spaced.
    **names : Tensor or Module
        What to call the Tensors that no op inside made; a net names all its parameters.

    Returns
    -------
    Trace

    Notes
    -----
    Only ops of this thread are recorded, and gradients only of a ``backward()`` inside. Times are
    those of the op alone; on a GPU each op is waited for, so their sum is more than the whole
    would take. A graph that is walked twice shows the second walk.

    Examples
    --------
    >>> import tinyalex as ta
    >>> x = ta.Tensor([1.0, -2.0], requires_grad=True)
    >>> with ta.trace(x=x) as t:
    ...     (x * x).sum().backward()
    >>> print(t)
    way         op        device  given            gave         time
    forward 1   Multiply  cpu:0   x 2, x 2         y 2: 1 to 4  ...s
    forward 2   Sum       cpu:0   step 1 2         y: 5         ...s
    backward 2  Sum       cpu:0   dL/dy: 1         to step 1    ...s
    backward 1  Multiply  cpu:0   dL/dy 2: 1 to 1  to x, to x   ...s
    2 steps forward in ...s; 2 steps backward in ...s.
    >>> t[0].gradients[0].values.tolist(), t[0].derivation
    ([1.0, -2.0], 'dy/da = b, dy/db = a')
    """
    return Trace(keep, names)


class Trace:
    """What :func:`trace` recorded; a sequence of :class:`Step` in the order in which they ran.

    Attributes
    ----------
    steps : list of Step
    leaves : list of Leaf
        Each Tensor from outside, in the order in which ops met them.
    """

    def __init__(self, keep, names):
        self.steps, self.leaves, self.keep = [], [], keep
        self._names, self._made = weakref.WeakKeyDictionary(), weakref.WeakKeyDictionary()
        self._numbered, self._turns, self._engine = {}, 0, None
        for name, value in names.items():
            if not isinstance(value, Tensor) and not hasattr(value, "named_parameters"):
                raise TypeError(f"trace: {name} is a {type(value).__name__}; expected a Tensor or "
                                "a Module to be named so")
            named = [(name, value)] if isinstance(value, Tensor) else value.named_parameters()
            self._names.update((tensor, path) for path, tensor in named)

    def __len__(self):
        return len(self.steps)

    def __getitem__(self, index):
        return self.steps[index]

    def __enter__(self):
        if self._engine:
            raise RuntimeError("trace: this one is open already, or was; make a new one")
        call, run_backward = self._engine = Function.__call__, Function.run_backward
        here = threading.get_ident()

        def traced_call(op, *tensors):
            known = all(t is None or isinstance(t, Tensor) for t in tensors)
            if not known or threading.get_ident() != here:   # what is no Tensor, the op refuses
                return call(op, *tensors)
            return self._forward(call, op, tensors)

        def traced_backward(op, gy):
            if threading.get_ident() != here:
                return run_backward(op, gy)
            return self._backward(run_backward, op, gy)

        Function.__call__, Function.run_backward = traced_call, traced_backward
        return self

    def __exit__(self, *failure):
        Function.__call__, Function.run_backward = self._engine
        for tensor, leaf in self._made.items():
            if isinstance(leaf, Leaf) and tensor.grad is not None:
                leaf.gradient = snapshot(tensor.grad, tensor.device, self.keep)

    def _forward(self, call, op, tensors):
        sources = tuple(None if t is None else self._source(t) for t in tensors)
        inputs = tuple(None if t is None else self._seen(t, source)
                       for t, source in zip(tensors, sources))
        y, seconds = _timed([t.device for t in tensors if t is not None], call, op, *tensors)
        output = snapshot(y.data, y.device, self.keep)
        step = Step(type(op).__name__, op.module, *words(type(op)), op.device.name, op.home.name,
                    sources, inputs, output, seconds)
        self.steps.append(step)
        self._made[y] = step
        if op.recording:
            self._numbered[op.number] = step
        return y

    def _source(self, tensor):
        """Return the Step that made a Tensor, or its Leaf."""
        if tensor not in self._made:
            name = self._names.get(tensor, f"leaf {len(self.leaves) + 1}")
            self._made[tensor] = Leaf(name, tensor.device.name)
            self.leaves.append(self._made[tensor])
        return self._made[tensor]

    def _seen(self, tensor, source):
        """Return the Snapshot of an input; a leaf may have changed since it was met first."""
        if isinstance(source, Step):
            return source.output
        kept = snapshot(tensor.data, tensor.device, self.keep)
        source.output = source.output or kept
        return kept

    def _backward(self, run_backward, op, gy):
        step = self._numbered.get(op.number)
        if step is None:                                     # its forward ran before the context
            return run_backward(op, gy)
        gradient = snapshot(gy, op.home, self.keep)          # before: backward may write into it
        gxs, seconds = _timed([op.home, op.device], run_backward, op, gy)
        self._turns += 1
        step.gradient, step.backward_seconds, step.turn = gradient, seconds, self._turns
        step.gradients = tuple(None if gx is None else snapshot(gx, op.device, self.keep)
                               for gx in gxs)
        return gxs

    def rows(self):
        """Return leaves and steps as plain rows, each after those that it depends on.

        Returns
        -------
        list of dict
            ``name, module, device, home, inputs`` (places of earlier rows, None where an input
            was left out), ``shape, nbytes`` (what crosses between devices), ``value, gradient``
            (text of the one number there, or None) and ``turn``, as ``viz.graph`` takes them.
        """
        places, rows = {}, []
        for step in self.steps:
            for thing in (*step.sources, step):
                if thing is None or id(thing) in places:
                    continue
                places[id(thing)] = len(rows)
                is_step = isinstance(thing, Step)
                rows.append({
                    "name": thing.op if is_step else thing.name,
                    "module": thing.module if is_step else "",
                    "device": thing.device, "home": thing.home if is_step else thing.device,
                    "inputs": [None if source is None else places[id(source)]
                               for source in thing.sources] if is_step else [],
                    "shape": thing.output.shape, "nbytes": thing.nbytes if is_step else 0,
                    "value": _number(thing.output), "gradient": _number(thing.gradient),
                    "turn": thing.turn if is_step else None})
        return rows

    def frames(self):
        """Return what the strip shows, in order: each forward step, then each backward.

        Returns
        -------
        list of dict
            ``way`` ("forward" or "backward"), ``number`` of the step, ``op, module, place, words,
            seconds, nbytes``, and ``given, gave``: lists of (name, Snapshot).
        """
        frames, numbers = [], {id(step): n for n, step in enumerate(self.steps, 1)}

        def name(source):
            return source.name if isinstance(source, Leaf) else f"step {numbers[id(source)]}"

        for n, step in enumerate(self.steps, 1):
            given = [(name(s), x) for s, x in zip(step.sources, step.inputs) if x is not None]
            frames.append({"way": "forward", "number": n, "op": step.op, "module": step.module,
                           "place": step.place, "words": step.formula, "seconds": step.seconds,
                           "nbytes": step.nbytes, "given": given, "gave": [("y", step.output)]})
        for step in sorted((s for s in self.steps if s.turn), key=lambda s: s.turn):
            gave = [(f"to {name(s)}", g) for s, g in zip(step.sources, step.gradients)
                    if g is not None]
            frames.append({**frames[numbers[id(step)] - 1], "way": "backward",
                           "place": " → ".join(step.place.split(" → ")[::-1]),
                           "words": step.derivation, "seconds": step.backward_seconds,
                           "given": [("dL/dy", step.gradient)], "gave": gave})
        return frames

    def __str__(self):
        from .viz.strip import table

        return table(self.frames())

    def _repr_html_(self):
        from .viz.strip import strip

        return strip(self.frames())


def _timed(devices, fn, *arguments):
    for device in devices:
        device.synchronize()
    start = time.perf_counter()
    result = fn(*arguments)
    for device in devices:
        device.synchronize()
    return result, time.perf_counter() - start


def _number(kept):
    return f"{kept.values.item():.4g}" if kept and kept.whole and kept.values.size == 1 else None
