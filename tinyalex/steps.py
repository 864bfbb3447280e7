"""What a trace keeps: of an array a Snapshot, of an op a Step, of a Tensor from outside a Leaf."""
import functools
import inspect
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Snapshot:
    """What stays of an array.

    Attributes
    ----------
    shape, dtype, nbytes : tuple, str, int
    low, high, mean, std, zeros : float
        Over its finite elements; zeros is the share of them, 0 to 1. NaN where there are none.
    odd : int
        How many elements are NaN or infinite.
    values : numpy array
        The array itself, if it is small enough, and else a piece of it, thinned out.
    whole : bool
        Whether `values` is the array itself.
    """

    shape: tuple
    dtype: str
    nbytes: int
    low: float
    high: float
    mean: float
    std: float
    zeros: float
    odd: int
    values: np.ndarray
    whole: bool

    def __str__(self):
        if self.whole and self.values.size == 1:
            return f"{self.values.item():.4g}"
        text = f"{self.low:.3g} to {self.high:.3g}"
        return text + f", {self.odd:,} NaN or inf" * bool(self.odd)


def snapshot(array, device, keep=1024):
    """Return the :class:`Snapshot` of an array that lives on `device`.

    >>> import numpy as np, tinyalex as ta
    >>> from tinyalex.steps import snapshot
    >>> print(snapshot(np.array([[1.0, 3.0], [0.0, np.nan]]), ta.Device("cpu:0")))
    0 to 3, 1 NaN or inf
    """
    with device.scope():
        finite = device.xp.isfinite(array)
        odd = array.size - int(finite.sum())
        known = array[finite] if odd else array
        numbers = [float(f(known)) for f in (device.xp.min, device.xp.max, device.xp.mean,
                                             device.xp.std)] if known.size else 4 * [math.nan]
        zeros = float((known == 0).mean()) if known.size else math.nan
        whole = array.size <= keep
        values = np.array(device.numpy(array if whole else thinned(array)))
    return Snapshot(array.shape, str(array.dtype), array.nbytes, *numbers, zeros, odd, values,
                    whole)


def thinned(array):
    """Return a view of at most 1024 elements of a larger array, as ``trace()`` says.

    >>> import numpy as np
    >>> from tinyalex.steps import thinned
    >>> thinned(np.zeros((128, 96, 55, 55))).shape, thinned(np.zeros((1000, 20))).shape
    ((4, 14, 14), (32, 20))
    """
    while array.ndim > 3:
        array = array[0]
    most = {0: (), 1: (1024,), 2: (32, 32), 3: (4, 16, 16)}[array.ndim]
    return array[tuple(slice(None, None, -(-extent // room) or 1)
                       for extent, room in zip(array.shape, most))]


@dataclass
class Leaf:
    """A Tensor that came from outside.

    Attributes
    ----------
    name : str
    device : str
    output : Snapshot
        As it was when an op first met it.
    gradient : Snapshot or None
        What stood in its ``.grad`` at the end of the context.
    """

    name: str
    device: str
    output: Snapshot = None
    gradient: Snapshot = None


@dataclass
class Step:
    """One op, forward and, once a gradient came back, backward.

    Attributes
    ----------
    op, module : str
        Its class, and the path of the module in which it ran.
    formula, derivation : str
        The first words of the class's docstring, and the comment that stands over its backward.
    device, home : str
        Where it ran, and where its result lives: two devices for a copy between them.
    sources : tuple of Step, Leaf or None
        Where its inputs came from; None for an input that was left out.
    inputs : tuple of Snapshot or None
    output : Snapshot
    seconds : float
    gradient : Snapshot or None
        What came back: dL/d(output).
    gradients : tuple of Snapshot or None
        What backward sent on to each input.
    backward_seconds : float or None
    turn : int or None
        The place of its backward among all, from 1 on.
    nbytes : int
        What it carried from one device to another, each way; 0 for all but copies.
    """

    op: str
    module: str
    formula: str
    derivation: str
    device: str
    home: str
    sources: tuple
    inputs: tuple
    output: Snapshot
    seconds: float
    gradient: Snapshot = None
    gradients: tuple = ()
    backward_seconds: float = None
    turn: int = None

    @property
    def nbytes(self):
        return self.output.nbytes if self.home != self.device else 0

    @property
    def place(self):
        """Its device, or from which to which it copies."""
        return self.device if self.home == self.device else f"{self.device} → {self.home}"


@functools.cache
def words(op):
    """Return the formula of a Function class and the derivation of its backward.

    They are the first paragraph of its docstring, and the comment between forward and backward;
    "" for what it does not have.

    >>> from tinyalex.ops.activation import ReLU
    >>> words(ReLU)
    ('y = max(x, 0).  Paper section 3.1.', 'dL/dx_i = dL/dy_i * [y_i > 0], and 0 at the kink')
    """
    formula = inspect.cleandoc(vars(op).get("__doc__") or "").split("\n\n")[0]
    try:
        lines, start = inspect.findsource(op.backward)
    except (OSError, TypeError):                           # typed into a bare interpreter
        return formula, ""
    above = []
    while start and lines[start - 1].strip()[:1] in ("", "#"):
        start -= 1
        above.insert(0, lines[start].strip().removeprefix("#").rstrip())
    return formula, inspect.cleandoc("\n" + "\n".join(above))
