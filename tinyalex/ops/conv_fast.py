"""Conv2d on a CPU, fast: the sums of conv.py, blocked for the cache, channels last.

What differs from the lesson, and why:

* A window is a row (KH, KW, C) of channels-last memory instead of a column: KW * C neighbors
  are then one stretch of memory, and one strided copy writes all rows of a block.
* Rows are made for a block of images, or of output rows, that fits the second-level cache, and made
  again in backward: storing them would cost 7 MB an image for conv2 alone.
* For stride 1 the rows of the padded dL/dy serve both gradients: dL/dx is a convolution of dL/dy
  with the turned filters, and dL/dw pairs the same rows with x. No col2im.
"""
import numpy as np
from numpy.lib.stride_tricks import as_strided

from .geometry import taps

BLOCK = 1 << 19      # elements of a block's rows: 2 MiB in float32, a usual L2 cache


def forward(op, x, w, b):
    """Return y (N, K, OH, OW); see Conv2d.forward."""
    device, G, (KH, KW), (OH, OW) = op.device, op.groups, op.kernel, op.out
    N, C, H, W = x.shape
    K = len(w)
    y = device.empty((N, K, OH, OW), x.dtype)
    rows_y = y.transpose(0, 2, 3, 1)                              # (N, OH, OW, K): a view
    filters = _filters(w, G)                                      # (G, KH*KW*C/G, K/G)

    def lane(images):
        for n, o in _blocks(images, OH, OW * KH * KW * C):
            for g, rows in enumerate(_rows(op, x, n, o)):         # (n*o*OW, KH*KW*C/G)
                out = rows_y[n, o]                                # (n, o, OW, K)
                if G == 1:
                    np.matmul(rows, filters[0], out=out.reshape(-1, K))
                else:
                    part = device.scratch("conv.y", (len(rows), K // G), x.dtype)
                    np.matmul(rows, filters[g], out=part)
                    out[..., g * (K // G):(g + 1) * (K // G)] = part.reshape(
                        out.shape[:3] + (K // G,))
            if b is not None:
                rows_y[n, o] += b                                 # while the block is in the cache

    device.map(N, lane, work=2 * OH * OW * KH * KW * (C // G) * K)
    return y


def backward(op, x, w, gy):
    """Return gx, gw, gb; see Conv2d.backward."""
    device, G, (KH, KW), (OH, OW) = op.device, op.groups, op.kernel, op.out
    N, C, H, W = x.shape
    K, c = len(w), C // G
    want_x, want_w, want_b = op.needs_grad
    # turned filters pay where dL/dy has no more channels than x: else its rows cost too much
    turned = want_x and op.stride == (1, 1) and G == 1 and K <= C
    gx = (device.empty if turned else device.zeros)(x.shape, x.dtype) if want_x else None
    pixels_x = gx.transpose(0, 2, 3, 1) if want_x else None       # (N, H, W, C): a view
    filters = (_filters(w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), 1) if turned  # (1, KH*KW*K, C)
               else _filters(w, G))                                              # see forward

    def lane(images):
        gw = np.zeros(filters.shape, x.dtype) if want_w else None
        gb = np.zeros(K, x.dtype) if want_b else None
        part = turned_lane if turned else columns_lane
        part(images, gw, gb)
        return gw, gb

    def columns_lane(images, gw, gb):
        for n, o in _blocks(images, OH, OW * KH * KW * C):
            g_rows = _last(gy, n)[:, o]                           # (n, o, OW, K)
            if want_b:
                gb += g_rows.reshape(-1, K).sum(axis=0)
            for g, rows in enumerate(_rows(op, x, n, o)):         # (n*o*OW, KH*KW*C/G)
                slab = slice(g * (K // G), (g + 1) * (K // G))
                g_part = g_rows[..., slab].reshape(-1, K // G)    # (n*o*OW, K/G)
                if want_w:
                    gw[g] += np.matmul(rows.T, g_part)            # (KH*KW*C/G, K/G)
                if want_x:
                    g_rows_x = np.matmul(g_part, filters[g].T, out=rows)
                    _scatter(op, g_rows_x, pixels_x[..., g * c:(g + 1) * c], n, o)

    def turned_lane(images, gw, gb):
        for n, h in _blocks(images, H, W * KH * KW * K):
            rows = _turned_rows(op, gy, W, n, h)                  # (n*h*W, KH*KW*K)
            np.matmul(rows, filters[0], out=pixels_x[n, h].reshape(-1, C))
            if want_b and h.start == 0:
                gb += _last(gy, n).reshape(-1, K).sum(axis=0)
            if want_w:
                gw[0] += np.matmul(rows.T, _last(x, n)[:, h].reshape(-1, C))

    parts = device.map(N, lane, work=4 * OH * OW * KH * KW * (C // G) * K)
    gw = sum(gw for gw, _ in parts) if want_w else None           # lane by lane, in order
    gb = sum(gb for _, gb in parts) if want_b else None
    if want_w and turned:                                         # (KH*KW*K, C), taps turned
        gw = gw.reshape(KH, KW, K, C)[::-1, ::-1].transpose(2, 3, 0, 1)
    elif want_w:                                                  # (G, KH*KW*C/G, K/G)
        gw = gw.reshape(G, KH, KW, C // G, K // G).transpose(0, 4, 3, 1, 2).reshape(w.shape)
    return gx, None if gw is None else np.ascontiguousarray(gw), gb


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
    out = device.scratch("conv.pixels", (n, h.stop - h.start, w.stop - w.start, C), a.dtype)
    out[...] = 0
    h0, w0 = max(h.start, 0), max(w.start, 0)
    h1, w1 = max(min(h.stop, H), h0), max(min(w.stop, W), w0)       # nothing, where all is outside
    out[:, h0 - h.start:h1 - h.start, w0 - w.start:w1 - w.start] = inner[:, h0:h1, w0:w1]
    return out


def _windows(device, pixels, kernel, stride, out, channels):
    """Copy each window of `pixels` (n, H', W', C) into a row: (n*OH*OW, KH*KW*channels)."""
    sn, sh, sw, sc = pixels.strides
    view = as_strided(pixels[..., channels],
                      (len(pixels), *out, *kernel, channels.stop - channels.start),
                      (sn, sh * stride[0], sw * stride[1], sh, sw, sc), writeable=False)
    rows = device.scratch("conv.rows", view.shape, pixels.dtype)    # (n, OH, OW, KH, KW, c)
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


def _turned_rows(op, gy, W, n, h):
    """Return the windows of dL/dy that meet pixel rows `h`: (n*h*W, KH*KW*K), stride 1."""
    KH, KW = op.kernel
    top, left = op.padding[0][0] - (KH - 1), op.padding[1][0] - (KW - 1)
    pixels = _cutout(op.device, gy, n, slice(h.start + top, h.stop + top + KH - 1),
                     slice(left, W + left + KW - 1))                # (n, h + KH - 1, W + KW - 1, K)
    return _windows(op.device, pixels, op.kernel, (1, 1), (h.stop - h.start, W),
                    slice(0, gy.shape[1]))


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
