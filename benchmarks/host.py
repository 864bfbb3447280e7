"""The machine that a benchmark runs on: what it is, and what it can do at most."""
import importlib.metadata
import os
import pathlib
import platform
import threading
import time

import numpy as np


def machine():
    """Return a description of this machine: plain values, in the order in which to show them."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {
        "CPU": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": _cores(),
        "instructions": ", ".join(
            name for name in ("avx2", "avx512f", "amx_tile")
            if name in _field("/proc/cpuinfo", "flags").split()),
        "memory": f"{_kilobytes('/proc/meminfo', 'MemTotal') / 2**20:.1f} GiB",
        "huge pages": _read("/sys/kernel/mm/transparent_hugepage/enabled").strip(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": f"{np.__version__} with {blas['name']} {blas['version']}",
        "PyTorch": _version("torch"),
        "tinyalex": _version("tinyalex"),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg())
        if hasattr(os, "getloadavg") else "",
    }
    return {key: value for key, value in found.items() if value}


def measure_ceilings():
    """Return what :func:`pairs.ceilings` promises, measured in this process."""
    sgemm = 0.0
    for n in (2048, 3072, 4096):
        a, b, c = (np.ones((n, n), np.float32) for _ in range(3))
        seconds = min(_timed(np.matmul, a, b, out=c) for _ in range(6))
        sgemm = max(sgemm, 2 * n**3 / seconds / 1e9)
    source, target = np.ones(1 << 28, np.float32), np.zeros(1 << 28, np.float32)    # 1 GiB each
    parts = list(zip(*(np.array_split(x, _cores()) for x in (target, source)), strict=True))
    seconds = min(_timed(_copy, parts) for _ in range(8))
    return {"sgemm_gflops": sgemm, "copy_gbs": 2 * source.nbytes / seconds / 1e9}


def _copy(parts):
    threads = [threading.Thread(target=np.copyto, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _timed(fn, *args, **kwargs):
    start = time.perf_counter()
    fn(*args, **kwargs)
    return time.perf_counter() - start


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _read(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""                                    # not Linux


def _field(path, key):
    lines = (line.partition(":") for line in _read(path).splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _kilobytes(path, key):
    return int((_field(path, key) or "0").split()[0])


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
