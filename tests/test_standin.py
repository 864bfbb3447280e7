"""The stand-in for CuPy: what it refuses, and that a race is raised every time.

Each of these is a fault that runs, mostly, on a real card. A stand-in that let one pass would make
every test that stands on it worthless.
"""
import inspect
import pathlib
import re

import cards
import numpy as np
import pytest
import standin
from standin import Misuse, Race, cupy, log, memory

pytestmark = pytest.mark.skipif(bool(cards.MISSING), reason=str(cards.MISSING))
LIST = (pathlib.Path(standin.__file__).parent / "names.txt").read_text().splitlines()[1:]
NAMES = {line.split("(")[0]: re.findall(r"[*\w]+", line.partition("(")[2]) for line in LIST}
HERE, THERE = standin.CARDS


@pytest.fixture(autouse=True)
def settled():
    """What a fault leaves behind is not for the next test."""
    yield
    standin.settle()


@pytest.fixture
def streams():
    """Two streams of one card, which is the current one."""
    with cupy.cuda.Device(HERE):
        yield cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)


@pytest.fixture
def x(streams):
    """Six numbers, made on the first of the two; it stays the current one."""
    with streams[0]:
        yield cupy.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


@pytest.fixture
def a(x, streams):
    """The same, with the host having waited for them: both streams may read."""
    streams[0].synchronize()
    return x


# ---------------------------------------------------------------------------- names

OWNERS = {"": cupy, "ndarray.": cupy.ndarray, "cuda.": cupy.cuda, "cuda.Device.": cupy.cuda.Device,
          "cuda.Stream.": cupy.cuda.Stream, "cuda.Event.": cupy.cuda.Event,
          "cuda.MemoryPool.": standin.cards.Pool, "cuda.runtime.": standin.runtime}


def public(owner):
    return [name for name in dir(owner) if not name.startswith("_")]


def test_it_has_nothing_that_cupy_lacks():
    """The list was written by CuPy itself; the types of memory and runtime are spot-checked."""
    own = {"device_id", "queue", "card", "tick", "clock", "timed", "peers", "enabled"}
    for owner, made in OWNERS.items():
        assert {owner + name for name in set(public(made)) - own} <= NAMES.keys(), owner


def test_no_function_has_a_parameter_that_cupy_lacks():
    checked = 0
    for owner, made in OWNERS.items():
        for name in public(made):
            function, known = getattr(made, name), NAMES.get(owner + name)
            if not inspect.isroutine(function) or any(p.startswith("*") for p in known):
                continue
            own = getattr(function, "parameters", None) or inspect.signature(function).parameters
            assert set(own) - {"self"} <= set(known), owner + name
            checked += 1
    assert checked > 80


@pytest.mark.parametrize("wrong", [
    lambda x: cupy.max(x, initial=0), lambda x: x.max(initial=0), lambda x: x.max(dtype=int),
    lambda x: cupy.sum(x, where=x > 0), lambda x: cupy.exp(x, where=x > 0),
    lambda x: x.any(where=x), lambda x: cupy.clip(x, min=0)])
def test_parameters_that_numpy_alone_has_are_refused(x, wrong):
    with pytest.raises(TypeError, match="parameter|keyword|argument"):
        wrong(x)


@pytest.mark.parametrize("name", ["longdouble", "datetime64", "str_", "nditer", "errstate",
                                  "char", "rec", "memmap", "ctypeslib"])
def test_it_lacks_what_cupy_lacks(name):
    assert hasattr(np, name) and name not in NAMES and not hasattr(cupy, name)


# ---------------------------------------------------------------------------- NumPy

MIXES = [
    lambda x, h: np.asarray(x), lambda x, h: np.array(x), lambda x, h: x + h, lambda x, h: h + x,
    lambda x, h: h @ x.T, lambda x, h: x * [1.0, 2.0, 3.0], lambda x, h: np.add(x, x),
    lambda x, h: np.maximum(x, 0), lambda x, h: np.exp(x), lambda x, h: np.exp(x, out=x),
    lambda x, h: np.sum(x), lambda x, h: np.concatenate([x, x]), lambda x, h: np.add.reduce(x),
    lambda x, h: x.__setitem__(slice(None), h), lambda x, h: cupy.maximum(x, h),
    lambda x, h: cupy.matmul(x, h.T), lambda x, h: cupy.exp(x, out=h),
    lambda x, h: h.__iadd__(x), lambda x, h: h.__setitem__(slice(None), x),
]


@pytest.mark.parametrize("mix", MIXES)
def test_arrays_of_numpy_do_not_mix_in(x, mix):
    with pytest.raises(TypeError):
        mix(x, np.ones((2, 3)))


def test_numbers_do(x):
    assert (2 * x + np.float32(1) - x / 4).get().tolist() == [[1, 2.75, 4.5], [6.25, 8, 9.75]]
    assert (np.float64(2) * x).get().tolist() == (x * 2).get().tolist()


def test_an_array_of_a_card_is_no_array_of_numpy(x):
    assert not isinstance(x, np.ndarray)
    with pytest.raises(AttributeError, match="cannot be set"):
        x.flags.writeable = False
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)
    assert isinstance(x.sum(), cupy.ndarray) and x.sum().shape == ()
    assert cupy.ascontiguousarray(x.sum()).shape == (1,)             # as CuPy does, alas


def test_memory_is_fresh_in_c_order_and_holds_nonsense(x):
    assert (x.T + 1).flags.c_contiguous and np.isnan(cupy.empty((2, 2)).get()).all()


def test_memory_lies_as_in_cupy(x):
    """Results in C order, whatever the inputs; but what is converted or alike keeps its order."""
    for a in (x.T, cupy.zeros((2, 3, 4)).transpose(1, 2, 0)):
        assert (a + 1).flags.c_contiguous and a.copy().flags.c_contiguous
        assert a.astype(np.int64).strides == cupy.zeros_like(a).strides == a.strides
        assert cupy.array(a).strides == a.strides
    assert x[::-1, ::-1].astype(np.float32).strides == (12, 4)       # forward, without gaps
    assert cupy.array(x.get().T).strides == x.T.strides
    assert cupy.array(x.get()[:, ::2]).flags.c_contiguous


# ---------------------------------------------------------------------------- where work is done

def test_a_scope_is_needed():
    with pytest.raises(Misuse, match="within device.scope"):
        cupy.zeros(3)
    with cupy.cuda.Device(HERE), pytest.raises(Misuse, match="null stream"):
        cupy.zeros(3)
    with cupy.cuda.Device(HERE), standin.null_stream_allowed():
        assert cupy.zeros(3).get().tolist() == [0, 0, 0]


@pytest.mark.parametrize("opens", [
    lambda: cupy.cuda.alloc_pinned_memory(8), cupy.cuda.Stream, cupy.cuda.Event,
    lambda: cupy.get_default_memory_pool().used_bytes(), standin.runtime.memGetInfo,
    lambda: cupy.get_default_memory_pool().set_limit(size=0)])
def test_so_is_a_card_by_all_that_would_open_the_first(opens):
    with pytest.raises(Misuse, match="on card 0, where this thread began"):
        opens()
    with cupy.cuda.Device(HERE):
        opens()


def test_an_array_of_another_card_is_refused(a):
    with cupy.cuda.Device(THERE), cupy.cuda.Stream():
        for wrong in (lambda: a + 1, lambda: a.get(), lambda: a.__setitem__(0, 1.0),
                      lambda: cupy.ones((2, 3)) + a, lambda: cupy.matmul(a, a.T)):
            with pytest.raises(Misuse, match=f"on card {THERE}.*of card {HERE}"):
                wrong()


def test_a_stream_belongs_to_its_card(streams):
    with cupy.cuda.Device(THERE), pytest.raises(Misuse, match="is entered while card"):
        streams[0].__enter__()


def test_so_does_an_event(streams):
    event = cupy.cuda.Event()
    with cupy.cuda.Device(THERE), pytest.raises(Misuse, match="is recorded on card"):
        event.record(cupy.cuda.Stream())


def test_peer_access_is_enabled_once(streams, monkeypatch):
    runtime = cupy.cuda.runtime
    monkeypatch.setattr(runtime, "enabled", set())
    runtime.deviceEnablePeerAccess(THERE)
    with pytest.raises(runtime.CUDARuntimeError, match="AlreadyEnabled"):
        runtime.deviceEnablePeerAccess(THERE)
    monkeypatch.setattr(runtime, "peers", False)
    assert not runtime.deviceCanAccessPeer(HERE, THERE)
    with pytest.raises(runtime.CUDARuntimeError, match="Unsupported"):
        runtime.deviceEnablePeerAccess(THERE)


def test_a_copy_belongs_to_its_stream_and_its_cards(a, streams):
    runtime, other = cupy.cuda.runtime, cupy.cuda.alloc_pinned_memory(48)
    with cupy.cuda.Device(THERE), pytest.raises(Misuse, match="while card"):
        runtime.memcpyAsync(other.ptr, a.data.ptr, 48, runtime.memcpyDeviceToHost, streams[0].ptr)
    with pytest.raises(Misuse, match="null stream"):
        runtime.memcpyAsync(other.ptr, a.data.ptr, 48, runtime.memcpyDeviceToHost, 0)
    with pytest.raises(Misuse, match="is not on card"):
        runtime.memcpyPeerAsync(a.data.ptr, THERE, a.data.ptr, HERE, 48, streams[0].ptr)
    with pytest.raises(Misuse, match="run past the end"):
        runtime.memcpyAsync(other.ptr, a.data.ptr, 56, runtime.memcpyDeviceToHost, streams[0].ptr)


# ---------------------------------------------------------------------------- races

def ordered(first, then):
    then.wait_event(first.record())


RACES = {
    "read behind a write": (lambda a: a.__setitem__(0, 1.0), lambda a: a + 1),
    "write behind a read": (lambda a: a + 1, lambda a: a.__setitem__(0, 1.0)),
    "write behind a write": (lambda a: a.__setitem__(0, 1.0), lambda a: a.fill(2.0)),
    "in place": (lambda a: a.__iadd__(1), lambda a: a.sum()),
}


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("order", ["nothing", "an event", "the host", "the card", "a third stream",
                                   "an event too early", "the wrong way round"])
def test_two_streams_need_an_order(a, streams, race, order):
    (one, other), (first, then) = streams, RACES[race]
    early = one.record()
    with one:
        first(a)
    if order == "an event":
        ordered(one, other)
    elif order == "the host":
        one.synchronize()
    elif order == "the card":
        cupy.cuda.Device(HERE).synchronize()
    elif order == "a third stream":
        third = cupy.cuda.Stream()
        ordered(one, third)
        ordered(third, other)
    elif order == "an event too early":
        other.wait_event(early)
    elif order == "the wrong way round":
        ordered(other, one)
    with other:
        if order in ("an event", "the host", "the card", "a third stream"):
            then(a)
            return
        with pytest.raises(Race, match="nothing orders the two"):
            then(a)


def test_reading_twice_is_no_race_nor_is_the_memory_beside(a, streams):
    with streams[0]:
        a + 1
        a[0] = 7.0
    with streams[1]:
        assert (a[1] + 1).get().tolist() == [4, 5, 6]
        with pytest.raises(Race):
            a[:, 0] + 1


def test_what_was_ordered_stays_ordered_when_more_is_touched_later(streams):
    """An event orders what came before it, also where work behind it touches a part once more."""
    one, other = streams
    with one:
        x = cupy.zeros(10)
        ordered(one, other)
        x[5:] = 1.0
    with other:
        x[:5] + 1
        with pytest.raises(Race):
            x[4:6] + 1
    with cupy.cuda.Stream(), pytest.raises(Race):
        x[:5] + 1                                                    # nor is the first forgotten


def test_freed_memory_has_a_past(streams):
    """The pool of a stream lends it to the same stream again, which another one still reads."""
    one, other = streams
    with one:
        x = cupy.zeros(1000)
        address = x.data.ptr
    ordered(one, other)
    with other:
        x + 1
    del x
    with one, pytest.raises(Race):
        assert cupy.zeros(1000).data.ptr == address
    ordered(other, one)
    with one:
        cupy.zeros(1000)


# ---------------------------------------------------------------------------- the host

def pinned(n):
    held = cupy.cuda.alloc_pinned_memory(8 * n)
    return np.frombuffer(held, np.float64, n)


def copy(host, a, to_card, stream):
    runtime = cupy.cuda.runtime
    there, here = a.data.ptr, host.ctypes.data
    if to_card:
        runtime.memcpyAsync(there, here, a.nbytes, runtime.memcpyHostToDevice, stream.ptr)
    else:
        runtime.memcpyAsync(here, there, a.nbytes, runtime.memcpyDeviceToHost, stream.ptr)


def test_pinned_memory_holds_nonsense_as_well(streams):
    for _ in range(2):                                               # also what was freed
        host = pinned(6)
        assert np.isnan(host).all()
        host[:] = 1
        del host


def test_what_is_fetched_arrives_when_the_host_has_waited(a, streams):
    host = pinned(6)
    copy(host, a, False, streams[0])
    assert np.isnan(host).all()
    done = streams[0].record()
    done.synchronize()
    assert host.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("to_card", [True, False])
def test_a_copy_is_work_of_its_stream(a, streams, to_card):
    host = pinned(6)
    host[:] = 1
    with streams[0]:
        copy(host, a, to_card, streams[0])
    with streams[1], pytest.raises(Race, match="memcpyAsync"):
        a.fill(2.0)


def test_what_is_sent_must_stay_until_it_has_gone(a, streams):
    host = pinned(6)
    host[:] = 1
    copy(host, a, True, streams[0])
    host[0] = 2
    with pytest.raises(Race, match="changed pinned memory"):
        streams[0].synchronize()


def test_memory_that_is_not_pinned_lets_the_host_wait(a, streams):
    with log() as book:
        for host in (pinned(6), np.ones(6)):
            host[:] = 1
            copy(host, a, True, streams[0])
        assert [what for what, _ in book.syncs] == ["memcpyAsync of memory that is not pinned"]
        host[:] = 2                                                  # it is free at once
    assert a.get().tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(Misuse, match="not pinned"):
        copy(host, a, False, streams[0])


def test_nor_may_a_result_arrive_there(a, streams):
    host = pinned(6)
    host[:] = 1
    copy(host, a, True, streams[0])
    with pytest.raises(Race, match="may still send"):
        copy(host, a, False, streams[0])


def test_and_must_not_be_freed(a, streams):
    host = pinned(6)
    host[:] = 1
    copy(host, a, True, streams[0])
    del host
    with pytest.raises(Race, match="was freed"):
        pinned(6)
    streams[0].synchronize()


def test_what_is_still_to_arrive_cannot_be_sent_on(a, streams):
    host = pinned(6)
    copy(host, a, False, streams[0])
    with streams[1], pytest.raises(Race, match="may not have filled"):
        copy(host, cupy.empty((2, 3)), True, streams[1])
    streams[0].synchronize()


def test_an_event_is_done_late_but_in_the_end(x, streams):
    event = streams[0].record()
    assert not event.done
    for _ in range(standin.cards.LAG):
        x += 1
    assert event.done
    assert cupy.cuda.Event().done                                    # never recorded


@pytest.mark.parametrize("wait", [float, bool, int, repr, lambda x: x.item(), lambda x: x.get(),
                                  lambda x: x.tolist(), lambda x: [1, 2][x], lambda x: f"{x:.1f}",
                                  lambda x: x.reshape(1)[x.reshape(1) > 0]])
def test_where_the_host_waits_is_logged(streams, wait):
    with streams[0], log() as book:
        x = cupy.ones((), np.int64)
        x + 1
        assert not book.syncs and [name for *_, name in book.launches] == ["assignment", "add"]
        wait(x)
    assert [lag for _, lag in book.syncs] == [0] and len(book.syncs) == 1


# ---------------------------------------------------------------------------- memory

def test_the_pool_keeps_what_is_freed_and_has_limits(streams):
    pool = cupy.get_default_memory_pool()
    with streams[0]:
        pool.free_all_blocks()
        before = pool.used_bytes()
        x = cupy.empty(1000, np.uint8)
        assert pool.used_bytes() == before + 1024
        address, held = x.data.ptr, pool.total_bytes()
        del x
        assert (pool.used_bytes(), pool.total_bytes()) == (before, held)
        assert cupy.empty(1020, np.uint8).data.ptr == address
        pool.set_limit(size=held + 512)
        try:
            with pytest.raises(memory.OutOfMemoryError, match="limit set to"):
                cupy.empty(4096, np.uint8)
        finally:
            pool.set_limit(size=0)
        pool.free_all_blocks()
        assert pool.total_bytes() == before
        with standin.card_memory(before + 4096), pytest.raises(memory.OutOfMemoryError):
            cupy.empty(8192, np.uint8)


# ---------------------------------------------------------------------------- kernels

CODE = '''
extern "C" __global__ void add(const float* x, float* y, int shift, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i + shift] = x[i] + 1;
}'''


@pytest.fixture(scope="module")
def add():
    return cupy.RawModule(code=CODE, options=("-std=c++17",)).get_function("add")


def test_a_kernel_reads_and_writes(streams, add):
    one, other = streams
    with one:
        x, y = cupy.ones(5, np.float32), cupy.zeros(5, np.float32)
        add((1,), (8,), (x, y, np.int32(0), np.int32(5)))
        assert y.get().tolist() == [2] * 5
    with other:
        add((1,), (8,), (x, y, np.int32(0), np.int32(5)))
    with one:
        x + 1                                             # both only read it
        with pytest.raises(Race):
            y + 1


@pytest.mark.parametrize("wrong, message", [
    (lambda x, y: (x, y, np.int32(0)), "takes 4 arguments"),
    (lambda x, y: (x, y, np.int32(0), 5), "as 64 bits"),
    (lambda x, y: (x, y, np.int32(0), np.int64(5)), "takes the bytes as they are"),
    (lambda x, y: (x.astype(np.float64), y, np.int32(0), np.int32(5)), "got an array of float64"),
    (lambda x, y: (x, np.int32(0), np.int32(0), np.int32(5)), "is a pointer"),
    (lambda x, y: (x, y, y, np.int32(5)), "got an array"),
])
def test_a_kernel_gets_the_arguments_that_it_names(streams, add, wrong, message):
    with streams[0]:
        x, y = cupy.ones(5, np.float32), cupy.zeros(5, np.float32)
        with pytest.raises(TypeError, match=message):
            add((1,), (8,), wrong(x, y))


def test_a_kernel_that_writes_behind_an_array_is_caught(streams, add):
    with streams[0]:
        x, y = cupy.ones(5, np.float32), cupy.zeros(5, np.float32)
        with pytest.raises(Misuse, match="wrote behind the end"):
            add((1,), (8,), (x, y, np.int32(1), np.int32(5)))
        y._memory._block.lend()


def test_a_kernel_runs_on_the_card_of_its_arrays(streams, add):
    with streams[0]:
        x, y = cupy.ones(5, np.float32), cupy.zeros(5, np.float32)
    streams[0].synchronize()
    with cupy.cuda.Device(THERE), cupy.cuda.Stream(), pytest.raises(Misuse, match="of card 8"):
        add((1,), (8,), (x, y, np.int32(0), np.int32(5)))
