"""Windows, mirror, mean and color noise against the plainest loops that say the same."""
import numpy as np
import pytest

from tinyalex import random
from tinyalex.data import Augment, fit

VALUES = np.array([14830.0, 1376.0, 389.0])
VECTORS, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))


def some(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def generator():
    return random.generator("augment", seed=1, step=2, index=3)


def padding(length, size):
    """The rule in words: an eighth when no larger than the input, or what it takes to fill it."""
    return 0 if length > size else max(length // 8, int(np.ceil((size - length) / 2)))


def naive(picture, mean, size, u, mirrored_below=0.5, central=False):
    """Pad with the mean, choose a window, subtract, mirror: one step after another."""
    height, width = picture.shape[:2]
    field = np.broadcast_to(mean, picture.shape) if mean.shape == picture.shape else \
        np.broadcast_to(mean.mean((0, 1)), picture.shape)
    ph, pw = padding(height, size), padding(width, size)
    zero = np.pad(picture.astype(np.float64) - field, ((ph, ph), (pw, pw), (0, 0)))
    y = int(u[0] * (zero.shape[0] - size + 1))
    x = int(u[1] * (zero.shape[1] - size + 1))
    window = zero[y:y + size, x:x + size]
    mirrored = u[2] < mirrored_below
    if central and mean.shape == picture.shape:
        cut = picture[y:y + size, x:x + size]
        cut = cut[:, ::-1] if mirrored else cut
        top, left = (height - size) // 2, (width - size) // 2
        return cut - mean[top:top + size, left:left + size].astype(np.float64)
    return window[:, ::-1] if mirrored else window


@pytest.mark.parametrize("sizes, size, per_pixel", [
    ([(12, 12)] * 9, 8, True), ([(12, 15)] * 9, 8, True), ([(12, 12)] * 9, 8, False),
    ([(8, 8)] * 9, 8, True), ([(7, 7)] * 9, 8, True), ([(3, 20)] * 9, 8, True),
    ([(64, 64)] * 4, 67, True), ([(2, 2)] * 4, 9, False),
    ([(12, 12), (8, 30), (9, 9), (5, 40), (12, 12)], 8, True)])
def test_training_windows_match_a_naive_loop(sizes, size, per_pixel):
    pictures = some(*sizes)
    mean = (some(sizes[0], seed=9)[0] if per_pixel else np.full((1, 1, 3), 99)).astype(np.float32)
    images = Augment(size, mean, scale=4.0).train(pictures, generator())
    places = generator().random((len(pictures), 3))
    assert images.shape == (len(sizes), 3, size, size) and images.dtype == np.float32
    for image, picture, u in zip(images, pictures, places, strict=True):
        expected = naive(picture, mean, size, u) / 4
        np.testing.assert_allclose(image.transpose(1, 2, 0), expected, atol=1e-4)


def test_central_mean_is_that_of_the_middle_wherever_the_window_is():
    pictures, mean = some(*[(12, 14)] * 12), some((12, 14), seed=9)[0].astype(np.float32)
    images = Augment(8, mean, central_mean=True).train(pictures, generator())
    places = generator().random((12, 3))
    assert (places[:, 2] < 0.5).any() and (places[:, 2] > 0.5).any()
    for image, picture, u in zip(images, pictures, places, strict=True):
        expected = naive(picture, mean, 8, u, central=True)
        np.testing.assert_allclose(image.transpose(1, 2, 0), expected, atol=1e-4)
    own, middle = (Augment(8, mean, central_mean=c).center(pictures) for c in (False, True))
    assert np.array_equal(own, middle)                  # the middle window's place is the middle


def test_central_mean_of_small_pictures_leaves_the_padding_zero():
    picture, mean = some((8, 8))[0], np.full((8, 8, 3), 50, np.float32)
    images = Augment(8, mean, central_mean=True, flip=False).train([picture] * 20, generator())
    inside = images != 0
    assert inside.any((0, 1)).all() and (~inside).any((1, 2, 3)).all()
    values = set(np.unique(images)) - {0.0}
    assert values <= set(np.unique(picture.astype(np.float32) - 50))
    tiny = some((6, 6))[0]                              # one place only: the middle
    for reading in (True, False):
        image = Augment(8, tiny, central_mean=reading, flip=False).train([tiny], generator())
        assert (image == 0).all()


def test_windows_reach_all_places_and_both_sides_equally():
    ramp = np.zeros((10, 10, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.mgrid[:10, :10]
    images = Augment(8, np.zeros((1, 1, 3))).train([ramp] * 3600, generator())
    mirrored = images[:, 1, 0, 0] > images[:, 1, 0, 7]
    left = np.where(mirrored, images[:, 1, 0, 7], images[:, 1, 0, 0])
    count = np.zeros((2, 3, 3))
    np.add.at(count, (mirrored.astype(int), images[:, 0, 0, 0].astype(int), left.astype(int)), 1)
    assert count.sum() == 3600 and np.abs(count - 200).max() < 5 * 200**0.5


def test_crop_and_flip_can_be_switched_off():
    pictures, mean = some(*[(12, 12)] * 20), np.zeros((1, 1, 3))
    still = Augment(8, mean, crop=False, flip=False)
    assert np.array_equal(still.train(pictures, generator()), still.center(pictures))
    only = Augment(8, mean, crop=False).train(pictures, generator())
    middle = still.center(pictures)
    turned = generator().random((20, 3))[:, 2] < 0.5
    assert 0 < turned.sum() < 20
    assert np.array_equal(only[turned], middle[turned][..., ::-1])
    assert np.array_equal(only[~turned], middle[~turned])


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_row_is_the_same_on_any_share_of_the_batch(noise):
    pictures = some(*[(12, 12)] * 10)
    augment = Augment(8, np.zeros((1, 1, 3)), 1, VALUES, VECTORS, noise)
    whole = augment.train(pictures, generator())
    for rows in ([0, 1, 2], [7, 8, 9], [4], []):
        part = augment.train([pictures[r] for r in rows], generator(), rows, total=10)
        assert np.array_equal(part, whole[rows])


def noise_of(reading, count=1, noise=0.1):
    flat = [np.full((9, 9, 3), 130, np.uint8)] * count
    augment = Augment(8, np.full((1, 1, 3), 30), 1, VALUES, VECTORS, noise, reading)
    return augment.train(flat, generator())


def test_color_noise_is_one_color_a_picture_by_the_formula_of_each_reading():
    rng = generator()
    rng.random((5, 3))                                  # the places are drawn first
    normal = rng.standard_normal((5, 3))
    paper = 255 * (normal * 0.1 * VALUES / 255**2) @ VECTORS.T      # of pixels from 0 to 1
    source = 0.1 * (normal * np.sqrt(VALUES)) @ VECTORS.T           # of pixels from 0 to 255
    for reading, expected in (("paper", 100 + paper), ("source", (100 + source) / 1.1)):
        images = noise_of(reading, 5)
        assert (images == images[:, :, :1, :1]).all()
        np.testing.assert_allclose(images[:, :, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("reading, spread", [
    ("paper", 0.1 * VALUES / 255), ("source", 0.1 * np.sqrt(VALUES) / 1.1)])
def test_color_noise_has_the_statistics_of_its_reading(reading, spread):
    images = noise_of(reading, 4000)
    colors = images[:, :, 0, 0].astype(np.float64)
    along = (colors - colors.mean(0)) @ VECTORS                     # principal axes
    np.testing.assert_allclose(along.std(0), spread, rtol=0.06)
    correlation = np.corrcoef(along.T) - np.eye(3)
    assert np.abs(correlation).max() < 0.06
    mean = 100 / (1.1 if reading == "source" else 1)
    assert np.abs(colors.mean(0) - mean).max() < 5 * spread.max() / 4000**0.5


def test_color_noise_and_its_division_are_for_training_only():
    flat = [np.full((9, 9, 3), 130, np.uint8)]
    augment = Augment(8, np.full((1, 1, 3), 30), 2.0, VALUES, VECTORS, 0.1, "source")
    assert (augment.center(flat) == 50).all() and (augment.ten(flat) == 50).all()
    augment.color_noise = 0.0                           # as the 2012 runs did near their end
    assert (augment.train(flat, generator()) == 50).all()


def test_the_padding_of_a_small_picture_takes_the_noise_too():
    # Padded with the mean, then given noise, then freed of the mean: the noise stays.
    augment = Augment(8, np.full((1, 1, 3), 60), 1, VALUES, VECTORS, 0.1, "paper")
    image = augment.train([np.full((2, 2, 3), 60, np.uint8)], generator())[0]
    assert (image == image[:, :1, :1]).all() and (image != 0).all()


@pytest.mark.parametrize("height, width", [(12, 12), (11, 16), (9, 9), (8, 8), (6, 13), (3, 3)])
def test_ten_windows_match_slices_by_hand(height, width):
    picture, mean = some((height, width))[0], some((height, width), seed=9)[0].astype(np.float32)
    ten = Augment(8, mean, 2.0).ten([picture, picture])
    assert ten.shape == (2, 10, 3, 8, 8) and np.array_equal(ten[0], ten[1])
    ph, pw = padding(height, 8), padding(width, 8)
    whole = np.pad((picture - mean) / 2, ((ph, ph), (pw, pw), (0, 0))).transpose(2, 0, 1)
    top, left = ph + (height - 8) // 2, pw + (width - 8) // 2
    crops = (whole[:, :8, :8], whole[:, :8, -8:], whole[:, -8:, :8], whole[:, -8:, -8:],
             whole[:, top:top + 8, left:left + 8])
    for found, mirrored, crop in zip(ten[0, :5], ten[0, 5:], crops, strict=True):
        assert np.array_equal(found, crop) and np.array_equal(mirrored, crop[..., ::-1])


def test_center_is_the_middle():
    picture = some((12, 14))[0]
    images = Augment(8, np.zeros((1, 1, 3))).center([picture])
    assert np.array_equal(images[0], picture[2:10, 3:11].transpose(2, 0, 1))


def test_pictures_of_another_size_than_the_mean_picture_get_its_color():
    mean = some((12, 12))[0].astype(np.float32)
    picture = some((20, 9), seed=1)[0]
    expected = Augment(8, mean.mean((0, 1), keepdims=True)).ten([picture])
    np.testing.assert_allclose(Augment(8, mean).ten([picture]), expected, atol=1e-4)


def test_resize_brings_all_to_one_size_first():
    pictures, mean = some((30, 20), (16, 40), (10, 10)), some((10, 10))[0].astype(np.float32)
    found = Augment(8, mean, resize=10).train(pictures, generator())
    by_hand = Augment(8, mean).train([fit(p, 10) for p in pictures], generator())
    assert np.array_equal(found, by_hand)


def test_batches_lie_channels_last_and_may_be_empty():
    augment = Augment(8, np.zeros((1, 1, 3)), 1, VALUES, VECTORS, 0.1)
    pictures = some(*[(12, 12)] * 3)
    assert augment.train(pictures, generator()).transpose(0, 2, 3, 1).flags.c_contiguous
    assert augment.ten(pictures).transpose(0, 1, 3, 4, 2).flags.c_contiguous
    assert augment.train([], generator(), [], total=4).shape == (0, 3, 8, 8)
    assert augment.center([]).shape == (0, 3, 8, 8) and augment.ten([]).shape == (0, 10, 3, 8, 8)


def test_pictures_are_not_written_to():
    pictures = some(*[(8, 8)] * 4)
    before = [p.copy() for p in pictures]
    for picture in pictures:
        picture.flags.writeable = False
    mean = before[0].astype(np.float32)
    augment = Augment(8, mean, 2, VALUES, VECTORS, 0.1)
    augment.train(pictures, generator()), augment.ten(pictures), augment.center(pictures)
    assert np.array_equal(before, pictures) and np.array_equal(mean, before[0])


@pytest.mark.parametrize("wrong, match", [
    ({"image_size": 0}, "image_size: got 0"), ({"mean": np.zeros(3)}, r"mean: got \(3,\)"),
    ({"scale": 0}, "scale: got 0"), ({"color_noise": -1}, "color_noise: got -1"),
    ({"color_reading": "2012"}, "color_reading: got '2012'; expected paper or source"),
    ({"color_noise": 0.1}, "eigenvalues: got None"),
    ({"color_noise": 0.1, "eigenvalues": VALUES}, "eigenvectors: got None"),
    ({"resize": 0}, "resize: got 0")])
def test_wrong_arguments_are_named(wrong, match):
    with pytest.raises(ValueError, match=match):
        Augment(**{"image_size": 8, "mean": np.zeros((1, 1, 3)), **wrong})
