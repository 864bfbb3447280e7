"""Devices: names, the rules that logical CPUs share with GPUs, the books, and the threads."""
import copy
import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import types
import weakref
from unittest import mock

import numpy as np
import pytest
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits
from tinyalex.device import core, cuda, pool
from tinyalex.device.memory import Ledger

CPU = ta.Device("cpu:0")


# ---------------------------------------------------------------------------- names

def test_devices_are_interned():
    assert ta.Device("cpu") is ta.Device("cpu:0") is ta.Device("cpu:00") is ta.Device()
    assert ta.Device(ta.Device("cpu:1")) is ta.Device("cpu:1")
    assert ta.Device("cpu:1") is not ta.Device("cpu:0")
    assert (CPU.name, CPU.kind, CPU.index, CPU.xp) == ("cpu:0", "cpu", 0, np)
    assert repr(ta.Device("cpu:7")) == "Device('cpu:7')"


def test_a_copy_of_a_device_is_the_device():
    assert copy.deepcopy(CPU) is copy.copy(CPU) is CPU


@pytest.mark.parametrize("name", [
    "gpu:0", "cpu:-1", "cpu:", "cpu:0#1", "CPU:0", "cpu:0 ", "cpu:0\n", "cuda:x", "cuda:0#", "",
    None, 0, b"cpu:0", ("cpu:0",)])
def test_a_bad_name_teaches(name):
    with pytest.raises(ValueError, match="device: got .*; expected 'cpu:0', 'cpu:1', 'cuda:0'"):
        ta.Device(name)


# ---------------------------------------------------------------------------- cpu:0 and cpu:1

def test_logical_cpus_do_not_mix():
    a, b = ta.Tensor([1.0]), ta.Tensor([2.0], device="cpu:1")
    with pytest.raises(ta.DeviceMismatch, match=r"Add: .*cpu:0 \(1,\), cpu:1 \(1,\)"):
        a + b
    with pytest.raises(TypeError):           # a mismatch is a TypeError, too
        b + a
    assert (a.to("cpu:1") + b).device is ta.Device("cpu:1")


def test_results_stay_on_their_device():
    x = ta.Tensor(np.ones((2, 3), np.float32), device="cpu:1", requires_grad=True)
    y = (x * 2).sum()
    y.backward()
    assert y.device is x.device is ta.Device("cpu:1")


def test_a_host_array_is_adopted():
    host = np.ones(3, np.float32)
    assert CPU.array(host) is host and CPU.numpy(host) is host
    assert CPU.array([1, 2], np.float64).dtype == np.float64


@pytest.mark.parametrize("make", [CPU.empty, CPU.zeros])
def test_feature_maps_lie_channels_last_on_a_cpu(make):
    maps = make((2, 3, 4, 5), np.float32)
    assert maps.shape == (2, 3, 4, 5) and maps.transpose(0, 2, 3, 1).flags.c_contiguous
    for shape in ((), (3,), (3, 2), (2, 3, 4), (1, 2, 3, 4, 5)):
        other = make(shape, np.float64)
        assert other.shape == shape and other.dtype == np.float64 and other.flags.c_contiguous
    assert not CPU.zeros((2, 3, 4, 5), np.float32).any()


# ---------------------------------------------------------------------------- transfer

@pytest.fixture
def books():
    """Two devices' ledgers, copies forgotten."""
    ledgers = ta.Device("cpu:0").ledger, ta.Device("cpu:1").ledger
    for ledger in ledgers:
        ledger.reset()
    return ledgers


def test_transfer_always_copies(books):
    a = np.arange(6, dtype=np.float32)
    b = ta.transfer(a, "cpu:0", "cpu:1")
    b[:] = 0
    assert a.tolist() == [0, 1, 2, 3, 4, 5] and not np.shares_memory(a, b)
    assert ta.transfer(a, "cpu:0", "cpu:0") is a


def test_transfer_is_booked_where_it_arrives(books):
    here, there = books
    a = np.ones((2, 3), np.float32)
    ta.transfer(a, "cpu:0", "cpu:1")
    ta.transfer(a, "cpu:0", "cpu:1", kind="input")
    ta.transfer(a.astype(np.float64), "cpu:0", "cpu:1", kind="input")
    ta.transfer(a, "cpu:1", "cpu:0")
    ta.transfer(a, "cpu:0", "cpu:0")
    assert there.copies == {("cpu:0", "exchange"): 1, ("cpu:0", "input"): 2}
    assert there.bytes == {("cpu:0", "exchange"): 24, ("cpu:0", "input"): 72}
    assert here.bytes == {("cpu:1", "exchange"): 24}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_transfer_keeps_the_memory_order(order):
    lying = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5).transpose(order)
    moved = ta.transfer(lying, "cpu:0", "cpu:1")
    assert moved.strides == lying.strides and np.array_equal(moved, lying)
    assert np.array_equal(ta.transfer(lying[:, ::2], "cpu:0", "cpu:1"), lying[:, ::2])


def test_the_gradient_crosses_back_and_is_booked(books):
    here, there = books
    x = ta.Tensor(np.ones(4, np.float32), requires_grad=True)
    x.to("cpu:1").sum().backward()
    assert there.bytes == {("cpu:0", "exchange"): 16} and here.bytes == {("cpu:1", "exchange"): 16}
    assert x.to("cpu:0") is x and x.grad.tolist() == [1, 1, 1, 1]


# ---------------------------------------------------------------------------- the ledger

@pytest.fixture
def ledger():
    gc.collect()
    return Ledger()


def test_live_bytes_rise_and_fall_with_the_arrays(ledger):
    a = np.zeros(10, np.float32)
    ledger.hold(a)
    b = np.zeros(5)
    ledger.hold(b)
    assert (ledger.live_bytes, ledger.peak_bytes) == (80, 80)
    del a
    assert (ledger.live_bytes, ledger.peak_bytes) == (40, 80)
    ledger.reset()
    assert (ledger.live_bytes, ledger.peak_bytes) == (40, 40)
    del b
    assert ledger.live_bytes == 0


def test_views_count_once_and_keep_the_whole_buffer(ledger):
    a = np.zeros((4, 5), np.float32)
    record = ledger.hold(a)
    view = a[1:, ::2].T
    assert ledger.hold(view) is ledger.hold(a.reshape(-1)) is record
    assert ledger.live_bytes == 80
    del a
    assert ledger.live_bytes == 80            # the view keeps all of it
    del view
    assert ledger.live_bytes == 0


def test_a_view_that_comes_first_is_the_same_buffer(ledger):
    a = np.zeros((4, 5), np.float32)
    assert ledger.hold(a[0]) is ledger.hold(a) and ledger.live_bytes == 80


@pytest.mark.parametrize("memory", [b"x" * 64, bytearray(64), memoryview(bytes(64)),
                                    mmap.mmap(-1, 64)], ids=lambda m: type(m).__name__)
def test_memory_of_another_library_is_booked_under_its_array(ledger, memory):
    a = np.frombuffer(memory, np.float32)
    assert ledger.hold(a) is ledger.hold(a[3:]) is ledger.hold(a.reshape(4, 4))
    assert ledger.live_bytes == 64
    del a
    assert ledger.live_bytes == 0


def test_a_memory_mapped_file_is_booked(ledger, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    a = np.load(tmp_path / "a.npy", mmap_mode="r")
    x = np.asarray(a)
    assert ledger.hold(x) is ledger.hold(x[1:]) and ledger.live_bytes == 48
    del a, x
    assert ledger.live_bytes == 0


def test_tensors_over_foreign_memory_work():
    before = CPU.ledger.live_bytes
    x = ta.Tensor(np.frombuffer(np.ones(4, np.float32).tobytes(), np.float32), requires_grad=True)
    (x.reshape(2, 2) * x.reshape(2, 2)).sum().backward()
    assert x.grad.tolist() == [2, 2, 2, 2]
    assert CPU.ledger.live_bytes == before + 32           # x and its gradient
    del x
    assert CPU.ledger.live_bytes == before


def test_a_numpy_scalar_becomes_an_array_that_is_booked():
    before = CPU.ledger.live_bytes
    x = ta.Tensor(np.ones(100, np.float32))
    total = x.sum()                                       # NumPy returns a scalar here
    assert isinstance(total.data, np.ndarray) and CPU.ledger.live_bytes == before + 404
    del x, total
    assert CPU.ledger.live_bytes == before


def test_a_new_array_at_an_old_address_is_a_new_record(ledger):
    for size in range(1, 50):
        a = np.zeros(size, np.float32)
        assert ledger.hold(a).version == 0 and ledger.live_bytes == a.nbytes
        ledger.hold(a).version += 1
        del a


def test_snapshot_is_plain_and_does_not_change(ledger):
    a = np.zeros(4, np.float32)
    ledger.hold(a)
    ledger.count("cpu:9", "exchange", 16)
    then = ledger.snapshot()
    assert then == {"live_bytes": 16, "peak_bytes": 16, "copies": {("cpu:9", "exchange"): 1},
                    "bytes": {("cpu:9", "exchange"): 16}, "pool": {}}
    assert CPU.ledger.snapshot()["pool"] == CPU.memory()
    ledger.count("cpu:9", "exchange", 16)
    ledger.reset()
    assert then["bytes"] == {("cpu:9", "exchange"): 16}
    assert ledger.snapshot()["copies"] == {} == ledger.snapshot()["bytes"]


def test_scratch_is_the_same_memory_again_and_grows():
    one = CPU.scratch("columns of a test", (2, 3), np.float32)
    two = CPU.scratch("columns of a test", (3, 2), np.float32)
    assert np.shares_memory(one, two) and two.shape == (3, 2)
    assert not np.shares_memory(one, CPU.scratch("something else", (2, 3), np.float32))
    assert not np.shares_memory(one, CPU.scratch("columns of a test", (2, 3), np.float64))
    assert CPU.scratch("columns of a test", (50, 50), np.float32).shape == (50, 50)
    others = []
    thread = threading.Thread(target=lambda: others.append(
        CPU.scratch("columns of a test", (50, 50), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(others[0], CPU.scratch("columns of a test", (50, 50), np.float32))


# ---------------------------------------------------------------------------- map

@pytest.fixture
def threads():
    """``threads(n)`` sets the number of threads; even tiny work is cut."""
    before = ta.get_num_threads()
    with mock.patch.object(pool, "GRAIN", 1):
        yield ta.set_num_threads
    ta.set_num_threads(before)


@given(n=st.integers(0, 3000), work=st.one_of(st.none(), st.floats(0, 1e9)))
def test_slices_cover_everything_once(n, work):
    slices = pool.cut(n, work)
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(n))
    assert len(slices) <= pool.LANES and all(s.stop > s.start for s in slices)
    if slices:
        sizes = [s.stop - s.start for s in slices]
        assert max(sizes) - min(sizes) <= 1


def test_small_work_stays_in_one_slice():
    assert pool.cut(1000, work=1) == [slice(0, 1000)]
    assert len(pool.cut(1000, work=1e6)) > 1


def test_results_come_in_order(threads):
    def slow_at_first(s):
        time.sleep(0.01 * (s.start == 0))
        return s.start, s.stop
    for count in (1, 2, 3):
        threads(count)
        assert CPU.map(8, slow_at_first) == [(i, i + 1) for i in range(8)]


def test_the_cut_does_not_depend_on_the_threads(threads):
    seen = []
    for count in (1, 2, 3, 20):
        threads(count)
        seen.append([(s.start, s.stop) for s in CPU.map(100, lambda s: s)])
    assert seen[0] == seen[1] == seen[2] == seen[3] and len(seen[0]) == 8


def test_several_threads_share_the_work(threads):
    threads(3)
    together = threading.Barrier(3, timeout=20)      # breaks unless three are at work at once
    workers = set(CPU.map(8, lambda s: (s.start < 3 and together.wait(), threading.get_ident())[1]))
    assert len(workers) == 3


def test_a_map_inside_a_map_stays_on_its_thread(threads):
    threads(3)

    def outer(s):
        me = threading.get_ident()
        inner = CPU.map(8, lambda t: (threading.get_ident(), t.start))
        return all(thread == me for thread, _ in inner) and [start for _, start in inner]

    assert CPU.map(8, outer) == [list(range(8))] * 8
    assert not getattr(pool._state, "inside", False)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("where", range(8))
def test_an_exception_reaches_the_caller(threads, count, where):
    threads(count)

    def fails(s):
        if s.start == where:
            raise IndexError(f"slice {where}")     # of all errors: that of an empty deque
        return s.start

    with pytest.raises(IndexError, match=f"slice {where}"):
        CPU.map(8, fails)
    assert CPU.map(8, lambda s: s.start) == list(range(8))


def test_after_a_failure_nobody_is_still_at_work(threads):
    threads(3)
    started, finished = [], []
    working = threading.Event()

    def fn(s):
        if threading.current_thread() is threading.main_thread():
            assert working.wait(20)
            raise ValueError("here")
        started.append(s)
        working.set()
        time.sleep(0.05)
        finished.append(s)

    with pytest.raises(ValueError, match="here"):
        CPU.map(8, fn)
    assert started and len(finished) == len(started) <= 2


def test_an_error_on_another_thread_reaches_the_caller_and_ends_the_map(threads):
    threads(2)
    both, started = threading.Barrier(2), []

    def fn(s):
        started.append(s)
        both.wait(20)
        if threading.current_thread() is not threading.main_thread():
            raise KeyError("there")
        time.sleep(0.05)

    with pytest.raises(KeyError, match="there"):
        CPU.map(8, fn)
    assert len(started) == 2                          # nobody began another slice
    assert CPU.map(8, lambda s: s.start) == list(range(8))


def test_ctrl_c_interrupts_and_leaves_everything_usable(threads):
    threads(2)
    pressed = threading.Event()

    def fn(s):
        if threading.current_thread() is threading.main_thread():
            pressed.set()
            signal.raise_signal(signal.SIGINT)
        assert pressed.wait(20)

    with threadpool_limits(2):
        before = _blas_threads()
        with pytest.raises(KeyboardInterrupt):
            CPU.map(8, fn)
        assert _blas_threads() == before
    assert CPU.map(8, lambda s: s.start) == list(range(8))


def test_ctrl_c_waits_for_the_slice_of_a_helper(threads):
    threads(2)
    main, seen = threading.main_thread(), []
    helping = threading.Event()

    def fn(s):
        if threading.current_thread() is main:
            assert helping.wait(20)                   # then this thread is done, and waits
        else:
            helping.set()
            time.sleep(0.05)
            signal.pthread_kill(main.ident, signal.SIGINT)
            time.sleep(0.05)
            seen.append(s)

    with pytest.raises(KeyboardInterrupt):
        CPU.map(2, fn)
    assert len(seen) == 1 and CPU.map(8, lambda s: s.start) == list(range(8))


INTERRUPTED_START = """
import threading
import tinyalex as ta
from tinyalex.device import pool
pool.GRAIN = 1
ta.set_num_threads(2)
start = threading.Thread.start

def interrupted(thread):
    start(thread)
    raise KeyboardInterrupt

threading.Thread.start = interrupted
try:
    ta.Device("cpu:0").map(8, lambda s: s)
except KeyboardInterrupt:
    threading.Thread.start = start
    print(ta.Device("cpu:0").map(8, lambda s: s.start))
"""


def test_ctrl_c_while_a_thread_starts_does_not_hang_the_exit():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_START], capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2, 3, 4, 5, 6, 7]\n"), done.stderr


def test_nobody_waits_for_a_helper_that_is_busy_elsewhere(threads):
    threads(2)
    both, enough, in_time = threading.Barrier(3), threading.Event(), []

    def busy(s):
        both.wait(20)
        in_time.append(enough.wait(10))

    caller = threading.Thread(target=lambda: CPU.map(2, busy))
    caller.start()
    both.wait(20)                                     # the caller and the only helper are at work
    assert CPU.map(8, lambda s: s.start) == list(range(8))
    enough.set()
    caller.join(20)
    assert in_time == [True, True]


def test_a_finished_map_keeps_no_array_alive(threads):
    threads(3)
    for _ in range(100):
        a = np.zeros(8)
        gone = weakref.ref(a)
        parts = CPU.map(8, lambda s, a=a: a[s] + 1)
        also = weakref.ref(parts[0])
        del a, parts
        assert gone() is None and also() is None


def test_another_number_of_threads_ends_the_old_ones(threads):
    def alive():
        return {t for t in threading.enumerate() if t.name == "tinyalex"}

    threads(1)
    for thread in alive():
        thread.join(20)
    threads(4)
    CPU.map(8, lambda s: None)
    old = alive()
    assert len(old) == 3 and all(thread.daemon for thread in old)
    threads(2)
    for thread in old:
        thread.join(20)
    assert not alive() and len(CPU.map(8, lambda s: None)) == 8 and len(alive()) == 1


def _blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@pytest.mark.parametrize("count", [1, 3])
def test_blas_runs_one_thread_inside_and_as_before_afterwards(threads, count):
    threads(count)
    with threadpool_limits(2):
        before = _blas_threads()
        inside = CPU.map(8, lambda s: CPU.map(2, lambda t: _blas_threads())[0])
        assert all(n == 1 for counts in inside for n in counts)
        assert _blas_threads() == before
        with pytest.raises(ZeroDivisionError):
            CPU.map(8, lambda s: 1 / 0)
        assert _blas_threads() == before and before and set(before) == {2}


def test_after_an_interrupted_beginning_the_next_map_sets_blas_right(threads):
    threads(2)
    with threadpool_limits(2):
        before = _blas_threads()
        pool._blas.__enter__()                        # and then Ctrl-C, before the map itself
        assert set(_blas_threads()) == {1}
        CPU.map(8, lambda s: None)
        assert _blas_threads() == before


def test_two_callers_at_once(threads):
    threads(2)
    results = {}

    def call(key):
        results[key] = [CPU.map(8, lambda s: key + s.start) for _ in range(20)]

    callers = [threading.Thread(target=call, args=(100 * k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert results == {100 * k: [[100 * k + i for i in range(8)]] * 20 for k in range(4)}


@pytest.mark.parametrize("n", [0, -1, 1.5, 2.0, "two", "1.5", "", None, float("inf"), [2]])
def test_a_bad_number_of_threads_teaches(n):
    before = ta.get_num_threads()
    with pytest.raises(ValueError, match="TINYALEX_THREADS.*got .*; expected a positive integer"):
        ta.set_num_threads(n)
    assert ta.get_num_threads() == before


def test_the_environment_sets_the_threads(monkeypatch):
    monkeypatch.setattr(pool, "_threads", None)
    monkeypatch.setenv("TINYALEX_THREADS", "3")
    assert ta.get_num_threads() == 3
    monkeypatch.setattr(pool, "_threads", None)
    monkeypatch.setenv("TINYALEX_THREADS", "many")
    with pytest.raises(ValueError, match="TINYALEX_THREADS.*got 'many'; expected a positive"):
        ta.get_num_threads()
    monkeypatch.setenv("TINYALEX_THREADS", "")
    assert ta.get_num_threads() == len(os.sched_getaffinity(0))


FORK = """
import os, sys, threading
import tinyalex as ta
from tinyalex.device import pool
pool.GRAIN = 1
ta.set_num_threads(3)

def work():
    together = threading.Barrier(3, timeout=20)        # three threads there must be
    return ta.Device("cpu:0").map(8, lambda s: s.start < 3 and together.wait() < 3)

assert work() == [True] * 3 + [False] * 5
child = os.fork()
if not child:
    os._exit(0 if work() == [True] * 3 + [False] * 5 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_starts_threads_of_its_own():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60)
    assert done.returncode == 0


# ---------------------------------------------------------------------------- no GPU

@pytest.fixture
def no_gpu_yet(monkeypatch):
    """As if no GPU had been asked for in this process."""
    monkeypatch.setattr(core.Device, "_interned", {"cpu:0": CPU})


def _fake_cupy(count):
    runtime = types.SimpleNamespace(getDeviceCount=lambda: count)
    fake = types.ModuleType("cupy")
    fake.cuda = types.SimpleNamespace(is_available=lambda: count > 0, runtime=runtime)
    return fake


def test_without_cupy(monkeypatch, no_gpu_yet):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for _ in range(2):                                # a failed device is not remembered
        with pytest.raises(ta.BackendUnavailable, match=(
                r"pip install 'tinyalex\[cupy\]' \(CUDA 12\) or 'tinyalex\[cupy13\]' \(CUDA 13\), "
                "or use --backend numpy")):
            ta.Device("cuda:0")
    assert cuda.device_count() == 0


def test_with_cupy_but_no_driver(monkeypatch, no_gpu_yet):
    monkeypatch.setitem(sys.modules, "cupy", _fake_cupy(0))
    with pytest.raises(ta.BackendUnavailable, match="finds no GPU .*python -m tinyalex.doctor"):
        ta.Device("cuda:0")
    assert cuda.device_count() == 0


def test_with_a_cupy_that_cannot_be_imported(monkeypatch, no_gpu_yet, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12: no such file')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ta.BackendUnavailable, match="cannot be imported.*tinyalex.doctor"):
        ta.Device("cuda:0")
    assert cuda.device_count() == 0


def test_a_gpu_that_this_machine_does_not_have(monkeypatch, no_gpu_yet):
    monkeypatch.setitem(sys.modules, "cupy", _fake_cupy(2))
    with pytest.raises(ta.BackendUnavailable, match="cuda:2: no such GPU; this machine has "
                                                    "cuda:0, cuda:1"):
        ta.Device("cuda:2")
    assert cuda.device_count() == 2


# ---------------------------------------------------------------------------- map in blocks, each

@given(n=st.integers(0, 300), work=st.one_of(st.none(), st.floats(0, 1e9)),
       nbytes=st.one_of(st.integers(0, 300), st.floats(0, 300)))
def test_blocks_cover_everything_once_and_fit_the_cache(n, work, nbytes):
    with mock.patch.object(pool, "CACHE", 200):
        blocks = CPU.map(n, lambda s: s, work=work, nbytes=nbytes)
    assert [i for s in blocks for i in range(s.start, s.stop)] == list(range(n))
    assert all(s.stop > s.start for s in blocks)
    assert all((s.stop - s.start) * int(nbytes) <= 200 or s.stop - s.start == 1 for s in blocks)


def test_blocks_and_their_results_do_not_depend_on_the_threads(threads):
    def slow_at_first(s):
        time.sleep(0.01 * (s.start == 0))
        return s.start, s.stop

    seen = []
    with mock.patch.object(pool, "CACHE", 30):
        for count in (1, 2, 3, 20):
            threads(count)
            seen.append(CPU.map(100, slow_at_first, nbytes=10))
    assert seen[0] == seen[1] == seen[2] == seen[3] == sorted(seen[0])
    assert len(seen[0]) > 8 and max(stop - start for start, stop in seen[0]) == 3


def test_an_error_in_a_block_reaches_the_caller(threads):
    threads(2)

    def fails(s):
        if s.start <= 50 < s.stop:
            raise IndexError("block 50")
        return s

    with mock.patch.object(pool, "CACHE", 30), pytest.raises(IndexError, match="block 50"):
        CPU.map(100, fails, nbytes=10)


WRITEABLE = [layout for layout in strategies.LAYOUTS if layout != "read_only"]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.sampled_from(WRITEABLE),
       st.lists(st.sampled_from(strategies.LAYOUTS), min_size=1, max_size=3), strategies.dtypes(),
       st.integers(1, 3), st.sampled_from([1, 64, 1 << 20]))
def test_each_is_the_plain_expression(shape, layout, layouts, dtype, count, cache):
    """Whatever lies how, and however small the pieces: each element once, same bits."""
    inputs = [strategies.laid_out(strategies.normal(shape, i, dtype), kind)
              for i, kind in enumerate(layouts)]
    out = strategies.laid_out(strategies.normal(shape, 9, dtype), layout)
    around, kept = out if out.base is None else out.base, [a.copy() for a in inputs]
    blank = np.isnan(around)
    expected = out + sum(np.exp(a) for a in inputs)

    def add(y, *arrays):                         # added, so that what comes twice is seen
        assert all(a.shape == y.shape for a in arrays)
        y += sum(np.exp(a) for a in arrays)

    before = ta.get_num_threads()
    try:
        ta.set_num_threads(count)
        with mock.patch.multiple(pool, GRAIN=1, CACHE=cache):
            assert CPU.each(add, out, *inputs) is out
    finally:
        ta.set_num_threads(before)
    assert np.array_equal(out, expected)
    assert np.array_equal(np.isnan(around), blank)       # nothing beside it was touched
    assert all(np.array_equal(a, b) for a, b in zip(inputs, kept, strict=True))


@pytest.mark.parametrize("layout", WRITEABLE)
@pytest.mark.parametrize("other", WRITEABLE)
def test_each_writes_over_its_input(threads, layout, other):
    threads(3)
    a, b = strategies.normal((3, 4, 5, 6), 0), strategies.normal((3, 4, 5, 6), 1)
    out, x = strategies.laid_out(a, layout), strategies.laid_out(b, other)
    with mock.patch.object(pool, "CACHE", 100):
        CPU.each(lambda y, x, z: np.subtract(x, z, out=y), out, out, x)
        assert np.array_equal(out, a - b)
        CPU.each(lambda y, x, z: np.subtract(x, z, out=y), out, x, out)
    assert np.array_equal(out, b - (a - b)) and np.array_equal(x, b)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3), (2, 0, 3, 4)], ids=str)
def test_each_of_one_and_of_none(shape):
    out = np.full(shape, 5.0)
    assert CPU.each(lambda y, x: np.add(x, 1, out=y), out, np.full(shape, 1.0)) is out
    assert out.shape == shape and (out == 2).all()


def test_each_cuts_what_lies_alike_into_pieces_that_fit(threads):
    """Also a single picture, which has but one row along its first axis."""
    threads(2)
    for layout in ("C", "F", "channels_last"):
        x = strategies.laid_out(strategies.normal((1, 8, 40, 30), 0), layout)
        y, sizes = np.empty_like(x), []
        with mock.patch.object(pool, "CACHE", 1 << 12):
            CPU.each(lambda y, x, sizes=sizes: sizes.append(y.nbytes + x.nbytes)
                     or np.negative(x, out=y), y, x)
        assert np.array_equal(y, -x) and max(sizes) <= 1 << 12 and sum(sizes) == 2 * x.nbytes


def test_scratch_lies_as_empty_does():
    for dtype in (np.float32, np.float64, bool):
        maps = CPU.scratch("maps of a test", (2, 3, 4, 5), dtype)
        assert maps.shape == (2, 3, 4, 5) and maps.dtype == dtype
        assert maps.strides == CPU.empty((2, 3, 4, 5), dtype).strides
        assert maps.transpose(0, 2, 3, 1).flags.c_contiguous
        for shape in ((), (3,), (3, 2), (2, 3, 4), (1, 2, 3, 4, 5)):
            assert CPU.scratch("maps of a test", shape, dtype).flags.c_contiguous
