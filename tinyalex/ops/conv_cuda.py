"""Conv2d on a GPU: the sums of conv.py, one matrix product for many images at once.

* The columns of a piece of the batch stand side by side, and one product with the filters does them
  all. A product for each image would be too small to fill a card: 13x13 maps have 169 columns.
* A piece is as many images as COLUMNS allows, a multiple of ALIGNED: the rows of all matrices then
  begin at addresses from which a card reads and writes at its full rate (a 13x13 map has an odd
  number of pixels). Columns are made again in backward: to keep them would take 17 MB an image.
* Outputs leave the product as rows, one for each filter. The pass that puts them into the order of
  maps adds the bias and, where asked for, cuts off what is below zero.
"""
from ..kernels import launch
from .arithmetic import in_order

COLUMNS = 1 << 26    # elements of a piece: 256 MiB of float32 (benchmarks/gpu.py varies it)
ALIGNED = 8          # images: 32 bytes of float32, whatever the size of a map
TAPS = 9             # pixels that a thread of im2col copies, about


def forward(op, x, w, b):
    """Return y (N, K, OH, OW); see Conv2d.forward."""
    matmul, x, b = op.xp.matmul, in_order(x), b if b is None else in_order(b)
    filters = in_order(w).reshape(op.groups, len(w) // op.groups, -1)  # (G, K/G, C/G*KH*KW)
    y = op.device.empty((len(x), len(w), *op.out), x.dtype)
    for some in _pieces(op, w, len(x)):
        x_, y_ = x[some], y[some]
        M = y_[0, 0].size                                              # OH*OW
        rows = op.device.empty((*filters.shape[:2], len(x_) * M), x.dtype)  # (G, K/G, n*OH*OW)
        for g in range(op.groups):
            matmul(filters[g], _columns(op, x_, w, g), out=rows[g])
        launch(op.device, "bias.bias_relu", y_.size, rows, b, y_, len(w), M, M, len(x_) * M,
               op.relu)
    return y


def backward(op, x, w, gy):
    """Return gx, gw, gb; see Conv2d.backward."""
    want_x, want_w, want_b = op.needs_grad
    matmul, x, gy = op.xp.matmul, in_order(x), in_order(gy)
    filters = in_order(w).reshape(op.groups, len(w) // op.groups, -1)  # (G, K/G, C/G*KH*KW)
    gx = op.device.empty(x.shape, x.dtype) if want_x else None
    gws, gbs = [], []
    for some in _pieces(op, w, len(x)):
        x_, gy_ = x[some], gy[some]
        M = gy_[0, 0].size
        rows = op.device.empty((*filters.shape[:2], len(x_) * M), x.dtype)  # (G, K/G, n*OH*OW)
        launch(op.device, "bias.to_rows", rows.size, gy_, rows, len(x_), len(w), M)
        if want_b:
            gbs.append(rows.sum(axis=2).reshape(len(w)))
        gw = op.device.empty(filters.shape, w.dtype) if want_w else None
        for g in range(op.groups):
            if want_w:
                cols = _columns(op, x_, w, g)                          # (C/G*KH*KW, n*OH*OW)
                matmul(rows[g], cols.T, out=gw[g])
                del cols                                               # the next takes its memory
            if want_x:
                _add_columns(op, matmul(filters[g].T, rows[g]), gx[some], w, g)
        gws.append(gw)
    gw = sum(gws[1:], gws[0]).reshape(w.shape) if want_w else None     # piece by piece, in order
    return gx, gw, sum(gbs[1:], gbs[0]) if want_b else None


def _pieces(op, w, n):
    """Yield slices of as many of `n` images as COLUMNS allows, at least one."""
    step = max(1, COLUMNS // (w[0].size * op.out[0] * op.out[1]))
    step -= step % ALIGNED if step > ALIGNED else 0
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _columns(op, x, w, g):
    """Return the columns (C/G*KH*KW, n*OH*OW) of the channels of group `g`."""
    C, windows = w.shape[1], len(x) * op.out[0] * op.out[1]
    cols = op.device.empty((w[0].size, windows), x.dtype)
    rows = max(1, TAPS // op.kernel[1])                                # of a window, for a thread
    launch(op.device, "im2col.im2col", C * -(-op.kernel[0] // rows) * windows, x, cols, g * C,
           *_geometry(op, x), rows)
    return cols


def _add_columns(op, cols, gx, w, g):
    """Write the sums of `cols` to the channels of group `g` of `gx` (n, C, H, W)."""
    n = gx[:, 0].size * w.shape[1]
    launch(op.device, "im2col.col2im", n, cols, gx, g * w.shape[1], *_geometry(op, gx))


def _geometry(op, x):
    """Return N C H W, KH KW, OH OW, the strides, and the padding above and to the left."""
    return (*x.shape, *op.kernel, *op.out, *op.stride, op.padding[0][0], op.padding[1][0])
