"""What passes between the loop and the person in front of it: progress, warnings and Ctrl-C."""
import math
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np

from .rundir import RunNote

STUCK_STEPS = 200         # so long at ln(classes) is worth a word
WAITING_PERCENT = 5       # of the time: so is this much of it spent waiting for pictures


class Progress:
    """A progress bar on a terminal; elsewhere a plain line now and then.

    Parameters
    ----------
    total, done : int
        Steps of the run, and how many of them were made before.

    Examples
    --------
    >>> with Progress(total=10) as bar:
    ...     bar.say("hello")
    hello
    """

    def __init__(self, total, done=0):
        from tqdm import tqdm

        self.total, self.done, self.first = total, done, done
        self.start = time.perf_counter()
        self.bar = tqdm(total=total, initial=done, disable=None, dynamic_ncols=True, leave=False,
                        bar_format="{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}, "
                                   "{remaining} left{postfix}")

    def step(self, text=""):
        """One step more; `text` stands behind the bar."""
        self.done += 1
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()

    def row(self, text):
        """Report a row of the log where there is no bar to see it on."""
        if self.bar.disable:
            share = (self.total - self.done) / (self.done - self.first)
            left = int(share * (time.perf_counter() - self.start))
            self.say(f"  step {self.done:,}/{self.total:,}: {text}, "
                     f"{left // 60}:{left % 60:02d} left")

    def say(self, line):
        """Print a line above the bar."""
        self.bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()


class Waiting:
    """Which part of the time since it was made went by in waiting for pictures.

    As text it is ``", waiting for data 12 %"`` to append to a line, or nothing below 5 %.

    Parameters
    ----------
    loader : Loader

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> loader = SimpleNamespace(waited=7.0)
    >>> waiting = Waiting(loader)
    >>> str(waiting), waiting.row()
    ('', {})
    """

    def __init__(self, loader):
        self._loader, self._before, self._start = loader, loader.waited, time.perf_counter()

    def percent(self):
        """Return the percentage."""
        waited = self._loader.waited - self._before
        return 100 * waited / max(time.perf_counter() - self._start, 1e-9)

    def row(self):
        """Return what the log holds of it: ``{"waiting_for_data": percent}``, or nothing."""
        percent = self.percent()
        return {"waiting_for_data": round(percent, 1)} if percent >= WAITING_PERCENT else {}

    def __str__(self):
        percent = self.percent()
        return f", waiting for data {percent:.0f} %" if percent >= WAITING_PERCENT else ""


class Stop:
    """Remembers Ctrl-C (and SIGTERM) until a good moment; the second one ends all at once.

    Attributes
    ----------
    asked : bool

    Examples
    --------
    >>> with Stop() as stop:
    ...     stop.asked
    False
    """

    def __init__(self):
        self.asked, self._before = False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():    # elsewhere Python forbids it
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        self.asked = True
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        # Not print(): this may have interrupted one.
        os.write(2, b"\nfinishing this step, then saving (once more to quit at once)\n")


class StuckWatch:
    """Warns once when the loss stays at what a net that knows nothing has: ln(classes).

    Parameters
    ----------
    labels : integer array
        Of the training set: where classes are not equally frequent, knowing no more than their
        frequencies has the entropy of these as its loss.
    classes, step : int
        Where the run stands now.

    Examples
    --------
    >>> watch = StuckWatch(np.arange(16), classes=16, step=0)
    >>> round(watch.blank, 2)
    2.77
    """

    def __init__(self, labels, classes, step=0):
        share = np.bincount(labels) / len(labels)
        share = share[share > 0]
        self.classes, self.moved = classes, step
        self.blank = -float((share * np.log(share)).sum())

    def look(self, step, loss, lr):
        """Take note of the mean loss up to a step."""
        if abs(loss - self.blank) > 0.01 * self.blank:
            self.moved = step
        elif step - self.moved >= STUCK_STEPS:
            self.moved = math.inf                     # said once
            warnings.warn(
                f"the loss has stood at {loss:.3f} for {STUCK_STEPS} steps; ln({self.classes}) = "
                f"{math.log(self.classes):.3f} is that of a net that has learned nothing. Likely "
                "causes: initial weights too small, or pixels on another scale than they are meant "
                f"for; a learning rate too low or too high (it is {lr:g}); labels that do not "
                "belong to their pictures. The paper's own initialization can stay there for long",
                RunNote, stacklevel=2)
