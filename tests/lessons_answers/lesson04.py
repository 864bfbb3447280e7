"""Answers to lesson 04: convolution's backward, by loops over taps unless a mistake asks more."""
import numpy as np

from . import right, wrong


def by_taps(gy, x, w, stride, padding, groups, *, gx_add=True, first_only=False, corner=None,
            turn_gx=False, turn_gw=False, same_filters=False, same_channels=False):
    """Walk the taps of a filter; the keywords are mistakes."""
    N, K, OH, OW = gy.shape
    S, P, G = stride, padding, groups
    wide = np.pad(x, ((0, 0), (0, 0), (P, P), (P, P)))
    gwide, gw = np.zeros_like(wide), np.zeros_like(w)
    CG, KG = x.shape[1] // G, K // G
    for g in range(G):
        inputs = slice(g * CG, (g + 1) * CG)
        seen = slice(0, CG) if same_channels else inputs
        outputs = slice(g * KG, (g + 1) * KG)
        used = slice(0, KG) if same_filters else outputs
        for i in range(w.shape[2]):
            for j in range(w.shape[3]):
                rows, cols = slice(i, i + S * (OH - 1) + 1, S), slice(j, j + S * (OW - 1) + 1, S)
                a, b = (-1 - i, -1 - j) if turn_gw else (i, j)
                which = slice(0, 1) if first_only else slice(None)
                gw[outputs, :, a, b] = np.einsum("nkop,ncop->kc", gy[which, outputs],
                                                 wide[which, seen, rows, cols])
                a, b = (-1 - i, -1 - j) if turn_gx else (i, j)
                sent = np.einsum("nkop,kc->ncop", gy[:, outputs], w[used, :, a, b])
                if gx_add:
                    gwide[:, inputs, rows, cols] += sent
                else:
                    gwide[:, inputs, rows, cols] = sent
    start = P if corner is None else corner
    gx = gwide[:, :, start:start + x.shape[2], start:start + x.shape[3]]
    return gx, gw, gy.sum(axis=(0, 2, 3))


# ---------------------------------------------------------------------------- right

@right("4.1")
def taps(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups)


@right("4.1")
def windows(gy, x, w, stride, padding, groups):
    """Walk the windows: each output sends its gradient to all that it came from."""
    N, K, OH, OW = gy.shape
    (_, C, H, W), (_, CG, KH, KW), P = x.shape, w.shape, padding
    wide = np.zeros((N, C, H + 2 * P, W + 2 * P))
    wide[:, :, P:P + H, P:P + W] = x
    gwide, gw = np.zeros(wide.shape), np.zeros(w.shape)
    for n, k, o, p in np.ndindex(gy.shape):
        c = k // (K // groups) * CG
        place = (n, slice(c, c + CG), slice(o * stride, o * stride + KH),
                 slice(p * stride, p * stride + KW))
        gw[k] += gy[n, k, o, p] * wide[place]
        gwide[place] += gy[n, k, o, p] * w[k]
    return gwide[:, :, P:P + H, P:P + W], gw, np.einsum("nkop->k", gy)


@right("4.1")
def columns(gy, x, w, stride, padding, groups):
    """As the lesson derives it, with the library's im2col and col2im."""
    from tinyalex.ops.conv import col2im, im2col
    geometry = (stride, stride), ((padding, padding), (padding, padding))
    N, K, OH, OW = gy.shape
    gx, gw = [], []
    for xs, gs, ws in zip(np.split(x, groups, 1), np.split(gy, groups, 1), np.split(w, groups)):
        cols = im2col(np, xs, ws.shape[2:], *geometry, (OH, OW))
        flat = cols.reshape(N, -1, OH * OW)
        g = gs.reshape(N, K // groups, -1)
        gw.append(np.matmul(g, flat.transpose(0, 2, 1)).sum(0).reshape(ws.shape))
        gcols = np.matmul(ws.reshape(len(ws), -1).T, g).reshape(cols.shape)
        gx.append(col2im(np, gcols, xs.shape, *geometry))
    return np.concatenate(gx, 1), np.concatenate(gw), gy.sum((0, 2, 3))


# ---------------------------------------------------------------------------- wrong

@wrong("4.1", "only where windows overlap: '=' instead of '+='")
def gx_is_written_over(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, gx_add=False)


@wrong("4.1", "gw is that of one picture alone")
def gw_of_the_first_picture(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, first_only=True)


@wrong("4.1", "the picture starts in row P and column P")
def padding_is_not_cropped(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, corner=0)


@wrong("4.1", "In gx the filters are turned by 180 degrees")
def filters_are_turned(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, turn_gx=True)


@wrong("4.1", "gw is upside down and left to right")
def gw_is_turned(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, turn_gw=True)


@wrong("4.1", "In gx every group uses the filters of group 0")
def one_group_of_filters(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, same_filters=True)


@wrong("4.1", "In gw every group looks at the channels of group 0")
def one_group_of_channels(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups, same_channels=True)


@wrong("4.1", "gw is 3 times too small, and 3 is N")
def gw_is_a_mean(gy, x, w, stride, padding, groups):
    gx, gw, gb = by_taps(gy, x, w, stride, padding, groups)
    return gx, gw / len(x), gb


@wrong("4.1", "gb is 15 times too small")
def gb_is_a_mean(gy, x, w, stride, padding, groups):
    gx, gw, gb = by_taps(gy, x, w, stride, padding, groups)
    return gx, gw, gy.mean(axis=(0, 2, 3))


@wrong("4.1", "gb has shape (1, 3); expected (3,)")
def gb_for_each_picture(gy, x, w, stride, padding, groups):
    gx, gw, gb = by_taps(gy, x, w, stride, padding, groups)
    return gx, gw, gy.sum(axis=(2, 3))


@wrong("4.1", "2 values; expected 3: gx, gw, gb")
def gb_is_forgotten(gy, x, w, stride, padding, groups):
    return by_taps(gy, x, w, stride, padding, groups)[:2]


@wrong("4.1", "gx is sent to windows one pixel apart")
def stride_is_forgotten_in_gx(gy, x, w, stride, padding, groups):
    gx, gw, gb = by_taps(gy, x, w, stride, padding, groups)
    gathered = np.zeros((*x.shape[:2], x.shape[2] + 2 * padding, x.shape[3] + 2 * padding))
    CG, KG = w.shape[1], len(w) // groups
    for k, c, i, j in np.ndindex(w.shape):
        target = gathered[:, c + k // KG * CG, i:i + gy.shape[2], j:j + gy.shape[3]]
        target += gy[:, k] * w[k, c, i, j]
    return gathered[:, :, padding:padding + x.shape[2], padding:padding + x.shape[3]], gw, gb


@wrong("4.1", "float32 and right to six digits only")
def half_the_digits(gy, x, w, stride, padding, groups):
    return [g.astype(np.float32) for g in by_taps(gy, x, w, stride, padding, groups)]


@wrong("4.1", "writes into one of its arguments")
def gy_is_changed(gy, x, w, stride, padding, groups):
    answer = by_taps(gy, x, w, stride, padding, groups)
    gy *= 0
    return answer


@wrong("4.1", "conv2d_backward returned None")
def nothing_comes_back(gy, x, w, stride, padding, groups):
    by_taps(gy, x, w, stride, padding, groups)
