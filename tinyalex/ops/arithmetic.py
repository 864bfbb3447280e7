"""+ - * / ** and the reductions, attached to Tensor here so that the engine knows no op."""
import numpy as np

from ..tensor import Function, Tensor


def sum_to(xp, g, shape):
    """Sum `g` over the axes along which an input of `shape` was broadcast.

    A broadcast value is used many times, and a value used many times gets the sum of the gradients.
    """
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < extra or shape[i - extra] == 1 != g.shape[i])
    return xp.sum(in_order(g), axis=axes, keepdims=True).reshape(shape)


def in_order(a):
    """Return `a` with the strides of C order, copied only where it lies otherwise.

    NumPy adds along memory and BLAS chooses its kernel by strides: else the last bits of a sum
    would depend on how its input lies.
    """
    return a.ravel().reshape(a.shape)      # ascontiguousarray keeps odd strides of an extent 1


class Add(Function):
    """y = a + b, with broadcasting."""

    def forward(self, a, b):
        return a + b

    # dy/da = dy/db = 1

    def backward(self, gy):
        a, b = self.shapes
        return sum_to(self.xp, gy, a), sum_to(self.xp, gy, b)


class Subtract(Function):
    """y = a - b, with broadcasting."""

    def forward(self, a, b):
        return a - b

    # dy/da = 1, dy/db = -1

    def backward(self, gy):
        a, b = self.shapes
        return sum_to(self.xp, gy, a), sum_to(self.xp, -gy, b)


class Multiply(Function):
    """y = a b, with broadcasting."""

    def forward(self, a, b):
        self.save(a if self.needs_grad[1] else None, b if self.needs_grad[0] else None)
        return a * b

    # dy/da = b, dy/db = a

    def backward(self, gy):
        a, b = self.saved
        return (None if b is None else sum_to(self.xp, gy * b, self.shapes[0]),
                None if a is None else sum_to(self.xp, gy * a, self.shapes[1]))


class Divide(Function):
    """y = a / b, with broadcasting."""

    def forward(self, a, b):
        self.save(a, b)
        return a / b

    # dy/da = 1 / b, dy/db = -a / b^2

    def backward(self, gy):
        a, b = self.saved
        ga = gy / b
        return sum_to(self.xp, ga, a.shape), sum_to(self.xp, -ga * a / b, b.shape)


class Scale(Function):
    """y = c x for a number c."""

    def __init__(self, c):
        self.c = c

    def forward(self, x):
        return x * self.c

    # dy/dx = c

    def backward(self, gy):
        return (gy * self.c,)


class Shift(Function):
    """y = x + c for a number c."""

    def __init__(self, c):
        self.c = c

    def forward(self, x):
        return x + self.c

    # dy/dx = 1

    def backward(self, gy):
        return (gy,)


class Power(Function):
    """y = x^c for a number c."""

    def __init__(self, c):
        self.c = c

    def forward(self, x):
        self.save(x)
        return (+x) ** self.c               # +x: memory that runs forward, else other bits

    # dy/dx = c x^(c-1)

    def backward(self, gy):
        (x,) = self.saved
        if self.c == 0:                     # 0 also at x = 0, where x^-1 is infinite
            return (self.xp.zeros_like(x),)
        return (gy * (self.c * (+x) ** (self.c - 1)),)


class Exp(Function):
    """y = e^x."""

    def forward(self, x):
        y = self.xp.exp(+x)                 # see Power
        self.save(y)
        return y

    # dy/dx = e^x = y

    def backward(self, gy):
        (y,) = self.saved
        return (gy * y,)


class Log(Function):
    """y = ln x."""

    def forward(self, x):
        self.save(x)
        return self.xp.log(+x)              # see Power

    # dy/dx = 1 / x

    def backward(self, gy):
        (x,) = self.saved
        return (gy / x,)


class Sum(Function):
    """y = sum of x over some axes."""

    def __init__(self, axis=None, keepdims=False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        axes = _axes(self.axis, x.ndim)
        return self.xp.sum(in_order(x), axis=axes, keepdims=self.keepdims)

    # dy/dx_i = 1: each summand receives the gradient of the sum

    def backward(self, gy):
        return (self.xp.broadcast_to(_widen(gy, self), self.shapes[0]),)


class Max(Function):
    """y = largest x over some axes; the first of equals wins, as in max-pooling."""

    def __init__(self, axis=None, keepdims=False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        axes = _axes(self.axis, x.ndim)
        kept = tuple(i for i in range(x.ndim) if i not in axes)
        self.order = kept + axes                           # reduced axes last, then as one
        rows = x.transpose(self.order).reshape([x.shape[i] for i in kept] + [-1])
        winner = rows.argmax(axis=-1)
        self.save(winner)
        y = self.xp.max(x, axis=axes, keepdims=True)
        return y if self.keepdims else y.reshape([x.shape[i] for i in kept])

    # dy/dx_i = 1 for the winner, 0 for the others

    def backward(self, gy):
        (winner,) = self.saved
        shape = [self.shapes[0][i] for i in self.order]
        size = int(np.prod(shape[winner.ndim:]))
        hit = self.xp.arange(size) == winner[..., None]    # one True per row
        gx = (hit * gy.reshape(winner.shape + (1,))).reshape(shape).astype(gy.dtype, copy=False)
        return (gx.transpose([self.order.index(i) for i in range(len(shape))]),)


def _axes(axis, ndim):
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(axis_index(a, ndim) for a in axes))


def axis_index(axis, ndim):
    """Return `axis` of `ndim` axes counted from the front, or teach."""
    if not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise ValueError(f"axis: got {axis!r}; expected an integer from {-ndim} to {ndim - 1}")
    return int(axis) % ndim


def _widen(gy, op):
    """Put back the axes that a reduction removed, with extent 1."""
    if op.keepdims:
        return gy
    shape = op.shapes[0]
    axes = _axes(op.axis, len(shape))
    return gy.reshape([1 if i in axes else extent for i, extent in enumerate(shape)])


def exp(x):
    """Return e to the power of each element of the Tensor `x`.

    >>> import tinyalex as ta
    >>> ta.functional.exp(ta.Tensor([0.0])).item()
    1.0
    """
    return Exp()(x)


def log(x):
    """Return the natural logarithm of each element of the Tensor `x`.

    >>> import tinyalex as ta
    >>> ta.functional.log(ta.Tensor([1.0])).item()
    0.0
    """
    return Log()(x)


def _mean(x, axis=None, keepdims=False):
    """Mean over `axis` (all axes where None)."""
    count = int(np.prod([x.shape[i] for i in _axes(axis, x.ndim)]))
    return Scale(1.0 / count)(Sum(axis, keepdims)(x))


# ---- the operators ------------------------------------------------------------------------------

def _is_number(value):
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _operator(symbol, with_tensor, with_number):
    def method(self, other):
        if isinstance(other, Tensor):
            return with_tensor(self, other)
        if _is_number(other):
            return with_number(self, float(other))
        if hasattr(other, "dtype"):
            raise TypeError(f"Tensor {symbol} {type(other).__name__}: arrays and Tensors do not "
                            f"mix; wrap it: ta.Tensor(array, device='{self.device.name}')")
        return NotImplemented
    return method


FORWARD = {
    "add": _operator("+", lambda a, b: Add()(a, b), lambda a, c: Shift(c)(a)),
    "sub": _operator("-", lambda a, b: Subtract()(a, b), lambda a, c: Shift(-c)(a)),
    "mul": _operator("*", lambda a, b: Multiply()(a, b), lambda a, c: Scale(c)(a)),
    "truediv": _operator("/", lambda a, b: Divide()(a, b), lambda a, c: Scale(1 / c)(a)),
    "pow": _operator("**", lambda a, b: Exp()(Multiply()(b, Log()(a))), lambda a, c: Power(c)(a)),
}
REFLECTED = {
    "add": FORWARD["add"],
    "mul": FORWARD["mul"],
    "sub": _operator("-", None, lambda a, c: Shift(c)(Scale(-1.0)(a))),
    "truediv": _operator("/", None, lambda a, c: Scale(c)(Power(-1.0)(a))),
    "pow": _operator("**", None, lambda a, c: Exp()(Scale(float(np.log(c)))(a))),
}
for _name in FORWARD:
    setattr(Tensor, f"__{_name}__", FORWARD[_name])
    setattr(Tensor, f"__r{_name}__", REFLECTED[_name])
Tensor.__neg__ = lambda self: Scale(-1.0)(self)
Tensor.exp, Tensor.log, Tensor.mean = exp, log, _mean
Tensor.sum = lambda self, axis=None, keepdims=False: Sum(axis, keepdims)(self)
Tensor.max = lambda self, axis=None, keepdims=False: Max(axis, keepdims)(self)
