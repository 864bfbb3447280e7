"""Floor 1: where arrays live, how they move, what they weigh.

``core``      Device, the interned value; its errors; ``map``
``pool``      the threads behind ``map``, and the one-threaded BLAS
``memory``    the ledger (live and peak bytes, copies) and scratch
``freelist``  freed memory of a CPU, kept to be used again
``transfer``  the only path between two devices
``cuda``      the only file that knows CuPy's devices, streams and copies
"""
from .core import BackendUnavailable, Device, DeviceMismatch, OutOfMemory
from .pool import get_num_threads, set_num_threads
from .transfer import transfer

__all__ = ["BackendUnavailable", "Device", "DeviceMismatch", "OutOfMemory", "get_num_threads",
           "set_num_threads", "transfer"]
