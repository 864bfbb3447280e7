"""Device: an explicit place for arrays. Logical CPUs obey exactly the rules of GPUs."""
import contextlib
import re

import numpy as np

from . import pool
from .freelist import FreeList
from .memory import Ledger, Scratch

_NAME = re.compile(r"(cpu|cuda)(?::(\d+))?(?:#(\d+))?\Z")
_NO_SCOPE = contextlib.nullcontext()  # re-entrant and reusable: a CPU has nothing to switch


class BackendUnavailable(RuntimeError):
    """A device was named that this machine cannot serve; the message says what to do."""


class DeviceMismatch(TypeError):
    """One op was given tensors of several devices; the message names them and the fix."""


class OutOfMemory(MemoryError):
    """A graphics card has no room for an array; the message says what it holds, and its limit.

    Attributes
    ----------
    device : Device
    """

    def __init__(self, device, message):
        super().__init__(message)
        self.device = device


class Fetched:
    """An array on its way to the host, as :meth:`Device.fetch` returns it."""

    def __init__(self, array):
        self._array = array

    def result(self):
        """Return the NumPy array, once it has arrived."""
        return self._array


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
    kinds = {}            # "cpu" and "cuda": the classes that serve them
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
            device = object.__new__(Device.kinds[kind])
            device.name, device.index, device.alias = canonical, index, alias
            device._scratch, device._free = Scratch(), FreeList()
            device.ledger = Ledger(device.memory)
            device._open()
            Device._interned[canonical] = device
        Device._interned[name] = Device._interned[canonical]
        return Device._interned[canonical]

    def _open(self):
        """Prepare the hardware. A CPU frees one block of 31 MiB: from then on glibc reuses freed
        blocks up to that size instead of giving them back, which would cost more, page by page,
        than the arithmetic on them."""
        np.empty(31 << 20, np.uint8)

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

    def pinned(self, shape, dtype):
        """Return an uninitialized NumPy array from which this device copies fastest."""
        return np.empty(shape, dtype)

    @contextlib.contextmanager
    def staged(self, host):
        """Context: the bytes of the NumPy array `host` on this device, a flat uint8 array.

        It is valid for the work that is launched inside. On a GPU the copy runs beside the work
        launched before, if `host` is :meth:`pinned`; leave `host` alone until results of the work
        have been seen.

        Examples
        --------
        >>> import numpy as np, tinyalex as ta
        >>> with ta.Device("cpu:0").staged(np.array([1, 256], np.uint16)) as data:
        ...     data.tolist()
        [1, 0, 0, 1]
        """
        yield np.ascontiguousarray(host).reshape(-1).view(np.uint8)

    def fetch(self, array):
        """Start to copy `array` to the host, and return a :class:`Fetched` at once.

        Who calls ``result()`` later, after more work was launched, keeps a GPU busy meanwhile.

        Examples
        --------
        >>> import numpy as np, tinyalex as ta
        >>> ta.Device("cpu:0").fetch(np.ones(2)).result().tolist()
        [1.0, 1.0]
        """
        return Fetched(array)

    def memory(self):
        """Return what is in use: ``{"used_bytes", "held_bytes", "limit_bytes", "total_bytes"}``.

        Held is what arrays use and what waits to be used again; None stands for no limit, and for
        a total that is not this device's own.
        """
        held = self._free.held_bytes
        return {"used_bytes": held - self._free.idle_bytes, "held_bytes": held,
                "limit_bytes": None, "total_bytes": None}

    def limit_memory(self, nbytes):
        """Let this device's card hold no more than `nbytes`; None lifts the limit. GPUs only."""
        raise ValueError(f"limit_memory: {self.name} has no limit of its own; only GPUs do")

    def empty(self, shape, dtype):
        """Return an uninitialized array; a feature map (N, C, H, W) lies channels-last on a CPU.

        The order is a matter of speed, never of meaning: GEMMs, pools and LRN run along the
        channels, and pictures arrive that way.
        """
        return self._allocate(self._free.take, shape, np.dtype(dtype))

    def zeros(self, shape, dtype):
        """Return zeros, laid out as :meth:`empty` does."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    @staticmethod
    def _allocate(make, shape, dtype):
        if len(shape) != 4:
            return make(shape, dtype)
        n, c, h, w = shape
        return make((n, h, w, c), dtype).transpose(0, 3, 1, 2)     # (N, C, H, W), channels last

    def scratch(self, name, shape, dtype):
        """Return this thread's working array `name`, valid until it is asked for again.

        It is laid out as :meth:`empty` does. Fresh memory costs several times what arithmetic on
        it costs: the system hands it out page by page, each page cleared first.
        """
        return self._allocate(
            lambda extents, kind: self._scratch.take(name, extents, kind, np.empty),
            shape, np.dtype(dtype))

    def empty_cache(self):
        """Give memory that was freed and waits to be used again back to the system.

        Examples
        --------
        >>> import tinyalex as ta
        >>> ta.Device("cpu:0").empty_cache()
        """
        self._free.clear()

    def map(self, n, fn, work=None, nbytes=None):
        """Cut ``range(n)`` into slices, run ``fn(slice)`` on the threads, return results in order.

        The cut depends on `n`, `work` and `nbytes` alone and not on the number of threads, so
        results that are reduced in order have one set of bits. Inside, BLAS runs one thread. On a
        GPU there is one slice.

        Parameters
        ----------
        n : int
            The number of items, usually images or output rows.
        fn : callable
            Takes a ``slice``; may be run on any thread.
        work : float, optional
            Operations per item; small work stays in one slice.
        nbytes : int, optional
            Bytes that `fn` reads and writes per item: slices are cut further, so that each fits
            the cache, and what one line of `fn` writes the next still finds there.

        Examples
        --------
        >>> import tinyalex as ta
        >>> ta.Device("cpu:0").map(4, lambda s: sum(range(s.start, s.stop)), work=1)
        [6]
        """
        if nbytes is None:
            return pool.run(pool.cut(n, work), fn)
        runs = pool.run(pool.cut(n, work), lambda s: [fn(b) for b in pool.blocks(s, nbytes)])
        return [result for run in runs for result in run]

    def each(self, fn, out, *arrays):
        """Let the elementwise ``fn(out, *arrays)`` write to `out`, piece by piece on the threads.

        What `fn` makes on its way stays in the cache, as each piece is small.

        Parameters
        ----------
        fn : callable
            Is given a piece of `out` and the same piece of each of `arrays`.
        out, *arrays : arrays of one shape and dtype
            `out` may be one of `arrays`.

        Returns
        -------
        array, `out`

        Examples
        --------
        >>> import numpy as np, tinyalex as ta
        >>> a = np.array([1.0, 2.0])
        >>> double = lambda y, x: np.multiply(x, 2, out=y)
        >>> ta.Device("cpu:0").each(double, np.empty(2), a).tolist()
        [2.0, 4.0]
        """
        pieces = [np.atleast_1d(a) for a in (out, *arrays)]
        strides = pieces[0].strides
        if all(a.strides == strides for a in pieces):        # one layout: run along the memory
            axes = sorted(range(len(strides)), key=lambda axis: -strides[axis])
            if pieces[0].transpose(axes).flags.c_contiguous:
                pieces = [a.transpose(axes).reshape(-1) for a in pieces]
        row = pieces[0][:1].size
        self.map(len(pieces[0]), lambda part: fn(*(a[part] for a in pieces)), work=40 * row,
                 nbytes=(len(pieces) + 1) * row * out.itemsize)
        return out

    def synchronize(self):
        """Wait until all work given to this device is done."""


Device.kinds["cpu"] = Device
