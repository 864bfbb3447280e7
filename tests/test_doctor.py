"""The doctor: what it prints, and what it says of every way in which CuPy can be broken."""
import contextlib
import importlib.metadata
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from tinyalex import doctor, doctor_gpu
from tinyalex.device import Device, cuda, pool


class Array(np.ndarray):
    """An array on a card that knows what of the card is broken."""

    def __add__(self, other):
        return self.card.outcome("add", np.asarray(self) + np.asarray(other))

    def __matmul__(self, other):
        return self.card.outcome("matmul", np.asarray(self) @ np.asarray(other))


class Card:
    """A card as the doctor's steps use it: a Device that computes, but for what is broken."""

    def __init__(self, index, cupy, broken):
        self.index, self.name, self.xp, self.broken = index, f"cuda:{index}", cupy, broken

    def outcome(self, step, right):
        """What a step gives: the right numbers, others if it is "wrong", or an exception."""
        fault = self.broken.get(step) if self.name in self.broken.get("on", [self.name]) else None
        if isinstance(fault, Exception):
            raise fault
        array = (right + (fault == "wrong")).astype(right.dtype).view(Array)
        array.card = self
        return array

    def array(self, host):
        return self.outcome("array", host)

    def numpy(self, array):
        return np.asarray(array)

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def scope(self):
        return contextlib.nullcontext()

    def map(self, n, fn, work):
        fn(slice(0, n))

    def synchronize(self):
        time.sleep(0.001)                   # until then, what was launched has only been launched


def fake_cupy(cards=1, **broken):
    """A module cupy with so many cards, and what is broken in it (``on=`` some of the cards).

    Steps: ``array=``, ``add=``, ``matmul=``, ``launch=``, ``velocity=``, ``transfer=``, each an
    exception or "wrong"; and of the cards: ``free=`` bytes, ``apart=`` pairs without peer access,
    ``capability=``, ``toolkit=``, ``properties=`` an exception.
    """
    def properties(i):
        if "properties" in broken:
            raise broken["properties"]
        major, minor = broken.get("capability", (9, 0))
        return {"name": b"Fast Card %d" % i, "totalGlobalMem": 8 * 2**30, "major": major,
                "minor": minor}

    def matmul(a, b, out):
        assert out.shape == a.shape == b.shape == (4096, 4096) and out.dtype == np.float32

    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: cards, getDeviceProperties=properties,
        runtimeGetVersion=lambda: broken.get("toolkit", 12090),
        memGetInfo=lambda: (broken.get("free", 6 * 2**30), 8 * 2**30),
        deviceCanAccessPeer=lambda a, b: (a, b) not in broken.get("apart", ()))
    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(is_available=lambda: cards > 0, runtime=runtime)
    module.matmul = matmul
    module.cards = {f"cuda:{i}": Card(i, module, broken) for i in range(cards)}
    return module


def launch(card, name, n, w, g, v, momentum, lr, decay):
    """What kernels.launch does, in NumPy."""
    assert name == "sgd.update" and n == w.size == 1000
    right = momentum * np.asarray(v) - lr * np.asarray(g) - decay * np.asarray(w)
    v[:] = card.outcome("velocity", right)
    w[:] = card.outcome("launch", np.asarray(w) + right)


def transfer(array, src, dst, kind):
    assert src is not dst and array.card is src
    return dst.outcome("transfer", np.asarray(array))


@pytest.fixture
def patient(monkeypatch, tmp_path, capsys):
    """``patient(cupy, packages, driver)``: run the doctor on a machine like that."""
    monkeypatch.delenv("TINYALEX_THREADS", raising=False)

    def examine(cupy=None, packages=(), driver=None, argv=("--quick",)):
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        if cupy:
            cards = getattr(cupy, "cards", {})

            def device(name):
                return name if isinstance(name, Card) else cards.get(name) or Device(name)

            monkeypatch.setattr(doctor, "Device", device)
            monkeypatch.setattr(doctor_gpu, "Device", device)
            monkeypatch.setattr(doctor_gpu, "launch", launch)
            monkeypatch.setattr(doctor_gpu, "transfer", transfer)
        for name in packages:
            folder = tmp_path / f"{name.replace('-', '_')}-14.2.0.dist-info"
            folder.mkdir(exist_ok=True)
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
                     "threadpoolctl", "NVIDIA driver", "cupy", "cores", "memory", "threads", "BLAS",
                     "cpu:0 cpu:1"]
    assert all(row[15:17] == "  " and row[17] != " " for row in rows)           # two columns
    assert f"  numpy          {np.__version__}\n" in out and "cupy           not installed\n" in out
    assert "  NVIDIA driver  none: no GPU to be used\n" in out and max(map(len, lines)) <= 100


def test_the_measurement(patient, monkeypatch):
    code, out = patient(argv=())
    row = next(line for line in out.split("\n") if "GFLOP/s" in line)
    speed, pictures = float(row.split()[1]), float(row.split()[-2])
    assert code == 0 and speed > 0.1 and abs(pictures - speed / 4.136) < 0.2


def test_sgemm_measures_what_it_says(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 1.5, 1.6, 2.0, 4.0, 9.0])     # the start; twice: late?, from, to
    monkeypatch.setattr(doctor, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    assert doctor.sgemm(n=100, seconds=3.0) == 2 * 100**3 / 0.5 / 1e9


def test_two_healthy_gpus(patient):
    code, out = patient(fake_cupy(cards=2), ["cupy-cuda12x"], (12, 4))
    assert code == 0 and verdict(out) == "  Everything that is installed works.\n"
    assert "  NVIDIA driver  for CUDA 12.4\n  cupy           cupy-cuda12x 14.2.0\n" in out
    devices = out[out.index("\ndevices\n"):out.index("\nverdict\n")]
    assert devices.split("\n")[3:] == [
        "  cuda:0         Fast Card 0, 8.0 GiB, compute capability 9.0",
        "                 copies, adds, multiplies and runs our kernels: every number is right",
        "                 6.0 GiB of 8.0 GiB are free",
        "  cuda:1         Fast Card 1, 8.0 GiB, compute capability 9.0",
        "                 copies, adds, multiplies and runs our kernels: every number is right",
        "                 6.0 GiB of 8.0 GiB are free",
        "  cuda:0 cuda:1  peer access: yes", ""]


def test_the_speed_of_a_gpu(patient):
    code, out = patient(fake_cupy(), ["cupy-cuda12x"], (12, 4), argv=())
    cpu, gpu = (line for line in out.split("\n") if "GFLOP/s" in line)
    assert code == 0 and cpu.startswith("  float32 ") and gpu.startswith(" " * 17)
    speed = float(gpu.split()[0])                     # 2 * 4096**3 operations in a millisecond
    assert 2 * 4096**3 / 0.02 < speed * 1e9 <= 2 * 4096**3 / 0.001
    assert abs(float(gpu.split()[-2]) - speed / 4.136) < 1


@pytest.mark.parametrize("apart", [[(0, 2)], [(2, 0)]])
def test_peer_access_is_told_of_each_pair(patient, apart):
    code, out = patient(fake_cupy(cards=3, apart=apart), ["cupy-cuda12x"], (12, 4))
    assert code == 0
    assert [line for line in out.split("\n") if "peer access" in line] == [
        "  cuda:0 cuda:1  peer access: yes",
        "  cuda:0 cuda:2  peer access: no, copies go through the host",
        "  cuda:1 cuda:2  peer access: yes"]


@pytest.mark.parametrize("fault, says", [
    ("wrong", "the result is wrong"), (RuntimeError("unspecified"), "RuntimeError: unspecified")])
def test_cards_that_cannot_copy_to_each_other(patient, fault, says):
    cupy = fake_cupy(cards=3, transfer=fault, on=["cuda:2"])
    code, out = patient(cupy, ["cupy-cuda12x"], (12, 4))
    mend = "      " + doctor_gpu.PEERS
    assert code == 1 and verdict(out).splitlines() == [
        f"  ! cuda:0 and cuda:2 cannot copy to each other: {says}", mend,
        f"  ! cuda:1 and cuda:2 cannot copy to each other: {says}", mend]
    assert "cuda:0 cuda:1  peer access: yes\n" in out and "cuda:0 cuda:2  " not in out


def test_copies_are_checked_both_ways(patient):
    cupy = fake_cupy(cards=2, transfer="wrong", on=["cuda:0"])
    code, out = patient(cupy, ["cupy-cuda12x"], (12, 4))
    assert code == 1 and "cuda:0 and cuda:1 cannot copy to each other: the result" in verdict(out)


def test_a_gpu_with_little_free_memory(patient):
    code, out = patient(fake_cupy(free=2**29), ["cupy-cuda12x"], (12, 4))
    assert code == 0 and ("0.5 GiB of 8.0 GiB are free: too little to train AlexNet; nvidia-smi "
                          "says whether another program holds it\n") in out


@pytest.mark.parametrize("capability, toolkit, code", [
    ((7, 0), 13000, 1), ((7, 5), 13000, 0), ((7, 0), 12090, 0), ((10, 0), 13010, 0)])
def test_a_gpu_too_old_for_cuda_13(patient, capability, toolkit, code):
    package = f"cupy-cuda{toolkit // 1000}x"
    cupy = fake_cupy(capability=capability, toolkit=toolkit)
    found, out = patient(cupy, [package], (13, 0))
    assert found == code
    if code:
        assert verdict(out) == (
            "  ! cuda:0 cannot be used with CUDA 13: compute capability 7.0, expected 7.5 or more\n"
            "      pip uninstall -y cupy-cuda13x && pip install 'tinyalex[cupy]'\n")


# ---------------------------------------------------------------------------- CuPy

NEEDS12, NEEDS13 = "pip install 'tinyalex[cupy]'\n", "pip install 'tinyalex[cupy13]'\n"
UPDATE = "update NVIDIA's driver to one for CUDA 12 or newer, then "


@pytest.mark.parametrize("driver, fix", [((11, 8), UPDATE + NEEDS12), ((12, 4), NEEDS12),
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


@pytest.mark.parametrize("driver, package, fix", [
    ((12, 4), 13, "pip uninstall -y cupy-cuda13x && " + NEEDS12),
    ((11, 8), 13, "update NVIDIA's driver to one for CUDA 13 or newer\n"),
    ((11, 8), 12, "update NVIDIA's driver to one for CUDA 12 or newer\n")])
def test_a_driver_older_than_cupy(patient, driver, package, fix):
    code, out = patient(fake_cupy(cards=0), [f"cupy-cuda{package}x"], driver)
    assert code == 1 and verdict(out) == (
        f"  ! the driver is for CUDA {driver[0]}.{driver[1]}, cupy-cuda{package}x for CUDA "
        f"{package}\n      {fix}")


def test_a_package_that_the_driver_serves_is_kept(patient):
    code, out = patient(fake_cupy(add="wrong"), ["cupy-cuda12x"], (13, 0))
    assert code == 1 and "      pip install 'tinyalex[cupy]'    # its [ctk]" in verdict(out)


def test_two_packages_and_an_old_driver(patient):
    code, out = patient(fake_cupy(), ["cupy-cuda12x", "cupy-cuda13x"], (11, 8))
    mend = verdict(out).splitlines()[1]
    assert code == 1 and mend.startswith(f"      {UPDATE}pip uninstall -y cupy-cuda1")


def test_a_hidden_gpu(patient, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, out = patient(fake_cupy(cards=0), ["cupy-cuda12x"], (13, 0))
    assert code == 1 and "the driver (CUDA 13.0) shows no GPU; CUDA_VISIBLE_DEVICES is ''" in out


LIBRARIES = "    # its [ctk] brings CUDA's libraries and headers\n"
COMPILE = "compile x + x (NVRTC or CUDA's headers are missing)"


@pytest.mark.parametrize("package, fix", [("cupy-cuda12x", NEEDS12), ("cupy-cuda13x", NEEDS13)])
@pytest.mark.parametrize("broken, what", [
    (dict(add=RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file\nmore")),
     f"{COMPILE}: RuntimeError: CuPy failed to load libnvrtc.so.12: OSError: no such file"),
    (dict(matmul=ImportError("libcublas.so.12: cannot open shared object file")),
     "multiply matrices (cuBLAS is missing): ImportError: libcublas.so.12: cannot open shared "
     "object file"),
    (dict(matmul="wrong"), "multiply matrices (cuBLAS is missing): the result is wrong"),
    (dict(add="wrong"), f"{COMPILE}: the result is wrong")])
def test_a_driver_but_missing_libraries(patient, package, fix, broken, what):
    code, out = patient(fake_cupy(**broken), [package], (13, 0))
    assert code == 1 and verdict(out) == f"  ! cuda:0 cannot {what}\n      {fix[:-1]}{LIBRARIES}"
    assert "every number is right" not in out


@pytest.mark.parametrize("broken, says", [
    (dict(launch="wrong"), "the result is wrong"),
    (dict(velocity="wrong"), "the result is wrong"),
    (dict(launch=RuntimeError("nvrtc: error")), "RuntimeError: nvrtc: error"),
    (dict(launch=FileNotFoundError("sgd.cu")), "FileNotFoundError: sgd.cu")])
def test_a_kernel_of_ours_that_fails(patient, broken, says):
    code, out = patient(fake_cupy(**broken), ["cupy-cuda12x"], (12, 4))
    assert code == 1 and verdict(out) == (
        f"  ! cuda:0 cannot run tinyalex's kernel sgd.update: {says}\n      {doctor_gpu.OURS}\n")


def test_a_gpu_that_spoils_what_it_is_given(patient):
    code, out = patient(fake_cupy(array="wrong"), ["cupy-cuda12x"], (12, 4))
    assert code == 1 and "cuda:0 cannot copy numbers there and back: the result is wrong\n" in out


def test_a_gpu_out_of_memory(patient):
    cupy = fake_cupy(array=MemoryError("out of memory"))
    code, out = patient(cupy, ["cupy-cuda12x"], (13, 0))
    assert code == 1 and verdict(out) == (
        "  ! cuda:0 cannot copy numbers there and back: MemoryError: out of memory\n"
        "      nvidia-smi says whether another program holds it\n")


def test_a_fault_names_its_cards(patient):
    """One that several share stands there once; the other cards are used nevertheless."""
    cupy = fake_cupy(cards=4, matmul="wrong", on=["cuda:1", "cuda:2"])
    code, out = patient(cupy, ["cupy-cuda12x"], (12, 4))
    assert code == 1 and verdict(out).startswith("  ! cuda:1, cuda:2 cannot multiply matrices ")
    assert verdict(out).count("!") == 1 and "  cuda:0 cuda:3  peer access: yes\n" in out
    assert out.count("peer access") == 1 and out.count("every number is right") == 2


def test_a_gpu_that_fails_while_it_is_measured(patient):
    cupy = fake_cupy()
    cupy.matmul = None
    code, out = patient(cupy, ["cupy-cuda12x"], (12, 4), argv=())
    assert code == 1 and "  ! cuda:0 cannot be measured: TypeError: " in verdict(out)


def test_a_gpu_that_cannot_be_opened(patient):
    cupy = fake_cupy(properties=RuntimeError("cudaErrorDevicesUnavailable: busy"))
    code, out = patient(cupy, ["cupy-cuda12x"], (13, 0))
    assert code == 1 and "  cpu:0 cpu:1    NumPy" in out
    assert verdict(out) == (
        "  ! cuda:0 cannot be opened: RuntimeError: cudaErrorDevicesUnavailable: busy\n"
        "      nvidia-smi says whether another program holds it\n")


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
