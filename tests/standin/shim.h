// What CUDA C++ knows and C++ does not, so that kernels run on a CPU, one thread after another.
//
// All threads of a block run on one fiber until one of them meets a barrier. It is parked there,
// another fiber goes on with the threads that have not begun, and when none is left the parked
// ones are woken in turn. A kernel without barriers is therefore a plain loop and costs as much.
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static __attribute__((section("shared_memory")))
#define __syncthreads() shim::barrier(__LINE__)

struct uint3 { unsigned x, y, z; };
struct dim3 : uint3 {};

// ------------------------------------------------------------------------ the grid and its fibers

namespace shim {

const unsigned MOST = 1024;                        // threads of a block
const size_t STACK = 256 * 1024, GUARD = 4096;     // bytes; only those that are touched are taken

uint3 thread, block;
dim3 block_shape, grid_shape;
bool backward;                                     // threads and blocks from the last to the first
unsigned size, begun;                              // threads of this block
void** arguments;
void (*work)();                                    // run the threads that have not begun
char message[256];

struct Fiber { ucontext_t start; jmp_buf here; void* stack; bool alive; int line; };
Fiber fibers[MOST], *current;
jmp_buf scheduler;
char shared_marker __attribute__((section("shared_memory"), used));

uint3 place(unsigned i, unsigned count, const dim3& shape) {
    if (backward) i = count - 1 - i;
    if (shape.y == 1 && shape.z == 1) return {i, 0, 0};
    return {i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y};
}

__attribute__((noinline)) void leave(int line) {
    current->line = line;
    if (!_setjmp(current->here)) _longjmp(scheduler, 1);
}

__attribute__((noinline)) void barrier(int line) {
    const uint3 self = thread;
    leave(line);
    thread = self;
}

void live() {
    for (;;) { work(); leave(0); }
}

__attribute__((noinline)) bool resume(Fiber& fiber) {
    current = &fiber;
    if (_setjmp(scheduler)) return true;
    if (fiber.alive) _longjmp(fiber.here, 1);
    if (!fiber.stack) {
        fiber.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fiber.stack == MAP_FAILED) {
            fiber.stack = nullptr;
            snprintf(message, sizeof message, "no memory for the stack of a thread");
            return false;
        }
        mprotect(fiber.stack, GUARD, PROT_NONE);
    }
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = STACK;
    makecontext(&fiber.start, live, 0);
    fiber.alive = true;
    setcontext(&fiber.start);
    return false;
}

bool refuse(unsigned parked) {
    int line = fibers[0].line;
    for (unsigned k = 0; k < size; k++) {
        if (fibers[k].line && parked < size) line = fibers[k].line;
        else if (fibers[k].line != line && parked == size) {
            snprintf(message, sizeof message, "threads of block (%u, %u, %u) wait at different "
                     "barriers, in lines %d and %d", block.x, block.y, block.z, line,
                     fibers[k].line);
            return true;
        }
    }
    if (parked < size)
        snprintf(message, sizeof message, "barrier reached by only some threads of block "
                 "(%u, %u, %u): %u of %u wait in line %d, the others have ended",
                 block.x, block.y, block.z, parked, size, line);
    return parked < size;
}

bool run_block(char* shared, size_t shared_bytes) {
    memset(shared, 0xFF, shared_bytes);            // no thread may count on what a block left
    begun = 0;
    unsigned parked = 0;
    while (begun < size) {
        if (!resume(fibers[parked])) return false;
        if (fibers[parked].line) parked++;
    }
    while (parked) {
        if (refuse(parked)) return false;
        parked = 0;
        for (unsigned k = 0; k < size; k++) {
            if (!resume(fibers[k])) return false;
            parked += fibers[k].line != 0;
        }
    }
    return true;
}

template <auto kernel> struct Launch;

template <class... A, void (*kernel)(A...)> struct Launch<kernel> {
    template <size_t... I> static void one(std::index_sequence<I...>) {
        kernel(*static_cast<A*>(arguments[I])...);
    }
    static void rest() {
        while (begun < size) {
            thread = place(begun++, size, block_shape);
            one(std::index_sequence_for<A...>());
        }
    }
};

// ------------------------------------------------------------------------ what Python sees

struct Parameter { const char* type; int pointer, constant; };

template <class T> struct Name;
#define NAME(T) template <> struct Name<T> { static constexpr const char* text = #T; };
NAME(bool) NAME(char) NAME(signed char) NAME(unsigned char) NAME(short) NAME(unsigned short)
NAME(int) NAME(unsigned int) NAME(long) NAME(unsigned long) NAME(long long)
NAME(unsigned long long) NAME(float) NAME(double)
#undef NAME

template <class T> struct Describe {
    static constexpr Parameter value = {Name<T>::text, 0, 0};
};
template <class T> struct Describe<T*> {
    static constexpr Parameter value = {Name<T>::text, 1, 0};
};
template <class T> struct Describe<const T*> {
    static constexpr Parameter value = {Name<T>::text, 1, 1};
};

template <auto kernel> struct Signature;
template <class... A, void (*kernel)(A...)> struct Signature<kernel> {
    static constexpr Parameter value[] = {Describe<A>::value..., {nullptr, 0, 0}};
};

}  // namespace shim

extern char __start_shared_memory[], __stop_shared_memory[];

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char* shim_message() { return shim::message; }

EXPORT int shim_launch(void (*work)(), const unsigned* shape, int backward, void** arguments) {
    using namespace shim;
    grid_shape = {{shape[0], shape[1], shape[2]}};
    block_shape = {{shape[3], shape[4], shape[5]}};
    shim::work = work, shim::backward = backward, shim::arguments = arguments;
    size = shape[3] * shape[4] * shape[5];
    unsigned blocks = shape[0] * shape[1] * shape[2];
    for (unsigned i = 0; i < blocks; i++) {
        block = place(i, blocks, grid_shape);
        if (!run_block(__start_shared_memory, __stop_shared_memory - __start_shared_memory)) {
            for (Fiber& fiber : fibers) fiber.alive = false, fiber.line = 0;
            return 1;
        }
    }
    return 0;
}

#define KERNEL(name, parameters) \
    EXPORT const char* const name##_names = parameters; \
    EXPORT const shim::Parameter* const name##_types = shim::Signature<&name>::value; \
    EXPORT void (*const name##_work)() = shim::Launch<&name>::rest;

// ------------------------------------------------------------------------ the device's functions

static const uint3 &threadIdx = shim::thread, &blockIdx = shim::block;
static const dim3 &blockDim = shim::block_shape, &gridDim = shim::grid_shape;

// max and min take the pairs of types that CUDA's do, and a NaN loses against a number

#define EXTREMES(R, A, B) \
    inline R min(A a, B b) { R x = a, y = b; return y < x ? y : x; } \
    inline R max(A a, B b) { R x = a, y = b; return x < y ? y : x; }
#define INTEGERS(S) \
    EXTREMES(S, S, S) EXTREMES(unsigned S, unsigned S, unsigned S) \
    EXTREMES(unsigned S, S, unsigned S) EXTREMES(unsigned S, unsigned S, S)
INTEGERS(int) INTEGERS(long) INTEGERS(long long)
#undef INTEGERS
#undef EXTREMES

inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(double(a), b); }
inline double max(float a, double b) { return fmax(double(a), b); }
inline double min(double a, float b) { return fmin(a, double(b)); }
inline double max(double a, float b) { return fmax(a, double(b)); }

inline float rsqrt(float x) { return 1 / sqrt(x); }       // sqrt, exp, log, pow, fabs of a float
inline float rsqrtf(float x) { return rsqrt(x); }         // are floats by <math.h> of C++
inline double rsqrt(double x) { return 1 / sqrt(x); }

inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned long long)a * b >> 32;
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
template <class T> T __ldg(const T* p) { return *p; }
