"""Answers to lesson 03: the gradient by differences."""
import numpy as np

from . import right, wrong


def by_steps(f, x, v, h, slope):
    """Move one element after the other; ``slope(moved, d)`` is a mistake or none."""
    gx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[i] = h
        gx[i] = slope(d)
    return gx


@right("3.1")
def central(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.sum(v * (f(x + d) - f(x - d))) / (2 * h))


@right("3.1")
def in_place(f, x, v, h):
    x = x.astype(np.float64)
    gx = np.empty_like(x)
    flat, out = x.reshape(-1), gx.reshape(-1)
    for i in range(flat.size):
        kept = flat[i]
        flat[i] = kept + h
        up = np.vdot(v, f(x))
        flat[i] = kept - h
        out[i] = (up - np.vdot(v, f(x))) / h / 2
        flat[i] = kept
    return gx


@right("3.1")
def all_steps_at_once(f, x, v, h):
    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    up = [np.dot(np.ravel(f(x + d)), np.ravel(v)) for d in steps]
    down = [np.dot(np.ravel(f(x - d)), np.ravel(v)) for d in steps]
    return (np.array(up) - np.array(down)).reshape(x.shape) / (2 * h)


@wrong("3.1", "You divide by h, but")
def by_h(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.sum(v * (f(x + d) - f(x - d))) / h)


@wrong("3.1", "You divide by 2, but")
def by_two(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.sum(v * (f(x + d) - f(x - d))) / 2)


@wrong("3.1", "The sign is turned")
def turned(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.sum(v * (f(x - d) - f(x + d))) / (2 * h))


@wrong("3.1", "v is not used")
def ones(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.sum(f(x + d) - f(x - d)) / (2 * h))


@wrong("3.1", "You take the mean over the results")
def mean(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.mean(v * (f(x + d) - f(x - d))) / (2 * h))


@wrong("3.1", "Only the first result counts")
def first(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: (f(x + d) - f(x - d)).flat[0] / (2 * h))


@wrong("3.1", "This difference has one side")
def one_sided(f, x, v, h):
    return by_steps(f, x, v, h, lambda d: np.sum(v * (f(x + d) - f(x))) / h)


@wrong("3.1", "Elements that you moved stay moved")
def not_put_back(f, x, v, h):
    x, gx = x.copy(), np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        gx[i] = np.sum(v * (up - f(x))) / (2 * h)
    return gx


@wrong("3.1", "f never sees the step")
def a_copy_is_moved(f, x, v, h):
    gx = np.zeros(x.shape)
    for i in range(x.size):
        flat = x.flatten()
        flat[i] += h
        up = f(x)
        flat[i] -= 2 * h
        gx.flat[i] = np.sum(v * (up - f(x))) / (2 * h)
    return gx


@wrong("3.1", "You move all elements at once")
def one_direction(f, x, v, h):
    return np.full(x.shape, np.sum(v * (f(x + h) - f(x - h))) / (2 * h))


@wrong("3.1", "writes into one of its arguments")
def x_is_moved(f, x, v, h):
    gx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        gx[i] = np.sum(v * (up - f(x))) / (2 * h)
    return gx


@wrong("3.1", "its axes are turned")
def transposed(f, x, v, h):
    return central(f, x, v, h).T


@wrong("3.1", "gx has shape (6,); expected (2, 3)")
def flattened(f, x, v, h):
    return central(f, x, v, h).ravel()
