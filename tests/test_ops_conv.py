"""Convolution: both algorithms against the definition, at every geometry, layout and device."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given, settings
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_direction, check_grads
from tinyalex.ops import conv, conv_fast

FEWER = settings(max_examples=max(10, settings().max_examples // 2))
by_both = pytest.mark.parametrize("algorithm", ["plain", "fast"])


def operands(geometry, seed, bias=True):
    """Input, filters and perhaps a bias, in float64."""
    shapes = [geometry.x_shape, geometry.w_shape] + [(geometry.filters,)] * bias
    return [strategies.normal(shape, [seed, i]) for i, shape in enumerate(shapes)]


def tensor(*shape, dtype=np.float32):
    return ta.Tensor(strategies.normal(shape, 0, dtype))


@st.composite
def turned_geometry(draw):
    """Stride 1, one group, no more filters than channels: here the fast path turns the filters."""
    channels = draw(st.integers(1, 3))
    return replace(draw(strategies.conv_geometry(stride=1, padding=3)), groups=1,
                   channels=channels, filters=draw(st.integers(1, channels)))


# ---------------------------------------------------------------------------- forward

@by_both
@given(strategies.conv_geometry(), st.booleans(), strategies.dtypes(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_conv2d_is_its_definition(agrees, algorithm, geometry, bias, dtype, layout, device, seed):
    with ta.conv_algorithm(algorithm):
        agrees(lambda *a: F.conv2d(*a, **geometry.conv),
               lambda *a: ref.conv2d(*a, **geometry.conv),
               *operands(geometry, seed, bias), dtype=dtype, layout=layout, device=device)


@by_both
@FEWER
@given(strategies.conv_geometry(), st.booleans(), strategies.dtypes(), strategies.devices(),
       strategies.seeds())
def test_with_relu_it_is_a_relu_behind_it(run, algorithm, geometry, bias, dtype, device, seed):
    """Bit for bit, the gradients too: the pass that it saves changes nothing."""
    arrays = [a.astype(dtype) for a in operands(geometry, seed, bias)]
    with ta.conv_algorithm(algorithm):
        joined = run(lambda *a: F.conv2d(*a, **geometry.conv, relu=True), arrays, device=device)
        apart = run(lambda *a: F.relu(F.conv2d(*a, **geometry.conv)), arrays, device=device)
    assert all(map(np.array_equal, joined, apart))


@by_both
def test_224_pixels_give_55_windows_by_the_rule_of_2012(algorithm):
    """The paper's first layer: its last windows hang 3 pixels over the end, over zeros."""
    x, w = tensor(1, 3, 224, 224), tensor(2, 3, 11, 11)
    with ta.conv_algorithm(algorithm):
        assert F.conv2d(x, w, stride=4).shape == (1, 2, 54, 54)
        y = F.conv2d(x, w, stride=4, ceil_mode=True)
        assert y.shape == (1, 2, 55, 55)
        padded = F.conv2d(x, w, stride=4, padding=((0, 3), (0, 3)))
        assert np.array_equal(y.data, padded.data)
        larger = ta.Tensor(np.pad(x.data, ((0, 0), (0, 0), (0, 3), (0, 3))))
        assert larger.shape == (1, 3, 227, 227)
        for ceil_mode in (False, True):
            assert np.array_equal(F.conv2d(larger, w, stride=4, ceil_mode=ceil_mode).data, y.data)


@by_both
def test_groups_are_convolutions_of_their_own(algorithm):
    """Layers 2, 4 and 5 of the paper: two towers, or one convolution in two groups."""
    x, w, b = tensor(2, 4, 7, 6), tensor(6, 2, 3, 3), tensor(6)
    with ta.conv_algorithm(algorithm):
        whole = F.conv2d(x, w, b, 2, 1, groups=2)
        towers = [F.conv2d(x[:, 2 * g:2 * g + 2], w[3 * g:3 * g + 3], b[3 * g:3 * g + 3], 2, 1)
                  for g in (0, 1)]
    assert np.allclose(whole.data, F.concatenate(towers, 1).data, rtol=0, atol=1e-6)


def test_plain_runs_the_body_that_is_printed():
    x, w = tensor(1, 1, 3, 3), tensor(1, 1, 2, 2)
    w.requires_grad_()
    with mock.patch.object(conv, "conv_fast") as fast:
        with ta.conv_algorithm("plain"):
            F.conv2d(x, w).sum().backward()
            with pytest.raises(ZeroDivisionError), ta.conv_algorithm("fast"):
                raise ZeroDivisionError
            F.conv2d(x, w).sum().backward()         # the choice outside is back, error or not
        assert not fast.mock_calls
    with pytest.raises(ValueError, match="conv_algorithm: got 'quick'; expected 'plain' or 'fast'"):
        with ta.conv_algorithm("quick"):
            pass


# ---------------------------------------------------------------------------- gradients

@by_both
@FEWER
@given(strategies.conv_geometry(out=2, padding=1), st.booleans(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_gradients(algorithm, geometry, bias, layout, device, seed):
    arrays = [strategies.laid_out(a, layout) for a in operands(geometry, seed, bias)]
    with ta.conv_algorithm(algorithm):
        check_grads(lambda *a: F.conv2d(*a, **geometry.conv), *arrays, kind="multilinear",
                    device=device).raise_if_wrong()


@FEWER
@given(turned_geometry(), strategies.seeds())
def test_gradients_by_turned_filters(geometry, seed):
    check_grads(lambda *a: F.conv2d(*a, **geometry.conv), *operands(geometry, seed),
                kind="multilinear").raise_if_wrong()


@by_both
def test_on_every_device(algorithm, device):
    x, w, b = (strategies.normal(s, 0) for s in [(2, 4, 6, 5), (2, 2, 3, 3), (2,)])
    with ta.conv_algorithm(algorithm):
        check_grads(lambda *a: F.conv2d(*a, (2, 1), ((1, 0), (2, 1)), 2, True), x, w, b,
                    kind="multilinear", device=device,
                    reference=lambda *a: ref.conv2d(*a, (2, 1), ((1, 0), (2, 1)), 2, True)
                    ).raise_if_wrong()


@given(st.one_of(strategies.conv_geometry(stride=4, padding=4), turned_geometry()),
       st.integers(1, 100), strategies.seeds())
def test_fast_is_plain_however_it_is_blocked(run, geometry, block, seed):
    """A block of the fast path may be some images, one, or a few of its rows."""
    fn, arrays = (lambda *a: F.conv2d(*a, **geometry.conv)), operands(geometry, seed)
    with ta.conv_algorithm("plain"):
        expected = run(fn, arrays)
    with mock.patch.object(conv_fast, "BLOCK", block):
        for a, b in zip(run(fn, arrays), expected, strict=True):
            assert np.allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max() + 1e-300)


@by_both
@given(st.one_of(strategies.conv_geometry(), turned_geometry()), st.integers(0, 2),
       strategies.seeds())
def test_an_input_that_wants_no_gradient_changes_nothing(run, algorithm, geometry, idle, seed):
    """Images want none: conv1 has no dL/dx to compute, and its dL/dw must not care."""
    arrays = operands(geometry, seed)
    with ta.conv_algorithm(algorithm):
        expected = run(lambda *a: F.conv2d(*a, **geometry.conv), arrays)
        tensors = [ta.Tensor(a, requires_grad=i != idle) for i, a in enumerate(arrays)]
        y = F.conv2d(*tensors, **geometry.conv)
        y.backward(strategies.away_from_zero(y.shape, 1))
    for i, (t, gradient) in enumerate(zip(tensors, expected[1:], strict=True)):
        assert (t.grad is None) == (i == idle)
        assert i == idle or np.allclose(t.grad, gradient, rtol=0,
                                        atol=1e-12 * np.abs(gradient).max() + 1e-300)


@by_both
def test_no_gradient_crosses_a_group(algorithm):
    x, w = tensor(1, 4, 5, 5), tensor(4, 2, 3, 3)
    x.requires_grad_(), w.requires_grad_()
    with ta.conv_algorithm(algorithm):
        F.conv2d(x, w, padding=1, groups=2)[:, :2].sum().backward()
    assert x.grad[:, :2].all() and not x.grad[:, 2:].any()
    assert w.grad[:2].all() and not w.grad[2:].any()


@given(strategies.conv_geometry(), strategies.seeds())
def test_im2col_and_col2im_are_adjoint(geometry, seed):
    x = strategies.normal(geometry.x_shape, seed)
    kernel, pads = geometry.w_shape[2:], (geometry.rows.pads, geometry.columns.pads)
    stride = geometry.rows.stride, geometry.columns.stride
    out = geometry.conv_shape[2:]
    cols = conv.im2col(np, x, kernel, stride, pads, out)
    expected = ref.im2col(x, kernel, **geometry.window)
    assert cols.shape == x.shape[:2] + kernel + out
    assert np.array_equal(cols.reshape(expected.shape), expected)
    assert np.allclose(conv.col2im(np, cols, x.shape, stride, pads),
                       ref.col2im(expected, x.shape, kernel, **geometry.window), atol=1e-12)
    check_adjoint(lambda x: conv.im2col(np, x, kernel, stride, pads, out),
                  lambda c: conv.col2im(np, c, x.shape, stride, pads), x).raise_if_wrong()


# ---------------------------------------------------------------------------- bits

@by_both
@settings(max_examples=max(5, settings().max_examples // 10))
@given(st.one_of(strategies.conv_geometry(), turned_geometry()), strategies.seeds())
def test_same_bits_for_every_layout(same_bits, algorithm, geometry, seed):
    with ta.conv_algorithm(algorithm):
        same_bits(lambda *a: F.conv2d(*a, **geometry.conv), *operands(geometry, seed))


@by_both
@pytest.mark.parametrize("filters, groups, stride", [(6, 2, 2), (3, 1, 1), (5, 1, 1)])
def test_same_bits_on_every_number_of_threads(same_bits_on_threads, algorithm, filters, groups,
                                              stride):
    x, w, b = (strategies.normal(s, 0, np.float32)
               for s in [(9, 4, 8, 7), (filters, 4 // groups, 3, 3), (filters,)])
    with ta.conv_algorithm(algorithm):
        same_bits_on_threads(lambda *a: F.conv2d(*a, stride, 1, groups), x, w, b)


@by_both
@given(strategies.conv_geometry(), strategies.seeds())
def test_float32_is_close_to_float64(float32_is_close, algorithm, geometry, seed):
    with ta.conv_algorithm(algorithm):
        float32_is_close(lambda *a: F.conv2d(*a, **geometry.conv), *operands(geometry, seed))


# ---------------------------------------------------------------------------- AlexNet's own

@by_both
@pytest.mark.parametrize("channels, size, filters, kernel, options", [
    pytest.param(3, 224, 48, 11, dict(stride=4, ceil_mode=True), id="conv1"),
    pytest.param(48, 27, 128, 5, dict(padding=2), id="conv2"),
    pytest.param(256, 13, 192, 3, dict(padding=1), id="conv3"),
    pytest.param(192, 13, 192, 3, dict(padding=1), id="conv4"),
    pytest.param(192, 13, 128, 3, dict(padding=1), id="conv5")])
def test_one_tower_of_the_paper_in_one_direction(algorithm, channels, size, filters, kernel,
                                                 options):
    arrays = [strategies.normal(shape, i) for i, shape in enumerate(
        [(1, channels, size, size), (filters, channels, kernel, kernel), (filters,)])]
    with ta.conv_algorithm(algorithm):
        check_direction(lambda *a: F.conv2d(*a, **options), *arrays,
                        kind="multilinear").raise_if_wrong()


# ---------------------------------------------------------------------------- errors

@by_both
@pytest.mark.parametrize("x, w, b, options, message", [
    ((4, 6, 6), (6, 4, 3, 3), None, {}, r"needs x \(N, C, H, W\) and w .* got 3 and 4 axes"),
    ((2, 4, 6, 6), (6, 4, 3), None, {}, r"w \(K, C/groups, KH, KW\); got 4 and 3 axes"),
    ((0, 4, 6, 6), (6, 4, 3, 3), None, {}, r"the batch is empty \(input \(0, 4, 6, 6\)"),
    ((2, 4, 6, 6), (0, 4, 3, 3), None, {}, r"w of shape \(0, 4, 3, 3\) is empty"),
    ((2, 4, 6, 6), (6, 4, 0, 3), None, {}, r"w of shape \(6, 4, 0, 3\) is empty"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(groups=3), "groups=3 must divide the 4 channels in "
                                                       "and 6 out"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(groups=0), "groups=0 must divide the 4 channels in"),
    ((2, 4, 6, 6), (5, 2, 3, 3), None, dict(groups=2), "groups=2 must divide .* and 5 out"),
    ((2, 4, 6, 6), (6, 3, 3, 3), None, {}, r"reads 3 channels in each of 1 group\(s\); x has 4"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(groups=2), r"reads 4 channels in each of 2 group"),
    ((2, 4, 6, 6), (6, 4, 3, 3), (5,), {}, r"b has shape \(5,\); expected \(6,\), one per filter"),
    ((2, 4, 6, 6), (6, 4, 7, 3), None, {}, "the padded input is smaller than the kernel"),
    ((2, 4, 6, 6), (6, 4, 3, 9), None, dict(padding=1, ceil_mode=True),
     r"smaller than the kernel \(input \(2, 4, 6, 6\), kernel \(3, 9\), stride \(1, 1\), "
     r"padding \(\(1, 1\), \(1, 1\)\)\)"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(stride=0), "stride: got 0; expected an integer of at "
                                                       "least 1 or a pair"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(stride=1.5), "stride: got 1.5; expected an integer"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(stride=(1, 2, 3)), r"stride: got \(1, 2, 3\); "),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(stride=None), "stride: got None"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(padding=-1), "padding: got -1; expected an integer of "
                                                         "at least 0"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(padding="same"), "padding: got 'same'"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(padding=((0, -3), (0, 0))), r"padding: got \(0, -3\)"),
    ((2, 4, 6, 6), (6, 4, 3, 3), None, dict(padding=(1, 2, 3)), r"padding: got \(1, 2, 3\)")])
def test_errors_teach(algorithm, x, w, b, options, message):
    b = None if b is None else tensor(*b)
    with ta.conv_algorithm(algorithm), pytest.raises(ValueError, match=message):
        F.conv2d(tensor(*x), tensor(*w), b, **options)


def test_plain_arrays_are_refused():
    x, w, b = tensor(1, 1, 3, 3), tensor(1, 1, 2, 2), tensor(1)
    for arguments in [(x.data, w, b), (x, w.data, b), (x, w, b.data)]:
        with pytest.raises(TypeError, match=r"Conv2d: got a plain ndarray; expected a Tensor: "
                                            r"wrap it, ta.Tensor\(array"):
            F.conv2d(*arguments)
    with pytest.raises(TypeError, match="Conv2d: got a plain list"):
        F.conv2d([[[[1.0]]]], w)


@pytest.mark.parametrize("name", ["plain", "fast"])
def test_backward_follows_its_forward(monkeypatch, name):
    """Also where it is called outside the context that chose the algorithm."""
    x, w = (ta.Tensor(np.ones(s, np.float32), requires_grad=True) for s in [(1, 1, 3, 3)] * 2)
    with ta.conv_algorithm(name):
        y = F.conv2d(x, w, padding=1)
    other = {"plain": "fast", "fast": "plain"}[name]
    chosen = []
    monkeypatch.setattr(conv, "im2col", lambda *a, real=conv.im2col: chosen.append("plain")
                        or real(*a))
    monkeypatch.setattr(conv_fast, "backward", lambda *a, real=conv_fast.backward:
                        chosen.append("fast") or real(*a))
    with ta.conv_algorithm(other):
        y.sum().backward()
    assert set(chosen) == {name}


def test_numpy_integers_are_integers():
    x, w = tensor(1, 1, 5, 5), tensor(1, 1, 3, 3)
    assert F.conv2d(x, w, stride=np.int64(2), padding=np.int32(1)).shape == (1, 1, 3, 3)
