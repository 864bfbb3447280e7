"""tinyalex: AlexNet (Krizhevsky, Sutskever, Hinton 2012) from scratch, to read, learn from, train.

Read the package from the ground up: ``device``, ``tensor``, ``ops``, ``nn``, ``models``, ``train``.

>>> import tinyalex as ta
>>> from tinyalex import functional as F
>>> x = ta.Tensor([[1.0, -2.0]], requires_grad=True)
>>> F.relu(x).sum().backward()
>>> x.grad.tolist()
[[1.0, 0.0]]
"""
from . import ops, random  # noqa: F401  (ops attaches the operators to Tensor)
from . import functional, models, nn, optim
from .device import (BackendUnavailable, Device, DeviceMismatch, OutOfMemory, get_num_threads,
                     set_num_threads, transfer)
from .gradcheck import check_grads
from .graph import detect_anomaly, enable_grad, no_grad
from .ops.conv import conv_algorithm
from .random import manual_seed
from .tensor import Function, Tensor
from .trace import trace

__version__ = "0.1.0"
__all__ = ["BackendUnavailable", "Device", "DeviceMismatch", "Function", "OutOfMemory", "Tensor",
           "check_grads", "conv_algorithm", "detect_anomaly", "enable_grad", "functional",
           "get_num_threads", "manual_seed", "models", "nn", "no_grad", "optim", "random",
           "set_num_threads", "trace", "transfer"]
