"""The memory of the cards: blocks, and CuPy's pool that lends them out."""
import collections
import contextlib
import weakref

import numpy as np

from . import order

UNIT = 512                  # sizes are rounded up to a multiple of it, as CuPy does
GUARD = 64                  # bytes behind each block that nobody may write
POISON = 0xFF               # what fresh memory holds: NaN as a float, -1 as an integer
CARD_BYTES = 16 << 30
card_bytes = CARD_BYTES


class OutOfMemoryError(MemoryError):
    """The limit of the pool or the card's memory does not suffice."""

    def __init__(self, size, total, limit=0):
        self._size, self._total, self._limit = size, total, limit
        limited = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(f"Out of memory allocating {size:,} bytes "
                         f"(allocated so far: {total:,} bytes{limited}).")


class Block:
    """A piece of a card's memory, and who touched it. It lives on while it waits in the pool."""

    def __init__(self, size):
        raw = np.empty(size + UNIT + GUARD, np.uint8)
        first = -raw.ctypes.data % UNIT
        self.bytes, self._guard = raw[first:first + size], raw[first + size:first + size + GUARD]
        self.size, self.start, self.accesses = size, raw.ctypes.data + first, []

    def lend(self):
        """Fill the block with what nobody should read."""
        self.bytes[...] = POISON
        self._guard[...] = POISON

    def is_whole(self, nbytes):
        """Whether nobody wrote behind the first `nbytes` bytes."""
        return (self.bytes[nbytes:] == POISON).all() and (self._guard == POISON).all()


class PooledMemory:
    """A block while it is in use; it goes back to the pool when the last array on it dies."""

    def __init__(self, arena, queue, block, nbytes):
        self._arena, self._queue, self._block, self._nbytes = arena, queue, block, nbytes
        self.ptr, self.size, self.device_id = block.start, block.size, arena.card
        arena.live[block.start] = weakref.ref(self)

    def __del__(self):
        arena, block = self._arena, self._block
        del arena.live[block.start]
        arena.used -= block.size
        arena.idle[self._queue.key, block.size].append(block)


class MemoryPointer:
    """An address in a block, as ``array.data``."""

    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset
        self.device_id = mem.device_id

    def __int__(self):
        return self.ptr


class Arenas:
    """What one card has lent and holds: freed blocks wait by stream and size."""

    def __init__(self, card):
        self.card, self.limit = card, 0
        self.live = {}
        self.clear()
        self.used = 0

    def clear(self):
        """Drop the blocks that wait."""
        self.idle = collections.defaultdict(list)

    @property
    def held(self):
        """Bytes in use and waiting."""
        return self.used + sum(size * len(blocks) for (_, size), blocks in self.idle.items())


_cards = {}


def arenas(card):
    """The Arenas of a card."""
    return _cards.setdefault(card, Arenas(card))


def allocate(queue, nbytes):
    """Lend `nbytes` bytes to work on `queue`; nobody else may have heard of them last."""
    arena = arenas(queue.card)
    size = max(1, -(-nbytes // UNIT)) * UNIT
    waiting = arena.idle[queue.key, size]
    if waiting:
        block = waiting.pop()
    else:
        if arena.limit and arena.held + size > arena.limit:
            raise OutOfMemoryError(size, arena.held, arena.limit)
        if arena.held + size > card_bytes:
            free_idle(queue.card)
        if arena.held + size > card_bytes:
            raise OutOfMemoryError(size, arena.held)
        block = Block(size)
    block.lend()
    arena.used += size
    lent = PooledMemory(arena, queue, block, nbytes)
    for hook in hooks:
        hook.malloc_postprocess(device_id=queue.card, size=nbytes, mem_size=size, mem_ptr=lent.ptr)
    return lent


def free_idle(card, key=None):
    """Give waiting blocks back to the card, which ends all its work first, as cudaFree does."""
    arena = arenas(card)
    gone = [place for place in arena.idle if key is None or place[0] == key]
    if sum(len(arena.idle.pop(place)) for place in gone):
        finish(card, "free_all_blocks")


def finish(card, what):
    """Let the host wait for all streams of a card."""
    order.note_sync(what)
    for queue in [q for q in order.queues.values() if q.card == card]:
        order.host.join(queue.clock)


def find(address, nbytes):
    """The memory in use that holds the bytes from `address` on; None if it is no card's.

    Raises
    ------
    Misuse
        If the bytes run past the end of what was asked for.
    """
    for arena in _cards.values():
        for reference in list(arena.live.values()):
            memory = reference()
            if memory is not None and memory.ptr <= address < memory.ptr + memory.size:
                if address + nbytes > memory.ptr + memory._nbytes:
                    raise order.Misuse(
                        f"{nbytes} bytes from offset {address - memory.ptr} run past the end of "
                        f"memory of {memory._nbytes} bytes on card {arena.card}")
                return memory
    return None


@contextlib.contextmanager
def card_memory(nbytes):
    """Context: each card has `nbytes` bytes."""
    global card_bytes
    before, card_bytes = card_bytes, nbytes
    try:
        yield
    finally:
        card_bytes = before


# ---------------------------------------------------------------------------- CuPy's names

class MemoryHook:
    """As in CuPy: a context that is told of each allocation."""

    def __enter__(self):
        hooks.append(self)
        return self

    def __exit__(self, *_):
        hooks.remove(self)

    def malloc_postprocess(self, **allocation):
        """Called behind an allocation."""


hooks = []
