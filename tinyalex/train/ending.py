"""How a job of many ranks ends: all of them together, and never in silence.

MPI by itself waits: a rank that has died of an exception, or hangs, lets all others wait forever.
"""
import atexit
import contextlib
import os
import sys
import threading
import time
import traceback

from . import console

HUNG = 75                # the exit code of a job that hung; by convention: trying again may help
GRACE = 2.0              # seconds within which ranks that fail all alike come to fail
PASSED_ON = 0.5          # seconds in which mpiexec passes on what was said; an abort cuts it off
FIRST_WORD = 1.0         # seconds that who waits leaves to who hangs, to say where it hangs


class Watchdog:
    """Calls `bark` with a text where nothing has happened for too long, and ends.

    A rank that waits for the others says so by :meth:`waiting`; the end of each wait counts as
    progress. So of two ranks the one that hangs barks first, and tells where it stands.

    Parameters
    ----------
    seconds : float
        What is too long.
    bark : callable
        Given one line, or several where a rank tells where it stands.

    Examples
    --------
    >>> dog = Watchdog(5, print)
    >>> with dog.waiting("nobody in particular"):
    ...     time.sleep(0.01)
    >>> dog.close()
    """

    def __init__(self, seconds, bark):
        self.seconds, self.bark = seconds, bark
        self._last, self._what = time.monotonic(), None
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="tinyalex-watchdog", daemon=True).start()

    @contextlib.contextmanager
    def waiting(self, what):
        """Context: this rank waits for the others, in words of what."""
        self._last, self._what = time.monotonic(), what
        try:
            yield
        finally:
            self._last, self._what = time.monotonic(), None

    def close(self):
        """Look no more."""
        self._closed.set()

    def _look(self):
        while not self._closed.wait(min(0.5, self.seconds / 10)):
            what, idle = self._what, time.monotonic() - self._last
            if idle > self.seconds + (FIRST_WORD if what else 0):
                self.bark(self._told(what, idle))
                return

    def _told(self, what, idle):
        limit = f"(--watchdog {self.seconds:g})"
        if what:
            return (f"has waited {idle:.1f} s for the other ranks {limit}, for {what}: one of "
                    "them hangs or is far behind; all end")
        frame = sys._current_frames().get(threading.main_thread().ident)
        stack = "".join(traceback.format_stack(frame)[-4:]).rstrip()
        return f"no progress for {idle:.1f} s {limit}: all ranks end; it stands here:\n{stack}"


class Ending:
    """One rank's way out of the job.

    Parameters
    ----------
    world : mpi4py.MPI.Comm
    watchdog : float
        Seconds without progress after which the job ends.

    Attributes
    ----------
    waiting : callable
        :meth:`Watchdog.waiting`.
    """

    def __init__(self, world, watchdog):
        self.world, self._leaving = world, world.Dup()     # what is said in leaving disturbs nobody
        self._alike, self._done = None, False
        self._dog = Watchdog(watchdog, self._bark)
        self.waiting = self._dog.waiting
        atexit.register(self._slip_away)

    def failing(self):
        """Before a fault is told: where all ranks fail, rank 0 speaks and the others fall silent.
        """
        if self._alike is None and not self._done:
            request, end = self._leaving.Ibarrier(), time.monotonic() + GRACE
            while not request.Test() and time.monotonic() < end:
                time.sleep(0.01)
            self._alike = request.Test()
            if self._alike and self.world.rank:
                sys.stderr = open(os.devnull, "w", encoding="utf-8")

    def finish(self):
        """Wait until all ranks have come to the end."""
        with self.waiting("the others to end"):
            self._leaving.Barrier()
        self._done = True
        self._dog.close()

    def leave(self, code):
        """Return where all ranks have come to an end; else end all of them, with an exit code."""
        self.failing()
        self._dog.close()
        if not (self._done or self._alike):
            self._abort(code)

    def _slip_away(self):
        """At the end of a process that has left without a word, as by sys.exit."""
        self.failing()
        if not (self._done or self._alike):
            self._bark("ended before the others were done, so all end", 1)

    def _bark(self, text, code=HUNG):
        sys.stderr.write(f"{os.path.basename(sys.argv[0])}{console.speaker}: {text}\n")
        self._abort(code)

    def _abort(self, code):
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(PASSED_ON)
        late = threading.Timer(5, os._exit, [code])        # in case MPI itself is what hangs
        late.daemon = True
        late.start()
        self.world.Abort(code)
