"""Neurons: their values, their slopes, and ReLU in place."""

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given
from tinyalex import functional as F
from tinyalex.gradcheck import check_grads

NEURONS = {"relu": (F.relu, ref.relu), "tanh": (F.tanh, ref.tanh),
           "sigmoid": (F.sigmoid, ref.sigmoid)}
by_each = pytest.mark.parametrize("neuron", NEURONS)


def steady(neuron, shape, seed):
    """Inputs, and the kind of check they allow: a ReLU is straight 2 away from its kink."""
    if neuron == "relu":
        return strategies.away_from_zero(shape, seed, margin=2), "multilinear"
    return strategies.normal(shape, seed), "smooth"


# ---------------------------------------------------------------------------- values and slopes

@by_each
@given(strategies.map_shapes(3), strategies.dtypes(), strategies.layouts(), strategies.devices(),
       strategies.seeds())
def test_a_neuron_is_its_definition(agrees, neuron, shape, dtype, layout, device, seed):
    agrees(*NEURONS[neuron], strategies.normal(shape, seed), dtype=dtype, layout=layout,
           device=device)


@by_each
@given(strategies.map_shapes(2), strategies.layouts(), strategies.seeds())
def test_gradients(neuron, shape, layout, seed):
    fn, reference = NEURONS[neuron]
    x, kind = steady(neuron, shape, seed)
    check_grads(fn, strategies.laid_out(x, layout), reference=reference,
                kind=kind).raise_if_wrong()


@by_each
def test_on_every_device(neuron, device):
    fn, reference = NEURONS[neuron]
    x, kind = steady(neuron, (2, 3, 4), 0)
    check_grads(fn, x, reference=reference, kind=kind, device=device).raise_if_wrong()


def test_relu_at_the_kink():
    """The gradient at 0 is 0, as in the 2012 source; of either zero."""
    x = ta.Tensor([-1.0, -0.0, 0.0, 1e-30, 1.0], requires_grad=True)
    F.relu(x).backward(np.full(5, 7, np.float32))
    assert x.grad.tolist() == [0, 0, 0, 7, 7]


def test_far_out_nothing_overflows():
    """Warnings are errors here: an overflow in exp would be one."""
    for dtype in (np.float32, np.float64):
        far = np.array([-1e4, -100, 0, 100, 1e4], dtype)
        for fn, values, slope in [(F.sigmoid, [0, 0, 0.5, 1, 1], 0.25),
                                  (F.tanh, [-1, -1, 0, 1, 1], 1)]:
            x = ta.Tensor(far, requires_grad=True)
            y = fn(x)
            y.backward(np.ones(5, dtype))
            assert np.allclose(y.data, values, atol=1e-7) and y.dtype == dtype
            assert np.allclose(x.grad, [0, 0, slope, 0, 0], atol=1e-7)


def test_not_a_number_is_not_hidden():
    for fn, _ in NEURONS.values():
        assert np.isnan(fn(ta.Tensor([np.nan])).item())


# ---------------------------------------------------------------------------- ReLU in place

def leaf(*shape):
    return ta.Tensor(strategies.normal(shape, 0), requires_grad=True)


def test_in_place_writes_over_its_input():
    w = leaf(3, 4)
    h = w * 2.0
    memory = h.data
    y = F.relu(h, inplace=True)
    assert y is h and y.data is memory and (memory >= 0).all()
    assert not y.is_leaf and y.requires_grad


@pytest.mark.parametrize("before", [
    lambda x: x * 2.0, lambda x: x + x, lambda x: F.conv2d(x, x[:, :, :2, :2]),
    lambda x: F.max_pool2d(x, 2, 1), lambda x: F.concatenate([x, x], 1)])
def test_in_place_is_the_same_relu(run, before):
    x = strategies.away_from_zero((2, 2, 3, 3), 0)
    expected = run(lambda x: F.relu(before(x)), [x])
    got = run(lambda x: F.relu(before(x), inplace=True), [x])
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_in_place_is_refused_on_a_leaf():
    x = leaf(3)
    kept = x.data.copy()
    with pytest.raises(RuntimeError, match="ReLU: inplace=True would lose the value of a leaf; "
                                           "use inplace=False"):
        F.relu(x, inplace=True)
    assert np.array_equal(x.data, kept)


@pytest.mark.parametrize("view", [F.flatten, lambda x: x.T, lambda x: x[:1]])
def test_in_place_is_refused_on_a_view_of_a_leaf(view):
    x = leaf(2, 3)
    kept = x.data.copy()
    with pytest.raises(RuntimeError, match="use inplace=False"):
        F.relu(view(x), inplace=True)
    assert np.array_equal(x.data, kept)


@pytest.mark.parametrize("producer, name", [
    (F.exp, "Exp"), (F.tanh, "Tanh"), (F.sigmoid, "Sigmoid"), (F.log_softmax, "LogSoftmax"),
    (F.relu, "ReLU"), (lambda x: F.max_pool2d_ties(x, 2), "MaxPool2dTies")])
def test_in_place_is_refused_where_the_producer_needs_its_output(producer, name):
    h = producer(leaf(1, 1, 4, 4))
    kept = h.data.copy()
    with pytest.raises(RuntimeError, match=f"inplace=True, but {name} needs its own output"):
        F.relu(h, inplace=True)
    assert np.array_equal(h.data, kept)


def test_in_place_after_somebody_saved_the_value_is_noticed_in_backward():
    h = leaf(3) * 2.0
    y = h * h
    F.relu(h, inplace=True)
    with pytest.raises(RuntimeError, match="what Multiply saved was overwritten afterwards by an "
                                           "op with inplace=True; use inplace=False there"):
        y.sum().backward()


def test_in_place_where_no_gradient_is_wanted():
    x = ta.Tensor([-1.0, 2.0])
    assert F.relu(x, inplace=True) is x and x.data.tolist() == [0, 2]
    x = leaf(3)
    with ta.no_grad():
        F.relu(x, inplace=True)
    assert x.requires_grad and (x.data >= 0).all()          # still the leaf that it was


# ---------------------------------------------------------------------------- bits, errors

@by_each
@pytest.mark.parametrize("shape", [(5, 6, 7, 8), (3, 33), (7,), (1, 1)])
def test_same_bits_for_every_layout(same_bits, neuron, shape):
    same_bits(NEURONS[neuron][0], strategies.normal(shape, 0))


@by_each
def test_float32_is_close_to_float64(float32_is_close, neuron):
    float32_is_close(NEURONS[neuron][0], strategies.away_from_zero((5, 6, 7), 0))


@by_each
def test_plain_arrays_are_refused(neuron):
    for value, kind in [(np.ones(3), "ndarray"), ([1.0], "list"), (1.0, "float")]:
        with pytest.raises(TypeError, match=f"(?i){neuron}: got a plain {kind}; expected a Tensor"):
            NEURONS[neuron][0](value)


def test_the_tail_of_the_sigmoid():
    """By tanh it would be exactly 0 here, and its gradient with it."""
    x = ta.Tensor(np.array([-40.0, -20.0, 20.0], np.float32), requires_grad=True)
    y = F.sigmoid(x)
    y.sum().backward()
    exact = 1 / (1 + np.exp(-x.data.astype(np.float64)))
    np.testing.assert_allclose(y.data, exact, rtol=1e-6)
    np.testing.assert_allclose(x.grad[:2], exact[:2], rtol=1e-6)
