"""The only file that knows CuPy's devices, streams and copies.

One compute stream per Device, for three reasons: CuPy's memory pool gives a freed block back to
the stream it was allocated on; with one stream nothing on a device needs ordering; and the copy
below then needs only two events.
"""
import contextlib

import numpy as np

from .core import BackendUnavailable, Device

_streams = {}        # device name -> its compute stream
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
        self.xp = _cupy()
        count = self.xp.cuda.runtime.getDeviceCount()
        if self.index >= count:
            have = ", ".join(f"cuda:{i}" for i in range(count))
            raise BackendUnavailable(f"{self.name}: no such GPU; this machine has {have}")
        with self.xp.cuda.Device(self.index):
            _streams[self.name] = self.xp.cuda.Stream(non_blocking=True)

    @contextlib.contextmanager
    def scope(self):
        # The order matters: entering a stream of a card that is not current raises.
        with self.xp.cuda.Device(self.index), _streams[self.name]:
            yield

    def array(self, host, dtype=None):
        if isinstance(host, self.xp.ndarray):
            return host if dtype is None else host.astype(dtype, copy=False)
        host = np.ascontiguousarray(host, dtype)
        with self.scope():
            out = self.xp.empty(host.shape, host.dtype)
            out.set(host)
            _streams[self.name].synchronize()   # the host may reuse its memory at once
            return out

    def numpy(self, array):
        with self.scope():
            return array.get()

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

    def map(self, n, fn, work=None, nbytes=None):
        return [fn(slice(0, n))]

    def each(self, fn, out, *arrays):
        fn(out, *arrays)
        return out

    def synchronize(self):
        _streams[self.name].synchronize()


def copy(array, src, dst):
    """Copy between devices of which at least one is a GPU; ordered by events, never by luck."""
    if dst.kind == "cpu":
        return src.numpy(array)
    if src.kind == "cpu":
        return dst.array(array)
    xp = src.xp
    with src.scope():
        array = xp.ascontiguousarray(array)
    with dst.scope():
        out = xp.empty(array.shape, array.dtype)
        free = _streams[dst.name].record(xp.cuda.Event(disable_timing=True))
    _allow_peer_access(xp, src.index, dst.index)
    with src.scope():
        stream = _streams[src.name]
        stream.wait_event(free)                 # `out` may reuse memory that dst still reads
        xp.cuda.runtime.memcpyPeerAsync(out.data.ptr, dst.index, array.data.ptr, src.index,
                                        array.nbytes, stream.ptr)
        done = stream.record(xp.cuda.Event(disable_timing=True))
    with dst.scope():
        _streams[dst.name].wait_event(done)
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
