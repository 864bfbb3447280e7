"""Softmax and the multinomial logistic loss. Paper section 3.5: the average over the batch of the
log-probability of the right label is maximized."""
import numpy as np

from ..kernels import launch, on
from ..tensor import Function, _common_device
from .arithmetic import in_order


class LogSoftmax(Function):
    """y_c = x_c - ln sum_j e^x_j, along the last axis."""

    def forward(self, x):
        y = log_probabilities(self.xp, x)
        self.save(y)
        return y

    # dy_c/dx_j = [c = j] - p_j  with p = e^y, so  dL/dx_j = gy_j - p_j sum over c of gy_c

    def backward(self, gy):
        (y,), gy = self.saved, in_order(gy)
        return (gy - self.xp.exp(y) * gy.sum(axis=-1, keepdims=True),)


class CrossEntropy(Function):
    """L = -1/N sum over n of ln p[n, label_n], with p the softmax of the logits x.

    One op and not two: the logarithm of a probability that underflowed to 0 never arises.
    """

    def __init__(self, labels):
        self.labels = labels

    def forward(self, x):
        if on(self.device):
            logp, losses = self.xp.empty(x.shape, x.dtype), self.xp.empty(len(x), x.dtype)
            launch(self.device, "loss.forward", len(x), in_order(x), self.labels, logp, losses,
                   x.shape[1], rows=True)
            self.save(logp)
            return losses.mean()
        logp = log_probabilities(self.xp, x)                     # (N, C)
        self.save(logp)
        rows = self.xp.arange(len(x))
        return -logp[rows, self.labels].mean()                   # ()

    # dL/dx[n,c] = (p[n,c] - [c = label_n]) / N: what was said minus what is true

    def backward(self, gy):
        (logp,) = self.saved
        if on(self.device):
            gx = self.xp.empty_like(logp)
            launch(self.device, "loss.backward", gx.size, logp, self.labels, gy, gx, *gx.shape)
            return (gx,)
        gx = self.xp.exp(logp)                                   # (N, C)
        gx[self.xp.arange(len(gx)), self.labels] -= 1
        gx *= gy / len(gx)
        return (gx,)


def log_probabilities(xp, x):
    """Return the logarithm of the softmax along the last axis; no exponent is above 0."""
    z = in_order(x) - x.max(axis=-1, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=-1, keepdims=True))


def cross_entropy(logits, labels):
    """Return the mean over the batch of minus the log-probability of the right label.

    Parameters
    ----------
    logits : Tensor, (N, C)
        Before the softmax.
    labels : integer array, (N,)
        Classes 0 .. C - 1; a plain NumPy array, moved to the logits' device.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    TypeError, ValueError
        If labels are no integers, of another length, or out of range; none is ever ignored.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> loss = ta.functional.cross_entropy(ta.Tensor(np.zeros((2, 10))), np.array([3, 7]))
    >>> round(loss.item(), 4)        # ln 10
    2.3026
    """
    _common_device("cross_entropy", (logits,))
    if logits.ndim != 2:
        raise ValueError(f"cross_entropy: logits have shape {logits.shape}; expected (N, C)")
    N, C = logits.shape
    if not hasattr(labels, "dtype"):
        labels = np.asarray(labels)
    if getattr(labels, "dtype", None) is None or labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels are {labels.dtype}; expected an integer array, "
                        "class numbers and not one-hot rows")
    if labels.shape != (N,) or N == 0:
        raise ValueError(f"cross_entropy: labels have shape {labels.shape}, logits {(N, C)}; "
                         f"expected one label per row, ({N},), and at least one row")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= C:
        raise ValueError(f"cross_entropy: a label is {low if low < 0 else high}; "
                         f"expected 0 to {C - 1}")
    return CrossEntropy(logits.device.array(labels, np.int64))(logits)


def log_softmax(x):
    """Return the logarithm of the softmax of `x` along its last axis.

    >>> import tinyalex as ta
    >>> ta.functional.log_softmax(ta.Tensor([[0.0, 0.0]])).data.round(4).tolist()
    [[-0.693..., -0.693...]]
    """
    return LogSoftmax()(x)


def softmax(x):
    """Return e^x_c / sum_j e^x_j along the last axis: probabilities from logits.

    >>> import tinyalex as ta
    >>> ta.functional.softmax(ta.Tensor([[0.0, 0.0]])).data.tolist()
    [[0.5, 0.5]]
    """
    return LogSoftmax()(x).exp()
