"""The layers: parameters around the ops of ``functional``."""
import numpy as np

from .. import functional as F
from .. import random
from ..ops.geometry import pair
from . import init as initializers
from .module import Module, Parameter


class _Weighted(Module):
    """A layer with weights and biases, drawn at a place of their own in order of creation."""

    def __init__(self, shape, bias, init, bias_init, device):
        kind = type(self).__name__
        rng = random.generator("init", kind, step=random.get_state()["step"],
                               index=random.next_use(("init", kind)))
        self.weight = Parameter((init or initializers.he)(shape, rng), device)
        self.bias = None
        if bias:
            start = np.full(shape[0], bias_init, self.weight.dtype)
            self.bias = Parameter(start, device, is_bias=True)


class Conv2d(_Weighted):
    """A convolution with its filters: :func:`tinyalex.functional.conv2d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, groups, bias
        As PyTorch's.
    ceil_mode : bool
        Keep a last window that hangs over the end (2012).
    init : callable (shape, rng) -> array
        Initial weights; N(0, sqrt(2 / fan-in)) where None.
    bias_init : float
        Initial biases; the paper starts some layers at 1 (section 5).
    device : Device or str

    Examples
    --------
    >>> from tinyalex import nn
    >>> nn.Conv2d(3, 48, 11, stride=4, ceil_mode=True)
    Conv2d(3, 48, kernel_size=(11, 11), stride=4, padding=0, groups=1, ceil_mode=True)
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1,
                 bias=True, ceil_mode=False, init=None, bias_init=0.0, device="cpu:0"):
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride, self.padding = stride, padding
        self.groups, self.ceil_mode = groups, ceil_mode
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: groups={groups} must divide in_channels={in_channels} and "
                             f"out_channels={out_channels}")
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        super().__init__(shape, bias, init, bias_init, device)

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups,
                        self.ceil_mode)

    def describe(self):
        return (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, padding={self.padding}, groups={self.groups}, "
                f"ceil_mode={self.ceil_mode}")


class Linear(_Weighted):
    """A fully-connected layer: :func:`tinyalex.functional.linear`. Parameters as in Conv2d.

    >>> from tinyalex import nn
    >>> nn.Linear(9216, 4096)
    Linear(9216, 4096)
    """

    def __init__(self, in_features, out_features, bias=True, init=None, bias_init=0.0,
                 device="cpu:0"):
        self.in_features, self.out_features = in_features, out_features
        super().__init__((out_features, in_features), bias, init, bias_init, device)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)

    def describe(self):
        return f"{self.in_features}, {self.out_features}"


class MaxPool2d(Module):
    """Maxima of windows; `ties` hands every tie the whole gradient, as the 2012 source.

    >>> from tinyalex import nn
    >>> nn.MaxPool2d(3, 2)
    MaxPool2d(3, 2)
    """

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, ties=False):
        self.settings, self.ties = (kernel_size, stride, padding, ceil_mode), ties

    def forward(self, x):
        return (F.max_pool2d_ties if self.ties else F.max_pool2d)(x, *self.settings)

    def describe(self):
        return f"{self.settings[0]}, {self.settings[1]}"


class AvgPool2d(Module):
    """Means of windows over their pixels inside the picture.

    >>> from tinyalex import nn
    >>> nn.AvgPool2d(3, 2)
    AvgPool2d(3, 2)
    """

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False):
        self.settings = (kernel_size, stride, padding, ceil_mode)

    def forward(self, x):
        return F.avg_pool2d(x, *self.settings)

    def describe(self):
        return f"{self.settings[0]}, {self.settings[1]}"


class LocalResponseNorm(Module):
    """Normalization across channels (section 3.3); the defaults are PyTorch's, not the paper's.

    >>> from tinyalex import nn
    >>> nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, divide_alpha=False)
    LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2.0, divide_alpha=False)
    """

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0, divide_alpha=True):
        self.settings = (size, alpha, beta, k, divide_alpha)

    def forward(self, x):
        return F.local_response_norm(x, *self.settings)

    def describe(self):
        size, alpha, beta, k, divide = self.settings
        return f"{size}, alpha={alpha}, beta={beta}, k={k}, divide_alpha={divide}"


class SpatialResponseNorm(Module):
    """Normalization within each map, the 2012 source's own.

    >>> from tinyalex import nn
    >>> nn.SpatialResponseNorm(5, alpha=1e-3)
    SpatialResponseNorm(5, alpha=0.001, beta=0.75, k=1.0)
    """

    def __init__(self, size, alpha=1e-3, beta=0.75, k=1.0):
        self.settings = (size, alpha, beta, k)

    def forward(self, x):
        return F.spatial_response_norm(x, *self.settings)

    def describe(self):
        return "{}, alpha={}, beta={}, k={}".format(*self.settings)


class ReLU(Module):
    """max(x, 0). Paper section 3.1.

    >>> import tinyalex as ta
    >>> ta.nn.ReLU()(ta.Tensor([-1.0, 2.0])).data.tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace=False):
        self.inplace = inplace

    def forward(self, x):
        return F.relu(x, self.inplace)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> import tinyalex as ta
    >>> ta.nn.Tanh()(ta.Tensor([0.0])).item()
    0.0
    """

    def forward(self, x):
        return F.tanh(x)


class Sigmoid(Module):
    """The logistic function.

    >>> import tinyalex as ta
    >>> ta.nn.Sigmoid()(ta.Tensor([0.0])).item()
    0.5
    """

    def forward(self, x):
        return F.sigmoid(x)


class Flatten(Module):
    """(N, C, H, W) to (N, C * H * W), in that order.

    >>> import numpy as np, tinyalex as ta
    >>> ta.nn.Flatten()(ta.Tensor(np.ones((2, 3, 4, 5), np.float32))).shape
    (2, 60)
    """

    def forward(self, x):
        return F.flatten(x)


class Dropout(Module):
    """Silence each unit with probability p while training. Paper section 4.2.

    Parameters
    ----------
    p : float
        Probability of silence.
    scaling : {"inverted", "paper"}
        See :func:`tinyalex.functional.dropout`.
    place : str, optional
        The joined layer's name; the module's own path where None.
    units, start : int, optional
        One tower's part of a joined layer: units of the whole, and where this part starts.

    Examples
    --------
    >>> from tinyalex import nn
    >>> nn.Dropout(0.5)
    Dropout(p=0.5, scaling='inverted')
    """

    def __init__(self, p=0.5, scaling="inverted", place=None, units=None, start=0):
        self.p, self.scaling = p, scaling
        self.place, self.part = place, {"units": units, "start": start}

    def forward(self, x):
        place = self.place or self.path
        return F.dropout(x, self.p, self.training, None, self.scaling, place, **self.part)

    def describe(self):
        return f"p={self.p}, scaling={self.scaling!r}"


class CrossEntropyLoss(Module):
    """Mean softmax cross-entropy: :func:`tinyalex.functional.cross_entropy`.

    >>> import numpy as np, tinyalex as ta
    >>> round(ta.nn.CrossEntropyLoss()(ta.Tensor([[0.0, 0.0]]), np.array([1])).item(), 6)
    0.693147
    """

    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels)
