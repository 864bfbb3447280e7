"""What a device holds and what has crossed to it: the ledger and the scratch pad."""
import threading
import weakref
from collections import Counter


class _Holding(weakref.ref):
    """One live buffer: a weak reference that knows its weight and how often it was overwritten."""

    __slots__ = ("key", "ledger", "maker", "nbytes", "version")


def _released(holding):
    ledger = holding.ledger
    ledger.live_bytes -= holding.nbytes
    ledger._holdings.pop(holding.key, None)


class Ledger:
    """The books of one device.

    Attributes
    ----------
    live_bytes, peak_bytes : int
        Bytes of the arrays that tensors, gradients and saved activations keep alive now, and the
        most they have been since :meth:`reset`. Views count once, under the buffer they look at.
    copies, bytes : collections.Counter
        Arrivals by transfer, keyed by ``(source device name, kind)``.

    Examples
    --------
    >>> import tinyalex as ta
    >>> here = ta.Device("cpu:1")
    >>> here.ledger.reset()
    >>> there = ta.Tensor([1.0, 2.0]).to("cpu:1")
    >>> here.ledger.bytes["cpu:0", "exchange"]
    8
    """

    def __init__(self, pool=dict):
        self._holdings, self._pool = {}, pool
        self.live_bytes = 0
        self.reset()

    def reset(self):
        """Forget the copies, and start the peak again from what is alive now."""
        self.peak_bytes = self.live_bytes
        self.copies, self.bytes = Counter(), Counter()

    def hold(self, array, maker=None):
        """Book the buffer under `array` while it lives; return its record.

        `maker` is the number of the graph's node that allocated it; only a first booking notes it.
        """
        owner = array
        while isinstance(owner.base, type(array)):
            owner = owner.base        # not down to bytes or mmap: the array over them stands there
        key = id(owner)
        holding = self._holdings.get(key)
        if holding is None:
            holding = self._holdings[key] = _Holding(owner, _released)
            holding.key, holding.ledger, holding.version = key, self, 0
            holding.maker, holding.nbytes = maker, owner.nbytes
            self.live_bytes += holding.nbytes
            if self.live_bytes > self.peak_bytes:
                self.peak_bytes = self.live_bytes
        return holding

    def count(self, source, kind, nbytes):
        """Book one arrival of `nbytes` from the device named `source`."""
        self.copies[source, kind] += 1
        self.bytes[source, kind] += nbytes

    def snapshot(self):
        """Return the books as plain values.

        ``{"live_bytes", "peak_bytes", "copies", "bytes", "pool"}``, the last as
        :meth:`Device.memory` tells it.
        """
        return {"live_bytes": self.live_bytes, "peak_bytes": self.peak_bytes,
                "copies": dict(self.copies), "bytes": dict(self.bytes), "pool": self._pool()}


class Scratch(threading.local):
    """Working memory for the length of one op call, kept per thread and grown as needed.

    An op asks for a named array and gets the same bytes each time; what it holds must not
    outlive the call. Columns of a convolution live here, activations never do.
    """

    def __init__(self):
        self._buffers = {}

    def take(self, name, shape, dtype, allocate):
        """Return this thread's array `name`, made by ``allocate(size, dtype)`` if need be."""
        size = 1
        for extent in shape:
            size *= extent
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.size < size:
            self._buffers.pop((name, dtype), None)  # free the small one before asking for more
            buffer = self._buffers[name, dtype] = allocate(size, dtype)
        return buffer[:size].reshape(shape)
