"""Lesson 06: the backward of overlapping max-pooling."""
import numpy as np
import tinyalex as ta

from .judging import Exercise, Wrong, compare

CASES = (                                # what is new, N, C, H, W, kernel, stride, ties
    ("with 2x2 windows that do not overlap", 1, 1, 4, 6, 2, 2, False),
    ("with two pictures of three maps (it is right with one)", 2, 3, 4, 6, 2, 2, False),
    ("with 3x3 windows two apart (it is right without overlap)", 2, 3, 7, 9, 3, 2, False),
    ("with pixels left over at the end", 2, 2, 8, 6, 3, 2, False),
    ("with ties (it is right without)", 2, 2, 7, 9, 3, 2, True),
)


def library(gy, x, kernel, stride):
    """The library's gradient: the first of equal maxima takes it all."""
    x = ta.Tensor(x, requires_grad=True)
    ta.functional.max_pool2d(x, kernel, stride).backward(gy)
    return x.grad


def check(ask):
    """Overlap and ties come last; then check_grads."""
    rng = np.random.default_rng(6)
    for where, N, C, H, W, K, S, ties in CASES:
        x = rng.integers(0, 3, (N, C, H, W)) * 1.0 if ties else distinct(rng, (N, C, H, W))
        shape = (N, C, (H - K) // S + 1, (W - K) // S + 1)
        gy = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
        compare("gx", ask(gy, x, K, S), library(gy, x, K, S), where, suspects(gy, x, K, S))
    report = ta.check_grads(lambda t: Mine(ask)(t), distinct(rng, (1, 2, 7, 5)), kind="multilinear")
    if not report:
        raise Wrong(f"The numbers are right, but ta.check_grads is not content:\n{report}")
    return "Right without overlap, with it, with ties and left-overs; check_grads agrees."


def distinct(rng, shape):
    """Numbers of either sign, more than 2 apart from each other."""
    size = int(np.prod(shape))
    return (rng.permutation(size).reshape(shape) - size // 2) * 3.0


class Mine(ta.Function):
    """The library's forward with the student's backward, 3x3 windows two apart."""

    def __init__(self, ask):
        self.ask = ask

    def forward(self, x):
        self.save(x)
        return ta.functional.max_pool2d(ta.Tensor(x), 3, 2).data

    def backward(self, gy):
        return (self.ask(gy, self.saved[0], 3, 2),)


def walk(gy, x, K, S, share, add=True, step=None):
    """Give each window's gradient to its pixels by ``share(window)``, an array (K, K)."""
    gx, step = np.zeros(x.shape), step or S
    for n, c, o, p in np.ndindex(gy.shape):
        place = n, c, slice(o * step, o * step + K), slice(p * step, p * step + K)
        part = gy[n, c, o, p] * share(x[place])
        if add:
            gx[place] += part
        else:
            gx[place] = np.where(part != 0, part, gx[place])
    return gx


def first(window):
    """1 at the first maximum, row by row."""
    return (np.arange(window.size) == window.argmax()).reshape(window.shape)


def last(window):
    """1 at the last maximum, row by row."""
    return first(window[::-1, ::-1])[::-1, ::-1]


def tied(window):
    """1 at every maximum."""
    return window == window.max()


def suspects(gy, x, K, S):
    """Yield (text, array): what typical mistakes would give."""
    right = library(gy, x, K, S)
    yield ("Where two windows choose the same pixel, one gradient is lost. Windows overlap: += "
           "and not =.", walk(gy, x, K, S, first, add=False))
    yield ("Every one of equal maxima gets the whole gradient, so more comes out than went in. "
           "(The code of 2012 did that!) Here the first, row by row, takes it.",
           walk(gy, x, K, S, tied))
    yield ("Of equal maxima the last wins in yours; here the first does, row by row. With >= a "
           "later one takes over, with > it does not.", walk(gy, x, K, S, last))
    yield ("Equal maxima share the gradient in yours. A fair rule, but the library's is another: "
           "the first, row by row, takes it all.",
           walk(gy, x, K, S, lambda w: tied(w) / tied(w).sum()))
    yield ("Of equal maxima the first of the first column wins in yours; here it is the first of "
           "the first row.", walk(gy, x, K, S, lambda w: first(w.T).T))
    yield ("gy is missing: you count how often a pixel wins.",
           walk(np.ones(gy.shape), x, K, S, first))
    yield ("Every pixel of a window gets an equal share: that is the backward of a mean. Only the "
           "winner moves the maximum.", walk(gy, x, K, S, lambda w: np.full(w.shape, 1 / w.size)))
    yield ("Every pixel of a window gets the gradient; only the winner moves the maximum.",
           walk(gy, x, K, S, np.ones_like))
    yield ("The smallest of each window gets the gradient; the largest should.",
           walk(gy, -x, K, S, first))
    yield ("Row and column of the winner have changed places: argmax counts row by row, so "
           "row = index // kernel, column = index % kernel.",
           walk(gy, x, K, S, lambda w: first(w).T))
    yield ("You multiply by the winner's value; moving it by d moves y by d, however large it is.",
           walk(gy, x, K, S, lambda w: first(w) * w.max()))
    only = np.zeros(x.shape)
    only[0, 0] = right[0, 0]
    yield ("Only the first map of the first picture has a gradient: loop over n and c too.", only)
    summed = np.zeros(x.shape)
    for n, c, o, p in np.ndindex(gy.shape):
        joint = first(x[n, :, o * S:o * S + K, p * S:p * S + K].max(axis=0))
        summed[n, c, o * S:o * S + K, p * S:p * S + K] += gy[n, c, o, p] * joint
    yield ("One winner is chosen for all maps together; each map has its own.", summed)
    if K != S and (gy.shape[2] - 1) * K + K <= x.shape[2] + K:
        wide = np.pad(x, [(0, 0), (0, 0), (0, K * gy.shape[2]), (0, K * gy.shape[3])],
                      constant_values=-np.inf)
        yield ("Your windows start kernel pixels apart; they start stride pixels apart.",
               walk(gy, wide, K, K, first)[:, :, :x.shape[2], :x.shape[3]])


EXERCISES = (Exercise(
    number="6.1",
    title="the backward of overlapping max-pooling",
    call="max_pool_backward(gy, x, kernel, stride) -> gx",
    library=library,
    check=check,
    hints=(
        "Which pixel of a window moves the window's maximum, and by how much? What do the others "
        "do? And what if one pixel wins in two windows?",
        "For each window (n, c, o, p): look at x[n, c, o S : o S + K, p S : p S + K], find its "
        "largest, and add gy[n, c, o, p] to gx there. argmax gives the first of equals, row by "
        "row.",
        "Begin with gx = np.zeros(x.shape), and for n, c, o, p in np.ndindex(gy.shape):\n"
        "    h, w = o * stride, p * stride\n"
        "    window = x[n, c, h:h + kernel, w:w + kernel]\n"
        "    i, j = divmod(int(window.argmax()), kernel)\n"
        "    gx[n, c, h + i, w + j] += gy[n, c, o, p]",
    ),
),)
