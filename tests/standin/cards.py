"""Cards, streams and events, and the part of CUDA's runtime that a program talks to.

The cards are number 8 and 9, so that they are not taken for real ones beside them. A thread begins
on card 0, which does not exist: work that forgot to choose its device is refused, every time.
"""
import contextlib
import threading

from . import host, memory, order

CARDS = (8, 9)
LAG = 64                    # operations behind an event after which a card has surely passed it


class _Here(threading.local):
    card = 0                # the current one

    def __init__(self):
        self.streams = {card: [None] for card in CARDS}    # of each card, the current one last
        self.null_allowed = False


here = _Here()
_null = {card: order.Queue(card, null=True) for card in CARDS}


@contextlib.contextmanager
def null_stream_allowed():
    """Context: work on the null stream is no mistake."""
    before, here.null_allowed = here.null_allowed, True
    try:
        yield
    finally:
        here.null_allowed = before


def current_card(what):
    """The card for `what`; refuse the one that a thread has before it chose."""
    if here.card not in CARDS:
        raise order.Misuse(f"{what} on card {here.card}, where this thread began: work belongs "
                           "within device.scope(), the rest within cuda.Device(...)")
    return here.card


def current_queue(what):
    """The queue that takes the operation `what`; refuse what a program should not leave to luck."""
    stream = here.streams[current_card(what)][-1]
    if stream is not None:
        return stream.queue
    if not here.null_allowed:
        raise order.Misuse(f"{what} on the null stream of card {here.card}, which waits for "
                           "nothing and for which nothing waits: work belongs within "
                           "device.scope()")
    return _null[here.card]


class Device:
    """A card; as a context, the current one."""

    def __init__(self, device=None):
        self.id = here.card if device is None else int(device)
        self._before = []

    def use(self):
        """Make this the current card."""
        if self.id not in CARDS:
            raise runtime.CUDARuntimeError(f"cudaErrorInvalidDevice: no card {self.id}")
        here.card = self.id

    def __enter__(self):
        self._before.append(here.card)
        self.use()
        return self

    def __exit__(self, *_):
        here.card = self._before.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return self.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def synchronize(self):
        """Wait for all streams of the card."""
        memory.finish(self.id, "Device.synchronize")

    @property
    def mem_info(self):
        """Free and total bytes."""
        return memory.card_bytes - memory.arenas(self.id).held, memory.card_bytes


class Stream:
    """A queue of work on the card that is current when it is made."""

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.device_id = card = current_card("Stream")
        self.queue = _null[card] if null else order.Queue(card)
        self.ptr = self.queue.ptr

    def use(self):
        """Make this the current stream of its card."""
        self._refuse_elsewhere()
        here.streams[self.device_id][-1] = self
        return self

    def __enter__(self):
        self._refuse_elsewhere()
        here.streams[self.device_id].append(self)
        return self

    def __exit__(self, *_):
        here.streams[self.device_id].pop()

    def _refuse_elsewhere(self):
        if here.card != self.device_id:
            raise order.Misuse(f"a stream of card {self.device_id} is entered while card "
                               f"{here.card} is the current one")

    def record(self, event=None):
        """Mark the end of what was enqueued so far."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event):
        """Let what is enqueued from here on wait for the event."""
        if event.queue is not None:
            self.queue.clock.join(event.clock)

    def synchronize(self):
        """Wait for all that was enqueued."""
        order.host.wait("Stream.synchronize", self.queue, self.queue.tick, self.queue.clock)

    @property
    def done(self):
        """Whether the card has done all of it; asking tells the host nothing of other streams."""
        return order.host.clock.get(self.queue.key, 0) >= self.queue.tick

    def __hash__(self):
        return hash(self.ptr)

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr \
            and self.device_id == other.device_id


class Event:
    """A mark in a stream: what was known to be over there."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.queue, self.tick, self.clock, self.timed = None, 0, {}, not disable_timing
        self.card = current_card("Event")

    def record(self, stream=None):
        """Mark the end of what was enqueued so far on the stream, or on the current one."""
        queue = current_queue("Event.record") if stream is None else stream.queue
        if queue.card != self.card:
            raise order.Misuse(f"an event of card {self.card} is recorded on card {queue.card}")
        queue.begin("event")
        self.queue, self.tick, self.clock = queue, queue.tick, dict(queue.clock)

    def synchronize(self):
        """Let the host wait until the card has passed this mark."""
        if self.queue is not None:
            order.host.wait("Event.synchronize", self.queue, self.tick, self.clock)

    @property
    def done(self):
        """Whether the card has passed this mark: as late as can be."""
        if self.queue is None or order.host.clock.get(self.queue.key, 0) >= self.tick:
            return True
        if self.queue.tick - self.tick < LAG:
            return False
        order.host.join(self.clock)
        return True


def get_current_stream(device_id=None):
    """The current stream of the current card."""
    stream = here.streams[current_card("get_current_stream")][-1]
    if stream is None:
        current_queue("get_current_stream")
        return Stream(null=True)
    return stream


def get_elapsed_time(start_event, end_event):
    """Milliseconds between two events: here, as many as there were operations."""
    if not (start_event.timed and end_event.timed):
        raise runtime.CUDARuntimeError("cudaErrorInvalidResourceHandle: an event has no time")
    return float(end_event.tick - start_event.tick)


class Pool:
    """CuPy's pool, whose figures are those of the current card."""

    def _arenas(self):
        return memory.arenas(current_card("the memory pool"))

    def used_bytes(self):
        return self._arenas().used

    def total_bytes(self):
        return self._arenas().held

    def free_bytes(self):
        return self.total_bytes() - self.used_bytes()

    def get_limit(self):
        return self._arenas().limit

    def set_limit(self, size=None):
        self._arenas().limit = size

    def free_all_blocks(self, stream=None):
        memory.free_idle(self._arenas().card)


def alloc_pinned_memory(size):
    """Pinned memory; the driver opens the current card for it."""
    current_card("alloc_pinned_memory")
    return host.alloc_pinned_memory(size)


# ---------------------------------------------------------------------------- runtime

class _Runtime:
    """``cupy.cuda.runtime``: the functions that are used, under their names there."""

    memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = range(4)

    class CUDARuntimeError(RuntimeError):
        """What CUDA refuses."""

    def __init__(self):
        self.peers, self.enabled = True, set()   # whether cards reach each other's memory; which do

    def getDeviceCount(self):
        return CARDS[-1] + 1

    def getDeviceProperties(self, device):
        return {"name": b"Stand-in", "totalGlobalMem": memory.card_bytes, "major": 9, "minor": 0}

    def driverGetVersion(self):
        return 12040

    def runtimeGetVersion(self):
        return 12040

    def getDevice(self):
        return here.card

    def setDevice(self, device):
        Device(device).use()

    def deviceSynchronize(self):
        Device().synchronize()

    def memGetInfo(self):
        return Device(current_card("memGetInfo")).mem_info

    def deviceCanAccessPeer(self, device, peerDevice):
        return int(self.peers)

    def deviceEnablePeerAccess(self, peerDevice):
        if not self.peers:
            raise self.CUDARuntimeError("cudaErrorPeerAccessUnsupported")
        if (here.card, peerDevice) in self.enabled:
            raise self.CUDARuntimeError("cudaErrorPeerAccessAlreadyEnabled")
        self.enabled.add((here.card, peerDevice))

    def memcpyAsync(self, dst, src, size, kind, stream):
        queue = _queue(stream, "memcpyAsync")
        if kind == self.memcpyHostToDevice:
            host.upload(queue, "memcpyAsync", dst, size, src)
        elif kind == self.memcpyDeviceToHost:
            there = host.pinned(dst, size)
            if there is None:
                raise order.Misuse("memcpyAsync to memory that is not pinned: the host waits")
            host.download(queue, "memcpyAsync", src, size, there)
        else:
            host.on_card(queue, "memcpyAsync", dst, src, size)

    def memcpyPeerAsync(self, dst, dstDevice, src, srcDevice, size, stream):
        for address, card in ((dst, dstDevice), (src, srcDevice)):
            found = memory.find(address, size)
            if found is None or found.device_id != card:
                raise order.Misuse(f"memcpyPeerAsync: {address:#x} is not on card {card}")
        host.on_card(_queue(stream, "memcpyPeerAsync"), "memcpyPeerAsync", dst, src, size, "peer")


def _queue(pointer, what):
    """The queue of a stream's address, on the current card."""
    queue = order.queues.get(pointer)
    if queue is None:
        raise order.Misuse(f"{what} on the null stream, or on one that is no more")
    if queue.card != here.card:
        raise order.Misuse(f"{what} on {queue.name} while card {here.card} is the current one")
    return queue


runtime = _Runtime()
