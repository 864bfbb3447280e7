"""Files on a disk that may be full, read-only, failing or switched off in the middle."""
import os
import weakref
from pathlib import Path

from .dataset import DataError


def write_in_order(*files):
    """Write files so that each is at every moment the old one or the whole new one.

    The bytes of all are on the disk before the first gets its name, and the names come in this
    order: a full disk leaves all as it was, and a later file may tell of the ones before it.

    Parameters
    ----------
    files : (path, bytes)

    Raises
    ------
    OSError
        From the disk; no temporary file is left then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_in_order((f"{folder}/a", b"whole"), (f"{folder}/b", b"a is whole"))
    ...     sorted(os.listdir(folder))
    ['a', 'b']
    """
    try:
        for path, data in files:
            with open(beside(path), "wb") as file:
                file.write(data)
                force(file)
        for path, _ in files:
            publish(beside(path), path)
    except BaseException:
        for path, _ in files:
            beside(path).unlink(missing_ok=True)
        raise


def beside(path):
    """Return where a file is written before it gets its name.

    Examples
    --------
    >>> beside("pictures/train.npy").name
    '.train.npy.tmp'
    """
    path = Path(path)
    return path.with_name(f".{path.name}.tmp")


def force(file):
    """Wait until all that was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def publish(temporary, path):
    """Give a file that is on the disk its name, for good: a name lives in the folder's own data.

    Parameters
    ----------
    temporary, path : path
        In the same folder; what had the name before is gone.
    """
    os.replace(temporary, path)
    if os.name == "posix":
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class File:
    """An open file that any number of threads read by offset.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    size : int
        In bytes.

    Raises
    ------
    DataError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as kept:
    ...     kept.write(b"a cat"), kept.flush()
    ...     File(kept.name).read(2, 100)
    (5, None)
    b'cat'
    """

    def __init__(self, path):
        self.path = path
        try:
            self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._number)
            self.size = os.fstat(self._number).st_size
        except OSError as problem:
            raise DataError(f"{path}: {problem.strerror}; expected a readable file") from None

    def read(self, offset, length):
        """Return `length` bytes from `offset` on; fewer at the end of the file."""
        try:
            return os.pread(self._number, length, offset)
        except OSError as problem:
            raise DataError(f"{self.path}: {problem.strerror} at byte {offset:,}") from None
