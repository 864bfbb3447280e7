"""Checkpoints: safetensors on disk, whole or not at all, and verified when they are read.

A run's folder of checkpoints looks like this::

    step-000500-9f86d081884c7d65.safetensors     the hexadecimal part begins the file's SHA-256
    step-000750-60303ae22b998861.safetensors
    LATEST                                       "<SHA-256>  <file>": sha256sum -c LATEST checks it
    BEST                                         the same, for the lowest validation error so far

Nothing is ever overwritten: all three are written beside their final names, forced to the disk
and then renamed, the file first and LATEST last; older ones are removed only after that. So a kill
at any moment leaves the last checkpoint or the new one. There is no pickle: reading a file runs no
code.
"""
import hashlib
import json
import re
import warnings
from pathlib import Path

import numpy as np

from ..data.disk import write_in_order
from .disk import reason

NAME = re.compile(r"step-(\d{6,})-([0-9a-f]{16})\.safetensors")
LATEST, BEST = "LATEST", "BEST"
KEY = "tinyalex"           # one key only: the library writes several in an order that wanders


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, found or trusted; the message names the fault."""


class NotFinite(CheckpointError):
    """An array holds NaN or infinity: nobody could go on from it."""


class CheckpointNote(UserWarning):
    """Something worth knowing about a checkpoint that was nevertheless read."""


def save(folder, arrays, meta, keep=2, best=False):
    """Write one checkpoint and remove the older ones that are no longer kept.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    arrays : dict of str to numpy.ndarray
        Any shapes, strides and memory orders; every number finite.
    meta : dict
        What JSON can hold; ``meta["step"]``, an integer, becomes a part of the file's name.
    keep : int
        How many of the last checkpoints stay (at least one); the best one stays besides.
    best : bool
        Whether this one has the lowest validation error so far.

    Returns
    -------
    pathlib.Path
        The new file. Equal arrays and meta give equal bytes, and so an equal name.

    Raises
    ------
    NotFinite, CheckpointError
        An array holds NaN or infinity; the disk refused: full, read-only, ... Whatever was in
        the folder before is then still there. That an old file cannot be removed only warns.
    TypeError
        An array holds something else than real numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(folder, {"w": np.eye(2).T}, {"step": 750})
    ...     arrays, meta = load(path)
    >>> path.name[:12], meta["step"], arrays["w"].tolist()
    ('step-000750-', 750, [[1.0, 0.0], [0.0, 1.0]])
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least the checkpoint just written has to stay")
    folder = Path(folder)
    data = _serialize(arrays, meta)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"step-{meta['step']:06d}-{digest[:16]}.safetensors"
    pointer = f"{digest}  {path.name}\n".encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in folder.glob(".*.tmp"):
            left_by_a_kill.unlink()
        pointers = [BEST, LATEST] if best else [LATEST]
        write_in_order((path, data), *((folder / name, pointer) for name in pointers))
    except OSError as error:
        raise CheckpointError(f"could not write {path}: {reason(error, len(data))}") from error
    _prune(folder, meta["step"], keep)
    return path


def load(path):
    """Read one checkpoint, after checking every byte of it.

    Parameters
    ----------
    path : path
        A file. One whose name no longer holds a hash is read with a `CheckpointNote`, because
        its bytes cannot be verified.

    Returns
    -------
    arrays : dict of str to numpy.ndarray
    meta : dict

    Raises
    ------
    CheckpointError
        Missing, cut short, changed since it was written, or no checkpoint at all.

    Examples
    --------
    >>> try:
    ...     load("nothing.safetensors")
    ... except CheckpointError as error:
    ...     print(error)
    nothing.safetensors: there is no such file
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        _verify(path)
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {reason(error)}") from None
    except SafetensorError as error:
        fault = _cut_short(path) or f"not a safetensors file ({error})"
        raise CheckpointError(f"{path}: {fault}") from None
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not one of tinyalex's checkpoints")
    try:
        return arrays, json.loads(text)
    except ValueError:
        raise CheckpointError(f"{path}: its description is damaged") from None


def load_newest(folder):
    """Read the last good checkpoint of a folder: the one LATEST names, or else an earlier one.

    Parameters
    ----------
    folder : path

    Returns
    -------
    path : pathlib.Path
    arrays : dict of str to numpy.ndarray
    meta : dict

    Raises
    ------
    CheckpointError
        There is none, or none is whole. Each damaged one that an older good one stands in for
        is named by a `CheckpointNote` instead, and so is a damaged LATEST.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in (1, 2):
    ...         path = save(folder, {}, {"step": step})
    ...     load_newest(folder)[2]
    {'step': 2}
    """
    folder, faults = Path(folder), []
    latest, found = pointed(folder), _by_step(folder)[::-1]
    if found and latest not in found and (folder / LATEST).exists():
        warnings.warn(f"{folder / LATEST} is damaged or names a file that is gone; going by the "
                      "steps in the files' names", CheckpointNote, stacklevel=2)
    for path in sorted(found, key=lambda path: path != latest):          # stable: the rest stay
        try:
            arrays, meta = load(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warnings.warn(f"{fault}; falling back to {path.name}", CheckpointNote, stacklevel=2)
        return path, arrays, meta
    raise CheckpointError("; ".join(faults) or f"{folder}: there is no checkpoint in this folder")


def step_of(path):
    """Return the step in a checkpoint's file name, or None where the name holds none.

    Examples
    --------
    >>> step_of("step-000750-9f86d081884c7d65.safetensors"), step_of("mine.safetensors")
    (750, None)
    """
    match = NAME.fullmatch(Path(path).name)
    return int(match[1]) if match else None


def pointed(folder, pointer=LATEST):
    """Return the file that LATEST or BEST names; None where it is missing or damaged itself.

    Examples
    --------
    >>> pointed("runs/never-trained") is None
    True
    """
    folder = Path(folder)
    try:
        digest, name = (folder / pointer).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    match = NAME.fullmatch(name)
    good = match and len(digest) == 64 and digest.startswith(match[2])
    return folder / name if good else None


def _serialize(arrays, meta):
    from safetensors.numpy import save as to_bytes

    whole = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise TypeError(f"{name!r} has dtype {array.dtype}: a checkpoint holds real numbers "
                            "of at most 64 bits")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(f"{name} holds NaN or infinity: not saved")
        # Without this the library dumps a strided view's memory as it lies: wrong bytes, no error.
        # reshape: ascontiguousarray turns a single number into a vector of one.
        whole[name] = np.ascontiguousarray(array).reshape(array.shape)
    text = json.dumps(meta, sort_keys=True, allow_nan=False)
    return to_bytes(whole, metadata={KEY: text})


def _verify(path):
    """Raise unless the file's SHA-256 begins as its name says."""
    match = NAME.fullmatch(path.name)
    with open(path, "rb") as file:
        if match is None:
            warnings.warn(f"{path}: its name holds no hash, so its bytes were not verified",
                          CheckpointNote, stacklevel=3)
            return
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(match[2]):
        raise CheckpointError(f"{path}: " + (_cut_short(path) or (
            f"changed since it was written (its SHA-256 begins {digest[:16]}, not {match[2]})")))


def _cut_short(path):
    """Say how many bytes are missing, from the lengths that the file's own header gives."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or size < 8 + length < 100_000_000:
            return f"cut short inside its header ({size:,} bytes are left)"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items()
                    if name != "__metadata__"]
            whole = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError,
                MemoryError):
            return None                  # not a header: something else is wrong
    return f"cut short: {size:,} of {whole:,} bytes are left" if size < whole else None


def _by_step(folder):
    return sorted((path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name)),
                  key=lambda path: (step_of(path), path.stat().st_mtime_ns))


def _prune(folder, step, keep):
    # Steps past this one belong to a future that the run went back from: not ours to remove.
    past = [path for path in _by_step(folder) if step_of(path) <= step]
    best = pointed(folder, BEST)
    for path in past[:-keep]:
        if path != best:
            try:
                path.unlink()
            except OSError as error:
                warnings.warn(f"could not remove {path}, which is no longer needed: "
                              f"{reason(error)}", CheckpointNote, stacklevel=3)
