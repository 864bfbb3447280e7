"""The embedded data set: a function of (seed, split, index), balanced, varied and not trivial."""
import numpy as np
import pytest

from tinyalex.data import DataError, Shapes, shapes
from tinyalex.data.drawing import CLASSES, color, polygon


def test_a_picture_depends_on_seed_split_and_index_alone():
    whole = shapes.draw(0, 160)
    assert whole.dtype == np.uint8 and whole.shape == (160, 72, 72, 3)
    for start, stop in ((0, 1), (31, 33), (64, 96), (150, 160), (7, 7)):
        assert np.array_equal(shapes.draw(start, stop, threads=1), whole[start:stop])
    for other in (shapes.draw(0, 160, seed=1), shapes.draw(0, 160, "val"), whole[::-1]):
        assert not (whole == other).all((1, 2, 3)).any()


def test_there_is_no_last_picture():
    far = shapes.draw(10**9 + 5, 10**9 + 7)
    assert far.shape == (2, 72, 72, 3) and not np.array_equal(far[0], far[1])


def test_classes_are_balanced_and_named():
    train = Shapes("train")
    assert len(train) == 8000 and len(Shapes("val")) == 2000 and len(set(train.classes)) == 16
    assert np.bincount(train.labels).tolist() == [500] * 16
    assert train.classes[train.labels[12]] == "red over green"
    assert Shapes("val", count=3).name(2) == "shapes val[2]"


def test_pictures_are_drawn_once_and_only_when_asked_for():
    few = Shapes("val", count=40)
    assert few._pictures is None and few.size(0) == (72, 72)
    assert few.pictures is few.pictures and few.picture(5).base is few.pictures
    assert np.array_equal(few.pictures, shapes.draw(0, 40, "val"))


def test_wrong_arguments():
    with pytest.raises(DataError, match="split: got 'test'"):
        Shapes("test")
    with pytest.raises(DataError, match="count: got 0"):
        Shapes("val", count=0)


def test_train_and_val_never_share_a_picture():
    seen = {picture.tobytes() for split in ("train", "val")
            for picture in shapes.draw(0, 1600, split)}
    assert len(seen) == 3200


def test_the_order_of_the_colors_is_what_tells_the_pairs_apart():
    pictures = shapes.draw(0, 16 * 40).reshape(40, 16, 72, 72, 3).astype(np.float32)
    redness = pictures[..., 0] - pictures[..., 1]
    blueness = pictures[..., 2] - pictures[..., :2].mean(-1)
    y = np.arange(72, dtype=np.float32)

    def height_of(weight):                              # rows counted from the top
        weight = np.clip(weight - 30, 0, None).sum(-1)
        return (weight * y).sum(-1) / (weight.sum(-1) + 1e-6)

    red, green = height_of(redness), height_of(-redness)
    assert (red < green)[:, 12].mean() > 0.9 and (red > green)[:, 13].mean() > 0.9
    blue, yellow = height_of(blueness), height_of(-blueness)
    assert (blue < yellow)[:, 14].mean() > 0.8 and (blue > yellow)[:, 15].mean() > 0.8


def test_stripes_run_the_way_they_are_named():
    pictures = shapes.draw(0, 16 * 40).reshape(40, 16, 72, 72, 3).mean(-1)
    down = np.abs(np.diff(pictures, axis=2)).mean((2, 3))           # (40, 16)
    along = np.abs(np.diff(pictures, axis=3)).mean((2, 3))
    assert (down > along)[:, 0].all() and (down < along)[:, 1].all()
    ratio = (down / along)[:, 2]
    assert ((ratio > 0.6) & (ratio < 1.6)).mean() > 0.9


def test_neither_color_nor_brightness_gives_a_texture_or_a_figure_away():
    pictures = shapes.draw(0, 16 * 60).reshape(60, 16, -1, 3).astype(np.float32)
    mean = pictures.mean(2)[:, :12]                                 # (60, 12, 3)
    assert np.ptp(mean.mean(0), axis=0).max() < 35                  # between classes, of 255
    assert mean.std(0).min() > 25                                   # within each class


def test_nearest_neighbor_is_far_better_than_chance_and_far_from_good():
    def small(split, count):                            # 18 x 18 pixels
        pictures = shapes.draw(0, count, split).reshape(count, 18, 4, 18, 4, 3)
        return pictures.mean((2, 4), dtype=np.float32).reshape(count, -1)
    train, val = small("train", 1600), small("val", 320)
    nearest = ((train**2).sum(1) - 2 * val @ train.T).argmin(1)
    error = (nearest % 16 != np.arange(320) % 16).mean()
    assert 0.5 < error < 0.85


def test_polygons_have_the_right_size():
    x = np.arange(400, dtype=np.float32) - 199.5
    for points, waist, area in ((3, 0.5, 3 * np.sqrt(3) / 4),
                                (5, 0.4, 5 * 0.4 * np.sin(np.pi / 5))):
        depth = polygon(x[None], x[:, None], np.float32(150), points, waist)
        assert (depth > 0).sum() == pytest.approx(area * 150**2, rel=0.01)
        assert depth[200 + 149, 199] > -2 > depth[200 + 156, 199]   # a point straight down


def test_colors():
    def rgb(*hsv):
        return color(*(np.full((1, 1), x, np.float32) for x in hsv)).ravel().round(3).tolist()
    assert rgb(0, 1, 1) == [1, 0, 0] and rgb(1 / 3, 1, 1) == [0, 1, 0]
    assert rgb(2 / 3, 1, 0.5) == [0, 0, 0.5] and rgb(0.7, 0, 0.25) == [0.25] * 3
    assert rgb(1.5, 1, 1) == rgb(0.5, 1, 1) and len(CLASSES) == 16
