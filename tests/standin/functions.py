"""The functions of the array module: those that CuPy has, too, and of them those in use here."""
import numpy as np
import tinyalex as ta

from . import arrays
from .arrays import compute, ndarray, new, upload


_CPU = ta.Device("cpu:0")


def array(values, dtype=None, copy=True, order="K"):
    """A new array on the current card."""
    if isinstance(values, ndarray):
        return compute("array", lambda a: a.astype(dtype or a.dtype), values)
    return upload(np.array(values, dtype, order="C"))


def asarray(values, dtype=None):
    """The same, but an array of a card stays what it is."""
    if isinstance(values, ndarray) and dtype in (None, values.dtype):
        return values
    return array(values, dtype)


def asnumpy(values):
    """On the host."""
    return values.get() if isinstance(values, ndarray) else np.asarray(values)


def ascontiguousarray(values, dtype=None):
    """In C order; as in NumPy and CuPy, a single number becomes a vector of one."""
    values = asarray(values, dtype)
    if not values.ndim:
        return values.reshape(1)
    return values if values.flags.c_contiguous else compute("copy", np.ascontiguousarray, values)


def empty(shape, dtype=float, order="C"):
    """Uninitialized: it holds NaNs."""
    return new(shape, dtype, order)


def zeros(shape, dtype=float, order="C"):
    """Zeros."""
    return full(shape, 0, dtype)


def ones(shape, dtype=float):
    """Ones."""
    return full(shape, 1, dtype)


def full(shape, value, dtype=None):
    """One value everywhere."""
    made = new(shape, np.asarray(value).dtype if dtype is None else dtype)
    made[...] = value
    return made


def _like(a, dtype):
    """Fresh memory with the strides of `a`, as CuPy's order "K" has it where there are no gaps."""
    axes = sorted(range(a.ndim), key=lambda i: (-a.strides[i], i))
    made = new([a.shape[i] for i in axes], dtype or a.dtype)
    return made.transpose(np.argsort(axes).tolist()) if axes != sorted(axes) else made


def empty_like(a, dtype=None):
    """Uninitialized, as `a` lies."""
    return _like(a, dtype)


def zeros_like(a, dtype=None):
    """Zeros, as `a` lies."""
    made = _like(a, dtype)
    made[...] = 0
    return made


def ones_like(a, dtype=None):
    """Ones, as `a` lies."""
    made = _like(a, dtype)
    made[...] = 1
    return made


def arange(*span, dtype=None):
    """A range; computed on the card."""
    values = np.arange(*span, dtype=dtype)
    made = new(values.shape, values.dtype)
    compute("arange", lambda: values, out=made)
    return made


def tri(n, m=None, k=0, dtype=float):
    """Ones below a diagonal; computed on the card."""
    made = new((n, n if m is None else m), dtype)
    return compute("tri", lambda: np.tri(n, m, k, dtype), out=made)


def copyto(target, source):
    """Write `source` to `target`."""
    target[...] = source


def concatenate(tup, axis=0, out=None):
    """Side by side."""
    return compute("concatenate", lambda *parts: np.concatenate(parts, axis), *tup, out=out)


def stack(tup, axis=0, out=None):
    """On a new axis."""
    return compute("stack", lambda *parts: np.stack(parts, axis), *tup, out=out)


def broadcast_to(a, shape):
    """A view."""
    return a._view(np.broadcast_to(a._on_card, shape))


def expand_dims(a, axis):
    """A view."""
    return a._view(np.expand_dims(a._on_card, axis))


def atleast_1d(a):
    """A view."""
    return a if a.ndim else a.reshape(1)


def transpose(a, axes=None):
    """A view."""
    return a._view(np.transpose(a._on_card, axes))


def searchsorted(a, v, side="left", sorter=None):
    """Where `v` belongs in the sorted `a`."""
    return compute("searchsorted", lambda x, y: np.searchsorted(x, y, side), a, v)


def argsort(a, axis=-1, kind=None):
    """The order; always a stable one."""
    if kind not in (None, "stable"):
        raise NotImplementedError("argsort knows only stable sorts")
    return a.argsort(axis)


def where(condition, x, y):
    """`x` or `y`; with a condition alone, how many there are must be known: not here."""
    return compute("where", np.where, condition, x, y)


def may_share_memory(a, b):
    """Whether their addresses overlap."""
    return np.may_share_memory(a._on_card, b._on_card)


def allclose(a, b, rtol=1e-5, atol=1e-8):
    """On the card: a Boolean there."""
    return compute("allclose", lambda x, y: np.allclose(x, y, rtol, atol), a, b)


class ufunc:
    """An elementwise function; ``at`` adds by atomics, in any order."""

    def __init__(self, name, nin):
        self.__name__, self.nin, self._fn = name, nin, getattr(np, name)

    def __call__(self, *inputs, out=None, dtype=None, casting="same_kind"):
        if len(inputs) == self.nin + 1 and out is None:
            *inputs, out = inputs
        how = {"dtype": dtype} if dtype else {}
        if not any(isinstance(x, ndarray) for x in inputs):
            inputs = [asarray(x) for x in inputs]
        return compute(self.__name__, lambda *x: self._fn(*x, **how), *inputs, out=out)

    def at(self, a, where, values):
        """Add by atomics, in any order: no kernel of ours does, and no op where it has a kernel."""
        places, indices = arrays._index(where, a)
        given = [values] if isinstance(values, ndarray) else []
        operation = arrays._enqueue(f"{self.__name__}.at", *indices, *given)
        arrays._write(operation, a, a._on_card)
        self._fn.at(a._on_card, arrays._inner(places), values._on_card if given else values)


UFUNCS = {1: "negative positive absolute exp log log1p expm1 sqrt square sin cos tanh sign rint "
             "floor ceil isfinite isnan isinf logical_not invert reciprocal exp2 log2",
          2: "add subtract multiply divide true_divide floor_divide power maximum minimum less "
             "less_equal greater greater_equal equal not_equal logical_and logical_or logical_xor "
             "fmax fmin mod remainder bitwise_and bitwise_or bitwise_xor arctan2 hypot"}
for _nin, _names in UFUNCS.items():
    for _name in _names.split():
        globals()[_name] = ufunc(_name, _nin)


def _passed_on(name):
    def function(*inputs, out=None, **how):
        fn = getattr(np, name)
        count = {"matmul": 2, "dot": 2, "tensordot": 2, "outer": 2}.get(name, 1)

        def on_one_thread(*x):           # more of them would wait for each other, matrices are small
            return _CPU.map(1, lambda _: fn(*x, *inputs[count:], **how))[0]
        return compute(name, on_one_thread, *inputs[:count], out=out)
    function.__name__ = name
    return function


for _name in ("matmul dot tensordot outer sum mean max min prod any all std var argmax argmin "
              "cumsum clip pad repeat tile flip roll").split():
    globals()[_name] = _passed_on(_name)


def einsum(subscripts, *operands, out=None):
    """Einstein's sums."""
    return compute("einsum", lambda *x: np.einsum(subscripts, *x), *operands, out=out)
