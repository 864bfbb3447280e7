"""The mean picture and the principal colors, against NumPy's own over all pixels."""
import numpy as np
import pytest

from tinyalex.data import (ArrayDataset, BrokenPicture, DataError, Dataset, Shapes, Statistics,
                           statistics)


class Loose(Dataset):
    """Pictures of any sizes; None is a broken one."""

    def __init__(self, pictures):
        super().__init__(("a", "b"), np.zeros(len(pictures)))
        self.pictures = pictures

    def _read(self, i):
        if self.pictures[i] is None:
            raise BrokenPicture(self.name(i), "is damaged")
        return self.pictures[i]


def some(count, *size, seed=0):
    mix = np.array([[90, 10, 0], [80, -20, 10], [70, 5, -15]])
    colors = np.random.default_rng(seed).standard_normal((count, *size, 3)) @ mix.T / 2 + 120
    return colors.clip(0, 255).astype(np.uint8)


def test_mean_and_covariance_are_those_of_all_pixels():
    pictures = some(150, 6, 5)
    found = statistics(ArrayDataset(pictures, np.zeros(150), ("a", "b")))
    assert found.sample == 150 and found.mean.dtype == np.float32
    np.testing.assert_allclose(found.mean, pictures.mean(0), rtol=1e-6)
    covariance = np.cov(pictures.reshape(-1, 3).T.astype(float), bias=True)
    rebuilt = found.eigenvectors @ np.diag(found.eigenvalues) @ found.eigenvectors.T
    np.testing.assert_allclose(rebuilt, covariance, rtol=1e-9)
    assert found.eigenvalues[0] > found.eigenvalues[1] > found.eigenvalues[2] > 0
    np.testing.assert_allclose(found.eigenvectors.T @ found.eigenvectors, np.eye(3), atol=1e-12)
    assert (found.eigenvectors[np.abs(found.eigenvectors).argmax(0), range(3)] > 0).all()


def test_pictures_of_different_sizes_give_a_mean_color_over_pixels():
    pictures = [*some(70, 4, 6), *some(3, 9, 2), *some(70, 4, 6, seed=1)]
    found = statistics(Loose(pictures))
    pixels = np.concatenate([p.reshape(-1, 3) for p in pictures]).astype(float)
    np.testing.assert_allclose(found.mean, pixels.mean(0).reshape(1, 1, 3), rtol=1e-6)
    np.testing.assert_allclose(found.eigenvalues.sum(), pixels.var(0).sum(), rtol=1e-9)


def test_the_sample_is_seeded_and_threads_change_no_bit():
    dataset = Shapes("train", count=400)

    def bits(**options):
        return [a.tobytes() for a in statistics(dataset, **options).to_dict().values()]
    assert bits(sample=100, threads=1) == bits(sample=100, threads=3)
    assert bits(sample=100, seed=0) != bits(sample=100, seed=1)
    assert bits(sample=400, seed=0) == bits(sample=9999, seed=1)    # all: nothing to draw
    assert statistics(dataset, sample=100).sample == 100


def test_broken_pictures_are_left_out():
    pictures = list(some(8, 4, 4))
    whole = statistics(Loose(pictures))
    found = statistics(Loose([None, *pictures[:5], None, *pictures[5:]]))
    assert found.sample == 8 and np.array_equal(found.mean, whole.mean)
    for nothing in ([None] * 3, []):
        with pytest.raises(DataError, match="none of [03] sampled pictures can be read"):
            statistics(Loose(nothing))


def test_one_color_has_no_spread():
    found = statistics(Loose([np.full((4, 4, 3), 7, np.uint8)] * 2))
    assert found.eigenvalues.tolist() == [0, 0, 0] and np.isfinite(found.eigenvectors).all()
    white = statistics(Loose([np.full((300, 200, 3), 255, np.uint8)] * 9))      # sums past 2**32
    assert white.eigenvalues.tolist() == [0, 0, 0] and (white.mean == 255).all()


def test_to_dict_and_back():
    found = statistics(Loose(list(some(4, 3, 3))))
    again = Statistics.from_dict(found.to_dict())
    assert all(isinstance(a, np.ndarray) for a in found.to_dict().values())
    assert again.sample == 4 and np.array_equal(again.mean, found.mean)
    assert np.array_equal(again.eigenvalues, found.eigenvalues)
    assert np.array_equal(again.eigenvectors, found.eigenvectors)
