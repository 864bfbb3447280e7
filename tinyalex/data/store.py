"""A store: pictures brought to one size once, and read for weeks. ``prepare`` writes it.

A folder with these files::

    store.json                 what it is, how it was made, and the SHA-256 of all the others
    train-000000.tar, ...      shards in WebDataset's layout: 000000123.jpg, 000000123.cls
    train-index.npy            for each picture: shard, offset, length, label
    statistics.safetensors     the training pictures' mean and principal colors
    val-000000.tar, ...  val-index.npy

or with ``train.npy`` and ``val.npy``, uint8 of shape (N, S, S, 3), in place of shards. store.json
is written last: a folder without it is no store. There is no pickle in any of this.

Both are read by offset and not through a memory map: where a disk fails or a file is cut short
under a map, the system ends the whole process; so, one picture is broken, and has a name.
"""
import hashlib
import io
import json
import os
import re

import numpy as np

from .dataset import DataError, Dataset, check_labels
from .disk import File
from .pictures import BrokenPicture, decode_picture
from .statistics import Statistics

FORMATS = ("webdataset", "memmap")
KIND, VERSION = "tinyalex store", 1
DESCRIPTION, STATISTICS = "store.json", "statistics.safetensors"
UNFINISHED, SETTINGS = "unfinished", "settings.json"
INDEX = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("label", "<u4")])
NAME = re.compile(r"(train|val)(-\d{6}\.tar|\.npy)", re.ASCII)


def is_store(where):
    """Return whether a folder is a store, or one day will be.

    Examples
    --------
    >>> is_store(".")
    False
    """
    return any(os.path.isfile(os.path.join(where, name))
               for name in (DESCRIPTION, os.path.join(UNFINISHED, SETTINGS)))


class StoreDataset(Dataset):
    """One split of a store.

    Parameters
    ----------
    path : str
        The store's folder.
    split : {"train", "val"}
    resize : int, optional
        As for :class:`Dataset`; the size in the store where None.

    Attributes
    ----------
    stored : int
        Side S of the pictures in the store.
    description : dict
        What store.json holds.

    Raises
    ------
    DataError
        If it is no store or an unfinished one, or a file is missing or has another length than
        store.json says. The shards' bytes are not read: that is what :meth:`verify` is for.

    Examples
    --------
    >>> import tempfile
    >>> from tinyalex.data import Shapes, StoreDataset, prepare
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = prepare(Shapes("train", 32), Shapes("val", 16), folder, size=64)
    ...     train = StoreDataset(folder, "train")
    ...     train, train.name(31), train.picture(31).shape, train.statistics.mean.shape
    (StoreDataset(32 pictures, 16 classes), 'train-000000.tar:000000031', (64, 64, 3), (64, 64, 3))
    """

    def __init__(self, path, split, resize=None):
        self.path, self.split = os.fspath(path), split
        if split not in ("train", "val"):
            raise DataError(f"split: got {split!r}; expected 'train' or 'val'")
        self.description = _described(self.path)
        try:
            self._understand(split)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
            if isinstance(problem, DataError):
                raise
            raise DataError(f"{self.path}: {DESCRIPTION} is damaged "
                            f"({type(problem).__name__}: {problem})") from None
        self.resize = resize or self.stored
        self._statistics = self._read_statistics()
        self._files = [self._open(shard) for shard in self.description["shards"][split]]

    def _understand(self, split):
        told = self.description
        self.stored, self.format = int(told["size"]), told["format"]
        if self.format not in FORMATS or self.stored < 1:
            raise ValueError(f"format {self.format!r}, size {self.stored}")
        self.shards = [shard["file"] for shard in told["shards"][split]]
        if not all(NAME.fullmatch(name) for name in self.shards):
            raise ValueError("a shard's name")
        self.index = self._read_index(told["indices"][split])
        super().__init__([one["name"] for one in told["classes"]], self.index["label"],
                         [one["wnid"] for one in told["classes"]])
        if len(self) != told["counts"][split]:
            raise ValueError(f"{split} has {len(self):,} pictures")
        check_labels(self.labels, len(self.classes))
        lengths = np.array([shard["bytes"] for shard in told["shards"][split]], np.uint64)
        known = self.index["shard"] < len(lengths)
        ends = self.index["offset"] + self.index["length"]
        if not known.all() or (ends > lengths[self.index["shard"]]).any() or (
                ends < self.index["offset"]).any():
            raise ValueError(f"{split}'s index points behind the end of a shard")

    @property
    def statistics(self):
        """The training split's :class:`Statistics`; None where pictures are resized anew."""
        return self._statistics if self.resize == self.stored else None

    @property
    def fingerprint(self):
        """A hash that stands for all that is in the store."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()

    def size(self, i):
        return self.stored, self.stored

    def name(self, i):
        return f"{self.shards[self.index['shard'][i]]}:{int(i):09d}"

    def _read(self, i):
        shard, offset, length, _ = self.index[i].tolist()
        try:
            data = self._files[shard].read(offset, length)
        except DataError as problem:                     # the disk's fault
            raise BrokenPicture(self.name(i), problem) from None
        if len(data) < length:
            raise BrokenPicture(self.name(i), f"is cut short: {len(data):,} of {length:,} bytes")
        shape = self.stored, self.stored, 3
        if self.format == "memmap":
            if length != np.prod(shape):
                raise BrokenPicture(self.name(i), f"has {length:,} bytes; expected {shape}")
            return np.frombuffer(data, np.uint8).reshape(shape)
        picture = decode_picture(data, self.name(i))
        if picture.shape != shape:
            raise BrokenPicture(self.name(i), f"has shape {picture.shape}; expected {shape}")
        return picture

    def verify(self, watch=None):
        """Read every byte of the store, of both splits, and compare the SHA-256 of each file.

        Parameters
        ----------
        watch : callable, (done, total) -> None, optional
            Told how many files have been read.

        Raises
        ------
        DataError
            If one differs; the message names it.
        """
        told = self.description
        files = [*told["shards"]["train"], *told["shards"]["val"], *told["indices"].values(),
                 told["statistics"]]
        for number, one in enumerate(files, 1):
            found = sha256(os.path.join(self.path, one["file"]))
            if found != one["sha256"]:
                raise DataError(f"{self.path}: {one['file']} is damaged: its SHA-256 begins "
                                f"{found[:16]}, store.json says {one['sha256'][:16]}")
            if watch:
                watch(number, len(files))

    def _open(self, entry):
        name = os.path.basename(entry["file"])
        file = File(os.path.join(self.path, name))
        if file.size != entry["bytes"]:
            raise DataError(f"{self.path}: {name} has {file.size:,} bytes; {DESCRIPTION} says "
                            f"{entry['bytes']:,}")
        return file

    def _checked(self, entry):
        """Return the bytes of a small file whose SHA-256 store.json knows."""
        data = self._open(entry).read(0, entry["bytes"])
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise DataError(f"{self.path}: {entry['file']} is damaged: its SHA-256 is not what "
                            f"{DESCRIPTION} says")
        return data

    def _read_index(self, entry):
        index = np.load(io.BytesIO(self._checked(entry)), allow_pickle=False)
        if index.dtype != INDEX or index.ndim != 1:
            raise ValueError(f"{entry['file']} is {index.dtype} of shape {index.shape}")
        return index

    def _read_statistics(self):
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            found = Statistics.from_dict(load(self._checked(self.description["statistics"])))
            shapes = found.mean.shape, found.eigenvalues.shape, found.eigenvectors.shape
            if shapes != ((self.stored, self.stored, 3), (3,), (3, 3)):
                raise ValueError(f"shapes {shapes}")
        except DataError:
            raise
        except (SafetensorError, KeyError, TypeError, ValueError) as problem:
            raise DataError(f"{self.path}: {STATISTICS} is damaged ({problem})") from None
        return found


def open_store(where, resize=None):
    """Open a store's two splits.

    Parameters
    ----------
    where : str
    resize : int, optional
        Bring the pictures to another size than the store's.

    Returns
    -------
    train, val : StoreDataset

    Raises
    ------
    DataError
        As for :class:`StoreDataset`.
    """
    return StoreDataset(where, "train", resize), StoreDataset(where, "val", resize)


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(where):
    path = os.path.join(where, DESCRIPTION)
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
    except FileNotFoundError:
        if is_store(where):
            raise DataError(f"where={where!r}: this store is not finished; the command that began "
                            "it goes on with it") from None
        raise DataError(f"where={where!r}: no store: it has no {DESCRIPTION}") from None
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}; expected a readable file") from None
    except ValueError as problem:                 # neither UTF-8 nor JSON
        raise DataError(f"{path}: is damaged: {problem}") from None
    kind, version = (told.get(k) if isinstance(told, dict) else None for k in ("kind", "version"))
    if kind != KIND:
        raise DataError(f"{path}: describes no store of pictures (kind {kind!r})")
    if version != VERSION:
        raise DataError(f"{path}: is of version {version}; this program reads {VERSION}")
    return told
