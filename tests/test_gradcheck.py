"""The gradient checker, checked: it accepts what is right, and names what is planted wrong."""

import gc

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_direction, check_grads

SHAPE = (2, 4, 6, 7)                    # N, C, H, W


def random(*shape, seed=0):
    return strategies.normal(shape, seed)


def spoiled(spoil, power=2):
    """A function of Tensors: y = x^power, whose gradient `spoil(right gradient, x)` ruins."""

    class Power(ta.Function):
        def forward(self, x):
            self.save(x)
            return x**power

        def backward(self, gy):
            (x,) = self.saved
            return (spoil(gy * power * x ** (power - 1), x),)

    return lambda x: Power()(x)


def with_part(g, index, value):
    """A copy of g with one part replaced by value(part)."""
    g = g.copy()
    g[index] = value(g[index])
    return g


def double(part):
    return 2 * part


# ---------------------------------------------------------------------------- what is right

@pytest.mark.parametrize("fn, reference, arrays, kind", [
    (lambda x: x * x, lambda x: x * x, [random(3, 4)], "smooth"),
    (lambda a, b: a @ b, ref.matmul, [random(3, 4), random(4, 2)], "multilinear"),
    (F.linear, ref.linear, [random(3, 4), random(2, 4), random(2)], "multilinear"),
    (F.softmax, ref.softmax, [random(3, 5)], "smooth"),
    (F.tanh, ref.tanh, [random(3, 5)], "smooth"),
    (lambda x: F.cross_entropy(x, np.array([4, 0, 2])),
     lambda x: ref.cross_entropy(x, [4, 0, 2]), [random(3, 5)], "smooth"),
    (lambda x: F.local_response_norm(x, 4, 1.0, 0.75, 2.0),
     lambda x: ref.local_response_norm(x, 4, 1.0, 0.75, 2.0), [random(2, 6, 2, 3)], "smooth"),
    (lambda x, w: F.conv2d(x, w, None, 2, ((1, 0), (0, 2)), 2, True),
     lambda x, w: ref.conv2d(x, w, None, 2, ((1, 0), (0, 2)), 2, True),
     [random(2, 4, 5, 6), random(2, 2, 3, 3)], "multilinear"),
    (F.relu, ref.relu, [strategies.away_from_zero((3, 4), 0, margin=2)], "multilinear"),
    (lambda x: F.max_pool2d(x, 3, 2, 1, True), lambda x: ref.max_pool2d(x, 3, 2, 1, True),
     [strategies.distinct(SHAPE, 0, gap=4)], "multilinear")])
def test_right_gradients_pass(fn, reference, arrays, kind):
    report = check_grads(fn, *arrays, reference=reference, kind=kind)
    assert report and report.ok and not report.complaints
    assert [c.method for c in report.inputs] == ["complex step"] * len(arrays)
    assert max(c.max_error for c in report.inputs) < 1e-12
    without = check_grads(fn, *arrays, kind=kind, seed=3)
    assert without and {c.method for c in without.inputs} == {"central differences"}
    assert check_direction(fn, *arrays, kind=kind)


@pytest.mark.parametrize("layout", strategies.LAYOUTS)
@pytest.mark.parametrize("device", strategies.device_names())
def test_every_layout_and_device(layout, device):
    x = strategies.laid_out(random(*SHAPE), layout)
    report = check_grads(lambda x: F.local_response_norm(x, 3, 1.0), x, device=device)
    assert report and device in str(report)


def test_whatever_comes_is_promoted_to_float64():
    assert check_grads(lambda x: x * x, [1, 2, 3])
    assert check_grads(lambda x: x * x, np.arange(3, dtype=np.float32))
    assert check_grads(lambda x: x * x, np.array([1, 2], np.uint8)).inputs[0].max_error < 1e-9


def test_a_function_that_bends_sharply_passes():
    """The plain central difference is 1e-6 off here; Richardson's is not."""
    assert check_grads(lambda x: F.tanh(x * 30.0), np.array([0.01, -0.02, 0.03]))


def test_a_saturated_function_passes():
    """The gradient is 1e-7 while the inputs, of size 9, cancel: rounding is no error."""
    for x in ([[9.0, -7.0, 1.0]], [[18.0, 0.0, 1.0]]):
        assert check_grads(lambda x: F.cross_entropy(x, np.array([0])), x)
        assert check_direction(lambda x: F.cross_entropy(x, np.array([0])), x)


def test_an_input_that_fn_ignores_has_a_zero_gradient():
    assert check_grads(lambda x, unused: x * x, random(3), random(2))


def test_small_gradients_are_checked_as_strictly():
    """The tolerance goes with the gradient's own size: 1e-12 wrong by a half is wrong."""
    assert check_grads(lambda x: x * 1e-12, random(5), kind="multilinear")
    halved = spoiled(lambda g, x: g * 0.5, power=1)
    assert not check_grads(lambda x: halved(x) * 1e-12, random(5), kind="multilinear")
    assert not check_grads(lambda x: halved(x) * 1e-8, random(5))


def test_a_softmax_whose_backward_is_zero_is_caught():
    class Softmax(ta.Function):
        def forward(self, x):
            return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)

        def backward(self, gy):
            return (0 * gy,)          # right for a cotangent of ones: the sum is always 1

    report = check_grads(lambda x: Softmax()(x), random(3, 4))
    assert not report and "zero everywhere" in report.inputs[0].cause


def test_a_tiny_cross_term_is_caught():
    """LRN without the influence of its neighbors, at the paper's own small alpha."""
    class Forgetful(ta.Function):
        def forward(self, x):
            y = ref.local_response_norm(x, 5, 1e-4, 0.75, 2.0)
            self.save(y / x)
            return y

        def backward(self, gy):
            return (gy * self.saved[0],)

    x = strategies.away_from_zero((1, 6, 2, 2), 0)
    assert not check_grads(lambda x: Forgetful()(x), x)


# ---------------------------------------------------------------------------- likely causes

def transposed(g, x):
    return np.ascontiguousarray(np.swapaxes(g, -1, -2)).reshape(g.shape)


@pytest.mark.parametrize("spoil, cause", [
    (lambda g, x: 0 * g, "zero everywhere"),
    (lambda g, x: -g, "the sign"),
    (lambda g, x: g / 2, "a factor 2 forgotten"),
    (lambda g, x: 3 * g, "a constant factor, 3 everywhere"),
    (lambda g, x: -3 * g, "a constant factor, -3 everywhere"),
    (lambda g, x: g.astype(np.float32).astype(float), "right to six digits: a float32"),
    (lambda g, x: g * 1.00001, "a constant factor, 1.00001 everywhere"),
    (lambda g, x: g * len(g), "1/2 of a mean over 2 forgotten, or one term counted twice"),
    (lambda g, x: g * g.size, "1/336 of a mean over 336 forgotten"),
    (lambda g, x: g / 7, "divided by 7, a length"),
    (transposed, "transposed: axes 2 and 3"),
    (lambda g, x: g[..., ::-1, ::-1].copy(), "mirrored along the axes (-2, -1)"),
    (lambda g, x: np.roll(g, 1, axis=1), "the right numbers at the wrong places"),
    (lambda g, x: with_part(g, (1, 2, 3, 4), double), "one element only, [1, 2, 3, 4]"),
    (lambda g, x: with_part(g, np.s_[:, :, :1], double), "top and left border only"),
    (lambda g, x: with_part(g, np.s_[:, :, :, -2:], double), "bottom and right border only"),
    (lambda g, x: g + g * (np.pad(np.zeros((4, 5)), 1, constant_values=1)),
     "the border only: the padding crop"),
    (lambda g, x: with_part(g, np.s_[:, :, ::2], double), "every 2 rows and 1 columns"),
    (lambda g, x: with_part(g, np.s_[:, :, 1::3, 1::2], double), "every 3 rows and 2 columns"),
    (lambda g, x: with_part(g, np.s_[:, 2:], double), "block of axis 1, entries 2, 3 of 4"),
    (lambda g, x: with_part(g, np.s_[:1], double), "block of axis 0, entries 0 of 2"),
    (lambda g, x: np.where(x < 0, 0, g), "wherever the input is negative"),
    (lambda g, x: np.where(g > 1, 0, g), "zero where it should not be"),
    (lambda g, x: g + 1e-3 * x**3, "no pattern"),
    (lambda g, x: with_part(g, (0, 0, 0, 0), lambda part: np.nan), "NaN or infinity"),
    (lambda g, x: with_part(g, (0, 0, 0, 0), lambda part: np.inf), "NaN or infinity")])
def test_the_cause_is_named(spoil, cause):
    report = check_grads(spoiled(spoil), random(*SHAPE))
    (found,) = report.inputs
    assert not report and not report.ok and not report.complaints
    assert cause in found.cause and cause in str(report)


def test_the_cause_is_named_for_matrices_and_vectors():
    report = check_grads(spoiled(transposed), random(3, 5))
    assert "transposed: axes 0 and 1" in report.inputs[0].cause
    report = check_grads(spoiled(lambda g, x: with_part(g, np.s_[3:], double)), random(5))
    assert "block of axis 0, entries 3, 4 of 5" in report.inputs[0].cause
    report = check_grads(spoiled(lambda g, x: 2 * g), random(1))
    assert "one term counted twice" in report.inputs[0].cause
    report = check_grads(spoiled(lambda g, x: 1.2345 * g), random(1))
    assert "no pattern" in report.inputs[0].cause       # of one number any error is a factor


def test_a_forgotten_mask_is_named():
    class Leaky(ta.Function):
        def forward(self, x):
            return np.maximum(x, 0)

        def backward(self, gy):
            return (gy,)

    report = check_grads(lambda x: Leaky()(x), strategies.away_from_zero(SHAPE, 0))
    assert "a mask forgotten" in report.inputs[0].cause


class Windows(ta.Function):
    """A sum over overlapping windows of 3, 2 apart, whose backward writes = for +=."""

    def forward(self, x):
        return x[..., 0:-2:2] + x[..., 1:-1:2] + x[..., 2::2]

    def backward(self, gy):
        gx = np.zeros(self.shapes[0])
        for tap in range(3):
            gx[..., tap:tap + 2 * gy.shape[-1]:2] = gy
        return (gx,)


def test_windows_that_overwrite_each_other_are_named():
    report = check_grads(lambda x: Windows()(x), random(1, 2, 3, 7), kind="multilinear")
    (found,) = report.inputs
    assert "only where windows overlap" in found.cause
    assert sorted(set(np.nonzero(found.wrong)[3])) == [2, 4]


def test_each_input_has_its_own_verdict():
    class Product(ta.Function):
        def forward(self, a, b):
            self.save(a, b)
            return a * b

        def backward(self, gy):
            a, b = self.saved
            return gy * b, gy * b

    report = check_grads(lambda a, b: Product()(a, b), random(2, 3), random(2, 3, seed=1),
                         kind="multilinear")
    assert [c.count for c in report.inputs] == [0, 6]


def test_a_cut_graph_is_a_zero_gradient():
    report = check_grads(lambda x: (x * x).detach(), random(3))
    assert "the graph cut on the way" in report.inputs[0].cause
    report = check_grads(lambda a, b: a * b.detach(), random(3), random(3))
    assert [c.count for c in report.inputs] == [0, 3]


def test_a_kink_is_not_blamed_on_backward():
    for at in (0.0, 2.0**-15):
        report = check_grads(F.relu, np.array([at, 1.0, -1.0]))
        assert not report and "a kink" in report.inputs[0].cause
    tie = np.array([[1.0, 1.0], [0.0, -1.0]])[None, None]
    assert "a kink" in check_grads(lambda x: F.max_pool2d(x, 2), tie).inputs[0].cause
    assert "a kink" in check_direction(F.relu, np.zeros(9)).inputs[0].cause


def test_what_is_not_multilinear_is_said():
    report = check_grads(F.tanh, random(4), kind="multilinear")
    assert not report and "kind='smooth'" in report.inputs[0].cause


# ---------------------------------------------------------------------------- conduct

def complaints(fn, *arrays, **options):
    report = check_grads(fn, *(arrays or (random(2, 3),)), **options)
    assert not report
    return "\n".join(report.complaints)


def test_a_forward_that_overwrites_its_input():
    class Greedy(ta.Function):
        def forward(self, x):
            x *= 2
            return x.copy()

        def backward(self, gy):
            return (2 * gy,)

    x = random(2, 3)
    kept = x.copy()
    report = check_grads(lambda x: Greedy()(x), x)
    assert "input 0 is overwritten" in str(report) and report.inputs[0].count == 0
    assert np.array_equal(x, kept)                      # put right again


def test_a_backward_that_overwrites_its_input():
    def spoil(g, x):
        x *= 0
        return g

    assert "input 0 is overwritten" in complaints(spoiled(spoil))


def test_a_backward_that_overwrites_gy():
    class Hasty(ta.Function):
        def forward(self, x):
            return 3 * x

        def backward(self, gy):
            gy *= 3
            return (gy,)

    said = complaints(lambda x: Hasty()(x))
    assert "backward overwrites gy" in said
    assert "used twice, an input does not get the sum" in said


def test_a_random_fn_is_said_to_be_random():
    report = check_grads(lambda x: F.dropout(x, 0.5), random(10, 10))
    assert not report and not report.inputs
    assert "fn is random" in str(report) and "mask" in str(report)
    fixed = strategies.mask((10, 10), 0)
    assert check_grads(lambda x: F.dropout(x, 0.5, mask=fixed), random(10, 10),
                       reference=lambda x: ref.dropout(x, fixed), kind="multilinear")


def test_a_random_backward():
    rng = np.random.default_rng(0)
    said = complaints(spoiled(lambda g, x: g * (1 + 1e-15 * rng.choice([0, 4], g.shape))))
    assert "backward is random" in said


class Unwatched(ta.Function):
    """An op whose gradient `spoil(gy)` the engine does not look at."""

    def __init__(self, spoil):
        self.spoil = spoil

    def forward(self, x):
        return x * 1

    def run_backward(self, gy):
        return (self.spoil(gy),)


def test_a_gradient_that_lost_its_precision():
    with pytest.raises(TypeError, match="returned dtypes .*float32"):    # the engine says so
        check_grads(spoiled(lambda g, x: g.astype(np.float32)), random(2, 3))
    said = complaints(lambda x: Unwatched(lambda gy: gy.astype(np.float32))(x))  # and so do we
    assert "gradient of input 0 is ndarray float32 (2, 3)" in said
    assert "expected ndarray float64 (2, 3)" in said


def test_a_gradient_of_another_shape():
    with pytest.raises(ValueError, match="expected those of its inputs"):
        check_grads(spoiled(lambda g, x: g.sum(axis=0)), random(2, 3))
    report = check_grads(lambda x: Unwatched(lambda gy: gy.sum(axis=0))(x), random(2, 3))
    assert not report and not report.inputs             # nothing that could be compared
    assert "gradient of input 0 is ndarray float64 (3,)" in str(report)


def test_gradients_that_do_not_accumulate():
    calls = []

    def spoil(g, x):
        calls.append(g)
        return g if len(calls) < 3 else 0 * g           # right, but for the third time

    said = complaints(spoiled(spoil))
    assert "does not give exactly twice the gradient" in said


def test_a_graph_that_stays_alive():
    class Ring(ta.Function):
        def forward(self, x):
            self.me = self                              # a cycle: only the collector could free it
            return 2 * x

        def backward(self, gy):
            return (2 * gy,)

    assert "the graph outlives its result" in complaints(lambda x: Ring()(x))
    hoard = []
    assert "the graph outlives its result" in complaints(lambda x: hoard.append(x * x) or hoard[-1])


def test_the_collector_is_off_while_the_graph_has_to_die_and_then_as_it_was():
    seen = []
    assert gc.isenabled()
    assert check_grads(lambda x: seen.append(gc.isenabled()) or x * x, random(2))
    assert gc.isenabled() and False in seen
    gc.disable()
    try:
        assert check_grads(lambda x: x * x, random(2))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_graph_under_no_grad():
    def stubborn(x):
        with ta.enable_grad():
            return x * x

    assert "no_grad: a graph is built all the same" in complaints(stubborn)


# ---------------------------------------------------------------------------- the reference

def test_a_forward_that_differs_from_its_reference():
    said = complaints(lambda x: x * x, reference=lambda x: x * x + 1e-9)
    assert "the result differs from the reference's, most at" in said
    with pytest.raises(ValueError, match=r"reference: got a result of shape \(\); expected"):
        check_grads(lambda x: x * x, random(2, 3), reference=lambda x: (x * x).sum())


def test_the_complex_step_is_sharper_than_differences():
    slightly = spoiled(lambda g, x: g * (1 + 1e-10))
    x = strategies.away_from_zero((2, 3), 0)
    assert check_grads(slightly, x)
    (found,) = check_grads(slightly, x, reference=lambda x: x * x).inputs
    assert found.method == "complex step" and found.count == 6


def test_a_reference_that_drops_the_imaginary_part():
    with pytest.raises(TypeError, match="keep the imaginary part"):
        check_grads(lambda x: x * x, random(3), reference=lambda x: x.real**2)


# ---------------------------------------------------------------------------- the report

def test_the_report_can_be_read():
    report = check_grads(spoiled(lambda g, x: with_part(g, np.s_[:, 1, :2], double)),
                         random(1, 2, 6, 6))
    (found,) = report.inputs
    assert found.count == 12 and found.wrong.sum() == 12 and found.error.shape == (1, 2, 6, 6)
    assert found.error[found.worst] == found.max_error == found.error.max()
    assert found.analytic[found.worst] == pytest.approx(2 * found.numeric[found.worst])
    text = str(report)
    assert text == repr(report)
    assert text.startswith("check_grads in float64 on cpu:0, seed 0: WRONG\n")
    assert "input 0 (1, 2, 6, 6): 12 of 72 wrong, most at [0, 1, " in text
    assert "top and left border only" in text
    assert text.endswith(2 * "\n      ######" + 4 * "\n      ......")
    with pytest.raises(AssertionError, match="12 of 72 wrong"):
        report.raise_if_wrong()


def test_a_good_report_says_how_good():
    report = check_grads(lambda x: x * x, random(3))
    assert str(report).startswith("check_grads in float64 on cpu:0, seed 0: right\n"
                                  "  input 0 (3,): right, largest error ")
    assert report.raise_if_wrong() is None


def test_seeds_draw_cotangents():
    broken = spoiled(lambda g, x: 2 * g)
    first, same, other = (check_grads(broken, random(3), seed=seed).inputs[0].numeric
                          for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.allclose(first, other)


def test_what_cannot_be_checked_is_said():
    with pytest.raises(ValueError, match="arrays: got none"):
        check_grads(lambda: ta.Tensor(1.0))
    with pytest.raises(ValueError, match="array 1: got complex128"):
        check_grads(lambda x, y: x, random(2), np.ones(2, complex))
    with pytest.raises(ValueError, match="array 0: got float64 \\(0, 3\\)"):
        check_grads(lambda x: x, np.ones((0, 3)))
    with pytest.raises(ValueError, match="20001 elements.*check_direction"):
        check_grads(lambda x: x, np.ones(20_001))
    with pytest.raises(ValueError, match="kind: got 'linear'"):
        check_grads(lambda x: x, random(2), kind="linear")
    with pytest.raises(TypeError, match="fn returned a ndarray; expected a Tensor"):
        check_grads(lambda x: x.data, random(2))


# ---------------------------------------------------------------------------- one direction

def test_one_direction_sees_wrong_formulas_at_real_size():
    x = strategies.normal((1, 96, 27, 27), 0)
    assert check_direction(lambda x: F.local_response_norm(x, 5), x)
    for spoil, cause in [(lambda g, x: 0 * g, "zero everywhere"), (lambda g, x: -g, "the sign"),
                         (lambda g, x: g * 1.001, "no pattern"),
                         (lambda g, x: g / 96, "divided by 96"),
                         (lambda g, x: with_part(g, np.s_[:, :, -1], double), "no pattern")]:
        report = check_direction(spoiled(spoil), x)
        assert not report and cause in report.inputs[0].cause


def test_one_direction_whose_terms_cancel_is_no_kink():
    """Of 60 directions some are nearly flat, where even a gentle curve looks like a bend."""
    slightly = spoiled(lambda g, x: g * 1.0001)
    causes = {check_direction(slightly, random(50), seed=seed).inputs[0].cause[:10]
              for seed in range(60)}
    assert causes == {"no pattern"}


def test_one_direction_sees_a_transposed_matrix():
    """v.Jd = v.J'd where d is v: the direction has to be drawn apart from the cotangent."""
    class Product(ta.Function):
        def forward(self, x, w):
            self.save(w)
            return x @ w

        def backward(self, gy):
            return gy @ self.saved[0], None             # w for its transpose

    w = random(7, 7)
    for seed in range(3):
        assert not check_direction(lambda x: Product()(x, ta.Tensor(w)), random(1, 7), seed=seed)
    symmetric = w + w.T
    assert check_direction(lambda x: Product()(x, ta.Tensor(symmetric)), random(1, 7))


def test_one_direction_says_which_input():
    class Product(ta.Function):
        def forward(self, a, b):
            self.save(a, b)
            return a * b

        def backward(self, gy):
            a, b = self.saved
            return gy * b, -gy * a

    report = check_direction(lambda a, b: Product()(a, b), random(50), random(50, seed=1),
                             kind="multilinear")
    assert [c.count for c in report.inputs] == [0, 1]
    assert "fn is random" in str(check_direction(F.dropout, random(1000)))


# ---------------------------------------------------------------------------- the adjoint

def test_adjoint_accepts_im2col_and_col2im():
    x = random(2, 3, 5, 6)
    how = dict(kernel_size=3, stride=2, padding=((1, 0), (2, 1)), ceil_mode=True)
    assert check_adjoint(lambda x: ref.im2col(x, **how),
                         lambda c: ref.col2im(c, x.shape, **how), x)
    assert check_adjoint(lambda x: x.sum(), lambda c: np.broadcast_to(c, (2, 3)), random(2, 3))
    assert check_adjoint(lambda x: x, lambda c: c, [1, 2])                # aliases do no harm


def test_adjoint_refuses_what_is_none():
    x = random(6)
    for backward, cause in [(lambda c: np.pad(c, (0, 1)), "no pattern"),
                            (lambda c: -np.pad(c, (1, 0)), "the sign"),
                            (lambda c: 2 * np.pad(c, (1, 0)), "one term counted twice"),
                            (lambda c: np.zeros(6), "zero everywhere")]:
        report = check_adjoint(lambda x: x[1:], backward, x)
        assert not report and cause in str(report)
    assert "backward returns shape (5,)" in str(check_adjoint(lambda x: x[1:], lambda c: c, x))


def test_adjoint_sees_what_is_overwritten():
    def forward(x):
        y = x[1:].copy()
        x[0] = 7
        return y

    def backward(c):
        gx = np.pad(c, (1, 0))
        c[0] = 7
        return gx

    assert "overwritten" in str(check_adjoint(forward, lambda c: np.pad(c, (1, 0)), random(4)))
    assert "overwritten" in str(check_adjoint(lambda x: x[1:], backward, random(4)))


def test_a_number_is_differenced_in_float64():
    assert check_grads(lambda x: F.exp(x), 0.3, reference=np.exp)
