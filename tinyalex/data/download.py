"""CIFAR-10 and Tiny ImageNet, for those with a network: fetched when asked for by name, and once.

While it comes, an archive is called ``NAME.part``. It takes its own name when every byte is there
and the checksum is right; until then the next try, or the next run, goes on where this one ended.
"""
import contextlib
import os
import sys
import time
from typing import NamedTuple

from .dataset import DataError
from .disk import publish
from .web import Failure, attempt, length_of

try:
    import fcntl
except ImportError:                      # Windows: each process fetches a part of its own there
    fcntl = None


class Archive(NamedTuple):
    """An archive of the site that publishes it.

    Attributes
    ----------
    url : str
    size : int
        In bytes.
    md5 : str
    file : str
        The last part of `url`.

    Examples
    --------
    >>> ARCHIVES["tinyimagenet"].file
    'tiny-imagenet-200.zip'
    """
    url: str
    size: int
    md5: str

    @property
    def file(self):
        return self.url.rpartition("/")[2]


ARCHIVES = {
    "cifar10": Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                       170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
    "tinyimagenet": Archive("https://cs231n.stanford.edu/tiny-imagenet-200.zip",
                            248_100_043, "90528d7ca1a48142e341f4ef8d21d0de"),
}
PAUSES = (1, 3, 9)                       # seconds before each further try that brings nothing new


def places():
    """Return the folders in which data sets are looked for, in order.

    Examples
    --------
    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, TINYALEX_DATA="/data", HOME="/home/ada"):
    ...     places()
    ['/data', 'data', '/home/ada/.cache/tinyalex']
    """
    usual = os.environ.get("TINYALEX_DATA"), "data", os.path.join("~", ".cache", "tinyalex")
    return [os.path.expanduser(place) for place in usual if place]


def may_download():
    """Return whether the user lets us use the network: ``TINYALEX_OFFLINE=1`` forbids it.

    Examples
    --------
    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, TINYALEX_OFFLINE="1"):
    ...     may_download()
    False
    """
    return os.environ.get("TINYALEX_OFFLINE", "") in ("", "0")


def not_there(name, why=""):
    """Return the line that says where data set `name` was looked for, and how to get it by hand.

    Examples
    --------
    >>> print(not_there("cifar10"))
    where='cifar10': not found in ...; put cifar-10-binary.tar.gz (https://www.cs.toronto.edu/...)
    or its folder into one of them, or set TINYALEX_DATA to where it is
    """
    why = why or ("" if may_download() else ", and TINYALEX_OFFLINE forbids fetching it")
    archive = ARCHIVES[name]
    return (f"where={name!r}: not found in {', '.join(places())}{why}; put {archive.file} "
            f"({archive.url}) or its folder into one of them, or set TINYALEX_DATA to where it is")


def fetch(name):
    """Fetch an archive into $TINYALEX_DATA, or else ~/.cache/tinyalex, unless it lies there.

    A part that an earlier try left is gone on with where the server can, and of several processes
    that want the same archive one fetches it and the others wait.

    Parameters
    ----------
    name : {"cifar10", "tinyimagenet"}

    Returns
    -------
    path : str
        The archive, whole; its checksum was verified before it got this name.

    Raises
    ------
    DataError
        In one line: no network, a server or a proxy that gives something else, a wrong checksum,
        or a disk that cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> from unittest import mock
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(f"{folder}/cifar-10-binary.tar.gz", "wb"), \\
    ...             mock.patch.dict(os.environ, TINYALEX_DATA=folder):
    ...         fetch("cifar10") == f"{folder}/cifar-10-binary.tar.gz"
    True
    """
    archive, folder = ARCHIVES[name], places()[0 if os.environ.get("TINYALEX_DATA") else -1]
    path = os.path.join(folder, archive.file)
    with writing(name, folder, archive.size):
        os.makedirs(folder, exist_ok=True)
        with alone(folder) as mark:
            if not os.path.isfile(path):             # who was alone before may have brought it
                part = f"{path}{mark}.part"
                _download(name, archive, part)
                publish(part, path)
    return path


@contextlib.contextmanager
def writing(name, folder, needed):
    """Turn what a disk refuses into one line about `folder` and the bytes that are `needed`.

    Examples
    --------
    >>> with writing("cifar10", "/full", 170e6):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    tinyalex.data.dataset.DataError: where='cifar10': cannot write to /full: No space left on
    device; it needs 170 MB there, or set TINYALEX_DATA to another folder
    """
    try:
        yield
    except OSError as problem:
        raise DataError(f"where={name!r}: cannot write to {folder}: {problem.strerror or problem}; "
                        f"it needs {needed / 1e6:,.0f} MB there, or set TINYALEX_DATA to another "
                        "folder") from None


@contextlib.contextmanager
def alone(folder):
    """Hold `folder` against other processes; give what the names of temporary files end in.

    That is "", or this process's number where the system or the file system has no locks.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, alone(folder):
    ...     os.listdir(folder)
    []
    """
    if fcntl is None:
        yield f".{os.getpid()}"
        return
    mark = ""
    handle = os.open(folder, os.O_RDONLY)            # of the folder: it leaves no file behind
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that writes to {folder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:                              # a file system without locks
            mark = f".{os.getpid()}"
        yield mark
    finally:
        os.close(handle)


def _download(name, archive, part):
    """Bring `part` to its full size and the right checksum, in as many tries as make sense."""
    folder = os.path.dirname(part)
    by_hand = f"or fetch it by other means and put it into {folder}"
    begun = farthest = length_of(part)
    tries, second_chance = 0, True
    _say(f"fetching {archive.url} ({archive.size / 1e6:,.0f} MB) into {folder}"
         + f", going on after {begun:,} bytes" * bool(begun))
    while True:
        resumed = length_of(part) > 0
        try:
            found = attempt(archive.url, archive.size, part)
        except Failure as problem:
            if problem.then == "afresh" or not length_of(part):
                os.remove(part)
            length = length_of(part)
            if length > farthest:
                farthest, tries = length, 0
            if problem.then == "offline" and length <= begun:
                raise DataError(not_there(name, f", and there is no network to fetch it ({problem})"
                                          )) from None
            if problem.then == "stop" or tries == len(PAUSES):
                raise DataError(f"where={name!r}: {archive.url}: {problem}; try later, {by_hand}"
                                + f"; {length:,} bytes are kept" * bool(length)) from None
            _say(f"{archive.file}: {problem}; trying again in {PAUSES[tries]} s")
            time.sleep(PAUSES[tries])
            tries += 1
            continue
        except KeyboardInterrupt:
            if length_of(part):
                _say(f"{length_of(part):,} bytes of {archive.file} are kept for the next time")
            raise
        if found == archive.md5:
            return
        os.remove(part)
        wrong = f"MD5 {found}, expected {archive.md5}"
        if not resumed or not second_chance:
            raise DataError(f"where={name!r}: {archive.url}: {wrong}; it came damaged, or is "
                            f"another file, and was removed; try again, {by_hand}")
        second_chance = False            # the beginning may be of an older file: once from zero
        _say(f"{archive.file}, put together from parts: {wrong}; starting again")


def _say(line):
    from tqdm import tqdm                # a progress bar may be in the way

    tqdm.write(line, file=sys.stderr)
