"""Copies between cards and the host, and the host's page-locked ("pinned") memory.

Copies run at once here, so what may go wrong with late ones is brought about: bytes on their way
to the host arrive only when the host has waited for them, and the host memory of a copy under way
to a card must not have changed when the host waits, launches another copy or reuses that memory.
"""
import collections
import ctypes
import threading
import weakref
import zlib

import numpy as np

from . import memory, order

_lock = threading.RLock()                        # threads of a loader allocate pinned memory
_flights = []                                    # copies that the host has not waited for
_slabs = {}                                      # address -> pinned bytes in use
_idle = collections.defaultdict(list)            # size -> pinned bytes that were freed


class _Flight:
    """A copy under way: the host's bytes, and what they are to be."""

    def __init__(self, operation, there, arriving=None):
        self.operation, self.there, self.arriving = operation, there, arriving
        if arriving is None:
            self.digest = zlib.crc32(there)
        else:
            there[...] = memory.POISON

    def overlaps(self, address, nbytes):
        start = self.there.ctypes.data
        return start < address + nbytes and address < start + len(self.there)

    def check(self):
        """The source of a copy to the card is as it was."""
        if self.arriving is None and zlib.crc32(self.there) != self.digest:
            _flights.remove(self)
            raise order.Race(f"the host changed pinned memory while {self.operation} copied it: "
                             "wait for an event behind the copy before the memory is used again")


def arrived():
    """Check the sources of all copies under way; deliver and forget what the host waited for."""
    with _lock:
        for flight in list(_flights):
            flight.check()
            if order.host.knows(flight.operation):
                _flights.remove(flight)
                if flight.arriving is not None:
                    flight.there[...] = flight.arriving


order.host.arrivals.append(arrived)


def forget():
    """Forget all copies under way."""
    with _lock:
        _flights.clear()


# ---------------------------------------------------------------------------- pinned memory

def alloc_pinned_memory(nbytes):
    """Return pinned memory: a buffer of `nbytes` bytes rounded up, that a freed one may have been.

    As in CuPy, ``np.frombuffer`` needs the count, because the buffer may be larger.
    """
    size = max(1, -(-nbytes // memory.UNIT)) * memory.UNIT
    with _lock:
        slab = _idle[size].pop() if _idle[size] else bytearray(size)
        pointer = (ctypes.c_ubyte * size).from_buffer(slab)
        pointer.ptr = ctypes.addressof(pointer)
        for flight in list(_flights):
            flight.check()
            if flight.overlaps(pointer.ptr, size):
                raise order.Race(
                    f"pinned memory was freed while {flight.operation} was copying it, and is "
                    "now given out again: keep the array until an event behind the copy is done")
        ctypes.memset(pointer.ptr, memory.POISON, size)
        _slabs[pointer.ptr] = slab
        weakref.finalize(pointer, _free, pointer.ptr, slab).atexit = False
    return pointer


def _free(address, slab):
    with _lock:
        del _slabs[address]
        _idle[len(slab)].append(slab)


def pinned(address, nbytes):
    """The pinned bytes from `address` on, or None if no pinned memory holds them."""
    with _lock:
        for start, slab in _slabs.items():
            if start <= address and address + nbytes <= start + len(slab):
                return np.frombuffer(slab, np.uint8, nbytes, address - start)
    return None


# ---------------------------------------------------------------------------- copies

def upload(queue, operation_name, pointer, nbytes, address):
    """Enqueue the copy of host bytes at `address` to the card's bytes at `pointer`."""
    operation = _begin(queue, operation_name, "H2D", nbytes)
    data = _card_bytes(operation, pointer, nbytes, writes=True)
    with _lock:
        for flight in _flights:
            if flight.arriving is not None and flight.overlaps(address, nbytes):
                raise order.Race(f"{operation} sends host memory that {flight.operation} may not "
                                 "have filled yet: let the host wait for it first")
        source = pinned(address, nbytes)
        if source is not None:
            _flights.append(_Flight(operation, source))
        else:                                    # CUDA copies such memory away, and may wait
            if nbytes:
                order.note_sync(f"{operation_name} of memory that is not pinned")
            source = np.ctypeslib.as_array((ctypes.c_ubyte * nbytes).from_address(address))
        data[...] = source


def download(queue, operation_name, pointer, nbytes, there):
    """Enqueue the copy of the card's bytes at `pointer` to the host's bytes `there`."""
    operation = _begin(queue, operation_name, "D2H", nbytes)
    data = _card_bytes(operation, pointer, nbytes, writes=False)
    with _lock:
        for flight in _flights:
            if flight.arriving is None and flight.overlaps(there.ctypes.data, nbytes):
                raise order.Race(f"{operation} overwrites host memory that {flight.operation} may "
                                 "still send: let the host wait for it first")
        _flights.append(_Flight(operation, there, data.copy()))
    return operation


def on_card(queue, operation_name, target, source, nbytes, kind="D2D"):
    """Enqueue the copy of bytes at the card's address `source` to `target`, on one card or two."""
    operation = _begin(queue, operation_name, kind, nbytes)
    data = _card_bytes(operation, source, nbytes, writes=False).copy()
    _card_bytes(operation, target, nbytes, writes=True)[...] = data


def _begin(queue, operation_name, kind, nbytes):
    operation = queue.begin(operation_name)
    order.note_copy(kind, queue, nbytes)
    return operation


def _card_bytes(operation, address, nbytes, writes):
    """The bytes at an address of a card, and note that `operation` touches them."""
    found = memory.find(address, nbytes)
    if found is None:
        raise order.Misuse(f"{operation}: {address:#x} is no address of a card's memory in use")
    block = found._block
    (operation.write if writes else operation.read)(block, address, address + nbytes)
    return block.bytes[address - block.start:address - block.start + nbytes]
