"""How pictures become a store's files: tar shards of JPEGs, or one array of pixels.

Each file is written beside its name, forced to the disk and only then given its name. Two runs
write equal bytes: the headers hold no time and no owner, and every place is settled beforehand.
"""
import io
import os
import tarfile

import numpy as np

from .disk import beside, force, publish
from .store import sha256

BLOCK = 512                     # bytes: the unit that a tar is made of


class TarShards:
    """WebDataset's layout: ``000000123.jpg`` and ``000000123.cls``, one after the other.

    Parameters
    ----------
    folder : pathlib.Path
    size : int
        Side S of the pictures.
    quality : int
        Of the JPEGs, 1 to 100.
    """
    def __init__(self, folder, size, quality):
        self.folder, self.quality = folder, quality

    def encode(self, picture):
        """Return the bytes that are stored for a picture."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=self.quality)
        return file.getvalue()

    def is_done(self, receipt):
        """Return whether what a receipt tells of is still there."""
        path = self.folder / receipt.file
        return path.is_file() and path.stat().st_size == receipt.bytes

    def start(self, split, receipts):
        """Prepare for going on behind these receipts."""

    def write(self, split, piece, first, records):
        """Write one shard.

        Parameters
        ----------
        split : str
        piece : int
            The shard's number.
        first : int
            The first picture's.
        records : iterable of (bytes, int)
            Encoded pictures and their labels.

        Returns
        -------
        file : str
        bytes : int
            How long the file is now.
        sha256 : str
        offsets : list of int
            Where the pictures lie in it.
        """
        path = self.folder / f"{split}-{piece:06d}.tar"
        temporary, offsets = beside(path), []
        try:
            with open(temporary, "wb") as file:
                for key, (data, label) in enumerate(records, first):
                    _member(file, f"{key:09d}.jpg", data)
                    offsets.append(file.tell() - _padded(len(data)))
                    _member(file, f"{key:09d}.cls", str(label).encode())
                file.write(bytes(2 * BLOCK))             # so a tar ends
                length = file.tell()
                force(file)
            publish(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path.name, length, sha256(path), offsets

    def finish(self, split, receipts):
        """Return store.json's entries for the files of a split."""
        return [{"file": r.file, "bytes": r.bytes, "sha256": r.sha256, "pictures": len(r.label)}
                for r in receipts]


class PixelArray:
    """One .npy file for a split: uint8, shape (N, S, S, 3), as ``np.load`` maps it.

    It grows piece by piece as a file. Growing it through a map would be no shorter, and on a full
    disk the system ends a process that writes through a map, without a word.
    """

    def __init__(self, folder, size, quality):
        self.folder, self.size = folder, size

    def encode(self, picture):
        """Return the bytes that are stored for a picture."""
        return picture.tobytes()

    def is_done(self, receipt):
        """Return whether what a receipt tells of is still there."""
        path = self.folder / receipt.file
        return any(p.is_file() and p.stat().st_size >= receipt.bytes for p in (path, beside(path)))

    def start(self, split, receipts):
        """Cut off what was written behind the last receipt."""
        path = self.folder / f"{split}.npy"
        if path.exists():                                # ended between the name and the rest
            os.replace(path, beside(path))
        with open(beside(path), "ab") as file:
            file.truncate(receipts[-1].bytes if receipts else 0)

    def write(self, split, piece, first, records):
        """Append one piece; see :meth:`TarShards.write`."""
        path = self.folder / f"{split}.npy"
        offsets = []
        with open(beside(path), "r+b") as file:
            if not first:
                self._head(file, 0)
            file.seek(0, os.SEEK_END)
            for data, _ in records:
                offsets.append(file.tell())
                file.write(data)
            length = file.tell()
            force(file)
        return path.name, length, "", offsets

    def finish(self, split, receipts):
        """Settle how many pictures there are, give the file its name and read it once."""
        path = self.folder / f"{split}.npy"
        count = sum(len(r.label) for r in receipts)
        with open(beside(path), "r+b") as file:
            self._head(file, count)
            force(file)
        publish(beside(path), path)
        return [{"file": path.name, "bytes": receipts[-1].bytes, "sha256": sha256(path),
                 "pictures": count}]

    def _head(self, file, count):
        # NumPy leaves room in it, so that the first axis may grow in place.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {
            "descr": "|u1", "fortran_order": False, "shape": (count, self.size, self.size, 3)})


WRITERS = {"webdataset": TarShards, "memmap": PixelArray}


def _member(file, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444              # time 0, owner 0: equal bytes each time
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    file.write(data.ljust(_padded(len(data)), b"\0"))


def _padded(length):
    return -(-length // BLOCK) * BLOCK
