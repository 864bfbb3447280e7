"""Matrix products: the fully-connected layer and a @ b."""
from ..kernels import launch, on
from ..tensor import Function, Tensor
from .activation import relu_gradient
from .arithmetic import in_order, sum_to


class Linear(Function):
    """y[n,k] = b[k] + sum over c of x[n,c] w[k,c]: every output sees every input."""

    def __init__(self, relu=False):
        self.relu = relu

    def forward(self, x, w, b):
        if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
            raise ValueError(f"linear: x {x.shape} does not meet w {w.shape}; expected x (N, C) "
                             "and w (K, C): flatten maps first")
        if b is not None and b.shape != (len(w),):
            raise ValueError(f"linear: b has shape {b.shape}; expected ({len(w)},)")
        x, w = in_order(x), in_order(w)
        y = self.device.empty((len(x), len(w)), x.dtype)
        self.save(x, w, y if self.relu else None)

        def some(k):                                     # threads share the outputs: fc6's weights
            self.xp.matmul(x, w[k].T, out=y[:, k])       # are read once, not once per thread

        self.device.map(len(w), some, work=2 * x.size)
        if on(self.device):
            b = b if b is None else in_order(b)
            launch(self.device, "bias.bias_relu", y.size, y, b, y, len(w), 1, len(w), 1, self.relu)
            return y
        if b is not None:
            y += b                                       # (N, K)
        return self.xp.maximum(y, 0, out=y) if self.relu else y

    #   dL/dx[n,c] = sum over k of dL/dy[n,k] w[k,c]     gx = gy w
    #   dL/dw[k,c] = sum over n of dL/dy[n,k] x[n,c]     gw = gy^T x
    #   dL/db[k]   = sum over n of dL/dy[n,k]           and behind a ReLU, dL/dy only where y > 0

    def backward(self, gy):
        (x, w, y), gy = self.saved, in_order(gy)
        gy = gy if y is None else relu_gradient(self.device, gy, y)
        gx = self.device.empty(x.shape, x.dtype) if self.needs_grad[0] else None
        gw = self.device.empty(w.shape, w.dtype) if self.needs_grad[1] else None
        matmul, share = self.xp.matmul, self.device.map
        if gx is not None:
            share(x.shape[1], lambda c: matmul(gy, w[:, c], out=gx[:, c]), work=2 * gy.size)
        if gw is not None:
            share(len(w), lambda k: matmul(gy[:, k].T, x, out=gw[k]), work=2 * x.size)
        return gx, gw, gy.sum(axis=0) if self.needs_grad[2] else None


class MatMul(Function):
    """y = a b, the matrix product over the last two axes; leading axes broadcast."""

    def forward(self, a, b):
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul: {a.shape} @ {b.shape} does not fit; expected (..., M, C) "
                             "@ (..., C, K): reshape a vector to one row or column")
        a, b = in_order(a), in_order(b)
        self.save(a, b)
        return self.device.map(1, lambda _: self.xp.matmul(a, b))[0]

    #   dL/da = dL/dy b^T,  dL/db = a^T dL/dy

    def backward(self, gy):
        (a, b), gy = self.saved, in_order(gy)

        def both(_):
            return (self.xp.matmul(gy, b.swapaxes(-1, -2)), self.xp.matmul(a.swapaxes(-1, -2), gy))

        (ga, gb), = self.device.map(1, both)
        return sum_to(self.xp, ga, a.shape), sum_to(self.xp, gb, b.shape)


def linear(x, w, b=None, relu=False):
    """Apply a fully-connected layer.

    Parameters
    ----------
    x : Tensor, (N, C)
    w : Tensor, (K, C)
    b : Tensor, (K,), optional
    relu : bool
        Return max(y, 0).

    Returns
    -------
    Tensor, (N, K)

    Examples
    --------
    >>> import tinyalex as ta
    >>> ta.functional.linear(ta.Tensor([[1.0, 2.0]]), ta.Tensor([[3.0, 4.0]])).item()
    11.0
    """
    return Linear(relu)(x, w, b)


def matmul(a, b):
    """Return the matrix product of two Tensors, (..., M, C) @ (..., C, K) -> (..., M, K).

    >>> import tinyalex as ta
    >>> (ta.Tensor([[1.0, 2.0]]) @ ta.Tensor([[3.0], [4.0]])).item()
    11.0
    """
    return MatMul()(a, b)


def _matmul(self, other):
    if isinstance(other, Tensor):
        return MatMul()(self, other)
    raise TypeError(f"Tensor @ {type(other).__name__}: wrap it: "
                    f"ta.Tensor(array, device='{self.device.name}')")


Tensor.__matmul__ = _matmul
