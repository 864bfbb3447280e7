"""A stand-in for CuPy and two graphics cards that behaves as they do where it hurts.

``standin.cupy`` takes the place of the module ``cupy``. It computes with NumPy, at once, and keeps
account of what a card would not have to do at once:

* arrays.py, functions.py   arrays that refuse what CuPy refuses: to turn into NumPy's, to mix with
                            them or with those of another card, to be touched outside a scope
* cards.py                  devices, streams, events and the runtime; the current ones are tracked
* order.py                  a vector clock for each stream and event and for the host: what touches
                            memory that another stream touched last, with nothing in between that
                            orders the two, raises Race, every time and not by luck
* memory.py, host.py        the pool, which lends freed blocks again with their history; copies that
                            arrive late
* modules.py, compiled.py   CUDA kernels, run as C++
"""
import types

import numpy as np

from . import arrays, cards, functions, host, memory, modules, order
from .cards import CARDS, null_stream_allowed, runtime
from .memory import card_memory
from .order import Misuse, Race, log

__all__ = ["CARDS", "Misuse", "Race", "card_memory", "cupy", "log", "null_stream_allowed",
           "runtime", "settle"]

_TYPES = ("bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 inf nan "
          "pi newaxis dtype").split()


def settle():
    """Wait for everything, and forget what a fault that was planted has left behind."""
    host.forget()
    for card in CARDS:
        memory.finish(card, "settle")


def _module():
    """The module object that is taken for CuPy."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    for name, value in vars(functions).items():
        if not name.startswith("_") and callable(value) and not hasattr(arrays, name):
            setattr(cupy, name, value)
    for name in _TYPES:
        setattr(cupy, name, getattr(np, name))
    cupy.ndarray, cupy.RawModule, cupy.RawKernel = (arrays.ndarray, modules.RawModule,
                                                    modules.RawKernel)
    cupy.get_default_memory_pool = cards.Pool
    cupy.cuda = types.ModuleType("cupy.cuda")
    for name in ("Device", "Stream", "Event", "alloc_pinned_memory", "get_current_stream",
                 "get_elapsed_time", "runtime"):
        setattr(cupy.cuda, name, getattr(cards, name))
    cupy.cuda.memory = types.SimpleNamespace(OutOfMemoryError=memory.OutOfMemoryError)
    cupy.cuda.MemoryHook = memory.MemoryHook
    cupy.cuda.is_available = lambda: True
    return cupy


cupy = _module()
