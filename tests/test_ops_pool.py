"""Pooling: windows that overlap, hang over and tie."""

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given, settings
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_direction, check_grads

FEWER = settings(max_examples=max(10, settings().max_examples // 2))
POOLS = {"max": F.max_pool2d, "ties": F.max_pool2d_ties, "avg": F.avg_pool2d}
ORACLES = {"max": ref.max_pool2d, "ties": ref.max_pool2d, "avg": ref.avg_pool2d}
by_each = pytest.mark.parametrize("pool", POOLS)


def maps(rows):
    """One picture of one channel, (1, 1, H, W)."""
    return np.array(rows, np.float64)[None, None]


def gradient(fn, x, gy, **options):
    """What the pool `fn` sends back to x."""
    x = ta.Tensor(x, requires_grad=True)
    fn(x, **options).backward(gy)
    return x.grad


def straight(pool, shape, seed):
    """An input along each element of which the pool is a straight line for steps of 1."""
    return strategies.normal(shape, seed) if pool == "avg" else \
        strategies.distinct(shape, seed, gap=4)


# ---------------------------------------------------------------------------- forward

@by_each
@given(strategies.pool_geometry(), strategies.dtypes(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_a_pool_is_its_definition(agrees, pool, geometry, dtype, layout, device, seed):
    agrees(lambda x: POOLS[pool](x, **geometry.pool), lambda x: ORACLES[pool](x, **geometry.pool),
           strategies.normal(geometry.x_shape, seed), dtype=dtype, layout=layout, device=device)


@by_each
def test_the_sizes_of_alexnet_and_of_cifar(pool):
    def size(n, ceil_mode):
        return POOLS[pool](ta.Tensor(np.ones((1, 1, n, n))), 3, 2, ceil_mode=ceil_mode).shape[2]

    for ceil_mode in (False, True):
        assert [size(n, ceil_mode) for n in (55, 27, 13)] == [27, 13, 6]       # they fit
    assert [size(n, True) for n in (32, 16, 8)] == [16, 8, 4]                  # clipped
    assert [size(n, False) for n in (32, 16, 8)] == [15, 7, 3]


@pytest.mark.parametrize("pool", ["max", "ties"])
def test_padding_never_wins(pool):
    """Padded with zeros, a window of negative numbers would have the largest value 0."""
    x = ta.Tensor(np.full((2, 3, 5, 5), -7.0), requires_grad=True)
    for options in (dict(padding=1), dict(ceil_mode=True), dict(padding=((1, 0), (0, 1)))):
        y = POOLS[pool](x, 2, 2, **options)
        assert (y.data == -7).all()
    x = ta.Tensor(np.full((1, 1, 3, 3), -np.inf), requires_grad=True)
    y = POOLS[pool](x, 3, 2, padding=1)
    assert (y.data == -np.inf).all()
    y.backward(np.ones(y.shape))
    assert x.grad.sum() == (4 if pool == "max" else 16)       # even then somebody wins


@pytest.mark.parametrize("pool", ["max", "ties"])
def test_not_a_number_is_not_hidden(pool):
    y = POOLS[pool](ta.Tensor(maps([[1, 2], [np.nan, 3]])), 2)
    assert np.isnan(y.item())


def test_the_average_is_over_the_pixels_inside():
    x = maps([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
    y = F.avg_pool2d(ta.Tensor(x), 3, 2, ceil_mode=True)
    assert y.data.tolist() == maps([[6, 7.5], [12, 13.5]]).tolist()      # of 9, 6, 6 and 4 pixels
    y = F.avg_pool2d(ta.Tensor(x), 2, 2, padding=1)
    assert y.data.tolist() == maps([[1, 2.5, 4], [7, 8.5, 10], [13, 14.5, 16]]).tolist()


# ---------------------------------------------------------------------------- gradients

@by_each
@FEWER
@given(strategies.pool_geometry(), strategies.layouts(), strategies.devices(), strategies.seeds())
def test_gradients(pool, geometry, layout, device, seed):
    x = strategies.laid_out(straight(pool, geometry.x_shape, seed), layout)
    check_grads(lambda x: POOLS[pool](x, **geometry.pool), x, kind="multilinear",
                device=device).raise_if_wrong()


@by_each
def test_on_every_device(pool, device):
    check_grads(lambda x: POOLS[pool](x, (3, 2), 2, (1, 0), True), straight(pool, (2, 3, 6, 7), 0),
                kind="multilinear", device=device,
                reference=lambda x: ORACLES[pool](x, (3, 2), 2, (1, 0), True)).raise_if_wrong()


@by_each
@given(strategies.pool_geometry(), strategies.seeds())
def test_backward_is_the_adjoint_of_forward(run, pool, geometry, seed):
    """Where the winners stand still, a max-pool too is linear: y = P x, and backward is P^T."""
    x = straight(pool, geometry.x_shape, seed)

    def fn(x):
        return POOLS[pool](x, **geometry.pool)

    check_adjoint(lambda x: fn(ta.Tensor(x)).data, lambda c: run(fn, [x], c)[1],
                  x).raise_if_wrong()


def test_a_pixel_that_wins_in_four_windows_is_paid_four_times():
    x = maps([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 99, 12, 13], [14, 15, 16, 17, 18],
              [19, 20, 21, 22, 23]])
    gx = gradient(F.max_pool2d, x, maps([[1, 10], [100, 1000]]), kernel_size=3, stride=2)
    expected = np.zeros((1, 1, 5, 5))
    expected[0, 0, 2, 2] = 1111
    assert np.array_equal(gx, expected)


# ---------------------------------------------------------------------------- ties

def test_the_first_maximum_wins_row_by_row():
    for x, winner in [([[5, 5], [5, 5]], (0, 0)), ([[1, 5], [5, 5]], (0, 1)),
                      ([[1, 2], [5, 5]], (1, 0)), ([[1, 2], [3, 5]], (1, 1)),
                      ([[-0.0, 0.0], [0.0, -0.0]], (0, 0))]:
        gx = gradient(F.max_pool2d, maps(x), maps([[3]]), kernel_size=2)
        assert [int(i) for i in np.argwhere(gx[0, 0])[0]] == list(winner) and gx.sum() == 3
        assert (gx[0, 0][winner]) == 3


@given(strategies.pool_geometry(kernel=4), strategies.layouts(), st.integers(1, 3),
       strategies.seeds())
def test_ties(geometry, layout, values, seed):
    """Pixels of few values tie everywhere. One winner per window conserves the gradient's mass;
    the source's rule, every tie takes the whole gradient, hands out more."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, values, geometry.x_shape).astype(np.float64)
    gy = rng.integers(1, 9, geometry.pool_shape).astype(np.float64)     # sums are exact
    given = strategies.laid_out(x, layout)
    once = gradient(F.max_pool2d, given, gy, **geometry.pool)
    often = gradient(F.max_pool2d_ties, given, gy, **geometry.pool)
    assert np.array_equal(once, ref.max_pool2d_backward(x, gy, **geometry.pool))
    assert np.array_equal(often, ref.max_pool2d_backward(x, gy, **geometry.pool, ties=True))
    assert once.sum() == gy.sum() and (often >= once).all()


def test_every_tie_takes_all_in_the_source():
    x = maps([[2, 2, 0], [2, 1, 0]])
    gx = gradient(F.max_pool2d_ties, x, maps([[10, 1]]), kernel_size=2, stride=1)
    assert gx.tolist() == maps([[10, 11, 0], [10, 0, 0]]).tolist()
    assert gradient(F.max_pool2d, x, maps([[10, 1]]), kernel_size=2, stride=1).tolist() == \
        maps([[10, 1, 0], [0, 0, 0]]).tolist()


@pytest.mark.parametrize("kernel", [15, 16, 17, 20])
def test_windows_of_more_pixels_than_a_byte_counts(kernel):
    """Winners are noted in a byte, or in two where a window has more than 255 pixels."""
    for at in [(0, 0), (0, kernel - 1), (kernel - 1, 0), (kernel - 1, kernel - 1), (7, 9)]:
        x = np.zeros((1, 1, kernel, kernel))
        x[0, 0][at] = 1
        gx = gradient(F.max_pool2d, x, maps([[3]]), kernel_size=kernel)
        assert np.array_equal(gx, 3 * x)
    gx = gradient(F.max_pool2d, np.zeros((1, 1, kernel, kernel)), maps([[3]]), kernel_size=kernel)
    assert gx[0, 0, 0, 0] == gx.sum() == 3


# ---------------------------------------------------------------------------- bits

@by_each
@settings(max_examples=max(5, settings().max_examples // 10))
@given(strategies.pool_geometry(), strategies.seeds())
def test_same_bits_for_every_layout(same_bits, pool, geometry, seed):
    same_bits(lambda x: POOLS[pool](x, **geometry.pool), strategies.normal(geometry.x_shape, seed))


@by_each
def test_same_bits_on_every_number_of_threads(same_bits_on_threads, pool):
    same_bits_on_threads(lambda x: POOLS[pool](x, 3, 2, 1), strategies.normal((9, 3, 8, 7), 0))


@by_each
@given(strategies.pool_geometry(), strategies.seeds())
def test_float32_is_close_to_float64(float32_is_close, pool, geometry, seed):
    float32_is_close(lambda x: POOLS[pool](x, **geometry.pool),
                     strategies.distinct(geometry.x_shape, seed))


# ---------------------------------------------------------------------------- AlexNet's own

@by_each
@pytest.mark.parametrize("channels, size", [
    pytest.param(48, 55, id="pool1"), pytest.param(128, 27, id="pool2"),
    pytest.param(128, 13, id="pool5")])
def test_one_tower_of_the_paper_in_one_direction(pool, channels, size):
    check_direction(lambda x: POOLS[pool](x, 3, 2), straight(pool, (2, channels, size, size), 0),
                    kind="multilinear").raise_if_wrong()


# ---------------------------------------------------------------------------- errors

@by_each
@pytest.mark.parametrize("shape, arguments, message", [
    ((4, 6, 6), (3,), r"Pool2d.*: needs maps \(N, C, H, W\); got 3 axes \(input \(4, 6, 6\)"),
    ((0, 4, 6, 6), (3,), r"Pool2d.*: the batch is empty \(input \(0, 4, 6, 6\)"),
    ((1, 4, 6, 6), (7,), r"the padded input is smaller than the window \(input \(1, 4, 6, 6\), "
                         r"kernel \(7, 7\), stride \(7, 7\), padding \(\(0, 0\), \(0, 0\)\)\)"),
    ((1, 4, 6, 6), (0,), "kernel_size: got 0; expected an integer of at least 1 or a pair"),
    ((1, 4, 6, 6), ("3",), "kernel_size: got '3'"),
    ((1, 4, 6, 6), (2.0,), "kernel_size: got 2.0"),
    ((1, 4, 6, 6), ((2, 2, 2),), r"kernel_size: got \(2, 2, 2\); .* \(vertical, horizontal\)"),
    ((1, 4, 6, 6), (3, 0), "stride: got 0; expected an integer of at least 1"),
    ((1, 4, 6, 6), (3, -2), "stride: got -2"),
    ((1, 4, 6, 6), (3, 2, -1), "padding: got -1; expected an integer of at least 0"),
    ((1, 4, 6, 6), (3, 2, 2), "padding of more than half the kernel makes windows without a pixel"),
    ((1, 4, 6, 6), (3, 2, ((0, 0), (0, 2))), "padding of more than half the kernel"),
    ((1, 4, 6, 6), (3, 2, "same"), "padding: got 'same'")])
def test_errors_teach(pool, shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        POOLS[pool](ta.Tensor(strategies.normal(shape, 0)), *arguments)


@by_each
def test_plain_arrays_are_refused(pool):
    with pytest.raises(TypeError, match=r"Pool2d.*: got a plain ndarray; expected a Tensor: wrap"):
        POOLS[pool](np.ones((1, 1, 2, 2)), 2)
