"""Batches, prepared ahead of time by threads; the same ones however many threads there are.

Threads and not processes: decoding and NumPy let go of Python's lock, nothing is copied between
processes, and a thread sees the data set that is there. Batch b of epoch e is a function of
(seed, e, b) alone, which is why a run can be resumed in the middle of an epoch.
"""
import threading
import time
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from .. import random
from ..device import Device
from .crops import Crops
from .pictures import BrokenPicture

MODES = ("train", "center", "ten")
PATIENCE = 60             # seconds without a batch, after which a note says what is being read


class LoaderNote(UserWarning):
    """Something worth knowing about how the pictures come in."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures ready for the net.

    Attributes
    ----------
    images : numpy.ndarray, float32, shape=(N, 3, S, S), or (N, 10, 3, S, S) for ten windows
        Channels-last in memory. For a GPU they are Crops of this shape, which the net takes too.
    labels : numpy.ndarray, int64, shape=(N,)
    rows : numpy.ndarray, int64, shape=(N,)
        The places of these pictures in the global batch.
    skipped : tuple of str
        What could not be read: a line for each picture, its name first. N is smaller by so many,
        and may be 0.
    """
    images: np.ndarray | Crops
    labels: np.ndarray
    rows: np.ndarray
    skipped: tuple


class Loader:
    """Serve a data set in batches.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
        Of the global batch; the last one of an epoch may be smaller.
    augment : Augment
    seed : int
        Draws the order of each epoch and the windows of each batch.
    shuffle : bool
        A new order in each epoch; otherwise the data set's.
    workers : int
        Threads that prepare batches; with 0 they are prepared when asked for. Where no batch is
        ready for a minute, a `LoaderNote` names the pictures that the threads are reading.
    prefetch : int
        How many batches at most are being prepared or wait, ready.
    mode : {"train", "center", "ten"}
        Which windows: see :class:`Augment`.
    rank, ranks : int
        Serve the share `rank` of `ranks` of each global batch: neighboring rows, as equal in
        number as can be. Of n pictures the first n mod `ranks` ranks have one more than the
        others, which have none where there are fewer pictures than ranks. No picture of an epoch
        is left out or served twice, so whoever averages over ranks weighs each by its number.
    device : Device or str, optional
        Where the net's first parameters live. A GPU is given the pictures as bytes, :class:`Crops`,
        and cuts the windows itself; for a CPU the threads cut them.

    Attributes
    ----------
    skipped : int
        How many pictures could not be read in the batches served so far.
    waited : float
        For how many seconds those who asked had to wait for their batches so far.
    epoch : int
        The epoch that ``for images, labels in loader`` serves next.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.data import Augment, Loader, Shapes
    >>> augment = Augment(67, mean=np.full((1, 1, 3), 128))
    >>> loader = Loader(Shapes("train", count=96), batch_size=64, augment=augment)
    >>> [batch.images.shape for batch in loader.batches(epoch=0)]
    [(64, 3, 67, 67), (32, 3, 67, 67)]
    """

    def __init__(self, dataset, batch_size, augment, seed=0, shuffle=True, workers=2, prefetch=4,
                 mode="train", rank=0, ranks=1, device=None):
        for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0),
                                   ("prefetch", prefetch, 1), ("ranks", ranks, 1)):
            if value < least:
                raise ValueError(f"{name}: got {value}; expected {least} or more")
        if mode not in MODES:
            raise ValueError(f"mode: got {mode!r}; expected {', '.join(MODES)}")
        if not 0 <= rank < ranks:
            raise ValueError(f"rank: got {rank}; expected 0 to {ranks - 1}")
        self.dataset, self.batch_size, self.augment = dataset, batch_size, augment
        self.seed, self.shuffle, self.mode = seed, shuffle, mode
        self.workers, self.prefetch, self.rank, self.ranks = workers, prefetch, rank, ranks
        device = Device(device or "cpu:0")
        self.device = device if device.kind == "cuda" else None      # which cuts windows itself
        self.skipped, self.waited, self.epoch = 0, 0.0, 0
        self._reading = {}                                           # thread: picture

    def __len__(self):
        """Return the number of batches in an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        """Serve the next epoch as pairs of images and labels."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return ((batch.images, batch.labels) for batch in self.batches(epoch))

    def batches(self, epoch, start=0):
        """Serve the batches of an epoch, from batch `start` on.

        Leaving the loop early, by break or by an exception, ends the threads. What goes wrong in
        one of them, other than a broken picture, is raised here.

        Parameters
        ----------
        epoch, start : int

        Returns
        -------
        iterator of Batch
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start: got {start}; expected 0 to {len(self)} batches")
        return self._served(epoch, start)

    def order(self, epoch):
        """Return the order of the pictures in an epoch: int64, shape (n,)."""
        rows = np.arange(len(self.dataset))
        if self.shuffle:
            rows = random.generator("order", seed=self.seed, step=epoch).permutation(rows)
        return rows

    def _served(self, epoch, start):
        order = self.order(epoch)
        numbers = iter(range(start, len(self)))
        if not self.workers:
            for b in numbers:
                asked = time.perf_counter()
                yield self._counted(self._prepare(order, epoch, b), asked)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="tinyalex-loader")
        try:
            waiting = deque()
            while True:
                while len(waiting) < self.prefetch and (b := next(numbers, None)) is not None:
                    waiting.append(pool.submit(self._prepare, order, epoch, b))
                if not waiting:
                    return
                asked = time.perf_counter()
                self._watch(waiting[0])
                yield self._counted(waiting.popleft().result(), asked)
        finally:
            pool.shutdown(cancel_futures=True)

    def _watch(self, future):
        """Wait for a batch, and say what holds it up where that takes long."""
        if wait([future], PATIENCE).not_done:
            names = ", ".join(map(self.dataset.name, sorted(self._reading.copy().values())))
            warnings.warn(f"no batch for {PATIENCE} seconds; being read: {names or 'nothing'}",
                          LoaderNote, stacklevel=4)

    def _counted(self, batch, asked):
        self.waited += time.perf_counter() - asked
        self.skipped += len(batch.skipped)
        return batch

    def _prepare(self, order, epoch, b):
        whole = order[b * self.batch_size:(b + 1) * self.batch_size]
        pictures, labels, rows, skipped = [], [], [], []
        for row in np.array_split(np.arange(len(whole)), self.ranks)[self.rank]:
            i = self._reading[threading.get_ident()] = int(whole[row])
            try:
                pictures.append(self.dataset.picture(i))
            except BrokenPicture as problem:
                skipped.append(str(problem))
                continue
            finally:
                del self._reading[threading.get_ident()]
            labels.append(self.dataset.labels[i])
            rows.append(row)
        rows = np.array(rows, np.int64)
        if self.mode == "train":
            rng = random.generator("augment", seed=self.seed, step=epoch, index=b)
            images = self.augment.train(pictures, rng, rows, len(whole), self.device)
        else:
            images = getattr(self.augment, self.mode)(pictures, self.device)
        return Batch(images, np.array(labels, np.int64), rows, tuple(skipped))
