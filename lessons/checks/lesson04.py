"""Lesson 04: convolution's backward."""
import numpy as np
import tinyalex as ta
from tinyalex.ops.conv import Conv2d, col2im, im2col

from .judging import Exercise, Wrong, compare, several

CASES = (                      # what is new, N, C, H, W, K, KH, KW, stride, padding, groups
    ("with one picture, stride 1, no padding, one group", 1, 2, 5, 6, 3, 3, 2, 1, 0, 1),
    ("with three pictures (it is right with one)", 3, 2, 5, 6, 3, 3, 2, 1, 0, 1),
    ("with stride 2 (it is right with stride 1)", 2, 2, 6, 8, 3, 3, 2, 2, 0, 1),
    ("with padding 1 (it is right without padding)", 2, 2, 5, 6, 3, 3, 2, 1, 1, 1),
    ("with two groups (it is right with one)", 2, 4, 5, 6, 6, 3, 2, 1, 0, 2),
    ("with stride 2, padding 1 and three groups at once", 2, 6, 7, 6, 6, 3, 3, 2, 1, 3),
)


def library(gy, x, w, stride, padding, groups):
    """The gradients as the library has them."""
    x, w = (ta.Tensor(a, requires_grad=True) for a in (x, w))
    b = ta.Tensor(np.zeros(w.shape[0], w.dtype), requires_grad=True)
    ta.functional.conv2d(x, w, b, stride, padding, groups).backward(gy)
    return x.grad, w.grad, b.grad


def check(ask):
    """Go from the plainest case to the whole; then ask check_grads."""
    for i, (where, *sizes) in enumerate(CASES):
        gy, x, w, S, P, G = drawn(i, *sizes)
        want = dict(zip(("gx", "gw", "gb"), library(gy, x, w, S, P, G), strict=True))
        got = several("conv2d_backward", ask(gy, x, w, S, P, G), list(want))
        counts = {"N": len(x), "N*OH*OW": gy[:, 0].size, "OH*OW": gy[0, 0].size, "groups": G}
        fan = windows_at(gy, x, w, S, P)
        for name, mine in zip(want, got, strict=True):
            compare(name, mine, want[name], where, suspects(name, gy, x, w, S, P, G), atol=1e-9,
                    counts=counts, fan=fan if name == "gx" else None)
    report = by_check_grads(ask)
    if not report:
        raise Wrong(f"The numbers are right, but ta.check_grads is not content:\n{report}")
    worst = max(c.max_error for c in report.inputs)
    return (f"gx, gw and gb are right in {len(CASES)} geometries, and check_grads agrees: "
            f"no error above {worst:.0e}.")


def drawn(seed, N, C, H, W, K, KH, KW, stride, padding, groups):
    """Random gy, x and w of these sizes, and the geometry."""
    rng = np.random.default_rng([4, seed])
    OH, OW = ((e + 2 * padding - k) // stride + 1 for e, k in ((H, KH), (W, KW)))
    gy, x, w = (rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape) for shape in
                ((N, K, OH, OW), (N, C, H, W), (K, C // groups, KH, KW)))
    return gy, x, w, stride, padding, groups


def columns(x, w, gy, stride, padding):
    """The windows of x as columns, (N, C, KH, KW, OH, OW)."""
    return im2col(np, x, w.shape[2:], (stride, stride), ((padding, padding),) * 2, gy.shape[2:])


def filters_gradient(gy, cols, G):
    """dL/dw as (K, C/G*KH*KW), from the columns."""
    N, K = gy.shape[:2]
    cols = cols.reshape(N, G, -1, gy[0, 0].size)
    g = gy.reshape(N, G, K // G, -1)
    return (g @ cols.transpose(0, 1, 3, 2)).sum(axis=0).reshape(K, -1)


def columns_gradient(gy, w, G):
    """dL/dcols, (N, C, KH, KW, OH, OW)."""
    (N, K, OH, OW), (_, CG, KH, KW) = gy.shape, w.shape
    g = w.reshape(G, K // G, -1).transpose(0, 2, 1) @ gy.reshape(N, G, K // G, -1)
    return g.reshape(N, CG * G, KH, KW, OH, OW)


def windows_at(gy, x, w, stride, padding):
    """How many windows see each pixel, of the shape of x."""
    ones = np.ones((*x.shape[:2], *w.shape[2:], *gy.shape[2:]))
    return col2im(np, ones, x.shape, (stride, stride), ((padding, padding),) * 2)


def suspects(name, gy, x, w, S, P, G):
    """Yield (text, array): what typical mistakes would give."""
    N, K, OH, OW = gy.shape
    if name == "gb":
        yield ("gb adds up one picture alone. Every picture uses the same bias: sum over n too.",
               gy[-1].sum(axis=(1, 2)))
        yield ("gb adds up one picture alone. Every picture uses the same bias: sum over n too.",
               gy[0].sum(axis=(1, 2)))
    if name == "gw":
        for n in (0, N - 1):
            yield ("gw is that of one picture alone. The same filters look at every picture, so "
                   "their gradients add up: `+=` over n.",
                   library(gy[n:n + 1], x[n:n + 1], w, S, P, G)[1])
        right = library(gy, x, w, S, P, G)[1]
        yield ("gw looks at windows one pixel apart, but the windows are S apart: window (o, p) "
               "starts at pixel (o S - P, p S - P).",
               filters_gradient(gy, columns(x, w, gy, 1, P), G).reshape(w.shape))
        yield ("gw is upside down and left to right: no filter is turned here. Tap (i, j) of w "
               "meets pixel (o S + i, p S + j), and so does its gradient.",
               right[:, :, ::-1, ::-1])
        if G > 1:
            first = x[:, :x.shape[1] // G]
            yield ("In gw every group looks at the channels of group 0. Filters of group g see "
                   "channels g C/G to (g + 1) C/G.",
                   library(gy, np.concatenate([first] * G, axis=1), w, S, P, G)[1])
    if name == "gx":
        yield ("gx is sent to windows one pixel apart, but the windows are S apart: window (o, p) "
               "starts at pixel (o S - P, p S - P).",
               col2im(np, columns_gradient(gy, w, G), x.shape, (1, 1), ((P, P), (P, P))))
        yield ("In gx the filters are turned by 180 degrees. w^T sends gy back through the tap "
               "that it came by: w[k, c, i, j] belongs to pixel (o S + i, p S + j).",
               library(gy, x, w[:, :, ::-1, ::-1], S, P, G)[0])
        if G > 1:
            yield ("In gx every group uses the filters of group 0. Filters g K/G to (g + 1) K/G "
                   "belong to group g.",
                   library(gy, x, np.concatenate([w[:K // G]] * G), S, P, G)[0])
        if P:
            wide = np.pad(x, [(0, 0), (0, 0), (P, P), (P, P)])
            padded = library(gy, wide, w, S, 0, G)[0]
            yield ("gx is that of the padded picture, cut off at the wrong place: the picture "
                   "starts in row P and column P of it.",
                   padded[:, :, :x.shape[2], :x.shape[3]])


def by_check_grads(ask):
    """Put the student's backward under the library's forward, and check it."""
    class Mine(Conv2d):
        def backward(self, gy):
            x, w, _ = self.saved
            return tuple(ask(gy, x, w, 2, 1, 2))

    _, x, w, *_ = drawn(9, 2, 4, 5, 4, 4, 3, 3, 2, 1, 2)
    return ta.check_grads(lambda x, w, b: Mine(2, 1, 2)(x, w, b), x, w, np.ones(len(w)),
                          kind="multilinear")


EXERCISES = (Exercise(
    number="4.1",
    title="the backward of a convolution",
    call="conv2d_backward(gy, x, w, stride, padding, groups) -> gx, gw, gb",
    library=library,
    check=check,
    hints=(
        "With the windows as columns, y = w cols + b is a matrix product for each picture. Forget "
        "convolution for a moment: if Y = A X, what are dL/dA and dL/dX? Then gb: which outputs "
        "does b[k] reach?",
        "dL/dw = gy cols^T, summed over the pictures; dL/dcols = w^T gy, and then every entry of "
        "dL/dcols goes back to the pixel that it was copied from, with +=: col2im. A group is the "
        "same with its own channels and its own filters.",
        "gb = gy.sum(axis=(0, 2, 3)). For the rest, take each group's share of w, gy and x:\n"
        "    A     its filters as rows          (K/G, C/G*KH*KW)\n"
        "    D     its part of gy               (N, K/G, OH*OW)\n"
        "    X     im2col of its channels       (N, C/G*KH*KW, OH*OW)\n"
        "    dA  = (D @ X.transpose(0, 2, 1)).sum(axis=0)\n"
        "    dX  = A.T @ D\n"
        "dA is the group's part of gw, and col2im(dX, ...) that of gx. np.concatenate joins the "
        "groups: gw along axis 0, gx along axis 1.",
    ),
    may_call=("tinyalex.ops.conv.im2col", "tinyalex.ops.conv.col2im"),
),)
