"""What a disk says when it refuses, in a few words."""
import errno


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
