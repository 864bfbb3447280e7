"""ImageNet's development kit: what the classes are called, and what the val pictures show.

``ILSVRC2012_validation_ground_truth.txt`` has a number for each val picture, 1 to 1000. It is not
a label: ``meta.mat`` says which wnid it stands for, and a label is the rank of the wnid.
"""
import gzip
import io
import os
import re
import tarfile
import zlib
from dataclasses import dataclass

from .dataset import DataError

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
META, TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
MAX_KIT = 128 * 2**20           # bytes, unpacked: many times what the real one has
FIELDS = ("ILSVRC2012_ID", "WNID", "words", "num_children", "num_train_images")


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Attributes
    ----------
    wnids : dict of int to str
        By the ground truth's number.
    words : dict of str to str
        All names of a wnid, as ``"tench, Tinca tinca"``.
    counts : dict of str to int
        How many training pictures a wnid has.
    truth : list of int
        Numbers of the val pictures, in the order of the files.
    """
    wnids: dict
    words: dict
    counts: dict
    truth: list


def read_devkit(path):
    """Read ``ILSVRC2012_devkit_t12.tar.gz``; it is unpacked in memory.

    Parameters
    ----------
    path : str

    Returns
    -------
    Devkit

    Raises
    ------
    DataError
        If it is damaged or contradicts itself, or SciPy, which reads meta.mat, is missing.
    """
    files = _unpacked(path)
    wnids, words, counts = _classes(path, files[META])
    lines = files[TRUTH].decode("ascii", "replace").split()
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"\d{1,6}", line, re.ASCII) or int(line) not in wnids:
            raise DataError(f"{path}: line {number} of {TRUTH} is {ascii(line[:40])}; expected 1 "
                            f"to {len(wnids)}")
    if not lines:
        raise DataError(f"{path}: {TRUTH} is empty; expected a number for each val picture")
    return Devkit(wnids, words, counts, [int(line) for line in lines])


def _unpacked(path):
    files = {}
    try:
        with gzip.open(path) as packed:
            data = packed.read(MAX_KIT + 1)
        if len(data) > MAX_KIT:
            raise DataError(f"{path}: unpacks to more than {MAX_KIT // 2**20} MB; this is not "
                            "ImageNet's development kit")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if member.isreg() and not member.issparse() and name in (META, TRUTH):
                    if name in files:
                        raise DataError(f"{path}: {name} is there twice")
                    files[name] = archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{path}: not a whole tar.gz archive ({problem})") from None
    missing = [name for name in (META, TRUTH) if name not in files]
    if missing:
        raise DataError(f"{path}: {' and '.join(missing)} not in it; expected {DEVKIT}")
    return files


def _classes(path, data):
    """Return what meta.mat says of its leaves: wnids by number; names and counts by wnid."""
    where = f"{path}: {META}"
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(f"{where} is read by SciPy, which is not installed: "
                        "pip install 'tinyalex[imagenet]'") from None
    wnids, words, counts = {}, {}, {}
    try:
        _check_size(data)
        synsets = loadmat(io.BytesIO(data), squeeze_me=True, variable_names=["synsets"])["synsets"]
        for number, wnid, names, children, count in zip(*(synsets[f] for f in FIELDS), strict=True):
            if int(children):                         # a class of classes
                continue
            if not re.fullmatch(r"n\d{8}", wnid, re.ASCII) or wnid in words or number in wnids:
                raise ValueError(f"{ascii(wnid)} is not a wnid or is there twice")
            wnids[int(number)] = str(wnid)
            words[wnid], counts[wnid] = " ".join(str(names).split()), int(count)
    # A damaged file comes out of SciPy as almost any exception.
    except Exception as problem:
        raise DataError(f"{where}: {' '.join(str(problem).split())[:200]}; expected a table "
                        f"'synsets' with {', '.join(FIELDS)}") from None
    if len(wnids) < 2 or sorted(wnids) != list(range(1, len(wnids) + 1)):
        raise DataError(f"{where}: {len(wnids)} classes, numbered otherwise than 1, 2, ...")
    return wnids, words, counts


def _check_size(data):
    """Raise ValueError where the compressed parts of a .mat file would fill the memory."""
    order = "big" if data[126:128] == b"MI" else "little"
    at, room = 128, MAX_KIT                           # behind the file's own header
    while at + 8 <= len(data):
        kind, length = (int.from_bytes(data[at + i:at + i + 4], order) for i in (0, 4))
        if kind == 15:                                # compressed by zlib
            packed = zlib.decompressobj()
            room -= len(packed.decompress(data[at + 8:at + 8 + length], room + 1))
            if room < 0:
                raise ValueError(f"it unpacks to more than {MAX_KIT // 2**20} MB")
        at += 8 + length
