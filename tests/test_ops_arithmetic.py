"""+ - * / **, exp, log, the reductions, and what NumPy is told when it meets a Tensor."""

import operator

import numpy as np
import pytest
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from tinyalex import functional as F
from tinyalex.gradcheck import check_grads

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
             "**": operator.pow}
by_operator = pytest.mark.parametrize("symbol", OPERATORS)


def positive(shape, seed, dtype=np.float64):
    """0.5 to about 3: a base for powers and logarithms, a divisor."""
    return 0.5 + np.abs(strategies.normal(shape, seed, dtype))


def broadcastable():
    """Two shapes that broadcast: an extent missing, or 1, on either side."""
    return mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=3, max_side=3).map(
        lambda found: found.input_shapes)


# ---------------------------------------------------------------------------- two Tensors

@by_operator
@given(broadcastable(), strategies.dtypes(), strategies.devices(), strategies.seeds())
def test_an_operator_is_numpys(agrees, symbol, shapes, dtype, device, seed):
    arrays = [np.asarray(positive(shape, [seed, i])) for i, shape in enumerate(shapes)]
    agrees(OPERATORS[symbol], OPERATORS[symbol], *arrays, dtype=dtype, device=device)


@by_operator
@given(broadcastable(), strategies.seeds())
def test_gradients_are_summed_over_what_was_broadcast(symbol, shapes, seed):
    arrays = [np.atleast_1d(positive(shape, [seed, i])) for i, shape in enumerate(shapes)]

    def op(*operands):
        a, b = (x.reshape(shape) for x, shape in zip(operands, shapes, strict=True))
        return OPERATORS[symbol](a, b)

    check_grads(op, *arrays, reference=op,
                kind="multilinear" if symbol in "+-*" else "smooth").raise_if_wrong()


@by_operator
def test_on_every_device(symbol, device):
    op = OPERATORS[symbol]
    check_grads(op, positive((2, 1, 3), 0), positive((4, 1), 1), reference=op,
                device=device).raise_if_wrong()


@by_operator
def test_a_tensor_with_itself(symbol):
    op = OPERATORS[symbol]
    check_grads(lambda x: op(x, x), positive((2, 3), 0),
                reference=lambda x: op(x, x)).raise_if_wrong()


@by_operator
def test_same_bits_for_every_layout(same_bits, symbol):
    for shapes in [((5, 6, 7, 8), (6, 1, 8)), ((7, 1), (6, 7, 8)), ((1, 9), (9, 1))]:
        same_bits(OPERATORS[symbol], *(positive(shape, i) for i, shape in enumerate(shapes)))


@by_operator
def test_float32_is_close_to_float64(float32_is_close, symbol):
    float32_is_close(OPERATORS[symbol], positive((5, 1, 7), 0), positive((6, 1), 1))


# ---------------------------------------------------------------------------- a number

NUMBERS = [3, 0.5, -2.0, np.float32(1.5), np.float64(0.1), np.int64(2)]


@by_operator
@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n}")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_on_either_side_keep_the_dtype(symbol, number, dtype):
    op, x = OPERATORS[symbol], positive((2, 3), 0).astype(dtype)
    near = dict(rtol=1e-6 if dtype == np.float32 else 1e-14)
    right = op(ta.Tensor(x), number)
    assert right.dtype == dtype and np.allclose(right.data, op(x, dtype(number)), **near)
    if symbol != "**" or number > 0:
        left = op(number, ta.Tensor(x))
        assert left.dtype == dtype and np.allclose(left.data, op(dtype(number), x), **near)


@by_operator
@pytest.mark.parametrize("number", [3, 0.5, np.float32(1.5)])
def test_gradients_beside_a_number(symbol, number):
    op = OPERATORS[symbol]
    for fn in (lambda x: op(x, number), lambda x: op(number, x)):
        check_grads(fn, positive((2, 3), 0), reference=fn).raise_if_wrong()


@pytest.mark.parametrize("power", [0, 1, 2, 3, -1, 0.5, -0.75])
def test_powers(power):
    x = strategies.away_from_zero((2, 3), 0, margin=0.5)
    x = np.abs(x) if power % 1 else x                    # of a negative number: whole powers only
    check_grads(lambda x: x**power, x, reference=lambda x: x**power).raise_if_wrong()


@pytest.mark.parametrize("power, slope", [(0, 0), (1, 1), (2, 0), (3, 0)])
def test_powers_of_zero(power, slope):
    x = ta.Tensor([0.0, -0.0], requires_grad=True)
    (x**power).sum().backward()
    assert x.grad.tolist() == [slope, slope]


@pytest.mark.parametrize("fn, reference", [(lambda x: -x, lambda x: -x), (F.exp, np.exp),
                                           (F.log, np.log), (lambda x: x.exp(), np.exp),
                                           (lambda x: x.log(), np.log)])
def test_functions_of_one_tensor(agrees, same_bits, fn, reference):
    for layout in strategies.LAYOUTS:
        x = strategies.laid_out(positive((2, 3, 2, 2), 0), layout)
        agrees(fn, reference, x, layout=layout)
        check_grads(fn, x, reference=reference).raise_if_wrong()
    for shape in [(5, 6, 7, 8), (3, 33), (7,)]:
        same_bits(fn, positive(shape, 0))


@pytest.mark.parametrize("power", [1.5, -0.75, 3, 0.5])
def test_powers_have_the_same_bits_for_every_layout(same_bits, power):
    for shape in [(5, 6, 7, 8), (3, 33), (7,)]:
        same_bits(lambda x: x**power, positive(shape, 0))
    same_bits(lambda x: 1.5**x, positive((3, 33), 0))


@pytest.mark.parametrize("fn", [
    lambda x: x + x, lambda x: 2 - x, lambda x: x * x, lambda x: 1 / x, lambda x: x**2, F.log,
    lambda x: x.sum(), lambda x: x.mean(), lambda x: x.max(), lambda x: x.reshape(1, 1),
    F.exp, F.relu, F.tanh, F.sigmoid, lambda x: x**x])
def test_single_numbers(fn):
    """A Tensor without axes, as in the first lessons, or a loss on its way to somewhere."""
    for dtype in (np.float32, np.float64):
        x = ta.Tensor(np.array(1.5, dtype), requires_grad=True)
        fn(x).sum().backward()
        slope = (fn(ta.Tensor(np.array(1.5 + 1e-6))) - fn(ta.Tensor(np.array(1.5 - 1e-6)))) * 5e5
        assert x.grad.shape == () and x.grad.dtype == dtype
        assert x.grad == pytest.approx(slope.sum().item(), rel=1e-4)


# ---------------------------------------------------------------------------- reductions

@st.composite
def reductions(draw):
    """A shape and keywords: all axes, one, or some; counted from either end; kept or not."""
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=4)))
    either_end = st.sampled_from([a for i in range(len(shape)) for a in (i, i - len(shape))]) \
        if shape else st.nothing()
    some = st.lists(either_end, unique_by=lambda a: a % len(shape), max_size=3).map(tuple)
    axis = draw(st.one_of(st.none(), either_end, some) if shape else st.none())
    return shape, dict(axis=axis, keepdims=draw(st.booleans()))


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@given(reductions(), strategies.dtypes(), strategies.layouts(), strategies.devices(),
       strategies.seeds())
def test_a_reduction_is_numpys(agrees, name, reduction, dtype, layout, device, seed):
    shape, options = reduction
    agrees(lambda x: getattr(x, name)(**options), lambda x: getattr(x, name)(**options),
           strategies.normal(shape, seed) if shape else np.array(1.5), dtype=dtype,
           layout=layout if shape else "C", device=device)


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@given(reductions(), strategies.seeds())
def test_gradients_of_reductions(name, reduction, seed):
    shape, options = reduction
    x = np.atleast_1d(strategies.distinct(shape, seed, gap=4))
    check_grads(lambda x: getattr(x.reshape(shape), name)(**options), x,
                kind="multilinear").raise_if_wrong()


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_reductions_have_the_same_bits_for_every_layout(same_bits, name):
    for shape, options in [((5, 6, 7, 8), {}), ((5, 6, 7, 8), dict(axis=(0, 2))), ((3, 33), {}),
                           ((33, 3), dict(axis=0, keepdims=True)), ((1, 50), dict(axis=-1))]:
        same_bits(lambda x: getattr(x, name)(**options), strategies.normal(shape, 0))


def test_the_first_maximum_wins():
    """Of equals the first in C order, whatever the memory's; and the gradient's mass stays."""
    for layout in strategies.LAYOUTS:
        x = strategies.laid_out(np.array([[1.0, 5, 5], [5, 5, 2]]), layout)
        for options, expected in [({}, [[0, 1, 0], [0, 0, 0]]),
                                  (dict(axis=0), [[0, 1, 1], [1, 0, 0]]),
                                  (dict(axis=1), [[0, 1, 0], [1, 0, 0]])]:
            t = ta.Tensor(x, requires_grad=True)
            t.max(**options).sum().backward()
            assert t.grad.tolist() == expected


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@pytest.mark.parametrize("axis", [2, -3, 5, 1.0, "0", (0, 2), (0, None)])
def test_axes_that_are_not_there(name, axis):
    with pytest.raises(ValueError, match=r"axis: got .*; expected an integer from -2 to 1"):
        getattr(ta.Tensor(np.ones((2, 3))), name)(axis=axis)


# ---------------------------------------------------------------------------- what does not mix

@by_operator
def test_arrays_and_tensors_do_not_mix(symbol):
    op, x, array = OPERATORS[symbol], ta.Tensor([1.0, 2.0], device="cpu:1"), np.ones(2, np.float32)
    wrap = r"arrays and Tensors do not mix; wrap (it|the array): ta.Tensor\(array, device='cpu:1'\)"
    for other in (array, np.array(2.0), np.complex64(1)):
        with pytest.raises(TypeError, match=wrap):
            op(x, other)
    for other in (array, np.array(2.0)):
        with pytest.raises(TypeError, match=wrap):
            op(other, x)
    with pytest.raises(TypeError, match=wrap):
        array += x
    assert array.tolist() == [1, 1]


@by_operator
def test_what_is_no_number_is_refused(symbol):
    op, x = OPERATORS[symbol], ta.Tensor([1.0, 2.0])
    for other in ("2", None, [1.0, 2.0], True, 2j):
        for a, b in [(x, other), (other, x)]:
            with pytest.raises(TypeError, match="unsupported|can only concatenate|can't multiply"):
                op(a, b)


@by_operator
def test_dtypes_do_not_mix(symbol):
    single, double = ta.Tensor(np.ones(2, np.float32)), ta.Tensor(np.ones(2))
    for a, b in [(single, double), (double, single)]:
        with pytest.raises(TypeError, match=r"inputs have dtypes float(32|64) and float(64|32); "
                                            r"convert one first, for example .*astype\('float"):
            OPERATORS[symbol](a, b)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"broadcast.*\(2,3\) \(4,\)"):
        ta.Tensor(np.ones((2, 3))) + ta.Tensor(np.ones(4))


# ---------------------------------------------------------------------------- NumPy's functions

@pytest.mark.parametrize("call, use", [
    (np.exp, r"np.exp .* use F.exp\(x\)"), (np.log, r"use F.log\(x\)"),
    (np.tanh, r"use F.tanh\(x\)"), (np.sqrt, r"use x \*\* 0.5"), (np.square, r"use x \*\* 2"),
    (np.negative, "use -x"), (lambda x: np.maximum(x, 0), r"use F.relu\(x\)"),
    (np.sum, r"np.sum .* use x.sum\(\)"), (np.mean, r"use x.mean\(\)"),
    (np.max, r"use x.max\(\)"), (lambda x: np.reshape(x, -1), r"use x.reshape\(shape\)"),
    (np.transpose, r"use x.transpose\(axes\)"), (lambda x: np.dot(x, x), "use a @ b"),
    (lambda x: np.matmul(x, x), "use a @ b"), (lambda x: np.add(x, x), r"use a \+ b"),
    (lambda x: np.concatenate([x]), r"np.concatenate .* use F.concatenate\(tensors\)"),
    (lambda x: np.stack([x, x]), r"use F.stack\(tensors\)"),
    (np.sort, r"np.sort .* use an op of tinyalex.functional, or x.detach\(\).numpy\(\)"),
    (lambda x: np.add.reduce(x), r"would lose the gradient"),
    (lambda x: np.float32(2) < x, "do not mix|would lose the gradient"),
    (np.asarray, r"a Tensor does not turn into a NumPy array by itself: use x.detach\(\).numpy"),
    (np.array, r"use x.detach\(\).numpy\(\)"), (lambda x: np.array([x, x]), r"use x.detach\(\)")])
def test_numpy_functions_say_what_to_use_instead(call, use):
    for wanted in (False, True):
        with pytest.raises(TypeError, match=use):
            call(ta.Tensor([[1.0, 2.0]], requires_grad=wanted))


def test_a_numpy_number_on_the_left_builds_the_graph():
    """NumPy asks first there, and would make an array of objects."""
    x = ta.Tensor([1.0, 2.0], requires_grad=True)
    y = np.float32(2) * x
    assert isinstance(y, ta.Tensor) and y.dtype == np.float32
    (np.float64(3) - np.float64(2) * x / np.float32(4)).sum().backward()
    assert x.grad.tolist() == [-0.5, -0.5] and x.grad.dtype == np.float32
