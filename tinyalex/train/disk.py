"""Writing to a disk that may be full, read-only or switched off in the middle."""
import errno
import os
from pathlib import Path


def write_atomically(path, data):
    """Write bytes so that `path` is at every moment the old file or the whole new one.

    Parameters
    ----------
    path : path
    data : bytes

    Raises
    ------
    OSError
        From the disk; no temporary file is left then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a", b"whole")
    ...     os.listdir(folder)
    ['a']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())      # the bytes first, ...
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":               # ... then the name: it lives in the folder's own data
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def reason(error, needed=None):
    """Return an OSError's cause in a few words, with the size where the disk is full.

    Parameters
    ----------
    error : OSError
    needed : int, optional
        How many bytes were to be written.

    Examples
    --------
    >>> reason(OSError(errno.ENOSPC, "No space left on device"), needed=5_000_000)
    'No space left on device (5.0 MB are needed)'
    """
    words = error.strerror or str(error)
    if needed and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        words += f" ({needed / 1e6:,.1f} MB are needed)"
    return words
