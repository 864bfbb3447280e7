"""Ops that move elements and change none: reshape, transpose, index, join."""
import math

from ..kernels import launch, on
from ..tensor import Function, Tensor
from .arithmetic import axis_index, in_order


class Reshape(Function):
    """y = x in another shape, read in C order; whatever the strides, by meaning."""

    def __init__(self, shape):
        self.shape = shape

    def forward(self, x):
        return x.reshape(self.shape)

    # every element keeps its value, so every gradient finds its way back

    def backward(self, gy):
        return (gy.reshape(self.shapes[0]),)


class Transpose(Function):
    """y[..., i_axes[0], i_axes[1], ...] = x[..., i_0, i_1, ...]."""

    def __init__(self, axes):
        self.axes = axes

    def forward(self, x):
        return x.transpose(self.axes)

    # the inverse permutation brings each gradient home

    def backward(self, gy):
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return (gy.transpose(inverse),)


class GetItem(Function):
    """y = x[index]: slices, integers, integer arrays or a boolean mask."""

    def __init__(self, index):
        self.index = index

    def forward(self, x):
        return x[self.index]

    # dL/dx_j = sum over the i with index(i) = j of dL/dy_i: an element taken twice is paid twice

    def backward(self, gy):
        gx = self.xp.zeros(self.shapes[0], gy.dtype)
        index = self.index if isinstance(self.index, tuple) else (self.index,)
        if all(part is None or isinstance(part, (int, slice, type(...))) for part in index):
            gx[self.index] = gy                            # nothing is taken twice
        elif on(self.device):                              # add.at adds in any order there
            xp, places = self.xp, self.xp.arange(gx.size).reshape(gx.shape)[self.index].ravel()
            order = xp.argsort(places, kind="stable")
            begin = xp.searchsorted(places[order], xp.arange(gx.size + 1))
            launch(self.device, "scatter.add", gx.size, in_order(gy), order, begin, gx)
        else:
            self.xp.add.at(gx, self.index, gy)
        return (gx,)


class Concatenate(Function):
    """y = the inputs one after the other along `axis`."""

    def __init__(self, axis):
        self.axis = axis

    def forward(self, *parts):
        axis, lead = axis_index(self.axis, parts[0].ndim), parts[0].shape
        for part in parts[1:]:
            if part.ndim != len(lead) or any(
                    i != axis and a != b for i, (a, b) in enumerate(zip(part.shape, lead))):
                raise ValueError(f"concatenate: shapes {[p.shape for p in parts]} differ in more "
                                 f"than axis {axis}")
        joined = sum(part.shape[axis] for part in parts)
        y = self.device.empty(lead[:axis] + (joined,) + lead[axis + 1:], parts[0].dtype)
        return self.xp.concatenate(parts, axis=axis, out=y)

    # each part receives its own stretch of the gradient

    def backward(self, gy):
        axis, start, gxs = self.axis % gy.ndim, 0, []
        for shape in self.shapes:
            stop = start + shape[axis]
            gxs.append(gy[(slice(None),) * axis + (slice(start, stop),)])
            start = stop
        return tuple(gxs)


def reshape(x, *shape):
    """Return `x` in another shape (one extent may be -1), its elements in C order.

    >>> import tinyalex as ta
    >>> ta.functional.reshape(ta.Tensor([[1.0, 2.0], [3.0, 4.0]]), -1).shape
    (4,)
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return Reshape(shape)(x)


def flatten(x, start_dim=1):
    """Return `x` with all axes from `start_dim` on made one, in C order.

    For the maps before fc6 that is the order (channel, row, column), so that foreign weights fit.

    >>> import numpy as np, tinyalex as ta
    >>> ta.functional.flatten(ta.Tensor(np.ones((2, 3, 4, 5), np.float32))).shape
    (2, 60)
    """
    return Reshape(x.shape[:start_dim] + (math.prod(x.shape[start_dim:]),))(x)


def transpose(x, *axes):
    """Return `x` with its axes permuted; reversed where none are given.

    >>> import numpy as np, tinyalex as ta
    >>> ta.functional.transpose(ta.Tensor(np.ones((2, 3, 4), np.float32)), 0, 2, 1).shape
    (2, 4, 3)
    """
    if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
        axes = tuple(axes[0])
    axes = tuple(axis_index(a, x.ndim) for a in axes or reversed(range(x.ndim)))
    if sorted(axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {axes} are no permutation of the {x.ndim} axes of "
                         f"shape {x.shape}")
    return Transpose(axes)(x)


def concatenate(tensors, axis=0):
    """Join Tensors of one device along an axis; across devices use :func:`exchange`.

    >>> import tinyalex as ta
    >>> ta.functional.concatenate([ta.Tensor([1.0]), ta.Tensor([2.0])]).shape
    (2,)
    """
    return Concatenate(axis)(*tensors)


def stack(tensors, axis=0):
    """Join Tensors of one shape along a new axis.

    >>> import tinyalex as ta
    >>> ta.functional.stack([ta.Tensor([1.0, 2.0]), ta.Tensor([3.0, 4.0])]).shape
    (2, 2)
    """
    axis = axis_index(axis, tensors[0].ndim + 1)
    widened = [Reshape(t.shape[:axis] + (1,) + t.shape[axis:])(t) for t in tensors]
    return Concatenate(axis)(*widened)


Tensor.reshape, Tensor.flatten, Tensor.transpose = reshape, flatten, transpose
Tensor.T = property(transpose)
Tensor.__getitem__ = lambda self, index: GetItem(index)(self)
