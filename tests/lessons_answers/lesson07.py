"""Answers to lesson 07: the backward of local response normalization."""
import numpy as np

from . import right, wrong


def neighbors(C, size):
    """near[j, c] is 1 where channel c lies in the window around j."""
    j, c = np.indices((C, C))
    return ((c >= j - size // 2) & (c < j - size // 2 + size)) * 1.0


def by_matrix(gy, x, size, alpha, beta, k, *, near=None, users=None, factor=2.0, power=1.0,
              inner=True, outer=True):
    """All channels at once; the keywords are mistakes."""
    near = neighbors(x.shape[1], size) if near is None else near
    users = near if users is None else users
    d = k + alpha * np.einsum("jc,nchw->njhw", near, x * x)
    sent = gy * (x if inner else 1) * d ** (-beta - power)
    cross = np.einsum("jc,njhw->nchw", users, sent) * (x if outer else 1)
    return gy * d ** -beta - factor * alpha * beta * cross


@right("7.1")
def matrix(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k)


@right("7.1")
def loops(gy, x, size, alpha, beta, k):
    C, below = x.shape[1], size // 2
    d = np.full(x.shape, float(k))
    for c in range(C):
        for j in range(max(0, c - below), min(C, c - below + size)):
            d[:, c] += alpha * x[:, j] ** 2
    gx = gy / d ** beta
    for j in range(C):
        for c in range(max(0, j - below), min(C, j - below + size)):
            gx[:, c] -= gy[:, j] * x[:, j] * beta * d[:, j] ** (-beta - 1) * alpha * 2 * x[:, c]
    return gx


@right("7.1")
def jacobian(gy, x, size, alpha, beta, k):
    """dy_j/dx_c as a matrix at every place."""
    near = neighbors(x.shape[1], size)
    d = k + alpha * np.einsum("jc,nchw->njhw", near, x ** 2)
    J = -2 * alpha * beta * np.einsum("njhw,jc,nchw->njchw", x * d ** (-beta - 1), near, x)
    for c in range(x.shape[1]):
        J[:, c, c] += d[:, c] ** -beta
    return np.einsum("njhw,njchw->nchw", gy, J)


@wrong("7.1", "the cross term is missing")
def no_cross_term(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, factor=0)


@wrong("7.1", "lacks the 2 of d(x*x)")
def no_two(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, factor=1)


@wrong("7.1", "lacks the beta")
def no_beta(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, factor=2 / beta)


@wrong("7.1", "has the wrong sign")
def plus(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, factor=-2)


@wrong("7.1", "d_j has the exponent -beta")
def exponent(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, power=0)


@wrong("7.1", "gy_j stands without x_j")
def no_inner_x(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, inner=False)


@wrong("7.1", "is not multiplied by x_c")
def no_outer_x(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, outer=False)


@wrong("7.1", "c itself is left out")
def not_itself(gy, x, size, alpha, beta, k):
    C = x.shape[1]
    return by_matrix(gy, x, size, alpha, beta, k, users=neighbors(C, size) - np.eye(C))


@wrong("7.1", "only c itself counts")
def only_itself(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, users=np.eye(x.shape[1]))


@wrong("7.1", "all channels count")
def all_channels(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, k, users=np.ones((x.shape[1],) * 2))


@wrong("7.1", "go around the end")
def around(gy, x, size, alpha, beta, k):
    C = x.shape[1]
    near = sum(np.roll(np.eye(C), s, axis=1) for s in range(-(size // 2), size - size // 2))
    return by_matrix(gy, x, size, alpha, beta, k, near=near)


@wrong("7.1", "alpha is divided by size")
def divided(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha / size, beta, k)


@wrong("7.1", "k is missing in d")
def no_k(gy, x, size, alpha, beta, k):
    return by_matrix(gy, x, size, alpha, beta, 0)
