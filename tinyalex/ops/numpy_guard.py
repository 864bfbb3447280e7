"""NumPy's functions meet a Tensor: they would lose the gradient, so they say what to use."""
import numpy as np

from ..tensor import Tensor
from .arithmetic import REFLECTED

_UFUNCS = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "truediv", "power": "pow"}
_NAMES = {"exp": "F.exp(x)", "log": "F.log(x)", "tanh": "F.tanh(x)", "matmul": "a @ b",
          "maximum": "F.relu(x) for a maximum with 0", "sum": "x.sum()", "mean": "x.mean()",
          "max": "x.max()", "amax": "x.max()", "reshape": "x.reshape(shape)",
          "transpose": "x.transpose(axes)", "concatenate": "F.concatenate(tensors)",
          "stack": "F.stack(tensors)", "negative": "-x", "add": "a + b", "subtract": "a - b",
          "multiply": "a * b", "divide": "a / b", "power": "x ** c", "sqrt": "x ** 0.5",
          "square": "x ** 2", "dot": "a @ b"}


def _teach(name):
    use = _NAMES.get(name)
    raise TypeError(f"np.{name} does not know Tensors and would lose the gradient: "
                    + (f"use {use}" if use else "use an op of tinyalex.functional, "
                       "or x.detach().numpy() for plain values"))


def _array_ufunc(self, ufunc, method, *inputs, **kwargs):
    left = inputs[0]
    if method == "__call__" and not kwargs and len(inputs) == 2 and inputs[1] is self \
            and isinstance(left, np.number) and ufunc.__name__ in _UFUNCS:
        return REFLECTED[_UFUNCS[ufunc.__name__]](self, left)        # np.float32(2) * x
    if any(isinstance(a, np.ndarray) for a in inputs):
        raise TypeError(f"np.{ufunc.__name__}: arrays and Tensors do not mix; wrap the array: "
                        f"ta.Tensor(array, device='{self.device.name}')")
    _teach(ufunc.__name__)


def _array(self, *args, **kwargs):
    raise TypeError("a Tensor does not turn into a NumPy array by itself: "
                    "use x.detach().numpy()")


Tensor.__array_ufunc__ = _array_ufunc
Tensor.__array_function__ = lambda self, function, types, args, kwargs: _teach(function.__name__)
Tensor.__array__ = _array
