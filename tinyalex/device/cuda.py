"""The only file that knows CuPy's devices, streams and copies.

One compute stream per Device, for three reasons: CuPy's memory pool gives a freed block back to
the stream it was allocated on; with one stream nothing on a device needs ordering; and the copies
below then need only two events each.

The host never waits where it need not. What it sends goes through page-locked ("pinned") memory,
from which a card copies by itself; what it wants to read is fetched, and read later.
"""
import contextlib
import threading

import numpy as np

from .core import BackendUnavailable, Device, Fetched, OutOfMemory

PIECE = 32 << 20     # bytes that one pinned buffer holds at most; more goes over in pieces
WAITING = 256 << 20  # bytes of pinned buffers from which on the host waits for a copy to end

_inside = contextlib.nullcontext()


class _Here(threading.local):
    device = None    # whose scope this thread is in


_here = _Here()
_peers = set()       # pairs of cards between which direct access was asked for


def _cupy():
    try:
        import cupy
    except ImportError as error:
        if getattr(error, "name", None) != "cupy":
            raise BackendUnavailable(
                "CuPy is installed but cannot be imported: run 'python -m tinyalex.doctor', "
                "or use --backend numpy") from error
        raise BackendUnavailable(
            "CuPy is not installed: pip install 'tinyalex[cupy]' (CUDA 12) "
            "or 'tinyalex[cupy13]' (CUDA 13), or use --backend numpy") from error
    if not cupy.cuda.is_available():
        raise BackendUnavailable(
            "CuPy is installed but finds no GPU (no NVIDIA driver, or one too old): "
            "run 'python -m tinyalex.doctor', or use --backend numpy")
    return cupy


def device_count():
    """Return the number of GPUs that CuPy can use, 0 without CuPy or a driver."""
    try:
        return _cupy().cuda.runtime.getDeviceCount()
    except BackendUnavailable:
        return 0


def describe(index):
    """Return the name, memory and compute capability of a GPU in words."""
    card = _cupy().cuda.runtime.getDeviceProperties(index)
    return (f"{card['name'].decode()}, {card['totalGlobalMem'] / 2**30:.1f} GiB, "
            f"compute capability {card['major']}.{card['minor']}")


class CudaDevice(Device):
    """A graphics card (or an alias of one) and its one compute stream."""

    kind = "cuda"

    def _open(self):
        self.xp = xp = _cupy()
        count = xp.cuda.runtime.getDeviceCount()
        if self.index >= count:
            have = ", ".join(f"cuda:{i}" for i in range(count))
            raise BackendUnavailable(f"{self.name}: no such GPU; this machine has {have}")
        with xp.cuda.Device(self.index):
            self._stream = xp.cuda.Stream(non_blocking=True)
        self._uploads, self._input, self._flying = _Uploads(self), _Input(self), []

    def scope(self):
        return _inside if _here.device is self else self._enter()    # to switch takes microseconds

    @contextlib.contextmanager
    def _enter(self):
        before, _here.device = _here.device, self
        try:
            # The order matters: entering a stream of a card that is not current raises.
            with self.xp.cuda.Device(self.index), self._stream:
                yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise OutOfMemory(self, f"{self.name}: {error}; {self._usage()}") from error
        finally:
            _here.device = before

    def _usage(self):
        sizes = {key: f"{(value or 0) / 2**30:.2f} GiB" for key, value in self.memory().items()}
        limit = f", its limit is {sizes['limit_bytes']}" if self.memory()["limit_bytes"] else ""
        return (f"{sizes['used_bytes']} are in use of {sizes['held_bytes']} held; the card has "
                f"{sizes['total_bytes']}{limit}")

    def array(self, host, dtype=None):
        with self.scope():
            if isinstance(host, self.xp.ndarray):
                return host if dtype is None else host.astype(dtype, copy=False)
            host = np.asarray(host, dtype, order="C")
            out = self.xp.empty(host.shape, host.dtype)
            if host.size:
                self._uploads.send(out.data.ptr, host.reshape(-1).view(np.uint8))
            return out

    def numpy(self, array):
        with self.scope():
            return array.get()

    def fetch(self, array):
        with self.scope():
            array = _in_order(self.xp, array)
            host = self.pinned(array.shape, array.dtype)
            self._memcpy(host.ctypes.data, array.data.ptr, array.nbytes, "DeviceToHost")
            return _OnItsWay(host, self._keep(host))

    def pinned(self, shape, dtype):
        count, dtype = int(np.prod(shape)), np.dtype(dtype)
        with self.xp.cuda.Device(self.index):      # else the thread would open the first card
            memory = self.xp.cuda.alloc_pinned_memory(max(count, 1) * dtype.itemsize)
        return np.frombuffer(memory, dtype, count).reshape(shape)

    @contextlib.contextmanager
    def staged(self, host):
        with self.scope(), self._input.staged(np.ascontiguousarray(host)) as data:
            yield data

    def _memcpy(self, target, source, nbytes, direction, stream=None):
        runtime = self.xp.cuda.runtime
        runtime.memcpyAsync(target, source, nbytes, getattr(runtime, f"memcpy{direction}"),
                            (stream or self._stream).ptr)

    def _mark(self, stream=None):
        """Return an event at the end of what was launched so far."""
        return (stream or self._stream).record(self.xp.cuda.Event(disable_timing=True))

    def _keep(self, host, stream=None):
        """Keep pinned memory alive until the copy that was launched last has ended."""
        done = self._mark(stream)
        self._flying = [(h, e) for h, e in self._flying if not e.done] + [(host, done)]
        return done

    def empty(self, shape, dtype):
        with self.scope():
            return self.xp.empty(shape, dtype)

    def zeros(self, shape, dtype):
        with self.scope():
            return self.xp.zeros(shape, dtype)

    def scratch(self, name, shape, dtype):
        return self.empty(shape, dtype)         # the pool of CuPy already keeps freed blocks

    def empty_cache(self):
        with self.scope():
            self.xp.get_default_memory_pool().free_all_blocks()

    def memory(self):
        pool, runtime = self.xp.get_default_memory_pool(), self.xp.cuda.runtime
        with self.xp.cuda.Device(self.index):    # the pool's figures are those of the current card
            return {"used_bytes": pool.used_bytes(), "held_bytes": pool.total_bytes(),
                    "limit_bytes": pool.get_limit() or None,
                    "total_bytes": runtime.memGetInfo()[1]}

    def limit_memory(self, nbytes):
        if nbytes is not None and nbytes <= 0:
            raise ValueError(f"limit_memory: got {nbytes}; expected bytes above 0, or None")
        with self.xp.cuda.Device(self.index):
            self.xp.get_default_memory_pool().set_limit(size=nbytes or 0)

    def map(self, n, fn, work=None, nbytes=None):
        return [fn(slice(0, n))]

    def each(self, fn, out, *arrays):
        fn(out, *arrays)
        return out

    def synchronize(self):
        self._stream.synchronize()


def _in_order(xp, array):
    # reshape: ascontiguousarray turns a single number into a vector of one
    return xp.ascontiguousarray(array).reshape(array.shape)


class _OnItsWay(Fetched):
    """A copy to the host, and the event at its end."""

    def __init__(self, host, done):
        super().__init__(host)
        self._done = done

    def result(self):
        self._done.synchronize()
        return super().result()


class _Uploads:
    """Pinned buffers through which arrays go to the card, each free again when its copy ends.

    They are as many as there are copies under way: the host runs a step ahead of the card, and
    must not wait for it here.
    """

    def __init__(self, device):
        self.device, self.slots = device, []          # (buffer, event at the end of its last copy)

    def send(self, target, data):
        """Launch the copy of the bytes `data` to the address `target`."""
        for start in range(0, len(data), PIECE):
            piece = data[start:start + PIECE]
            buffer = self._buffer(len(piece))
            buffer[:len(piece)] = piece
            self.device._memcpy(target + start, buffer.ctypes.data, len(piece), "HostToDevice")
            self.slots.append((buffer, self.device._mark()))

    def _buffer(self, nbytes):
        """Return the first free buffer neither too small nor far too large, or a new one."""
        for i, (buffer, done) in enumerate(self.slots):
            if nbytes <= len(buffer) < 4 * max(nbytes, 1024) and done.done:
                return self.slots.pop(i)[0]
        while sum(len(buffer) for buffer, _ in self.slots) > WAITING:
            self.slots.pop(0)[1].synchronize()
        return self.device.pinned(1 << max(10, (nbytes - 1).bit_length()), np.uint8)


class _Input:
    """Two long-lived buffers on the card, filled in turn by a stream of their own.

    While the card still works on what is in one, the next batch is copied to the other.
    """

    def __init__(self, device):
        self.device, self.turn, self.slots = device, 0, [(None, None)] * 2
        with device.xp.cuda.Device(device.index):
            self.stream = device.xp.cuda.Stream(non_blocking=True)

    @contextlib.contextmanager
    def staged(self, host):
        """Context: the bytes of `host` in one of the buffers."""
        device, turn = self.device, self.turn
        self.turn = 1 - turn
        buffer, consumed = self.slots[turn]
        if buffer is None or buffer.nbytes < host.nbytes:
            buffer = device.xp.empty(host.nbytes * 5 // 4, np.uint8)
            consumed = device._mark()           # the memory may have been lent to other work before
        self.stream.wait_event(consumed)
        device._memcpy(buffer.data.ptr, host.ctypes.data, host.nbytes, "HostToDevice", self.stream)
        copied = device._keep(host, self.stream)
        device._stream.wait_event(copied)
        try:
            yield buffer[:host.nbytes]
        finally:
            self.slots[turn] = buffer, device._mark()


def copy(array, src, dst):
    """Copy between devices of which at least one is a GPU; ordered by events, never by luck."""
    if dst.kind == "cpu":
        return src.numpy(array)
    if src.kind == "cpu":
        return dst.array(array)
    xp = src.xp
    with src.scope():
        array = _in_order(xp, array)
    with dst.scope():
        out = xp.empty(array.shape, array.dtype)
        free = dst._mark()
    _allow_peer_access(xp, src.index, dst.index)
    with src.scope():
        src._stream.wait_event(free)            # `out` may reuse memory that dst still reads
        if src.index == dst.index:
            src._memcpy(out.data.ptr, array.data.ptr, array.nbytes, "DeviceToDevice")
        else:                                   # by way of the host, where there is no direct one
            xp.cuda.runtime.memcpyPeerAsync(out.data.ptr, dst.index, array.data.ptr, src.index,
                                            array.nbytes, src._stream.ptr)
        done = src._mark()
    with dst.scope():
        dst._stream.wait_event(done)
    return out


def _allow_peer_access(xp, a, b):
    if a == b or (a, b) in _peers:
        return
    _peers.update([(a, b), (b, a)])
    runtime = xp.cuda.runtime
    for here, there in ((a, b), (b, a)):
        if runtime.deviceCanAccessPeer(here, there):   # else the driver stages through the host
            with xp.cuda.Device(here), contextlib.suppress(runtime.CUDARuntimeError):
                runtime.deviceEnablePeerAccess(there)  # "already enabled" is no fault


Device.kinds["cuda"] = CudaDevice
