"""Data: where pictures come from and how they get ready for the net.

In the order in which to read: ``pictures`` (a file becomes pixels), ``dataset`` (numbered
pictures), ``shapes`` (the embedded set), ``trees``, ``cifar10`` and ``layouts`` (folders become
data sets), ``statistics`` (mean and principal colors), ``augment`` (where windows lie, color
noise), ``crops`` (what they show, cut here or on a GPU) and ``loader`` (batches ahead of time).

For a million pictures, ``prepare`` makes a ``store`` once, straight from ImageNet's ``archives``.
"""
from .augment import Augment
from .cifar10 import find_cifar10, open_cifar10
from .crops import Crops
from .dataset import ArrayDataset, DataError, Dataset, FileDataset, Subset
from .layouts import open_dataset
from .loader import Batch, Loader
from .pictures import (BrokenPicture, decode_picture, fit, picture_size, read_picture,
                       resize_shorter)
from .prepare import prepare
from .shapes import Shapes
from .statistics import Statistics, statistics
from .store import StoreDataset

__all__ = ["ArrayDataset", "Augment", "Batch", "BrokenPicture", "Crops", "DataError",
           "Dataset", "FileDataset", "Loader", "Shapes", "Statistics", "StoreDataset", "Subset",
           "decode_picture", "find_cifar10", "fit", "open_cifar10", "open_dataset",
           "picture_size", "prepare", "read_picture", "resize_shorter", "statistics"]
