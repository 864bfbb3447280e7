"""Every kernel compiles for every kind of card, without one: by NVRTC, as CuPy does, or by nvcc."""
import ctypes
import importlib.util
import pathlib
import re
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
from standin.compiled import SIGNATURE
from tinyalex.kernels import loader

CAPABILITIES = (75, 80, 86, 89, 90)                  # from Turing to Hopper
CUPYS = ("-ftz=true",)                               # what CuPy adds to the options of a source
SIZES = (1, 2, 5, 9)                                 # windows of response normalization
CASES = [(path.stem, real, macros) for path in sorted(loader.FOLDER.glob("*.cu"))
         for real in ("float32", "float64")
         for macros in ([{"SIZE": size} for size in SIZES] if path.stem == "lrn" else [{}])]
USUAL = [case for case in CASES if case[2].get("SIZE", 5) == 5]


def identify(case):
    """The name of a case, such as lrn-float32-5."""
    file, real, macros = case
    return "-".join((file, real, *map(str, macros.values())))


class CompileError(Exception):
    """What the compiler says, be it an error or a warning."""


class Nvcc:
    """The compiler of NVIDIA's toolkit."""

    def __init__(self):
        self.program = shutil.which("nvcc")
        if not self.program:
            raise OSError("no nvcc")
        known = subprocess.run([self.program, "--list-gpu-arch"], check=True, text=True,
                               capture_output=True).stdout
        self.capabilities = {int(number) for number in re.findall(r"compute_(\d+)$", known, re.M)}

    def __call__(self, text, options, capability):
        """Return the machine code of a source for one kind of card."""
        with tempfile.TemporaryDirectory() as folder:
            source, cubin = pathlib.Path(folder, "kernel.cu"), pathlib.Path(folder, "kernel.cubin")
            source.write_text(text, encoding="utf-8")
            done = subprocess.run(
                [self.program, *options, f"-arch=sm_{capability}", "-Wno-deprecated-gpu-targets",
                 "-cubin", "-o", cubin, source], capture_output=True, text=True)
            if done.returncode or done.stderr:
                raise CompileError(done.stderr)
            return cubin.read_bytes()


class Nvrtc:
    """The compiler that CuPy calls, from one of NVIDIA's packages or from the system."""

    def __init__(self):
        package = importlib.util.find_spec("nvidia")
        places = package.submodule_search_locations if package else ()
        found = [path for place in places for path in pathlib.Path(place).glob("*/lib/libnvrtc*")]
        for path in found:                           # it does not look for them beside itself
            if path.name.startswith("libnvrtc-builtins.so."):
                ctypes.CDLL(path)
        ours = [path for path in found if path.name.startswith("libnvrtc.so.")]
        self.library = self._open([*ours, "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"])
        count = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("GetSupportedArchs", known)
        self.capabilities = set(known)

    def __call__(self, text, options, capability):
        """Return the machine code of a source for one kind of card."""
        options = [option.encode() for option in (*options, f"-arch=sm_{capability}")]
        program = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(program), text.encode(), b"kernel.cu", 0, None,
                   None)
        try:
            failed = self.library.nvrtcCompileProgram(
                program, len(options), (ctypes.c_char_p * len(options))(*options))
            says = self._bytes("ProgramLog", program).rstrip(b"\0\n").decode()
            if failed or says:
                raise CompileError(says)
            return self._bytes("CUBIN", program)
        finally:
            self._call("DestroyProgram", ctypes.byref(program))

    @staticmethod
    def _open(names):
        for name in names:
            try:
                return ctypes.CDLL(name)
            except OSError as missing:
                problem = missing
        raise problem

    def _call(self, name, *args):
        assert getattr(self.library, f"nvrtc{name}")(*args) == 0, name

    def _bytes(self, name, program):
        size = ctypes.c_size_t()
        self._call(f"Get{name}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self._call(f"Get{name}", program, data)
        return data.raw


def first_compiler():
    """NVRTC if there is one, since CuPy asks it; else nvcc; else None."""
    for kind in (Nvrtc, Nvcc):
        try:
            return kind()
        except (OSError, AttributeError):            # AttributeError: an NVRTC before CUDA 11.2
            continue
    return None


COMPILER = first_compiler()
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="neither NVRTC nor nvcc is here")


def check(text, real, capability, **macros):
    """Compile a source as the loader and CuPy would, and look for each of its kernels."""
    if capability not in COMPILER.capabilities:
        pytest.skip(f"{type(COMPILER).__name__} of this machine does not know sm_{capability}")
    code = COMPILER(text, (*loader.options(np.dtype(real), **macros), *CUPYS), capability)
    kernels = {name for name, _ in SIGNATURE.findall(text)}
    assert kernels and kernels == {name for name in kernels if f".text.{name}\0".encode() in code}


def check_case(case, capability):
    """The same for one of CASES."""
    file, real, macros = case
    check(loader.source(file), real, capability, **macros)


@needs_compiler
@pytest.mark.parametrize("case", USUAL, ids=identify)
def test_kernels_compile(case):
    check_case(case, 80)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=identify)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile_for_every_card(case, capability):
    check_case(case, capability)


def test_every_source_is_compiled():
    files = {path.stem for path in loader.FOLDER.glob("*.cu")}
    assert files and {(file, real) for file, real, _ in USUAL} == {
        (file, real) for file in files for real in ("float32", "float64")}


# ---------------------------------------------------------------------------- the test, tested

@needs_compiler
@pytest.mark.parametrize("right, wrong, says", [
    (";", "", "expected a"),                                                 # a syntax error
    ("if (i >= n)", "if (i >= m)", 'identifier "m" is undefined'),
    ("REAL*", "REEL*", 'identifier "REEL" is undefined'),
    ("const REAL*", "const REAL", "error"),
    ("if (i >= n)", "int j = 0; if (i >= n)", "never referenced")])          # a warning
def test_a_mistake_is_seen_with_its_line(right, wrong, says):
    text = loader.source("sgd")
    comments, kernel = text[:text.index("__global__")], text[text.index("__global__"):]
    assert right in kernel
    with pytest.raises(CompileError, match=rf"kernel.cu\(\d+\): [\s\S]*{says}"):
        check(comments + kernel.replace(right, wrong, 1), "float32", 80)


@needs_compiler
def test_a_kernel_that_is_not_there_under_its_name_is_seen():
    lost = '#if 0\nextern "C" __global__ void lost(int n) {}\n#endif\n'
    with pytest.raises(AssertionError, match="lost"):
        check(lost + loader.source("sgd"), "float32", 80)
