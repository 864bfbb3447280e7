"""The mean picture and the principal colors of a training set: sections 2 and 4.1 of the paper."""
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .. import random
from .dataset import DataError
from .pictures import BrokenPicture

CHUNK = 64                      # pictures to a task


@dataclass(frozen=True, eq=False)
class Statistics:
    """What augmentation must know about a training set.

    Attributes
    ----------
    mean : numpy.ndarray, float32, shape=(H, W, 3) or (1, 1, 3)
        The mean picture, 0 to 255; the mean color where the pictures' sizes differ.
    eigenvalues : numpy.ndarray, float64, shape=(3,)
        Of the covariance of the pixels' colors, 0 to 255; the largest first.
    eigenvectors : numpy.ndarray, float64, shape=(3, 3)
        A column for each; its largest entry is positive, so that the sign is settled.
    sample : int
        From how many pictures.
    """
    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    sample: int

    def to_dict(self):
        """Return the parts as arrays by name, for a checkpoint."""
        return {"mean": self.mean, "eigenvalues": self.eigenvalues,
                "eigenvectors": self.eigenvectors, "sample": np.array(self.sample, np.int64)}

    @classmethod
    def from_dict(cls, arrays):
        """Build from what :meth:`to_dict` gave."""
        return cls(np.asarray(arrays["mean"], np.float32), np.asarray(arrays["eigenvalues"]),
                   np.asarray(arrays["eigenvectors"]), int(arrays["sample"]))


class Sums:
    """Exact sums over pictures, from which their statistics follow.

    All are of integers, so neither order nor grouping nor threads change a bit of the result.

    Attributes
    ----------
    count, pixels : int
        How many of each.
    color : numpy.ndarray, int64, shape=(3,)
        The sum of the pixels' colors.
    products : numpy.ndarray, int64, shape=(3, 3)
        The sum of the products of each pixel's colors.
    picture : numpy.ndarray, int64, shape=(H, W, 3)
        The sum of the pictures; of shape (0, 0, 3) where there is none or their sizes differ.

    Examples
    --------
    >>> from tinyalex.data.statistics import Sums
    >>> sums = Sums()
    >>> for level in (10, 30):
    ...     sums.add(np.full((2, 2, 3), level, np.uint8))
    >>> sums.statistics().mean[0, 0], sums.products[0].tolist()
    (array([20., 20., 20.], dtype=float32), [4000, 4000, 4000])
    """

    def __init__(self):
        self.count, self.pixels = 0, 0
        self.color, self.products = np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
        self.picture = np.zeros((0, 0, 3), np.int64)

    def add(self, picture):
        """Add one picture: uint8, shape (H, W, 3)."""
        colors = picture.reshape(-1, 3).astype(np.int64)                          # (H * W, 3)
        self._add(1, len(colors), picture.sum(0, np.int64).sum(0), colors.T @ colors, picture)

    def merge(self, other):
        """Add the sums over other pictures."""
        self._add(other.count, other.pixels, other.color, other.products, other.picture)

    def _add(self, count, pixels, color, products, picture):
        if self.count == 0:
            self.picture = picture.astype(np.int64)
        elif self.picture.shape == picture.shape:
            self.picture += picture
        elif count:
            self.picture = np.zeros((0, 0, 3), np.int64)
        self.count, self.pixels = self.count + count, self.pixels + pixels
        self.color, self.products = self.color + color, self.products + products

    def statistics(self):
        """Return the :class:`Statistics` of the pictures, of which there must be one at least."""
        color = self.color / self.pixels                                          # (3,)
        covariance = self.products / self.pixels - np.outer(color, color)
        values, vectors = np.linalg.eigh(covariance)                              # ascending
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        signs = np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
        mean = self.picture / self.count if self.picture.size else color.reshape(1, 1, 3)
        return Statistics(mean.astype(np.float32), values, vectors * signs, self.count)


def statistics(dataset, seed=0, sample=5000, threads=2):
    """Return the mean and the principal colors of a data set.

    A store knows those of all its training pictures; of any other data set, a seeded sample is
    read. Threads change no bit.

    Parameters
    ----------
    dataset : Dataset
    seed : int
        Draws the sample.
    sample : int
        How many pictures; all where there are no more.
    threads : int

    Returns
    -------
    Statistics
        Broken pictures are left out.

    Raises
    ------
    DataError
        If no picture of the sample can be read.

    Examples
    --------
    >>> from tinyalex.data import Shapes, statistics
    >>> found = statistics(Shapes("train", count=320))
    >>> found.mean.shape, found.sample, bool(found.eigenvalues[0] > found.eigenvalues[2])
    ((72, 72, 3), 320, True)
    """
    if dataset.statistics is not None:
        return dataset.statistics
    rows = np.arange(len(dataset))
    if len(rows) > sample:
        rows = np.sort(random.generator("statistics", seed=seed).permutation(rows)[:sample])
    total = Sums()
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(lambda chunk: _sums_of(dataset, chunk),
                             (rows[i:i + CHUNK] for i in range(0, len(rows), CHUNK))):
            total.merge(part)
    if not total.count:
        raise DataError(f"dataset: none of {len(rows):,} sampled pictures can be read; the first "
                        f"is {dataset.name(rows[0]) if len(rows) else 'missing'}")
    return total.statistics()


def _sums_of(dataset, rows):
    sums = Sums()
    for row in rows:
        with contextlib.suppress(BrokenPicture):
            sums.add(dataset.picture(int(row)))
    return sums
