"""Convolution as one matrix multiply: im2col, its adjoint col2im, and Conv2d. Paper section 3.5."""
import contextlib
import threading

from ..tensor import Function
from . import conv_cuda, conv_fast
from .activation import relu_gradient
from .arithmetic import in_order
from .geometry import pair, refuse, sides, taps, windows


class _Choice(threading.local):
    algorithm = "fast"


_choice = _Choice()


@contextlib.contextmanager
def conv_algorithm(name):
    """Context: run convolutions by ``"plain"``, the body printed below, or ``"fast"`` (default).

    Fast is conv_fast.py on a CPU and conv_cuda.py, with kernels, on a GPU.
    Both compute the same sums, but not in the same order: they differ in the last bits. Backward
    follows the forward that it belongs to, wherever it is called.

    Examples
    --------
    >>> import tinyalex as ta
    >>> with ta.conv_algorithm("plain"):
    ...     pass
    """
    if name not in ("plain", "fast"):
        raise ValueError(f"conv_algorithm: got {name!r}; expected 'plain' or 'fast'")
    before, _choice.algorithm = _choice.algorithm, name
    try:
        yield
    finally:
        _choice.algorithm = before


def im2col(xp, x, kernel, stride, padding, out):
    """Write each window of `x` as a column.

    Parameters
    ----------
    xp : numpy or cupy
    x : array, (N, C, H, W)
    kernel, stride, out : (int, int)
        KH KW, the two strides, and OH OW.
    padding : ((top, bottom), (left, right))
        Zeros around the picture; windows may hang over the end as well.

    Returns
    -------
    array, (N, C, KH, KW, OH, OW): ``cols[n, c, i, j, o, p]`` is the pixel that tap (i, j) of the
    window at (o, p) meets, zero outside the picture.
    """
    (N, C, H, W), (KH, KW), (OH, OW) = x.shape, kernel, out
    cols = xp.zeros((N, C, KH, KW, OH, OW), x.dtype)
    for i in range(KH):
        o, h = taps(H, OH, i, stride[0], padding[0][0])
        for j in range(KW):
            p, w = taps(W, OW, j, stride[1], padding[1][0])
            cols[:, :, i, j, o, p] = x[:, :, h, w]         # (N, C, OH', OW'): those inside
    return cols


def col2im(xp, cols, shape, stride, padding):
    """Add each column back to where its window was: the adjoint of :func:`im2col`.

    A pixel lies in many windows, so it receives a sum. `shape` is (N, C, H, W), that of the result.
    """
    _, _, KH, KW, OH, OW = cols.shape
    x = xp.zeros(shape, cols.dtype)
    for i in range(KH):
        o, h = taps(shape[2], OH, i, stride[0], padding[0][0])
        for j in range(KW):
            p, w = taps(shape[3], OW, j, stride[1], padding[1][0])
            x[:, :, h, w] += cols[:, :, i, j, o, p]
    return x


class Conv2d(Function):
    """y[n,k,o,p] = b[k] + sum over c,i,j of w[k,c,i,j] x[n, c, o S + i - P, p S + j - P].

    Pixels outside the picture are zero. With G groups, filters of group g see only the channels
    of group g: that is how the paper's layers 2, 4 and 5 stay on one GPU.
    """

    def __init__(self, stride=1, padding=0, groups=1, ceil_mode=False, relu=False):
        self.stride, self.padding = pair("stride", stride, 1), sides(padding)
        self.groups, self.ceil_mode, self.relu = groups, ceil_mode, relu

    def forward(self, x, w, b):
        self.kernel, self.out = w.shape[2:], self.check(x, w, b)
        self.fast = _FAST[self.device.kind] if _choice.algorithm == "fast" else None
        y = self.fast.forward(self, x, w, b) if self.fast else self.plain(x, w, b)
        self.save(x, w, y if self.relu else None)
        return y

    def plain(self, x, w, b):
        """Return y by one matrix product for each image and group."""
        xp, G, (OH, OW) = self.xp, self.groups, self.out
        y = self.device.empty((len(x), len(w), OH, OW), x.dtype)
        filters = in_order(w).reshape(G, len(w) // G, -1)           # (G, K/G, C/G*KH*KW)

        def some(images):
            cols = im2col(xp, x[images], self.kernel, self.stride, self.padding, self.out)
            n = len(cols)
            cols = cols.reshape(n, G, filters.shape[2], OH * OW)    # (n, G, C/G*KH*KW, OH*OW)
            y[images] = xp.matmul(filters, cols).reshape(n, len(w), OH, OW)

        self.device.map(len(x), some)
        if b is not None:
            y += b[:, None, None]                                   # one bias per filter
        return xp.maximum(y, 0, out=y) if self.relu else y

    # With the windows as columns, y = w cols is a matrix product for each image and group, so
    #   dL/dw    = dL/dy cols^T        summed over images
    #   dL/dcols = w^T dL/dy           and dL/dx = col2im(dL/dcols): the same pixel lies in
    #                                  several windows and receives the sum of what they send
    #   dL/db_k  = sum over n,o,p of dL/dy[n,k,o,p]

    # and behind a ReLU, dL/dy counts only where y > 0

    def backward(self, gy):
        x, w, y = self.saved
        gy = gy if y is None else relu_gradient(self.device, gy, y)
        if self.fast:
            return self.fast.backward(self, x, w, gy)

        xp, G, (OH, OW), gy = self.xp, self.groups, self.out, in_order(gy)
        gx = self.device.empty(x.shape, x.dtype) if self.needs_grad[0] else None
        filters = in_order(w).reshape(G, len(w) // G, -1)           # (G, K/G, C/G*KH*KW)

        def some(images):
            g = gy[images].reshape(-1, G, len(w) // G, OH * OW)     # (n, G, K/G, OH*OW)
            cols = im2col(xp, x[images], self.kernel, self.stride, self.padding, self.out)
            shape = cols.shape                                      # (n, C, KH, KW, OH, OW)
            cols = cols.reshape(len(g), G, filters.shape[2], OH * OW)
            if gx is not None:
                gcols = xp.matmul(filters.transpose(0, 2, 1), g)    # (n, G, C/G*KH*KW, OH*OW)
                gx[images] = col2im(xp, gcols.reshape(shape), x[images].shape,
                                    self.stride, self.padding)
            return xp.matmul(g, cols.transpose(0, 1, 3, 2)).sum(axis=0)  # (G, K/G, C/G*KH*KW)

        gw = sum(self.device.map(len(x), some)).reshape(w.shape)    # lanes are added in order
        gb = gy.sum(axis=(0, 2, 3)) if self.needs_grad[2] else None
        return gx, gw if self.needs_grad[1] else None, gb

    def check(self, x, w, b):
        """Return (OH, OW), or say what does not fit."""
        def wrong(why):
            refuse("conv2d", x, w.shape[2:], self.stride, self.padding, why)

        if x.ndim != 4 or w.ndim != 4:
            wrong(f"needs x (N, C, H, W) and w (K, C/groups, KH, KW); got {x.ndim} and "
                  f"{w.ndim} axes")
        if 0 in w.shape:
            wrong(f"w of shape {w.shape} is empty")
        G = self.groups
        if not isinstance(G, int) or G < 1 or x.shape[1] % G or len(w) % G:
            wrong(f"groups={G} must divide the {x.shape[1]} channels in and {len(w)} out")
        if x.shape[1] != w.shape[1] * G:
            wrong(f"w of shape {w.shape} reads {w.shape[1]} channels in each of {G} group(s); "
                  f"x has {x.shape[1]}")
        if b is not None and b.shape != (len(w),):
            wrong(f"b has shape {b.shape}; expected ({len(w)},), one per filter")
        out = tuple(windows(x.shape[2 + i], w.shape[2 + i], self.stride[i], *self.padding[i],
                            self.ceil_mode) for i in (0, 1))
        if min(out) < 1 or len(x) == 0:
            wrong("the padded input is smaller than the kernel" if len(x) else "the batch is empty")
        return out


_FAST = {"cpu": conv_fast, "cuda": conv_cuda}


def conv2d(x, w, b=None, stride=1, padding=0, groups=1, ceil_mode=False, relu=False):
    """Slide the filters `w` over the maps `x`.

    Parameters
    ----------
    x : Tensor, (N, C, H, W)
    w : Tensor, (K, C / groups, KH, KW)
    b : Tensor, (K,), optional
    stride : int or (int, int)
    padding : int, (ph, pw) or ((top, bottom), (left, right))
        Zeros around the picture.
    groups : int
        Split channels and filters into groups that do not see each other.
    ceil_mode : bool
        Keep a last window that hangs over the end, its overhang zero: the rule of the 2012 source,
        by which 224 pixels, kernel 11, stride 4 give 55 windows.
    relu : bool
        Return max(y, 0): on a GPU, one pass over the maps less than with a ReLU of its own.

    Returns
    -------
    Tensor, (N, K, OH, OW)

    Raises
    ------
    ValueError
        If the geometry does not fit; the message lists it whole.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor(np.ones((1, 3, 224, 224), np.float32))
    >>> w = ta.Tensor(np.ones((96, 3, 11, 11), np.float32))
    >>> ta.functional.conv2d(x, w, stride=4, ceil_mode=True).shape
    (1, 96, 55, 55)
    """
    return Conv2d(stride, padding, groups, ceil_mode, relu)(x, w, b)
