"""The ops' public face: ``from tinyalex import functional as F``."""
from .ops.activation import relu, sigmoid, tanh
from .ops.arithmetic import exp, log
from .ops.conv import conv2d
from .ops.dropout import dropout
from .ops.exchange import exchange
from .ops.linear import linear, matmul
from .ops.loss import cross_entropy, log_softmax, softmax
from .ops.lrn import local_response_norm, spatial_response_norm
from .ops.pool import avg_pool2d, max_pool2d, max_pool2d_ties
from .ops.shape import concatenate, flatten, reshape, stack, transpose

__all__ = ["avg_pool2d", "concatenate", "conv2d", "cross_entropy", "dropout", "exchange", "exp",
           "flatten", "linear", "local_response_norm", "log", "log_softmax", "matmul",
           "max_pool2d", "max_pool2d_ties", "relu", "reshape", "sigmoid", "softmax",
           "spatial_response_norm", "stack", "tanh", "transpose"]
