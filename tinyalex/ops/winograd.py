"""Sliding a filter along a row with fewer multiplications: minimal filtering, after Winograd.

m neighboring outputs of a filter with r taps cost m r multiplications the plain way. But two
polynomials can be multiplied through their values at m + r - 1 points, with one multiplication
each, and sliding a filter is the adjoint of that. With the numbers below, for m outputs y from
the m + r - 1 pixels x that they see,

    y = A^T [(G w) * (B^T x)]        * is elementwise: m + r - 1 multiplications

A convolution sums over channels and filter rows between the brackets, so each point becomes a
matrix product: 8 for four outputs of 5 taps instead of 20, and the transforms cost little as they
run along one axis only. (Winograd 1980; Lavin and Gray 2015 brought it to convolutions, in 2-d.)

The results differ from the plain sums in the last bits. In float32 the largest error, as a share
of the largest value, is 2 to 3.4e-6 for outputs and dL/dx of the paper's layers (plainly 2 to 5e-7)
and 1 to 2.4e-6 for dL/dw (plainly 4 to 6e-7). One infinite pixel makes NaN of the tiles around it.
"""
import functools

import numpy as np
from numpy.lib.stride_tricks import as_strided

POINTS = (1, 0, -1, 2, -2, 0.5, -0.5)    # and infinity: small, so that little is lost in rounding


def tile(width, taps):
    """Return m, the outputs computed together, with the fewest products for a row of `width`.

    >>> tile(27, 5), tile(13, 3)         # 7 tiles of 8 points each, 3 tiles of 7
    (4, 5)
    """
    return min(range(1, len(POINTS) + 3 - taps), key=lambda m: -(-width // m) * (m + taps - 1))


@functools.cache
def matrices(m, r, dtype):
    """Return A^T (m, a), G (a, r) and B^T (a, a) for m outputs of r taps, a = m + r - 1.

    Let E_n (a, n) turn the n coefficients of a polynomial into its values at the points; infinity
    stands for the highest coefficient. The product of two is s = E_a^-1 [(E_r g) * (E_m d)]: linear
    in d, and its adjoint slides g over s. Transposed, y = E_m^T [(E_r g) * (E_a^-T x)].

    >>> a_t, g, b_t = matrices(2, 3, np.dtype(float))
    >>> (a_t @ ((g @ [1, 10, 100]) * (b_t @ [1, 2, 3, 4]))).round(9).tolist()
    [321.0, 432.0]
    """
    a = m + r - 1

    def values(n):
        return np.vstack([np.vander(POINTS[:a - 1], n, increasing=True), np.eye(n)[-1:]])

    return tuple(np.ascontiguousarray(each, dtype)
                 for each in (values(m).T, values(r), np.linalg.inv(values(a)).T))


def filters(w, G):
    """Return G w: (K, C, KH, r) -> (a, KH*C, K), ready to multiply rows from the right."""
    K, C, KH, r = w.shape
    by_tap = np.ascontiguousarray(w.transpose(3, 2, 1, 0)).reshape(r, KH * C * K)
    return np.matmul(G, by_tap).reshape(len(G), KH * C, K)


def filters_adjoint(g, G, shape):
    """Return the gradient of w (K, C, KH, r) from that of :func:`filters`; a view."""
    K, C, KH, r = shape
    return np.matmul(G.T, g.reshape(len(G), -1)).reshape(r, KH, C, K).transpose(3, 2, 1, 0)


def rows(device, pixels, B_t, m, KH):
    """Return B^T x for the tiles of `pixels` (n, H, m*T + r - 1, C), gathered over filter rows.

    The result is (a, n*T*OH, KH*C): for each point a matrix with a row for each tile of outputs.
    """
    (n, H, W, C), a = pixels.shape, len(B_t)
    T, OH = (W - a) // m + 1, H - KH + 1
    sn, sh, sw, sc = pixels.strides
    x = device.scratch("winograd.x", (a, n, T, H, C), pixels.dtype)
    np.copyto(x, as_strided(pixels, x.shape, (sw, sn, m * sw, sh, sc), writeable=False))
    v = device.scratch("winograd.v", x.shape, x.dtype)              # (a, n, T, H, C)
    np.matmul(B_t, x.reshape(a, -1), out=v.reshape(a, -1))
    out = device.scratch("winograd.rows", (a, n, T, OH, KH * C), x.dtype)
    np.copyto(out, as_strided(v, out.shape, v.strides, writeable=False))  # KH*C lie in one piece
    return out.reshape(a, n * T * OH, KH * C)


def outputs(device, products, A_t, out, b=None):
    """Write A^T of `products` (a, n*T*OH, K), and the bias, to `out` (n, OH, OW, K).

    The powers of 1 are 1: what is added to the product at that point, the first, reaches all m.
    """
    if b is not None:
        products[0] += b
    m, (n, OH, OW, K) = len(A_t), out.shape
    y = device.scratch("winograd.y", (m, n, -(-OW // m), OH, K), out.dtype)
    np.matmul(A_t, products.reshape(len(products), -1), out=y.reshape(m, -1))
    for columns, of_tiles in _tiles(out, y):
        columns[...] = of_tiles


def outputs_adjoint(device, maps, A_t):
    """Return A of `maps` (n, OH, OW, K), cut into tiles of m columns: (a, n*T*OH, K)."""
    (m, a), (n, OH, OW, K) = A_t.shape, maps.shape
    y = device.scratch("winograd.y", (m, n, -(-OW // m), OH, K), maps.dtype)
    y[OW % m or m:, :, -1] = 0                                      # where no output is
    for columns, of_tiles in _tiles(maps, y):
        of_tiles[...] = columns
    out = device.scratch("winograd.products", (a, y[0].size), maps.dtype)
    return np.matmul(A_t.T, y.reshape(m, -1), out=out).reshape(a, -1, K)


def _tiles(maps, y):
    """Yield views of `maps` (n, OH, OW, K) beside those of `y` (m, n, T, OH, K) that belong there:
    of the whole tiles, and of the last where it is cut off."""
    (n, OH, OW, K), m = maps.shape, len(y)
    whole = OW // m
    yield (maps[:, :, :whole * m].reshape(n, OH, whole, m, K),      # an axis split in two: a view
           y[:, :, :whole].transpose(1, 3, 2, 0, 4))                # (n, OH, T, m, K)
    if OW % m:
        yield maps[:, :, whole * m:], y[:OW % m, :, -1].transpose(1, 2, 0, 3)   # (n, OH, rest, K)
