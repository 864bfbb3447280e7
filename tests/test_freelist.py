"""Freed activations are used again: only when nobody sees them, not too many, and same bits.

And gradients, which stand on such memory: each leaf owns its own.
"""
import ctypes
import gc
import itertools
import queue
import random
import sys
import threading
import tracemalloc
from unittest import mock

import numpy as np
import pytest
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from tinyalex import functional as F
from tinyalex import models, optim
from tinyalex.device import freelist
from tinyalex.device.freelist import FreeList
from tinyalex.ops import activation, conv, linear, lrn, pool

CPU = ta.Device("cpu:0")
BYTES = np.dtype(np.uint8)
UNIT = freelist.SMALLEST


@pytest.fixture
def free():
    return FreeList()


@pytest.fixture
def small():
    """Even 64 bytes are kept, so that thousands of arrays take no time."""
    with mock.patch.object(freelist, "SMALLEST", 64):
        yield


def address(array):
    return array.__array_interface__["data"][0]


class Probe:
    """Takes memory and keeps it: is the memory that was once lent at some address free again?"""

    def __init__(self, free, array):
        self.free, self.where, self.nbytes, self.taken = free, address(array), array.nbytes, []

    def finds_it(self):
        self.taken.append(self.free.take((self.nbytes,), BYTES))
        return address(self.taken[-1]) == self.where


# ---------------------------------------------------------------------------- what is lent

@given(st.lists(st.integers(0, 40), max_size=4), st.sampled_from("?bBhefdFD"))
def test_any_shape_and_dtype(shape, kind):
    with mock.patch.object(freelist, "SMALLEST", 64):
        free = FreeList()
        for _ in range(2):                                # a new buffer, and one that waited
            a = free.take(tuple(shape), np.dtype(kind))
            assert a.shape == tuple(shape) and a.dtype == kind
            assert a.flags.c_contiguous and a.flags.writeable and a.flags.aligned
            a[...] = 1
            assert (a == 1).all()
            del a


@pytest.mark.parametrize("shape", [(0,), (3, 0, 5), (0, 1 << 40), (1 << 20, 0)])
def test_nothing_is_lent_as_nothing(free, shape):
    assert free.take(shape, np.dtype(np.float32)).shape == shape and free.held_bytes == 0


def test_small_arrays_are_plain(free):
    a = free.take((UNIT - 1,), BYTES)
    assert a.base is None and a.flags.owndata and free.held_bytes == 0
    assert free.take((UNIT,), BYTES).base is not None and free.held_bytes == UNIT
    assert free.take((), np.dtype(np.float64)).shape == ()


def test_a_device_lends_and_each_its_own():
    one, other = ta.Device("cpu:8"), ta.Device("cpu:9")       # nobody has used these yet
    for make, shape in [(one.empty, (2, 32, 32, 32)), (one.zeros, (4, 64, 32, 32))]:
        a = make(shape, np.float32)
        a[...], where = 1, address(a)
        del a
        assert address(other.empty(shape, np.float32)) != where
        again = make(shape, np.float32)
        assert address(again) == where and again.transpose(0, 2, 3, 1).flags.c_contiguous
    assert not again.any()


# ---------------------------------------------------------------------------- when it comes back

class Kind(np.ndarray):
    """A subclass: NumPy gives its views another base."""


HOLDERS = {
    "itself": lambda a: a,
    "a slice": lambda a: a[5:9],
    "a slice of a slice": lambda a: a[1:][2:][::3][:1],
    "nothing of it": lambda a: a[3:3],
    "one element": lambda a: a[7, ...],
    "reshape": lambda a: a.reshape(2, -1),
    "reshape, cut and turned": lambda a: a.reshape(4, -1)[1:, ::2].T,
    "another dtype": lambda a: a.view(np.float32),
    "the imaginary part": lambda a: a.view(np.complex64).imag[2:],
    "a field": lambda a: a.view([("a", "f4"), ("b", "f4")])["b"],
    "a subclass": lambda a: a.view(Kind),
    "a slice of a subclass": lambda a: a.view(Kind)[4:][1:],
    "back from a subclass": lambda a: a.view(Kind)[4:].view(np.ndarray),
    "asarray": lambda a: np.asarray(a[3:]),
    "broadcast": lambda a: np.broadcast_to(a, (3, *a.shape)),
    "as_strided": lambda a: as_strided(a[1:], (4, 4), (1, 2)),
    "memoryview": memoryview,
    "a slice of a memoryview": lambda a: memoryview(a)[3:][1:],
    "an array of a memoryview": lambda a: np.asarray(memoryview(a)[8:]),
    "frombuffer": lambda a: np.frombuffer(a, np.float32)[2:],
    "dlpack": lambda a: np.from_dlpack(a[2:]),
    "ctypes": lambda a: (ctypes.c_char * 8).from_buffer(a),
    "an iterator": lambda a: a[2:].flat,
    "a tensor": lambda a: ta.Tensor(a.view(np.float32)).reshape(2, -1),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_memory_is_lent_while_anything_sees_it(free, hold):
    array = free.take((UNIT,), BYTES)
    array[...] = 1
    probe, held = Probe(free, array), hold(array)
    del array
    assert not probe.finds_it() and not probe.finds_it()
    gc.collect()
    assert not probe.finds_it()
    del held
    gc.collect()                                          # (a ctypes array may lie in a cycle)
    assert probe.finds_it()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_the_last_view_counts_in_whatever_order_they_die(free, order):
    views = [free.take((UNIT,), BYTES)]
    for cut in (slice(1, None), slice(None, None, 2), slice(3, 5)):
        views.append(views[-1][cut])
    probe = Probe(free, views[0])
    for i in order:
        assert not probe.finds_it()
        views[i] = None
    assert probe.finds_it()


def test_a_cycle_holds_it_until_it_is_collected(free):
    class Ring:
        pass

    gc.disable()
    try:
        ring = Ring()
        ring.itself, ring.array = ring, free.take((UNIT,), BYTES)[5:]
        probe = Probe(free, ring.array.base)
        del ring
        assert not probe.finds_it()
        gc.collect()
        assert probe.finds_it()
    finally:
        gc.enable()


def test_what_dies_while_memory_is_taken_comes_back(free, monkeypatch):
    """The collector may run at any allocation, also inside the list's own."""
    class Ring:
        pass

    def collecting(*arguments, real=np.empty):
        gc.collect()
        return real(*arguments)

    gc.disable()
    try:
        ring = Ring()
        ring.itself, ring.array = ring, free.take((UNIT,), BYTES)
        probe = Probe(free, ring.array)
        del ring
        with monkeypatch.context() as patch:
            patch.setattr(freelist.np, "empty", collecting)
            assert not probe.finds_it()                   # too late for this one
        assert probe.finds_it()
    finally:
        gc.enable()


# ---------------------------------------------------------------------------- never twice

VIEWS = [lambda a: a, lambda a: a[3:], lambda a: a[::2], lambda a: a[1:][:-1][::3],
         lambda a: a.reshape(2, -1).T, lambda a: a.reshape(2, -1)[1], lambda a: a[::-1]]


@pytest.mark.parametrize("seed", range(3))
def test_two_live_arrays_never_share_memory(small, free, seed):
    """Each view is filled with a number of its own, and has to keep it until it dies."""
    rng, live = random.Random(seed), []
    sizes = [2 * rng.randrange(40, 2000) for _ in range(12)]      # a few sizes, as a net has them
    asked = most_asked = 0
    for number in range(4000):
        if live and rng.random() < (0.7 if len(live) > 20 else 0.4):
            view, expected, size = live.pop(rng.randrange(len(live)))
            assert (view == expected).all()
            asked -= size
        else:
            size = rng.choice(sizes) if rng.random() < 0.9 else 2 * rng.randrange(40, 2000)
            view = rng.choice(VIEWS)(free.take((size,), BYTES))
            view[...] = number % 251
            live.append((view, number % 251, size))
            asked += size
            most_asked = max(most_asked, asked)
        del view
        assert 0 <= free.idle_bytes <= free.held_bytes
        assert free.held_bytes <= freelist.SLACK * freelist.ROOM * most_asked
    assert all((view == expected).all() for view, expected, _ in live)


def test_arrays_that_die_on_several_threads_at_once(small, free):
    """They are handed around: one thread fills an array, another checks it and lets it die."""
    waiting, wrong = queue.SimpleQueue(), []
    start = threading.Barrier(4)

    def work(me):
        rng = random.Random(me)
        start.wait(20)
        for number in range(4000):
            a = free.take((rng.choice([64, 100, 128, 1000, 1200]),), BYTES)
            a[...] = (me * 50 + number) % 256
            waiting.put((a[1:], (me * 50 + number) % 256))
            del a
            if rng.random() < 0.9:
                view, expected = waiting.get()
                if not (view == expected).all():
                    wrong.append((me, number))
                del view

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)                           # whoever can get in between does
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    while not waiting.empty():
        view, expected = waiting.get()
        assert (view == expected).all()
    del view
    last = free.take((5000,), BYTES)                      # what came back is sorted in
    assert free.held_bytes - free.idle_bytes == last.nbytes


# ---------------------------------------------------------------------------- how much is kept

@pytest.mark.parametrize("asked, fits", [
    (int(UNIT * 4 / freelist.ROOM) + 1, True), (UNIT * 4, True),
    (int(UNIT * 4 / freelist.ROOM) - 1, False), (UNIT * 4 + 1, False)])
def test_a_buffer_is_lent_for_little_less_than_it_holds(free, asked, fits):
    """It may be a quarter too large, not more; and never too small."""
    kept, a = (free.take((UNIT * 4,), BYTES) for _ in range(2))
    del a
    b = free.take((asked,), BYTES)
    assert b.shape == (asked,) and not np.shares_memory(b, kept)
    assert (free.held_bytes - free.idle_bytes == 8 * UNIT) == fits


def test_the_smallest_buffer_that_fits_is_taken(free):
    sizes = [UNIT * 10, UNIT * 11, UNIT * 12]
    arrays = [free.take((size,), BYTES) for size in sizes]
    places = [address(a) for a in arrays]
    del arrays
    taken = [free.take((UNIT * 10 + 1,), BYTES) for _ in range(2)]
    taken.append(free.take((UNIT * 10 - 1,), BYTES))
    assert [address(a) for a in taken] == [places[1], places[2], places[0]]
    assert free.idle_bytes == 0 and free.held_bytes == sum(sizes)


def test_the_books(free):
    a, b = free.take((UNIT,), BYTES), free.take((2 * UNIT,), BYTES)
    assert (free.held_bytes, free.idle_bytes) == (3 * UNIT, 0)
    del a
    c = free.take((2 * UNIT,), BYTES)                     # a is too small: three are held
    assert (free.held_bytes, free.idle_bytes) == (5 * UNIT, UNIT)
    del b
    d = free.take((UNIT,), BYTES)
    assert (free.held_bytes, free.idle_bytes) == (5 * UNIT, 2 * UNIT)
    del c, d


def test_other_sizes_push_out_what_has_waited_longest(free, monkeypatch):
    monkeypatch.setattr(freelist, "SLACK", 1.0)
    arrays = [free.take((4 * UNIT,), BYTES) for _ in range(3)]
    places, tick = [address(a) for a in arrays], free.take((UNIT,), BYTES)
    for i in (1, 0, 2):                                   # they come back in this order
        arrays[i] = tick = None
        tick = free.take((UNIT,), BYTES)
    assert (free.held_bytes, free.idle_bytes) == (13 * UNIT, 12 * UNIT)
    other = free.take((2 * UNIT,), BYTES)                 # fits none of them: one has to go
    assert (free.held_bytes, free.idle_bytes) == (11 * UNIT, 8 * UNIT)
    assert {address(free.take((4 * UNIT,), BYTES))} < {places[0], places[2]}
    again = [free.take((4 * UNIT,), BYTES) for _ in range(2)]
    assert {address(a) for a in again} == {places[0], places[2]}
    del other, tick


def test_what_is_held_stays_near_what_was_lent(free):
    """A net of one size after another must not leave the memory of all of them behind."""
    most = 0
    for size in range(4, 60):
        arrays = [free.take((size * UNIT // 4 + i,), BYTES) for i in range(4)]
        most = max(most, sum(a.nbytes for a in arrays))
        assert free.held_bytes <= freelist.SLACK * freelist.ROOM * most
        del arrays
    assert free.held_bytes >= most                        # and it does keep some


def traced(fn):
    """Return what `fn` leaves behind, in bytes, as Python counts them."""
    tracemalloc.start()
    try:
        fn()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_the_books_say_what_is_really_held(free):
    def steps():
        for size in (1, 2, 3, 5, 8, 13, 2, 40, 1):
            kept = [free.take((size * UNIT,), BYTES) for _ in range(3)]
            del kept
    left = traced(steps)
    assert left > 40 * UNIT and abs(left - free.held_bytes) < UNIT


def test_clear_gives_everything_back_and_books_it(free):
    kept = free.take((5 * UNIT,), BYTES)
    kept[...] = 7

    def steps():
        a, b, c = (free.take((size * UNIT,), BYTES) for size in (1, 2, 3))
        del a, b
        d = free.take((UNIT,), BYTES)                     # b is sorted in, c and d are not yet
        del c, d
        free.clear()
    assert traced(steps) < UNIT // 4
    assert (free.held_bytes, free.idle_bytes) == (5 * UNIT, 0)
    assert (kept == 7).all()
    probe = Probe(free, kept)
    del kept
    assert probe.finds_it()                               # what was lent still comes back


def test_memory_that_there_is_not_is_not_booked(free):
    """Else nothing would ever be given back after a batch that was too large."""
    with pytest.raises(MemoryError):
        free.take((1 << 50,), BYTES)
    assert free.held_bytes == free.idle_bytes == 0
    many = [free.take((UNIT,), BYTES) for _ in range(10)]
    del many
    a = free.take((2 * UNIT,), BYTES)
    assert free.held_bytes <= freelist.SLACK * 10 * UNIT
    del a
    big = free.take((12 * UNIT,), BYTES)
    assert free.held_bytes <= freelist.SLACK * big.nbytes


# ---------------------------------------------------------------------------- a net that trains

def train(steps, free, batch=8):
    """Train AlexNet's graph, made small; return its weights, and how much memory each step made."""
    misses, made = [], []
    rng = np.random.default_rng(0)
    ta.manual_seed(0)
    with mock.patch.object(CPU, "_free", free), mock.patch.object(
            FreeList, "_shrink", lambda *a, real=FreeList._shrink: misses.append(a) or real(*a)):
        net = models.mini(image_size=32)
        opt = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for _ in range(steps):
            images = ta.Tensor(rng.normal(0, 50, (batch, 3, 32, 32)).astype(np.float32))
            misses.clear()
            loss = F.cross_entropy(net(images), rng.integers(0, 16, batch))
            opt.zero_grad()
            loss.backward()
            opt.step()
            made.append(len(misses))
        weights = [p.data.copy() for p in net.parameters()] + [loss.data.copy()]
    return weights, made


def test_after_two_steps_a_net_trains_on_the_memory_it_has(free):
    _, made = train(6, free)
    assert made[0] > 5 and made[2:] == [0, 0, 0, 0]
    assert free.held_bytes > 0


class Poisoned(FreeList):
    """What it lends is full of NaN: nobody may read what he has not written."""

    def take(self, shape, dtype):
        array = super().take(shape, dtype)
        array[...] = np.nan if array.dtype.kind == "f" else 1
        return array


def test_used_memory_changes_no_bit(free, monkeypatch):
    expected, made = train(3, free)
    poisoned, _ = train(3, Poisoned())
    monkeypatch.setattr(freelist, "SMALLEST", 1 << 60)
    plain, none_made = train(3, FreeList())
    assert made[0] and not any(none_made)
    for other in (poisoned, plain):
        assert all(np.array_equal(a, b) for a, b in zip(other, expected, strict=True))
    assert all(np.isfinite(a).all() for a in expected)


# ---------------------------------------------------------------------------- whose a gradient is

class Returns(ta.Function):
    """An op of two inputs that gives back what it is told, as dL/dx and dL/dy."""

    def __init__(self, backward):
        self.returned = backward

    def forward(self, x, y):
        self.save(x * 2)
        return x + y

    def backward(self, gy):
        self.made = self.returned(self, gy)
        return self.made


def made_by_the_device(op, gy, factor=2):
    gx = op.device.empty(gy.shape, gy.dtype)
    gx[...] = gy * factor
    return gx


def two_views(op, gy):
    both = op.device.empty((2, *gy.shape), gy.dtype)
    both[...] = gy * 2
    return both[0], both[1]


def leaves(shape):
    return [ta.Tensor(np.ones(shape, np.float32), requires_grad=True) for _ in range(2)]


SHAPES = pytest.mark.parametrize("shape", [(3,), (1 << 15,), (2, 32, 16, 20)],
                                 ids=["small", "lent", "maps"])


@SHAPES
def test_a_leaf_adopts_what_backward_made_on_the_device(shape):
    x, y = leaves(shape)
    z = Returns(lambda op, gy: (made_by_the_device(op, gy), made_by_the_device(op, gy, 3)))(x, y)
    op = z.node
    z.backward(np.ones(shape, np.float32))
    assert np.shares_memory(x.grad, op.made[0]) and np.shares_memory(y.grad, op.made[1])
    assert (x.grad == 2).all() and (y.grad == 3).all() and not np.shares_memory(x.grad, y.grad)
    before = x.grad
    (x * 5.0).sum().backward()                            # what the op made stays as it is
    assert (x.grad == 7).all() and (before == 2).all()


@pytest.mark.parametrize("fn, op, shapes", [
    pytest.param(F.relu, activation.ReLU, [(4, 8, 32, 32)], id="relu"),
    pytest.param(lambda x: F.max_pool2d(x, 3, 2), pool.MaxPool2d, [(4, 8, 32, 32)], id="max_pool"),
    pytest.param(lambda x: F.local_response_norm(x, 5), lrn.LocalResponseNorm, [(4, 8, 32, 32)],
                 id="norm"),
    pytest.param(lambda *a: F.conv2d(*a, padding=1), conv.Conv2d,
                 [(4, 16, 16, 16), (128, 16, 3, 3), (128,)], id="conv2d"),
    pytest.param(lambda *a: F.conv2d(*a, stride=2), conv.Conv2d,
                 [(4, 16, 16, 16), (128, 16, 3, 3), (128,)], id="conv2d, stride 2"),
    pytest.param(F.linear, linear.Linear, [(8, 200), (100, 200), (100,)], id="linear")])
def test_no_op_has_its_gradients_copied(monkeypatch, fn, op, shapes):
    made = []
    monkeypatch.setattr(op, "backward", lambda self, gy, real=op.backward:
                        made.extend(real(self, gy)) or tuple(made))
    tensors = [ta.Tensor(strategies.normal(s, 0, np.float32), requires_grad=True) for s in shapes]
    y = fn(*tensors)
    y.backward(np.ones(y.shape, np.float32))
    assert all(np.shares_memory(t.grad, g) for t, g in zip(tensors, made, strict=True))
    assert all(t.grad.flags.writeable for t in tensors)


SHARED = {
    "gy twice": lambda op, gy: (gy, gy),
    "gy and a view of it": lambda op, gy: (gy, gy[...]),
    "views of gy": lambda op, gy: (gy.reshape(-1).reshape(gy.shape), gy.view()),
    "gy and its own": lambda op, gy: (gy, made_by_the_device(op, gy, 1)),
    "one array twice": lambda op, gy: (made_by_the_device(op, gy),) * 2,
    "two views of one buffer": two_views,
    "one array and a view of it": lambda op, gy: (lambda g: (g, g[...]))(
        made_by_the_device(op, gy)),
    "one array forward and backward": lambda op, gy: (lambda g: (g, g[::-1]))(
        made_by_the_device(op, gy)),
    "what was saved": lambda op, gy: (op.saved[0], gy),
    "views of what was saved": lambda op, gy: (op.saved[0].view(), op.saved[0][::-1]),
}


@SHAPES
@pytest.mark.parametrize("returned", SHARED.values(), ids=SHARED)
def test_what_others_hold_too_is_copied(shape, returned):
    x, y = leaves(shape)
    given = np.ones(shape, np.float32)
    z = Returns(returned)(x, y)
    op, (saved,) = z.node, z.node.saved
    z.backward(given, retain_graph=True)
    first = [np.array(g) for g in op.made]
    assert not any(np.shares_memory(t.grad, other) for t in (x, y) for other in (given, saved))
    assert not np.shares_memory(x.grad, y.grad)
    x.grad *= 100                                         # as one who clips gradients does
    assert (y.grad == first[1]).all() and (given == 1).all() and (saved == 2).all()
    y.grad *= 100
    z.backward(given)
    for t, g in zip((x, y), first, strict=True):
        assert (t.grad == 101 * g).all()
    assert (given == 1).all() and (saved == 2).all()


def test_a_gradient_on_its_way_through_several_ops_belongs_to_one_leaf():
    """What one op made is handed down by the next, as gy, to two leaves."""
    x, y = leaves((1 << 15,))
    h = x + y
    z = Returns(lambda op, gy: (made_by_the_device(op, gy), None))(h, h.detach())
    z.backward(np.ones(x.shape, np.float32))
    assert not np.shares_memory(x.grad, y.grad)
    x.grad *= 100
    assert (y.grad == 2).all()


def test_one_number_seen_many_times_is_no_gradient_to_keep():
    """A leaf's gradient can be written to, each element by itself."""
    x, y = leaves((4, 5))
    Returns(lambda op, gy: (np.broadcast_to(gy.sum() * 2, gy.shape),
                            np.broadcast_to(gy[:1] * 2, gy.shape)))(x, y).sum().backward()
    for t in (x, y):
        assert t.grad.flags.writeable and 0 not in t.grad.strides
    x.grad[0] = 0
    assert x.grad[1:].all()


def test_what_cannot_be_written_to_is_no_gradient_to_keep():
    x, y = leaves((4, 5))
    Returns(lambda op, gy: (np.broadcast_to(gy * 2, gy.shape), None))(x, y).sum().backward()
    x.grad *= 2
    assert (x.grad == 4).all()
