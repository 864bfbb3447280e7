"""Watching a whole training step layer by layer, in tinyalex and in PyTorch, while it runs.

Nothing is taken out of its place: a layer finds its input as the layer before left it, in the
caches and out of them, and pays for the memory that it asks for. In tinyalex the two methods
through which every op goes, forward and backward, are wrapped; in PyTorch modules tell when they
begin and end, and a gradient tells when it is there, which is when the layer below begins.
"""
import functools
import re
import time

now = time.perf_counter
ALIASES = {"crossentropy": "loss", "concatenate": "exchange", "reshape": "flatten"}


class Watch:
    """The seconds of a step, by row of the table and by direction.

    Attributes
    ----------
    seconds : dict of str to dict
        ``seconds["forward"]["conv1"]``, say; both towers' shares are added up.
    inside : str or None
        The row whose forward is running.
    """

    def __init__(self):
        self.clear()

    def clear(self):
        """Begin a new step."""
        self.seconds = {"forward": {}, "backward": {}}
        self.inside, self._number = None, ""

    def add(self, row, direction, seconds):
        """Book `seconds`."""
        column = self.seconds[direction]
        column[row] = column.get(row, 0.0) + seconds

    def row(self, module, kind):
        """Return the row of an op: its module's name, or its kind and the number of the layer.

        Parameters
        ----------
        module : str
            The path of the module that runs, "" where an op runs in a net's own forward.
        kind : str
            The class of the op.

        >>> watch = Watch()
        >>> watch.row("towers.0.conv2", "Conv2d"), watch.row("", "ReLU")
        ('conv2', 'relu2')
        """
        leaf = module.rpartition(".")[2]
        if leaf[-1:].isdigit() and not leaf.isdigit():
            self._number = re.search(r"\d+$", leaf)[0]
            return leaf
        kind = ALIASES.get(kind.lower(), kind.lower())
        return kind + self._number if kind == "relu" else kind


# ---------------------------------------------------------------------------- tinyalex

def watch_tinyalex(watch):
    """Let every op and every layer of tinyalex, from now on, book its time in `watch`."""
    from tinyalex.graph import mode
    from tinyalex.nn import Module
    from tinyalex.tensor import Function

    run_op, run_backward, run_module = Function.__call__, Function.run_backward, Module.__call__

    def timed(run, owner, path, inputs, settings):
        """Time the outermost call only: a layer may do more than its op."""
        watch.inside, start = watch.row(path, type(owner).__name__), now()
        try:
            return run(owner, *inputs, **settings)
        finally:
            watch.add(watch.inside, "forward", now() - start)
            watch.inside = None

    @functools.wraps(run_module)
    def module(self, *inputs, **settings):
        if watch.inside or any(True for _ in self.children()):
            return run_module(self, *inputs, **settings)
        return timed(run_module, self, self.path, inputs, settings)

    @functools.wraps(run_op)
    def op(self, *tensors):
        if watch.inside:
            self.row = watch.inside
            return run_op(self, *tensors)
        path = mode.modules[-1] if mode.modules else ""
        self.row = watch.row(path, type(self).__name__)
        return timed(run_op, self, path, tensors, {})

    @functools.wraps(run_backward)
    def backward(self, gy):
        start = now()
        try:
            return run_backward(self, gy)
        finally:
            watch.add(self.row, "backward", now() - start)

    Function.__call__, Function.run_backward, Module.__call__ = op, backward, module


# ---------------------------------------------------------------------------- PyTorch

def watch_torch(watch, net):
    """Let every layer of a Sequential, from now on, book its time forward in `watch`.

    Returns
    -------
    callable, loss -> None
        Instead of ``loss.backward()``: books the times backward as well. The gradient of a layer's
        output is there when the layer's own way back begins, and the one before it ends.
    """
    began, marks = {}, []

    def watched(row, layer):
        def before(layer, inputs):
            began[row] = now()

        def after(layer, inputs, output):
            watch.add(row, "forward", now() - began[row])
            if output.requires_grad:
                output.register_hook(lambda gradient: marks.append((row, now())))

        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)

    for row, layer in net.named_children():
        watched(row, layer)

    def backward(loss):
        marks[:] = [("loss", now())]
        loss.backward()
        for (row, start), (_, end) in zip(marks, [*marks[1:], ("", now())], strict=True):
            watch.add(row, "backward", end - start)

    return backward
