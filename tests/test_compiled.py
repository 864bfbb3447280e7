"""What runs CUDA kernels on a CPU: it computes what a card would, and sees what a card would not.

The kernels here are small, and some are wrong on purpose.
"""
import multiprocessing
import os
import threading

import numpy as np
import pytest
from standin import compiled
from standin.compiled import CompileError, KernelError, build

try:
    build("")
except compiled.NoCompiler as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))

REALS = [("float", np.float32), ("double", np.float64)]


def kernel(code, real="float", *options):
    """The only kernel of the code."""
    (found,) = build(code, [f"-DREAL={real}", *options]).values()
    return found


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------------- what a kernel is

ADD = """
extern "C" __global__ void add(const REAL* __restrict__ x, const REAL *y, REAL* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = x[i] + y[i];
}
"""


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("real, dtype", REALS)
def test_vectors_are_added(real, dtype, order):
    x, y, out = numbers(1000, dtype=dtype), numbers(1000, dtype=dtype)[::-1].copy(), \
        np.zeros(1000, dtype)
    kernel(ADD, real).run_on((4,), (256,), (x, y, out, 1000), order)
    assert np.array_equal(out, x + y)


def test_addresses_are_taken_as_they_are():
    x, out = numbers(1000), np.zeros(1000, np.float32)
    address = np.uint64(x.ctypes.data)           # as the program passes them, and as Python does
    kernel(ADD).run((4,), (256,), (address, x.ctypes.data, out.ctypes.data, np.int32(999)))
    assert np.array_equal(out[:999], x[:999] + x[:999]) and out[999] == 0


def test_an_array_given_twice_is_one_array():
    x = numbers(100)
    expected = x + x
    kernel(ADD).run_on((1,), (128,), (x, x, x, 100))
    assert np.array_equal(x, expected)


def test_a_kernel_knows_its_parameters():
    code = """
    // extern "C" __global__ void in_a_comment(int n) {}
    #if 0
    extern "C" __global__ void left_out(int n) {}
    #endif
    typedef unsigned long long word;
    __device__ void helper(int n) {}
    extern "C" __global__ void none() {}
    extern "C" __global__
    void __launch_bounds__(256) all(const REAL* __restrict__ a, CODE *b,   // a comment, with (
             const long long* c, word d, float e, REAL f, bool g, unsigned short h, const int i) {}
    """
    found = build(code, ["-DREAL=double", "-DCODE=unsigned char"])
    assert list(found) == ["none", "all"] and found["none"].parameters == []
    assert [(p.name, p.type, p.pointer, p.const) for p in found["all"].parameters] == [
        ("a", "double", True, True), ("b", "unsigned char", True, False),
        ("c", "long long", True, True), ("d", "unsigned long long", False, False),
        ("e", "float", False, False), ("f", "double", False, False), ("g", "bool", False, False),
        ("h", "unsigned short", False, False), ("i", "int", False, False)]
    assert found["all"].name == "all" and found["all"].parameters[3].dtype == np.uint64


def test_helpers_may_bear_names_of_the_c_library():
    code = """
    __device__ __forceinline__ int index(int i) { return i + 1; }
    static __device__ int random(int i) { return index(i); }
    extern "C" __global__ void fill(int* out) { out[threadIdx.x] = random(threadIdx.x); }
    """
    out = np.zeros(5, np.int32)
    kernel(code).run_on((1,), (5,), (out,))
    assert list(out) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_grids_have_three_dimensions(order):
    code = """
    extern "C" __global__ void places(int* out) {
        int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y,
            z = blockIdx.z * blockDim.z + threadIdx.z;
        int i = (z * gridDim.y * blockDim.y + y) * gridDim.x * blockDim.x + x;
        out[i] += 10000 * z + 100 * y + x + 1;
    }
    """
    out = np.zeros((4 * 2, 3 * 3, 2 * 5), np.int32)
    kernel(code).run_on((2, 3, 4), (5, 3, 2), (out,), order)
    z, y, x = np.indices(out.shape)
    assert np.array_equal(out, 10000 * z + 100 * y + x + 1)      # each place once


# ---------------------------------------------------------------------------- arithmetic

def test_a_float_stays_a_float():
    code = """
    template <class T> __device__ int bytes(T) { return sizeof(T); }
    extern "C" __global__ void sizes(REAL x, int* out) {
        int all[] = {bytes(sqrt(x)), bytes(exp(x)), bytes(log(x)), bytes(pow(x, x)),
                     bytes(fabs(x)), bytes(rsqrt(x)), bytes(max(x, x)), bytes(min(x, x)),
                     bytes(max(x, 1.0)), bytes(max(1, 2u)), bytes(max(1LL, 2LL)),
                     max(-1, 2u) == ~0u, max(-1, 2) == 2, min(-1LL, 2LL) == -1};
        out[threadIdx.x] = all[threadIdx.x];
    }
    """
    for real, size in ("float", 4), ("double", 8):
        out = np.zeros(14, np.int32)
        kernel(code, real).run_on((1,), (14,), (1.0, out))
        assert list(out) == 8 * [size] + [8, 4, 8] + 3 * [1]


@pytest.mark.parametrize("real, dtype", REALS)
def test_functions_are_those_of_the_card(real, dtype):
    code = """
    extern "C" __global__ void functions(const REAL* x, REAL* out) {
        REAL v = x[threadIdx.x];
        REAL all[] = {sqrt(v), exp(v), log(v), pow(v, REAL(0.75)), fabs(-v), rsqrt(v),
                      max(v, REAL(1)), min(v, REAL(1)), __ldg(x + threadIdx.x)};
        #pragma unroll
        for (int i = 0; i < 9; i++)
            out[i * blockDim.x + threadIdx.x] = all[i];
    }
    """
    x = np.abs(numbers(50, dtype=dtype)) + dtype(0.1)
    out = np.zeros((9, 50), dtype)
    kernel(code, real).run_on((1,), (50,), (x, out))
    expected = [np.sqrt(x), np.exp(x), np.log(x), x**dtype(0.75), x, 1 / np.sqrt(x),
                np.maximum(x, 1), np.minimum(x, 1), x]
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps,
                               atol=np.finfo(dtype).eps)
    assert np.array_equal(out[0], np.sqrt(x)) and np.array_equal(out[5], expected[5])


@pytest.mark.parametrize("real, dtype", REALS)
def test_nan_loses_against_a_number_in_min_and_max(real, dtype):
    """NumPy's maximum, Python's and C++'s ?: all do otherwise; a kernel must not count on them."""
    code = """
    extern "C" __global__ void extremes(REAL nan, REAL* out) {
        out[0] = max(nan, REAL(1)), out[1] = max(REAL(1), nan);
        out[2] = min(nan, REAL(1)), out[3] = min(REAL(1), nan), out[4] = max(nan, nan);
    }
    """
    out = np.zeros(5, dtype)
    kernel(code, real).run_on((1,), (1,), (np.nan, out))
    assert list(out[:4]) == [1, 1, 1, 1] and np.isnan(out[4])


def test_products_have_their_upper_halves():
    code = """
    extern "C" __global__ void high(unsigned long long a, unsigned long long b,
                                    unsigned long long* out) {
        out[0] = __umul64hi(a, b);
        out[1] = __umulhi(unsigned(a), unsigned(b));
    }
    """
    out = np.zeros(2, np.uint64)
    a, b = 0xD2E7470EE14C6C93, 0xFEDCBA9876543210
    kernel(code).run_on((1,), (1,), (a, b, out))
    assert list(out) == [a * b >> 64, (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF) >> 32]


def test_sums_are_not_joined_to_products():
    """x * y + z is rounded twice, as in NumPy."""
    code = """
    extern "C" __global__ void axpy(const REAL* x, const REAL* y, REAL* z) {
        z[threadIdx.x] = x[threadIdx.x] * y[threadIdx.x] + z[threadIdx.x];
    }
    """
    x, y, z = numbers(3, 512)
    expected = x * y + z
    kernel(code).run_on((1,), (512,), (x, y, z))
    assert np.array_equal(z, expected)


# ---------------------------------------------------------------------------- barriers

SUM = """
__device__ REAL total(REAL value) {
    __shared__ REAL part[64];
    int t = threadIdx.x;
    part[t] = value;
    for (int half = 32; half > 0; half /= 2) {
        BARRIER
        if (t < half)
            part[t] += part[t + half];
    }
    __syncthreads();
    REAL result = part[0];
    AFTER
    return result;
}
extern "C" __global__ void normal(const REAL* x, REAL* out, int n) {
    REAL sum = 0, squares = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[blockIdx.x * n + i];
    sum = total(sum);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        squares += x[blockIdx.x * n + i] * sum;
    out[blockIdx.x * blockDim.x + threadIdx.x] = total(squares);
}
"""
BARRIER, AFTER = "-DBARRIER=__syncthreads();", "-DAFTER=__syncthreads();"


def sums(order, *options, real="double"):
    x = np.random.default_rng(0).integers(-9, 9, (5, 100)).astype(dict(REALS)[real])
    out = np.zeros((5, 64), x.dtype)
    kernel(SUM, real, *options).run_on((5,), (64,), (x, out, 100), order)
    return out, np.broadcast_to(x.sum(1, keepdims=True)**2, out.shape)


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("real, dtype", REALS)
def test_a_block_sums_up(real, dtype, order):
    out, expected = sums(order, BARRIER, AFTER, real=real)
    assert np.array_equal(out, expected) and out.dtype == dtype


@pytest.mark.parametrize("options", [("-DBARRIER=", AFTER), (BARRIER, "-DAFTER=")],
                         ids=["before it reads", "before it writes"])
def test_a_missing_barrier_is_seen_in_the_sums(options):
    outcomes = [sums(order, *options) for order in ("forward", "reverse")]
    assert not all(np.array_equal(out, expected) for out, expected in outcomes)


def test_an_order_that_must_not_matter_is_seen_to():
    code = """
    extern "C" __global__ void last(int* who) { who[0] = blockIdx.x * blockDim.x + threadIdx.x; }
    """
    who = np.zeros(1, np.int32)
    kernel(code).run_on((3,), (8,), (who,))
    assert who == 23
    kernel(code).run_on((3,), (8,), (who,), order="reverse")
    assert who == 0
    with pytest.raises(ValueError, match="order: got 'random'; expected 'forward' or 'reverse'"):
        kernel(code).run_on((3,), (8,), (who,), order="random")


def test_shared_memory_begins_with_garbage():
    code = """
    __device__ __forceinline__ void again(REAL* out) {
        __shared__ REAL kept;
        out[blockIdx.x] = kept;
        kept = 1;
    }
    extern "C" __global__ void left(REAL* out) {
        __shared__ int whole[3];
        again(out);
        out[3 + blockIdx.x] = whole[2];
        whole[2] = 5;
    }
    """
    out = np.zeros(6, np.float32)
    kernel(code).run_on((3,), (1,), (out,))      # the second block does not find the first's
    assert np.isnan(out[:3]).all() and list(out[3:]) == [-1, -1, -1]


DIVERGENT = """
extern "C" __global__ void some(int* out, int n) {
    int t = threadIdx.x;
    if (t < n)
        __syncthreads();
    out[t] = t;
}
"""


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_a_barrier_that_some_never_reach_is_an_error(order):
    out = np.zeros(256, np.int32)
    for _ in range(2):                           # and leaves nothing behind
        with pytest.raises(KernelError, match=r"some: barrier reached by only some threads of "
                           r"block \(\d, 0, 0\): 255 of 256 wait in line 5, the others have"):
            kernel(DIVERGENT).run_on((2,), (256,), (out, 255), order)
        assert not out.any()
        kernel(DIVERGENT).run_on((1,), (256,), (out, 256), order)
        assert np.array_equal(out, np.arange(256))
        out[:] = 0
        kernel(DIVERGENT).run_on((1,), (256,), (out, 0), order)
        assert np.array_equal(out, np.arange(256))
        out[:] = 0


def test_a_barrier_that_some_leave_early_is_an_error():
    code = """
    extern "C" __global__ void early(int n) {
        for (int i = 0; i < (threadIdx.x ? n : n - 1); i++)
            __syncthreads();
    }
    """
    kernel(code).run_on((1,), (1,), (3,))
    with pytest.raises(KernelError, match="only some .*: 7 of 8 wait in line 4"):
        kernel(code).run_on((1,), (8,), (3,))


def test_threads_that_wait_at_different_barriers_are_an_error():
    code = """
    extern "C" __global__ void apart(unsigned n) {
        if (threadIdx.x < n)
            __syncthreads();
        else
            __syncthreads();
    }
    """
    kernel(code).run_on((1,), (8,), (0,))
    kernel(code).run_on((1,), (8,), (8,))
    with pytest.raises(KernelError, match=r"apart: threads of block \(0, 0, 0\) wait at different "
                       "barriers, in lines 4 and 6"):
        kernel(code).run_on((1,), (8,), (3,))


def test_a_thread_keeps_what_is_its_own_across_a_barrier():
    code = """
    extern "C" __global__ void own(int* out) {
        int mine[100];
        for (int i = 0; i < 100; i++)
            mine[i] = i * (threadIdx.y * blockDim.x + threadIdx.x);
        __syncthreads();
        int sum = 0;
        for (int i = 0; i < 100; i++)
            sum += mine[i];
        out[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    }
    """
    out = np.zeros(1024, np.int32)
    kernel(code).run_on((1,), (32, 32), (out,))
    assert np.array_equal(out, 4950 * np.arange(1024))


# ---------------------------------------------------------------------------- guards

BESIDE = """
extern "C" __global__ void beside(const REAL* x, REAL* y, int from, int to) {
    y[to] = x[from];
}
"""


@pytest.mark.parametrize("to, message", [
    (10, r"wrote into y\[10\], which has 10 elements"),
    (200, r"wrote into y\[200\], which has 10 elements"), (-1, "wrote 1 elements before y"),
    (-300, "wrote 300 elements before y")])
@pytest.mark.parametrize("real, dtype", REALS)
def test_a_write_beside_an_array_is_an_error(real, dtype, to, message):
    x, y = numbers(10, dtype=dtype), np.zeros(10, dtype)
    with pytest.raises(KernelError, match=f"beside {message}"):
        kernel(BESIDE, real).run_on((1,), (1,), (x, y, 3, to))
    assert not y.any()


def test_a_guard_is_no_disguise():
    """NaNs read beside one array and written beside another are seen."""
    x, y = np.ones((2, 10), np.float32)
    with pytest.raises(KernelError, match=r"beside wrote into y\[12\]"):
        kernel(BESIDE).run_on((1,), (1,), (x, y, 12, 12))


@pytest.mark.parametrize("real, dtype", REALS)
@pytest.mark.parametrize("place", [-1, 10, 150])
def test_a_read_beside_an_array_shows(real, dtype, place):
    x, y = np.ones((2, 10), dtype)
    kernel(BESIDE, real).run_on((1,), (1,), (x, y, place, 4))
    assert np.isnan(y[4]) and list(np.delete(y, 4)) == [1] * 9


def test_bytes_are_guarded_too():
    code = 'extern "C" __global__ void put(unsigned char* y, int i) { y[i] = 0; }'
    y = np.ones(3, np.uint8)
    kernel(code).run_on((1,), (1,), (y, 1))
    assert list(y) == [1, 0, 1]
    for i in range(3, 9):
        with pytest.raises(KernelError, match=rf"put wrote into y\[{i}\], which has 3 elements"):
            kernel(code).run_on((1,), (1,), (y, i))


def test_a_write_through_const_is_an_error():
    code = """
    extern "C" __global__ void cast(const REAL* x, REAL* y) { ((REAL*)x)[1] = y[1] = 2; }
    """
    x, y = np.ones((2, 3), np.float32)
    with pytest.raises(KernelError, match="cast wrote into x, which it takes as const"):
        kernel(code).run_on((1,), (1,), (x, y))
    assert list(x) == list(y) == [1, 1, 1]
    kernel(code).run_on((1,), (1,), (x, x))      # the same array may be both
    assert list(x) == [1, 2, 1]


def test_a_null_pointer_is_none():
    code = """
    extern "C" __global__ void is_null(const REAL* x, int* out) { out[0] = x == 0; }
    """
    out = np.zeros(1, np.int32)
    for null in None, 0, np.uint64(0):
        out[0] = 5
        kernel(code).run((1,), (1,), (null, out.ctypes.data))
        assert out == 1
    kernel(code).run_on((1,), (1,), (numbers(3), out))
    assert out == 0
    kernel(code).run_on((1,), (1,), (None, out))
    assert out == 1


# ---------------------------------------------------------------------------- what is refused

SCALARS = """
extern "C" __global__ void take(int i, unsigned char u, float f, bool b, double* out) {
    out[0] = i, out[1] = u, out[2] = f, out[3] = b;
}
"""


def test_scalars_arrive():
    out = np.zeros(4)
    take = kernel(SCALARS)
    take.run_on((1,), (1,), (-2**31, 255, 0.1, True, out))
    assert list(out) == [-2**31, 255, np.float32(0.1), 1]
    take.run_on((1,), (1,), (np.int32(7), np.uint8(8), np.float32(9), np.bool_(False), out))
    assert list(out) == [7, 8, 9, 0]


@pytest.mark.parametrize("place, value, error, message", [
    (0, 2**31, OverflowError, "take: i is int, which cannot hold 2147483648"),
    (0, -2**31 - 1, OverflowError, "i is int, which cannot hold"),
    (0, 1.5, OverflowError, r"i is int, which cannot hold 1\.5"),
    (1, 256, OverflowError, "u is unsigned char, which cannot hold 256"),
    (1, -1, OverflowError, "u is unsigned char, which cannot hold -1"),
    (0, np.int64(1), TypeError, r"i is int, got int64; .* so pass np\.int32"),
    (2, np.float64(1), TypeError, r"f is float, got float64; .* so pass np\.float32"),
    (3, np.int32(1), TypeError, "b is bool, got int32"),
    (4, np.zeros(4, np.float32), TypeError, r"out is double\*, got float32"),
    (4, np.zeros((4, 2))[:, 0], TypeError, "out is double.*C-contiguous: False")])
def test_arguments_that_are_not_the_parameters(place, value, error, message):
    args = [1, 1, 1.0, True, np.zeros(4)]
    args[place] = value
    with pytest.raises(error, match=message):
        kernel(SCALARS).run_on((1,), (1,), args)


@pytest.mark.parametrize("count", [4, 6])
def test_arguments_are_counted(count):
    args = [1, 1, 1.0, True, np.zeros(4), 5][:count]
    what = rf"take takes 5 arguments \(i, u, f, b, out\), got {count}"
    with pytest.raises(TypeError, match=what):
        kernel(SCALARS).run_on((1,), (1,), args)


@pytest.mark.parametrize("grid, block", [
    ((0,), (1,)), ((1,), (1025,)), ((1,), (32, 33)), ((1, 65536), (1,)), ((2**31,), (1,)),
    ((1,), (1, 1, 65)), ((1, 1, -1), (1,))])
def test_launches_that_a_card_refuses(grid, block):
    with pytest.raises(ValueError, match="take: (grid|block) "):
        kernel(SCALARS).run_on(grid, block, (1, 1, 1.0, True, np.zeros(4)))


# ---------------------------------------------------------------------------- compiling

def test_a_mistake_is_told_with_its_line():
    with pytest.raises(CompileError, match=r"kernel\.cu:3:.*expected ';'"):
        build('extern "C" __global__ void wrong(float* x) {\n    x[0] = 1;\n    x[1] = 2\n}\n')
    with pytest.raises(CompileError, match="missing.h"):
        build("#include <missing.h>\n")


@pytest.mark.parametrize("body", [
    "const int* y = x; y[0] = 1;",                          # const is kept
    "int z; if (n) x[0] = z;",                              # never set
    "if (n = 1) x[0] = 2;",                                 # meant to be ==
    "threadIdx.x = 1;", "float4 v;", "atomicAdd(x, 1);"])
def test_what_is_likely_a_mistake_does_not_compile(body):
    with pytest.raises(CompileError):
        build(f'extern "C" __global__ void wrong(int* x, int n) {{ {body} }}')
    build('extern "C" __global__ void right(int* x, int n) { int unused = n; }')


def test_options_are_known():
    code = 'extern "C" __global__ void one(int* x) { x[0] = VALUE; }'
    x = np.zeros(1, np.int32)
    kernel(code, "float", "-std=c++14", "--fmad=false", "-DVALUE=41 + 1").run_on((1,), (1,), (x,))
    assert x == 42
    with pytest.raises(ValueError, match="options: '-O7' is neither"):
        build(code, ["-O7"])


def test_what_was_built_is_kept(monkeypatch):
    code = 'extern "C" __global__ void kept(int* x) { x[0] = VALUE; }'
    first = kernel(code, "float", "-DVALUE=1")
    assert kernel(code, "float", "-DVALUE=1") is first           # in memory
    assert kernel(code, "float", "-DVALUE=2") is not first
    compiled._build.cache_clear()

    def refuse(*args):
        raise AssertionError("compiled again")
    monkeypatch.setattr(compiled, "_compile", refuse)
    x = np.zeros(1, np.int32)
    kernel(code, "float", "-DVALUE=1").run_on((1,), (1,), (x,))  # on disk
    assert x == 1
    with pytest.raises(AssertionError, match="again"):
        kernel(code, "float", "-DVALUE=3")


def test_the_folder_is_private(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = compiled._folder()
    assert folder.stat().st_mode & 0o777 == 0o700 and folder == compiled._folder()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="is open to others; remove it"):
        compiled._folder()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        compiled._folder()


def test_without_a_compiler_there_is_a_reason(monkeypatch, tmp_path):
    compiled._compiler.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compiled.NoCompiler, match=r"no g\+\+ on this machine"):
        build(ADD, ["-DREAL=float", "-DNEVER_BUILT"])
    monkeypatch.undo()
    compiled._compiler.cache_clear()


def _one_process(folder, queue):
    compiled.tempfile.gettempdir = lambda: folder
    x, y, out = np.ones(3, np.float32), np.ones(3, np.float32), np.zeros(3, np.float32)
    compiled._build.cache_clear()
    kernel(ADD).run_on((1,), (3,), (x, y, out, 3))
    queue.put(out.tolist())


def test_processes_build_side_by_side(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_one_process, args=(str(tmp_path), queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [[2, 2, 2]] * 3
    for worker in workers:
        worker.join(60)
    (folder,) = tmp_path.iterdir()
    assert [os.path.splitext(name)[1] for name in os.listdir(folder)] == [".so"]


def test_threads_run_kernels_side_by_side():
    """threadIdx is a global of the library: only one thread of the program may use it at once."""
    x = numbers(64 * 1000)
    add = kernel(ADD)
    outs = [np.zeros_like(x) for _ in range(4)]
    wrong = []

    def work(out):
        for _ in range(10):
            add.run((1000,), (64,), (x.ctypes.data, x.ctypes.data, out.ctypes.data, x.size))
            if not np.array_equal(out, x + x):
                wrong.append(out)
            out[:] = 0

    threads = [threading.Thread(target=work, args=(out,)) for out in outs]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong
