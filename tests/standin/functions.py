"""The functions of the array module: those that CuPy has, too, and of them those in use here."""
import numpy as np
import tinyalex as ta

from . import arrays
from .arrays import compute, like, ndarray, new, passed_on, upload

_CPU = ta.Device("cpu:0")


def array(obj, dtype=None):
    """A new array on the current card."""
    if isinstance(obj, ndarray):
        return obj.astype(dtype or obj.dtype)
    return upload(np.array(obj, dtype))


def asarray(a, dtype=None):
    """The same, but an array of a card stays what it is."""
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    return array(a, dtype)


def asnumpy(a):
    """On the host."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def ascontiguousarray(a, dtype=None):
    """In C order; as in NumPy and CuPy, a single number becomes a vector of one."""
    a = asarray(a, dtype)
    if not a.ndim:
        return a.reshape(1)
    return a if a.flags.c_contiguous else compute("copy", np.ascontiguousarray, a)


def empty(shape, dtype=float, order="C"):
    """Uninitialized: it holds NaNs."""
    return new(shape, dtype, order)


def zeros(shape, dtype=float, order="C"):
    """Zeros."""
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float):
    """Ones."""
    return full(shape, 1, dtype)


def full(shape, fill_value, dtype=None, order="C"):
    """One value everywhere."""
    made = new(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    made[...] = fill_value
    return made


def empty_like(prototype, dtype=None):
    """Uninitialized, as `prototype` lies."""
    return like(prototype, dtype)


def zeros_like(a, dtype=None):
    """Zeros, as `a` lies."""
    made = like(a, dtype)
    made[...] = 0
    return made


def ones_like(a, dtype=None):
    """Ones, as `a` lies."""
    made = like(a, dtype)
    made[...] = 1
    return made


def arange(start, stop=None, step=1, dtype=None):
    """A range; computed on the card."""
    values = np.arange(*((start,) if stop is None else (start, stop, step)), dtype=dtype)
    made = new(values.shape, values.dtype)
    compute("arange", lambda: values, out=made)
    return made


def tri(N, M=None, k=0, dtype=float):
    """Ones below a diagonal; computed on the card."""
    made = new((N, N if M is None else M), dtype)
    return compute("tri", lambda: np.tri(N, M, k, dtype), out=made)


def copyto(dst, src):
    """Write `src` to `dst`."""
    dst[...] = src


def concatenate(tup, axis=0, out=None):
    """Side by side."""
    return compute("concatenate", lambda *parts: np.concatenate(parts, axis), *tup, out=out)


def stack(tup, axis=0, out=None):
    """On a new axis."""
    return compute("stack", lambda *parts: np.stack(parts, axis), *tup, out=out)


def broadcast_to(array, shape):
    """A view."""
    return array._view(np.broadcast_to(array._on_card, shape))


def expand_dims(a, axis):
    """A view."""
    return a._view(np.expand_dims(a._on_card, axis))


def atleast_1d(*arys):
    """Views."""
    made = [a if a.ndim else a.reshape(1) for a in arys]
    return made if len(made) > 1 else made[0]


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


def matmul(a, b, out=None):
    """The product of matrices; on one thread, as they are small and threads wait for each other.
    """
    return compute("matmul", lambda x, y: _CPU.map(1, lambda _: np.matmul(x, y))[0], a, b, out=out)


globals().update(arrays.REDUCTIONS)
for _name, _count, *_parameters in (
        ("dot", 2, "out"), ("outer", 2, "out"), ("tensordot", 2, "axes"),
        ("cumsum", 1, "axis", "dtype", "out"), ("clip", 1, "a_min", "a_max", "out"),
        ("repeat", 1, "repeats", "axis"), ("roll", 1, "shift", "axis"), ("tile", 1, "reps")):
    globals()[_name] = passed_on(_name, _count, *_parameters)


def einsum(subscripts, *operands, out=None):
    """Einstein's sums."""
    return compute("einsum", lambda *x: np.einsum(subscripts, *x), *operands, out=out)
