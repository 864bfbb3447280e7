"""Neurons: ReLU, tanh and the logistic function. Paper section 3.1."""
from ..kernels import launch, on
from ..tensor import Function
from .arithmetic import in_order


class ReLU(Function):
    """y = max(x, 0).  Paper section 3.1."""

    def __init__(self, inplace=False):
        self.inplace = inplace

    def forward(self, x):
        if self.inplace:
            self.overwrite(x)
        y = x if self.inplace else self.device.empty(x.shape, x.dtype)
        if on(self.device) and y.flags.c_contiguous:
            launch(self.device, "bias.relu", y.size, in_order(x), y)
        else:
            self.device.each(lambda y, x: self.xp.maximum(x, 0, out=y), y, x)
        self.save(y)          # the sign of y tells all that backward needs
        return y

    # dL/dx_i = dL/dy_i * [y_i > 0], and 0 at the kink

    def backward(self, gy):
        (y,) = self.saved
        return (relu_gradient(self.device, gy, y),)


def relu_gradient(device, gy, y):
    """Return gy * [y > 0], for the outputs y of a ReLU."""
    gx = device.empty(y.shape, y.dtype)
    if on(device):
        launch(device, "bias.relu_backward", y.size, in_order(gy), in_order(y), gx)
        return gx
    return device.each(lambda gx, gy, y: device.xp.multiply(gy, y > 0, out=gx), gx, gy, y)


class Tanh(Function):
    """y = tanh x, the neuron that the paper's figure 1 compares with."""

    def forward(self, x):
        y = self.xp.tanh(x)
        self.save(y)
        return y

    # dL/dx = dL/dy (1 - tanh^2 x)

    def backward(self, gy):
        (y,) = self.saved
        return (gy * (1 - y * y),)


class Sigmoid(Function):
    """y = 1 / (1 + e^-x), the logistic function, by e^-|x| so that nothing overflows."""

    def forward(self, x):
        e = self.xp.exp(-abs(x))                       # <= 1
        y = self.xp.where(x < 0, e, 1) / (1 + e)       # e^x / (1 + e^x) for x < 0
        self.save(y)
        return y

    # dL/dx = dL/dy y (1 - y)

    def backward(self, gy):
        (y,) = self.saved
        return (gy * (y * (1 - y)),)


def relu(x, inplace=False):
    """Return max(x, 0), elementwise; the gradient at 0 is 0.

    Parameters
    ----------
    x : Tensor, any shape
    inplace : bool
        Write the result over `x`, which saves its memory.

    Raises
    ------
    RuntimeError
        With ``inplace=True`` on a leaf, or where the op that made `x` needs it in backward.

    Examples
    --------
    >>> import tinyalex as ta
    >>> ta.functional.relu(ta.Tensor([-1.0, 2.0]))
    Tensor([0., 2.], device='cpu:0')
    """
    return ReLU(inplace)(x)


def tanh(x):
    """Return the hyperbolic tangent of each element.

    >>> import tinyalex as ta
    >>> ta.functional.tanh(ta.Tensor([0.0])).item()
    0.0
    """
    return Tanh()(x)


def sigmoid(x):
    """Return 1 / (1 + exp(-x)) for each element.

    >>> import tinyalex as ta
    >>> ta.functional.sigmoid(ta.Tensor([0.0])).item()
    0.5
    """
    return Sigmoid()(x)
