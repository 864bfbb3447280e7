"""The threads behind ``Device.map``: how work is cut, who runs it, and why the bits agree.

Work is cut into a number of slices that depends on the problem alone, never on the threads, and
the results come back in order. So a sum over slices has the same bits on one core and on sixty.
"""
import contextlib
import operator
import os
import threading
from collections import deque

LANES = 8         # at most so many slices: enough to balance a laptop's cores
GRAIN = 1 << 24   # operations below which handing a slice to a thread costs more than it saves

_state = threading.local()   # .inside: this thread is already running a slice
_lock = threading.Lock()
_executor = None
_threads = None


def cut(n, work=None):
    """Cut ``range(n)`` into slices; `work` is the number of operations that one item costs.

    >>> cut(3), cut(3, work=1)
    ([slice(0, 1, None), slice(1, 3, None)], [slice(0, 3, None)])
    """
    lanes = LANES if work is None else min(LANES, max(1, int(n * work) // GRAIN))
    lanes = 1 << (min(n, lanes).bit_length() - 1) if n else 0    # 1, 2, 4 or 8: they share evenly
    edges = [n * i // max(lanes, 1) for i in range(lanes + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def run(slices, fn):
    """Run ``fn(s)`` for each slice, on this thread and the pool's; return results in order."""
    helpers = min(get_num_threads(), len(slices)) - 1
    if getattr(_state, "inside", False):      # a map inside a map: its thread is already busy
        return [fn(s) for s in slices]
    results = [None] * len(slices)
    waiting = deque(range(len(slices)))       # popleft is atomic: each index is taken once

    def drain():
        _state.inside = True
        try:
            while waiting:
                try:
                    i = waiting.popleft()
                except IndexError:            # another thread took the last one
                    return
                results[i] = fn(slices[i])
        finally:
            _state.inside = False

    with _single_threaded_blas():
        if helpers <= 0:
            _state.inside = True
            try:
                return [fn(s) for s in slices]
            finally:
                _state.inside = False
        futures = []
        try:
            for _ in range(helpers):
                futures.append(_pool().submit(drain))
            drain()
        finally:
            waiting.clear()                   # after a failure nobody starts another slice,
            for future in futures:            # and nobody is still at one when map returns
                future.exception()
        for future in futures:
            future.result()
    return results


def get_num_threads():
    """Return the number of threads that share the work of one CPU op.

    >>> import tinyalex as ta
    >>> ta.get_num_threads() >= 1
    True
    """
    if _threads is None:
        set_num_threads(os.environ.get("TINYALEX_THREADS") or _cores())
    return _threads


def set_num_threads(n):
    """Let `n` threads share the work of CPU ops. Results do not depend on `n`, bit for bit.

    The default is the environment variable ``TINYALEX_THREADS``, else the number of cores.

    Raises
    ------
    ValueError
        If `n` is not a positive integer.

    Examples
    --------
    >>> import tinyalex as ta
    >>> before = ta.get_num_threads()
    >>> ta.set_num_threads(1)
    >>> ta.get_num_threads()
    1
    >>> ta.set_num_threads(before)
    """
    global _threads, _executor
    try:
        count = int(n) if isinstance(n, str) else operator.index(n)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ValueError(f"set_num_threads (or TINYALEX_THREADS): got {n!r}; "
                         "expected a positive integer such as 2")
    with _lock:
        if count != _threads and _executor is not None:
            _executor.shutdown(wait=False)
            _executor = None
        _threads = count


def _cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _pool():
    global _executor
    with _lock:
        if _executor is None:
            from concurrent.futures import ThreadPoolExecutor
            _executor = ThreadPoolExecutor(max(1, _threads - 1), thread_name_prefix="tinyalex")
        return _executor


def _forget_threads_after_fork():
    global _executor, _lock
    _executor, _lock = None, threading.Lock()  # the parent's threads do not exist in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_after_fork)


class _Blas:
    """BLAS runs one thread while our threads share the work, and as before afterwards."""

    def __init__(self):
        from threadpoolctl import ThreadpoolController
        import numpy  # noqa: F401  (its BLAS must be loaded to be found)
        self.libraries = [lib for lib in ThreadpoolController().lib_controllers
                          if lib.user_api == "blas"]
        self.depth, self.before = 0, []

    def enter(self):
        if self.depth == 0:
            self.before = [lib.get_num_threads() for lib in self.libraries]
            for lib in self.libraries:
                lib.set_num_threads(1)
        self.depth += 1

    def leave(self):
        self.depth -= 1
        if self.depth == 0:
            for lib, count in zip(self.libraries, self.before, strict=True):
                lib.set_num_threads(count)


_blas = None


@contextlib.contextmanager
def _single_threaded_blas():
    global _blas
    with _lock:
        if _blas is None:
            _blas = _Blas()
        _blas.enter()
    try:
        yield
    finally:
        with _lock:
            _blas.leave()
