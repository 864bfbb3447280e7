"""What every check is made of: run the student's code, compare, and say what is wrong with it."""
import dataclasses
import sys
import traceback

import numpy as np
from tinyalex.gradreport import Comparison

from .guard import Refused, guarded


class Wrong(Exception):
    """A check found a mistake: a text for the student, and what a map of the errors needs.

    `maps` is a list of (name, the right array, the student's).
    """

    def __init__(self, text, maps=()):
        super().__init__(text)
        self.text, self.maps = text, list(maps)


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One exercise: what is asked, what may be called, how it is checked, and three hints.

    Attributes
    ----------
    number, title, call : str
        ``"4.1"``, a few words, and how the function is called and what it returns.
    library : callable
        The library's version, with the arguments of the student's.
    check : callable
        ``check(ask)`` calls ``ask(...)`` as it would the student's function; it returns a
        sentence on what was found right, or raises :class:`Wrong`.
    hints : tuple of three str
    may_call : tuple of str
        What of the library the student may call: full names.
    """

    number: str
    title: str
    call: str
    library: object
    check: object
    hints: tuple
    may_call: tuple = ()

    @property
    def name(self):
        """The name of the student's function."""
        return self.call.partition("(")[0]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check says: true if the exercise is solved.

    ``str(verdict)`` is the text; `maps` what there is to draw.
    """

    number: str
    ok: bool
    text: str
    maps: tuple = ()

    def __bool__(self):
        return self.ok

    def __repr__(self):
        return self.text


class Asked:
    """The student's function as a check calls it: guarded, with copies, its results looked at."""

    def __init__(self, exercise, fn):
        self.exercise, self.fn = exercise, fn
        self.run = guarded(fn, exercise.number, exercise.may_call)

    def __call__(self, *args, **kwargs):
        copies = [copied(a) for a in args]
        try:
            result = self.run(*copies, **kwargs)
        except Refused as refusal:
            raise Wrong(str(refusal)) from None
        except Wrong:
            raise
        except Exception as error:
            raise Wrong(stopped(self.exercise, error)) from None
        for kept, given in zip(args, copies, strict=True):
            if isinstance(kept, np.ndarray) and not np.array_equal(kept, given, equal_nan=True):
                raise Wrong(f"{self.exercise.name} writes into one of its arguments, shape "
                            f"{kept.shape}. The caller still needs it: work on a copy.")
        if result is None and not self.exercise.call.endswith("-> None"):
            raise Wrong(f"{self.exercise.name} returned None: is the `return` missing?")
        return result


def copied(a):
    """Return an array's copy, and anything else as it is."""
    return a.copy() if isinstance(a, np.ndarray) else a


def stopped(exercise, error):
    """Say where and why the student's code stopped."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.name == exercise.name]
    where = f" in its line `{lines[-1].line}`" if lines and lines[-1].line else ""
    if isinstance(error, TypeError) and "argument" in str(error) and not where:
        return f"{exercise.name} is called as {exercise.call}; Python says: {error}"
    return f"{exercise.name} stopped{where} with {type(error).__name__}: {error}"


def several(name, result, names):
    """Return the student's results if there are as many as `names`; teach otherwise."""
    if not isinstance(result, (tuple, list)) or len(result) != len(names):
        got = f"{len(result)} values" if isinstance(result, (tuple, list)) else "one value"
        raise Wrong(f"{name} returned {got}; expected {len(names)}: {', '.join(names)}.")
    return list(result)


def array(name, got, want):
    """Return `got` as an array of the shape of `want`; teach otherwise."""
    if got is None:
        raise Wrong(f"{name} is None: not written yet?")
    if not isinstance(got, (np.ndarray, np.generic, int, float)):
        raise Wrong(f"{name} is a {type(got).__name__}; expected an array {want.shape}.")
    got = np.asarray(got)
    if got.shape != want.shape:
        turned = " (its axes are turned)" if sorted(got.shape) == sorted(want.shape) else ""
        raise Wrong(f"{name} has shape {got.shape}{turned}; expected {want.shape}.")
    if got.dtype.kind not in "fiub":
        raise Wrong(f"{name} holds {got.dtype}; expected real numbers.")
    return got


def compare(name, got, want, where="", suspects=(), rtol=0.0, atol=1e-9, counts=None,
            **evidence):
    """Raise Wrong unless `got` is `want`, with the likeliest cause in words.

    Parameters
    ----------
    name : str
        What it is, as the student calls it: ``"gx"``.
    got, want : array
    where : str
        The case at hand: ``"with stride 2"``.
    suspects : iterable of (text, array)
        What typical mistakes would give: where one of them is what the student has, its text is
        the cause.
    rtol, atol : float
        `atol` is relative to the largest element of `want`.
    counts : dict of str to int, optional
        What a mean could divide by: ``{"N": 3, "OH*OW": 20}``.
    **evidence
        ``x``, ``y``, ``fan`` of :func:`tinyalex.gradreport.likely_cause`.
    """
    want = np.asarray(want)
    got = array(name, got, want)
    scale = np.abs(want).max(initial=0.0) or 1.0
    if got.dtype == np.float32 and want.dtype == np.float64 and np.allclose(
            got, want, rtol=0, atol=1e-5 * scale):
        raise Wrong(f"{name} is float32 and right to six digits only; the arguments are float64. "
                    "Keep their dtype: np.zeros(shape, x.dtype), or np.zeros_like(x).")
    found = Comparison(name, "the library", got.astype(float), want.astype(float), rtol,
                       atol * scale, **evidence)
    if not found.count:
        return
    place = f"{name}[{', '.join(map(str, found.worst))}]" if found.worst else name
    lines = [f"{name} is not right{' ' if where else ''}{where}: {found.count} of {want.size} "
             f"{'number is' if want.size == 1 else 'numbers are'} wrong.",
             f"The largest error is at {place}: yours {found.analytic[found.worst]:.6g}, "
             f"right {found.numeric[found.worst]:.6g}."]
    cause = factor(name, got, want, counts or {})
    cause = cause or next((text for text, one in suspects if alike(got, one)), "")
    lines.append(cause or "Likely cause: " + found.cause + ".")
    raise Wrong("\n".join(lines), [(name, want, got)] if want.size > 1 else [])


def factor(name, got, want, counts):
    """Say which count explains a constant factor between `got` and `want`, if one does."""
    c = float(np.vdot(got, want) / max(np.vdot(want, want), 1e-300))
    if want.size == 1 or c == 0 or not alike(got, c * want):
        return ""
    for what, count in counts.items():
        if count > 1 and np.isclose(c, count):
            return (f"Your {name} is {count} times too large, and {count} is {what}: "
                    "did you forget the mean?")
        if count > 1 and np.isclose(c, 1 / count):
            return (f"Your {name} is {count} times too small, and {count} is {what}: "
                    "a mean where a sum belongs?")
    return ""


def alike(a, b):
    """Whether two arrays agree to nine digits of the largest."""
    b = np.asarray(b)
    with np.errstate(invalid="ignore"):
        scale = np.abs(b[np.isfinite(b)]).max(initial=0.0) or 1.0
        return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=1e-9 * scale, equal_nan=True)


def judge(exercise, fn):
    """Run the check of an exercise on a function; return a Verdict, whatever the function does."""
    number = exercise.number
    limit = sys.getrecursionlimit()
    try:
        praise = exercise.check(Asked(exercise, fn))
    except Wrong as wrong:
        text = f"{number} not yet. {wrong.text}\nStuck? hint(\"{number}\")"
        return Verdict(number, False, text, tuple(wrong.maps))
    finally:
        sys.setrecursionlimit(limit)             # a deep graph may have tempted the student
    return Verdict(number, True, f"{number} solved. {praise}")
