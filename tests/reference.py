"""The definitions of every operation, as plain loops: the oracle of the tests.

Nothing here is taken from the package or shares a line with it, so a bug there cannot hide here.
Readability is the only aim; nothing is fast.  Two habits run through the file:

- Every function that is analytic takes complex arrays.  The gradient tests move an input by
  i * 1e-20 and read the derivative off the imaginary part, exactly.  Where a function chooses
  (ReLU, max), the real part chooses and the imaginary part follows.
- Shapes are N, C, H, W: picture, channel, row, column.  A window is K wide, moves by S, and the
  output has O positions.  Padding is an int, (ph, pw), or ((top, bottom), (left, right)).
"""

import numpy as np


# ---------------------------------------------------------------------------- geometry

def pair(value):
    """3 -> (3, 3); (3, 5) stays."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def sides(padding):
    """Any of the three spellings of a padding -> ((top, bottom), (left, right))."""
    rows, columns = pair(padding)
    return pair(rows), pair(columns)


def conv_size(size, kernel, stride, pads, ceil_mode=False):
    """How many windows: 1 + (size + pads - kernel) / stride, rounded down, or up in ceil_mode.

    Rounding up is the rule of 2012: the last window may hang over the edge (224, 11, 4 -> 55).
    """
    room = size + sum(pads) - kernel
    count = 1 + (-(-room // stride) if ceil_mode else room // stride)
    if count < 1:
        raise ValueError(f"no window of {kernel} fits into {size} with padding {pads}")
    return count


def pool_size(size, kernel, stride, pads, ceil_mode=False):
    """As `conv_size`, but a window has to start inside the picture or the padding before it."""
    count = conv_size(size, kernel, stride, pads, ceil_mode)
    start_of_last = (count - 1) * stride - pads[0]
    return count - 1 if ceil_mode and start_of_last >= size else count


def taps(position, size, kernel, stride, before):
    """Which rows (or columns) of the picture the window at `position` sees: clipped to 0..size."""
    start = position * stride - before
    return range(max(start, 0), min(start + kernel, size))


def windows(x, kernel_size, stride, padding, ceil_mode):
    """Yields (i, j, rows, columns) for every window of a pooling over x."""
    (KH, KW), (SH, SW), (rows, columns) = pair(kernel_size), pair(stride), sides(padding)
    H, W = x.shape[2:]
    for i in range(pool_size(H, KH, SH, rows, ceil_mode)):
        for j in range(pool_size(W, KW, SW, columns, ceil_mode)):
            yield i, j, taps(i, H, KH, SH, rows[0]), taps(j, W, KW, SW, columns[0])


def pooled(x, kernel_size, stride, padding, ceil_mode):
    """The empty output of a pooling over x, (N, C, OH, OW)."""
    (KH, KW), (SH, SW), (rows, columns) = pair(kernel_size), pair(stride), sides(padding)
    N, C, H, W = x.shape
    OH = pool_size(H, KH, SH, rows, ceil_mode)
    OW = pool_size(W, KW, SW, columns, ceil_mode)
    return np.zeros((N, C, OH, OW), x.dtype)


# ---------------------------------------------------------------------------- convolution

def conv2d(x, w, b=None, stride=1, padding=0, groups=1, ceil_mode=False):
    """y[n,f,i,j] = b[f] + sum over c,u,v of x[n, c, i*SH + u - top, j*SW + v - left] * w[f,c,u,v].

    x (N, C, H, W), w (F, C/groups, KH, KW), b (F,) -> (N, F, OH, OW).  Taps outside the picture
    are zero, in the padding and under an overhang alike.  Filter f sees only its group's channels.
    """
    (N, C, H, W), (F, CG, KH, KW) = x.shape, w.shape
    (SH, SW), ((top, bottom), (left, right)) = pair(stride), sides(padding)
    OH = conv_size(H, KH, SH, (top, bottom), ceil_mode)
    OW = conv_size(W, KW, SW, (left, right), ceil_mode)

    # the picture in the middle of a sheet of zeros that the last window, too, stays within
    sheet_height = max((OH - 1) * SH + KH, top + H)
    sheet_width = max((OW - 1) * SW + KW, left + W)
    sheet = np.zeros((N, C, sheet_height, sheet_width), x.dtype)
    sheet[:, :, top:top + H, left:left + W] = x

    y = np.zeros((N, F, OH, OW), np.result_type(x, w) if b is None else np.result_type(x, w, b))
    for f in range(F):
        first = f // (F // groups) * CG            # the first channel of f's group
        for i in range(OH):
            for j in range(OW):
                window = sheet[:, first:first + CG, i * SH:i * SH + KH, j * SW:j * SW + KW]
                y[:, f, i, j] = (window * w[f]).sum(axis=(1, 2, 3))     # (N, CG, KH, KW) -> (N,)
                if b is not None:
                    y[:, f, i, j] += b[f]
    return y


def im2col(x, kernel_size, stride=1, padding=0, ceil_mode=False):
    """Every window laid out as a column: (N, C, H, W) -> (N, C*KH*KW, OH*OW), zeros outside."""
    columns = []
    for (n, c, u, v, i, j), row, column in _im2col_pairs(x.shape, kernel_size, stride, padding,
                                                         ceil_mode):
        inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
        columns.append(x[n, c, row, column] if inside else 0)
    N, C = x.shape[:2]
    KH, KW = pair(kernel_size)
    return np.array(columns, x.dtype).reshape(N, C * KH * KW, -1)


def col2im(columns, x_shape, kernel_size, stride=1, padding=0, ceil_mode=False):
    """The adjoint of `im2col`: every entry goes back to where it came from, and they add up."""
    x = np.zeros(x_shape, columns.dtype)
    values = iter(columns.reshape(-1))
    for (n, c, u, v, i, j), row, column in _im2col_pairs(x_shape, kernel_size, stride, padding,
                                                         ceil_mode):
        value = next(values)
        if 0 <= row < x_shape[2] and 0 <= column < x_shape[3]:
            x[n, c, row, column] += value
    return x


def _im2col_pairs(x_shape, kernel_size, stride, padding, ceil_mode):
    """Yields ((n, c, u, v, i, j), row, column): which pixel each entry of the columns is."""
    N, C, H, W = x_shape
    (KH, KW), (SH, SW) = pair(kernel_size), pair(stride)
    rows, columns = sides(padding)
    OH = conv_size(H, KH, SH, rows, ceil_mode)
    OW = conv_size(W, KW, SW, columns, ceil_mode)
    for n, c, u, v, i, j in np.ndindex(N, C, KH, KW, OH, OW):
        yield (n, c, u, v, i, j), i * SH + u - rows[0], j * SW + v - columns[0]


# ---------------------------------------------------------------------------- pooling

def max_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """The largest value of each window; the padding is minus infinity, so it never wins."""
    stride = kernel_size if stride is None else stride
    y = pooled(x, kernel_size, stride, padding, ceil_mode)
    for i, j, rows, columns in windows(x, kernel_size, stride, padding, ceil_mode):
        for n, c in np.ndindex(*x.shape[:2]):
            y[n, c, i, j] = x[n, c][first_maximum(x[n, c], rows, columns)]
    return y


def first_maximum(picture, rows, columns):
    """Where a window's largest value stands, (row, column); of equals the first, row by row."""
    best = rows[0], columns[0]
    for row in rows:
        for column in columns:
            if picture[row, column].real > picture[best].real:
                best = row, column
    return best


def max_pool2d_backward(x, gy, kernel_size, stride=None, padding=0, ceil_mode=False, ties=False):
    """gx of a max-pooling: gy goes to each window's first maximum; with `ties` to all of them."""
    stride = kernel_size if stride is None else stride
    gx = np.zeros_like(x)
    for i, j, rows, columns in windows(x, kernel_size, stride, padding, ceil_mode):
        for n, c in np.ndindex(*x.shape[:2]):
            first = first_maximum(x[n, c], rows, columns)
            for row in rows:
                for column in columns:
                    tied = ties and x[n, c, row, column] == x[n, c][first]
                    if tied or (row, column) == first:
                        gx[n, c, row, column] += gy[n, c, i, j]
    return gx


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """The mean of each window's values inside the picture: padding and overhang do not count."""
    stride = kernel_size if stride is None else stride
    y = pooled(x, kernel_size, stride, padding, ceil_mode)
    for i, j, rows, columns in windows(x, kernel_size, stride, padding, ceil_mode):
        clipped = x[:, :, rows.start:rows.stop, columns.start:columns.stop]
        y[:, :, i, j] = clipped.sum(axis=(2, 3)) / (len(rows) * len(columns))
    return y


# ---------------------------------------------------------------------------- normalization

def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0, divide_alpha=True):
    """y_i = x_i / (k + alpha' * sum of x_j^2)^beta, j over the `size` channels around i.

    The window is i - size//2 ... i - size//2 + size - 1, clipped to 0..C-1: an even size reaches
    one further down than up.  alpha' is alpha / size, whatever was clipped, or alpha itself.
    """
    C = x.shape[1]
    scale = alpha / size if divide_alpha else alpha
    y = np.zeros_like(x)
    for i in range(C):
        start = i - size // 2
        near = x[:, max(0, start):min(C, start + size)]                  # (N, up to size, H, W)
        y[:, i] = x[:, i] * (k + scale * (near * near).sum(axis=1)) ** -beta
    return y


def spatial_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """y = x / (k + alpha / size^2 * sum of x^2)^beta over size x size pixels of the same map.

    The window begins size//2 pixels up and left, and is clipped at the border.
    """
    H, W = x.shape[2:]
    y = np.zeros_like(x)
    for i in range(H):
        for j in range(W):
            rows, columns = taps(i, H, size, 1, size // 2), taps(j, W, size, 1, size // 2)
            near = x[:, :, rows.start:rows.stop, columns.start:columns.stop]
            total = (near * near).sum(axis=(2, 3))                       # (N, C)
            y[:, :, i, j] = x[:, :, i, j] * (k + alpha / size ** 2 * total) ** -beta
    return y


# ---------------------------------------------------------------------------- element by element

def relu(x):
    """x where x > 0, else 0."""
    return np.where(x.real > 0, x, 0)


def tanh(x):
    """(e^x - e^-x) / (e^x + e^-x)."""
    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))


def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def dropout(x, mask, p=0.5, training=True, scaling="inverted"):
    """mask is 1 where a unit is kept, which happens with probability 1 - p.

    "inverted" pays in training, x * mask / (1 - p), and does nothing afterwards; "paper" pays at
    test time, x * (1 - p), and only masks in training.
    """
    if scaling == "inverted":
        return x * mask / (1 - p) if training else x * 1
    return x * mask if training else x * (1 - p)


# ---------------------------------------------------------------------------- matrices

def matmul(a, b):
    """c[i,k] = sum over j of a[i,j] * b[j,k], for (I, J) and (J, K)."""
    (I, J), K = a.shape, b.shape[1]
    c = np.zeros((I, K), np.result_type(a, b))
    for i, k in np.ndindex(I, K):
        c[i, k] = sum(a[i, j] * b[j, k] for j in range(J))
    return c


def linear(x, w, b=None):
    """y[n,o] = b[o] + sum over i of x[n,i] * w[o,i]: x (N, I), w (O, I), b (O,) -> (N, O)."""
    y = matmul(x, w.T)
    return y if b is None else y + b


# ---------------------------------------------------------------------------- loss

def softmax(x):
    """p_c = e^x_c / sum of e^x_d over the last axis.  (N, classes) -> (N, classes)."""
    return np.exp(log_softmax(x))


def log_softmax(x):
    """x_c - log(sum of e^x_d).  The largest is taken out first, so that nothing overflows."""
    x = x - x.real.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def cross_entropy(logits, labels):
    """The mean over the batch of -log p[label].  (N, classes), integers (N,) -> a number."""
    log_p = log_softmax(logits)
    return -sum(log_p[n, label] for n, label in enumerate(labels)) / len(labels)


# ---------------------------------------------------------------------------- the towers

def concatenate(parts, axis=1):
    """The parts one after the other along `axis`, the first part first."""
    axis = axis % parts[0].ndim
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    joined, start = np.zeros(shape, np.result_type(*parts)), 0
    for part in parts:
        place = [slice(None)] * len(shape)
        place[axis] = slice(start, start + part.shape[axis])
        joined[tuple(place)] = part
        start += part.shape[axis]
    return joined


def exchange(parts, axis=1):
    """Every tower receives the maps of all towers: a list of len(parts) equal joined arrays."""
    return [concatenate(parts, axis) for _ in parts]


def exchange_backward(gradients, widths, axis=1):
    """What comes back to each tower: its own slice of the sum of all the joined gradients.

    `widths` are the parts' sizes along `axis`, in order.
    """
    total, parts, start = sum(gradients), [], 0
    for width in widths:
        parts.append(np.take(total, range(start, start + width), axis=axis))
        start += width
    return parts
