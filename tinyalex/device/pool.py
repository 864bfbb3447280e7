"""The threads behind ``Device.map``: how work is cut, who runs it, and why the bits agree.

Work is cut into a number of slices that depends on the problem alone, never on the threads, and
the results come back in order. So a sum over slices has the same bits on one core and on sixty.
"""
import operator
import os
import threading
from collections import deque
from queue import SimpleQueue

LANES = 8         # at most so many slices: enough to balance a laptop's cores
CACHE = 1 << 21   # bytes that a block of items may touch: a usual second-level cache
GRAIN = 1 << 25   # operations below which handing a slice to a thread costs more than it saves

_state = threading.local()   # .inside: this thread is already running a slice
_lock = threading.Lock()
_threads = None
_crew = None                 # the threads that help, once there is something for them to do


def cut(n, work=None):
    """Cut ``range(n)`` into slices; `work` is the number of operations that one item costs.

    >>> cut(3), cut(3, work=1)
    ([slice(0, 1, None), slice(1, 3, None)], [slice(0, 3, None)])
    """
    lanes = LANES if work is None else min(LANES, max(1, int(n * work) // GRAIN))
    lanes = 1 << (min(n, lanes).bit_length() - 1) if n else 0    # 1, 2, 4 or 8: they share evenly
    edges = [n * i // max(lanes, 1) for i in range(lanes + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def blocks(part, nbytes):
    """Cut a slice into slices of as many items of `nbytes` as CACHE holds, at least one.

    >>> blocks(slice(2, 7), CACHE // 2)
    [slice(2, 4, None), slice(4, 6, None), slice(6, 7, None)]
    """
    step = max(1, CACHE // max(1, int(nbytes)))
    return [slice(i, min(i + step, part.stop)) for i in range(part.start, part.stop, step)]


def run(slices, fn):
    """Run ``fn(s)`` for each slice, on this thread and the pool's; return results in order."""
    if getattr(_state, "inside", False):      # a map inside a map: its thread is already busy
        return [fn(s) for s in slices]
    results = [None] * len(slices)
    job = _Job(slices, fn, results)
    helpers = min(get_num_threads(), len(slices)) - 1
    with _blas:
        try:
            if helpers > 0:
                _call(helpers, job)
            job.work()
            job.finish()
        finally:
            job.finish()                      # after an error, or Ctrl-C before the line above
    if job.errors:
        raise job.errors.pop(0)
    return results


class _Job:
    """One map: the slices that wait for a thread, and the helpers that came and left."""

    def __init__(self, slices, fn, results):
        self.slices, self.fn, self.results = slices, fn, results
        self.waiting = deque(range(len(slices)))      # popleft is atomic: each index is taken once
        self.came, self.left, self.bell, self.errors = [], [], SimpleQueue(), []

    def work(self):
        """Run slices until none waits."""
        _state.inside = True
        try:
            while self.waiting:
                try:
                    i = self.waiting.popleft()
                except IndexError:                    # another thread took the last one
                    return
                self.results[i] = self.fn(self.slices[i])
        finally:
            _state.inside = False

    def help(self):
        """Work on another thread than the caller's, who gets the errors."""
        self.came.append(1)                           # before it takes a slice, so that `finish`
        try:                                          # knows of every helper that has one
            self.work()
        except BaseException as error:
            self.errors.append(error)
            self.waiting.clear()
        self.left.append(1)
        self.bell.put(1)

    def finish(self):
        """Wait for the helpers at work; nobody starts a slice any more. Ctrl-C waits as well."""
        interrupted = done = False
        while not done:
            try:
                self.waiting.clear()                  # who comes now finds nothing: no need to wait
                while len(self.left) < len(self.came):
                    self.bell.get()
                done = True
            except KeyboardInterrupt:
                interrupted = True
        self.slices = self.fn = self.results = None   # a late helper may hold the job, no arrays
        if interrupted:
            raise KeyboardInterrupt


class _Crew:
    """Threads that sleep until a job is put into their queue; daemons, so that exit never waits."""

    def __init__(self, size):
        self.size, self.jobs = size, SimpleQueue()
        for _ in range(size):
            threading.Thread(target=self.serve, name="tinyalex", daemon=True).start()

    def serve(self):
        """Help with one job after the other, until dismissed."""
        for job in iter(self.jobs.get, None):
            job.help()
            del job                                   # asleep, it keeps nobody's arrays alive

    def dismiss(self):
        """Let each thread end once it has nothing left to do."""
        for _ in range(self.size):
            self.jobs.put(None)


def _call(helpers, job):
    global _crew
    with _lock:
        if _crew is None:
            _crew = _Crew(_threads - 1)
        for _ in range(helpers):
            _crew.jobs.put(job)


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
    global _threads, _crew
    try:
        count = int(n) if isinstance(n, str) else operator.index(n)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ValueError(f"set_num_threads (or TINYALEX_THREADS): got {n!r}; "
                         "expected a positive integer such as 2")
    with _lock:
        if count != _threads and _crew is not None:
            _crew.dismiss()
            _crew = None
        _threads = count


def _cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _forget_threads_after_fork():
    global _crew, _lock
    _crew, _lock = None, threading.Lock()     # the parent's threads do not exist in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_after_fork)


class _Blas:
    """Context: BLAS runs one thread while our threads share the work, and as before afterwards."""

    libraries = None

    def __init__(self):
        self.before = []         # what to set afterwards; empty: it has been set
        self.users = set()       # threads in a map; one that Ctrl-C left here leaves with its next

    def __enter__(self):
        with _lock:
            if self.libraries is None:
                self.libraries = self._find()
            if not self.before:
                self.before = [lib.get_num_threads() for lib in self.libraries]
            if not self.users:
                for lib in self.libraries:
                    lib.set_num_threads(1)
            self.users.add(threading.get_ident())

    def __exit__(self, *error):
        with _lock:
            self.users.discard(threading.get_ident())
            if not self.users:
                for lib, count in zip(self.libraries, self.before, strict=True):
                    lib.set_num_threads(count)
                self.before = []

    @staticmethod
    def _find():
        from threadpoolctl import ThreadpoolController
        import numpy  # noqa: F401  (its BLAS must be loaded to be found)
        return [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]


_blas = _Blas()
