"""Conv2d on a CPU, fast: the sums of conv.py, blocked for the cache, channels last.

What differs from the lesson, and why:

* A window is a row (KH, KW, C) of channels-last memory instead of a column: KW * C neighbors
  are then one stretch of memory, and one strided copy writes all rows of a block.
* Rows are made for a block of images, or of output rows, that fits the cache, and made again in
  backward: storing them would cost 7 MB an image for conv2 alone.
* At stride 1 a row of outputs needs fewer products than it has taps: see winograd.py. And dL/dx is
  then a convolution of dL/dy with the turned filters, whose windows serve dL/dw as well.
"""
import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import winograd
from .geometry import taps

BLOCK = 1 << 20      # elements of a block's rows: 4 MiB in float32
SMALL = 10**6        # multiplications up to which OpenBLAS takes matrices as they lie, unpacked
CHANNELS = 8         # fewer, and winograd.py's transforms cost more than its products save


def forward(op, x, w, b):
    """Return y (N, K, OH, OW); see Conv2d.forward."""
    y = op.device.empty((len(x), len(w), *op.out), x.dtype)
    pixels_y = y.transpose(0, 2, 3, 1)                            # (N, OH, OW, K): a view
    lane = (slide(op.device, x, w, b, pixels_y, op.padding) if _slides(op, x)
            else multiply(op, x, w, b, pixels_y))
    op.device.map(len(x), lane, work=_work(op, w))
    return op.device.each(lambda y, x: np.maximum(x, 0, out=y), y, y) if op.relu else y


def backward(op, x, w, gy):
    """Return gx, gw, gb; see Conv2d.backward."""
    want_x, want_w, want_b = op.needs_grad
    gx = op.device.empty(x.shape, x.dtype) if want_x else None
    pixels_x = gx.transpose(0, 2, 3, 1) if want_x else None       # (N, H, W, C): a view
    turned = _slides(op, x) and want_x
    if turned:       # dL/dw[k,c,i,j] pairs x with dL/dy as dL/dx does, the taps in reverse
        (top, _), (left, _) = op.padding
        pads = (op.kernel[0] - 1 - top, 0), (op.kernel[1] - 1 - left, 0)
        part = slide(op.device, gy, _turn(w), None, pixels_x, pads, x if want_w else None)
    elif _slides(op, x) and want_w:
        part = slide(op.device, x, w, None, None, op.padding, gy)
    else:
        part = multiply_adjoint(op, x, w, gy, pixels_x)

    def lane(images):
        g = _last(gy, images).reshape(-1, len(w))                 # (n*OH*OW, K)
        return part(images), np.ones(len(g), g.dtype) @ g if want_b else None

    gws, gbs = zip(*op.device.map(len(x), lane, work=2 * _work(op, w)), strict=True)
    gw = sum(gws) if want_w else None                             # lane by lane, in order
    if want_w:
        gw = np.ascontiguousarray(_turn(gw) if turned else gw)
    return gx, gw, sum(gbs) if want_b else None


def slide(device, x, w, b, out, padding, partner=None):
    """Return what a thread does with its images: slide `w` over `x` as winograd.py does.

    Parameters
    ----------
    x, w, b : arrays (N, C, H, W), (K, C, KH, KW), (K,) or None
    out : array (N, OH, OW, K) or None
        Where the outputs go.
    padding : ((top, _), (left, _))
        Where the first window starts; below 0 inside the picture.
    partner : array (N, K, OH, OW), optional
        The gradient of such outputs: then the thread returns its share of dL/dw.
    """
    (K, C, KH, KW), (top, _), (left, _) = w.shape, *padding
    OH, OW = out.shape[1:3] if partner is None else partner.shape[2:]
    m = winograd.tile(OW, KW)
    A_t, G, B_t = winograd.matrices(m, KW, w.dtype)
    a, T = len(G), -(-OW // m)
    (filters,) = device.map(1, lambda _: winograd.filters(w, G))    # (a, KH*C, K), on one thread

    def lane(images):
        gw = None
        for n, o in _blocks(images, OH, a * T * KH * C):
            pixels = _cutout(device, x, n, slice(o.start - top, o.stop - top + KH - 1),
                             slice(-left, m * T + KW - 1 - left))   # (n, o+KH-1, m*T+KW-1, C)
            rows = winograd.rows(device, pixels, B_t, m, KH)        # (a, n*T*o, KH*C)
            if out is not None:
                products = device.scratch("winograd.products", (*rows.shape[:2], K), x.dtype)
                np.matmul(rows, filters, out=products)
                winograd.outputs(device, products, A_t, out[n, o], b)
            if partner is not None:
                g = winograd.outputs_adjoint(device, _last(partner, n)[:, o], A_t)
                gw = _add_product(device, gw, rows.transpose(0, 2, 1), g)    # (a, KH*C, K)
        return None if partner is None else winograd.filters_adjoint(gw, G, w.shape)

    return lane


def multiply(op, x, w, b, out):
    """Return what a thread does with its images in forward: rows times filters, to `out`."""
    device, G, (KH, KW), (OH, OW) = op.device, op.groups, op.kernel, op.out
    K, filters = len(w), _filters(w, op.groups)                   # (G, KH*KW*C/G, K/G)

    def lane(images):
        for n, o in _blocks(images, OH, OW * KH * KW * x.shape[1]):
            to = out[n, o]                                        # (n, o, OW, K)
            for g, rows in enumerate(_rows(op, x, n, o)):         # (n*o*OW, KH*KW*C/G)
                if G == 1:
                    m = OW if OW * filters[0].size <= SMALL else len(rows)
                    np.matmul(rows.reshape(-1, m, len(filters[0])), filters[0],
                              out=to.reshape(-1, m, K))           # (n*o*OW/m, m, K)
                else:
                    part = device.scratch("conv.y", (len(rows), K // G), x.dtype)
                    np.matmul(rows, filters[g], out=part)
                    to[..., g * (K // G):(g + 1) * (K // G)] = part.reshape(
                        to.shape[:3] + (K // G,))
            if b is not None:
                to += b                                           # while the block is in the cache

    return lane


def multiply_adjoint(op, x, w, gy, pixels_x):
    """Return what a thread does with its images in backward: dL/dx to `pixels_x`, a share of dL/dw.

    The derivation is that of conv.py, its matrices transposed.
    """
    device, G, (KH, KW), (OH, OW) = op.device, op.groups, op.kernel, op.out
    want_x, want_w, _ = op.needs_grad
    (K, c), filters = w.shape[:2], _filters(w, op.groups)         # (G, KH*KW*C/G, K/G)

    def lane(images):
        gws = [None] * G
        if want_x:
            pixels_x[images] = 0
        for n, o in _blocks(images, OH, OW * KH * KW * x.shape[1]):
            g_rows = _last(gy, n)[:, o]                           # (n, o, OW, K)
            for g, rows in enumerate(_rows(op, x, n, o)):         # (n*o*OW, KH*KW*C/G)
                slab = slice(g * (K // G), (g + 1) * (K // G))
                g_part = g_rows[..., slab].reshape(-1, K // G)    # (n*o*OW, K/G)
                if want_w:
                    gws[g] = _add_product(device, gws[g], rows.T, g_part)  # (KH*KW*C/G, K/G)
                if want_x:
                    g_rows_x = np.matmul(g_part, filters[g].T, out=rows)
                    _scatter(op, g_rows_x, pixels_x[..., g * c:(g + 1) * c], n, o)
        if want_w:
            gw = np.stack(gws).reshape(G, KH, KW, c, K // G)
            return gw.transpose(0, 4, 3, 1, 2).reshape(w.shape)

    return lane


def _slides(op, x):
    """Whether winograd.py applies, and pays: few points do for few taps, and many channels share
    the cost of the transforms."""
    return (op.stride == (1, 1) and op.groups == 1 and 2 <= op.kernel[1] <= 5
            and x.shape[1] >= CHANNELS)


def _work(op, w):
    """Return the operations that one image costs, counted the plain way."""
    return 2 * op.out[0] * op.out[1] * w.size


def _turn(w):
    """(K, C, KH, KW) -> (C, K, KH, KW), each filter turned by half a turn."""
    return w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)


def _add_product(device, total, a, b):
    """Return `total` + a b, added in place; a b alone where there is no total yet."""
    if total is None:
        return np.matmul(a, b)
    total += np.matmul(a, b, out=device.scratch("conv.product", total.shape, total.dtype))
    return total


def _filters(w, G):
    """(K, C/G, KH, KW) -> (G, KH*KW*C/G, K/G), ready to multiply rows from the right."""
    K, c, KH, KW = w.shape
    return np.ascontiguousarray(
        w.reshape(G, K // G, c, KH, KW).transpose(0, 3, 4, 2, 1)).reshape(G, KH * KW * c, K // G)


def _last(a, images):
    """Return some images as a contiguous (n, H, W, C) array; a view where they lie so already."""
    return np.ascontiguousarray(a[images].transpose(0, 2, 3, 1))


def _blocks(images, height, row):
    """Cut a lane into blocks whose rows hold about BLOCK elements: several images, or a part of
    one, `row` being the elements that one row of outputs costs. Yields slices (images, rows)."""
    per_image = height * row
    if per_image <= BLOCK:
        step = max(1, BLOCK // per_image)
        for n in range(images.start, images.stop, step):
            yield slice(n, min(n + step, images.stop)), slice(0, height)
        return
    parts = -(-per_image // BLOCK)
    step = -(-height // parts)
    for n in range(images.start, images.stop):
        for o in range(0, height, step):
            yield slice(n, n + 1), slice(o, min(o + step, height))


def _cutout(device, a, images, h, w):
    """Return rows `h` and columns `w` of some images, (n, h, w, C), zeros outside the picture.

    A view where the cutout lies inside; else a padded copy in scratch.
    """
    inner = _last(a, images)
    n, H, W, C = inner.shape
    if h.start >= 0 and w.start >= 0 and h.stop <= H and w.stop <= W:
        return inner[:, h, w]
    out = device.scratch("conv.pixels", (n, C, h.stop - h.start, w.stop - w.start), a.dtype)
    out = out.transpose(0, 2, 3, 1)                                 # (n, h, w, C)
    out[...] = 0
    h0, w0 = max(h.start, 0), max(w.start, 0)
    h1, w1 = max(min(h.stop, H), h0), max(min(w.stop, W), w0)       # nothing, where all is outside
    out[:, h0 - h.start:h1 - h.start, w0 - w.start:w1 - w.start] = inner[:, h0:h1, w0:w1]
    return out


def _windows(device, pixels, kernel, stride, out, channels):
    """Copy each window of `pixels` (n, H', W', C) into a row: (n*OH*OW, KH*KW*channels)."""
    (sn, sh, sw, sc), (KH, KW), c = pixels.strides, kernel, channels.stop - channels.start
    row, steps = (KH, KW, c), (sh, sw, sc)
    if sw == c * sc:                        # one stretch of KW*C neighbors: copied twice as fast
        row, steps = (KH, KW * c), (sh, sc)
    view = as_strided(pixels[..., channels], (len(pixels), *out, *row),
                      (sn, sh * stride[0], sw * stride[1], *steps), writeable=False)
    rows = device.scratch("conv.rows", view.shape, pixels.dtype)    # (n, OH, OW, KH, KW*c)
    np.copyto(rows, view)
    return rows.reshape(len(pixels) * out[0] * out[1], -1)


def _rows(op, x, n, o):
    """Yield, group by group, the windows of outputs `o` of images `n`: (n*o*OW, KH*KW*C/G)."""
    (SH, SW), (KH, KW), OW = op.stride, op.kernel, op.out[1]
    top, left, c = op.padding[0][0], op.padding[1][0], x.shape[1] // op.groups
    pixels = _cutout(op.device, x, n, slice(o.start * SH - top, (o.stop - 1) * SH + KH - top),
                     slice(-left, (OW - 1) * SW + KW - left))       # (n, h, w, C)
    for g in range(op.groups):
        yield _windows(op.device, pixels, op.kernel, op.stride, (o.stop - o.start, OW),
                       slice(g * c, g * c + c))


def _scatter(op, rows, gx, n, o):
    """Add the gradient of each window to its pixels: col2im. `gx` is (n, H, W, C/G), zero first."""
    (SH, SW), (KH, KW), OW = op.stride, op.kernel, op.out[1]
    _, H, W, c = gx.shape
    rows = rows.reshape(-1, o.stop - o.start, OW, KH, KW, c)
    for i in range(KH):
        a, h = taps(H, o.stop - o.start, i, SH, op.padding[0][0] - o.start * SH)
        for j in range(KW):
            p, w = taps(W, OW, j, SW, op.padding[1][0])
            gx[n, h, w] += rows[:, a, p, i, j]
