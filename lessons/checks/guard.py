"""While a student's code is checked, the library may be called only where the exercise allows it.

Python tells a profile function of every call. The guard looks at those that enter the library, or
the solutions, from outside, and raises unless the exercise lists what is called. So it does not
matter under which name a forbidden function was put aside before. What an allowed function calls in
turn is its own affair.
"""
import functools
import sys
import threading

WATCHED = ("tinyalex", "checks", "exercises", "solutions", "lessons", "scipy", "torch")
OWN = __name__                                           # the guard may always leave


class Refused(Exception):
    """The student's code called what the exercise asks it to write."""


class Guard:
    """Context: only what is listed may be called.

    Parameters
    ----------
    exercise : str
        Its number, for the message.
    may_call : sequence of str
        Full names, such as ``"tinyalex.ops.conv.im2col"``; a name covers all that is below it.
    given : sequence
        The arguments: a function among them may be called.

    Attributes
    ----------
    refused : str
        The first refusal, also where the student's code caught the exception; else empty.
    """

    def __init__(self, exercise, may_call=(), given=()):
        self.exercise, self.may_call, self.refused = exercise, tuple(may_call), ""
        self.given = [a.__code__ for a in given if hasattr(a, "__code__")]

    def __enter__(self):
        self.before = sys.getprofile(), threading.getprofile()
        threading.setprofile(self.watch)
        sys.setprofile(self.watch)
        return self

    def __exit__(self, *_):
        sys.setprofile(self.before[0])
        threading.setprofile(self.before[1])
        if self.refused:
            raise Refused(self.refused) from None

    def watch(self, frame, event, called):
        """Look at one event; raise where a call is not allowed."""
        if event == "c_call" and called in (sys.setprofile, threading.setprofile) \
                and frame.f_globals.get("__name__") not in (OWN, "threading"):
            self.refused = f"{self.exercise} keeps its guard up while it is checked."
            raise Refused(self.refused)
        if event != "call" or not watched(frame) or frame.f_globals["__name__"] == OWN:
            return
        if trusted(frame.f_back) or frame.f_code in self.given:
            return
        name = f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"
        if self.allows(name):
            return
        self.refused = self.refused or self.message(frame, name)
        raise Refused(self.refused)

    def allows(self, name):
        """Whether the exercise lists `name`, or something that it belongs to."""
        return any(name == one or name.startswith(one + ".") for one in self.may_call)

    def message(self, frame, name):
        """Say what was called, and what may be."""
        may = ", ".join(["NumPy", *(one.rpartition(".")[2] for one in self.may_call)])
        if name.split(".")[0] in ("solutions", "lessons"):
            return (f"{self.exercise} asks for your own code, and this one calls the solutions. "
                    f"Read them, close them, and write it down again. You may call: {may}.")
        what = called_name(frame, name)
        return (f"{self.exercise} asks you to write this yourself, so {what} is switched off "
                f"while it is checked. You may call: {may}.")


def watched(frame):
    """Whether a frame runs code of the library, of the checks or of the solutions."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in WATCHED


def trusted(frame):
    """Whether the caller is watched too: then it was allowed, or it would not be running."""
    while frame is not None and frame.f_globals.get("__name__") in ("contextlib", "functools"):
        frame = frame.f_back                             # a `with` of the library passes through
    return frame is not None and watched(frame) and frame.f_globals["__name__"] != OWN


def called_name(frame, name):
    """Name what was called as a student knows it: the class of an op, the face of a function."""
    owner = frame.f_locals.get("self")
    op = type(owner).__name__ if owner is not None else ""
    short = name.removeprefix("tinyalex.").partition(".<locals>")[0]
    return f"{op} ({short})" if op and op not in short else short


def guarded(fn, exercise, may_call=()):
    """Return `fn` so that it runs under a Guard."""
    @functools.wraps(fn)
    def run(*args, **kwargs):
        with Guard(exercise, may_call, args):
            return fn(*args, **kwargs)
    return run
