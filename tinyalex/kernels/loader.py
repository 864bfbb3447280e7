"""Compile the CUDA sources beside this file, once for each card and dtype, and launch them."""
import contextlib
import functools
import pathlib
import threading

import numpy as np

FOLDER = pathlib.Path(__file__).parent
THREADS = 256             # of a block: eight warps, enough for any card to hide its latencies
OPTIONS = ("-std=c++17",)
LARGEST = 2**31 - 1       # elements of an array: the kernels count in 32 bits, which is faster

_functions = {}           # (device, kernel, dtype, macros) -> the compiled kernel


class _Switch(threading.local):
    on = True


_switch = _Switch()


def on(device):
    """Return whether ops on `device` run kernels: on a GPU, and outside of :func:`off`.

    >>> import tinyalex as ta
    >>> on(ta.Device("cpu:0"))
    False
    """
    return device.kind == "cuda" and _switch.on


@contextlib.contextmanager
def off():
    """Context: ops on a GPU run the lines that they share with the CPU, no kernels.

    >>> with off():
    ...     pass
    """
    before, _switch.on = _switch.on, False
    try:
        yield
    finally:
        _switch.on = before


def launch(device, name, n, *args, dtype=np.float32, rows=False, **macros):
    """Launch a kernel on the stream of `device`, within its scope.

    Parameters
    ----------
    device : Device
        A GPU.
    name : str
        ``"file.kernel"``, such as ``"sgd.update"``.
    n : int
        The number of threads, which is the kernel's last argument; nothing happens with 0.
    *args : arrays, numbers or None
        Arrays lie in C order. Integers become ``int``, floats ``REAL``, None a null pointer, and
        NumPy's numbers what they are.
    dtype : dtype
        ``REAL``, where no argument is an array of floats.
    rows : bool
        Launch a block of 256 threads for each of `n` rows instead.
    **macros : int
        Definitions to compile with, for what must be known then: ``SIZE=5``.

    Raises
    ------
    ValueError
        If an array does not lie in C order, or on another card, or holds too much to be counted
        in 32 bits.
    """
    ndarray = device.xp.ndarray
    real = next((a.dtype for a in args if isinstance(a, ndarray) and a.dtype.kind == "f"),
                np.dtype(dtype))
    arguments = []
    for i, a in enumerate(args):
        if isinstance(a, ndarray):
            _check(device, name, i, a)
            arguments.append(a)
        else:
            arguments.append(_argument(a, real))
    if not 0 <= n <= LARGEST:
        raise ValueError(f"{name}: {n:,} threads; expected at most {LARGEST:,}: take smaller "
                         "batches")
    if n:
        blocks, threads = geometry(n, rows)
        function = compiled(device, name, real, **macros)
        function((blocks,), (threads,), (*arguments, _int(n)))


def geometry(n, rows=False):
    """Return (blocks, threads of a block) that cover `n` threads, or `n` rows a block each.

    >>> geometry(1000), geometry(1000, rows=True)
    ((4, 256), (1000, 256))
    """
    return (n if rows else -(-n // THREADS)), THREADS


def compiled(device, name, real, **macros):
    """Return the kernel `name` for the dtype `real`, compiled for the card of `device`."""
    key = device.index, device.xp, name, real, *macros.items()
    if key not in _functions:
        file, kernel = name.split(".")
        module = device.xp.RawModule(code=source(file), options=options(real, **macros))
        with device.scope():
            _functions[key] = module.get_function(kernel)
    return _functions[key]


def source(file):
    """Return the text of a CUDA file by its name."""
    return (FOLDER / f"{file}.cu").read_text(encoding="utf-8")


def options(real, **macros):
    """Return what a source is compiled with.

    >>> import numpy as np
    >>> options(np.dtype("float32"), SIZE=5)
    ('-std=c++17', '-DREAL=float', '-DSIZE=5')
    """
    name = {"float32": "float", "float64": "double"}[real.name]
    return (*OPTIONS, f"-DREAL={name}", *(f"-D{key}={value}" for key, value in macros.items()))


def _check(device, name, i, a):
    if a.device.id != device.index:
        raise ValueError(f"{name}: argument {i} lies on card {a.device.id}, not on {device.name}")
    if not a.flags.c_contiguous:
        raise ValueError(f"{name}: argument {i} of shape {a.shape} has strides {a.strides}; "
                         "expected C order")
    if a.size > LARGEST:
        raise ValueError(f"{name}: argument {i} has {a.size:,} elements; expected at most "
                         f"{LARGEST:,}: use smaller batches")


def _argument(value, real):
    if isinstance(value, int):
        return _int(value)
    if value is None:
        return np.uint64(0)
    return real.type(value) if isinstance(value, float) else value


_int = functools.lru_cache(maxsize=4096)(np.int32)    # a net asks for the same few at each step
