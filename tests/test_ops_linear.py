"""Matrix products: the fully-connected layer, and a @ b with broadcasting."""

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
extents = st.integers(1, 5)
places = dict(layout=strategies.layouts(), device=strategies.devices(), seed=strategies.seeds())


@st.composite
def layers(draw):
    """Shapes of x (N, C), w (K, C) and perhaps b (K,)."""
    N, C, K = draw(extents), draw(extents), draw(extents)
    return [(N, C), (K, C), (K,)][:draw(st.integers(2, 3))]


@st.composite
def products(draw):
    """Shapes (..., M, C) and (..., C, K) whose leading axes broadcast."""
    M, C, K = draw(extents), draw(extents), draw(extents)
    lead = draw(st.sampled_from([((), ()), ((2,), (2,)), ((3,), ()), ((), (3,)), ((1,), (3,)),
                                 ((2, 1), (3,)), ((2, 3), (2, 3)), ((3, 1), (1, 2))]))
    return [lead[0] + (M, C), lead[1] + (C, K)]


def arrays_of(shapes, seed):
    return [strategies.normal(shape, [seed, i]) for i, shape in enumerate(shapes)]


@given(shapes=layers(), dtype=strategies.dtypes(), **places)
def test_linear_is_its_definition(agrees, shapes, dtype, layout, device, seed):
    agrees(F.linear, ref.linear, *arrays_of(shapes, seed), dtype=dtype, layout=layout,
           device=device)


@FEWER
@given(shapes=layers(), **places)
def test_gradients_of_linear(shapes, layout, device, seed):
    arrays = [strategies.laid_out(a, layout) for a in arrays_of(shapes, seed)]
    check_grads(F.linear, *arrays, reference=ref.linear, kind="multilinear",
                device=device).raise_if_wrong()


@FEWER
@given(shapes=layers(), dtype=strategies.dtypes(), device=strategies.devices(),
       seed=strategies.seeds())
def test_with_relu_it_is_a_relu_behind_it(run, shapes, dtype, device, seed):
    arrays = [a.astype(dtype) for a in arrays_of(shapes, seed)]
    joined = run(lambda *a: F.linear(*a, relu=True), arrays, device=device)
    apart = run(lambda *a: F.relu(F.linear(*a)), arrays, device=device)
    assert all(map(np.array_equal, joined, apart))


@given(shapes=products(), dtype=strategies.dtypes(), **places)
def test_matmul_is_its_definition(agrees, shapes, dtype, layout, device, seed):
    def oracle(a, b):
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = np.broadcast_to(a, lead + a.shape[-2:]), np.broadcast_to(b, lead + b.shape[-2:])
        return np.array([ref.matmul(a[i], b[i]) for i in np.ndindex(lead)]).reshape(
            lead + (a.shape[-2], b.shape[-1]))

    agrees(F.matmul, oracle, *arrays_of(shapes, seed), dtype=dtype, layout=layout, device=device)


@FEWER
@given(shapes=products(), **places)
def test_gradients_of_matmul(shapes, layout, device, seed):
    arrays = [strategies.laid_out(a, layout) for a in arrays_of(shapes, seed)]
    check_grads(lambda a, b: a @ b, *arrays, reference=np.matmul, kind="multilinear",
                device=device).raise_if_wrong()


def test_on_every_device(device):
    for fn, reference, shapes in [(F.linear, ref.linear, [(3, 4), (5, 4), (5,)]),
                                  (F.matmul, ref.matmul, [(3, 4), (4, 2)])]:
        check_grads(fn, *arrays_of(shapes, 0), reference=reference, kind="multilinear",
                    device=device).raise_if_wrong()


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_an_input_that_wants_no_gradient_changes_nothing(run, idle):
    arrays = arrays_of([(3, 4), (5, 4), (5,)], 0)
    expected = run(F.linear, arrays)[1:]
    tensors = [ta.Tensor(a, requires_grad=i != idle) for i, a in enumerate(arrays)]
    y = F.linear(*tensors)
    y.backward(strategies.away_from_zero(y.shape, 1))
    for i, (t, gradient) in enumerate(zip(tensors, expected, strict=True)):
        assert t.grad is None if i == idle else np.array_equal(t.grad, gradient)


# ---------------------------------------------------------------------------- bits

@pytest.mark.parametrize("shapes", [
    [(7, 30), (20, 30), (20,)], [(1, 30), (20, 30), (20,)], [(7, 1), (20, 1), (20,)],
    [(7, 30), (1, 30), (1,)], [(64, 33), (17, 33)]])
def test_linear_has_the_same_bits_for_every_layout(same_bits, float32_is_close, shapes):
    same_bits(F.linear, *arrays_of(shapes, 0))
    float32_is_close(F.linear, *arrays_of(shapes, 0))


@pytest.mark.parametrize("shapes", [
    [(3, 7, 30), (30, 20)], [(7, 30), (30, 20)], [(1, 30), (30, 20)], [(7, 30), (30, 1)],
    [(7, 1), (1, 20)], [(1, 30), (30, 1)], [(2, 1, 4, 5), (3, 5, 6)]])
def test_matmul_has_the_same_bits_for_every_layout(same_bits, float32_is_close, shapes):
    same_bits(F.matmul, *arrays_of(shapes, 0))
    float32_is_close(F.matmul, *arrays_of(shapes, 0))


def test_same_bits_on_every_number_of_threads(same_bits_on_threads):
    same_bits_on_threads(F.linear, *arrays_of([(9, 33), (41, 33), (41,)], 0))
    same_bits_on_threads(F.matmul, *arrays_of([(9, 33), (33, 17)], 0))


# ---------------------------------------------------------------------------- AlexNet's own

@pytest.mark.parametrize("inputs, outputs", [
    pytest.param(9216, 256, id="fc6, an eighth"), pytest.param(4096, 512, id="fc7, a quarter"),
    pytest.param(4096, 1000, id="fc8")])
def test_one_tower_of_the_paper_in_one_direction(inputs, outputs):
    check_direction(F.linear, *arrays_of([(2, inputs), (outputs, inputs), (outputs,)], 0),
                    kind="multilinear").raise_if_wrong()


# ---------------------------------------------------------------------------- errors

def tensor(*shape):
    return ta.Tensor(np.ones(shape, np.float32))


@pytest.mark.parametrize("shapes, message", [
    ([(2, 3), (4, 5)], r"linear: x \(2, 3\) does not meet w \(4, 5\); expected x \(N, C\) and w "
                       r"\(K, C\): flatten maps first"),
    ([(2, 3, 4), (5, 4)], r"linear: x \(2, 3, 4\) does not meet .*: flatten maps first"),
    ([(3,), (4, 3)], r"linear: x \(3,\) does not meet"),
    ([(2, 3), (3,)], r"linear: .* w \(3,\)"),
    ([(2, 3), (4, 3), (3,)], r"linear: b has shape \(3,\); expected \(4,\)"),
    ([(2, 3), (4, 3), (1, 4)], r"linear: b has shape \(1, 4\); expected \(4,\)")])
def test_errors_of_linear_teach(shapes, message):
    with pytest.raises(ValueError, match=message):
        F.linear(*(tensor(*shape) for shape in shapes))


@pytest.mark.parametrize("shapes", [[(2, 3), (4, 5)], [(3,), (3, 2)], [(2, 3), (3,)], [(), ()]])
def test_errors_of_matmul_teach(shapes):
    with pytest.raises(ValueError, match=r"matmul: .* does not fit; expected \(..., M, C\) @ "
                                         r"\(..., C, K\): reshape a vector to one row or column"):
        F.matmul(*(tensor(*shape) for shape in shapes))


def test_plain_arrays_are_refused():
    x, array = tensor(2, 2), np.ones((2, 2), np.float32)
    for call in (lambda: F.linear(array, x), lambda: F.linear(x, array),
                 lambda: F.linear(x, x, array[0]), lambda: F.matmul(x, array)):
        with pytest.raises(TypeError, match="got a plain ndarray; expected a Tensor: wrap it"):
            call()
    with pytest.raises(TypeError, match=r"Tensor @ ndarray: wrap it: ta.Tensor\(array, device="):
        x @ array
    with pytest.raises(TypeError, match="np.matmul: arrays and Tensors do not mix; wrap the array"):
        array @ x
    with pytest.raises(TypeError, match="Tensor @ int"):
        x @ 2
