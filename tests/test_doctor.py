"""The doctor: what it prints, and what it says of every way in which CuPy can be broken."""
import importlib.metadata
import subprocess
import sys
import types

import numpy as np
import pytest
from tinyalex import doctor
from tinyalex.device import cuda, pool


class Card(np.ndarray):
    """An array that can come back from the card."""

    def get(self):
        return np.asarray(self)


def fake_cupy(cards=1, **broken):
    """A module cupy with so many cards; what ``asarray=``, ``add=``, ``matmul=`` do is broken."""
    def outcome(step, right):
        result = broken.get(step, right)
        if isinstance(result, Exception):
            raise result
        return result.view(Card)

    class Array(np.ndarray):
        def __add__(self, other):
            return outcome("add", np.asarray(self) + np.asarray(other))

        def __matmul__(self, other):
            return outcome("matmul", np.asarray(self) @ np.asarray(other))

        def get(self):
            return np.asarray(self)

    def asarray(a):
        return outcome("asarray", a).view(Array)

    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: cards,
        getDeviceProperties=lambda i: broken.get("properties") or {
            "name": b"Fast Card %d" % i, "totalGlobalMem": 8 * 2**30, "major": 9, "minor": 0})
    module = types.ModuleType("cupy")
    module.asarray = asarray
    module.cuda = types.SimpleNamespace(is_available=lambda: cards > 0, runtime=runtime)
    return module


@pytest.fixture
def patient(monkeypatch, tmp_path, capsys):
    """``patient(cupy, packages, driver)``: run the doctor on a machine like that."""
    monkeypatch.delenv("TINYALEX_THREADS", raising=False)

    def examine(cupy=None, packages=(), driver=None, argv=("--quick",)):
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        for name in packages:
            folder = tmp_path / f"{name.replace('-', '_')}-14.2.0.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: 14.2.0\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(doctor, "driver_version", lambda: driver)
        code = doctor.main(list(argv))
        out, err = capsys.readouterr()
        assert err == "" and "Traceback" not in out
        return code, out

    return examine


def verdict(out):
    return out[out.index("\nverdict\n") + len("\nverdict\n"):]


# ---------------------------------------------------------------------------- a healthy machine

def test_a_machine_without_a_gpu_is_healthy(patient):
    code, out = patient()
    assert code == 0 and verdict(out) == "  Everything that is installed works.\n"
    lines = out.split("\n")
    assert lines[0].startswith("tinyalex ")
    rows = [line for line in lines if line.startswith("  ")][:-1]
    names = [row[2:15].strip() for row in rows]
    assert names == ["python", "numpy", "pillow", "matplotlib", "tqdm", "safetensors",
                     "threadpoolctl", "cupy", "cores", "memory", "threads", "BLAS", "cpu:0 cpu:1"]
    assert all(row[15:17] == "  " and row[17] != " " for row in rows)           # two columns
    assert f"  numpy          {np.__version__}\n" in out and "cupy           not installed\n" in out
    assert max(map(len, lines)) <= 100


def test_the_measurement(patient, monkeypatch):
    code, out = patient(argv=())
    row = next(line for line in out.split("\n") if "GFLOP/s" in line)
    speed, pictures = float(row.split()[1]), float(row.split()[-2])
    assert code == 0 and speed > 0.1 and abs(pictures - speed / 4.136) < 0.2


def test_sgemm_measures_what_it_says(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 1.5, 1.6, 2.0, 4.0, 9.0])     # the start; twice: late?, from, to
    monkeypatch.setattr(doctor, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    assert doctor.sgemm(n=100, seconds=3.0) == 2 * 100**3 / 0.5 / 1e9


def test_a_healthy_gpu(patient):
    code, out = patient(fake_cupy(cards=2), ["cupy-cuda12x"], (12, 4))
    assert code == 0 and verdict(out) == "  Everything that is installed works.\n"
    assert "  cupy           cupy-cuda12x 14.2.0\n" in out
    for i in range(2):
        assert f"  cuda:{i}         Fast Card {i}, 8.0 GiB, compute capability 9.0\n" in out


# ---------------------------------------------------------------------------- CuPy

NEEDS12, NEEDS13 = "pip install 'tinyalex[cupy]'\n", "pip install 'tinyalex[cupy13]'\n"


@pytest.mark.parametrize("driver, fix", [((11, 8), NEEDS12), ((12, 4), NEEDS12),
                                         ((13, 0), NEEDS13)])
def test_a_driver_that_waits_for_cupy(patient, driver, fix):
    code, out = patient(driver=driver)
    assert code == 0 and verdict(out) == (
        "  Everything that is installed works.\n"
        f"  - the NVIDIA driver (CUDA {driver[0]}.{driver[1]}) waits for CuPy\n      {fix}")


@pytest.mark.parametrize("driver, fix", [(None, NEEDS12), ((12, 4), NEEDS12), ((13, 1), NEEDS13)])
def test_two_packages_of_cupy(patient, driver, fix):
    code, out = patient(fake_cupy(), ["cupy-cuda12x", "cupy-cuda13x"], driver)
    assert code == 1
    what, mend = verdict(out).splitlines()
    assert what.startswith("  ! 2 packages provide CuPy and overwrite each other: cupy-cuda1")
    assert "cupy-cuda12x" in mend and "cupy-cuda13x" in mend and "pip uninstall -y " in mend
    assert mend.endswith(" && " + fix.strip())


def test_cupy_that_cannot_be_imported(patient, monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12: not found\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    imported = doctor._import

    def fresh(module):
        if module == "cupy":
            sys.modules.pop("cupy", None)
        return imported(module)

    monkeypatch.setattr(doctor, "_import", fresh)
    code, out = patient(None, ["cupy-cuda13x"], (13, 0))
    assert code == 1 and verdict(out) == (
        "  ! CuPy cannot be imported: ImportError: libcudart.so.12: not found\n"
        "      pip uninstall -y cupy-cuda13x && " + NEEDS13)


def test_a_package_without_its_module(patient):
    code, out = patient(None, ["cupy-cuda12x"], (12, 4))     # half uninstalled
    assert code == 1 and "CuPy cannot be imported: ModuleNotFoundError" in verdict(out)
    assert verdict(out).endswith("pip uninstall -y cupy-cuda12x && " + NEEDS12)


def test_cupy_without_a_driver(patient):
    code, out = patient(fake_cupy(cards=0), ["cupy-cuda12x"], None)
    assert code == 1 and verdict(out) == (
        "  ! CuPy is installed, but there is no NVIDIA driver\n"
        "      install NVIDIA's driver, or go on with --backend numpy\n")


def test_a_driver_older_than_cupy(patient):
    code, out = patient(fake_cupy(cards=0), ["cupy-cuda13x"], (12, 4))
    assert code == 1 and verdict(out) == (
        "  ! the driver is for CUDA 12.4, cupy-cuda13x for CUDA 13\n"
        "      pip uninstall -y cupy-cuda13x && pip install 'tinyalex[cupy]'\n")


def test_a_hidden_gpu(patient, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, out = patient(fake_cupy(cards=0), ["cupy-cuda12x"], (13, 0))
    assert code == 1 and "the driver (CUDA 13.0) shows no GPU; CUDA_VISIBLE_DEVICES is ''" in out


@pytest.mark.parametrize("package, fix", [("cupy-cuda12x", NEEDS12), ("cupy-cuda13x", NEEDS13)])
@pytest.mark.parametrize("broken, what", [
    (dict(add=RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file\nmore")),
     "CuPy cannot compile x + x (NVRTC or CUDA's headers are missing): RuntimeError: CuPy failed "
     "to load libnvrtc.so.12: OSError: no such file"),
    (dict(matmul=ImportError("libcublas.so.12: cannot open shared object file")),
     "CuPy cannot multiply matrices (cuBLAS is missing): ImportError: libcublas.so.12: cannot open "
     "shared object file"),
    (dict(add=np.zeros((2, 2), np.float32)),
     "CuPy cannot compile x + x (NVRTC or CUDA's headers are missing): the result is wrong")])
def test_a_driver_but_missing_libraries(patient, package, fix, broken, what):
    code, out = patient(fake_cupy(**broken), [package], (13, 0))
    assert code == 1 and verdict(out) == f"  ! {what}\n      {fix}"
    assert "cuda:0" not in out


def test_a_gpu_out_of_memory(patient):
    code, out = patient(fake_cupy(asarray=MemoryError("out of memory")), ["cupy-cuda12x"], (13, 0))
    assert code == 1 and verdict(out) == (
        "  ! CuPy cannot copy to the GPU: MemoryError: out of memory\n"
        "      nvidia-smi says whether another program holds it\n")


def test_a_gpu_that_cannot_be_described(patient):
    code, out = patient(fake_cupy(properties={"name": b"?"}), ["cupy-cuda12x"], (13, 0))
    assert code == 1 and "  cpu:0 cpu:1    NumPy" in out
    assert verdict(out) == "  ! devices: KeyError: 'totalGlobalMem'\n      pip check may say more\n"


def test_a_cupy_that_fails_in_an_unforeseen_way(patient):
    broken = fake_cupy()
    del broken.cuda.is_available
    code, out = patient(broken, ["cupy-cuda12x"], (13, 0))
    assert code == 1 and "  ! devices: AttributeError: " in verdict(out)


def test_packages_that_only_sound_like_cupy(patient):
    code, out = patient(None, ["cupy-plugins", "mycupy"])
    assert code == 0 and "cupy           not installed\n" in out


# ---------------------------------------------------------------------------- the rest

def test_missing_dependencies_are_named(patient, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(doctor, "_import", lambda module: (
        ModuleNotFoundError(f"No module named {module!r}", name=module)
        if module in ("PIL", "tqdm", "cupy") else None))
    code, out = patient()
    assert code == 0 and "  pillow         missing\n" in out
    assert verdict(out) == ("  Everything that is installed works.\n"
                            "  - missing: pillow, tqdm\n      pip install pillow tqdm\n")


def test_a_broken_dependency_is_named(patient, monkeypatch):
    imported = doctor._import
    monkeypatch.setattr(doctor, "_import", lambda module: (
        ImportError("compiled for another NumPy\nlong story") if module == "matplotlib"
        else imported(module)))
    code, out = patient()
    assert code == 1 and ", cannot be imported\n" in out
    assert verdict(out) == ("  ! matplotlib cannot be imported: ImportError: compiled for another "
                            "NumPy\n      pip install --force-reinstall matplotlib\n")


def test_without_threadpoolctl_there_is_no_traceback(patient, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    code, out = patient(argv=())
    assert code == 0 and "  BLAS           unknown without threadpoolctl\n" in out
    assert "missing: threadpoolctl\n      pip install threadpoolctl\n" in out


def test_a_bad_number_of_threads(patient, monkeypatch):
    monkeypatch.setattr(pool, "_threads", None)
    monkeypatch.setenv("TINYALEX_THREADS", "many")
    findings = []
    rows = dict(doctor.machine(findings, quick=False))
    assert rows["threads"] == "none (TINYALEX_THREADS=many)" and "float32" not in rows
    assert findings == [(True, "set_num_threads (or TINYALEX_THREADS): got 'many'; expected a "
                               "positive integer such as 2",
                         "unset TINYALEX_THREADS, or give a number of cores")]


def test_a_system_that_does_not_tell_its_memory(monkeypatch):
    monkeypatch.delattr(doctor.os, "sysconf")
    assert doctor._memory() == "unknown"


def test_driver_version_without_a_driver(monkeypatch):
    def missing(name):
        raise OSError(name)
    monkeypatch.setattr(doctor.ctypes, "CDLL", missing)
    assert doctor.driver_version() is None


@pytest.mark.parametrize("failed, expected", [(0, (12, 4)), (100, None)])
def test_driver_version(monkeypatch, failed, expected):
    def version(pointer):
        pointer._obj.value = 12040
        return failed
    monkeypatch.setattr(doctor.ctypes, "CDLL",
                        lambda name: types.SimpleNamespace(cuDriverGetVersion=version))
    assert doctor.driver_version() == expected


def test_describe_names_the_card(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    assert cuda.describe(0) == "Fast Card 0, 8.0 GiB, compute capability 9.0"


def test_the_command():
    done = subprocess.run([sys.executable, "-W", "error", "-m", "tinyalex.doctor", "--quick"],
                          capture_output=True, text=True, timeout=120)
    healthy = not any(name.startswith("cupy") for name in
                      (d.metadata["Name"] or "" for d in importlib.metadata.distributions()))
    assert done.stderr == "" and done.stdout.startswith("tinyalex ")
    assert done.returncode == 0 or not healthy
    refused = subprocess.run([sys.executable, "-m", "tinyalex.doctor", "--slow"],
                             capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2 and "unrecognized arguments: --slow" in refused.stderr
