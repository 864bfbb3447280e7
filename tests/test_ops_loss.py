"""Softmax and cross-entropy.

The rows of a softmax sum to 1 whatever goes in, so a cotangent of ones shows a gradient of 0 and
proves nothing: everything here is checked with a random one.
"""

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_direction, check_grads

SOFTMAXES = {"softmax": (F.softmax, ref.softmax), "log_softmax": (F.log_softmax, ref.log_softmax)}
by_softmax = pytest.mark.parametrize("name", SOFTMAXES)
tables = st.tuples(st.integers(1, 4), st.integers(1, 6))         # N, C
places = dict(layout=strategies.layouts(), device=strategies.devices(), seed=strategies.seeds())


def both(labels):
    """The loss against these labels, and its oracle."""
    return (lambda x: F.cross_entropy(x, labels)), (lambda x: ref.cross_entropy(x, labels))


# ---------------------------------------------------------------------------- values and slopes

@by_softmax
@given(shape=st.one_of(tables, strategies.map_shapes(2)), dtype=strategies.dtypes(), **places)
def test_a_softmax_is_its_definition(agrees, name, shape, dtype, layout, device, seed):
    agrees(*SOFTMAXES[name], strategies.normal(shape, seed, scale=3), dtype=dtype, layout=layout,
           device=device)


@given(shape=tables, dtype=strategies.dtypes(), **places)
def test_cross_entropy_is_its_definition(agrees, shape, dtype, layout, device, seed):
    agrees(*both(strategies.labels(*shape, seed)), strategies.normal(shape, seed, scale=3),
           dtype=dtype, layout=layout, device=device)


@by_softmax
@given(shape=tables, **places)
def test_gradients_of_softmax(name, shape, layout, device, seed):
    fn, reference = SOFTMAXES[name]
    x = strategies.laid_out(strategies.normal(shape, seed), layout)
    check_grads(fn, x, reference=reference, device=device).raise_if_wrong()


@given(shape=tables, **places)
def test_gradients_of_cross_entropy(shape, layout, device, seed):
    fn, reference = both(strategies.labels(*shape, seed))
    x = strategies.laid_out(strategies.normal(shape, seed), layout)
    check_grads(fn, x, reference=reference, device=device).raise_if_wrong()


def test_on_every_device(device):
    x = strategies.normal((3, 5), 0)
    for fn, reference in [*SOFTMAXES.values(), both(np.array([4, 0, 2]))]:
        check_grads(fn, x, reference=reference, device=device).raise_if_wrong()


def test_what_was_said_minus_what_is_true():
    x = ta.Tensor(strategies.normal((2, 3), 0), requires_grad=True)
    F.cross_entropy(x, np.array([2, 0])).backward()
    expected = ref.softmax(x.data)
    expected[[0, 1], [2, 0]] -= 1
    assert np.allclose(x.grad, expected / 2, rtol=0, atol=1e-15)
    assert np.allclose(x.grad.sum(axis=1), 0, atol=1e-15)


def test_a_net_that_knows_nothing_pays_ln_of_the_classes():
    """6.908 of 1000 classes: the number at which a net that does not learn stands still."""
    for C, loss in [(2, 0.6931), (10, 2.3026), (1000, 6.9078)]:
        assert F.cross_entropy(ta.Tensor(np.zeros((3, C))), np.zeros(3, int)).item() == \
            pytest.approx(loss, abs=1e-4)


def test_the_loss_is_the_mean_over_the_batch():
    x, labels = strategies.normal((6, 4), 0), strategies.labels(6, 4, 0)
    once = F.cross_entropy(ta.Tensor(x), labels).item()
    twice = F.cross_entropy(ta.Tensor(np.tile(x, (2, 1))), np.tile(labels, 2)).item()
    assert twice == pytest.approx(once, rel=1e-14)


def test_huge_logits_neither_overflow_nor_underflow():
    """Warnings are errors here. A probability of e^-2000 is 0; its logarithm is not -infinity."""
    for dtype in (np.float32, np.float64):
        x = ta.Tensor(np.array([[1000, -1000, 0], [-1000, -1000, 1000]], dtype), requires_grad=True)
        loss = F.cross_entropy(x, np.array([1, 2]))
        assert loss.item() == 1000 and loss.dtype == dtype
        loss.backward()
        assert x.grad.tolist() == [[0.5, -0.5, 0], [0, 0, 0]]
        assert F.softmax(x).data.tolist() == [[1, 0, 0], [0, 0, 1]]
        assert F.log_softmax(x).data[0].tolist() == [0, -2000, -1000]


def test_a_constant_added_to_all_logits_changes_nothing():
    x = np.round(strategies.normal((3, 4), 0), 2)
    assert np.allclose(F.softmax(ta.Tensor(x + 64)).data, F.softmax(ta.Tensor(x)).data, rtol=1e-12)


def test_labels_of_every_integer_dtype():
    x = strategies.normal((3, 4), 0)
    expected = F.cross_entropy(ta.Tensor(x), [3, 0, 1]).item()
    for dtype in (np.uint8, np.int16, np.int32, np.int64, np.uint64):
        assert F.cross_entropy(ta.Tensor(x), np.array([3, 0, 1], dtype)).item() == expected


def test_labels_stay_as_they_were():
    labels = np.array([3, 0, 1])
    labels.flags.writeable = False
    x = ta.Tensor(strategies.normal((3, 4), 0), requires_grad=True)
    F.cross_entropy(x, labels).backward()
    assert labels.tolist() == [3, 0, 1]


# ---------------------------------------------------------------------------- bits, real size

@by_softmax
@pytest.mark.parametrize("shape", [(7, 30), (1, 30), (7, 1), (2, 3, 4, 5)])
def test_softmax_has_the_same_bits_for_every_layout(same_bits, float32_is_close, name, shape):
    same_bits(SOFTMAXES[name][0], strategies.normal(shape, 0))
    float32_is_close(SOFTMAXES[name][0], strategies.normal(shape, 0))


@pytest.mark.parametrize("shape", [(7, 30), (1, 30), (7, 1), (33, 10)])
def test_cross_entropy_has_the_same_bits_for_every_layout(same_bits, float32_is_close, shape):
    fn, _ = both(strategies.labels(*shape, 0))
    same_bits(fn, strategies.normal(shape, 0))
    float32_is_close(fn, strategies.normal(shape, 0))


def test_a_thousand_classes_in_one_direction():
    fn, _ = both(strategies.labels(32, 1000, 0))
    for f in (fn, F.softmax, F.log_softmax):
        check_direction(f, strategies.normal((32, 1000), 0)).raise_if_wrong()


# ---------------------------------------------------------------------------- errors

@pytest.mark.parametrize("labels, error, message", [
    ([0.0, 1.0, 2.0], TypeError, "labels are float64; expected an integer array, class numbers "
                                 "and not one-hot rows"),
    (np.eye(4)[:3], TypeError, "labels are float64; .* not one-hot rows"),
    (np.eye(4, dtype=int)[:3], ValueError, r"labels have shape \(3, 4\), logits \(3, 4\); expected "
                                           r"one label per row, \(3,\)"),
    (np.array([True, False, True]), TypeError, "labels are bool; expected an integer array"),
    (["cat", "dog", "cat"], TypeError, "labels are .*; expected an integer array"),
    (None, TypeError, "labels are object; expected an integer array"),
    (ta.Tensor([0.0, 1.0, 2.0]), TypeError, "labels are float32; expected an integer array"),
    (np.array([0, 1]), ValueError, r"labels have shape \(2,\), logits \(3, 4\)"),
    (np.array([[0], [1], [2]]), ValueError, r"labels have shape \(3, 1\)"),
    (2, ValueError, r"labels have shape \(\), .* expected one label per row, \(3,\)"),
    (np.array([0, 4, 1]), ValueError, "a label is 4; expected 0 to 3"),
    (np.array([0, 255, 1], np.uint8), ValueError, "a label is 255; expected 0 to 3"),
    (np.array([0, -1, 4]), ValueError, "a label is -1; expected 0 to 3"),
    (np.array([0, -100, 1]), ValueError, "a label is -100; expected 0 to 3")])
def test_labels_that_are_wrong(labels, error, message):
    """None is ever ignored, -100 neither, which means that in other places."""
    x = ta.Tensor(strategies.normal((3, 4), 0), requires_grad=True)
    with pytest.raises(error, match=f"cross_entropy: {message}"):
        F.cross_entropy(x, labels)


@pytest.mark.parametrize("shape", [(), (4,), (3, 4, 5), (3, 4, 1, 1)])
def test_logits_that_are_no_table(shape):
    with pytest.raises(ValueError, match=r"cross_entropy: logits have shape \(.*expected \(N, C\)"):
        F.cross_entropy(ta.Tensor(np.ones(shape)), np.zeros(3, int))


def test_an_empty_batch_has_no_mean():
    with pytest.raises(ValueError, match=r"logits \(0, 4\); .* at least one row"):
        F.cross_entropy(ta.Tensor(np.ones((0, 4))), np.zeros(0, int))


def test_plain_arrays_are_refused():
    for logits, kind in [(np.ones((3, 4)), "ndarray"), ([[1.0, 2.0]], "list")]:
        taught = f"got a plain {kind}; expected a Tensor"
        with pytest.raises(TypeError, match=f"cross_entropy: {taught}"):
            F.cross_entropy(logits, np.zeros(3, int))
        for fn, _ in SOFTMAXES.values():
            with pytest.raises(TypeError, match=f"Softmax: {taught}"):
                fn(logits)
