"""What a gradient check found, in words: the comparison, the report, and the likely cause.

A wrong backward leaves a pattern. A forgotten mean scales every element, a wrong crop spoils the
border, mixed-up groups spoil a block of channels; so the map of the errors tells where to look.
"""
import itertools

import numpy as np


class Comparison:
    """The gradient of one input beside a numeric estimate of it.

    Attributes
    ----------
    name, method : str
        Which input (``"input 0"``), and how the estimate was made (``"central differences"``).
    analytic, numeric, error : float64 arrays of the input's shape
        What backward says, the estimate, and the map of the distances between the two.
    wrong : bool array
        Where the distance is too large, or not a number.
    count, max_error, worst : int, float, tuple of int
        How many elements are wrong; the largest error, and its index.
    cause : str
        What the pattern suggests; empty where nothing is wrong.
    """

    def __init__(self, name, method, analytic, numeric, rtol, atol, **evidence):
        self.name, self.method = name, method
        self.analytic, self.numeric = np.asarray(analytic), np.asarray(numeric)
        self.error = np.asarray(np.abs(self.analytic - self.numeric))
        self.wrong = np.asarray(~(self.error <= rtol * np.abs(self.numeric) + atol))
        self.worst = tuple(map(int, np.unravel_index(self.error.argmax(), self.error.shape)))
        self.max_error, self.count = float(self.error[self.worst]), int(self.wrong.sum())
        self.cause = likely_cause(self, **evidence) if self.count else ""

    def __str__(self):
        name = f"  {self.name}" + (f" {self.error.shape}" if self.error.ndim else "")
        if self.count == 0:
            return f"{name}: right, largest error {self.max_error:.1e} ({self.method})"
        lines = [f"{name}: {self.count} of {self.error.size} wrong, most at {list(self.worst)}",
                 f"    backward says {self.analytic[self.worst]:.9g}, "
                 f"{self.method} {self.numeric[self.worst]:.9g}",
                 f"    likely cause: {self.cause}"]
        if self.wrong.ndim > 1:                  # the plane of the worst element: # is wrong
            rows = self.wrong[self.worst[:-2]][:16, :64]
            lines += ["      " + "".join("#" if w else "." for w in row) for row in rows]
        return "\n".join(lines)


class Report:
    """What a check found: true if all is right; ``str(report)`` is a text to read.

    Attributes
    ----------
    title : str
    inputs : tuple of Comparison
        One per input; none where `fn` is random and there is nothing to compare with.
    complaints : tuple of str
        What else is wrong: an input overwritten, a dtype lost, a graph that stays alive, ...
    ok : bool
    """

    def __init__(self, title, inputs, complaints):
        self.title, self.inputs, self.complaints = title, tuple(inputs), tuple(complaints)
        self.ok = not self.complaints and not any(c.count for c in self.inputs)

    def __bool__(self):
        return self.ok

    def __repr__(self):           # this is what a failing `assert check_grads(...)` shows
        return "\n".join([f"{self.title}: {'right' if self.ok else 'WRONG'}",
                          *map(str, self.inputs), *(f"  {c}" for c in self.complaints)])

    def raise_if_wrong(self):
        """Raise AssertionError with the whole text unless all is right."""
        if not self.ok:
            raise AssertionError(str(self))


def close(a, b):
    """Whether `a` is `b` up to a millionth of the largest finite element of `b`."""
    size = np.abs(b[np.isfinite(b)]).max(initial=0)
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=1e-6 * size, equal_nan=True)


def same(xs, ys):
    """Whether two lists of arrays hold the same values, NaN for NaN."""
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(xs, ys, strict=True))


def described(a):
    """Say what an array is and where."""
    return f"{type(a).__name__} " + " ".join(
        str(getattr(a, name, "?")) for name in ("dtype", "shape", "device"))


def likely_cause(found, x=None, y=None, bend=None, fan=None):
    """Say in plain words what the wrong elements of a Comparison have in common.

    Parameters
    ----------
    found : Comparison
    x, y : arrays, optional
        The input, and the result of `fn`.
    bend : array, optional
        How far the slope changes within the step, for each estimate.
    fan : array, optional
        How many results each element of the input moves.
    """
    a, n, wrong = found.analytic, found.numeric, found.wrong
    if not np.isfinite(a).all():
        return "NaN or infinity: a division by 0, a log of 0, an overflow, memory never filled"
    if bend is not None and bool((found.error <= 2 * bend)[wrong].all()) \
            and bend[wrong].min() > 1e-3 * np.abs(n).max():
        return ("fn is not straight within the step: a kink (a ReLU at 0, a tie in a maximum) "
                "too near, or kind='multilinear' for what needs kind='smooth'")
    if not a.any():
        return "zero everywhere: a term forgotten, or the graph cut on the way to this input"
    if found.max_error <= 1e-6 * np.abs(n).max():
        return "right to six digits: a float32 on the way, or a very small term forgotten"
    if n.any():
        known = [array for array in (x, y) if array is not None]
        lengths = {m for array in known for m in (*array.shape, array.size)}
        cause = _factor(a, n, lengths) or _moved(a, n)
        if cause:
            return cause
    return (wrong.size > 1 and _pattern(found, x, fan)
            or "no pattern in the map; compare backward with its derivation term by term")


def _factor(a, n, lengths):
    """The same factor everywhere? `lengths` are those that a mean may divide by."""
    c = float(np.vdot(a, n) / np.vdot(n, n))
    if not close(a, c * n):
        return ""
    if np.isclose(c, -1):
        return "the sign: exactly minus what it should be"
    hints = []
    for length in sorted(lengths):
        if length > 1 and np.isclose(abs(c), length):
            hints.append(f"1/{length} of a mean over {length} forgotten")
        if length > 1 and np.isclose(abs(c), 1 / length):
            hints.append(f"divided by {length}, a length of the input or the result, too often")
    if np.isclose(abs(c), 2):
        hints.append("one term counted twice")
    if np.isclose(abs(c), 0.5):
        hints.append("a factor 2 forgotten, as in d(x*x) = 2x dx")
    if not hints and n.size == 1:
        return ""                     # of one number any error is a factor
    return f"a constant factor, {c:.6g} everywhere" + ": " * bool(hints) + ", or ".join(hints)


def _moved(a, n):
    """The right numbers at the wrong places?"""
    if n.ndim == 0 or not close(np.sort(a, axis=None), np.sort(n, axis=None)):
        return ""
    for p, q in itertools.combinations(range(n.ndim), 2):
        if close(a.reshape(-1), n.swapaxes(p, q).reshape(-1)):
            return f"transposed: axes {p} and {q} have changed places"
    for axes in [(-1,), (-2,), (-2, -1)]:
        if n.ndim >= len(axes) and -axes[0] <= n.ndim and close(a, np.flip(n, axes)):
            return f"mirrored along the axes {axes}: a kernel turned round, or not turned round"
    return "the right numbers at the wrong places: a transpose, a reshape, an order of groups"


def _pattern(found, x, fan):
    """Where are the wrong elements? The surest pattern first."""
    n, wrong, at = found.numeric, found.wrong, list(found.worst)
    if found.count == 1:
        return f"one element only, {at}: a boundary case, an index off by one"
    nothing = np.abs(n) <= 1e-9 * np.abs(n).max()
    if np.array_equal(wrong, nothing):
        return ("wherever the true gradient is zero: a mask forgotten (ReLU, dropout, maximum), "
                "or pixels that no window sees")
    if x is not None and np.array_equal(wrong, x < 0):
        return "wherever the input is negative: the sign or the mask of that side"
    if fan is not None and np.array_equal(wrong, fan > fan[fan > 0].min(initial=np.inf)):
        return "only where windows overlap: '=' instead of '+=' when their gradients are summed"
    plane = wrong.any(axis=tuple(range(wrong.ndim - 2))) if wrong.ndim > 2 else None
    if plane is not None:
        where = _stride(plane) or _border(plane)
        if where:
            return where
    where = _block(wrong)
    if not where and not found.analytic[wrong].any():
        return "zero where it should not be: contributions forgotten"
    return where


def _border(plane):
    """Wrong in a rim of rows and columns alone, at most a third of the shorter side wide?"""
    for b in range(1, min(plane.shape) // 3 + 1):
        if not plane[b:-b, b:-b].any():
            if not plane[:-b, :-b].any():
                side = "the bottom and right border only: the overhang, or what a stride leaves"
            elif not plane[b:, b:].any():
                side = "the top and left border only: the padding's crop"
            else:
                side = "the border only: the padding crop"
            return f"{side} (a rim of {b})"
    return ""


def _stride(plane):
    """Does the pattern repeat every s rows or columns?"""
    periods = [_period(plane), _period(plane.T)]
    if None in periods or max(periods) == 1:
        return ""
    return (f"every {periods[0]} rows and {periods[1]} columns the same pattern: the stride "
            "(where windows start), or their overlap")


def _period(rows):
    return next((s for s in range(1, max(2, len(rows) // 2 + 1))
                 if len(rows) == 1 or (rows[s:] == rows[:-s]).all()), None)


def _block(wrong):
    """Wrong for some entries of one axis alone (of maps: picture or filter, channel)?"""
    axes = range(wrong.ndim) if wrong.ndim < 3 else (0, 1)
    bad = {axis: np.flatnonzero(np.moveaxis(wrong, axis, 0).reshape(wrong.shape[axis], -1).any(1))
           for axis in axes}
    axis = min(axes, key=lambda k: len(bad[k]) / wrong.shape[k])
    if len(bad[axis]) == wrong.shape[axis]:
        return ""
    entries = ", ".join(map(str, bad[axis][:8])) + (", ..." if len(bad[axis]) > 8 else "")
    return (f"only one block of axis {axis}, entries {entries} of {wrong.shape[axis]}: one of the "
            "groups (or towers, pictures, filters) is treated unlike the others")
