"""The oracle against numbers worked out by hand, and the strategies against the oracle."""

import numpy as np
import pytest
import reference as ref
import strategies
from hypothesis import given

NEAR = dict(rtol=1e-14, atol=1e-14)


def maps(rows):
    """One picture of one channel, (1, 1, H, W)."""
    return np.array(rows, float)[None, None]


NINE = maps([[1, 2, 3],
             [4, 5, 6],
             [7, 8, 9]])


# ---------------------------------------------------------------------------- geometry

def test_conv_size():
    assert ref.conv_size(224, 11, 4, (0, 0)) == 54                   # 1 + floor(53.25)
    assert ref.conv_size(224, 11, 4, (0, 0), ceil_mode=True) == 55   # 1 + ceil(53.25)
    assert ref.conv_size(227, 11, 4, (0, 0)) == 55                   # 1 + 54, it fits
    assert ref.conv_size(224, 11, 4, (0, 3)) == 55                   # the overhang as padding
    assert ref.conv_size(27, 5, 1, (2, 2)) == 27
    with pytest.raises(ValueError, match="no window of 4"):
        ref.conv_size(3, 4, 1, (0, 0))


def test_pool_size():
    assert [ref.pool_size(n, 3, 2, (0, 0)) for n in (55, 27, 13)] == [27, 13, 6]
    assert [ref.pool_size(n, 3, 2, (0, 0), ceil_mode=True) for n in (32, 16, 8)] == [16, 8, 4]
    # 3 wide, windows of 2, stride 2, one column of padding on each side.  Rounded up there are
    # 1 + ceil(1.5) = 3 windows; they start at -1, 1 and 3.  The third is outside: 2 remain.
    assert ref.conv_size(3, 2, 2, (1, 1), ceil_mode=True) == 3
    assert ref.pool_size(3, 2, 2, (1, 1), ceil_mode=True) == 2


def test_the_three_spellings_of_a_padding():
    assert ref.sides(2) == ((2, 2), (2, 2))
    assert ref.sides((1, 2)) == ((1, 1), (2, 2))
    assert ref.sides(((0, 1), (2, 3))) == ((0, 1), (2, 3))


# ---------------------------------------------------------------------------- convolution

def test_conv2d_is_a_sum_over_the_window():
    w = maps([[1, 10], [100, 1000]])
    # top left: 1 + 2*10 + 4*100 + 5*1000; it is a correlation, the kernel is not turned round
    assert ref.conv2d(NINE, w).tolist() == [[[[5421, 6532], [8754, 9865]]]]


def test_conv2d_bias_stride_and_both_rounding_rules():
    x, w, b = maps([[1, 2, 3, 4]]), maps([[1, 10, 100]]), np.array([0.5])
    assert ref.conv2d(x, w, b, stride=2).tolist() == [[[[321.5]]]]
    # rounded up, a second window starts at the 3 and hangs over by one: 3 + 4*10 + 0*100
    assert ref.conv2d(x, w, b, stride=(1, 2), ceil_mode=True).tolist() == [[[[321.5, 43.5]]]]


def test_conv2d_padding_on_one_side():
    x, w = maps([[1, 2]]), maps([[1, 10]])
    # 0 1 2 0 0 has the windows 0+10, 1+20, 2+0, 0+0
    assert ref.conv2d(x, w, padding=((0, 0), (1, 2))).tolist() == [[[[10, 21, 2, 0]]]]
    # (1, 0): a row of zeros above and below, none at the sides
    assert ref.conv2d(x, w, padding=(1, 0)).tolist() == [[[[0], [21], [0]]]]


def test_conv2d_channels_groups_and_pictures():
    x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], float).reshape(2, 4, 1, 1)
    every = np.array([[1, 10, 100, 1000]], float).reshape(1, 4, 1, 1)
    assert ref.conv2d(x, every)[:, :, 0, 0].tolist() == [[4321], [8765]]
    # two groups of one filter: the first sees channels 0 and 1, the second 2 and 3
    half = np.array([[1, 10], [1, 10]], float).reshape(2, 2, 1, 1)
    assert ref.conv2d(x, half, groups=2)[:, :, 0, 0].tolist() == [[21, 43], [65, 87]]


def test_conv2d_of_the_paper_keeps_its_last_window():
    # 224 wide, 11 wide windows 4 apart: number 54 starts at 216 and sees 8 columns of 11
    x, w = np.ones((1, 1, 11, 224)), np.ones((1, 1, 11, 11))
    y = ref.conv2d(x, w, stride=4, ceil_mode=True)
    assert y.shape == (1, 1, 1, 55)
    assert y[0, 0, 0, [0, 53, 54]].tolist() == [121, 121, 88]


def test_im2col():
    # windows [1 2 4 5] [2 3 5 6] [4 5 7 8] [5 6 8 9], each one column
    assert ref.im2col(NINE, 2)[0].T.tolist() == [[1, 2, 4, 5], [2, 3, 5, 6],
                                                 [4, 5, 7, 8], [5, 6, 8, 9]]
    # 0 1 2 by twos with a stride of 2 that does not divide: the leftover 2 is not seen
    assert ref.im2col(maps([[1, 2]]), (1, 2), 2, ((0, 0), (1, 0)))[0].T.tolist() == [[0, 1]]
    assert ref.im2col(maps([[1, 2]]), (1, 2), 2, ((0, 0), (1, 0)),
                      ceil_mode=True)[0].T.tolist() == [[0, 1], [2, 0]]


def test_im2col_orders_channel_row_column():
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    assert ref.im2col(x, 2)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_col2im_adds_up_what_im2col_took_several_times():
    # of ones, each pixel gets the number of windows it is in: 1 at corners, 4 in the middle
    ones = np.ones((1, 4, 4))
    assert ref.col2im(ones, (1, 1, 3, 3), 2).tolist() == maps([[1, 2, 1],
                                                               [2, 4, 2],
                                                               [1, 2, 1]]).tolist()
    # what came from the padding is dropped
    assert ref.col2im(np.array([[[5.0], [7.0]]]), (1, 1, 1, 2), (1, 2), 2,
                      ((0, 0), (1, 0))).tolist() == [[[[7, 0]]]]


# ---------------------------------------------------------------------------- pooling

def test_max_pool2d_overlapping_and_clipped():
    assert ref.max_pool2d(NINE, 2, 1).tolist() == maps([[5, 6], [8, 9]]).tolist()
    assert ref.max_pool2d(NINE, 2).tolist() == maps([[5]]).tolist()
    # rounded up, the windows at the right and bottom see what is there
    assert ref.max_pool2d(NINE, 2, ceil_mode=True).tolist() == maps([[5, 6], [8, 9]]).tolist()


def test_max_pool2d_padding_never_wins():
    y = ref.max_pool2d(-NINE, 2, 2, 1)
    # windows: [-1] [-2 -3] / [-4 -7] [-5 -6 -8 -9]
    assert y.tolist() == maps([[-1, -2], [-4, -5]]).tolist()


def test_max_pool2d_backward_first_maximum_or_all():
    x, gy = maps([[3, 1, 3], [0, 3, 0]]), maps([[10, 100]])
    # windows [3 1 0 3] and [1 3 3 0]: first maxima at (0,0) and (0,2); (1,1) ties in both
    assert ref.max_pool2d_backward(x, gy, 2, 1).tolist() == maps([[10, 0, 100],
                                                                  [0, 0, 0]]).tolist()
    assert ref.max_pool2d_backward(x, gy, 2, 1, ties=True).tolist() == maps(
        [[10, 0, 100], [0, 110, 0]]).tolist()


def test_max_pool2d_backward_adds_up_where_windows_overlap():
    x, gy = maps([[0, 0, 0], [0, 9, 0], [0, 0, 0]]), maps([[1, 10], [100, 1000]])
    assert ref.max_pool2d_backward(x, gy, 2, 1).sum() == 1111
    assert ref.max_pool2d_backward(x, gy, 2, 1)[0, 0, 1, 1] == 1111


def test_avg_pool2d_divides_by_what_it_sees():
    assert ref.avg_pool2d(NINE, 2).tolist() == maps([[3]]).tolist()             # (1+2+4+5) / 4
    # clipped at the right (3+6) / 2, at the bottom (7+8) / 2, in the corner 9 / 1
    assert ref.avg_pool2d(NINE, 2, ceil_mode=True).tolist() == maps([[3, 4.5], [7.5, 9]]).tolist()
    # padding does not count: 1 / 1, (2+3) / 2, (4+7) / 2, (5+6+8+9) / 4
    assert ref.avg_pool2d(NINE, 2, 2, 1).tolist() == maps([[1, 2.5], [5.5, 7]]).tolist()


# ---------------------------------------------------------------------------- normalization

def test_local_response_norm_window_and_edges():
    x = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    # size 3, beta 1, k 1, alpha 3 divided by 3: y_i = x_i / (1 + sum of squares around i)
    y = ref.local_response_norm(x, 3, alpha=3, beta=1, k=1)
    np.testing.assert_allclose(y.ravel(), [1 / 6, 2 / 15, 3 / 30, 4 / 26], **NEAR)
    # undivided, alpha 1 is the same
    undivided = ref.local_response_norm(x, 3, 1, 1, 1, divide_alpha=False)
    np.testing.assert_allclose(undivided, y, **NEAR)


def test_local_response_norm_even_size_reaches_further_down():
    x = np.array([1.0, 2, 3]).reshape(1, 3, 1, 1)
    # size 2 sees i-1 and i: 1, 1+4, 4+9
    y = ref.local_response_norm(x, 2, alpha=2, beta=1, k=0)
    np.testing.assert_allclose(y.ravel(), [1 / 1, 2 / 5, 3 / 13], **NEAR)


def test_local_response_norm_k_beta_and_a_window_wider_than_the_channels():
    x = np.array([3.0, 4]).reshape(1, 2, 1, 1)
    # alpha 5 over size 5 is 1; 9 + 16 = 25 for both, k = 11 makes 36, to the power 1/2 is 6
    y = ref.local_response_norm(x, 5, alpha=5, beta=0.5, k=11)
    np.testing.assert_allclose(y.ravel(), [3 / 6, 4 / 6], **NEAR)


def test_spatial_response_norm():
    x = np.stack([maps([[1, 2, 3]])[0], maps([[10, 10, 10]])[0]], axis=1)      # (1, 2, 1, 3)
    # size 3, alpha 9 over 3^2 is 1, beta 1, k 0: sums of squares 1+4, 1+4+9, 4+9 in its own map
    y = ref.spatial_response_norm(x, 3, alpha=9, beta=1, k=0)
    np.testing.assert_allclose(y[0, 0, 0], [1 / 5, 2 / 14, 3 / 13], **NEAR)
    np.testing.assert_allclose(y[0, 1, 0], [10 / 200, 10 / 300, 10 / 200], **NEAR)
    # an even size begins size//2 before: 1, 1+4, 4+9
    y = ref.spatial_response_norm(x, 2, alpha=4, beta=1, k=0)
    np.testing.assert_allclose(y[0, 0, 0], [1 / 1, 2 / 5, 3 / 13], **NEAR)


def test_spatial_response_norm_covers_rows_too():
    # of ones, k 0, beta 1, alpha 9/9: 1 / (how many pixels the 3x3 window sees): 4, 6 or 9
    y = ref.spatial_response_norm(np.ones((1, 1, 3, 3)), 3, alpha=9, beta=1, k=0)
    np.testing.assert_allclose(1 / y[0, 0], [[4, 6, 4], [6, 9, 6], [4, 6, 4]], **NEAR)


# ---------------------------------------------------------------------------- element by element

def test_relu():
    assert ref.relu(np.array([-2.0, 0.0, 3.0])).tolist() == [0, 0, 3]
    # the real part chooses, the slope follows
    assert ref.relu(np.array([-2 + 1j, 3 + 1j])).tolist() == [0, 3 + 1j]


def test_tanh_and_sigmoid():
    x = np.array([0.0, np.log(2)])
    np.testing.assert_allclose(ref.tanh(x), [0, 3 / 5], **NEAR)        # (2 - 1/2) / (2 + 1/2)
    np.testing.assert_allclose(ref.sigmoid(x), [1 / 2, 2 / 3], **NEAR)             # 1 / (1 + 1/2)


def test_dropout_both_readings():
    x, mask = np.array([4.0, 8.0]), np.array([True, False])
    assert ref.dropout(x, mask, p=0.75).tolist() == [16, 0]                 # 4 / (1 - 0.75)
    assert ref.dropout(x, mask, p=0.75, training=False).tolist() == [4, 8]
    assert ref.dropout(x, mask, p=0.75, scaling="paper").tolist() == [4, 0]
    assert ref.dropout(x, mask, p=0.75, training=False, scaling="paper").tolist() == [1, 2]


# ---------------------------------------------------------------------------- matrices, loss

def test_matmul_and_linear():
    a, b = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([[1.0, 10], [100, 1000]])
    assert ref.matmul(a, b).tolist() == [[201, 2010], [403, 4030], [605, 6050]]
    # w is (outputs, inputs): 1*1 + 2*10, 1*100 + 2*1000
    assert ref.linear(a[:1], b).tolist() == [[21, 2100]]
    assert ref.linear(a[:1], b, np.array([0.5, -0.5])).tolist() == [[21.5, 2099.5]]


def test_softmax():
    x = np.log([[1.0, 2, 5], [1, 1, 2]])
    np.testing.assert_allclose(ref.softmax(x), [[1 / 8, 2 / 8, 5 / 8], [.25, .25, .5]], **NEAR)
    np.testing.assert_allclose(ref.log_softmax(x)[1], np.log([.25, .25, .5]), **NEAR)
    assert ref.softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]      # no overflow


def test_cross_entropy_is_a_mean():
    x = np.log([[1.0, 2, 5], [1, 1, 2]])
    # -(log 5/8 + log 1/4) / 2
    assert ref.cross_entropy(x, [2, 0]) == pytest.approx(-np.log(5 / 32) / 2, rel=1e-14)


# ---------------------------------------------------------------------------- the towers

def test_concatenate_and_exchange():
    a, b = np.array([[1.0], [2]]), np.array([[3.0, 4], [5, 6]])
    joined = [[1, 3, 4], [2, 5, 6]]
    assert ref.concatenate([a, b]).tolist() == joined
    assert ref.concatenate([a, b], axis=-1).tolist() == joined
    assert ref.concatenate([a.T, b], axis=0).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert [y.tolist() for y in ref.exchange([a, b])] == [joined, joined]


def test_exchange_backward_sums_over_the_towers_then_cuts():
    g = [np.array([[1.0, 2, 3]]), np.array([[10.0, 20, 30]])]
    assert [part.tolist() for part in ref.exchange_backward(g, [1, 2])] == [[[11]], [[22, 33]]]


# ---------------------------------------------------------------------------- the complex step

@pytest.mark.parametrize("fn", [
    lambda x: ref.conv2d(x, x[:1, :, :2, :2], x[0, 0, 0, :1], 2, ((1, 0), (0, 1)), 1, True),
    lambda x: ref.im2col(x, 2), lambda x: ref.max_pool2d(x, 2, 1, 1),
    lambda x: ref.avg_pool2d(x, 2, 2, 0, True), lambda x: ref.local_response_norm(x, 2, 1.0),
    lambda x: ref.spatial_response_norm(x, 2, 1.0), ref.relu, ref.tanh, ref.sigmoid,
    lambda x: ref.dropout(x, x.real > 0), lambda x: ref.linear(x[0, 0], x[0, 1], x[0, 0, 0]),
    lambda x: ref.softmax(x[0, 0]), lambda x: ref.cross_entropy(x[0, 0], [0, 2, 1]),
    lambda x: ref.concatenate([x, x]), lambda x: ref.exchange([x, x * x])[1],
    lambda x: ref.col2im(x.reshape(1, 9, 2), (1, 1, 3, 4), 3)])
def test_imaginary_parts_pass_through_every_definition(fn):
    x, d = strategies.distinct((1, 2, 3, 3), 0), strategies.normal((1, 2, 3, 3), 1)
    h = 1e-5
    slope = (fn(x + h * d) - fn(x - h * d)) / (2 * h)
    np.testing.assert_allclose(np.imag(fn(x + 1e-20j * d)) / 1e-20, slope, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------------- the strategies

@given(strategies.conv_geometry(), strategies.seeds())
def test_a_drawn_convolution_has_the_size_it_promises(g, seed):
    x, w = strategies.normal(g.x_shape, seed), strategies.normal(g.w_shape, seed)
    assert ref.conv2d(x, w, **g.conv).shape == g.conv_shape


@given(strategies.pool_geometry(), strategies.seeds())
def test_a_drawn_pooling_has_the_size_it_promises(g, seed):
    x = strategies.distinct(g.x_shape, seed)
    y = ref.max_pool2d(x, **g.pool)
    assert y.shape == g.pool_shape == ref.avg_pool2d(x, **g.pool).shape
    assert np.isfinite(y).all()


@given(strategies.conv_geometry(), strategies.seeds())
def test_convolution_is_a_matrix_product_of_columns(g, seed):
    """Two definitions of the oracle that share no loop agree, for one group."""
    x = strategies.normal(g.x_shape, seed)
    w = strategies.normal((g.filters,) + g.x_shape[1:2] + g.w_shape[2:], seed + 1)
    columns = ref.im2col(x, g.kernel_size, **g.window)
    y = w.reshape(g.filters, -1) @ columns                   # (F, C*KH*KW) @ (N, C*KH*KW, P)
    np.testing.assert_allclose(y.reshape(g.conv_shape), ref.conv2d(x, w, **g.window),
                               rtol=1e-12, atol=1e-12)


def test_the_awkward_geometries_are_drawn():
    """Leftover rows, an overhang, a dropped window, one-sided padding: all of them turn up."""
    seen = set()

    @strategies.settings(max_examples=200, database=None, derandomize=True, deadline=None)
    @given(strategies.pool_geometry(), strategies.conv_geometry())
    def look(pool, conv):
        for kind, g in (("pool", pool), ("conv", conv)):
            for axis in (g.rows, g.columns):
                room = axis.size + sum(axis.pads) - axis.kernel - (axis.out - 1) * axis.stride
                seen.add((kind, "fits" if room == 0 else
                          "overhang" if room < 0 else
                          "dropped" if g.ceil_mode else "leftover"))
                seen.add((kind, "lopsided" if axis.pads[0] != axis.pads[1] else "even"))
            seen.add((kind, "groups", g.groups))

    look()
    wanted = {(kind, what) for kind in ("pool", "conv")
              for what in ("fits", "overhang", "leftover", "lopsided", "even")}
    wanted |= {("pool", "dropped"), ("conv", "groups", 1), ("conv", "groups", 2)}
    assert wanted <= seen, wanted - seen


@given(strategies.layouts(), strategies.dtypes(), strategies.map_shapes(), strategies.seeds())
def test_a_layout_changes_memory_and_nothing_else(layout, dtype, shape, seed):
    array = strategies.normal(shape, seed, dtype)
    other = strategies.laid_out(array, layout)
    assert np.array_equal(array, other) and other.dtype == array.dtype
    assert other.flags.writeable == (layout != "read_only")
    assert not np.may_share_memory(array, other) or layout in ("F", "channels_last")


def test_layouts_are_what_they_are_called():
    array = np.arange(48.0).reshape(2, 3, 2, 4)
    lies = {name: strategies.laid_out(array, name) for name in strategies.LAYOUTS}
    assert lies["C"].flags.c_contiguous and lies["F"].flags.f_contiguous
    assert lies["channels_last"].transpose(0, 2, 3, 1).flags.c_contiguous
    assert lies["sliced"].strides == (7 * 5 * 9 * 16, 5 * 9 * 16, 9 * 16, 16)
    assert all(stride < 0 for stride in lies["negative"].strides)
    with pytest.raises(ValueError, match="layout: got 'diagonal'"):
        strategies.laid_out(array, "diagonal")


@given(strategies.map_shapes(), strategies.seeds())
def test_values_keep_away_from_kinks(shape, seed):
    assert np.abs(strategies.away_from_zero(shape, seed, margin=2)).min() >= 2
    row = np.sort(strategies.distinct(shape, seed, gap=4), axis=None)
    assert (np.diff(row) == 4).all() and row.sum() == 0


def test_the_devices_are_real():
    names = strategies.device_names()
    assert names[:2] == ["cpu:0", "cpu:1"]
    assert names[2:] in ([], ["cuda:8"], ["cuda:0"], ["cuda:8", "cuda:0"])
