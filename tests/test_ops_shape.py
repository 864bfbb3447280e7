"""Ops that move elements and change none: each gradient has to find its way home."""

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_grads

MAP = (2, 3, 4, 5)                     # N, C, H, W

OPS = {                                # name: (of a Tensor, of an array)
    "reshape": (lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1)),
    "reshape tuple": (lambda x: F.reshape(x, (5, 24)), lambda x: x.reshape(5, 24)),
    "flatten": (F.flatten, lambda x: x.reshape(2, 60)),
    "flatten all": (lambda x: x.flatten(0), lambda x: x.reshape(-1)),
    "flatten from 2": (lambda x: F.flatten(x, 2), lambda x: x.reshape(2, 3, 20)),
    "transpose": (lambda x: x.transpose(2, 0, 3, 1), lambda x: x.transpose(2, 0, 3, 1)),
    "transpose tuple": (lambda x: F.transpose(x, (-1, 0, 1, -2)),
                        lambda x: x.transpose(3, 0, 1, 2)),
    "T": (lambda x: x.T, lambda x: x.T),
    "one row": (lambda x: x[1], lambda x: x[1]),
    "one element": (lambda x: x[1, 2, -1, 0], lambda x: x[1, 2, -1, 0]),
    "a slice": (lambda x: x[:, 1:, ::2, ::-1], lambda x: x[:, 1:, ::2, ::-1]),
    "new axes": (lambda x: x[None, ..., None, 2], lambda x: x[None, ..., None, 2]),
    "a list": (lambda x: x[[1, 0, 1, 1]], lambda x: x[[1, 0, 1, 1]]),
    "a tuple in a tuple": (lambda x: x[:, (0, 0, 2)], lambda x: x[:, (0, 0, 2)]),
    "an array": (lambda x: x[:, np.array([[0, 2], [2, 2]])],
                 lambda x: x[:, np.array([[0, 2], [2, 2]])]),
    "pairs": (lambda x: x[[0, 0, 1], [2, 2, 0]], lambda x: x[[0, 0, 1], [2, 2, 0]]),
    "a range": (lambda x: x[:, range(2)], lambda x: x[:, range(2)]),
    "a NumPy number": (lambda x: x[np.int64(1), :, np.int32(0)], lambda x: x[1, :, 0]),
    "a mask": (lambda x: x[strategies.mask(MAP, 0)], lambda x: x[strategies.mask(MAP, 0)]),
    "with itself": (lambda x: F.concatenate([x, x], -1), lambda x: ref.concatenate([x, x], -1)),
    "with parts": (lambda x: F.concatenate([x[:, 2:], x, x[:, :1]], 1),
                   lambda x: ref.concatenate([x[:, 2:], x, x[:, :1]], 1)),
    "stack": (lambda x: F.stack([x[0], x[1], x[0]], 1), lambda x: np.stack([x[0], x[1], x[0]], 1)),
    "stack last": (lambda x: F.stack([x, x], -1), lambda x: np.stack([x, x], -1)),
}
by_each = pytest.mark.parametrize("name", OPS)


@by_each
@given(strategies.dtypes(), strategies.layouts(), strategies.devices(), strategies.seeds())
def test_a_move_is_numpys(agrees, name, dtype, layout, device, seed):
    agrees(*OPS[name], strategies.normal(MAP, seed), dtype=dtype, layout=layout, device=device)


@by_each
def test_gradients(name):
    fn, reference = OPS[name]
    for layout in strategies.LAYOUTS:
        x = strategies.laid_out(strategies.normal(MAP, 0), layout)
        check_grads(fn, x, reference=reference, kind="multilinear").raise_if_wrong()


def test_on_every_device(device):
    for fn, reference in OPS.values():
        check_grads(fn, strategies.normal(MAP, 0), reference=reference, kind="multilinear",
                    device=device).raise_if_wrong()


@by_each
def test_backward_is_the_adjoint_of_forward(run, name):
    fn, reference = OPS[name]
    x = strategies.normal(MAP, 0)
    check_adjoint(reference, lambda c: run(fn, [x], c)[1], x).raise_if_wrong()


@by_each
def test_same_bits_for_every_layout(same_bits, float32_is_close, name):
    same_bits(OPS[name][0], strategies.normal(MAP, 0))
    float32_is_close(OPS[name][0], strategies.normal(MAP, 0))


# ---------------------------------------------------------------------------- joining

@st.composite
def parts(draw):
    """Some arrays that differ along one axis, which is counted from either end."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    axis, seed = draw(st.integers(-len(shape), len(shape) - 1)), draw(strategies.seeds())
    extents = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    arrays = []
    for i, extent in enumerate(extents):
        shape[axis] = extent
        arrays.append(strategies.normal(shape, [seed, i]))
    return axis, arrays


@given(parts(), strategies.dtypes(), strategies.layouts(), strategies.devices())
def test_concatenate_is_its_definition(agrees, found, dtype, layout, device):
    axis, arrays = found
    agrees(lambda *p: F.concatenate(p, axis), lambda *p: ref.concatenate(p, axis), *arrays,
           dtype=dtype, layout=layout, device=device)


@given(parts())
def test_each_part_gets_its_own_stretch_of_the_gradient(found):
    axis, arrays = found
    check_grads(lambda *p: F.concatenate(p, axis), *arrays, kind="multilinear",
                reference=lambda *p: ref.concatenate(p, axis)).raise_if_wrong()


def test_joined_maps_have_the_same_bits_for_every_layout(same_bits):
    shapes = [(2, 3, 4, 5), (2, 1, 4, 5), (2, 4, 4, 5)]
    same_bits(lambda *p: F.concatenate(p, 1), *(strategies.normal(s, 0) for s in shapes))


# ---------------------------------------------------------------------------- meaning

def test_flatten_reads_channel_row_column_whatever_the_memory():
    """So that foreign weights of fc6 fit, on a CPU too, where maps lie channels-last."""
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    for layout in strategies.LAYOUTS:
        flat = F.flatten(ta.Tensor(strategies.laid_out(x, layout)))
        assert flat.data.tolist() == [list(range(24))]
    y = F.max_pool2d(ta.Tensor(x), 1)                     # made by an op: channels last
    assert y.data.strides[1] == y.data.itemsize
    assert y.flatten().data.tolist() == [list(range(24))]


def test_an_element_taken_twice_is_paid_twice():
    for index in ([0, 0, 1], np.array([0, 0, 1]), ([0, 0, 1],), ((0, 0, 1),)):
        x = ta.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        x[index].backward(np.array([10, 1, 5], np.float32))
        assert x.grad.tolist() == [11, 5, 0]


def test_a_loop_over_a_tensor_ends():
    assert [row.data.tolist() for row in ta.Tensor([[1.0, 2.0], [3.0, 4.0]])] == [[1, 2], [3, 4]]


# ---------------------------------------------------------------------------- errors

def tensor(*shape, dtype=np.float32):
    return ta.Tensor(np.ones(shape, dtype))


@pytest.mark.parametrize("call, message", [
    (lambda: tensor(2, 3).reshape(4), "cannot reshape array of size 6 into shape"),
    (lambda: F.transpose(tensor(2, 3), 0), r"transpose: axes \(0,\) are no permutation of the 2 "
                                           r"axes of shape \(2, 3\)"),
    (lambda: F.transpose(tensor(2, 3), 1, 1), r"transpose: axes \(1, 1\) are no permutation"),
    (lambda: F.transpose(tensor(2, 3), 0, 3), "axis: got 3; expected an integer from -2 to 1"),
    (lambda: F.concatenate([tensor(2, 3), tensor(2, 3)], 2), "axis: got 2; .* from -2 to 1"),
    (lambda: F.concatenate([tensor(2, 3), tensor(2, 3)], -3), "axis: got -3"),
    (lambda: F.concatenate([tensor(2, 3), tensor(2, 3)], 0.5), "axis: got 0.5; expected an int"),
    (lambda: F.concatenate([tensor(2, 3), tensor(3, 4)]),
     r"concatenate: shapes \[\(2, 3\), \(3, 4\)\] differ in more than axis 0"),
    (lambda: F.concatenate([tensor(2, 3), tensor(2)]), r"concatenate: shapes \[\(2, 3\), \(2,\)\]"),
    (lambda: F.stack([tensor(2), tensor(2)], 2), "axis: got 2; expected an integer from -2 to 1"),
    (lambda: F.stack([tensor(2), tensor(3)]), "shapes .* differ in more than axis 0")])
def test_errors_teach(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("call, message", [
    (lambda: F.concatenate([]), "Concatenate: needs at least one Tensor"),
    (lambda: F.concatenate([tensor(2), np.ones(2)]), "Concatenate: got a plain ndarray"),
    (lambda: F.concatenate([tensor(2), [1.0, 2.0]]), "Concatenate: got a plain list"),
    (lambda: F.concatenate([tensor(2), tensor(2, dtype=np.float64)]),
     "Concatenate: inputs have dtypes float32 and float64"),
    (lambda: F.stack([np.ones(2), np.ones(2)]), "got a plain ndarray; expected a Tensor"),
    (lambda: F.reshape(np.ones(2), 2, 1), "Reshape: got a plain ndarray"),
    (lambda: F.flatten(np.ones((2, 3))), "Reshape: got a plain ndarray"),
    (lambda: F.transpose(np.ones((2, 3))), "Transpose: got a plain ndarray"),
    (lambda: tensor(2)[tensor(2)], r"a Tensor does not turn into a NumPy array by itself")])
def test_what_is_no_tensor_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_an_index_too_far():
    for index in (5, (0, 0, 0), [2], np.array([True, False, True])):
        with pytest.raises(IndexError):
            tensor(2, 3)[index]
