"""Response normalization: neighbors inhibit each other. Paper section 3.3."""
from ..tensor import Function


def window_sum(xp, a, size, lead):
    """Sum `a` (N, C, H, W) over channels c - lead .. c - lead + size - 1, clipped at the ends."""
    total, C = xp.zeros_like(a), a.shape[1]
    for shift in range(-lead, size - lead):
        into, out_of = slice(max(0, -shift), C - max(0, shift)), slice(max(0, shift),
                                                                       C + min(0, shift))
        if into.start < into.stop:
            total[:, into] += a[:, out_of]
    return total


class LocalResponseNorm(Function):
    """y_c = x_c d_c^-beta,  d_c = k + a sum of x_j^2 over the size channels j around c.

    Paper section 3.3 writes a = alpha; its source divides, a = alpha / size.
    """

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0, divide_alpha=True):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"local_response_norm: size is {size!r}; expected an integer >= 1")
        self.size, self.beta, self.k = size, beta, k
        self.a = alpha / size if divide_alpha else alpha

    def forward(self, x):
        if x.ndim != 4:
            raise ValueError(f"local_response_norm: needs maps (N, C, H, W); got shape {x.shape}")
        y, d = self.device.empty(x.shape, x.dtype), self.device.empty(x.shape, x.dtype)

        def some(images):
            x_ = x[images]
            d[images] = self.k + self.a * window_sum(self.xp, x_ * x_, self.size, self.size // 2)
            y[images] = x_ * self.power(d[images])

        self.device.map(len(x), some, work=30 * x[0].size)
        self.save(x, d)
        return y

    # y_c = x_c d_c^-beta depends on x_c twice over: by itself, and through every d_j whose window
    # holds c. With dd_j/dx_c = 2 a x_c for those j:
    #   dL/dx_c = gy_c d_c^-beta  -  2 a beta x_c  sum over j: c in window(j) of gy_j x_j d_j^-(beta+1)
    # The windows that hold c begin size - 1 - size//2 channels before it: for an even size the
    # window backward is the mirror image of the one forward.

    def backward(self, gy):
        x, d = self.saved
        gx = self.device.empty(x.shape, x.dtype)

        def some(images):
            x_, d_, g = x[images], d[images], gy[images]
            g = g * self.power(d_)                              # gy_c d_c^-beta
            back = window_sum(self.xp, g * x_ / d_, self.size, self.size - 1 - self.size // 2)
            gx[images] = g - (2 * self.a * self.beta) * x_ * back

        self.device.map(len(x), some, work=40 * x[0].size)
        return (gx,)

    def power(self, d):
        """Return d^-beta; for the paper's 0.75 by square roots, which are several times faster."""
        if self.beta != 0.75:
            return d ** -self.beta
        root = 1 / self.xp.sqrt(d)                              # d^-1/2
        return root * self.xp.sqrt(root)                        # d^-1/2 d^-1/4


class SpatialResponseNorm(Function):
    """y = x d^-beta,  d = k + alpha/size^2 sum of x^2 over the size x size pixels around, per map.

    In the 2012 source after conv2's norm; not in the paper at all.
    """

    def __init__(self, size, alpha=1e-3, beta=0.75, k=1.0):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"spatial_response_norm: size is {size!r}; expected an integer >= 1")
        self.size, self.beta, self.k, self.a = size, beta, k, alpha / size**2

    def window_sum(self, a, lead):
        """Sum over both axes of the picture in turn, each as if it were the channels'."""
        for axis in (2, 3):
            turned = a.swapaxes(1, axis)
            a = window_sum(self.xp, turned, self.size, lead).swapaxes(1, axis)
        return a

    def forward(self, x):
        if x.ndim != 4:
            raise ValueError(f"spatial_response_norm: needs maps (N, C, H, W); got {x.shape}")
        d = self.k + self.a * self.window_sum(x * x, self.size // 2)
        self.save(x, d)
        return x * d ** -self.beta

    # as across channels: dL/dx_p = gy_p d_p^-beta - 2 a beta x_p sum over q: p in window(q) of
    # gy_q x_q d_q^-(beta+1), now for pixels p, q of one map

    def backward(self, gy):
        x, d = self.saved
        g = gy * d ** -self.beta
        back = self.window_sum(g * x / d, self.size - 1 - self.size // 2)
        return (g - (2 * self.a * self.beta) * x * back,)


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
