"""What the tests share: Hypothesis profiles, devices, and the checks that every op has to pass.

The checks are fixtures that hand out a function, so that a test reads as a sentence:

    def test_relu(agrees):
        agrees(F.relu, ref.relu, x, layout="negative", device="cpu:1")
"""

import signal
from unittest import mock

import cards
import numpy as np
import pytest
import strategies
import tinyalex as ta
from hypothesis import settings
from tinyalex.device import pool

strategies.register_profiles()
settings.load_profile("ci")            # the same examples each time, on any machine
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:     # so does a shell start background jobs,
    signal.signal(signal.SIGINT, signal.default_int_handler)     # and no test could send one


# ---------------------------------------------------------------------------- devices

STAND_IN, OTHER = cards.NAMES[0], cards.NAMES[2]


def usable(name):
    """The Device of that name; the test is skipped where this machine has none."""
    if name in cards.NAMES:
        return pytest.skip(cards.MISSING) if cards.MISSING else cards.card(name)
    try:
        return ta.Device(name)
    except ta.BackendUnavailable:
        pytest.skip(f"no {name} on this machine")


def on_a_card(*names):
    """Parameters of a fixture: names of the stand-in's cards, and real ones, which may be absent.
    """
    return [pytest.param(name, marks=() if name.split()[0] in cards.NAMES else pytest.mark.gpu)
            for name in names]


@pytest.fixture(scope="session",
                params=["cpu:0", "cpu:1", *on_a_card(STAND_IN, "cuda:0")])
def device(request):
    """Each Device in turn."""
    return usable(request.param)


PAIRS = on_a_card(f"{STAND_IN} {STAND_IN}#1", f"{STAND_IN} {OTHER}", "cuda:0 cuda:0#1")


@pytest.fixture(scope="session", params=["cpu:0 cpu:1", *PAIRS])
def pair(request):
    """Two Devices that do not mix: logical CPUs, one GPU under two names, or two GPUs."""
    return [usable(name) for name in request.param.split()]


@pytest.fixture(scope="session", params=on_a_card(STAND_IN, "cuda:0"))
def cuda(request):
    """A graphics card: the stand-in's, and a real one."""
    return usable(request.param)


@pytest.fixture(scope="session", params=PAIRS)
def cuda_pair(request):
    """Two Devices on graphics cards: one card under two names, or two."""
    return [usable(name) for name in request.param.split()]


# ---------------------------------------------------------------------------- running an op

def run(fn, arrays, gy=None, device="cpu:0"):
    """Forward and backward; return the result, then the gradient of each input, as NumPy arrays.

    `gy` is the cotangent: an array, or None for a random one of either sign.
    """
    tensors = [ta.Tensor(a, device, requires_grad=True) for a in arrays]
    y = fn(*tensors)
    if gy is None:
        gy = np.asarray(strategies.away_from_zero(y.shape, 1, y.dtype))
    y.backward(y.device.array(gy))
    return [y.device.numpy(y.data)] + [t.device.numpy(t.grad) for t in tensors]


@pytest.fixture(scope="session", name="run")
def run_fixture():
    return run


# ---------------------------------------------------------------------------- the checks

@pytest.fixture(scope="session")
def agrees():
    """``agrees(fn, oracle, *arrays)``: the op gives what its definition gives.

    `arrays` are float64, and so is the oracle's result; the op sees them as `dtype`, as `layout`
    and on `device`, gives that dtype on that device, and leaves them as they were.
    """
    def check(fn, oracle, *arrays, dtype=np.float64, layout="C", device="cpu:0"):
        expected = np.asarray(oracle(*arrays))
        given = [strategies.laid_out(a.astype(dtype), layout) for a in arrays]
        y = fn(*(ta.Tensor(a, device) for a in given))
        assert (y.shape, y.dtype, y.device) == (expected.shape, dtype, ta.Device(device))
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        assert_close(y.device.numpy(y.data), expected, tolerance, arrays)
        assert all(np.array_equal(g, a.astype(dtype)) for g, a in zip(given, arrays, strict=True))
    return check


@pytest.fixture(scope="session")
def same_bits():
    """``same_bits(fn, *arrays)``: result and gradients do not depend on how anything lies.

    Every input and the cotangent take every layout, one alone and all together, in float32 and in
    float64; and a cotangent of ones may be a single number seen many times, as ``sum()`` sends it.
    """
    def check(fn, *arrays):
        for dtype in (np.float32, np.float64):
            plain = [a.astype(dtype) for a in arrays]
            y, *_ = expected = run(fn, plain)
            gy = strategies.away_from_zero(y.shape, 1, dtype)
            for layout in strategies.LAYOUTS if y.ndim else ():
                everything = plain + [gy]
                moved = [strategies.laid_out(a, layout) for a in everything]
                mixed = [everything[:i] + [moved[i]] + everything[i + 1:]
                         for i in range(len(moved))]
                for *inputs, cotangent in [moved] + mixed:
                    assert_same_bits(run(fn, inputs, cotangent), expected, layout)
            ones = np.ones(y.shape, dtype)
            assert_same_bits(run(fn, plain, np.broadcast_to(dtype(1), y.shape)),
                             run(fn, plain, ones), "a cotangent of stride 0")
    return check


@pytest.fixture(scope="session")
def same_bits_on_threads():
    """``same_bits_on_threads(fn, *arrays)``: nor on how many threads share the work.

    Even the smallest work is cut here, so give a batch of at least 8.
    """
    def check(fn, *arrays):
        before = ta.get_num_threads()
        try:
            with mock.patch.object(pool, "GRAIN", 1):
                assert len(pool.cut(8, work=1)) > 1
                results = []
                for threads in (1, 2, 3):
                    ta.set_num_threads(threads)
                    results.append(run(fn, arrays))
        finally:
            ta.set_num_threads(before)
        for threads, result in zip((2, 3), results[1:], strict=True):
            assert_same_bits(result, results[0], f"{threads} threads")
    return check


@pytest.fixture(scope="session")
def float32_is_close():
    """``float32_is_close(fn, *arrays)``: result and gradients in float32 are those of float64."""
    def check(fn, *arrays):
        exact = run(fn, arrays)
        rough = run(fn, [a.astype(np.float32) for a in arrays])
        for a, b in zip(rough, exact, strict=True):
            assert a.dtype == np.float32 and b.dtype == np.float64
            assert_close(a, b, 1e-4, arrays)
    return check


def assert_close(a, b, tolerance, inputs):
    """Assert that `a` is `b` up to `tolerance` times the largest element of `b`.

    Where large inputs cancel to nearly nothing, a tenth of the largest of them counts instead.
    """
    largest = [np.abs(array).max(initial=0) for array in inputs]
    scale = max(np.abs(b).max(initial=0), *(0.1 * size for size in largest))
    error = np.asarray(np.abs(a - b))
    worst = np.unravel_index(error.argmax(), error.shape)
    assert error[worst] <= tolerance * scale, \
        f"largest error at {[int(i) for i in worst]}: {a[worst]} is not {b[worst]}"


def assert_same_bits(results, expected, where):
    names = ["the result"] + [f"gradient {i}" for i in range(len(results) - 1)]
    for name, a, b in zip(names, results, expected, strict=True):
        assert a.shape == b.shape and a.tobytes() == b.tobytes(), f"{name} has other bits: {where}"
