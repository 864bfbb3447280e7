"""What the doctor makes a GPU do. A card is not asked whether it works: it has to compute.

A step takes a device's name and returns a row of the report, or None. A wrong result raises. The
numbers are small integers, so that any order of sums, and TF32 too, gives NumPy's bits.
"""
import numpy as np

from .device import Device, cuda, transfer
from .kernels import launch

HELD = "nvidia-smi says whether another program holds it"
OLD_CARD = "pip uninstall -y cupy-cuda13x && pip install 'tinyalex[cupy]'"
OURS = ("pip install --force-reinstall tinyalex; it may also help to delete ~/.cupy/kernel_cache "
        "(or what CUPY_CACHE_DIR names)")
PEERS = "switch off the machine's IOMMU, or ACS on its PCI bridges; until then, name one in --gpus"
WEIGHTS = 2**30      # bytes: AlexNet's weights, gradients and velocities alone are 0.7 GiB


class Wrong(ArithmeticError):
    """A card gave other numbers than NumPy."""


def steps(install):
    """Return what a card has to do, in order: (what it is, how to mend it, step).

    Parameters
    ----------
    install : str
        The command that installs CuPy with CUDA's libraries.
    """
    libraries = f"{install}    # its [ctk] brings CUDA's libraries and headers"
    return [("be opened", HELD, describes),
            ("be used with CUDA 13", OLD_CARD, is_new_enough),
            ("copy numbers there and back", HELD, copies),
            ("compile x + x (NVRTC or CUDA's headers are missing)", libraries, adds),
            ("multiply matrices (cuBLAS is missing)", libraries, multiplies),
            ("run tinyalex's kernel sgd.update", OURS, updates),
            ("tell its memory", HELD, tells_memory)]


def describes(name):
    """Open the device; return its name, memory and compute capability in words."""
    return cuda.describe(Device(name).index)


def is_new_enough(name):
    """Refuse a card for which CuPy's CUDA has no compiler any more."""
    device = Device(name)
    runtime = device.xp.cuda.runtime
    card = runtime.getDeviceProperties(device.index)
    if runtime.runtimeGetVersion() >= 13000 and (card["major"], card["minor"]) < (7, 5):
        raise Wrong(f"compute capability {card['major']}.{card['minor']}, expected 7.5 or more")


def copies(name):
    """Send numbers to the device, and compare those that come back."""
    device, x = Device(name), _integers(1000)
    _compare(device.numpy(device.array(x)), x)


def adds(name):
    """Let CuPy compile and run an elementwise kernel."""
    device, x = Device(name), _integers(1000)
    with device.scope():
        y = device.array(x)
        _compare(device.numpy(y + y), x + x)


def multiplies(name):
    """Let cuBLAS multiply matrices."""
    device, x = Device(name), _integers(256 * 256).reshape(256, 256)
    with device.scope():
        y = device.array(x)
        _compare(device.numpy(y @ y), x @ x)


def updates(name):
    """Find, compile and run a kernel of ours, a step of SGD; it is the last that computes."""
    device = Device(name)
    w, g, v = (_integers(3000)[i::3].copy() for i in range(3))
    momentum, lr, decay = 0.5, 0.25, 0.125
    with device.scope():
        here = [device.array(a) for a in (w, g, v)]
        launch(device, "sgd.update", w.size, *here, momentum, lr, decay)
    v = momentum * v - lr * g - decay * w
    _compare(device.numpy(here[2]), v)
    _compare(device.numpy(here[0]), w + v)
    return "copies, adds, multiplies and runs our kernels: every number is right"


def tells_memory(name):
    """Return in words how much of a card's memory is free."""
    device = Device(name)
    with device.scope():
        free, total = device.xp.cuda.runtime.memGetInfo()
    return (f"{free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB are free"
            + (f": too little to train AlexNet; {HELD}" if free < WEIGHTS else ""))


def crosses(a, b):
    """Send numbers from each of two cards to the other; return in words which way they take.

    Cards can claim peer access and yet read zeros, where the machine's IOMMU is in between.
    """
    a, b, x = Device(a), Device(b), _integers(1 << 20)
    for src, dst in ((a, b), (b, a)):
        _compare(dst.numpy(transfer(src.array(x), src, dst, kind="doctor")), x)
    reaches = a.xp.cuda.runtime.deviceCanAccessPeer
    direct = reaches(a.index, b.index) and reaches(b.index, a.index)
    return "peer access: " + ("yes" if direct else "no, copies go through the host")


def _integers(n):
    return (np.arange(n) * 7 % 17 - 8).astype(np.float32)


def _compare(found, right):
    if not np.array_equal(found, right):
        raise Wrong("the result is wrong")
