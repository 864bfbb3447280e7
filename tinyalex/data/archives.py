"""ImageNet's official archives, read where they lie: nothing is extracted.

``ILSVRC2012_img_train.tar`` holds a tar for each class, ``ILSVRC2012_img_val.tar`` the pictures to
validate, and the development kit says what these are (``devkit``). The headers are walked through
once; then any number of threads read pictures by their offset.

Each member must be exactly what belongs there, or the archive is refused with one line; a folder
of pictures may be a muddle, these archives may not.
"""
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .dataset import Dataset, DataError
from .devkit import DEVKIT, read_devkit
from .disk import File
from .pictures import MAX_BYTES, decode_picture
from .tars import members, unique
from .trees import short_names

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
MD5 = {TRAIN: "1d675b47d978889d74fa0da5fadfb00e", VAL: "29b22e2961454d5413ddabcf34fc5622",
       DEVKIT: "fa75699e90414af021442c21a62c3abf"}
OFFICIAL = {"classes": 1000, "train": 1_281_167, "val": 50_000}


class ArchiveDataset(Dataset):
    """Pictures inside a tar.

    Parameters
    ----------
    file : File
    found : list of Member
    labels : sequence of int
    classes, folders, words : sequence of str
        Short names, wnids, and all names as the development kit has them.

    Attributes
    ----------
    official : bool
        Whether this is ImageNet itself, of which no picture may be missing.
    fingerprint : str
        A hash of all headers: names, sizes, places and times.
    """

    def __init__(self, file, found, labels, classes, folders, words):
        super().__init__(classes, labels, folders)
        self.file, self.words = file, tuple(words)
        self.official = len(folders) == OFFICIAL["classes"]
        self._names = [member.name for member in found]
        self._offsets = np.array([member.offset for member in found], np.int64)
        self._lengths = np.array([member.length for member in found], np.int64)
        digest = hashlib.sha256(self.labels.tobytes())
        for member in found:
            digest.update(repr(tuple(member)).encode())
        self.fingerprint = digest.hexdigest()

    def picture(self, i):               # resized while it is decoded: see read_picture
        return decode_picture(self._bytes(i), self.name(i), self.resize)

    def _read(self, i):
        return decode_picture(self._bytes(i), self.name(i))

    def name(self, i):
        return f"{os.path.basename(self.file.path)}:{self._names[i]}"

    def _bytes(self, i):
        length = min(int(self._lengths[i]), MAX_BYTES + 1)      # one more is refused as too large
        data = self.file.read(int(self._offsets[i]), length)
        if len(data) < length:
            raise DataError(f"{self.file.path}: became shorter while it was read")
        return data


def find_archives(paths):
    """Return {name: path} of the three archives, in one folder or given one by one; or None.

    Raises
    ------
    DataError
        If only some of them are there.

    Examples
    --------
    >>> find_archives(["."]) is None
    True
    """
    folder = paths[0] if len(paths) == 1 and os.path.isdir(paths[0]) else None
    given = [os.path.join(folder, name) for name in MD5] if folder else paths
    found = {os.path.basename(path): path for path in given if os.path.isfile(path)}
    missing = [name for name in MD5 if name not in found]
    if len(missing) == len(MD5) and len(paths) == 1:
        return None
    if missing and folder and os.path.isdir(os.path.join(folder, "train")):
        return None                                   # pictures that somebody has extracted
    wrong = [path for path in given if os.path.basename(path) not in MD5]
    if missing or wrong or len(given) > len(MD5):
        shown = wrong[0] if wrong else f"{', '.join(missing)} not there" if missing else "too many"
        raise DataError(f"source={' '.join(paths)!r}: {shown}; expected {', '.join(MD5)}, once "
                        "each, or one folder")
    return found


def open_archives(archives, workers=2, watch=None):
    """Open ImageNet's archives as data sets; all headers are walked through first.

    Parameters
    ----------
    archives : dict of str to str
        As :func:`find_archives` gives it.
    workers : int
        Threads that walk.
    watch : callable, (done, total) -> None, optional
        Told how many of the classes' archives have been walked through.

    Returns
    -------
    train, val : ArrayDataset
        In the order of wnids and file names. A class's label is the rank of its wnid.

    Raises
    ------
    DataError
        If an archive is cut short or holds what does not belong there, or if they and the
        development kit do not agree on classes, labels and numbers of pictures.
    """
    kit = read_devkit(archives[DEVKIT])
    wnids = tuple(sorted(kit.wnids.values()))
    words = [kit.words[wnid] for wnid in wnids]
    names = short_names(wnids, words), wnids, words
    if len(wnids) == OFFICIAL["classes"]:
        _expect_count(archives[DEVKIT], "train", sum(kit.counts.values()))
        _expect_count(archives[DEVKIT], "val", len(kit.truth))
    file = File(archives[VAL])
    labels = [wnids.index(kit.wnids[number]) for number in kit.truth]
    val = ArchiveDataset(file, _val_pictures(file, len(labels)), labels, *names)
    file = File(archives[TRAIN])
    inner = _inner_archives(file, kit)
    with ThreadPoolExecutor(workers) as pool:
        parts = []
        for part in pool.map(lambda member: _class_of(file, member, kit), inner):
            parts.append(part)
            if watch:
                watch(len(parts), len(inner))
    labels = np.repeat(np.arange(len(wnids)), [len(part) for part in parts])
    found = [member for part in parts for member in part]
    return ArchiveDataset(file, found, labels, *names), val


def verify(archives, watch=None):
    """Compare the MD5 of the archives with the official ones: 155 GB are read.

    Parameters
    ----------
    archives : dict of str to str
    watch : callable, (done, total) -> None, optional
        Told how many bytes are read.

    Raises
    ------
    DataError
        If one differs.
    """
    files = [File(path) for path in archives.values()]
    done, total = 0, sum(file.size for file in files)
    for name, file in zip(archives, files, strict=True):
        digest = hashlib.md5(usedforsecurity=False)
        for at in range(0, file.size, 2**23):
            digest.update(data := file.read(at, 2**23))
            done += len(data)
            if watch:
                watch(done, total)
        if digest.hexdigest() != MD5[name]:
            raise DataError(f"{file.path}: its MD5 is {digest.hexdigest()}, the official archive's "
                            f"is {MD5[name]}; it is damaged or another one")


def _val_pictures(file, count):
    """Return the val archive's members, of which each must have its line of ground truth."""
    found = unique(members(file.read, 0, file.size, file.path), file.path)
    expected = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, count + 1)]
    wrong = {member.name for member in found}.symmetric_difference(expected)
    if wrong:
        raise DataError(f"{file.path}: {len(found):,} pictures for {count:,} lines of ground "
                        f"truth; the first that differs is {ascii(min(wrong))}")
    return sorted(found, key=lambda member: member.name)


def _inner_archives(file, kit):
    """Return the train archive's members, a tar for each wnid, sorted."""
    inner = unique(members(file.read, 0, file.size, file.path), file.path)
    for member in inner:
        if not re.fullmatch(r"n\d{8}\.tar", member.name, re.ASCII):
            raise DataError(f"{file.path}: member {ascii(member.name)} does not belong there; "
                            "expected a tar for each class, like n01440764.tar")
    given, known = {member.name[:9] for member in inner}, set(kit.wnids.values())
    for wnid in sorted(given ^ known)[:1]:
        raise DataError(f"{file.path}: {len(given):,} classes, the development kit has "
                        f"{len(known):,}; {wnid} is missing in "
                        + ("the kit" if wnid in given else "the archive"))
    return sorted(inner, key=lambda member: member.name)


def _class_of(file, inner, kit):
    """Return the pictures of one class, sorted by name."""
    wnid, where = inner.name[:9], f"{file.path}:{inner.name}"
    end = inner.offset + inner.length
    found = []
    for member in members(file.read, inner.offset, end, where):
        if not re.fullmatch(rf"{wnid}_\d+\.JPEG", member.name, re.ASCII):
            raise DataError(f"{where}: member {ascii(member.name)} does not belong there; expected "
                            f"pictures like {wnid}_10026.JPEG")
        found.append(member)
    if len(unique(found, where)) != kit.counts[wnid]:
        raise DataError(f"{where}: {len(found):,} pictures, the development kit says "
                        f"{kit.counts[wnid]:,}")
    return sorted(found, key=lambda member: member.name)


def _expect_count(path, split, count):
    if count != OFFICIAL[split]:
        raise DataError(f"{path}: tells of {count:,} pictures in {split}; ImageNet of 2012 has "
                        f"{OFFICIAL[split]:,}")
