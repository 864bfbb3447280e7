"""Answers to lesson 06: the backward of overlapping max-pooling."""
import numpy as np

from . import right, wrong


def walk(gy, x, K, S, give):
    """Walk the windows; ``give(gx, place, window, g)`` hands out one gradient."""
    gx = np.zeros(x.shape)
    for n, c, o, p in np.ndindex(gy.shape):
        place = n, c, slice(o * S, o * S + K), slice(p * S, p * S + K)
        give(gx[place], x[place], gy[n, c, o, p])
    return gx


@right("6.1")
def argmax(gy, x, kernel, stride):
    def give(gx, window, g):
        gx[np.unravel_index(window.argmax(), window.shape)] += g
    return walk(gy, x, kernel, stride, give)


@right("6.1")
def by_taps(gy, x, kernel, stride):
    """All windows at once: which tap wins, then one sum for each tap."""
    OH, OW = gy.shape[2:]
    places = [(..., slice(i, i + stride * (OH - 1) + 1, stride),
               slice(j, j + stride * (OW - 1) + 1, stride))
              for i in range(kernel) for j in range(kernel)]
    winner = np.stack([x[place] for place in places]).argmax(axis=0)
    gx = np.zeros_like(x)
    for tap, place in enumerate(places):
        gx[place] += gy * (winner == tap)
    return gx


@right("6.1")
def add_at(gy, x, kernel, stride):
    n, c, o, p = np.indices(gy.shape)
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    view = view[:, :, ::stride, ::stride]
    i, j = np.divmod(view.reshape(*gy.shape, -1).argmax(-1), kernel)
    gx = np.zeros(x.shape)
    np.add.at(gx, (n, c, o * stride + i, p * stride + j), gy)
    return gx


@wrong("6.1", "one gradient is lost")
def written_over(gy, x, kernel, stride):
    def give(gx, window, g):
        gx[np.unravel_index(window.argmax(), window.shape)] = g
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "Every one of equal maxima gets the whole gradient")
def all_ties(gy, x, kernel, stride):
    def give(gx, window, g):
        gx += g * (window == window.max())
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "Of equal maxima the last wins")
def last_tie(gy, x, kernel, stride):
    def give(gx, window, g):
        best = 0, 0
        for i, j in np.ndindex(window.shape):
            if window[i, j] >= window[best]:
                best = i, j
        gx[best] += g
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "Equal maxima share the gradient")
def shared_ties(gy, x, kernel, stride):
    def give(gx, window, g):
        hit = window == window.max()
        gx += g * hit / hit.sum()
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "the first of the first column wins")
def column_by_column(gy, x, kernel, stride):
    def give(gx, window, g):
        j, i = np.unravel_index(window.T.argmax(), window.shape)
        gx[i, j] += g
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "gy is missing: you count")
def counted(gy, x, kernel, stride):
    return argmax(np.ones_like(gy), x, kernel, stride)


@wrong("6.1", "that is the backward of a mean")
def mean(gy, x, kernel, stride):
    def give(gx, window, g):
        gx += g / window.size
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "Every pixel of a window gets the gradient; only")
def everyone(gy, x, kernel, stride):
    def give(gx, window, g):
        gx += g
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "The smallest of each window")
def smallest(gy, x, kernel, stride):
    return argmax(gy, -x, kernel, stride)


@wrong("6.1", "Row and column of the winner have changed places")
def turned(gy, x, kernel, stride):
    def give(gx, window, g):
        j, i = divmod(int(window.argmax()), kernel)
        gx[i, j] += g
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "You multiply by the winner's value")
def times_value(gy, x, kernel, stride):
    def give(gx, window, g):
        gx[np.unravel_index(window.argmax(), window.shape)] += g * window.max()
    return walk(gy, x, kernel, stride, give)


@wrong("6.1", "Only the first map of the first picture")
def one_map(gy, x, kernel, stride):
    gx = np.zeros(x.shape)
    gx[:1, :1] = argmax(gy[:1, :1], x[:1, :1], kernel, stride)
    return gx


@wrong("6.1", "One winner is chosen for all maps")
def one_winner(gy, x, kernel, stride):
    loudest = np.broadcast_to(x.max(axis=1, keepdims=True), x.shape)
    return argmax(gy, loudest, kernel, stride)


@wrong("6.1", "Your windows start kernel pixels apart")
def kernel_apart(gy, x, kernel, stride):
    gx = np.zeros(x.shape)
    for n, c, o, p in np.ndindex(gy.shape):
        place = (n, c, slice(o * kernel, o * kernel + kernel),
                 slice(p * kernel, p * kernel + kernel))
        if x[place].size:
            i, j = np.unravel_index(x[place].argmax(), x[place].shape)
            gx[n, c, o * kernel + i, p * kernel + j] += gy[n, c, o, p]
    return gx
