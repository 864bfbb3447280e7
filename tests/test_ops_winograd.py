"""Minimal filtering: its formula, its three transforms, and the convolution that is made of them.

Few channels are convolved by other means, so most tests here let even one channel take this path.
"""

from unittest import mock

import numpy as np
import pytest
import strategies
import tinyalex as ta
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Axis, Geometry
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_grads
from tinyalex.ops import conv_fast, winograd

CPU = ta.Device("cpu:0")
CHANNELS = conv_fast.CHANNELS
FEWER = settings(max_examples=max(10, settings().max_examples // 2))
ONCE = settings(max_examples=max(5, settings().max_examples // 10))
SIZES = [(m, r) for r in range(2, 6) for m in range(1, 8) if m + r - 1 <= 8]
by_size = pytest.mark.parametrize("m, r", SIZES)


@pytest.fixture(scope="module", autouse=True)
def every_channel_counts():
    """Small shapes take the path, too."""
    with mock.patch.object(conv_fast, "CHANNELS", 1):
        yield


@st.composite
def sliding(draw, out=12, padding=7, batch=3):
    """A convolution that slides: stride 1, one group, 2 to 5 taps in a row, any border.

    The columns hold from one output to several tiles, the last of them seldom full; padding may be
    wider than the kernel, so that whole windows see nothing of the picture.
    """
    def axis(kernel, out):
        covered = out - 1 + kernel
        before = draw(st.integers(0, min(padding, covered - 1)))
        after = draw(st.integers(0, min(padding, covered - 1 - before)))
        return Axis(covered - before - after, kernel, 1, (before, after), out)

    return Geometry(batch=draw(st.integers(1, batch)), channels=draw(st.integers(1, 3)),
                    filters=draw(st.integers(1, 3)), groups=1,
                    rows=axis(draw(st.integers(1, 6)), draw(st.integers(1, min(out, 4)))),
                    columns=axis(draw(st.integers(2, 5)), draw(st.integers(1, out))),
                    ceil_mode=draw(st.booleans()))


def operands(geometry, seed, bias=True, dtype=np.float64):
    shapes = [geometry.x_shape, geometry.w_shape] + [(geometry.filters,)] * bias
    return [strategies.normal(shape, [seed, i], dtype) for i, shape in enumerate(shapes)]


def close(results, expected, tolerance=1e-12):
    for a, b in zip(results, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max() + 1e-300)


def spy():
    """Count how often pixels are transformed."""
    return mock.patch.object(winograd, "rows", wraps=winograd.rows)


# ---------------------------------------------------------------------------- the formula

def slid(x, w, m):
    """m outputs of the filter `w` over `x`, each a plain sum; along the first axis."""
    return sum(w[j] * x[j:j + m] for j in range(len(w)))


@by_size
def test_the_formula_slides_a_filter(m, r):
    x, w = strategies.normal((m + r - 1, 500), 0), strategies.normal((r, 500), 1)
    expected = slid(x, w, m)
    for dtype, tolerance in [(np.float64, 1e-12), (np.float32, 1e-5)]:
        A_t, G, B_t = winograd.matrices(m, r, np.dtype(dtype))
        assert (A_t.shape, G.shape, B_t.shape) == ((m, m + r - 1), (m + r - 1, r), (m + r - 1,) * 2)
        assert A_t.dtype == G.dtype == B_t.dtype == dtype
        y = A_t @ ((G @ w.astype(dtype)) * (B_t @ x.astype(dtype)))
        close([y], [expected.astype(dtype)], tolerance)


@by_size
def test_each_pixel_and_each_tap_has_its_own_share(m, r):
    """A single 1 in x and in w: every number of the three matrices takes part."""
    A_t, G, B_t = winograd.matrices(m, r, np.dtype(float))
    pixels, taps = np.eye(m + r - 1), np.eye(r)
    for j in range(r):
        y = A_t @ (G @ taps[j][:, None] * (B_t @ pixels))          # (m, a): one column per pixel
        assert np.allclose(y, pixels[j:j + m], rtol=0, atol=1e-12)


def test_a_tile_has_the_fewest_products_and_at_most_eight_points():
    for taps in range(2, 6):
        for width in range(1, 64):
            m = winograd.tile(width, taps)
            products = {n: -(-width // n) * (n + taps - 1) for n in range(1, 10 - taps)}
            assert m in products and products[m] == min(products.values())
            assert m + taps - 1 <= 8 and m <= width


# ---------------------------------------------------------------------------- the transforms

TILES = [(1, 2, 1), (7, 2, 1), (4, 5, 3), (5, 3, 2)]    # m, r, T: outputs of a tile, taps, tiles
SHORT = [(m, r, m * T - lacking) for m, r, T in TILES for lacking in range(m)]    # m, r, OW
by_width = pytest.mark.parametrize("m, r, OW", SHORT)


@pytest.mark.parametrize("m, r, T", TILES)
def test_rows_are_the_points_of_every_tile(m, r, T):
    n, H, C, KH = 2, 5, 3, 2
    _, _, B_t = winograd.matrices(m, r, np.dtype(float))
    wide = strategies.normal((n, H, m * T + r + 2, C), 0)
    pixels = wide[:, :, 2:m * T + r + 1]                           # a cutout, as conv_fast takes it
    rows = winograd.rows(CPU, pixels, B_t, m, KH)
    a, OH = len(B_t), H - KH + 1
    assert rows.shape == (a, n * T * OH, KH * C)
    for i, t, o, h in np.ndindex(n, T, OH, KH):
        seen = B_t @ pixels[i, o + h, t * m:t * m + a]             # (a, C)
        found = rows.reshape(a, n, T, OH, KH, C)[:, i, t, o, h]
        assert np.allclose(found, seen, rtol=0, atol=1e-12)


@by_width
def test_outputs_fill_the_row_and_no_more(m, r, OW):
    n, OH, K, T = 2, 3, 2, -(-OW // m)
    A_t, _, _ = winograd.matrices(m, r, np.dtype(float))
    wide, b = np.full((n, OH, OW + 1, K), np.nan), strategies.normal((K,), 1)
    products = strategies.normal((m + r - 1, n * T * OH, K), 0)
    expected = np.einsum("sa,antok->notsk", A_t, products.reshape(-1, n, T, OH, K))
    expected = expected.reshape(n, OH, T * m, K)[:, :, :OW]
    for bias in (None, b):
        winograd.outputs(CPU, products.copy(), A_t, wide[:, :, :-1], bias)
        assert np.allclose(wide[:, :, :-1], expected if bias is None else expected + b, atol=1e-12)
        assert np.isnan(wide[:, :, -1]).all()


@by_width
def test_outputs_and_filters_have_their_adjoints(m, r, OW):
    n, OH, K, tiles = 2, 3, 2, -(-OW // m)
    A_t, G, _ = winograd.matrices(m, r, np.dtype(float))

    def outputs(products):
        out = np.empty((n, OH, OW, K))
        winograd.outputs(CPU, products.copy(), A_t, out)
        return out

    CPU.scratch("winograd.y", (m, n, tiles, OH, K), np.float64)[...] = np.nan    # what was there
    check_adjoint(outputs, lambda maps: winograd.outputs_adjoint(CPU, maps, A_t),
                  strategies.normal((m + r - 1, n * tiles * OH, K), 0)).raise_if_wrong()
    w = strategies.normal((K, 3, 2, r), 1)
    assert winograd.filters(w, G).shape == (m + r - 1, 2 * 3, K)
    check_adjoint(lambda w: winograd.filters(w, G),
                  lambda g: winograd.filters_adjoint(g, G, w.shape), w).raise_if_wrong()


# ---------------------------------------------------------------------------- the convolution

@given(sliding(), st.booleans(), st.integers(1, 400), strategies.layouts(), strategies.seeds())
def test_it_is_the_plain_convolution_however_it_is_blocked(run, geometry, bias, block, layout,
                                                           seed):
    """A block holds some images, one, or a few of its rows."""
    fn, arrays = (lambda *a: F.conv2d(*a, **geometry.conv)), operands(geometry, seed, bias)
    with ta.conv_algorithm("plain"):
        expected = run(fn, arrays)
    arrays = [strategies.laid_out(a, layout) for a in arrays]
    with spy() as rows:
        whole = run(fn, arrays)
        assert rows.call_count >= 2                        # in forward, and in backward
    close(whole, expected)
    with mock.patch.object(conv_fast, "BLOCK", block):
        close(run(fn, arrays), expected)


@pytest.mark.parametrize("width", range(1, 20))
@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_every_width(run, width, taps):
    """From a single output to a last tile of each size."""
    x, w, b = (strategies.normal(s, 0) for s in [(2, 3, 4, width), (2, 3, 3, taps), (2,)])
    fn, padding = F.conv2d, ((1, 1), (taps // 2, (taps - 1) // 2))
    with ta.conv_algorithm("plain"):
        expected = run(lambda *a: fn(*a, padding=padding), (x, w, b))
    assert expected[0].shape == (2, 2, 4, width)
    close(run(lambda *a: fn(*a, padding=padding), (x, w, b)), expected)


def test_borders_wider_than_the_kernel(run):
    """Some windows see no pixel: there y = b, and dL/dx crops what is left of dL/dy."""
    x, w, b = (strategies.normal(s, i) for i, s in enumerate([(2, 2, 1, 1), (3, 2, 2, 3), (3,)]))
    for padding in [7, ((0, 6), (9, 0)), ((6, 0), (0, 9)), ((5, 2), (8, 3))]:
        def fn(*a, padding=padding):
            return F.conv2d(*a, padding=padding)
        with ta.conv_algorithm("plain"):
            expected = run(fn, (x, w, b))
        close(run(fn, (x, w, b)), expected)
    y = F.conv2d(*map(ta.Tensor, (x, w, b)), padding=7).data
    assert np.allclose(y[:, :, 0, 0], b, rtol=0, atol=1e-15)


@FEWER
@given(sliding(), st.lists(st.booleans(), min_size=3, max_size=3).filter(any), strategies.seeds())
def test_whichever_inputs_want_gradients(run, geometry, wanted, seed):
    arrays = operands(geometry, seed)
    with ta.conv_algorithm("plain"):
        expected = run(lambda *a: F.conv2d(*a, **geometry.conv), arrays)
    tensors = [ta.Tensor(a, requires_grad=wants) for a, wants in zip(arrays, wanted, strict=True)]
    y = F.conv2d(*tensors, **geometry.conv)
    y.backward(strategies.away_from_zero(y.shape, 1))
    assert [t.grad is not None for t in tensors] == wanted
    close([t.grad for t in tensors if t.grad is not None],
          [g for g, wants in zip(expected[1:], wanted, strict=True) if wants])


@FEWER
@given(sliding(out=6, padding=3, batch=2), st.booleans(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_gradients(geometry, bias, layout, device, seed):
    arrays = [strategies.laid_out(a, layout) for a in operands(geometry, seed, bias)]
    check_grads(lambda *a: F.conv2d(*a, **geometry.conv), *arrays, kind="multilinear",
                device=device).raise_if_wrong()


def test_two_backwards_give_twice_the_gradients():
    """Nothing that backward needs is overwritten by what forward and backward share."""
    x, w, b = (ta.Tensor(strategies.normal(s, 0), requires_grad=True)
               for s in [(2, 3, 5, 6), (3, 3, 3, 3), (3,)])
    y = F.conv2d(x, w, b, padding=1)
    y.sum().backward(retain_graph=True)
    once = [t.grad.copy() for t in (x, w, b)]
    F.conv2d(ta.Tensor(np.ones((4, 3, 9, 9))), w, padding=2)       # uses the same scratch
    y.sum().backward()
    assert all(np.array_equal(t.grad, 2 * g) for t, g in zip((x, w, b), once, strict=True))


# ---------------------------------------------------------------------------- bits

@ONCE
@given(sliding(), strategies.seeds())
def test_same_bits_for_every_layout(same_bits, geometry, seed):
    same_bits(lambda *a: F.conv2d(*a, **geometry.conv), *operands(geometry, seed))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 900, 1 << 20])
def test_same_bits_on_every_number_of_threads(same_bits_on_threads, block, dtype):
    x, w, b = (strategies.normal(s, 0, dtype) for s in [(9, 4, 6, 7), (3, 4, 3, 3), (3,)])
    with mock.patch.object(conv_fast, "BLOCK", block), spy() as rows:
        same_bits_on_threads(lambda *a: F.conv2d(*a, padding=(1, 2)), x, w, b)
        assert rows.called


@given(sliding(), strategies.seeds())
def test_float32_is_close_to_float64(float32_is_close, geometry, seed):
    float32_is_close(lambda *a: F.conv2d(*a, **geometry.conv), *operands(geometry, seed))


@pytest.mark.parametrize("channels, filters, taps, size", [(48, 128, 5, 27), (256, 192, 3, 13)],
                         ids=["conv2", "conv3"])
def test_float32_loses_little_on_the_layers_of_the_paper(run, channels, filters, taps, size):
    """Against sums in float64, and as part of the largest; the plain float32 path has 1e-6, too."""
    arrays = [strategies.normal(shape, i, np.float32) for i, shape in enumerate(
        [(2, channels, size, size), (filters, channels, taps, taps), (filters,)])]

    def fn(*a):
        return F.conv2d(*a, padding=taps // 2)

    gy = strategies.normal((2, filters, size, size), 9, np.float32)
    with spy() as rows:
        rough = run(fn, arrays, gy)
        assert rows.called
    with ta.conv_algorithm("plain"):
        exact = run(fn, [a.astype(np.float64) for a in arrays], gy.astype(np.float64))
    y, gx, gw, gb = (np.abs(a - b).max() / np.abs(b).max()
                     for a, b in zip(rough, exact, strict=True))
    assert y < 5e-6 and gx < 5e-6 and gw < 1e-5 and gb < 5e-6


# ---------------------------------------------------------------------------- when

@pytest.mark.parametrize("shape, options, slides", [
    *[pytest.param((CHANNELS, 3, taps), {}, 2 <= taps <= 5, id=f"{taps} taps")
      for taps in range(1, 7)],
    pytest.param((CHANNELS, 1, 3), {}, True, id="one row"),
    pytest.param((CHANNELS, 7, 3), {}, True, id="seven rows"),
    pytest.param((CHANNELS - 1, 3, 3), {}, False, id="too few channels"),
    pytest.param((CHANNELS + 1, 3, 3), {}, True, id="more channels"),
    pytest.param((2 * CHANNELS, 3, 3), dict(groups=2), False, id="groups"),
    pytest.param((CHANNELS, 3, 3), dict(stride=2), False, id="stride 2"),
    pytest.param((CHANNELS, 3, 3), dict(stride=(1, 2)), False, id="stride along a row"),
    pytest.param((CHANNELS, 3, 3), dict(stride=(2, 1)), False, id="stride between rows")])
def test_which_convolutions_slide(monkeypatch, run, shape, options, slides):
    monkeypatch.setattr(conv_fast, "CHANNELS", CHANNELS)
    C, KH, KW = shape
    arrays = [strategies.normal(s, 0) for s in
              [(2, C, 8, 9), (4, C // options.get("groups", 1), KH, KW), (4,)]]

    def fn(*a):
        return F.conv2d(*a, padding=1, **options)

    with ta.conv_algorithm("plain"), spy() as rows:
        expected = run(fn, arrays)
        assert not rows.called
    with spy() as rows:
        found = run(fn, arrays)
    assert rows.called == slides
    close(found, expected)


@pytest.mark.parametrize("small, rows", [(0, 8 * 8), (10**9, 8)])
def test_products_are_small_or_whole(monkeypatch, small, rows):
    """Few filters are multiplied by one row of outputs at a time, many by all rows of a block."""
    x, w = (strategies.normal(s, 0) for s in [(1, 3, 17, 17), (4, 3, 3, 3)])
    with ta.conv_algorithm("plain"):
        expected = F.conv2d(ta.Tensor(x), ta.Tensor(w), stride=2).data
    shapes = []
    monkeypatch.setattr(conv_fast, "SMALL", small)
    monkeypatch.setattr(conv_fast, "np", mock.Mock(wraps=np, matmul=lambda a, b, out: (
        shapes.append(a.shape), np.matmul(a, b, out=out))))
    y = F.conv2d(ta.Tensor(x), ta.Tensor(w), stride=2).data
    assert np.allclose(y, expected, rtol=0, atol=1e-12) and {s[-2] for s in shapes} == {rows}
