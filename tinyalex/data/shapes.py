"""The embedded data set: pictures of sixteen kinds of thing, drawn on the fly, as many as wanted.

Eight textures, four silhouettes and four two-colored figures, chosen for what a first layer can
learn from them: gratings call for oriented edges, the two-colored figures for filters of color.
Everything else about a picture is chance: place, size, tilt, period, sharpness, colors, light and
noise. A mirrored picture keeps its class; one turned upside down would not.

Picture i of a split is a pure function of (seed, split, i), and of class ``i % 16``; how it is
drawn stands in ``drawing``.
"""
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .dataset import DataError, Dataset
from .drawing import CHUNK, CLASSES, SIDE, draw_chunk

SIZES = {"train": 8000, "val": 2000}


class Shapes(Dataset):
    """The embedded data set; drawn when first asked for (seconds), then kept as uint8.

    Parameters
    ----------
    split : {"train", "val"}
        The two never share a picture: the split is part of what a picture is a function of.
    count : int, optional
        How many; 8,000 to train and 2,000 to validate. Any number can be drawn.
    seed : int

    Raises
    ------
    DataError
        If `split` is neither, or `count` not positive.

    Examples
    --------
    >>> from tinyalex.data import Shapes
    >>> shapes = Shapes("val", count=64)
    >>> shapes.picture(3).shape, shapes.classes[shapes.labels[3]]
    ((72, 72, 3), 'zigzag')
    """

    def __init__(self, split="train", count=None, seed=0):
        if split not in SIZES:
            raise DataError(f"split: got {split!r}; expected 'train' or 'val'")
        count = SIZES[split] if count is None else count
        if count < 1:
            raise DataError(f"count: got {count}; expected a positive number of pictures")
        super().__init__(CLASSES, np.arange(count) % len(CLASSES))
        self.split, self.seed = split, seed
        self._pictures, self._lock = None, threading.Lock()

    @property
    def pictures(self):
        """All pictures: uint8, shape (n, 72, 72, 3)."""
        with self._lock:
            if self._pictures is None:
                self._pictures = draw(0, len(self), self.split, self.seed)
        return self._pictures

    def _read(self, i):
        return self.pictures[i]

    def size(self, i):
        return SIDE, SIDE

    def name(self, i):
        return f"shapes {self.split}[{i}]"


def draw(start, stop, split="train", seed=0, threads=2):
    """Draw pictures `start` to `stop` of a split; picture i is of class ``i % 16``.

    Parameters
    ----------
    start, stop : int
        There is no last picture.
    split : str
    seed : int
    threads : int
        How many chunks are drawn at a time; the pictures do not depend on it.

    Returns
    -------
    numpy.ndarray, uint8, shape=(stop - start, 72, 72, 3)

    Examples
    --------
    >>> from tinyalex.data import shapes
    >>> bool((shapes.draw(30, 40) == shapes.draw(0, 64)[30:40]).all())
    True
    """
    pictures = np.empty((stop - start, SIDE, SIDE, 3), np.uint8)

    def fill(chunk):
        first = chunk * CHUNK
        low, high = max(start, first), min(stop, first + CHUNK)
        drawn = draw_chunk(split, seed, chunk)
        pictures[low - start:high - start] = drawn[low - first:high - first]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(start // CHUNK, -(-stop // CHUNK))))
    return pictures
