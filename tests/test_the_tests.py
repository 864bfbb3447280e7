"""The tests, tested: each bug below is planted into a real op, and has to be found.

A gradient test that passes proves little until one knows what it would not let pass. The table
holds the classic mistakes of hand-written backwards, and of a few forwards: the check of the op
accepts the op as it is, and refuses each of them.
"""

import contextlib
import inspect
from unittest import mock

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import ops
from tinyalex.gradcheck import check_grads
from tinyalex.ops import activation, arithmetic, conv, conv_fast, dropout, exchange
from tinyalex.ops import linear, loss, lrn, pool, shape, winograd


# ---------------------------------------------------------------------------- the checks

def random(*extents, seed=0):
    return strategies.normal(extents, seed)


def positive(*extents, seed=0):
    return 0.5 + np.abs(random(*extents, seed=seed))


def grads(fn, reference, *arrays, kind="smooth"):
    check_grads(fn, *arrays, reference=reference, kind=kind).raise_if_wrong()


def relu():
    grads(F.relu, ref.relu, strategies.away_from_zero((3, 4), 0, margin=2), kind="multilinear")


def tanh():
    grads(F.tanh, ref.tanh, random(3, 4))


def sigmoid():
    grads(F.sigmoid, ref.sigmoid, random(3, 4))


def operators():
    """+ - * / with broadcasting, and a number beside a Tensor."""
    def fn(a, b):
        return (a + b) * a - 3 * b / a + (2 - a) + b * 0.5 + (a - b)
    grads(fn, fn, positive(2, 1, 3), positive(4, 1, seed=1))


def powers():
    def fn(x):
        return x**3 + x**-0.5
    grads(fn, fn, positive(3, 4))


def exp_and_log():
    grads(lambda x: F.exp(x) * F.log(x), lambda x: np.exp(x) * np.log(x), positive(3, 4))


def sums_and_means():
    def fn(x):
        return x.sum(axis=(0, 2)) + x.mean(axis=-1).sum(axis=0, keepdims=True)
    grads(fn, fn, random(2, 3, 4))


def maxima():
    grads(lambda x: x.max(axis=(0, 2)), None, strategies.distinct((2, 3, 4), 0, gap=4),
          kind="multilinear")


def tied_maxima():
    x = ta.Tensor([[5.0, 1.0], [5.0, 5.0]], requires_grad=True)
    (x.max(axis=0) * ta.Tensor([10.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [[10, 0], [0, 1]]


def reshaped():
    grads(lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6), random(2, 3, 4), kind="multilinear")


def transposed():
    grads(lambda x: x.transpose(1, 2, 0), lambda x: x.transpose(1, 2, 0), random(3, 3, 3),
          kind="multilinear")


def indexed():
    grads(lambda x: x[[2, 0, 2]], lambda x: x[[2, 0, 2]], random(3, 4), kind="multilinear")
    grads(lambda x: x[1:, ::-2], lambda x: x[1:, ::-2], random(3, 4), kind="multilinear")


def joined():
    grads(lambda *p: F.concatenate(p, 1), lambda *p: ref.concatenate(p, 1),
          random(2, 3), random(2, 3, seed=1), kind="multilinear")


def fully_connected():
    grads(F.linear, ref.linear, random(4, 3), random(3, 3, seed=1), random(3, seed=2),
          kind="multilinear")


def products():
    grads(F.matmul, ref.matmul, random(3, 3), random(3, 3, seed=1), kind="multilinear")


def softmax():
    grads(F.softmax, ref.softmax, random(3, 5))


def cross_entropy():
    labels = np.array([4, 0, 2])
    grads(lambda x: F.cross_entropy(x, labels), lambda x: ref.cross_entropy(x, labels),
          random(3, 5))


def dropped():
    mask = strategies.mask((5, 6), 0)
    for training, scaling in [(True, "inverted"), (True, "paper"), (False, "paper")]:
        grads(lambda x: F.dropout(x, 0.3, training, mask, scaling),
              lambda x: ref.dropout(x, mask, 0.3, training, scaling), random(5, 6),
              kind="multilinear")


def exchanged():
    """Two towers, each of which sees the maps of both; the second lives on another device."""
    def net(a, b, v, w):
        left, right = F.exchange([a, b.to("cpu:1")])
        return F.exchange([F.linear(left, v), F.linear(right, w.to("cpu:1"))], to="cpu:0")

    def reference(a, b, v, w):
        both = ref.concatenate([a, b])
        return ref.concatenate([ref.linear(both, v), ref.linear(both, w)])

    grads(net, reference, random(2, 3), random(2, 3, seed=1), random(2, 6, seed=2),
          random(2, 6, seed=3), kind="multilinear")


def convolution(algorithm, shapes, *options):
    arrays = [random(*extents, seed=i) for i, extents in enumerate(shapes)]
    with ta.conv_algorithm(algorithm):
        grads(lambda *a: F.conv2d(*a, *options), lambda *a: ref.conv2d(*a, *options), *arrays,
              kind="multilinear")


# groups, two strides, padding on some sides only, an overhang; as wide as there are filters
CONV = [(2, 4, 6, 4), (4, 2, 3, 3), (4,)], (2, 1), ((1, 0), (0, 2)), 2, True
TURNED = [(2, 3, 5, 4), (2, 3, 3, 3), (2,)], 1, 1     # stride 1: dL/dx by turned filters
TILED = [(1, 2, 4, 13), (2, 2, 3, 3), (2,)], 1, ((0, 2), (2, 1))   # three tiles, the last cut off


def conv_plain():
    convolution("plain", *CONV)


def conv_in_groups():
    convolution("fast", *CONV)


def conv_turned():
    convolution("fast", *TURNED)


def conv_in_tiles():
    with mock.patch.object(conv_fast, "CHANNELS", 1):  # as if two channels were many
        convolution("fast", *TILED)


def pooling(fn, oracle, values, kind="multilinear"):
    grads(lambda x: fn(x, 3, 2, 1, True), lambda x: oracle(x, 3, 2, 1, True), values, kind=kind)


def max_pool():
    pooling(F.max_pool2d, ref.max_pool2d, strategies.distinct((1, 2, 5, 6), 0, gap=4))


def max_pool_of_negatives():
    pooling(F.max_pool2d, ref.max_pool2d, strategies.distinct((1, 1, 4, 4), 0, gap=4) - 1000)


def tied_pixels(fn=F.max_pool2d, ties=False):
    x = np.random.default_rng(0).integers(0, 2, (1, 2, 7, 7)).astype(np.float64)
    t, gy = ta.Tensor(x, requires_grad=True), strategies.away_from_zero((1, 2, 3, 3), 0)
    fn(t, 3, 2).backward(gy)
    assert np.allclose(t.grad, ref.max_pool2d_backward(x, gy, 3, 2, ties=ties))


def tied_pixels_of_the_source():
    tied_pixels(F.max_pool2d_ties, ties=True)


def avg_pool():
    pooling(F.avg_pool2d, ref.avg_pool2d, random(1, 2, 5, 6))


def norm(size=5, divide=True):
    def constants(op):
        return lambda x: op(x, size, 1.0, 0.75, 2.0, divide)
    grads(constants(F.local_response_norm), constants(ref.local_response_norm),
          strategies.normal((1, 7, 2, 2), 0, scale=1.5))


def norm_of_even_size():
    norm(4)


def norm_as_printed():
    norm(5, divide=False)


def spatial_norm(size=3):
    def constants(op):
        return lambda x: op(x, size, 9.0, 0.75, 1.0)
    grads(constants(F.spatial_response_norm), constants(ref.spatial_response_norm),
          strategies.normal((1, 2, 4, 5), 0, scale=1.5))


def spatial_norm_of_even_size():
    spatial_norm(2)


# ---------------------------------------------------------------------------- tools of sabotage

def overwritten(right, op, gy):
    """Write '=' where '+=' is due: of all that reaches an element, the last alone stays."""
    gx = np.zeros(op.shapes[0])
    for at in np.ndindex(gy.shape):
        alone = np.zeros(gy.shape)
        alone[at] = gy[at]
        part, *others = right(op, alone)
        gx = np.where(part != 0, part, gx)
    return (gx, *right(op, gy)[1:])


def with_other(op, right, gy, **attributes):
    """Run the right backward on an op of which some attributes are wrong."""
    with mock.patch.multiple(op, **attributes):
        return right(op, gy)


def upside_down(a):
    return a[..., ::-1, ::-1]


def in_groups(gw, change, groups=2):
    """Change the filters (K, c, KH, KW), seen as (groups, K / groups, c, KH, KW)."""
    return change(gw.reshape(groups, -1, *gw.shape[1:])).reshape(gw.shape)


def wrong_entry(matrices, which, row, column):
    """Change one number of A^T, G or B^T by a thousandth."""
    matrices = [a.copy() for a in matrices]
    matrices[which][row, column] += 0.001
    return matrices


def cut_off(out, width):
    """Outputs behind the first `width` are never written."""
    out[:, :, width:] = 0


# ---------------------------------------------------------------------------- the table
# The check that has to notice; what is wrong; where it is planted; and how: the wrong function
# gets the right one first, then what that one takes.

MUTANTS = [
    (relu, "the gradient passes where the input is negative", activation.ReLU,
     dict(backward=lambda right, op, gy: (gy,))),
    (relu, "the gradient passes where the input is negative only", activation.ReLU,
     dict(backward=lambda right, op, gy: (gy - right(op, gy)[0],))),
    (relu, "a leak: a hundredth of negative inputs comes through", activation.ReLU,
     dict(forward=lambda right, op, x: right(op, x) + 0.01 * np.minimum(x, 0))),
    (tanh, "1 - y instead of 1 - y^2", activation.Tanh,
     dict(backward=lambda right, op, gy: (gy * (1 - op.saved[0]),))),
    (sigmoid, "y instead of y (1 - y)", activation.Sigmoid,
     dict(backward=lambda right, op, gy: (gy * op.saved[0],))),

    (operators, "what was broadcast gets the mean and not the sum", arithmetic,
     dict(sum_to=lambda right, xp, g, to: right(xp, g, to) * np.prod(to) / g.size)),
    (operators, "what was broadcast gets its first copy's share only", arithmetic,
     dict(sum_to=lambda right, xp, g, to: g.reshape(-1)[:int(np.prod(to))].reshape(to))),
    (operators, "a + b: b gets nothing", arithmetic.Add,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], 0 * right(op, gy)[1]))),
    (operators, "a - b: the sign is lost", arithmetic.Subtract,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], -right(op, gy)[1]))),
    (operators, "a b: each factor gets itself and not the other", arithmetic.Multiply,
     dict(backward=lambda right, op, gy: tuple(
         arithmetic.sum_to(np, gy * v, v.shape) for v in op.saved))),
    (operators, "a / b: the sign is lost", arithmetic.Divide,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], -right(op, gy)[1]))),
    (operators, "a / b: divided by b and not by b^2", arithmetic.Divide,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], right(op, gy)[1] * op.saved[1]))),
    (operators, "c x: the number is forgotten", arithmetic.Scale,
     dict(backward=lambda right, op, gy: (gy,))),
    (operators, "x + c: the gradient is multiplied by c", arithmetic.Shift,
     dict(backward=lambda right, op, gy: (gy * op.c,))),
    (powers, "the exponent is off by one", arithmetic.Power,
     dict(backward=lambda right, op, gy: (gy * op.c * op.saved[0] ** op.c,))),
    (powers, "the factor c is forgotten", arithmetic.Power,
     dict(backward=lambda right, op, gy: (right(op, gy)[0] / op.c,))),
    (exp_and_log, "e^x has the slope 1", arithmetic.Exp,
     dict(backward=lambda right, op, gy: (gy,))),
    (exp_and_log, "ln x has the slope x", arithmetic.Log,
     dict(backward=lambda right, op, gy: (gy * op.saved[0],))),
    (sums_and_means, "the sum's gradient is shared out", arithmetic.Sum,
     dict(backward=lambda right, op, gy: (right(op, gy)[0] * gy.size / np.prod(op.shapes[0]),))),
    (sums_and_means, "the mean is a sum", ta.Tensor,
     dict(mean=lambda right, x, axis=None, keepdims=False: x.sum(axis, keepdims))),
    (maxima, "every element gets the gradient of its row", arithmetic.Max,
     dict(backward=lambda right, op, gy: arithmetic.Sum.backward(op, gy))),
    (tied_maxima, "the last maximum wins", arithmetic.Max,
     dict(forward=lambda right, op, x: right(op, x[::-1]),
          backward=lambda right, op, gy: (right(op, gy)[0][::-1],))),

    (reshaped, "the gradient is read in another order", shape.Reshape,
     dict(backward=lambda right, op, gy: (gy.reshape(op.shapes[0], order="F"),))),
    (transposed, "the permutation is not inverted", shape.Transpose,
     dict(backward=lambda right, op, gy: (gy.transpose(op.axes),))),
    (indexed, "an element taken twice is paid once", shape.GetItem, dict(backward=overwritten)),
    (indexed, "the gradient lands in the wrong row", shape.GetItem,
     dict(backward=lambda right, op, gy: (np.roll(right(op, gy)[0], 1, axis=0),))),
    (joined, "the parts' gradients are swapped", shape.Concatenate,
     dict(backward=lambda right, op, gy: right(op, gy)[::-1])),
    (joined, "every part gets the first stretch", shape.Concatenate,
     dict(backward=lambda right, op, gy: right(op, gy)[:1] * 2)),

    (fully_connected, "dL/dw is not transposed", linear.Linear,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], right(op, gy)[1].T,
                                          right(op, gy)[2]))),
    (fully_connected, "dL/dx goes through w transposed", linear.Linear,
     dict(backward=lambda right, op, gy: (gy @ op.saved[1].T, *right(op, gy)[1:]))),
    (fully_connected, "dL/db is the mean over the batch", linear.Linear,
     dict(backward=lambda right, op, gy: (*right(op, gy)[:2], gy.mean(axis=0)))),
    (fully_connected, "the bias is added to x, not to y", linear.Linear,
     dict(forward=lambda right, op, x, w, b: right(op, x + b, w, 0 * b))),
    (products, "the two gradients are swapped", linear.MatMul,
     dict(backward=lambda right, op, gy: right(op, gy)[::-1])),
    (products, "b is not transposed", linear.MatMul,
     dict(backward=lambda right, op, gy: (gy @ op.saved[1], right(op, gy)[1]))),

    (softmax, "a gradient of zero, which passes where the cotangent is ones", loss.LogSoftmax,
     dict(backward=lambda right, op, gy: (0 * gy,))),
    (softmax, "the classes do not compete", loss.LogSoftmax,
     dict(backward=lambda right, op, gy: (gy * (1 - np.exp(op.saved[0])),))),
    (cross_entropy, "the mean's 1/N is forgotten", loss.CrossEntropy,
     dict(backward=lambda right, op, gy: (right(op, gy)[0] * len(op.labels),))),
    (cross_entropy, "the right label is not subtracted", loss.CrossEntropy,
     dict(backward=lambda right, op, gy: (gy * np.exp(op.saved[0]) / len(op.labels),))),
    (cross_entropy, "the 2012 sign: uphill", loss.CrossEntropy,
     dict(backward=lambda right, op, gy: (-right(op, gy)[0],))),
    (cross_entropy, "what comes from above is ignored", loss.CrossEntropy,
     dict(backward=lambda right, op, gy: right(op, np.ones_like(gy)))),
    (cross_entropy, "a sum and not a mean", loss.CrossEntropy,
     dict(forward=lambda right, op, x: right(op, x) * len(x))),

    (dropped, "backward without the mask", dropout.Dropout,
     dict(backward=lambda right, op, gy: (gy * op.scale,))),
    (dropped, "backward without the scale", dropout.Dropout,
     dict(backward=lambda right, op, gy: (right(op, gy)[0] / op.scale,))),
    (dropped, "the mask is turned around", dropout.Dropout,
     dict(backward=lambda right, op, gy: (gy * op.scale - right(op, gy)[0],))),
    (dropped, "p is taken for the probability to stay", F,
     dict(dropout=lambda right, x, p, *options: right(x, 1 - p, *options))),

    (exchanged, "what the other tower sends back is lost", exchange.To,
     dict(backward=lambda right, op, gy: (0 * gy,))),
    (exchanged, "what the other tower sends back counts twice", exchange.To,
     dict(backward=lambda right, op, gy: (2 * right(op, gy)[0],))),
    (exchanged, "each tower gets the other one's gradient", shape.Concatenate,
     dict(backward=lambda right, op, gy: right(op, gy)[::-1])),
    (exchanged, "tower 1 comes first", F,
     dict(exchange=lambda right, parts, axis=1, to=None: right(parts, axis, to) if to else
          right(parts[::-1], axis)[::-1])),

    (conv_plain, "col2im writes '=' for '+='", conv.Conv2d, dict(backward=overwritten)),
    (conv_plain, "col2im ignores the stride", conv,
     dict(col2im=lambda right, xp, cols, to, stride, pads: right(xp, cols, to, (1, 1), pads))),
    (conv_plain, "col2im does not crop the padding", conv,
     dict(col2im=lambda right, xp, cols, to, stride, pads: right(
         xp, cols, to, stride, ((0, 0), (0, 0))))),
    (conv_plain, "col2im mirrors the window", conv,
     dict(col2im=lambda right, xp, cols, *rest: right(xp, cols[:, :, ::-1, ::-1], *rest))),
    (conv_plain, "top and bottom padding are swapped", conv.Conv2d,
     dict(__init__=lambda right, op, stride, pads, *rest: right(
         op, stride, tuple(side[::-1] for side in pads), *rest))),
    (conv_in_groups, "the groups' filters are swapped", conv.Conv2d,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], in_groups(
         right(op, gy)[1], lambda gw: gw[::-1]), right(op, gy)[2]))),
    (conv_in_groups, "each group's filters are transposed", conv.Conv2d,
     dict(backward=lambda right, op, gy: (right(op, gy)[0], in_groups(
         right(op, gy)[1], lambda gw: gw.swapaxes(1, 2)), right(op, gy)[2]))),
    (conv_in_groups, "dL/db is summed over filters, not over columns", conv.Conv2d,
     dict(backward=lambda right, op, gy: (*right(op, gy)[:2], gy.sum(axis=(0, 1, 2))))),
    (conv_in_groups, "dL/db is the mean over each map", conv.Conv2d,
     dict(backward=lambda right, op, gy: (*right(op, gy)[:2], gy.mean(axis=(2, 3)).sum(axis=0)))),
    (conv_in_groups, "only the first picture teaches the filters", conv_fast,
     dict(backward=lambda right, op, x, w, gy: (right(op, x, w, gy)[0], right(
         op, x[:1], w, gy[:1])[1], right(op, x, w, gy)[2]))),
    (conv_in_groups, "the scattered windows are shifted by one", conv_fast,
     dict(backward=lambda right, op, x, w, gy: (
         np.roll(right(op, x, w, gy)[0], 1, axis=3), *right(op, x, w, gy)[1:]))),
    (conv_turned, "the filters are not turned", conv_fast,
     dict(backward=lambda right, op, x, w, gy: (right(
         op, x, w[:, :, ::-1, ::-1], gy)[0], *right(op, x, w, gy)[1:]))),
    (conv_turned, "dL/dw comes out turned", conv_fast,
     dict(backward=lambda right, op, x, w, gy: (right(op, x, w, gy)[0], right(
         op, x, w, gy)[1][:, :, ::-1, ::-1], right(op, x, w, gy)[2]))),
    (conv_turned, "the filters are turned in forward, too", conv_fast,
     dict(forward=lambda right, op, x, w, b: right(op, x, w[:, :, ::-1, ::-1], b))),

    *[(conv_in_tiles, f"one number of {name} is wrong", winograd,
       dict(matrices=lambda right, *size, at=at: wrong_entry(right(*size), *at)))
      for name, at in [("A^T", (0, 1, 2)), ("G", (1, 3, 2)), ("B^T", (2, 1, 4)),
                       ("B^T, at infinity", (2, 6, 6))]],
    (conv_in_tiles, "the tiles are shifted by one column", winograd,
     dict(rows=lambda right, device, pixels, *rest: right(
         device, np.roll(pixels, 1, axis=2), *rest))),
    (conv_in_tiles, "the rows of the filter are upside down", winograd,
     dict(filters=lambda right, w, G: right(w[:, :, ::-1], G))),
    (conv_in_tiles, "the last tile is forgotten where it is cut off", winograd,
     dict(outputs=lambda right, device, products, A_t, out, b=None: cut_off(
         out, right(device, products, A_t, out, b) or out.shape[2] // len(A_t) * len(A_t)))),
    (conv_in_tiles, "the bias reaches every point, not every output", winograd,
     dict(outputs=lambda right, device, products, A_t, out, b=None: right(
         device, products + (0 if b is None else b), A_t, out))),
    (conv_in_tiles, "a tile that is cut off sends back what stood there before", winograd,
     dict(outputs_adjoint=lambda right, device, maps, A_t: right(device, np.pad(
         maps, [(0, 0), (0, 0), (0, -maps.shape[2] % len(A_t)), (0, 0)], "edge"), A_t))),
    (conv_in_tiles, "dL/dw comes out with rows and columns swapped", winograd,
     dict(filters_adjoint=lambda right, *args: right(*args).swapaxes(2, 3))),
    (conv_in_tiles, "dL/dw comes out with filters and channels swapped", winograd,
     dict(filters_adjoint=lambda right, *args: right(*args).swapaxes(0, 1))),
    (conv_in_tiles, "backward starts its windows where forward does", conv_fast,
     dict(slide=lambda right, device, x, w, b, out, padding, partner=None: right(
         device, x, w, b, out, ((0, 2), (2, 1)), partner))),
    (conv_in_tiles, "only the first rows teach the filters", conv_fast,
     dict(slide=lambda right, device, x, w, b, out, padding, partner=None: right(
         device, x, w, b, out, padding, partner if partner is None else np.where(
             np.arange(partner.shape[2])[:, None] < 2, partner, 0)))),

    (max_pool, "overlapping windows write '=' for '+='", pool.MaxPool2d,
     dict(backward=overwritten)),
    (max_pool, "the padding is not cropped", pool.MaxPool2d,
     dict(backward=lambda right, op, gy: (np.roll(right(op, gy)[0], (1, 1), (2, 3)),))),
    (max_pool, "every pixel of the window is paid", pool.MaxPool2d,
     dict(backward=lambda right, op, gy: (
         sum(np.roll(right(op, gy)[0], i, 3) for i in (-1, 0, 1)),))),
    (max_pool_of_negatives, "the padding is 0 and wins", pool.MaxPool2d,
     dict(forward=lambda right, op, x: np.maximum(right(op, x), 0))),
    (tied_pixels, "the last maximum wins", pool.MaxPool2d,
     dict(forward=lambda right, op, x: upside_down(right(op, upside_down(x))),
          backward=lambda right, op, gy: (upside_down(right(op, upside_down(gy))[0]),))),
    (tied_pixels, "every tie takes the whole gradient", pool.MaxPool2d,
     dict(forward=lambda right, op, x: pool.MaxPool2dTies.forward(op, x),
          backward=lambda right, op, gy: pool.MaxPool2dTies.backward(op, gy))),
    (tied_pixels_of_the_source, "one tie alone takes the gradient", pool.MaxPool2dTies,
     dict(forward=lambda right, op, x: pool.MaxPool2d.forward(op, x),
          backward=lambda right, op, gy: pool.MaxPool2d.backward(op, gy))),
    (tied_pixels_of_the_source, "overlapping windows write '=' for '+='", pool.MaxPool2dTies,
     dict(backward=overwritten)),
    (avg_pool, "clipped windows are divided by K K", pool.AvgPool2d,
     dict(inside=lambda right, op, *rest: 0 * right(op, *rest) + np.prod(op.kernel))),
    (avg_pool, "overlapping windows write '=' for '+='", pool.AvgPool2d,
     dict(backward=overwritten)),
    (avg_pool, "the gradient is not divided", pool.AvgPool2d,
     dict(backward=lambda right, op, gy: right(
         op, gy * op.inside(op.shapes[0], gy.shape[2:], gy.dtype)))),

    (norm, "the cross term is dropped", lrn.LocalResponseNorm,
     dict(backward=lambda right, op, gy: with_other(op, right, gy, a=0))),
    (norm, "the factor 2 of the square is forgotten", lrn.LocalResponseNorm,
     dict(backward=lambda right, op, gy: with_other(op, right, gy, a=op.a / 2))),
    (norm, "alpha is divided in forward, not in backward", lrn.LocalResponseNorm,
     dict(backward=lambda right, op, gy: with_other(op, right, gy, a=op.a * op.size))),
    (norm, "the window is one short, as in a well-known test's oracle", lrn,
     dict(band=lambda right, xp, n, size, dtype: right(xp, n, size - 1, dtype))),
    (norm, "the divisor shrinks with the clipped window", lrn,
     dict(band=lambda right, xp, n, size, dtype: right(xp, n, size, dtype)
          * size / right(xp, n, size, dtype).sum(axis=0))),
    (norm_as_printed, "alpha is divided all the same", lrn.LocalResponseNorm,
     dict(__init__=lambda right, op, *options: right(op, *options[:-1], True))),
    (norm_of_even_size, "backward sums over the window of c, not over those that hold c",
     lrn.LocalResponseNorm,
     dict(backward=lambda right, op, gy: with_other(op, right, gy, bands=[b.T for b in op.bands]))),
    (spatial_norm, "alpha / size and not alpha / size^2", lrn.SpatialResponseNorm,
     dict(__init__=lambda right, op, size, alpha, *rest: right(op, size, alpha * size, *rest))),
    (spatial_norm, "the cross term is dropped", lrn.SpatialResponseNorm,
     dict(backward=lambda right, op, gy: with_other(op, right, gy, a=0))),
    (spatial_norm_of_even_size, "backward's windows are those of forward", lrn.SpatialResponseNorm,
     dict(backward=lambda right, op, gy: with_other(
         op, right, gy, bands=tuple(b.T for b in op.bands)))),
]
by_mutant = pytest.mark.parametrize("check, owner, wrong", [
    pytest.param(check, owner, wrong, id=f"{check.__name__}: {what}")
    for check, what, owner, wrong in MUTANTS])
CHECKS = list(dict.fromkeys(check for check, *_ in MUTANTS))


# ---------------------------------------------------------------------------- the tests

@contextlib.contextmanager
def planted(owner, wrong):
    """Put the wrong functions in the place of the right ones."""
    with contextlib.ExitStack() as stack:
        for name, function in wrong.items():
            bug = bound(function, getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, bug))
        yield


def bound(function, right):
    def bug(*args, **options):
        return function(right, *args, **options)
    return bug


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_op_as_it_is_passes(check):
    check()


@by_mutant
def test_the_bug_is_found(check, owner, wrong):
    with planted(owner, wrong), pytest.raises(AssertionError):
        check()


@by_mutant
def test_planting_alone_does_no_harm(check, owner, wrong):
    """With the right function planted in its own place the check passes."""
    with planted(owner, {name: lambda right, *args, **options: right(*args, **options)
                         for name in wrong}):
        check()


def test_every_op_has_its_saboteur():
    every = {op for family in vars(ops).values() if inspect.ismodule(family)
             for _, op in inspect.getmembers(family, inspect.isclass)
             if issubclass(op, ta.Function) and hasattr(op, "backward")}
    assert len(every) > 25 and {conv.Conv2d, lrn.LocalResponseNorm, exchange.To} < every
    assert every <= {owner for _, _, owner, _ in MUTANTS}, "an op without a mutant"
