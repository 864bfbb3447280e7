"""The mean picture and the principal colors of a training set: sections 2 and 4.1 of the paper."""
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


def statistics(dataset, seed=0, sample=5000, threads=2):
    """Compute the mean and the principal colors of a seeded sample of a data set.

    All sums are of integers and exact, so threads and their order change no bit.

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
    rows = np.arange(len(dataset))
    if len(rows) > sample:
        rows = np.sort(random.generator("statistics", seed=seed).permutation(rows)[:sample])
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda chunk: _Sums(dataset, chunk),
                              (rows[i:i + CHUNK] for i in range(0, len(rows), CHUNK))))
    count = sum(part.count for part in parts)
    if not count:
        raise DataError(f"dataset: none of {len(rows):,} sampled pictures can be read; the first "
                        f"is {dataset.name(rows[0]) if len(rows) else 'missing'}")
    pixels = sum(part.pixels for part in parts)
    color = sum(part.color for part in parts) / pixels                        # (3,)
    covariance = sum(part.products for part in parts) / pixels - np.outer(color, color)
    values, vectors = np.linalg.eigh(covariance)                              # ascending
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
    if len(set().union(*(part.shapes for part in parts))) == 1:
        mean = sum(part.picture for part in parts) / count
    else:
        mean = color.reshape(1, 1, 3)
    return Statistics(mean.astype(np.float32), values, vectors * signs, count)


class _Sums:
    """Sums over some pictures: of the pixels' colors, of their products, of whole pictures."""

    def __init__(self, dataset, rows):
        self.count, self.pixels, self.color, self.products = 0, 0, np.zeros(3), np.zeros((3, 3))
        self.shapes, self.picture = set(), 0
        for row in rows:
            try:
                picture = dataset.picture(int(row)).astype(np.float64)        # (H, W, 3)
            except BrokenPicture:
                continue
            colors = picture.reshape(-1, 3)
            self.count, self.pixels = self.count + 1, self.pixels + len(colors)
            self.color += colors.sum(0)
            self.products += colors.T @ colors
            self.shapes.add(picture.shape)
            self.picture = self.picture + picture if len(self.shapes) == 1 else 0
