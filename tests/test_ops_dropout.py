"""Dropout: what it does with a mask, and where its masks come from."""

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_grads
from tinyalex.ops.dropout import draw_mask

scalings = pytest.mark.parametrize("scaling", ["inverted", "paper"])
both_modes = pytest.mark.parametrize("training", [True, False])


@pytest.fixture(autouse=True)
def start():
    """Each test starts at seed 0, step 0, and leaves no trace."""
    state = ta.random.get_state()
    ta.manual_seed(0)
    yield
    ta.random.set_state(**state)


def masked(mask, p, training, scaling):
    """Dropout by a given mask, and its oracle, as functions of x alone."""
    return (lambda x: F.dropout(x, p, training, mask, scaling),
            lambda x: ref.dropout(x, mask, p, training, scaling))


# ---------------------------------------------------------------------------- with a mask

@scalings
@both_modes
@given(st.one_of(strategies.map_shapes(3), st.tuples(st.integers(1, 3), st.integers(1, 9))),
       st.sampled_from([0.0, 0.2, 0.5, 0.9]), strategies.dtypes(), strategies.layouts(),
       strategies.devices(), strategies.seeds())
def test_dropout_is_its_definition(agrees, scaling, training, shape, p, dtype, layout, device,
                                   seed):
    mask = strategies.laid_out(strategies.mask(shape, seed, 1 - p), layout)
    agrees(*masked(mask, p, training, scaling), strategies.normal(shape, seed), dtype=dtype,
           layout=layout, device=device)


@scalings
@both_modes
def test_gradients(scaling, training, device):
    mask = strategies.mask((3, 4, 2, 2), 0)
    fn, reference = masked(mask, 0.3, training, scaling)
    x = strategies.normal(mask.shape, 0)
    check_grads(fn, x, reference=reference, kind="multilinear", device=device).raise_if_wrong()


@scalings
def test_backward_is_the_adjoint_of_forward(run, scaling):
    fn, _ = masked(strategies.mask((5, 6), 0), 0.5, True, scaling)
    x = strategies.normal((5, 6), 0)
    check_adjoint(lambda x: fn(ta.Tensor(x)).data, lambda c: run(fn, [x], c)[1],
                  x).raise_if_wrong()


@scalings
@both_modes
def test_same_bits_for_every_layout(same_bits, float32_is_close, scaling, training):
    fn, _ = masked(strategies.mask((3, 4, 5, 6), 0), 0.5, training, scaling)
    same_bits(fn, strategies.normal((3, 4, 5, 6), 0))
    float32_is_close(fn, strategies.normal((3, 4, 5, 6), 0))


# ---------------------------------------------------------------------------- the two scalings

def test_the_paper_pays_at_test_time():
    """Section 4.2: in training silence alone, at test time all outputs times 0.5."""
    x = ta.Tensor(np.ones((4, 1000), np.float32))
    train, test = (F.dropout(x, 0.5, training, scaling="paper").data for training in (True, False))
    assert set(train.ravel().tolist()) == {0, 1} and set(test.ravel().tolist()) == {0.5}


def test_the_inverted_scaling_pays_in_training():
    x = ta.Tensor(np.ones((4, 1000), np.float32))
    assert set(F.dropout(x, 0.75).data.ravel().tolist()) == {0, 4}
    assert F.dropout(x, 0.75, training=False) is x


@scalings
def test_both_scalings_agree_on_the_mean(scaling):
    x = ta.Tensor(np.ones((100, 1000)))
    mean = [F.dropout(x, 0.3, training, scaling=scaling).data.mean() for training in (True, False)]
    assert mean[0] == pytest.approx(mean[1], abs=0.01)


def test_the_ends_of_p():
    x = ta.Tensor(np.ones((4, 100), np.float32))
    for scaling in ("inverted", "paper"):
        assert F.dropout(x, 0, scaling=scaling) is x
        assert F.dropout(x, 0, training=False, scaling=scaling) is x
        assert not F.dropout(x, 1, scaling=scaling).data.any()
    assert not F.dropout(x, 1, training=False, scaling="paper").data.any()


@both_modes
def test_the_gradient_goes_where_the_value_went(training):
    x = ta.Tensor(np.ones((20, 20), np.float32), requires_grad=True)
    y = F.dropout(x, 0.5, training, scaling="paper")
    y.sum().backward()
    assert np.array_equal(x.grad, y.data)


# ---------------------------------------------------------------------------- where masks come from

def draw(seed=0, step=0, use=0, place="fc6", rows=6, units=50, p=0.5, **part):
    """The mask that this place sees at its `use`-th call in this step."""
    ta.random.set_state(seed, step)
    for _ in range(use + 1):
        mask = draw_mask((rows, units), p, place, **part)
    return mask


def test_a_mask_is_a_function_of_seed_step_use_and_place():
    mask = draw()
    assert mask.dtype == bool and mask.shape == (6, 50)
    assert np.array_equal(draw(), mask)
    others = [draw(seed=1), draw(step=1), draw(use=1), draw(use=2), draw(place="fc7"),
              draw(seed=1, step=1), draw(seed=2**64 - 1), draw(step=2**40)]
    for a in range(len(others)):
        for b in [mask] + others[:a]:               # no two agree on more than chance allows
            assert 0.35 < np.mean(others[a] == b) < 0.65


def test_a_mask_does_not_depend_on_what_else_was_drawn():
    expected = draw(place="fc7")
    ta.random.set_state(0, 0)
    draw_mask((3, 7), 0.5, "fc6")
    ta.random.generator("order", "epoch").permutation(10)
    assert np.array_equal(draw_mask((6, 50), 0.5, "fc7"), expected)


def test_the_optimizer_moves_every_place_on():
    ta.random.set_state(0, 0)
    first = draw_mask((6, 50), 0.5, "fc6")
    ta.random.next_step()
    assert np.array_equal(draw_mask((6, 50), 0.5, "fc6"), draw(step=1))
    assert not np.array_equal(first, draw(step=1))


def test_each_row_and_each_unit_has_a_bit_of_its_own():
    """Rows are places in the global batch: more rows, or a later start, change none of them."""
    whole = draw(rows=12)
    assert np.array_equal(draw(rows=5), whole[:5])
    for first in range(12):
        assert np.array_equal(draw(rows=12 - first, first_row=first), whole[first:])
    assert len(np.unique(whole, axis=0)) == 12


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 20))
def test_two_towers_draw_the_two_halves_of_the_joined_mask(rows, left, right, first_row):
    """So two towers, one grouped net, one machine and many train the same net."""
    joined = draw(rows=rows, units=left + right, first_row=first_row)
    ta.random.set_state(0, 0)                 # one step: the towers' draws are of one use
    parts = [draw_mask((rows, width), 0.5, "fc6", units=left + right, start=start,
                       first_row=first_row) for start, width in [(0, left), (left, right)]]
    assert np.array_equal(np.concatenate(parts, axis=1), joined)


def test_maps_are_drawn_unit_by_unit_in_c_order():
    ta.random.set_state(0, 0)
    assert np.array_equal(draw_mask((6, 2, 5, 5), 0.5, "fc6").reshape(6, 50), draw())


def test_the_op_draws_by_the_same_rule(device):
    x = ta.Tensor(np.ones((6, 50), np.float32), device)
    for use in (0, 1):
        ta.random.set_state(0, 0)
        for _ in range(use + 1):
            y = F.dropout(x, 0.5, place="fc6", scaling="paper")
        assert np.array_equal(device.numpy(y.data), draw(use=use))
    ta.random.set_state(0, 0)
    part = F.dropout(x[2:5], 0.5, place="fc6", scaling="paper", first_row=2)
    assert np.array_equal(device.numpy(part.data), draw()[2:5])


def test_outside_a_module_it_draws_at_a_place_of_its_own():
    x = ta.Tensor(np.ones((6, 50), np.float32))
    first, second = (F.dropout(x, scaling="paper").data for _ in range(2))
    assert np.array_equal(first, draw(place="F.dropout"))
    assert np.array_equal(second, draw(place="F.dropout", use=1))


def test_testing_draws_nothing():
    x = ta.Tensor(np.ones((6, 50), np.float32))
    F.dropout(x, training=False), F.dropout(x, 0), F.dropout(x, mask=strategies.mask((6, 50), 0))
    assert np.array_equal(F.dropout(x, scaling="paper").data, draw(place="F.dropout"))


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_units_are_silent_with_probability_p(p):
    """Within four standard deviations over all, over rows, over units, and beside a neighbor."""
    rows, units = 400, 300
    silent = ~draw(rows=rows, units=units, p=p)

    def near(mean, count):
        return np.abs(mean - p).max() < 4.5 * np.sqrt(p * (1 - p) / count)

    assert near(silent.mean(), rows * units)
    assert near(silent.mean(axis=0), rows) and near(silent.mean(axis=1), units)
    for a, b in [(silent[:, 1:], silent[:, :-1]), (silent[1:], silent[:-1])]:
        both = (a & b).mean()
        assert abs(both - p**2) < 4.5 * np.sqrt(p**2 * (1 - p**2) / a.size)


def test_the_mask_of_a_larger_p_silences_more_of_the_same():
    masks = [draw(p=p) for p in (0.1, 0.4, 0.8)]
    assert (masks[0] >= masks[1]).all() and (masks[1] >= masks[2]).all()


# ---------------------------------------------------------------------------- errors

@pytest.mark.parametrize("arguments, message", [
    (dict(p=1.5), "dropout: p is 1.5; expected a probability from 0 to 1"),
    (dict(p=-0.1), "dropout: p is -0.1; expected"), (dict(p=float("nan")), "dropout: p is nan"),
    (dict(p="0.5"), "dropout: p is '0.5'"), (dict(p=None), "dropout: p is None"),
    (dict(scaling="none"), "scaling is 'none'; expected 'inverted' or 'paper'"),
    (dict(mask=np.ones(3, bool)), r"mask is bool \(3,\); expected a boolean array \(2, 3\)"),
    (dict(mask=np.ones((2, 3))), r"mask is float64 \(2, 3\); expected a boolean array \(2, 3\)"),
    (dict(mask=np.ones((2, 3), int)), r"mask is int64 \(2, 3\); expected a boolean"),
    (dict(mask=[[True] * 3] * 2), r"mask is list; expected a boolean array \(2, 3\)")])
@both_modes
def test_errors_teach(training, arguments, message):
    with pytest.raises(ValueError, match=message):
        F.dropout(ta.Tensor(np.ones((2, 3), np.float32)), training=training, **arguments)


@both_modes
def test_plain_arrays_are_refused(training):
    for value, kind in [(np.ones((2, 3)), "ndarray"), ([[1.0]], "list")]:
        with pytest.raises(TypeError, match=f"dropout: got a plain {kind}; expected a Tensor"):
            F.dropout(value, training=training)


def test_backward_frees_the_mask():
    mask = np.ones((2, 3), bool)
    x = ta.Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = F.dropout(x, mask=mask)
    y.backward(np.ones_like(y.data))
    assert y.node.saved == () and y.node.mask is None
