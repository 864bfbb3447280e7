"""What is ordered before what: a vector clock for each stream, each event and the host.

A clock says of each stream how many of its operations are known to be over. Launching work hands
the host's clock to the stream, an event carries a stream's clock to another stream or to the host.
Each block of memory notes who touched which bytes; whoever touches them next must know of it.
"""
import contextlib
import dataclasses
import itertools
import weakref

_keys = itertools.count(1)
queues = weakref.WeakValueDictionary()          # pointer of a stream -> its Queue
_logs = []


class Race(RuntimeError):
    """Two operations touch the same memory, and nothing says which comes first."""


class Misuse(RuntimeError):
    """Work that a card would do at the wrong place, or not at all."""


class Clock(dict):
    """Key of a queue -> how many of its operations are over."""

    def join(self, other):
        """Know what `other` knows, too."""
        for key, tick in other.items():
            if tick > self.get(key, 0):
                self[key] = tick


class Queue:
    """The operations of one stream, in order."""

    def __init__(self, card, null=False):
        self.card, self.key, self.tick, self.clock = card, next(_keys), 0, Clock()
        self.ptr = 0 if null else 0x5EA0000 + 16 * self.key
        self.name = f"{'the null stream' if null else f'stream {self.key}'} of card {card}"
        self._known = 0                         # version of the host's clock that was joined last
        if not null:
            queues[self.ptr] = self

    def begin(self, name):
        """Enqueue the operation `name`, and return it."""
        if self._known != host.version:
            self.clock.join(host.clock)
            self._known = host.version
        self.tick += 1
        self.clock[self.key] = self.tick
        return Operation(name, self, self.tick)


class Host:
    """What the host knows to be over; `arrivals` are called whenever it learns more."""

    def __init__(self):
        self.clock, self.version, self.arrivals = Clock(), 0, []

    def join(self, clock):
        """Know what `clock` knows."""
        self.clock.join(clock)
        self.version += 1
        for arrived in self.arrivals:
            arrived()

    def knows(self, operation):
        """Whether the host waited for `operation`."""
        return self.clock.get(operation.queue.key, 0) >= operation.tick

    def wait(self, what, queue, tick, clock):
        """Wait for the operation number `tick` of `queue`, at which `clock` was taken."""
        for log in _logs:
            log.syncs.append((what, queue.tick - tick))
        self.join(clock)


host = Host()


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One entry of a queue."""

    name: str
    queue: Queue
    tick: int

    def read(self, block, start, stop):
        """Note that the bytes from address `start` to `stop` of `block` are read."""
        _touch(self, block, start, stop, writes=False)

    def write(self, block, start, stop):
        """Note that they are written."""
        _touch(self, block, start, stop, writes=True)

    def follows(self, other):
        """Whether `other` is over before this begins."""
        return self.queue is other.queue or \
            self.queue.clock.get(other.queue.key, 0) >= other.tick

    def __str__(self):
        return f"{self.name} (operation {self.tick} on {self.queue.name})"


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """The bytes of a block that an operation touched."""

    start: int
    stop: int
    by: Operation
    writes: bool


def _touch(operation, block, start, stop, writes):
    """Check an access against those before it. Strided arrays count as the range they span."""
    kept = []
    for access in block.accesses:
        if access.start < stop and start < access.stop:
            if (writes or access.writes) and not operation.follows(access.by):
                raise Race(_explain(operation, access, writes))
            same = access.by.queue is operation.queue and access.writes == writes
            if (writes or same) and start <= access.start and access.stop <= stop:
                continue                        # who follows this operation follows that one
        kept.append(access)
    kept.append(Access(start, stop, operation, writes))
    block.accesses = kept


def _explain(operation, access, writes):
    verb = {True: "writes", False: "reads"}
    there, here = access.by.queue.name, operation.queue.name
    return (f"{operation} {verb[writes]} memory that {access.by} {verb[access.writes]}, and "
            f"nothing orders the two: record an event on {there} after {access.by.name}, and let "
            f"{here} wait for it before {operation.name}")


class Log:
    """What happened while it was open.

    Attributes
    ----------
    syncs : list of (what, lag)
        Where the host waited; `lag` counts the operations behind the one waited for, so 0 means
        that it waited for all there was.
    launches : list of (card, pointer of the stream, name)
    copies : list of (kind, card, pointer of the stream, bytes)
        `kind` is "H2D", "D2H", "D2D" or "peer".
    """

    def __init__(self):
        self.syncs, self.launches, self.copies = [], [], []


@contextlib.contextmanager
def log():
    """Context: a Log of what happens inside."""
    book = Log()
    _logs.append(book)
    try:
        yield book
    finally:
        _logs[:] = [other for other in _logs if other is not book]


def note_sync(what, lag=0):
    """Log a wait."""
    for book in _logs:
        book.syncs.append((what, lag))


def note_launch(queue, name):
    """Log a launch."""
    for book in _logs:
        book.launches.append((queue.card, queue.ptr, name))


def note_copy(kind, queue, nbytes):
    """Log a copy."""
    for book in _logs:
        book.copies.append((kind, queue.card, queue.ptr, nbytes))
