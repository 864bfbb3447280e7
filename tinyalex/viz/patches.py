"""Windows over a small picture: as columns of a matrix, and as roads back for gradients."""

import numpy as np

from tinyalex.ops.conv import im2col
from tinyalex.ops.geometry import pair, sides, windows
from tinyalex.viz import cells, style

CELL, SMALLEST, WIDE = 0.34, 0.2, 12.0  # inches of a cell, at least, and of a page at most
MOST = 4096                             # cells of the matrix
PANELS = 25                             # windows that pool_map draws
MARGIN, HEAD, LABEL = 0.3, 0.38, 0.28


def unroll(picture, kernel, stride=1, padding=0, w=None, window=0, title=None):
    """Draw a picture beside the matrix that im2col makes of it: each window is a column.

    A pixel has one color wherever it stands, and its value is written in it; padding is hatched.
    One window is framed in both.

    Parameters
    ----------
    picture : array, shape (H, W) or (C, H, W)
        Small: its values are written out. Several channels stand under each other.
    kernel, stride : int or (int, int)
    padding : int, (ph, pw) or ((top, bottom), (left, right))
    w : array, shape (KH, KW) or (K, C, KH, KW), optional
        Filters, drawn as the rows that multiply the matrix, with the product beside it.
    window : int
        Which window is framed, counted row by row.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    ValueError
        A shape or a geometry that does not fit, or a matrix of more than 4,096 cells.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> viz.unroll(np.arange(16).reshape(4, 4), 3).alt_text
    'A picture of 1 × 4 × 4 pixels, and its 4 windows of 3 × 3 as the columns of a 9 × 4 matrix.'
    """
    x = style.as_floats(picture, "picture")
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"picture must have shape (H, W) or (C, H, W), found {np.shape(picture)}")
    kernel, stride, pad = pair("kernel", kernel, 1), pair("stride", stride, 1), sides(padding)
    (C, H, W), out = x.shape, tuple(windows(x.shape[1 + i], kernel[i], stride[i], *pad[i], False)
                                    for i in (0, 1))
    if min(out) < 1:
        raise ValueError(f"kernel {kernel} is larger than the padded picture of {H} × {W}")
    columns = out[0] * out[1]
    rows = C * kernel[0] * kernel[1]
    if rows * columns > MOST:
        raise ValueError(f"the matrix has {rows} × {columns} cells, more than {MOST:,}: take a "
                         "smaller picture or a larger stride")
    if not 0 <= window < columns:
        raise ValueError(f"window must be 0 to {columns - 1}, found {window}")
    number = np.arange(1.0, x.size + 1).reshape(1, *x.shape)          # 0 stays for the padding
    matrix = im2col(np, number, kernel, stride, pad, out).astype(int).reshape(rows, columns)
    values, padded = np.append(0.0, x.ravel()), np.pad(number[0], ((0, 0), *pad)).astype(int)
    filters, product = _filters(w, kernel, C, values[matrix])

    count = len(filters) if w is not None else 0
    cols_wide = columns + (rows + 1.5) * bool(count)
    left_wide = padded.shape[2] + 1.5
    cell = max(SMALLEST, min(CELL, (WIDE - 2 * MARGIN) / (left_wide + cols_wide)))
    tall = max(C * (padded.shape[1] + 1) - 1, rows + (count + 1.5 if count else 0)) * cell
    width, height = (left_wide + cols_wide) * cell + 2 * MARGIN, tall + 2 * MARGIN + HEAD + LABEL
    alt = (f"A picture of {C} × {H} × {W} pixels, and its {columns} windows of {kernel[0]} × "
           f"{kernel[1]} as the columns of a {rows} × {columns} matrix"
           + (f", multiplied by {count} filters" if count else "") + ".")
    figure = style.new_figure(max(width, 4.5), height, f"{title}. {alt}" if title else alt)
    page = style.bare_axes(figure, 0, 0, max(width, 4.5), height, "inches")
    style.write(page, MARGIN, height - MARGIN, title or "Each window becomes a column", 12,
                weight="bold", va="top", gid="title")
    top = height - MARGIN - HEAD - LABEL
    cells.heading(page, MARGIN, top, "picture", padded.shape[2] * cell + cell)
    o, p = divmod(window, out[1])
    for c in range(C):
        low = top - c * (padded.shape[1] + 1) * cell
        cells.grid(page, MARGIN, low, cell, padded[c], values)
        cells.frame(page, MARGIN + p * stride[1] * cell, low - o * stride[0] * cell,
               kernel[1] * cell, kernel[0] * cell)
    left = MARGIN + left_wide * cell + (rows + 1.5) * cell * bool(count)
    cells.heading(page, left, top, f"cols, {rows} × {columns}", columns * cell + cell)
    cells.grid(page, left, top, cell, matrix, values)
    cells.frame(page, left + window * cell, top, cell, rows * cell)
    if count:
        low = top - (rows + 1.5) * cell
        cells.plain(page, left - (rows + 1.5) * cell, low, cell, filters)
        cells.plain(page, left, low, cell, product)
        cells.frame(page, left + window * cell, low, cell, count * cell)
        style.write(page, left - 0.75 * cell, low - count * cell / 2, "→", 10, ha="center",
                    va="center_baseline", gid="note")
        style.write(page, left - (rows + 1.5) * cell, low + 0.06, f"w, {count} × {rows}", 9,
                    weight="bold", va="bottom", gid="heading")
        style.write(page, left, low + 0.06, f"y = w cols, {count} × {columns}", 9, weight="bold",
                    va="bottom", gid="heading")
    return figure


def pool_map(picture, kernel_size=3, stride=2, gy=None, title=None):
    """Draw where each pooled gradient lands, window by window, and what that sums to.

    In each panel the window is framed and its largest pixel, the winner, is marked; of equals it
    is the first, row by row.  The last panel adds up dL/dx, and says where a pixel won more than
    once: there a gradient is added, and an assignment would lose one.

    Parameters
    ----------
    picture : array, shape (H, W)
    kernel_size, stride : int or (int, int)
    gy : array, shape (OH, OW), optional
        dL/dy; ones where not given.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    ValueError
        A shape or a geometry that does not fit, or more than 25 windows.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> viz.pool_map(np.eye(5)).alt_text
    'Max-pooling of 5 × 5 pixels: 4 windows of 3 × 3 send their gradients to 2 pixels, 1 of which \
wins 3 times.'
    """
    x = style.as_floats(picture, "picture")
    kernel, stride = pair("kernel_size", kernel_size, 1), pair("stride", stride, 1)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"picture must have shape (H, W), found {x.shape}")
    out = tuple(windows(x.shape[i], kernel[i], stride[i], 0, 0, False) for i in (0, 1))
    if min(out) < 1 or out[0] * out[1] > PANELS:
        raise ValueError(f"picture of {x.shape} gives {out[0]} × {out[1]} windows; expected 1 to "
                         f"{PANELS} in all")
    gy = np.ones(out) if gy is None else style.as_floats(gy, "gy")
    if gy.shape != out:
        raise ValueError(f"gy must have shape {out}, one number for each window, found {gy.shape}")
    gx, wins, winners = np.zeros(x.shape), np.zeros(x.shape, int), {}
    for o, p in np.ndindex(out):
        h, w = o * stride[0], p * stride[1]
        i, j = divmod(int(x[h:h + kernel[0], w:w + kernel[1]].argmax()), kernel[1])
        winners[o, p] = h + i, w + j
        gx[h + i, w + j] += gy[o, p]
        wins[h + i, w + j] += 1

    cell = max(SMALLEST, min(0.3, (WIDE - 2 * MARGIN) / ((out[1] + 1) * (x.shape[1] + 1))))
    wide, tall = x.shape[1] * cell + 0.25, x.shape[0] * cell + LABEL + 0.12
    width = (out[1] + 1) * wide + 2 * MARGIN
    height = max(out[0], 2) * tall + 2 * MARGIN + HEAD
    many = [int(n) for n in np.unique(wins) if n > 1]
    alt = (f"Max-pooling of {x.shape[0]} × {x.shape[1]} pixels: {gy.size} windows of {kernel[0]} × "
           f"{kernel[1]} send their gradients to {np.count_nonzero(wins)} pixels"
           + "".join(f", {(wins == n).sum()} of which wins {n} times" for n in many) + ".")
    figure = style.new_figure(max(width, 4.8), height, f"{title}. {alt}" if title else alt)
    page = style.bare_axes(figure, 0, 0, max(width, 4.8), height, "inches")
    style.write(page, MARGIN, height - MARGIN, title or "Where each gradient lands", 12,
                weight="bold", va="top", gid="title")
    top = height - MARGIN - HEAD - LABEL
    for (o, p), (h, w) in winners.items():
        left, low = MARGIN + p * wide, top - o * tall
        cells.heading(page, left, low, f"dL/dy[{o},{p}] = {gy[o, p]:.3g}", wide)
        cells.plain(page, left, low, cell, x, [(h, w)])
        cells.frame(page, left + p * stride[1] * cell, low - o * stride[0] * cell, kernel[1] * cell,
               kernel[0] * cell)
        cells.mark(page, left + w * cell, low - h * cell, cell, cells.short(x[h, w]), 1)
    left = MARGIN + out[1] * wide
    cells.heading(page, left, top, "dL/dx, the sum", wide)
    cells.plain(page, left, top, cell, gx, np.argwhere(wins).tolist())
    for h, w in np.argwhere(wins):
        cells.mark(page, left + w * cell, top - h * cell, cell, cells.short(gx[h, w]), wins[h, w])
    for n, k in enumerate(many):
        style.write(page, left, top - x.shape[0] * cell - 0.1 - 0.17 * n,
                    f"dark: {(wins == k).sum()} won {k}×", 8, style.SOFT, va="top", gid="note")
    return figure


def _filters(w, kernel, channels, matrix):
    """Return w as rows, (K, C*KH*KW), and what they make of the matrix."""
    if w is None:
        return (), ()
    w = style.as_floats(w, "w")
    w = w[None, None] if w.ndim == 2 else w
    if w.ndim != 4 or w.shape[1:] != (channels, *kernel):
        raise ValueError(f"w must have shape (K, {channels}, {kernel[0]}, {kernel[1]}), "
                         f"found {w.shape}")
    w = w.reshape(len(w), -1)
    return w, w @ matrix
