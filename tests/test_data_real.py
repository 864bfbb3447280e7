"""Real pictures, where there are any: in $TINYALEX_DATA_DIR, or ../shared/data by the checkout."""
import os
import pathlib
import tarfile

import numpy as np
import pytest

from tinyalex.data import Augment, Loader, decode_picture, open_dataset, statistics

DATA = pathlib.Path(os.environ.get("TINYALEX_DATA_DIR")
                    or pathlib.Path(__file__).parents[2] / "shared" / "data")


def members(archive, count, wanted=lambda name: True):
    """Yield the first `count` wanted files of an archive: name and bytes."""
    if not (DATA / archive).is_file():
        pytest.skip(f"no {archive} in {DATA}; set TINYALEX_DATA_DIR to where it is")
    with tarfile.open(DATA / archive, "r|gz") as tar:
        for member in tar:
            if count and member.isreg() and wanted(member.name):
                yield member.name, tar.extractfile(member).read()
                count -= 1
            if not count:
                return


def test_cifar10_pictures():
    found = [decode_picture(data, name) for name, data in members("cifar10-images.tar.gz", 200)]
    assert {picture.shape for picture in found} == {(32, 32, 3)} and len(found) == 200
    assert 60 < np.mean(found) < 200 and np.std(found) > 40


def test_imagenet_pictures_of_full_size():
    for name, data in members("imagenet-samples-100.tar.gz", 25):
        picture, square = decode_picture(data, name), decode_picture(data, name, resize=256)
        assert picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 10
        assert square.shape == (256, 256, 3)
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        middle = picture[top:top + side, left:left + side]
        assert np.abs(square.mean((0, 1)) - middle.mean((0, 1))).max() < 1


def test_tiny_imagenet_from_file_to_batch(tmp_path):
    for name, data in members("tiny-imagenet-100.part1of2.tar.gz", 1020,
                              lambda name: name.endswith(".JPEG") and "/train/" in name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    train, val = open_dataset(tmp_path / "tiny-imagenet-100", 67)
    assert len(train.classes) == 3 and len(train) + len(val) == 1020 and "held out" in train.note
    found = statistics(train, sample=200)
    assert found.mean.shape == (64, 64, 3) and found.eigenvalues[0] > 5 * found.eigenvalues[1]
    assert np.abs(found.eigenvectors[:, 0] - 3**-0.5).max() < 0.15  # brightness comes first
    augment = Augment(67, found.mean, 1, found.eigenvalues, found.eigenvectors, 0.1)
    batch = next(Loader(train, 64, augment).batches(0))
    assert batch.images.shape == (64, 3, 67, 67) and not batch.skipped
    assert np.abs(batch.images.mean()) < 25 and 30 < batch.images.std() < 90
