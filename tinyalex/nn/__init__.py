"""Floor 4: modules, with PyTorch's names."""
from . import init
from .layers import (AvgPool2d, Conv2d, CrossEntropyLoss, Dropout, Flatten, Linear,
                     LocalResponseNorm, MaxPool2d, ReLU, Sigmoid, SpatialResponseNorm, Tanh)
from .module import Module, ModuleList, Parameter, Sequential, as_input

__all__ = ["AvgPool2d", "Conv2d", "CrossEntropyLoss", "Dropout", "Flatten", "Linear",
           "LocalResponseNorm", "MaxPool2d", "Module", "ModuleList", "Parameter", "ReLU",
           "Sequential", "Sigmoid", "SpatialResponseNorm", "Tanh", "as_input", "init"]
