"""Response normalization: neighbors inhibit each other. Paper section 3.3."""
import numbers

from ..kernels import launch, on
from ..tensor import Function
from .arithmetic import in_order


def band(xp, n, size, dtype):
    """Return the (n, n) matrix whose column c is 1 at the neighbors of c and 0 elsewhere.

    Neighbors are c - size//2 .. c - size//2 + size - 1, clipped at the ends; for an even size there
    is one more below than above. A row of values times the band is the row of window sums, and
    times its transpose the sums over all windows that hold c: what backward needs.

    >>> import numpy as np
    >>> band(np, 4, 3, int).tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    """
    below = size // 2
    return xp.tri(n, n, below, dtype) - xp.tri(n, n, below - size, dtype)


def across_channels(xp, a, band, out=None):
    """Return the window sums over channels of `a` (N, C, H, W), as a matrix product.

    It stands on `out`, (N, H*W, C), where that is given.
    """
    N, C, H, W = a.shape
    rows = a.transpose(0, 2, 3, 1).reshape(N, H * W, C)       # a view of channels-last maps
    return xp.matmul(rows, band, out=out).reshape(N, H, W, C).transpose(0, 3, 1, 2)  # (N, C, H, W)


def within_maps(xp, a, band_h, band_w):
    """Return the sums over the window around each pixel of `a` (N, C, H, W), axis by axis."""
    N, C, H, W = a.shape
    rows = xp.matmul(band_w.T, a.transpose(0, 2, 3, 1))       # (N, H, W, C): summed along W
    both = xp.matmul(band_h.T, rows.reshape(N, H, W * C))     # (N, H, W C): and along H
    return both.reshape(N, H, W, C).transpose(0, 3, 1, 2)     # (N, C, H, W)


def power(xp, d, beta, out, spare):
    """Write d^beta to `out`; the paper's 0.75 by square roots, which are several times faster."""
    if beta != 0.75:
        return xp.power(d, beta, out=out)
    xp.sqrt(xp.sqrt(d, out=out), out=spare)                   # d^1/2 and d^1/4
    return xp.multiply(out, spare, out=out)


class LocalResponseNorm(Function):
    """y_c = x_c d_c^-beta,  d_c = k + a sum of x_j^2 over the size channels j around c.

    Paper section 3.3 writes a = alpha; its source divides, a = alpha / size.
    """

    name = "local_response_norm"

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0, divide_alpha=True):
        if not isinstance(size, numbers.Integral) or size < 1:
            raise ValueError(f"{self.name}: size is {size!r}; expected an integer >= 1")
        self.size, self.beta, self.k = size, beta, k
        self.a = alpha / size if divide_alpha else alpha

    def windows(self, shape, dtype):
        """Return what :meth:`sums` needs to know of the windows: the band over channels."""
        return (band(self.xp, shape[1], self.size, dtype),)                # ((C, C),)

    def sums(self, a, bands):
        """Return, for each element of `a` (N, C, H, W), the sum over the window around it.

        It stands on scratch: the next call overwrites it.
        """
        N, C, H, W = a.shape
        return across_channels(self.xp, a, *bands,
                               self.device.scratch("lrn.sums", (N, H * W, C), a.dtype))

    def fused(self):
        """Whether one kernel does it all."""
        return on(self.device)

    @staticmethod
    def strips(x):
        """Return the number of the kernels' threads: strips of 32 channels, for each pixel."""
        return len(x) * -(-x.shape[1] // 32) * x[0, 0].size

    def forward(self, x):
        if x.ndim != 4 or len(x) == 0:
            raise ValueError(f"{self.name}: needs maps (N, C, H, W), N > 0; got {x.shape}")
        xp, kept, y = self.xp, self.recording, self.device.empty(x.shape, x.dtype)
        d = self.device.empty(x.shape, x.dtype) if kept else None
        if self.fused():
            launch(self.device, "lrn.forward", self.strips(x), in_order(x), y, d, x.shape[1],
                   x[0, 0].size, float(self.a), float(self.beta), float(self.k), SIZE=self.size)
            self.save(x, d)
            return y
        self.bands = self.windows(x.shape, x.dtype)

        def some(images):               # until y is written, its memory holds what comes and goes
            x_, y_ = x[images], y[images]
            d_ = d[images] if kept else self.device.scratch("lrn.d", x_.shape, x.dtype)
            sums = self.sums(xp.multiply(x_, x_, out=y_), self.bands)
            xp.multiply(sums, self.a, out=d_)
            d_ += self.k
            xp.divide(x_, power(xp, d_, self.beta, out=sums, spare=y_), out=y_)

        self.device.map(len(x), some, work=500 * x[0].size, nbytes=4 * x[0].nbytes)
        self.save(x, d)
        return y

    # y_c = x_c d_c^-beta depends on x_c twice over: by itself, and through every d_j whose window
    # holds c. With dd_j/dx_c = 2 a x_c for those j:
    #   dL/dx_c = gy_c d_c^-beta  -  2 a beta x_c sum over j of gy_j x_j d_j^-(beta+1)
    # The sum runs over those j whose window holds c, not over the window of c: the band transposed.

    def backward(self, gy):
        x, d = self.saved
        xp, gx = self.xp, self.device.empty(x.shape, x.dtype)
        if self.fused():
            launch(self.device, "lrn.backward", self.strips(x), in_order(x), d, in_order(gy), gx,
                   x.shape[1], x[0, 0].size, float(self.a), float(self.beta), SIZE=self.size)
            return (gx,)
        holders = [band.T for band in self.bands]

        def some(images):
            x_, d_, gx_ = x[images], d[images], gx[images]
            g = self.device.scratch("lrn.g", x_.shape, x.dtype)
            xp.divide(gy[images], power(xp, d_, self.beta, out=g, spare=gx_), out=g)
            xp.multiply(g, x_, out=gx_)                                   # g is gy_c d_c^-beta
            gx_ /= d_
            back = self.sums(gx_, holders)
            back *= x_
            back *= 2 * self.a * self.beta
            xp.subtract(g, back, out=gx_)

        self.device.map(len(x), some, work=600 * x[0].size, nbytes=6 * x[0].nbytes)
        return (gx,)


class SpatialResponseNorm(LocalResponseNorm):
    """The same with other neighbors: the size x size pixels around, each map by itself.

    Here a = alpha / size^2. In the 2012 source after conv2's norm; not in the paper at all.
    """

    name = "spatial_response_norm"

    def __init__(self, size, alpha=1e-3, beta=0.75, k=1.0):
        super().__init__(size, alpha, beta, k)
        self.a = alpha / size**2

    def fused(self):
        return False                        # its window is another one

    def windows(self, shape, dtype):
        """Return the bands over rows and over columns."""
        return tuple(band(self.xp, extent, self.size, dtype) for extent in shape[2:])

    def sums(self, a, bands):
        return within_maps(self.xp, a, *bands)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0, divide_alpha=True):
    """Divide each activity by what its neighbors in other maps do at the same place.

    Parameters
    ----------
    x : Tensor, (N, C, H, W)
    size : int
        Channels in a window: c - size//2 .. c - size//2 + size - 1, clipped.
    alpha, beta, k : float
        The paper has size 5, alpha 1e-4, beta 0.75, k 2.
    divide_alpha : bool
        True divides alpha by `size`, as PyTorch, Caffe and the 2012 source do; False is the formula
        as the paper prints it.

    Returns
    -------
    Tensor, (N, C, H, W)

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor(np.ones((1, 5, 1, 1)))
    >>> y = ta.functional.local_response_norm(x, 5, alpha=1.0, beta=1.0, k=0.0)
    >>> [round(v, 3) for v in (1 / y.data).ravel().tolist()]
    [0.6, 0.8, 1.0, 0.8, 0.6]
    """
    return LocalResponseNorm(size, alpha, beta, k, divide_alpha)(x)


def spatial_response_norm(x, size, alpha=1e-3, beta=0.75, k=1.0):
    """Divide each activity by what its neighbors in the same map do; the 2012 source's own.

    Parameters
    ----------
    x : Tensor, (N, C, H, W)
    size : int
        The window is size x size pixels, clipped at the border; alpha is divided by size squared.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor(np.ones((1, 1, 3, 3)))
    >>> y = ta.functional.spatial_response_norm(x, 3, alpha=9.0, beta=1.0, k=0.0)
    >>> [round(v, 3) for v in (1 / y.data).ravel().tolist()]
    [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]
    """
    return SpatialResponseNorm(size, alpha, beta, k)(x)
