"""One solution to each exercise. There are others; look here last."""
import numpy as np
import tinyalex as ta


def conv2d_backward(gy, x, w, stride, padding, groups):
    """4.1: one matrix product each way, for each group."""
    N, K, OH, OW = gy.shape
    (_, C, H, W), (_, _, KH, KW) = x.shape, w.shape
    S, P, G = stride, padding, groups
    wide = np.pad(x, ((0, 0), (0, 0), (P, P), (P, P)))
    cols = np.empty((N, C, KH, KW, OH, OW), x.dtype)
    taps = [(i, j, slice(i, i + S * (OH - 1) + 1, S), slice(j, j + S * (OW - 1) + 1, S))
            for i in range(KH) for j in range(KW)]
    for i, j, rows, columns in taps:
        cols[:, :, i, j] = wide[:, :, rows, columns]

    g = gy.reshape(N, G, K // G, OH * OW)
    c = cols.reshape(N, G, C // G * KH * KW, OH * OW)
    f = w.reshape(G, K // G, -1)
    gw = (g @ c.swapaxes(2, 3)).sum(axis=0).reshape(w.shape)

    gcols = (f.swapaxes(1, 2) @ g).reshape(cols.shape)
    gwide = np.zeros_like(wide)
    for i, j, rows, columns in taps:
        gwide[:, :, rows, columns] += gcols[:, :, i, j]
    return gwide[:, :, P:P + H, P:P + W], gw, gy.sum(axis=(0, 2, 3))


def output_size(size, kernel, stride, padding, ceil_mode):
    """1.1: one window, and one more for each step."""
    room = size + 2 * padding - kernel
    steps = -(-room // stride) if ceil_mode else room // stride
    return 1 + steps


def backward_order(root):
    """2.1: depth first with a stack of one's own; a node is done when its parents are."""
    done, seen, stack = [], set(), [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            done.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
    return done[::-1]


def numeric_gradient(f, x, v, h):
    """3.1: one element at a time, a step to each side."""
    gx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[i] = h
        gx[i] = np.sum(v * (f(x + d) - f(x - d))) / (2 * h)
    return gx


def relu_backward(gy, x):
    """5.1: the gradient passes where x passed."""
    return gy * (x > 0)


def tanh_backward(gy, y):
    """5.2: the slope, written with the result alone."""
    return gy * (1 - y * y)


def max_pool_backward(gy, x, kernel, stride):
    """6.1: to each window's first maximum, and added up there."""
    gx = np.zeros(x.shape, x.dtype)
    for n, c, o, p in np.ndindex(gy.shape):
        h, w = o * stride, p * stride
        i, j = divmod(int(x[n, c, h:h + kernel, w:w + kernel].argmax()), kernel)
        gx[n, c, h + i, w + j] += gy[n, c, o, p]
    return gx


def lrn_backward(gy, x, size, alpha, beta, k):
    """7.1: each channel by itself, and through all that it inhibits (odd sizes)."""
    C = x.shape[1]
    near = [slice(max(0, c - size // 2), c + size // 2 + 1) for c in range(C)]
    d = np.stack([k + alpha * (x[:, near[c]]**2).sum(axis=1) for c in range(C)], axis=1)
    s = gy * x * d**-(beta + 1)
    cross = np.stack([s[:, near[c]].sum(axis=1) for c in range(C)], axis=1)
    return gy * d**-beta - 2 * alpha * beta * x * cross


def dropout(x, p, training, scaling, rng):
    """8.1: the paper pays at test time, the inverted scaling in training."""
    if training:
        y = x * (rng.random(x.shape) >= p)
        return y / (1 - p) if scaling == "inverted" else y
    return x * (1 - p) if scaling == "paper" else x


def exchange_forward(a, b, homes):
    """9.1: each device gets what it is missing."""
    joined0 = np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1)
    joined1 = np.concatenate([ta.transfer(a, homes[0], homes[1]), b], axis=1)
    return joined0, joined1


def exchange_backward(g0, g1, width, homes):
    """9.2: both towers used both parts, so each part gets two gradients."""
    ga = g0[:, :width] + ta.transfer(g1[:, :width], homes[1], homes[0])
    gb = ta.transfer(g0[:, width:], homes[0], homes[1]) + g1[:, width:]
    return ga, gb


def sgd_step(w, v, g, lr, momentum, weight_decay):
    """10.1: section 5's two lines."""
    v = momentum * v - weight_decay * lr * w - lr * g
    return w + v, v


def snapshot(net, opt):
    """11.1: weights, velocity and rate, seed and step."""
    return {"net": net.state_dict(), "opt": opt.state_dict(), "random": ta.random.get_state()}


def resume(net, opt, state):
    """11.2: the same way back."""
    net.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])
    ta.random.set_state(**state["random"])


def ten_crop(predict, picture, size):
    """12.1: five places, mirrored too, and ten votes of equal weight."""
    H, W = picture.shape[1:]
    places = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size),
              ((H - size) // 2, (W - size) // 2)]
    five = np.stack([picture[:, y:y + size, x:x + size] for y, x in places])
    logits = predict(np.concatenate([five, five[..., ::-1]]))
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).mean(axis=0)
