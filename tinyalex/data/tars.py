"""Tar archives read where they lie: walked through once, then read by offset from any thread.

A tar comes from a stranger. Only regular files with plain names are taken, each inside its archive,
and the archive must end as tars end; whatever else it holds, it is refused with one line.
"""
import re
import tarfile
from collections import namedtuple

from .dataset import DataError

BLOCK = 512                     # bytes: the unit that a tar is made of
MAX_PAX = 64 * 2**10            # bytes of one extended header; real ones have a few dozen
# What an extended header may not say: another name, length or place than the plain one.
MISLEADING = re.compile(rb" (path|size|linkpath|GNU\.sparse[^=]*)=")

Member = namedtuple("Member", "name offset length time")


def members(read, start, end, where):
    """Walk through the headers of a tar.

    Parameters
    ----------
    read : callable, (offset, length) -> bytes
    start, end : int
        Where the tar lies, in bytes.
    where : str
        What to call it in an error.

    Yields
    ------
    Member
        A regular file: its name, where its content lies, and when it was last changed. Folders
        are passed over.

    Raises
    ------
    DataError
        If the tar is cut short or damaged, or holds anything but regular files and folders.

    Examples
    --------
    >>> import io
    >>> data = tarfile.TarInfo("cat.jpg").tobuf() + bytes(1024)
    >>> [m.name for m in members(lambda at, n: data[at:at + n], 0, len(data), "a.tar")]
    ['cat.jpg']
    """
    at, mark = start, bytes(2 * BLOCK)                      # a tar ends with two blocks of zeros
    while (ahead := read(at, min(len(mark), max(0, end - at)))) != mark:
        header = ahead[:BLOCK]
        if len(header) < BLOCK or not any(header):
            raise DataError(f"{where}: cut short: it stops at byte {at - start:,} without the end "
                            "mark of a tar")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as problem:
            raise DataError(f"{where}: damaged at byte {at - start:,} ({problem}); expected the "
                            "header of a tar's member") from None
        at += BLOCK
        shown = ascii(info.name)
        if not 0 <= info.size <= end - at:
            raise DataError(f"{where}: member {shown} declares {info.size:,} bytes, "
                            f"{end - at:,} are left; is the archive cut short?")
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            if info.size > MAX_PAX or MISLEADING.search(b" " + read(at, info.size)):
                raise DataError(f"{where}: an extended header at byte {at - BLOCK - start:,} "
                                "changes what a member is; expected plain names and sizes")
        elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield Member(info.name.removeprefix("./"), at, info.size, info.mtime)
        elif not info.isdir():
            raise DataError(f"{where}: member {shown} is of tar's kind {ascii(info.type)[1:]}; "
                            "expected regular files alone: no links, devices or sparse files")
        at += -(-info.size // BLOCK) * BLOCK


def unique(found, where):
    """Return the members as a list, in which no name may be twice.

    Examples
    --------
    >>> unique([Member("a", 0, 1, 0), Member("a", 512, 1, 0)], "b.tar")
    Traceback (most recent call last):
    tinyalex.data.dataset.DataError: b.tar: member 'a' is there twice
    """
    found, seen = list(found), set()
    for member in found:
        if member.name in seen:
            raise DataError(f"{where}: member {ascii(member.name)} is there twice")
        seen.add(member.name)
    return found
