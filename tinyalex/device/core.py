"""Device: an explicit place for arrays. Logical CPUs obey exactly the rules of GPUs."""
import contextlib
import re

import numpy as np

from . import pool
from .memory import Ledger, Scratch

_NAME = re.compile(r"(cpu|cuda)(?::(\d+))?(?:#(\d+))?\Z")
_NO_SCOPE = contextlib.nullcontext()  # re-entrant and reusable: a CPU has nothing to switch


class BackendUnavailable(RuntimeError):
    """A device was named that this machine cannot serve; the message says what to do."""


class DeviceMismatch(TypeError):
    """One op was given tensors of several devices; the message names them and the fix."""


class Device:
    """A place where arrays live: ``cpu:0``, ``cpu:1``, ``cuda:0``, ``cuda:1``, ...

    Devices are interned: ``Device("cpu") is Device("cpu:0")``. Several logical CPUs share one
    memory, yet tensors on ``cpu:0`` and ``cpu:1`` mix as little as those of two graphics cards:
    every copy is explicit and counted, so a two-GPU program is fully testable on a laptop.
    ``cuda:0#1`` is an alias of ``cuda:0``: a Device of its own, on the same card, with a stream
    of its own.

    Parameters
    ----------
    name : str or Device
        ``"cpu"``, ``"cpu:INDEX"``, ``"cuda"``, ``"cuda:INDEX"`` or ``"cuda:INDEX#ALIAS"``.

    Attributes
    ----------
    name, kind, index : str, str, int
        For example ``"cuda:1"``, ``"cuda"``, ``1``.
    xp : module
        ``numpy`` or ``cupy``: ops are written against it.
    ledger : Ledger
        Live and peak bytes, and the copies that arrived.

    Raises
    ------
    ValueError
        If the name does not read as a device.
    BackendUnavailable
        If it names a GPU that cannot be used here.

    Examples
    --------
    >>> import tinyalex as ta
    >>> ta.Device("cpu") is ta.Device("cpu:0")
    True
    >>> ta.Device("cpu:1")
    Device('cpu:1')
    """

    _interned = {}
    kind, xp = "cpu", np

    def __new__(cls, name="cpu:0"):
        if isinstance(name, Device):
            return name
        device = Device._interned.get(name) if isinstance(name, str) else None
        if device is not None:
            return device
        match = _NAME.match(name) if isinstance(name, str) else None
        if match is None or (match[1] == "cpu" and match[3]):
            raise ValueError(f"device: got {name!r}; expected 'cpu:0', 'cpu:1', 'cuda:0', ...")
        kind, index, alias = match[1], int(match[2] or 0), int(match[3] or 0)
        canonical = f"{kind}:{index}" + (f"#{alias}" if alias else "")
        if canonical not in Device._interned:
            if kind == "cuda":
                from .cuda import CudaDevice as cls
            device = object.__new__(cls)
            device.name, device.index, device.alias = canonical, index, alias
            device.ledger, device._scratch = Ledger(), Scratch()
            device._open()
            Device._interned[canonical] = device
        Device._interned[name] = Device._interned[canonical]
        return Device._interned[canonical]

    def _open(self):
        """Prepare the hardware; a CPU needs nothing."""

    def __repr__(self):
        return f"Device({self.name!r})"

    def __reduce__(self):
        return Device, (self.name,)

    def scope(self):
        """Return a re-entrant context in which this device and its stream are the current ones."""
        return _NO_SCOPE

    def array(self, host, dtype=None):
        """Return the NumPy array or numbers `host` as an array of this device (a CPU adopts it)."""
        return np.asarray(host, dtype)

    def numpy(self, array):
        """Return an array of this device as a NumPy array on the host."""
        return array

    def empty(self, shape, dtype):
        """Return an uninitialized array; a feature map (N, C, H, W) lies channels-last on a CPU.

        The order is a matter of speed, never of meaning: GEMMs, pools and LRN run along the
        channels, and pictures arrive that way.
        """
        return self._allocate(np.empty, shape, dtype)

    def zeros(self, shape, dtype):
        """Return zeros, laid out as :meth:`empty` does."""
        return self._allocate(np.zeros, shape, dtype)

    @staticmethod
    def _allocate(make, shape, dtype):
        if len(shape) != 4:
            return make(shape, dtype)
        n, c, h, w = shape
        return make((n, h, w, c), dtype).transpose(0, 3, 1, 2)     # (N, C, H, W), channels last

    def scratch(self, name, shape, dtype):
        """Return this thread's working array `name`, valid until it is asked for again."""
        return self._scratch.take(name, shape, np.dtype(dtype), np.empty)

    def map(self, n, fn, work=None):
        """Cut ``range(n)`` into slices, run ``fn(slice)`` on the threads, return results in order.

        The cut depends on `n` and `work` (operations per item) alone and not on the number of
        threads, so results that are reduced in order have one set of bits. Inside, BLAS runs one
        thread. On a GPU there is one slice.

        Parameters
        ----------
        n : int
            The number of items, usually images or output rows.
        fn : callable
            Takes a ``slice``; may be run on any thread.
        work : float, optional
            Operations per item; small work stays in one slice.

        Examples
        --------
        >>> import tinyalex as ta
        >>> ta.Device("cpu:0").map(4, lambda s: sum(range(s.start, s.stop)), work=1)
        [6]
        """
        return pool.run(pool.cut(n, work), fn)

    def synchronize(self):
        """Wait until all work given to this device is done."""
