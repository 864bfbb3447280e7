"""Prepare pictures once, to be read for weeks: any data set becomes a store of small squares.

The work is cut into pieces, each of which is a function of the source and the settings alone; a
piece that is finished has a receipt. So a run may be killed at any moment and begun again, with any
number of threads, and the store has the same bytes as if nothing had happened.
"""
import hashlib
import io
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from .. import random
from .dataset import DataError
from .disk import write_in_order
from .pictures import BrokenPicture, fit
from .receipts import Receipt, Receipts
from .sources import fingerprint, left_out_line
from .statistics import Sums
from .store import DESCRIPTION, FORMATS, INDEX, KIND, STATISTICS, VERSION, StoreDataset
from .store_write import WRITERS

SEED = 0                        # of the order of the training pictures
CHUNK = 16                      # pictures to a task
AHEAD = 4                       # chunks that wait, for each thread


def prepare(train, val, output, size=256, format="webdataset", quality=95, workers=2,
            shard_size=None, watch=None):
    """Write a store.

    Parameters
    ----------
    train, val : Dataset
        The pictures to learn from are stored in an order shuffled once, so that each shard is a
        fair sample; those to validate in the order that they have.
    output : path
        A new folder, or one in which such a run was ended before its time.
    size : int
        Each picture's shorter side is brought to it, and the central square kept.
    format : {"webdataset", "memmap"}
        JPEGs in tar shards, or one array of pixels for each split.
    quality : int
        Of the JPEGs, 1 to 100.
    workers : int
        Threads; the store does not depend on them.
    shard_size : int, optional
        Pictures in a shard; 10,000, or as many as make about a gigabyte, where None.
    watch : callable, (done, total, line) -> None, optional
        Told how many pictures are done, and in a line what is worth saying, or "".

    Returns
    -------
    dict
        What store.json holds now.

    Raises
    ------
    DataError
        An argument is out of range, `output` holds something else, no picture can be read, or the
        disk refused: full, read-only, ... What was finished stays then.

    Notes
    -----
    The mean and the principal colors are those of all training pictures, before they are encoded.

    Examples
    --------
    >>> import tempfile
    >>> from tinyalex.data import Shapes, prepare
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prepare(Shapes("train", 32), Shapes("val", 16), folder, size=64)["counts"]
    {'train': 32, 'val': 16}
    """
    if shard_size is None:       # a JPEG has about a sixth of its pixels' bytes; one ought to fit
        shard_size = max(1, min(10_000, 2**31 // (3 * max(size, 1)**2)))
    for name, value, most in (("size", size, 4096), ("quality", quality, 100),
                              ("workers", workers, 1024), ("shard_size", shard_size, 10**6)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise DataError(f"{name}: got {value!r}; expected 1 to {most}")
    if format not in FORMATS:
        raise DataError(f"format: got {format!r}; expected {' or '.join(FORMATS)}")
    made = {"quality": quality if format == "webdataset" else None, "shard-size": shard_size,
            "seed": SEED, "pillow": _pillow()}
    settings = {"size": size, "format": format, **made, "source": fingerprint(train, val)}
    try:
        with Receipts(output, settings) as receipts:
            if receipts.finished:
                return StoreDataset(output, "val").description
            job = _Job(receipts, WRITERS[format](receipts.output, size, quality), size, workers,
                       shard_size, watch, len(train) + len(val))
            done = {"train": job.split("train", train), "val": job.split("val", val)}
            return _finish(job, train, done, {"format": format, "size": size, "made": made})
    except BrokenPipeError:                              # of whoever watches
        raise
    except OSError as problem:
        raise DataError(f"output={os.fspath(output)!r}: {problem.strerror or problem}; what is "
                        "finished stays, and the same command goes on from there") from None


@dataclass
class _Chunk:
    """What a thread made of a few pictures."""
    sums: Sums = field(default_factory=Sums)
    records: list = field(default_factory=list)          # of (bytes, label)
    left_out: list = field(default_factory=list)


@dataclass
class _Job:
    receipts: Receipts
    writer: object
    size: int
    workers: int
    shard_size: int
    watch: object
    total: int
    done: int = 0
    sums: dict = field(default_factory=dict)             # by split

    def split(self, split, dataset):
        """Write a split's pieces, as far as they are missing; return all receipts."""
        rows = np.arange(len(dataset))
        if split == "train":
            rows = random.generator("store order", seed=SEED).permutation(rows)
        pieces = [rows[i:i + self.shard_size] for i in range(0, len(rows), self.shard_size)]
        total = self.sums[split] = Sums()
        found = self.receipts.read(split, len(pieces), self.writer.is_done, total)
        self.writer.start(split, found)
        self._tell(sum(len(r.label) + len(r.left_out) for r in found), "")
        first = sum(len(r.label) for r in found)
        chunks = [part[i:i + CHUNK] for part in pieces[len(found):]
                  for i in range(0, len(part), CHUNK)]
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="tinyalex-prepare")
        try:
            made = _ahead(pool, lambda chunk: self._make(dataset, chunk), chunks,
                          AHEAD * self.workers)
            for piece in range(len(found), len(pieces)):
                mine = islice(made, -(-len(pieces[piece]) // CHUNK))
                receipt, sums = self._write(split, piece, first, mine)
                self.receipts.add(split, piece, receipt, sums)
                total.merge(sums)
                self._tell(0, f"{receipt.file}: {len(receipt.label):,} pictures")
                found.append(receipt)
                first += len(receipt.label)
        finally:
            pool.shutdown(cancel_futures=True)
        if not first:
            raise DataError(f"source: none of {len(dataset):,} pictures in {split} can be read; "
                            f"the first is {found[0].left_out[0] if found else 'missing'}")
        return found

    def _write(self, split, piece, first, chunks):
        """Write one piece; return its receipt, which is not kept yet, and its sums."""
        sums, left_out, lengths, labels = Sums(), [], [], []

        def records():
            for chunk in chunks:
                sums.merge(chunk.sums)
                left_out.extend(chunk.left_out)
                for data, label in chunk.records:
                    lengths.append(len(data))
                    labels.append(label)
                    yield data, label
                self._tell(len(chunk.records) + len(chunk.left_out), "")
                for line in chunk.left_out:
                    self._tell(0, f"left out: {line}")

        file, nbytes, digest, offsets = self.writer.write(split, piece, first, records())
        return Receipt(file, nbytes, digest, *(np.array(column, np.int64) for column in
                                               (offsets, lengths, labels)), left_out), sums

    def _make(self, dataset, rows):
        chunk = _Chunk()
        for i in rows.tolist():
            try:
                square = fit(dataset.picture(i), self.size)
            except BrokenPicture as problem:
                chunk.left_out.append(left_out_line(dataset, i, problem))
                continue
            chunk.sums.add(square)
            chunk.records.append((self.writer.encode(square), int(dataset.labels[i])))
        return chunk

    def _tell(self, more, line):
        self.done += more
        if self.watch:
            self.watch(self.done, self.total, line)


def _ahead(pool, make, items, window):
    """Yield what threads make of the items, in their order, `window` of them ahead of time."""
    waiting = deque()
    for item in items:
        waiting.append(pool.submit(make, item))
        if len(waiting) == window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _finish(job, train, done, told):
    """Write what belongs to the store as a whole; store.json is the last."""
    words = getattr(train, "words", train.classes)
    told = {"kind": KIND, "version": VERSION, **told,
            "counts": {split: sum(len(r.label) for r in found) for split, found in done.items()},
            "left_out": {split: [line for r in found for line in r.left_out]
                         for split, found in done.items()},
            "classes": [{"wnid": folder, "name": name, "words": all_names} for
                        folder, name, all_names in zip(train.folders, train.classes, words,
                                                       strict=True)]}
    told["shards"] = {split: job.writer.finish(split, found) for split, found in done.items()}
    names = {split: f"{split}-index.npy" for split in done}
    files = {names[split]: _index(found, told["format"]) for split, found in done.items()}
    files[STATISTICS] = _serialized(job.sums["train"].statistics())
    entries = {name: {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
               for name, data in files.items()}
    told["indices"] = {split: entries[name] for split, name in names.items()}
    told["statistics"] = entries[STATISTICS]
    files[DESCRIPTION] = (json.dumps(told, indent=1) + "\n").encode()
    write_in_order(*((job.receipts.output / name, data) for name, data in files.items()))
    job.receipts.remove()
    return told


def _index(found, format):
    index = np.empty(sum(len(r.label) for r in found), INDEX)
    at = 0
    for piece, receipt in enumerate(found):
        rows = index[at:at + len(receipt.label)]
        rows["shard"] = piece if format == "webdataset" else 0
        for name in ("offset", "length", "label"):
            rows[name] = getattr(receipt, name)
        at += len(rows)
    file = io.BytesIO()
    np.save(file, index, allow_pickle=False)
    return file.getvalue()


def _serialized(statistics):
    from safetensors.numpy import save

    # Of another memory order than C the library would write wrong bytes, without an error.
    return save({name: np.array(value, order="C") for name, value in statistics.to_dict().items()})


def _pillow():
    from PIL import __version__, features

    return f"{__version__}, JPEG {features.version('libjpeg_turbo') or features.version('jpg')}"
