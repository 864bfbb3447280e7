"""CUDA kernels as C++ on a CPU: compiled by g++, called with grids and blocks as on a card.

    kernels = build('extern "C" __global__ void twice(REAL* x, int n) {...}', ["-DREAL=float"])
    kernels["twice"].run_on(grid=(4,), block=(256,), args=(x, 1000))

What the kernels may use of CUDA stands in `shim.h`.
"""
import ctypes
import dataclasses
import functools
import hashlib
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import numpy as np

SHIM = pathlib.Path(__file__).with_name("shim.h")
FLAGS = ["-O2", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off",
         "-U_FORTIFY_SOURCE",                    # which takes a switch of fibers for a mistake
         "-Wall", "-Werror", "-Wno-unused", "-Wno-unknown-pragmas"]
ONLY_CUDA = re.compile(r"--?(std|fmad|ftz|prec-sqrt|prec-div|gpu-architecture|arch|"
                       r"extra-device-vectorization)=.*|--?(lineinfo|generate-line-info)")
SIGNATURE = re.compile(r'extern\s*"C"\s*__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+'
                       r'(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*\{')
CTYPES = {"bool": ctypes.c_bool, "char": ctypes.c_byte, "signed char": ctypes.c_byte,
          "unsigned char": ctypes.c_ubyte, "short": ctypes.c_short,
          "unsigned short": ctypes.c_ushort, "int": ctypes.c_int, "unsigned int": ctypes.c_uint,
          "long": ctypes.c_long, "unsigned long": ctypes.c_ulong, "long long": ctypes.c_longlong,
          "unsigned long long": ctypes.c_ulonglong, "float": ctypes.c_float,
          "double": ctypes.c_double}
GUARD = 4096                                     # bytes before and behind each array of run_on


class NoCompiler(Exception):
    """There is no g++, or no Linux; the message serves as the reason of a skipped test."""


class CompileError(Exception):
    """The text is no C++; the message is g++'s."""


class KernelError(Exception):
    """A kernel did what it must not do; on a card it might go unseen."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: `const float* x` is ("x", "float", pointer, const)."""

    name: str
    type: str
    pointer: bool
    const: bool

    @functools.cached_property
    def dtype(self):
        """The NumPy dtype of the scalar, or of what the pointer points to."""
        return np.dtype(CTYPES[self.type])

    @functools.cached_property
    def limits(self):
        """The smallest and the largest of a whole number."""
        return np.iinfo(self.dtype).min, np.iinfo(self.dtype).max

    def convert(self, kernel, value):
        """The ctypes value that a kernel gets for an address, a NumPy or a Python scalar."""
        where = f"{kernel}: {self.name}"
        if self.pointer:
            return ctypes.c_void_p(int(value or 0))
        if isinstance(value, np.generic) and value.dtype != self.dtype:
            raise TypeError(f"{where} is {self.type}, got {value.dtype}; a card takes the bytes "
                            f"as they are, so pass np.{self.dtype}")
        if self.dtype.kind in "iu":
            whole, (least, most) = int(value), self.limits
            if whole != value or not least <= whole <= most:
                raise OverflowError(f"{where} is {self.type}, which cannot hold {value!r}")
            value = whole
        return CTYPES[self.type](bool(value) if self.type == "bool" else value)


class _Type(ctypes.Structure):
    _fields_ = [("type", ctypes.c_char_p), ("pointer", ctypes.c_int), ("const", ctypes.c_int)]


class Kernel:
    """A kernel of a compiled library.

    Parameters
    ----------
    library : ctypes.CDLL
    lock : threading.Lock
        Held while a kernel of the library runs: threadIdx and its like are globals of it.
    name : str
    """

    def __init__(self, library, lock, name):
        self.name = name
        self._library, self._lock = library, lock
        names = ctypes.c_char_p.in_dll(library, f"{name}_names").value.decode().split()
        types = ctypes.POINTER(_Type).in_dll(library, f"{name}_types")
        self.parameters = [Parameter(n, types[i].type.decode(), bool(types[i].pointer),
                                     bool(types[i].const)) for i, n in enumerate(names)]
        self._work = ctypes.c_void_p.in_dll(library, f"{name}_work")

    def run(self, grid, block, args, order="forward"):
        """Run all threads, one after another; the results are there when it returns.

        Parameters
        ----------
        grid, block : tuple of 1 to 3 int
        args : sequence
            An address (0 or None: null) for each pointer, else a NumPy or Python scalar.
        order : {"forward", "reverse"}
            The order of blocks, and of threads between two barriers. Results that depend on it
            are a race.

        Raises
        ------
        KernelError
            A barrier that only some threads of a block reach.
        ValueError, TypeError, OverflowError
            A launch that a card would refuse; arguments that are not the parameters'.
        """
        shape = _shape(self.name, grid, block)
        if order not in ("forward", "reverse"):
            raise ValueError(f"order: got {order!r}; expected 'forward' or 'reverse'")
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments "
                            f"({', '.join(p.name for p in self.parameters)}), got {len(args)}")
        values = [p.convert(self.name, a) for p, a in zip(self.parameters, args)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        with self._lock:
            if self._library.shim_launch(self._work, shape, order == "reverse", pointers):
                raise KernelError(f"{self.name}: {self._library.shim_message().decode()}")

    def run_on(self, grid, block, args, order="forward"):
        """Run on copies of NumPy arrays that lie between guards, then copy back what was written.

        Parameters
        ----------
        grid, block, order
            As for `run`.
        args : sequence
            A C-contiguous array of the parameter's dtype (None: null) for each pointer, else a
            scalar. An array that is given twice is one array for the kernel, too.

        Raises
        ------
        KernelError
            Also where a kernel wrote beside an array, or into one that it takes as const.
        """
        guarded, raw = {}, []
        for p, value in zip(self.parameters, args):
            if p.pointer and value is not None:
                if value.dtype != p.dtype or not value.flags.c_contiguous:
                    raise TypeError(f"{self.name}: {p.name} is {p.type}*, got {value.dtype}, "
                                    f"C-contiguous: {value.flags.c_contiguous}")
                key = (value.ctypes.data, value.nbytes)
                if key not in guarded:
                    guarded[key] = _Guarded(value, len(guarded))
                guarded[key].parameters.append(p)
                value = guarded[key].address
            raw.append(value)
        self.run(grid, block, raw + list(args[len(raw):]), order)
        for each in guarded.values():
            each.check(self.name)
        for each in guarded.values():
            each.copy_back()


class _Guarded:
    """A copy of an array between two guards.

    The guards are NaNs to a float and to a double, so that a value read beside the array shows,
    and others for each array, so that one carried from guard to guard shows too.
    """

    def __init__(self, array, number):
        self.array, self.parameters = array, []
        pattern = np.array([0x7FFDA5C3 + number], "<u4").view(np.uint8)
        whole = np.empty(2 * GUARD + array.nbytes + 64, np.uint8)
        begin = -whole.ctypes.data % 64
        whole = whole[begin:begin + 2 * GUARD + array.nbytes]
        self.before, self.inside, self.behind = np.split(whole, [GUARD, GUARD + array.nbytes])
        self.guard = np.tile(pattern, GUARD // 4)
        self.before[:], self.behind[:] = self.guard, self.guard
        self.inside[:] = array.reshape(-1).view(np.uint8)
        self.original = self.inside.copy()
        self.address = self.inside.ctypes.data

    def check(self, kernel):
        name, size = self.parameters[0].name, self.array.itemsize
        where = np.flatnonzero(self.before != self.guard)
        if where.size:
            raise KernelError(f"{kernel} wrote {-(-(GUARD - int(where[-1])) // size)} elements "
                              f"before {name}")
        where = np.flatnonzero(self.behind != self.guard)
        if where.size:
            raise KernelError(f"{kernel} wrote into {name}[{self.array.size + where[0] // size}], "
                              f"which has {self.array.size} elements")
        if self.constant and not np.array_equal(self.inside, self.original):
            raise KernelError(f"{kernel} wrote into {name}, which it takes as const")

    @property
    def constant(self):
        return all(p.const for p in self.parameters)

    def copy_back(self):
        if not self.constant:
            self.array.reshape(-1).view(np.uint8)[:] = self.inside


def _shape(name, grid, block):
    shape = [tuple(int(n) for n in t) + (1,) * (3 - len(t)) for t in (grid, block)]
    for what, sizes, limits in (("grid", shape[0], (2**31 - 1, 65535, 65535)),
                                ("block", shape[1], (1024, 1024, 64))):
        if any(not 1 <= n <= most for n, most in zip(sizes, limits, strict=True)):
            raise ValueError(f"{name}: {what} {sizes} is not within 1 and {limits}")
    if math.prod(shape[1]) > 1024:
        raise ValueError(f"{name}: block {shape[1]} has more than 1024 threads")
    if math.prod(shape[0]) >= 2**32:
        raise ValueError(f"{name}: grid {shape[0]} is too large to be run one by one")
    return (ctypes.c_uint * 6)(*shape[0], *shape[1])


# ---------------------------------------------------------------------------- g++

def build(code, options=()):
    """Compile the text of a .cu file; return its kernels.

    Parameters
    ----------
    code : str
        Kernels are the functions that begin with ``extern "C" __global__ void``.
    options : sequence of str
        ``-DNAME=VALUE`` counts; what only CUDA's compilers know is left out.

    Returns
    -------
    dict of str to Kernel

    Raises
    ------
    NoCompiler
        There is no g++ here.
    CompileError
        With g++'s message.
    """
    options = tuple(options)
    for option in options:
        if not option.startswith("-D") and not ONLY_CUDA.fullmatch(option):
            raise ValueError(f"options: {option!r} is neither -DNAME=VALUE nor one that only "
                             "CUDA's compilers know")
    with _building:                              # one library, one lock
        return _build(code, tuple(option for option in options if option.startswith("-D")))


_building = threading.Lock()


@functools.cache
def _build(code, definitions):
    key = "\0".join([_compiler(), SHIM.read_text(), *FLAGS, *definitions, code])
    path = _folder() / (hashlib.sha256(key.encode()).hexdigest() + ".so")
    if not path.exists():
        _compile(code, definitions, path)
    library, lock = ctypes.CDLL(str(path)), threading.Lock()
    library.shim_message.restype = ctypes.c_char_p
    names = ctypes.c_char_p.in_dll(library, "shim_kernels").value.decode().split()
    return {name: Kernel(library, lock, name) for name in names}


def _compile(code, definitions, path):
    plain = _gcc(["-E", "-P", *definitions], code)
    kernels = {name: " ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
               for name, parameters in SIGNATURE.findall(plain)}
    launchers = [f'KERNEL({name}, "{parameters}")' for name, parameters in kernels.items()]
    # within a namespace a kernel's helper may bear the name of a function of the C library
    text = "\n".join([f'#include "{SHIM}"', "namespace {", '#line 1 "kernel.cu"', code, "}",
                      '#line 1 "launchers"', *launchers,
                      f'EXPORT const char* const shim_kernels = "{" ".join(kernels)}";', ""])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = os.path.join(folder, "made.so")
        _gcc([*FLAGS, *definitions, "-o", made], text)
        os.replace(made, path)                   # whoever builds the same makes the same


def _gcc(arguments, text):
    if not sys.platform.startswith("linux"):
        raise NoCompiler("kernels run on the CPU on Linux only")
    try:
        done = subprocess.run(["g++", *arguments, "-x", "c++", "-"], input=text, text=True,
                              capture_output=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise NoCompiler("no g++ on this machine: kernels cannot run on the CPU") from None
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout


@functools.cache
def _compiler():
    """What g++ says of itself."""
    return _gcc(["-dM", "-E"], "")               # its version, the machine and its defaults


def _folder():
    """The folder of libraries that were built before, which only this user may write."""
    path = pathlib.Path(tempfile.gettempdir()) / f"tinyalex-kernels-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or path.is_symlink():
        raise PermissionError(f"{path} is open to others; remove it")
    return path
