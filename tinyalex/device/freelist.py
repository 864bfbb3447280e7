"""Freed activations wait here to be used again, instead of going back to the system.

The system hands memory out page by page and clears each page first, which takes as long as most ops
that would write to it. A training step asks for the same sizes as the step before, so a list
of freed buffers answers nearly every request.
"""
import threading
import weakref
from bisect import bisect_left, insort
from collections import deque

import numpy as np

SMALLEST = 1 << 16   # bytes; below, malloc itself keeps what is freed
ROOM = 1.25          # a buffer may be so many times larger than what it is lent for
SLACK = 1.5          # lent and waiting buffers together: so many times what was ever lent at once


class _Loan(weakref.ref):
    """Watches the array that stands on a buffer; the buffer comes back when it dies."""

    __slots__ = ("buffer", "owner")


def _come_back(loan):
    loan.owner._loans.pop(id(loan), None)
    loan.owner._back.append(loan.buffer)      # any thread, any moment: so no lock, only an append


class FreeList:
    """Buffers by size. One is used again only when the last view of it has died.

    NumPy lets a slice of a view refer to the array at the bottom, so a finalizer on a view
    fires while slices of it live. An array made by ``np.frombuffer`` is such a bottom: whatever
    is cut from it, at any depth, keeps it alive.

    Examples
    --------
    >>> free = FreeList()
    >>> a = free.take((1 << 20,), np.dtype(np.uint8))
    >>> where, row = a.ctypes.data, a[5:9][1:]
    >>> del a
    >>> b = free.take((1 << 20,), np.dtype(np.uint8))
    >>> b.ctypes.data == where                            # no: a slice still lives
    False
    >>> del row
    >>> free.take((1 << 20,), np.dtype(np.uint8)).ctypes.data == where
    True
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._idle = []         # (nbytes, turn, buffer), by size
        self._back = deque()    # buffers that came back and are not yet sorted in
        self._loans = {}        # id -> _Loan
        self._turn = 0
        self.idle_bytes = self.held_bytes = self.most_lent = 0

    def take(self, shape, dtype):
        """Return an uninitialized array in C order, on a buffer that waited or a new one."""
        nbytes = dtype.itemsize
        for extent in shape:
            nbytes *= extent
        if nbytes < SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:
            buffer = self._find(nbytes)
        array = np.frombuffer(memoryview(buffer), dtype, nbytes // dtype.itemsize)
        loan = _Loan(array, _come_back)
        loan.buffer, loan.owner = buffer, self
        self._loans[id(loan)] = loan
        return array.reshape(shape)

    def _find(self, nbytes):
        self._sort_in()
        i = bisect_left(self._idle, nbytes, key=lambda entry: entry[0])
        if i == len(self._idle) or self._idle[i][0] > nbytes * ROOM:
            self._shrink(nbytes)
            buffer = np.empty(nbytes, np.uint8)
            self.held_bytes += nbytes                   # not before: there may be no such memory
            self.most_lent = max(self.most_lent, self.held_bytes - self.idle_bytes)
            return buffer
        buffer = self._idle.pop(i)[2]
        self.idle_bytes -= buffer.nbytes
        return buffer

    def _sort_in(self):
        self._turn += 1
        while self._back:
            buffer = self._back.popleft()
            insort(self._idle, (buffer.nbytes, self._turn, buffer), key=lambda entry: entry[:2])
            self.idle_bytes += buffer.nbytes

    def _shrink(self, nbytes):
        """Before asking for more, let go of what has waited longest, if too much is held."""
        most = max(self.most_lent, self.held_bytes - self.idle_bytes + nbytes)
        while self._idle and self.held_bytes + nbytes > SLACK * most:
            oldest = min(range(len(self._idle)), key=lambda i: self._idle[i][1])
            gone = self._idle.pop(oldest)[0]
            self.idle_bytes -= gone
            self.held_bytes -= gone

    def clear(self):
        """Give all that waits back to the system, and forget how much was ever lent."""
        with self._lock:
            self._sort_in()
            self._idle.clear()
            self.held_bytes -= self.idle_bytes
            self.idle_bytes, self.most_lent = 0, self.held_bytes
