"""CIFAR-10 in its binary version: a folder of .bin files, or their archive read where it lies.

A record is one byte of label and 3,072 bytes of picture: 32 x 32 red, then green, then blue. The
site's Python version holds pickles, which can run anything when they are opened: it is refused.
"""
import os
import tarfile
import zlib

import numpy as np

from .dataset import ArrayDataset, DataError
from .download import fetch, may_download, not_there, places

FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST, META = "test_batch.bin", "batches.meta.txt"
RECORD = 1 + 3 * 32 * 32                       # bytes
MAX_FILE = 20_000 * RECORD                     # twice what a real one holds


def find_cifar10(download=False):
    """Return the path of CIFAR-10's folder or archive in the usual places.

    Looked through in this order: ``$TINYALEX_DATA``, ``./data``, ``~/.cache/tinyalex``; each for
    ``cifar-10-batches-bin/``, ``cifar-10-binary.tar.gz`` or the .bin files themselves.

    Parameters
    ----------
    download : bool
        Whether to fetch the archive (170 MB) where it is in none of them, into
        ``$TINYALEX_DATA``, or else ``~/.cache/tinyalex``; ``TINYALEX_OFFLINE=1`` forbids it.

    Raises
    ------
    DataError
        If it is in none of them, or could not be fetched; the message says what to put where.
    """
    for place in places():
        found = locate(place)
        if found:
            return found
    if download and may_download():
        return fetch("cifar10")
    message = not_there("cifar10")
    for place in places():
        if os.path.isdir(os.path.join(place, "cifar-10-batches-py")):
            message += f"; {place} has the Python version, whose pickles are not opened"
    raise DataError(message)


def locate(place):
    """Return CIFAR-10's folder or archive at or right under the folder `place`, else None."""
    for path in (place, os.path.join(place, FOLDER)):
        if any(os.path.isfile(os.path.join(path, name)) for name in TRAIN):
            return path
    path = os.path.join(place, ARCHIVE)
    return path if os.path.isfile(path) else None


def open_cifar10(path, resize=None):
    """Read CIFAR-10's folder or archive into memory (184 MB).

    Parameters
    ----------
    path : str
        A folder with the .bin files, or the archive, which is not extracted.
    resize : int, optional
        As for :class:`Dataset`.

    Returns
    -------
    train, val : ArrayDataset
        50,000 and 10,000 pictures of 32 x 32, in the order of the files.

    Raises
    ------
    DataError
        If a file is missing, cut short, or holds a label that is not one.
    """
    files = _folder(path) if os.path.isdir(path) else _archive(path)
    missing = [name for name in (*TRAIN, TEST, META) if name not in files]
    if missing:
        raise DataError(f"where={path!r}: CIFAR-10's {', '.join(missing)} not there; "
                        "expected data_batch_1 to 5, test_batch and batches.meta")
    classes = files[META].decode("utf-8", "replace").split()
    if len(classes) != 10 or len(set(classes)) != 10:
        raise DataError(f"where={path!r}: {META} names {len(classes)} classes, expected 10")
    train = [_records(path, name, files.pop(name)) for name in TRAIN]
    pictures, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    test = _records(path, TEST, files[TEST])
    return (ArrayDataset(pictures, labels, classes, resize, "cifar10 train"),
            ArrayDataset(*test, classes, resize, "cifar10 test"))


def _records(path, name, data):
    if not data or len(data) % RECORD:
        raise DataError(f"where={path!r}: {name} has {len(data):,} bytes; expected records of "
                        f"{RECORD:,} (is it cut short?)")
    table = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels = table[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DataError(f"where={path!r}: {name} has label {labels.max()} in record "
                        f"{int((labels > 9).argmax())}; expected 0 to 9")
    planes = table[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels        # (n, 32, 32, 3)


def _folder(path):
    files = {}
    for name in (*TRAIN, TEST, META):
        full = os.path.join(path, name)
        if os.path.isfile(full):
            try:
                with open(full, "rb") as file:
                    files[name] = file.read(MAX_FILE)
            except OSError as problem:
                raise DataError(f"where={path!r}: {name}: {problem.strerror}") from None
    return files


def _archive(path):
    # Members are picked by name, checked for size and read in memory: nothing is extracted, so
    # no path inside the archive can lead anywhere.
    files = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if member.isreg() and name in (*TRAIN, TEST, META) and member.size <= MAX_FILE:
                    files[name] = archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as problem:
        raise DataError(f"where={path!r}: not a whole tar archive ({problem}); expected a folder "
                        f"of pictures or {ARCHIVE}") from None
    return files
