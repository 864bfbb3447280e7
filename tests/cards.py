"""The cards of the stand-in for CuPy as Devices: cuda:8, its alias cuda:8#1, and cuda:9.

They behave as cards where it hurts: see `standin`. A real card of this machine is beside them,
under its own number.
"""
import functools
import shutil
from unittest import mock

import standin
import tinyalex as ta
from tinyalex.device import cuda

NAMES = ("cuda:8", "cuda:8#1", "cuda:9")
MISSING = None if shutil.which("g++") else "no g++ on this machine to run the kernels with"


@functools.cache
def card(name):
    """The Device of that name, which the stand-in serves."""
    with mock.patch.object(cuda, "_cupy", lambda: standin.cupy):
        return ta.Device(name)
