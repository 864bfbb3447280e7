"""The CUDA kernels, run as C++ on a CPU, beside the array operations that they stand in for.

Each runs between guards, so that what reads or writes beside an array is seen, and twice: with its
blocks and threads in order and in reverse. A result that depends on the order is a race.
"""

import pathlib

import numpy as np
import pytest
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from standin import compiled
from tinyalex import kernels, random
from tinyalex.data import Augment
from tinyalex.kernels import loader
from tinyalex.ops import dropout, geometry, lrn, pool
from tinyalex.ops.conv import col2im, im2col
from tinyalex.ops.loss import log_probabilities

try:
    compiled.build('extern "C" __global__ void nothing(int n) {}')
except compiled.NoCompiler as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))


def run(name, n, *args, rows=False, **macros):
    """Run a kernel as `kernels.launch` would, on NumPy arrays; each is written in place."""
    file, kernel = name.split(".")
    real = next((a.dtype for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f"),
                np.dtype(np.float32))
    built = compiled.build(loader.source(file), loader.options(real, **macros))
    blocks, threads = loader.geometry(n, rows)
    scalars = [a if a is None or isinstance(a, np.ndarray) else loader._argument(a, real)
               for a in args]
    outcomes = []
    for order in ("reverse", "forward"):
        arrays = [a.copy() if isinstance(a, np.ndarray) else a for a in scalars]
        built[kernel].run_on((blocks,), (threads,), (*arrays, np.int32(n)), order)
        outcomes.append(arrays)
    for given_, backward, forward in zip(args, *outcomes, strict=True):
        if isinstance(given_, np.ndarray):
            assert backward.tobytes() == forward.tobytes(), f"{name} depends on the threads' order"
            given_[...] = forward


def windows_of(draw):
    """The arguments H ... PL of a kernel, from a drawn Geometry."""
    rows, columns = draw.rows, draw.columns
    return (rows.size, columns.size, rows.kernel, columns.kernel, rows.out, columns.out,
            rows.stride, columns.stride, rows.pads[0], columns.pads[0])


# ---------------------------------------------------------------------------- conv

@given(strategies.conv_geometry(), strategies.dtypes(), strategies.seeds(), st.data())
def test_im2col_and_col2im(draw, dtype, seed, data):
    """Bit for bit, for the channels of each group; and the others are left alone."""
    x = strategies.normal(draw.x_shape, seed, dtype)
    N, C = x.shape[:2]
    own = C // draw.groups
    first = own * data.draw(st.integers(0, draw.groups - 1))
    H, W, KH, KW, OH, OW, SH, SW, PT, PL = windows_of(draw)
    mine = x[:, first:first + own]
    plain = im2col(np, mine, (KH, KW), (SH, SW), ((PT, 0), (PL, 0)), (OH, OW))
    cols = np.full((own * KH * KW, N * OH * OW), np.nan, dtype)
    some = data.draw(st.integers(1, KH + 1))
    run("im2col.im2col", own * -(-KH // some) * N * OH * OW, x, cols, first, N, C,
        *windows_of(draw), some)
    assert np.array_equal(cols, plain.transpose(1, 2, 3, 0, 4, 5).reshape(cols.shape))

    cols = strategies.normal(cols.shape, seed + 1, dtype)
    gx = np.full(x.shape, np.nan, dtype)
    run("im2col.col2im", mine.size, cols, gx, first, N, C, *windows_of(draw))
    spread = cols.reshape(own, KH, KW, N, OH, OW).transpose(3, 0, 1, 2, 4, 5)
    back = col2im(np, spread, mine.shape, (SH, SW), ((PT, 0), (PL, 0)))
    assert np.array_equal(gx[:, first:first + own], back)
    others = np.delete(gx, np.s_[first:first + own], axis=1)
    assert np.isnan(others).all()


@given(st.tuples(*[st.integers(1, 5)] * 3), strategies.dtypes(), strategies.seeds(),
       st.booleans(), st.booleans())
def test_bias_and_relu_put_rows_into_the_order_of_maps(shape, dtype, seed, biased, relu):
    N, K, M = shape
    rows = strategies.normal((K, N, M), seed, dtype)
    b = strategies.normal(K, seed + 1, dtype) if biased else None
    expected = rows.transpose(1, 0, 2) + (b[:, None] if biased else 0)
    expected = np.maximum(expected, 0) if relu else expected
    y = np.full((N, K, M), np.nan, dtype)
    run("bias.bias_relu", y.size, rows, b, y, K, M, M, N * M, relu)
    assert np.array_equal(y, expected)

    gy, back = strategies.normal(shape, seed + 2, dtype), np.full((K, N, M), np.nan, dtype)
    run("bias.to_rows", back.size, gy, back, N, K, M)
    assert np.array_equal(back, gy.transpose(1, 0, 2))

    gx = np.full(shape, np.nan, dtype)
    run("bias.relu_backward", gx.size, gy, y, gx)
    assert np.array_equal(gx, gy * (y > 0))

    positive = np.full(shape, np.nan, dtype)
    run("bias.relu", gy.size, gy, positive)
    assert np.array_equal(positive, np.maximum(gy, 0))


def test_the_bias_of_a_layer_is_added_where_its_products_lie():
    y, b = strategies.normal((3, 7), 0), strategies.normal(7, 1)
    expected = y + b
    built = compiled.build(loader.source("bias"), loader.options(y.dtype))
    built["bias_relu"].run((1,), (256,), (y.ctypes.data, b.ctypes.data, y.ctypes.data,
                                          7, 1, 7, 1, 0, 21))
    assert np.array_equal(y, expected)


def test_nan_passes_a_relu():
    """It is no number, so it is not below zero; on a card it must be as visible as elsewhere."""
    rows, y = np.array([np.nan, -1.0, 2.0]), np.zeros(3)
    run("bias.bias_relu", 3, rows, None, y, 1, 3, 3, 3, True)
    assert np.array_equal(y, [np.nan, 0, 2], equal_nan=True)
    run("bias.relu", 3, rows, y)
    assert np.array_equal(y, [np.nan, 0, 2], equal_nan=True)


# ---------------------------------------------------------------------------- pool

@given(strategies.pool_geometry(), strategies.dtypes(), strategies.seeds(), st.booleans())
def test_max_pool(draw, dtype, seed, ties):
    x = strategies.normal(draw.x_shape, seed, dtype)
    x = np.round(x) if ties else x
    op = pool.MaxPool2d(**draw.pool)
    op.device, op.xp, op.recording, op.shapes = ta.Device("cpu:0"), np, True, [x.shape]
    op.ledger = op.device.ledger
    expected = op.forward(x)
    (winners,) = op.saved
    y, winner = np.full(expected.shape, np.nan, dtype), np.zeros(expected.shape, np.uint8)
    run("pool.max_pool_forward", y.size, x, y, winner, *windows_of(draw))
    assert np.array_equal(y, expected) and np.array_equal(winner, winners)
    alone = np.full(y.shape, np.nan, dtype)
    run("pool.max_pool_forward", y.size, x, alone, None, *windows_of(draw))
    assert np.array_equal(alone, expected)

    gy, gx = strategies.normal(y.shape, seed + 1, dtype), np.full(x.shape, np.nan, dtype)
    run("pool.max_pool_backward", gx.size, gy, winner, gx, *windows_of(draw))
    (back,) = op.backward(gy)
    assert np.array_equal(gx, back)


@pytest.mark.parametrize("place", range(4))
def test_nan_wins_a_pool(place):
    x, y, winner = np.arange(4.0), np.zeros(1), np.zeros(1, np.uint8)
    x[place] = np.nan
    run("pool.max_pool_forward", 1, x, y, winner, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0)
    assert np.isnan(y[0]) and winner[0] == place


def test_minus_infinity_is_a_maximum_too():
    x, y, winner = np.full(4, -np.inf), np.zeros(1), np.full(1, 9, np.uint8)
    run("pool.max_pool_forward", 1, x, y, winner, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0)
    assert y[0] == -np.inf and winner[0] == 0


# ---------------------------------------------------------------------------- LRN

@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([0.75, 0.5, 1.3]),
       strategies.dtypes(), strategies.seeds())
def test_response_normalization(size, channels, beta, dtype, seed):
    """From windows wider than the maps are many to several strips."""
    x = strategies.normal((2, channels, 2, 3), seed, dtype, scale=2)
    gy = strategies.normal(x.shape, seed + 1, dtype)
    op = lrn.LocalResponseNorm(size, 0.7, beta, 1.5, divide_alpha=False)
    op.device, op.xp, op.recording = ta.Device("cpu:0"), np, True
    expected = op.forward(x)
    y, d, gx = (np.full(x.shape, np.nan, dtype) for _ in range(3))
    n, C, M = op.strips(x), channels, 6
    run("lrn.forward", n, x, y, d, C, M, 0.7, beta, 1.5, SIZE=size)
    run("lrn.backward", n, x, d, gy, gx, C, M, 0.7, beta, SIZE=size)
    (back,) = op.backward(gy)
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    for kernels_, plain in ((y, expected), (d, op.saved[1]), (gx, back)):
        assert np.abs(kernels_ - plain).max() <= tolerance * max(1, np.abs(plain).max())
    alone = np.full(x.shape, np.nan, dtype)
    run("lrn.forward", n, x, alone, None, C, M, 0.7, beta, 1.5, SIZE=size)
    assert np.array_equal(alone, y)


# ---------------------------------------------------------------------------- dropout

@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 9), st.integers(0, 9),
       st.integers(0, 7), st.integers(0, 3), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_masks_are_those_of_numpy_bit_for_bit(rows, own, start, more, first_row, use, p, seed):
    units, before = start + own + more, random.get_state()
    try:
        random.set_state(seed, seed // 3)
        words = random.bits("dropout", "drop6", rows, units, use=use, first_row=first_row)
        threshold = round(p * 2**32)
        mask = np.full((rows, own), 9, np.uint8)
        numbers = (*random.key("dropout", "drop6"), use, seed // 3, threshold, first_row, units,
                   start)
        run("dropout.draw_mask", mask.size, mask, *map(np.uint64, numbers), own)
        assert np.array_equal(mask, words[:, start:start + own] >= threshold)
    finally:
        random.set_state(**before)


def test_the_twin_of_the_masks_is_what_dropout_draws():
    random.set_state(5, 6)
    mask = dropout.draw_mask((3, 4), 0.5, "drop7", units=10, start=5, first_row=2)
    random.set_state(5, 6)
    words = random.bits("dropout", "drop7", 3, 10, use=0, first_row=2)
    assert np.array_equal(mask, words[:, 5:9] >= 2**31)


# ---------------------------------------------------------------------------- loss

@given(st.integers(1, 4), st.sampled_from([1, 2, 10, 255, 256, 257, 1000]), strategies.dtypes(),
       strategies.seeds())
def test_softmax_cross_entropy(rows, classes, dtype, seed):
    x = strategies.normal((rows, classes), seed, dtype, scale=30)
    labels = strategies.labels(rows, classes, seed)
    logp, gx = np.full_like(x, np.nan), np.full_like(x, np.nan)
    losses = np.full(rows, np.nan, dtype)
    run("loss.forward", rows, x, labels, logp, losses, classes, rows=True)
    expected = log_probabilities(np, x)
    eps = 1e-5 if dtype == np.float32 else 1e-13
    assert np.abs(logp - expected).max() <= eps * np.abs(expected).max(initial=1)
    assert np.array_equal(losses, -logp[np.arange(rows), labels])

    gy = np.array([1.7], dtype)
    run("loss.backward", x.size, logp, labels, gy, gx, rows, classes)
    back = np.exp(logp)
    back[np.arange(rows), labels] -= 1
    assert np.abs(gx - back * (gy / rows)).max() <= eps


def test_nan_among_logits_is_seen():
    for place in (0, 1, 299):
        x, logp, losses = np.ones((1, 300)), np.zeros((1, 300)), np.zeros(1)
        x[0, place] = np.nan
        run("loss.forward", 1, x, np.array([7]), logp, losses, 300, rows=True)
        assert np.isnan(losses[0])


# ---------------------------------------------------------------------------- SGD, scatter

@given(st.integers(1, 600), strategies.dtypes(), strategies.seeds())
def test_update(n, dtype, seed):
    w, g, v = (strategies.normal(n, seed + i, dtype) for i in range(3))
    velocity = dtype(0.9) * v - dtype(0.1) * g - dtype(0.005) * w
    expected = w + velocity
    run("sgd.update", n, w, g, v, 0.9, 0.1, 0.005)
    eps = 1e-6 if dtype == np.float32 else 1e-15
    assert np.abs(v - velocity).max() <= eps * 4 and np.abs(w - expected).max() <= eps * 4


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), strategies.dtypes(),
       strategies.seeds())
def test_scatter_adds_in_order(index, dtype, seed):
    gy, places = strategies.normal(len(index), seed, dtype), np.array(index)
    order = np.argsort(places, kind="stable")
    begin = np.searchsorted(places[order], np.arange(8))
    gx, expected = np.full(7, np.nan, dtype), np.zeros(7, dtype)
    np.add.at(expected, places, gy)
    run("scatter.add", 7, gy, order, begin, gx)
    assert np.array_equal(gx, expected)


# ---------------------------------------------------------------------------- input

@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
       st.integers(1, 7), st.booleans(), st.sampled_from([0.0, 0.1]), st.booleans(),
       strategies.seeds())
def test_crops_are_those_of_numpy_bit_for_bit(sizes, size, central, noise, ten, seed):
    """Pictures of all sizes, some like the mean picture's; windows that hang over each side."""
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [*sizes, (8, 6)]]
    augment = Augment(size, rng.random((8, 6, 3)) * 255, 64.0, rng.random(3) * 1e4,
                      rng.random((3, 3)), noise, central_mean=central)
    crops = augment.ten(pictures, "cpu:0").flat() if ten else \
        augment.train(pictures, rng, device="cpu:0")
    images = np.full(crops.shape, np.nan, np.float32)
    means = augment.means
    run("input.crop", images.size, crops.bytes, crops.table, means.picture, means.central,
        means.color, crops.noise, images, size, 6, float(crops.divisor))
    assert np.array_equal(images, crops.on("cpu:0").numpy())


# ---------------------------------------------------------------------------- launching

@given(st.integers(0, loader.LARGEST) | st.sampled_from([0, 1, 255, 256, 257, loader.LARGEST]),
       st.booleans())
def test_every_thread_is_there_and_no_block_too_many(n, rows):
    blocks, threads = loader.geometry(n, rows)
    assert threads == 256 and 0 <= blocks <= 2**31 - 1          # what any card takes
    assert blocks == n if rows else n <= blocks * threads < n + threads


@given(st.integers(1, loader.LARGEST) | st.just(loader.LARGEST), st.data())
def test_each_number_belongs_to_one_thread(n, data):
    """Blocks count on from each other in the kernels' 32 bits, up to the last thread."""
    blocks, threads = loader.geometry(n)
    block = data.draw(st.integers(0, blocks - 1) | st.just(blocks - 1))
    i = (np.uint32(block) * np.uint32(threads) + np.arange(threads, dtype=np.uint32)).view(np.int32)
    assert np.array_equal(i, np.arange(block * threads, (block + 1) * threads))


@given(st.integers(1, 40), st.integers(1, 200), st.integers(1, 40))
def test_strips_cover_every_channel_of_every_pixel(n, channels, pixels):
    x = np.empty((n, channels, 1, pixels), np.int8)
    strips = lrn.LocalResponseNorm.strips(x)
    assert strips % (n * pixels) == 0 and strips // (n * pixels) == -(-channels // 32)


def test_numbers_become_what_kernels_take():
    real = np.dtype(np.float32)
    for value, expected in [(3, np.int32(3)), (True, np.int32(1)), (0.1, np.float32(0.1)),
                            (None, np.uint64(0)), (np.uint64(7), np.uint64(7)),
                            (np.float64(0.1), np.float32(0.1))]:
        found = loader._argument(value, real)
        assert found == expected and found.dtype == expected.dtype


def test_kernels_are_for_gpus_and_can_be_switched_off():
    class Gpu:
        kind = "cuda"

    assert not kernels.on(ta.Device("cpu:0")) and kernels.on(Gpu)
    with kernels.off():
        assert not kernels.on(Gpu)
    assert kernels.on(Gpu)


def test_every_kernel_is_tested_here():
    named = set()
    for path in loader.FOLDER.glob("*.cu"):
        named |= {f"{path.stem}.{kernel}"
                  for kernel in compiled.build(loader.source(path.stem), ("-DREAL=float",))}
    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    assert not {name for name in named if f'"{name}"' not in text}


def test_geometry_reads_as_the_kernels_take_it():
    op = pool.MaxPool2d((3, 2), (2, 1), ((1, 0), (0, 1)))
    assert op.geometry((5, 6, 7, 8), (4, 9)) == (7, 8, 3, 2, 4, 9, 2, 1, 1, 0)
    assert geometry.sides(2) == ((2, 2), (2, 2))
