"""Tiny ImageNet's official layout: found as a folder, or unpacked from its archive, once.

The archive is unpacked beside itself, into a folder that gets its name when all is in it. What an
archive says about itself is not believed: its names must lie inside it, its files must be plain
ones of a size that pictures have, and there must not be more of it than the real one has.
"""
import os
import re
import shutil
import stat
import zipfile
import zlib

from .dataset import DataError
from .disk import publish
from .download import ARCHIVES, alone, fetch, may_download, not_there, places, writing

NAME, FOLDER = "tinyimagenet", "tiny-imagenet-200"
# Parts begin with a letter or a digit: no "..", nothing absolute, no drive, no backslash.
INSIDE = re.compile(rf"{FOLDER}(/[A-Za-z0-9][\w.-]*)*/?", re.ASCII)
MAX_FILES, MAX_FILE, MAX_BYTES = 200_000, 2**24, 2**30         # the real one: 120,000 pictures
KINDS = (0, stat.S_IFREG, stat.S_IFDIR)                        # 0: packed where there are none


def find_tinyimagenet(download=False):
    """Return the path of Tiny ImageNet's folder in the usual places.

    Looked through in this order: ``$TINYALEX_DATA``, ``./data``, ``~/.cache/tinyalex``; each for
    ``tiny-imagenet-200/`` or what is in it. Where only ``tiny-imagenet-200.zip`` is there, it is
    unpacked beside itself.

    Parameters
    ----------
    download : bool
        Whether to fetch the archive (248 MB) where it is in none of them, into
        ``$TINYALEX_DATA``, or else ``~/.cache/tinyalex``; ``TINYALEX_OFFLINE=1`` forbids it.

    Raises
    ------
    DataError
        If it is in none of them, or could not be fetched or unpacked; the message says why.

    Examples
    --------
    >>> import tempfile
    >>> from unittest import mock
    >>> with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(
    ...         f"{place}/tiny-imagenet-200.zip", "w") as archive:
    ...     for name in ("wnids.txt", "train/", "val/"):
    ...         archive.writestr(f"tiny-imagenet-200/{name}", "")
    ...     archive.close()
    ...     with mock.patch.dict(os.environ, TINYALEX_DATA=place):
    ...         find_tinyimagenet() == f"{place}/tiny-imagenet-200"
    True
    """
    for place in places():
        for path in (os.path.join(place, FOLDER), place):
            if _is_whole(path):
                return path
    for place in places():
        path = os.path.join(place, ARCHIVES[NAME].file)
        if os.path.isfile(path):
            return unpack(path)
    if download and may_download():
        return unpack(fetch(NAME))
    raise DataError(not_there(NAME))


def unpack(path):
    """Unpack the archive beside itself, and return the path of the folder.

    Raises
    ------
    DataError
        It is damaged or has something in it that does not belong there; nothing is left then.
    """
    place = os.path.dirname(path)
    folder = os.path.join(place, FOLDER)
    with writing(NAME, place, 5e8), alone(place) as mark:
        if _is_whole(folder):                        # who was alone before has unpacked it
            return folder
        if os.path.exists(folder):
            raise DataError(f"where={NAME!r}: {folder} lacks wnids.txt, train/ or val/, and {path} "
                            "cannot be unpacked there; move the folder away")
        hidden = os.path.join(place, f".{FOLDER}{mark}.part")
        shutil.rmtree(hidden, ignore_errors=True)    # of a process that was killed
        try:
            _extract(path, hidden)
            if not _is_whole(os.path.join(hidden, FOLDER)):
                raise DataError(f"where={NAME!r}: {path} has no wnids.txt, train/ and val/ in "
                                f"{FOLDER}/; expected the official archive")
            if hasattr(os, "sync"):
                os.sync()                            # the bytes first, then the name
            publish(os.path.join(hidden, FOLDER), folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return folder


def _is_whole(folder):
    return os.path.isfile(os.path.join(folder, "wnids.txt")) and all(
        os.path.isdir(os.path.join(folder, part)) for part in ("train", "val"))


def _extract(path, to):
    from tqdm import tqdm

    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked(path, archive.infolist())
            for member in tqdm(members, f"unpacking {FOLDER}", unit=" files", disable=None,
                               leave=False, dynamic_ncols=True):
                target = os.path.join(to, member.filename)
                os.makedirs(target if member.is_dir() else os.path.dirname(target), exist_ok=True)
                if not member.is_dir():
                    with open(target, "xb") as file:
                        file.write(archive.read(member))     # never more than file_size
    except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
        raise DataError(f"where={NAME!r}: {path} is damaged ({problem}); remove it, and it can be "
                        "fetched again") from None


def _checked(path, members):
    """Return the members of an archive, each of which is safe to write."""
    total, seen = sum(member.file_size for member in members), set()
    wrong = None
    if len(members) > MAX_FILES or total > MAX_BYTES:
        wrong = f"{len(members):,} files of {total:,} bytes in all"
    for member in members:
        plain = (INSIDE.fullmatch(member.filename) and member.filename not in seen
                 and stat.S_IFMT(member.external_attr >> 16) in KINDS
                 and member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                 and not member.flag_bits & 1                # encrypted
                 and member.file_size <= MAX_FILE)
        seen.add(member.filename)
        if not plain:
            wrong = repr(member.filename[:80])
    if wrong:
        raise DataError(f"where={NAME!r}: {path} holds {wrong}, unlike the official archive; "
                        "nothing was unpacked")
    return members
