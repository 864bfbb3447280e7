"""What is installed, what this machine can do, what is wrong, and how to mend it.

::

    python -m tinyalex.doctor            (--quick leaves the measurement out)

The exit code is 1 where something that is installed does not work, else 0. Nothing is changed.
"""
import argparse
import ctypes
import importlib
import importlib.metadata
import itertools
import os
import platform
import re
import sys
import time
import warnings

import numpy as np

from . import __version__, doctor_gpu
from .device import Device, cuda, get_num_threads

DEPENDENCIES = {"numpy": "numpy", "pillow": "PIL", "matplotlib": "matplotlib", "tqdm": "tqdm",
                "safetensors": "safetensors", "threadpoolctl": "threadpoolctl"}
UPDATE = "update NVIDIA's driver to one for CUDA"
TRAINING_GFLOP = 4.136       # per picture, AlexNet forward and backward


def main(argv=None):
    """Print the report; return the exit code.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the command line where None.
    """
    parser = argparse.ArgumentParser(prog="tinyalex-doctor", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="do not measure matrix products")
    quick = parser.parse_args(argv).quick
    findings = []                             # (is it broken?, what, how to mend it)
    print(f"tinyalex {__version__}")
    for title, section in (("software", software), ("machine", machine), ("devices", devices)):
        print(f"\n{title}")
        try:
            for name, text in section(findings, quick):
                print(f"  {name:<13}  {text}")
        except Exception as error:            # a broken installation may fail anywhere
            findings.append((True, f"{title}: {_line(error)}", "pip check may say more"))
    print("\nverdict")
    if not any(broken for broken, _, _ in findings):
        print("  Everything that is installed works.")
    for broken, what, fix in findings:
        print(f"  {'!' if broken else '-'} {what}\n      {fix}")
    return int(any(broken for broken, _, _ in findings))


# ---- software ------------------------------------------------------------------------------------

def software(findings, quick):
    """Return rows (name, version), and note what is missing or cannot be imported."""
    rows = [("python", f"{platform.python_version()} ({platform.python_implementation()}, "
                       f"{platform.system()} {platform.machine()})")]
    missing = []
    for name, module in DEPENDENCIES.items():
        error = _import(module)
        if error is None:
            rows.append((name, _version(name, module)))
        elif isinstance(error, ModuleNotFoundError) and error.name == module:
            rows.append((name, "missing"))
            missing.append(name)
        else:
            rows.append((name, f"{_version(name, module)}, cannot be imported"))
            findings.append((True, f"{name} cannot be imported: {_line(error)}",
                             f"pip install --force-reinstall {name}"))
    if missing:
        findings.append((False, f"missing: {', '.join(missing)}",
                         f"pip install {' '.join(missing)}"))
    driver = driver_version()
    rows.append(("NVIDIA driver", f"for {_cuda(driver)}" if driver else "none: no GPU to be used"))
    names = cupy_distributions()
    installed = ", ".join(f"{name} {version}" for name, version in names.items())
    return rows + [("cupy", installed or "not installed")]


def cupy_distributions():
    """Return the installed packages that all provide the module cupy, as {name: version}."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if re.fullmatch(r"cupy(-cuda\d+x?|-rocm[\d-]+)?", name):
            found[name] = distribution.version
    return found


def _import(module):
    """Import a module; return the error, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:                # an extension module may fail in any way
        return error


def _version(name, module):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(module), "__version__", "of unknown version"))


def _line(error):
    """Return an error's type and first line, short enough for one line of the report."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:160]


# ---- machine -------------------------------------------------------------------------------------

def machine(findings, quick):
    """Return rows on cores, memory, threads, BLAS and the speed of a matrix product."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    setting = os.environ.get("TINYALEX_THREADS")
    try:
        threads = f"{get_num_threads()}"
    except ValueError as error:
        threads, quick = "none", True
        findings.append((True, str(error), "unset TINYALEX_THREADS, or give a number of cores"))
    a = np.ones((64, 64), np.float32)
    if not (a @ a == 64).all():
        findings.append((True, "NumPy's matrix product is wrong",
                         "pip install --force-reinstall numpy"))
    rows = [("cores", f"{usable} usable of {os.cpu_count()}"), ("memory", _memory()),
            ("threads", f"{threads} (TINYALEX_THREADS{'=' + setting if setting else ' not set'})"),
            ("BLAS", _blas())]
    if not quick and _import("threadpoolctl") is None:       # without it no op can run
        rows.append(("float32", _speed(sgemm())))
    return rows


def _memory():
    try:
        page = os.sysconf("SC_PAGE_SIZE") / 2**30
        total, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):            # Windows, macOS
        return "unknown"
    return f"{total:.1f} GiB, {free:.1f} GiB of it unused"


def _blas():
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown without threadpoolctl"
    blas = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    return "; ".join(f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', 'any')}), "
                     f"{lib['num_threads']} threads" for lib in blas) or "unknown to threadpoolctl"


def sgemm(n=1024, seconds=0.3, device="cpu:0"):
    """Return the best GFLOP/s of a float32 matrix product; threads share it, as in our ops.

    >>> sgemm(n=64, seconds=0) > 0
    True
    """
    device = Device(device)
    a = device.array(np.random.default_rng(0).standard_normal((n, n), np.float32))
    y = device.empty(a.shape, a.dtype)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        start = time.perf_counter()
        with device.scope():
            device.map(n, lambda rows: device.xp.matmul(a[rows], a, out=y[rows]), work=2 * n * n)
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def _speed(gflops):
    return (f"{gflops:.0f} GFLOP/s in matrix products: AlexNet trains at most "
            f"{gflops / TRAINING_GFLOP:.1f} pictures/s")


# ---- devices -------------------------------------------------------------------------------------

def devices(findings, quick):
    """Yield rows for each device that can be named; each GPU has to compute for them."""
    yield "cpu:0 cpu:1", "NumPy; cpu:2 and so on as you name them: all share this machine"
    install = usable_cupy(findings)
    steps = doctor_gpu.steps(install)
    if not quick:
        steps += ("be measured", doctor_gpu.HELD, lambda name: _speed(sgemm(4096, device=name))),
    sound, faults = [], {}                    # faults: (what, how to mend it) -> the cards
    for name in (f"cuda:{i}" for i in range(cuda.device_count() if install else 0)):
        label = name                          # stands on the first of a card's rows
        for what, fix, step in steps:
            text, fault = _try(step, name)
            if fault:
                faults.setdefault((f"cannot {what}: {fault}", fix), []).append(name)
                break
            if text:
                yield label, text
                label = ""
        else:
            sound.append(name)
    findings += [(True, f"{', '.join(cards)} {what}", fix) for (what, fix), cards in faults.items()]
    for a, b in itertools.combinations(sound, 2):
        text, fault = _try(doctor_gpu.crosses, a, b)
        if fault:
            findings.append((True, f"{a} and {b} cannot copy to each other: {fault}",
                             doctor_gpu.PEERS))
        else:
            yield f"{a} {b}", text


def _try(step, *names):
    """Return what a step says of these cards, and what went wrong in it or None."""
    try:
        return step(*names), None
    except doctor_gpu.Wrong as wrong:
        return None, str(wrong)
    except Exception as error:                # CuPy's errors have no common ancestor
        return None, _line(error)


def usable_cupy(findings):
    """Return the command that installs CuPy as this driver needs it, or None without usable GPUs.

    What keeps CuPy from seeing a GPU is noted, and how to mend it.
    """
    names, driver, error = list(cupy_distributions()), driver_version(), _import("cupy")
    install, again = install_commands(names, driver)
    built = _built_for(names)
    if len(names) > 1:
        found = f"{len(names)} packages provide CuPy and overwrite each other: {', '.join(names)}"
        findings.append((True, found, again))
    elif isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not names:
        if driver:
            findings.append((False, f"the NVIDIA driver ({_cuda(driver)}) waits for CuPy", install))
    elif error is not None:
        findings.append((True, f"CuPy cannot be imported: {_line(error)}", again))
    elif sys.modules["cupy"].cuda.is_available():
        return install
    elif driver is None:
        findings.append((True, "CuPy is installed, but there is no NVIDIA driver",
                         "install NVIDIA's driver, or go on with --backend numpy"))
    elif driver < (built, 0):
        findings.append((True, f"the driver is for {_cuda(driver)}, {names[0]} for CUDA {built}",
                         again if driver >= (12, 0) else f"{UPDATE} {built} or newer"))
    else:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        findings.append((True, f"the driver ({_cuda(driver)}) shows no GPU; CUDA_VISIBLE_DEVICES "
                               f"is {seen!r}", "nvidia-smi says more"))
    return None


def install_commands(names, driver):
    """Return what installs CuPy for this driver, and what does so in place of these packages.

    A package that the driver serves stays what it is; else it is the newest that the driver serves.

    >>> install_commands(["cupy-cuda13x"], (12, 4))[1]
    "pip uninstall -y cupy-cuda13x && pip install 'tinyalex[cupy]'"
    """
    serves, toolkit = driver or (12, 0), _built_for(names)
    if toolkit not in (12, 13) or serves < (toolkit, 0):
        toolkit = 13 if serves >= (13, 0) else 12
    install = f"pip install 'tinyalex[{'cupy13' if toolkit == 13 else 'cupy'}]'"
    again = f"pip uninstall -y {' '.join(names) or 'cupy'} && {install}"
    if serves < (12, 0):
        install, again = (f"{UPDATE} 12 or newer, then {command}" for command in (install, again))
    return install, again


def _built_for(names):
    """Return the CUDA that the one package of CuPy is built for, or 0."""
    numbers = re.findall(r"cuda(\d+)", names[0]) if len(names) == 1 else []
    return int(numbers[0]) if numbers else 0


def _cuda(version):
    return f"CUDA {version[0]}.{version[1]}"


def driver_version():
    """Return the CUDA version that the NVIDIA driver serves, (12, 4) say, or None without one."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        version = ctypes.c_int()
        failed = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


if __name__ == "__main__":
    sys.exit(main())
