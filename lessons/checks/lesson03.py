"""Lesson 03: the gradient by differences, the judge of all others."""
import numpy as np

from .judging import Exercise, Wrong, compare


def library(f, x, v, h):
    """Central differences of <v, f(x)>, one element of x after the other."""
    gx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        gx[i] = np.sum(v * (f(x + step) - f(x - step))) / (2 * h)
    return gx


def _softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


_W = np.random.default_rng(3).normal(size=(3, 4))

# name, forward, the right backward, and one with a bug in it
OPS = (
    ("x * x", lambda x: x * x, lambda v, x: 2 * v * x, lambda v, x: v * x),
    ("relu", lambda x: np.maximum(x, 0), lambda v, x: v * (x > 0), lambda v, x: v * (x != 0)),
    ("tanh", np.tanh, lambda v, x: v * (1 - np.tanh(x)**2), lambda v, x: v * (1 - np.tanh(x))),
    ("exp", np.exp, lambda v, x: v * np.exp(x), lambda v, x: v * x),
    ("abs", np.abs, lambda v, x: v * np.sign(x), lambda v, x: v),
    ("1 / x", lambda x: 1 / x, lambda v, x: -v / x**2, lambda v, x: v / x**2),
    ("x @ W", lambda x: x @ _W, lambda v, x: v @ _W.T, lambda v, x: 2 * (v @ _W.T)),
    ("sum of a row", lambda x: x.sum(axis=1), lambda v, x: v[:, None] + 0 * x,
     lambda v, x: v[:, None] / 3 + 0 * x),
    ("softmax", _softmax, lambda v, x: _softmax(x) * (v - (v * _softmax(x)).sum(1)[:, None]),
     lambda v, x: 0 * x),
    ("maximum of a row", lambda x: x.max(axis=1),
     lambda v, x: v[:, None] * (x == x.max(axis=1)[:, None]), lambda v, x: v[:, None] * (x > 1)),
)


def check(ask):
    """First what can be read off exactly; then ten right backwards and ten with a planted bug."""
    rng = np.random.default_rng(31)
    x, A = rng.normal(size=(2, 3)), rng.normal(size=(4, 6))
    v = rng.uniform(0.5, 1.5, 4) * (-1.0) ** np.arange(4)
    for where, f, h in (("for a straight f, with h = 0.5", lambda x: A @ x.ravel(), 0.5),
                        ("for a curved f, with h = 0.5", lambda x: (A @ x.ravel())**2, 0.5),
                        ("for a cubic f, with h = 1e-5", lambda x: (A @ x.ravel())**3, 1e-5)):
        want = library(f, x, v, h)
        atol = 1e-9 if h == 0.5 else 1e-7
        compare("gx", ask(f, x, v, h), want, where, suspects(f, x, v, h), atol=atol)
    for name, f, right, bug in OPS:
        x = rng.permutation(np.arange(1.0, 7)).reshape(2, 3) / 3 * rng.choice([-1, 1], (2, 3))
        x[0, 0] = -abs(x[0, 0])
        v = rng.uniform(0.5, 1.5, f(x).shape) * rng.choice([-1, 1], f(x).shape)
        gx = np.asarray(ask(f, x, v, 1e-5))
        for backward, fits in ((right, True), (bug, False)):
            off = np.abs(gx - backward(v, x)).max() if gx.shape == x.shape else np.inf
            if (off < 1e-6) != fits:
                raise Wrong(f"The {'right' if fits else 'buggy'} backward of {name} is "
                            f"{'rejected' if fits else 'accepted'}: it is {off:.1e} from yours.")
    return "Ten right backwards are accepted, and ten planted bugs are caught."


def suspects(f, x, v, h):
    """Yield (text, array): what typical mistakes would give."""
    gx = library(f, x, v, h)
    forward, backward, kept, one = (np.zeros(x.shape) for _ in range(4))
    moved = x.copy()
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        forward[i] = np.sum(v * (f(x + step) - f(x))) / h
        backward[i] = np.sum(v * (f(x) - f(x - step))) / h
        one[i] = np.ravel(f(x + step) - f(x - step))[0] / (2 * h)
        up = f(moved + step)
        moved = moved - step
        kept[i] = np.sum(v * (up - f(moved))) / (2 * h)
    yield ("You divide by h, but x - h and x + h lie 2 h apart.", 2 * gx)
    yield ("You divide by 2, but x - h and x + h lie 2 h apart.", gx * h)
    yield ("The sign is turned: f(x + h) - f(x - h), the later minus the earlier.", -gx)
    yield ("v is not used: the sum of v * f(x) is what is differentiated, and a sum of f(x) "
           "alone does not see a softmax.", library(f, x, np.ones(v.shape), h))
    yield ("You take the mean over the results; it is their sum with v that is differentiated.",
           gx / v.size)
    yield ("Only the first result counts in yours; all of them do, each with its v.", one)
    for array in (forward, backward):
        yield ("This difference has one side. f(x + h) - f(x) errs by h, "
               "f(x + h) - f(x - h) by h * h: step to both sides.", array)
    yield ("Elements that you moved stay moved: put x back before you move the next.", kept)
    yield ("f never sees the step: flatten() makes a copy, and moving the copy moves nothing.",
           np.zeros(x.shape))
    yield ("You move all elements at once, which is the slope in one direction; move one at a "
           "time.", np.full(x.shape, np.sum(v * (f(x + h) - f(x - h))) / (2 * h)))


EXERCISES = (Exercise(
    number="3.1",
    title="the gradient by differences",
    call="numeric_gradient(f, x, v, h) -> array of x's shape",
    library=library,
    check=check,
    hints=(
        "The number to differentiate is the sum of v * f(x). Move one element of x by h up and by "
        "h down, and watch how that number changes.",
        "gx[i] = (sum of v * f(x with x[i] + h) - sum of v * f(x with x[i] - h)) / (2 h), for "
        "each i. np.ndindex(x.shape) gives every index; a copy keeps x as it was.",
        "Begin with gx = np.zeros(x.shape), and for each index i:\n"
        "    d = np.zeros(x.shape)\n"
        "    d[i] = h\n"
        "    gx[i] = np.sum(v * (f(x + d) - f(x - d))) / (2 * h)",
    ),
),)
