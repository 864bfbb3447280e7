"""Pooling with overlapping windows. Paper section 3.4: 3x3 windows, 2 apart."""
from ..kernels import launch, on
from ..tensor import Function
from .arithmetic import in_order
from .geometry import pair, refuse, sides, taps, windows


class Pool(Function):
    """What the pools share: windows clipped at the border, a walk over the taps of a window."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False):
        self.kernel = pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel if stride is None else pair("stride", stride, 1)
        self.padding, self.ceil_mode = sides(padding), ceil_mode

    def check(self, x):
        """Return (OH, OW), or say what does not fit."""
        name = type(self).__name__

        def wrong(why):
            refuse(name, x, self.kernel, self.stride, self.padding, why)

        if x.ndim != 4:
            wrong(f"needs maps (N, C, H, W); got {x.ndim} axes")
        if len(x) == 0:
            wrong("the batch is empty")
        out = []
        for extent, K, S, (before, after) in zip(x.shape[2:], self.kernel, self.stride,
                                                 self.padding):
            if 2 * max(before, after) > K:
                wrong("padding of more than half the kernel makes windows without a pixel")
            count = windows(extent, K, S, before, after, self.ceil_mode)
            if self.ceil_mode and (count - 1) * S >= extent + before:
                count -= 1                   # a window must start inside the picture
            if count < 1:
                wrong("the padded input is smaller than the window")
            out.append(count)
        return tuple(out)

    def in_layout(self, maps):
        """Return `maps` as the device lays maps out: after a flatten the gradient lies otherwise,
        and to walk two orders at once is slow."""
        laid = self.device.scratch("pool.maps", maps.shape, maps.dtype)
        if maps.strides == laid.strides:
            return maps
        laid[...] = maps
        return laid

    def geometry(self, shape, out):
        """Return H W, KH KW, OH OW, the strides, and the padding above and to the left."""
        return (*shape[2:], *self.kernel, *out, *self.stride,
                self.padding[0][0], self.padding[1][0])

    def each_tap(self, shape, out):
        """Yield, for each tap of a window, the windows that have it inside and its pixels.

        Both as indices (..., rows, columns), to be used on (N, C, OH, OW) and on (N, C, H, W).
        """
        for i in range(self.kernel[0]):
            o, h = taps(shape[2], out[0], i, self.stride[0], self.padding[0][0])
            for j in range(self.kernel[1]):
                p, w = taps(shape[3], out[1], j, self.stride[1], self.padding[1][0])
                yield (..., o, p), (..., h, w)


class MaxPool2d(Pool):
    """y[n,c,o,p] = the largest x in window (o, p); of equals the first, row by row, wins."""

    def forward(self, x):
        xp, out = self.xp, self.check(x)
        shape = x.shape[:2] + out                               # (N, C, OH, OW)
        code = xp.uint8 if self.kernel[0] * self.kernel[1] <= 256 else xp.uint16
        y, winner = self.device.empty(shape, x.dtype), self.device.empty(shape, code)
        if on(self.device) and code is xp.uint8:
            launch(self.device, "pool.max_pool_forward", y.size, in_order(x), y,
                   winner if self.recording else None, *self.geometry(x.shape, out))
            self.save(winner)
            return y
        *steps, last = self.each_tap(x.shape, out)

        def some(images):
            x_, y_, first = x[images], y[images], winner[images]
            y_[...] = -xp.inf                                   # padding never wins
            for window, pixel in (*steps, last):
                xp.maximum(y_[window], x_[pixel], out=y_[window])
            if not self.recording:                              # no backward will ask who won
                return
            lost = self.device.scratch("pool.lost", y_.shape, bool)
            lost[...], first[...] = True, 0                     # the winner's number is how many
            for window, pixel in steps:                         # taps lost before the first that
                below = xp.less(x_[pixel], y_[window])          # is not below the maximum
                xp.logical_and(lost[window], below, out=lost[window])
                first += lost

        self.device.map(len(x), some, work=1200 * y[0].size, nbytes=x[0].nbytes + 2 * y[0].nbytes)
        self.save(winner)
        return y

    # dL/dx[h,w] = sum over the windows whose winner is pixel (h, w) of dL/dy.
    # Windows overlap, so one pixel may win several times: += and never =.

    def backward(self, gy):
        (winner,) = self.saved
        gx = self.device.empty(self.shapes[0], gy.dtype)
        if on(self.device) and winner.dtype == self.xp.uint8:
            launch(self.device, "pool.max_pool_backward", gx.size, in_order(gy), winner, gx,
                   *self.geometry(gx.shape, gy.shape[2:]))
            return (gx,)
        gy = self.in_layout(gy)
        steps = list(self.each_tap(gx.shape, gy.shape[2:]))

        def some(images):
            gx_, gy_, first = gx[images], gy[images], winner[images]
            gx_[...] = 0
            for tap, (window, pixel) in enumerate(steps):
                gx_[pixel] += gy_[window] * (first[window] == tap)

        self.device.map(len(gx), some, work=1600 * gy[0].size, nbytes=gx[0].nbytes + gy[0].nbytes)
        return (gx,)


class MaxPool2dTies(Pool):
    """Max-pooling as the 2012 source differentiates it: every tie takes the whole gradient."""

    def forward(self, x):
        out = self.check(x)
        y = self.device.empty(x.shape[:2] + out, x.dtype)       # (N, C, OH, OW)
        steps = list(self.each_tap(x.shape, out))

        def some(images):
            x_, y_ = x[images], y[images]
            y_[...] = -self.xp.inf
            for window, pixel in steps:
                self.xp.maximum(y_[window], x_[pixel], out=y_[window])

        self.device.map(len(x), some, work=600 * y[0].size, nbytes=x[0].nbytes + y[0].nbytes)
        self.save(x, y)
        return y

    # dL/dx[h,w] = sum over the windows around (h, w) of dL/dy [x[h,w] = y]: no true gradient
    # where pixels tie, as it hands out more than came in; it is what the source does

    def backward(self, gy):
        x, y = self.saved
        gx, gy = self.device.empty(x.shape, gy.dtype), self.in_layout(gy)
        steps = list(self.each_tap(x.shape, gy.shape[2:]))

        def some(images):
            x_, y_, gx_, gy_ = x[images], y[images], gx[images], gy[images]
            gx_[...] = 0
            for window, pixel in steps:
                gx_[pixel] += gy_[window] * (x_[pixel] == y_[window])

        self.device.map(len(x), some, work=1600 * y[0].size, nbytes=2 * x[0].nbytes)
        return (gx,)


class AvgPool2d(Pool):
    """y[n,c,o,p] = the mean of x over the part of window (o, p) that lies inside the picture."""

    def forward(self, x):
        out = self.check(x)
        y = self.device.empty(x.shape[:2] + out, x.dtype)       # (N, C, OH, OW)
        steps, count = list(self.each_tap(x.shape, out)), self.inside(x.shape, out, x.dtype)

        def some(images):
            x_, y_ = x[images], y[images]
            y_[...] = 0
            for window, pixel in steps:
                y_[window] += x_[pixel]
            y_ /= count

        self.device.map(len(x), some, work=600 * y[0].size, nbytes=x[0].nbytes + y[0].nbytes)
        return y

    # dL/dx[h,w] = sum over the windows around (h, w) of dL/dy / (pixels of that window inside)

    def backward(self, gy):
        gx, gy = self.device.empty(self.shapes[0], gy.dtype), self.in_layout(gy)
        count = self.inside(gx.shape, gy.shape[2:], gy.dtype)
        steps = list(self.each_tap(gx.shape, gy.shape[2:]))

        def some(images):
            gx_, share = gx[images], gy[images] / count
            gx_[...] = 0
            for window, pixel in steps:
                gx_[pixel] += share[window]

        self.device.map(len(gx), some, work=800 * gy[0].size, nbytes=gx[0].nbytes + gy[0].nbytes)
        return (gx,)

    def inside(self, shape, out, dtype):
        """Return, for each window (OH, OW), how many of its pixels lie inside the picture."""
        count = self.xp.zeros(out, dtype)
        for window, _ in self.each_tap(shape, out):
            count[window] += 1
        return count


def max_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """Take the maximum of each window; windows may overlap.

    Parameters
    ----------
    x : Tensor, (N, C, H, W)
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size where None. The paper's pools have kernel 3 and stride 2.
    padding : int, (ph, pw) or ((top, bottom), (left, right))
        Positions that never win (minus infinity); at most half the kernel.
    ceil_mode : bool
        Keep a last window that hangs over the end, clipped, if it starts inside.

    Returns
    -------
    Tensor, (N, C, OH, OW)
        Of equal maxima the first, row by row, receives the gradient.

    Raises
    ------
    ValueError
        If the geometry does not fit.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor(np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5))
    >>> ta.functional.max_pool2d(x, 3, 2).data.tolist()
    [[[[12.0, 14.0], [22.0, 24.0]]]]
    """
    return MaxPool2d(kernel_size, stride, padding, ceil_mode)(x)


def max_pool2d_ties(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """Take the maximum of each window; in backward every tie takes the whole gradient.

    The same as :func:`max_pool2d` but for ties, as the 2012 source has them.

    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor(np.zeros((1, 1, 2, 2), np.float32), requires_grad=True)
    >>> ta.functional.max_pool2d_ties(x, 2).sum().backward()
    >>> x.grad.sum().item()
    4.0
    """
    return MaxPool2dTies(kernel_size, stride, padding, ceil_mode)(x)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """Take the mean of each window over its pixels inside the picture, as the 2012 source does.

    Parameters as in :func:`max_pool2d`. PyTorch's default counts padded zeros as pixels; here a
    window clipped to four pixels is divided by four.

    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor(np.ones((1, 1, 4, 4), np.float32))
    >>> ta.functional.avg_pool2d(x, 3, 2, ceil_mode=True).data.tolist()
    [[[[1.0, 1.0], [1.0, 1.0]]]]
    """
    return AvgPool2d(kernel_size, stride, padding, ceil_mode)(x)
