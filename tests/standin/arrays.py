"""The array of the stand-in: NumPy's arithmetic on memory of a card, refused where CuPy refuses it.

It is no ndarray of NumPy and turns into none by itself. Each operation is enqueued on the current
stream of the current card, so that who reads and writes which bytes is known: see `order`.
"""
import math
import operator

import numpy as np

from . import memory, order
from .cards import Device, current_queue

try:
    from numpy.lib.array_utils import byte_bounds
except ImportError:                                            # NumPy 1
    from numpy import byte_bounds


class _Flags:
    """What may be asked of ``flags``; nothing may be set."""

    __slots__ = ("c_contiguous", "f_contiguous", "owndata")

    def __init__(self, inner, owndata):
        values = inner.flags.c_contiguous, inner.flags.f_contiguous, owndata
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name, value):
        raise AttributeError(f"flags.{name} cannot be set: CuPy has no such thing")


class ndarray:
    """An array on a card. Its numbers are `_on_card`, which only this package touches."""

    __slots__ = ("_on_card", "_memory", "base", "__weakref__")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, inner, mem, base=None):
        self._on_card, self._memory, self.base = inner, mem, base

    # what is known without asking the card

    shape = property(lambda self: self._on_card.shape)
    dtype = property(lambda self: self._on_card.dtype)
    ndim = property(lambda self: self._on_card.ndim)
    size = property(lambda self: self._on_card.size)
    nbytes = property(lambda self: self._on_card.nbytes)
    itemsize = property(lambda self: self._on_card.itemsize)
    strides = property(lambda self: self._on_card.strides)
    flags = property(lambda self: _Flags(self._on_card, self.base is None))
    device = property(lambda self: Device(self._memory.device_id))

    @property
    def data(self):
        """The address in the card's memory."""
        return memory.MemoryPointer(self._memory, self._on_card.ctypes.data - self._memory.ptr)

    def __len__(self):
        return len(self._on_card)

    # views: nothing is done on the card

    def _view(self, inner):
        return ndarray(inner, self._memory, self if self.base is None else self.base)

    T = property(lambda self: self._view(self._on_card.T))

    def transpose(self, *axes):
        return self._view(self._on_card.transpose(*axes))

    def swapaxes(self, axis1, axis2):
        return self._view(self._on_card.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return self._view(self._on_card.squeeze(axis))

    def view(self, dtype=None):
        return self._view(self._on_card.view() if dtype is None else self._on_card.view(dtype))

    def reshape(self, *shape, order="C"):
        wanted = self._on_card.reshape(*shape, order=order)
        if np.shares_memory(wanted, self._on_card) or not self.size:
            return self._view(wanted)
        return compute("reshape", lambda a: a.reshape(*shape, order=order), self)

    def ravel(self, order="C"):
        if self.flags.c_contiguous and order == "C":
            return self._view(self._on_card.reshape(-1))
        return compute("ravel", lambda a: a.flatten(order), self)

    def __getitem__(self, where):
        places, arrays = _index(where, self)
        if not arrays:
            return self._view(self._on_card[places + (...,)] if _counts(places, self.ndim)
                              else self._on_card[places])
        if any(a.dtype == bool for a in arrays):
            sync(f"index by a mask of shape {arrays[0].shape}", self)   # how many is not known
        return compute("take", lambda a, *_: a[_inner(places)], self, *arrays)

    def __setitem__(self, where, value):
        places, arrays = _index(where, self)
        given = [value] if isinstance(value, ndarray) else []
        if not given:
            _plain(value, "assigned to an array")
        operation = _enqueue("assignment", *arrays, *given)
        target = self._on_card[_inner(places)] if not arrays else self._on_card
        _write(operation, self, target)
        self._on_card[_inner(places)] = value._on_card if given else value

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # the host waits

    def get(self):
        """Copy to the host, and wait for it."""
        operation = _enqueue("get", self)
        queue = operation.queue
        order.note_copy("D2H", queue, self.nbytes)
        order.host.wait("get", queue, queue.tick, queue.clock)
        return self._on_card.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __index__(self):
        return operator.index(self.get())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return repr(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    # what CuPy refuses

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` "
                        "to construct a NumPy array explicitly.")

    def __array_function__(self, function, *_):
        raise TypeError(f"numpy.{function.__name__} was given an array of a card: use the array "
                        "module of its device")

    def __array_ufunc__(self, ufunc, method, *inputs, **how):
        number = any(isinstance(x, np.generic) for x in inputs)      # np.float32(2) * x is fine
        if method != "__call__" or how or not number:
            raise TypeError(f"numpy.{ufunc.__name__} was given an array of a card: use the array "
                            "module of its device")
        return compute(ufunc.__name__, ufunc, *inputs)

    # arithmetic

    def copy(self):
        return compute("copy", np.copy, self)

    def astype(self, dtype, copy=True):
        if not copy and self.dtype == dtype:
            return self
        return compute("astype", lambda a: a.astype(dtype), self, out=like(self, dtype))

    def fill(self, value):
        self[...] = value

    def dot(self, b, out=None):
        return compute("dot", np.dot, self, b, out=out)

    def argsort(self, axis=-1):
        return compute("argsort", lambda a: a.argsort(axis, kind="stable"), self)


def passed_on(name, count, *parameters):
    """NumPy's function of `count` arrays, with those of its parameters that CuPy has, too."""
    def function(*given, **how):
        arrays, rest = given[:count], given[count:]
        how.update(zip(parameters, rest, strict=False))
        for key in how:
            if key not in parameters:
                raise TypeError(f"{name}() of CuPy has no parameter {key!r}")
        out = how.pop("out", None)
        return compute(name, lambda *a: getattr(np, name)(*a, **how), *arrays, out=out)
    function.__name__, function.parameters = name, parameters
    return function


REDUCTIONS = {name: passed_on(name, 1, *parameters.split()) for parameters, names in {
    "axis dtype out keepdims": "sum mean prod", "axis dtype out ddof keepdims": "std var",
    "axis out keepdims": "max min any all argmax argmin"}.items() for name in names.split()}
for _name, _method in REDUCTIONS.items():
    setattr(ndarray, _name, _method)


def _binary(name, fn):
    def forward(self, other):
        return compute(name, fn, self, other)

    def backward(self, other):
        return compute(name, fn, other, self)

    def inplace(self, other):
        return compute(name, fn, self, other, out=self)
    return forward, backward, inplace


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or",
              "xor"):
    _fn = getattr(operator, _name + "_" if _name in ("and", "or") else _name)
    for _prefix, _method in zip(("", "r", "i"), _binary(_name, _fn), strict=True):
        setattr(ndarray, f"__{_prefix}{_name}__", _method)
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(_name, getattr(operator, _name))[0])
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__",
            lambda self, name=_name: compute(name, getattr(operator, name), self))


# ---------------------------------------------------------------------------- work on a card

def new(shape, dtype=np.float64, order="C"):
    """An array in fresh memory, which holds nonsense."""
    dtype, shape = np.dtype(dtype), (shape,) if np.isscalar(shape) else tuple(shape)
    nbytes = math.prod(shape) * dtype.itemsize
    mem = memory.allocate(current_queue("allocation"), nbytes)
    flat = mem._block.bytes[:nbytes].view(dtype)
    return ndarray(flat.reshape(shape, order=order), mem)


def like(a, dtype=None):
    """Fresh memory that lies as `a` does, without gaps: CuPy's order "K"."""
    axes = sorted(range(a.ndim), key=lambda i: (-abs(a.strides[i]), i))
    made = new([a.shape[i] for i in axes], dtype or a.dtype)
    return made.transpose(np.argsort(axes).tolist()) if axes != sorted(axes) else made


def upload(values):
    """A NumPy array as an array of the current card; one in order "F" stays so, as in CuPy."""
    values = np.asarray(values)
    order_f = values.flags.f_contiguous and not values.flags.c_contiguous
    made = new(values.shape, values.dtype, "F" if order_f else "C")
    queue = current_queue("upload")
    operation = queue.begin("upload")
    order.note_copy("H2D", queue, values.nbytes)
    _write(operation, made, made._on_card)
    made._on_card[...] = values
    return made


def compute(name, fn, *inputs, out=None):
    """Enqueue ``out = fn(*inputs)`` on the current stream."""
    for x in inputs:
        if not isinstance(x, ndarray):
            _plain(x, f"given to {name}")
    operation = _enqueue(name, *(x for x in inputs if isinstance(x, ndarray)))
    result = fn(*(x._on_card if isinstance(x, ndarray) else x for x in inputs))
    if out is None:
        result = np.asarray(result)
        out = new(result.shape, result.dtype)
    elif not isinstance(out, ndarray):
        raise TypeError(f"{name}: out is {type(out)}; expected an array of the card")
    elif not np.can_cast(np.asarray(result).dtype, out.dtype, "same_kind"):
        raise TypeError(f"{name}: cannot cast {np.asarray(result).dtype} to out's {out.dtype}")
    elif np.shape(result) != out.shape:
        raise ValueError(f"{name}: the result has shape {np.shape(result)}, out {out.shape}")
    _write(operation, out, out._on_card)
    out._on_card[...] = result
    return out


def sync(what, array):
    """Note that the host waits for what was enqueued so far."""
    queue = current_queue(what)
    order.host.wait(what, queue, queue.tick, queue.clock)


def _enqueue(name, *arrays):
    queue = current_queue(name)
    operation = queue.begin(name)
    order.note_launch(queue, name)
    for a in arrays:
        _on(operation, a)
        if a.size:
            operation.read(a._memory._block, *byte_bounds(a._on_card))
    return operation


def _write(operation, array, part):
    _on(operation, array)
    if part.size:
        operation.write(array._memory._block, *byte_bounds(part))


def _on(operation, array):
    if array._memory.device_id != operation.queue.card:
        raise order.Misuse(f"{operation.name} on card {operation.queue.card} was given an array "
                           f"of card {array._memory.device_id}")


def _plain(value, where):
    """Refuse a value that a card cannot take without a copy from the host."""
    if isinstance(value, (np.ndarray, list, tuple)):
        raise TypeError(f"Unsupported type {type(value)}: {where} of a card")


def _index(where, array):
    """Return (the places as a tuple, the arrays among them), with lists and NumPy's uploaded."""
    places = list(where) if isinstance(where, tuple) else [where]
    for i, place in enumerate(places):
        if isinstance(place, (list, np.ndarray)) and not np.isscalar(place):
            places[i] = upload(np.asarray(place))
    return tuple(places), [p for p in places if isinstance(p, ndarray)]


def _inner(places):
    return tuple(p._on_card if isinstance(p, ndarray) else p for p in places)


def _counts(places, ndim):
    """Whether the places are whole numbers for all axes: NumPy would give a number, no view."""
    return len(places) == ndim and all(isinstance(p, (int, np.integer)) for p in places)
