"""What the example programs share: flags for devices, and one clear line for every mistake."""
import argparse
import contextlib
import math
import os
import shlex
import sys
import warnings

from ..data import DataError
from ..device import BackendUnavailable, Device, OutOfMemory
from ..device.cuda import device_count
from .checkpoint import CheckpointError, CheckpointNote
from .disk import reason
from .rundir import RunError, RunNote

INTERRUPTED, PIPE_CLOSED = 130, 141      # 128 + the signal's number, as shells count
speaker = ""             # behind the program's name: which of many processes it is that speaks


class Mistake(Exception):
    """Something that whoever typed the command can put right; the message says how."""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line (raised as :class:`Mistake`) and no flag is guessed.

    Examples
    --------
    >>> Parser(prog="train.py").parse_args(["--speling"])
    Traceback (most recent call last):
    tinyalex.train.console.Mistake: unrecognized arguments: --speling (--help lists them)
    """

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message):
        raise Mistake(f"{message} (--help lists them)" if "arguments" in message else message)


def number(kind=float, least=None, above=None, below=None):
    """Return a ``type=`` for argparse that takes a finite number within its limits.

    Examples
    --------
    >>> number(int, least=1)("3"), number(above=0)("1e-2")
    (3, 0.01)
    >>> number(int, least=1)("0")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: 0 is not a whole number of 1 or more
    """
    what = "a whole number" if kind is int else "a number"
    what += "".join(word.format(limit) for word, limit in (
        (" of {} or more", least), (" above {}", above), (" and below {}", below))
        if limit is not None)

    def parse(text):
        try:
            value = kind(text)
            good = math.isfinite(value) and (least is None or value >= least) and (
                above is None or value > above) and (below is None or value < below)
        except (ValueError, OverflowError):
            good = False
        if not good:
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    return parse


def epochs(text):
    """Read a list of epochs for argparse; "never" is an empty one.

    >>> epochs("20,45"), epochs("never")
    ((20.0, 45.0), ())
    """
    one = number(above=0)
    return () if text == "never" else tuple(one(part) for part in text.split(","))


def add_device_flags(parser):
    """Add --backend, --gpus, --tf32 and --gpu-memory, as :func:`choose_devices` reads them."""
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"),
                        help="numpy runs on the CPU, cupy on NVIDIA GPUs (auto: cupy if it can)")
    parser.add_argument("--gpus", metavar="N[,N]",
                        help="one device for both towers or two, one each; "
                             "under numpy the logical devices cpu:0 and cpu:1")
    parser.add_argument("--tf32", action="store_true", default=None,
                        help="let the GPU round factors to 10 bits: faster, less exact")
    parser.add_argument("--gpu-memory", metavar="GIB", type=number(above=0),
                        help="the most that each GPU may hold; all it has where not given")


def choose_devices(backend=None, gpus=None, tf32=None, gpu_memory=None):
    """Turn the flags into devices.

    Parameters
    ----------
    backend : {"auto", "numpy", "cupy"}, optional
        "auto" where None: the GPU if CuPy can use it, else the CPU.
    gpus : str, optional
        "0" or "0,1"; "0" where None. Twice the same GPU gives it and an alias of it.
    tf32 : bool, optional
    gpu_memory : float, optional
        In GiB, for each GPU.

    Returns
    -------
    devices : tuple of one or two Device
    note : str
        What was decided on the user's behalf, or "".

    Raises
    ------
    Mistake
        `gpus` does not read as one or two numbers, or `gpu_memory` is more than a GPU has.
    BackendUnavailable
        CuPy, a driver or the GPU is missing; the message says what to do.

    Examples
    --------
    >>> choose_devices("numpy", "0,1")
    ((Device('cpu:0'), Device('cpu:1')), '--gpus 0,1 under numpy: the logical devices cpu:0, cpu:1')
    """
    parts = [part.strip() for part in (gpus or "0").split(",")]
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise Mistake(f"--gpus {gpus}: expected one number or two, such as 0 or 0,1")
    indices = [int(part) for part in parts]
    if tf32 and backend != "numpy":
        os.environ["CUPY_TF32"] = "1"    # CuPy reads it once, before its first product
    if backend == "cupy" or backend != "numpy" and device_count():
        names = [f"cuda:{i}" for i in indices]
        if len(set(names)) < len(names):
            names[1] += "#1"
        devices = tuple(Device(name) for name in names)
        for device in devices if gpu_memory else ():
            _limit(device, gpu_memory)
        return devices, ""
    devices = tuple(dict.fromkeys(Device(f"cpu:{i}") for i in indices))
    notes, names = [], ", ".join(device.name for device in devices)
    if gpus:
        several = "s" * (len(devices) > 1)
        notes += [f"--gpus {gpus} under numpy: the logical device{several} {names}"]
    if gpu_memory:
        notes += [f"--gpu-memory {gpu_memory:g} under numpy: there is no GPU to limit"]
    return devices, "; ".join(notes)


def _limit(device, gib):
    total = device.memory()["total_bytes"]
    if gib * 2**30 > total:
        raise Mistake(f"--gpu-memory {gib:g}: {device.name} has {total / 2**30:.2f} GiB")
    device.limit_memory(int(gib * 2**30))


def command(*arguments):
    """Return a command line for the program that is running, ready to be pasted into a shell."""
    return shlex.join([sys.orig_argv[0], sys.argv[0], *map(str, arguments)])


def run(main, program, argv=None):
    """Run a program and return its exit code: 0, 1, 2 (a mistake), 130 (Ctrl-C) or 141 (a pipe).

    Parameters
    ----------
    main : callable, argv -> int
    program : str
        Its name, for the front of messages.
    argv : list of str, optional

    Examples
    --------
    >>> run(lambda argv: len(argv), "count.py", ["a"])
    1
    """
    def say(message):
        from tqdm import tqdm            # a progress bar may be in the way

        with contextlib.suppress(BrokenPipeError):
            text = " ".join(str(message).splitlines())
            tqdm.write(f"{program}{speaker}: {text}", file=sys.stderr)

    for stream in (sys.stdout, sys.stderr):           # no name of a file or class may end a run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointNote)
        warnings.simplefilter("always", RunNote)
        warnings.simplefilter("ignore", RuntimeWarning)      # NumPy's: a NaN has its own stop
        warnings.showwarning = lambda message, *place: say(f"note: {message}")
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except DataError as error:
            say(str(error).replace("where=", "--data ", 1))       # as the command line calls it
            return 2
        except (Mistake, CheckpointError, RunError, BackendUnavailable) as error:
            say(error)
            return 2
        except BrokenPipeError:          # head has seen enough; let Python's last flush succeed
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except OSError as error:
            say(f"{error.filename or 'the system'}: {reason(error)}")
            return 2
        except OutOfMemory as error:         # of a GPU; nothing was lost
            say(error)
            return 2
        except MemoryError as error:
            say(f"out of memory ({error or 'the machine has no more'}); a smaller batch needs less")
            return 1
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
