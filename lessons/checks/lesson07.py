"""Lesson 07: the backward of local response normalization, cross term and all."""
import numpy as np
import tinyalex as ta

from .judging import Exercise, Wrong, compare

CASES = (                                # what is new, N, C, H, W, size, alpha, beta, k
    ("with a window of three channels", 2, 6, 2, 3, 3, 1.0, 0.75, 2.0),
    ("with a window of five, alpha 0.5, beta 0.6, k 1.5", 2, 9, 2, 3, 5, 0.5, 0.6, 1.5),
    ("with a window of one channel, which has no neighbors", 2, 4, 2, 3, 1, 1.0, 0.75, 2.0),
    ("with a window wider than there are channels", 1, 3, 2, 2, 5, 1.0, 0.75, 2.0),
)


def library(gy, x, size, alpha, beta, k):
    """The library's gradient, alpha as the paper prints it: not divided by size."""
    x = ta.Tensor(x, requires_grad=True)
    ta.functional.local_response_norm(x, size, alpha, beta, k, divide_alpha=False).backward(gy)
    return x.grad


def check(ask):
    """At alpha 1, where the cross term is seen; check_grads; and what alpha 1e-4 hides."""
    rng = np.random.default_rng(7)
    for where, N, C, H, W, *rule in CASES:
        gy, x = rng.normal(size=(2, N, C, H, W))
        compare("gx", ask(gy, x, *rule), library(gy, x, *rule), where, suspects(gy, x, *rule))

    class Mine(ta.Function):
        def forward(self, x):
            self.save(x)
            return ta.functional.local_response_norm(ta.Tensor(x), 5, 1.0, divide_alpha=False).data

        def backward(self, gy):
            return (ask(gy, self.saved[0], 5, 1.0, 0.75, 1.0),)

    report = ta.check_grads(lambda t: Mine()(t), rng.normal(size=(1, 7, 1, 2)))
    if not report:
        raise Wrong(f"The numbers are right, but ta.check_grads is not content:\n{report}")
    gy, x = rng.normal(size=(2, 2, 16, 4, 4))
    off = [np.abs(walk(gy, x, 5, alpha, 0.75, 2.0, cross=0)
                  - library(gy, x, 5, alpha, 0.75, 2.0)).max() for alpha in (1.0, 1e-4)]
    return (f"Right in {len(CASES)} cases, and check_grads agrees. Without the cross term it would "
            f"be off by {off[0]:.1f} at alpha 1, and by {off[1]:.0e} at the paper's 1e-4.")


def walk(gy, x, size, alpha, beta, k, cross=1.0, power=1.0, inner="x", outer="x", reach=None,
         wrap=False, divide=False):
    """The gradient, channel by channel; the keywords are mistakes."""
    C, half, a = x.shape[1], size // 2, alpha / (size if divide else 1)
    near = [[j % C if wrap else j for j in range(c - half, c - half + size)
             if wrap or 0 <= j < C] for c in range(C)]
    d = np.stack([k + a * sum(x[:, j]**2 for j in near[c]) for c in range(C)], axis=1)
    gx = np.empty(x.shape)
    for c in range(C):
        users = [j for j in range(C) if c in near[j]]
        users = reach(c, users) if reach else users
        total = sum((gy[:, j] * (x[:, j] if inner == "x" else 1) * d[:, j]**-(beta + power)
                     for j in users), np.zeros(x[:, 0].shape))
        total = total * (x[:, c] if outer == "x" else 1)
        gx[:, c] = gy[:, c] * d[:, c]**-beta - 2 * a * beta * cross * total
    return gx


def suspects(gy, x, size, alpha, beta, k):
    """Yield (text, array): what typical mistakes would give."""
    rule = (gy, x, size, alpha, beta, k)
    yield ("Only the first term is there. x_c also stands in every d_j whose window holds c, its "
           "own d_c among them: the cross term is missing.", walk(*rule, cross=0))
    yield ("The cross term lacks the 2 of d(x*x) = 2x dx.", walk(*rule, cross=0.5))
    yield ("The cross term lacks the beta that comes down from the exponent.",
           walk(*rule, cross=1 / beta))
    yield ("The cross term has the wrong sign: a louder neighbor makes y smaller, so minus.",
           walk(*rule, cross=-1))
    yield ("In the cross term d_j has the exponent -beta; differentiating takes one off: "
           "-(beta + 1).", walk(*rule, power=0.0))
    yield ("In the cross term gy_j stands without x_j: what y_j = x_j d_j^-beta loses is in "
           "proportion to x_j.", walk(*rule, inner=""))
    yield ("The cross term is not multiplied by x_c: dd_j/dx_c = 2 alpha x_c.",
           walk(*rule, outer=""))
    yield ("In the cross term c itself is left out: d_c holds x_c too.",
           walk(*rule, reach=lambda c, users: [j for j in users if j != c]))
    yield ("In the cross term only c itself counts; the neighbors whose windows hold c are "
           "missing.", walk(*rule, reach=lambda c, users: [c]))
    yield ("In the cross term all channels count; only those j count whose window holds c.",
           walk(*rule, reach=lambda c, users: range(x.shape[1])))
    yield ("The windows go around the end (np.roll does that): the last channel has no neighbor "
           "above it.", walk(*rule, wrap=True))
    yield ("alpha is divided by size in yours. That is PyTorch's way and the code's of 2012; here "
           "it is as the paper prints it.", walk(*rule, divide=True))
    yield ("k is missing in d.", walk(gy, x, size, alpha, beta, 0.0))


EXERCISES = (Exercise(
    number="7.1",
    title="the backward of the response norm",
    call="lrn_backward(gy, x, size, alpha, beta, k) -> gx",
    library=library,
    check=check,
    hints=(
        "y_c = x_c d_c^-beta with d_c = k + alpha * (sum of x_j^2 over the size channels around "
        "c). In how many places does x_c stand? In y_c itself, and in every d_j with c near j.",
        "dL/dx_c = gy_c d_c^-beta + sum over j of gy_j x_j * (derivative of d_j^-beta with "
        "respect to x_c), and that is -beta d_j^-(beta+1) * 2 alpha x_c where c is near j, else 0.",
        "The window of c is near = slice(max(0, c - size // 2), c + size // 2 + 1), for odd "
        "sizes. First fill d, then s = gy * x * d**-(beta + 1), and then for each c:\n"
        "    gx[:, c] = gy[:, c] * d[:, c]**-beta\n"
        "    gx[:, c] -= 2 * alpha * beta * x[:, c] * s[:, near].sum(axis=1)",
    ),
),)
