"""Response normalization: windows wider than the channels, even ones, both readings of alpha.

The paper's alpha is 1e-4: at that size the whole op is nearly y = x, and an oracle with a wrong
window passes. So alpha is about 1 here, and the inputs reach 3.
"""

import re

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given, settings
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_direction, check_grads

FEWER = settings(max_examples=max(10, settings().max_examples // 2))


@st.composite
def constants(draw):
    """alpha, beta and k, none of them small."""
    return dict(alpha=draw(st.sampled_from([0.1, 0.5, 1.0, 2.0])),
                beta=draw(st.sampled_from([0.5, 0.75, 1.0])),
                k=draw(st.sampled_from([1.0, 2.0, 3.0])))


def across(size, **options):
    """The norm across channels and its oracle, as functions of x alone."""
    return (lambda x: F.local_response_norm(x, size, **options),
            lambda x: ref.local_response_norm(x, size, **options))


def within(size, **options):
    """The norm within each map and its oracle."""
    return (lambda x: F.spatial_response_norm(x, size, **options),
            lambda x: ref.spatial_response_norm(x, size, **options))


def activities(shape, seed):
    return strategies.normal(shape, seed, scale=1.5)


norms = pytest.mark.parametrize("norm", [across, within])
places = dict(dtype=strategies.dtypes(), layout=strategies.layouts(), device=strategies.devices(),
              seed=strategies.seeds())


# ---------------------------------------------------------------------------- forward

@given(window=strategies.norm_shapes(), options=constants(), divide=st.booleans(), **places)
def test_across_channels(agrees, window, options, divide, dtype, layout, device, seed):
    size, shape = window
    agrees(*across(size, divide_alpha=divide, **options), activities(shape, seed),
           dtype=dtype, layout=layout, device=device)


@given(size=st.integers(1, 5), shape=strategies.map_shapes(3), options=constants(), **places)
def test_within_maps(agrees, size, shape, options, dtype, layout, device, seed):
    agrees(*within(size, **options), activities(shape, seed),
           dtype=dtype, layout=layout, device=device)


def test_the_window_of_an_even_size_reaches_one_further_down():
    """One loud channel quiets exactly those whose window holds it."""
    for size, near in [(1, [3]), (2, [3, 4]), (3, [2, 3, 4]), (4, [2, 3, 4, 5]),
                       (5, [1, 2, 3, 4, 5])]:
        x = np.full((1, 7, 1, 1), 1e-3)
        x[0, 3] = 1
        y = F.local_response_norm(ta.Tensor(x), size, 1.0, 1.0, 1.0, divide_alpha=False).data
        quiet = y[0, :, 0, 0] / x[0, :, 0, 0] < 0.6
        assert [int(c) for c in np.flatnonzero(quiet)] == near
        y = F.spatial_response_norm(ta.Tensor(x.reshape(1, 1, 7, 1)), size, size**2, 1.0, 1.0).data
        assert np.array_equal(y[0, 0, :, 0] / x[0, :, 0, 0] < 0.6, quiet)


def test_the_two_readings_of_alpha():
    """The paper prints alpha, its source divides it by the size: with n = 5, 1e-4 and 2e-5."""
    x = ta.Tensor(activities((2, 7, 3, 3), 0))
    printed = F.local_response_norm(x, 5, 1.0, divide_alpha=False)
    divided = F.local_response_norm(x, 5, 5.0)
    assert np.array_equal(printed.data, divided.data)
    assert not np.allclose(printed.data, F.local_response_norm(x, 5, 1.0).data, rtol=0.1)


def test_the_divisor_stays_where_the_window_is_clipped():
    y = F.local_response_norm(ta.Tensor(np.ones((1, 2, 1, 1))), 5, 5.0, 1.0, 1.0)
    assert np.allclose(y.data.ravel(), 1 / 3)           # 1 + 5/5 * two channels, not 5/2
    y = F.spatial_response_norm(ta.Tensor(np.ones((1, 1, 1, 2))), 5, 25.0, 1.0, 1.0)
    assert np.allclose(y.data.ravel(), 1 / 3)


@norms
def test_silence_stays_silence(norm):
    x = ta.Tensor(np.zeros((1, 6, 3, 3)), requires_grad=True)
    y = norm(5, alpha=1.0, k=2.0)[0](x)
    y.backward(np.ones(x.shape))
    assert not y.data.any() and np.allclose(x.grad, 2**-0.75)


# ---------------------------------------------------------------------------- gradients

@FEWER
@given(strategies.norm_shapes(), constants(), st.booleans(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_gradients_across_channels(window, options, divide, layout, device, seed):
    size, shape = window
    fn, reference = across(size, divide_alpha=divide, **options)
    check_grads(fn, strategies.laid_out(activities(shape, seed), layout), reference=reference,
                device=device).raise_if_wrong()


@FEWER
@given(st.integers(1, 5), strategies.map_shapes(2), constants(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_gradients_within_maps(size, shape, options, layout, device, seed):
    fn, reference = within(size, **options)
    check_grads(fn, strategies.laid_out(activities(shape, seed), layout), reference=reference,
                device=device).raise_if_wrong()


@norms
@pytest.mark.parametrize("size", [4, 5])
def test_on_every_device(norm, size, device):
    fn, reference = norm(size, alpha=1.0, k=2.0)
    check_grads(fn, activities((2, 6, 4, 3), 0), reference=reference,
                device=device).raise_if_wrong()


# ---------------------------------------------------------------------------- bits

@norms
@settings(max_examples=max(5, settings().max_examples // 10))
@given(strategies.norm_shapes(), strategies.seeds())
def test_same_bits_for_every_layout(same_bits, norm, window, seed):
    size, shape = window
    same_bits(norm(size, alpha=1.0, k=2.0)[0], activities(shape, seed))


@norms
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_same_bits_for_every_layout_of_a_larger_map(same_bits, norm, beta):
    same_bits(norm(5, alpha=1.0, beta=beta)[0], activities((3, 17, 6, 7), 0))


@norms
def test_same_bits_on_every_number_of_threads(same_bits_on_threads, norm):
    same_bits_on_threads(norm(5, alpha=1.0)[0], activities((9, 7, 6, 5), 0))


@norms
@given(strategies.norm_shapes(), constants(), strategies.seeds())
def test_float32_is_close_to_float64(float32_is_close, norm, window, options, seed):
    size, shape = window
    float32_is_close(norm(size, **options)[0], activities(shape, seed))


# ---------------------------------------------------------------------------- AlexNet's own

@pytest.mark.parametrize("channels, size", [
    pytest.param(48, 55, id="rnorm1"), pytest.param(128, 27, id="rnorm2")])
@pytest.mark.parametrize("alpha", [1e-4, 1.0])
def test_one_tower_of_the_paper_in_one_direction(channels, size, alpha):
    x = activities((1, channels, size, size), 0)
    check_direction(across(5, alpha=alpha, k=2.0, divide_alpha=False)[0], x).raise_if_wrong()


def test_the_norm_within_maps_of_the_source_in_one_direction():
    for alpha in (1e-3, 1.0):
        check_direction(within(5, alpha=alpha)[0],
                        activities((1, 128, 27, 27), 0)).raise_if_wrong()


# ---------------------------------------------------------------------------- errors

@norms
@pytest.mark.parametrize("size, message", [
    (0, "response_norm: size is 0; expected an integer >= 1"),
    (-5, "size is -5; expected"), (2.5, "size is 2.5; expected an integer"),
    ("5", "size is '5'; expected"), (None, "size is None; expected")])
def test_sizes_that_are_none(norm, size, message):
    with pytest.raises(ValueError, match=message):
        norm(size)[0](ta.Tensor(np.ones((1, 3, 2, 2))))


@norms
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0, 3, 4, 4), (1, 2, 3, 4, 5)])
def test_shapes_that_are_no_maps(norm, shape):
    expected = re.escape(f"_response_norm: needs maps (N, C, H, W), N > 0; got {shape}")
    with pytest.raises(ValueError, match=expected):
        norm(5)[0](ta.Tensor(np.ones(shape)))


@norms
def test_plain_arrays_are_refused(norm):
    with pytest.raises(TypeError, match="ResponseNorm: got a plain ndarray; expected a Tensor"):
        norm(5)[0](np.ones((1, 3, 2, 2)))
