"""What an unfinished store remembers, so that it can be gone on with after any kind of end.

In ``unfinished/`` lies what the store is made from and how, and a receipt for each finished piece:
its pictures' places and labels, and their exact sums. A receipt is written when its piece is safe
on the disk, so whatever has none is made again, from the beginning and to the same bytes.
"""
import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import DataError
from .disk import write_in_order
from .statistics import Sums
from .store import DESCRIPTION, SETTINGS, UNFINISHED

try:
    import fcntl
except ImportError:             # Windows
    fcntl = None


@dataclass(frozen=True, eq=False)
class Receipt:
    """One finished piece of a split.

    Attributes
    ----------
    file : str
    bytes : int
        How long the file was then.
    sha256 : str
        Of the file, where it is whole.
    offset, length, label : numpy.ndarray, int64, shape=(n,)
        Of the pictures in it.
    left_out : list of str
        What could not be read: a line for each picture.
    """
    file: str
    bytes: int
    sha256: str
    offset: np.ndarray
    length: np.ndarray
    label: np.ndarray
    left_out: list

    def to_bytes(self, sums):
        """Return it, and the sums over its pictures, as a safetensors file."""
        from safetensors.numpy import save

        about = json.dumps({"file": self.file, "bytes": self.bytes, "sha256": self.sha256,
                            "left_out": self.left_out, "count": sums.count,
                            "pixels": sums.pixels})
        arrays = {"about": np.frombuffer(about.encode(), np.uint8), "offset": self.offset,
                  "length": self.length, "label": self.label, "color": sums.color,
                  "products": sums.products, "picture": sums.picture}
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data):
        """Return the receipt and the sums that :meth:`to_bytes` was given."""
        from safetensors.numpy import load

        arrays = load(data)
        about = json.loads(arrays["about"].tobytes())
        sums = Sums()
        sums.count, sums.pixels = about["count"], about["pixels"]
        sums.color, sums.products, sums.picture = (arrays[name] for name in (
            "color", "products", "picture"))
        return cls(about["file"], about["bytes"], about["sha256"], arrays["offset"],
                   arrays["length"], arrays["label"], about["left_out"]), sums


class Receipts:
    """The folder ``unfinished/`` of a store; nobody else can write to the store meanwhile.

    Parameters
    ----------
    output : path
        The store's folder; made where it is missing.
    settings : dict of str to str, int or None
        All that the store's bytes depend on, by the name of the flag that sets it.

    Attributes
    ----------
    finished : bool
        Whether the store was finished already, and only this folder was left to be removed.

    Raises
    ------
    DataError
        The folder holds something else, a finished store, or one begun with other settings; or
        another process is at work in it.
    """

    def __init__(self, output, settings):
        self.output = Path(output)
        self.folder, self.finished = self.output / UNFINISHED, False
        self._settings = settings

    def __enter__(self):
        self.output.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.output, os.O_RDONLY)   # of the folder: it leaves no file behind
        try:
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataError(f"output={str(self.output)!r}: another process is writing this store; "
                            "wait for it, or name another folder") from None
        except OSError:                                  # a file system without locks
            pass
        try:
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *error):
        os.close(self._lock)

    def _begin(self):
        path = self.folder / SETTINGS
        if (self.output / DESCRIPTION).exists():
            if not self.folder.exists():
                raise DataError(f"output={str(self.output)!r}: is a finished store, which is not "
                                "overwritten; name another folder")
            self.finished = True
            self.remove()
        elif path.exists():
            self._compare(path)
        else:
            others = [name for name in os.listdir(self.output) if name != UNFINISHED]
            if others:
                raise DataError(f"output={str(self.output)!r}: holds {ascii(min(others))} and is "
                                "no store; name a new folder")
            self.folder.mkdir(exist_ok=True)
            write_in_order((path, json.dumps(self._settings, indent=1).encode()))

    def _compare(self, path):
        try:
            begun = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError):
            raise DataError(f"{path}: is damaged; name another folder for the store") from None
        for name, value in self._settings.items():
            if begun.get(name) != value:
                what = ("another source, or one that has changed since" if name == "source"
                        else f"{name} {begun.get(name)}, not {value}")
                raise DataError(f"output={str(self.output)!r}: an unfinished store, begun with "
                                f"{what}; give the same again, or another folder")

    def read(self, split, pieces, is_done, total):
        """Return the receipts of a split's first pieces, as far as nothing is missing.

        Their sums are added to `total` and not kept: they take a megabyte and more for each.
        """
        from safetensors import SafetensorError

        found = []
        for piece in range(pieces):
            path = self._path(split, piece)
            if len(found) == piece and path.exists():
                with contextlib.suppress(SafetensorError, ValueError, KeyError):    # damaged
                    receipt, sums = Receipt.from_bytes(path.read_bytes())
                    if is_done(receipt):
                        total.merge(sums)
                        found.append(receipt)
                        continue
            path.unlink(missing_ok=True)
        return found

    def add(self, split, piece, receipt, sums):
        """Keep a receipt and the sums that belong to it."""
        write_in_order((self._path(split, piece), receipt.to_bytes(sums)))

    def remove(self):
        """Remove the folder: the store is finished."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def _path(self, split, piece):
        return self.folder / f"{split}-{piece:06d}.safetensors"
