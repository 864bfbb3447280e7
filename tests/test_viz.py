"""Pictures: what they show is what they were given, to the pixel where that can be said."""

import copy
import math
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from tinyalex import viz
from tinyalex.viz import style, towers_layout
from tinyalex.viz.curves import summarize

pytestmark = pytest.mark.filterwarnings("error")  # a picture is drawn without a grumble
ROOT = pathlib.Path(viz.__file__).parents[2]


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)


def region(figure, artist):
    """The pixels of an artist's box: (rows, columns, 3)."""
    page = pixels(figure)
    box = artist.get_window_extent(figure.canvas.get_renderer())
    left, right, low, high = (round(n) for n in (box.x0, box.x1, box.y0, box.y1))
    return page[len(page) - high:len(page) - low, left:right]


def texts(figure, gid=None):
    """All texts that are drawn, or those of one kind."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += axes.texts
        if axes.axison:
            found.append(axes.xaxis.label)
            for axis in (axes.xaxis, axes.yaxis):  # matplotlib has labels beyond the ends too
                low, high = axis.get_view_interval()
                found += [tick.label1 for tick, place in zip(
                    axis.get_major_ticks(), axis.get_majorticklocs()) if low <= place <= high]
        if axes.get_legend():
            found += axes.get_legend().get_texts()
    return [t for t in found if t.get_text().strip() and (gid is None or t.get_gid() == gid)]


def words(figure, gid=None):
    return [text.get_text() for text in texts(figure, gid)]


def assert_legible(figure):
    """No text lies upon another, none leaves the page, and none is smaller than 7 points."""
    figure.canvas.draw()
    renderer, boxes = figure.canvas.get_renderer(), []
    for text in texts(figure):
        patch = text.get_bbox_patch()
        box = (patch or text).get_window_extent(renderer)
        boxes.append((box.x0, box.y0, box.x1, box.y1))
        assert text.get_fontsize() >= 7
    name = words(figure)
    x0, y0, x1, y1 = np.array(boxes).T
    width, height = figure.canvas.get_width_height()
    for n in range(len(boxes)):
        assert x0[n] >= 0 and y0[n] >= 0 and x1[n] <= width and y1[n] <= height, name[n]
        over = (x0 < x1[n] - 1) & (x1 > x0[n] + 1) & (y0 < y1[n] - 1) & (y1 > y0[n] + 1)
        over[n] = False
        assert not over.any(), (name[n], name[int(np.argmax(over))])


# ---------------------------------------------------------------- the house: imports, state, files

def test_import_is_light_and_pyplot_is_never_touched(tmp_path):
    code = """
import sys
import tinyalex.viz as viz
assert not [m for m in sys.modules if m.startswith(("matplotlib", "PIL"))]
import matplotlib, numpy as np
before = matplotlib.rcParams.copy()  # dict() would choose a backend: that imports pyplot
figures = [viz.towers(), viz.curves([dict(kind="train", step=0, loss=1.0)], classes=10),
           viz.filters(np.ones((4, 3, 5, 5)), towers=2),
           viz.predictions([np.zeros((8, 8, 3), np.uint8)], [[.5, .5]], ("a", "b"), [0])]
for n, figure in enumerate(figures):
    for ending in ("png", "svg", "pdf"):
        viz.save(figure, f"{n}.{ending}")
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{n}.{ending}" for n in range(4) for ending in ("png", "svg", "pdf"))


def test_save_writes_the_picture_and_its_description(tmp_path):
    figure = viz.curves([])
    figure.alt_text = "Zwölf Bäume → drei"
    path = viz.save(figure, tmp_path / "a.png")
    with Image.open(path) as picture:
        assert picture.text["Description"] == figure.alt_text
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), pixels(figure))
    again = viz.save(figure, str(tmp_path / "b.png"), dpi=75)
    with Image.open(again) as picture:
        assert picture.size == (825, 375)
    assert figure.alt_text in viz.save(figure, tmp_path / "c.svg").read_text(encoding="utf-8")
    for ending in ("png", "pdf"):
        one, two = (viz.save(figure, tmp_path / f"{n}.{ending}").read_bytes() for n in "de")
        assert one == two  # no dates: the same figure, the same file


def test_save_gives_the_rights_of_any_new_file_and_takes_any_figure(tmp_path):
    from matplotlib.figure import Figure
    path = viz.save(Figure(), tmp_path / "plain.png")
    (tmp_path / "other").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_save_leaves_the_older_picture_where_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"older")

    def full(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        viz.save(viz.curves([]), path)
    monkeypatch.undo()
    broken = viz.curves([])
    broken.savefig = full
    with pytest.raises(OSError, match="no space"):
        viz.save(broken, path)
    assert path.read_bytes() == b"older" and os.listdir(tmp_path) == ["a.png"]


def test_save_errors_teach(tmp_path):
    figure = viz.curves([])
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf, found .*a\.jpg"):
        viz.save(figure, tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="make it first"):
        viz.save(figure, tmp_path / "none" / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(IsADirectoryError, match="name a file"):
        viz.save(figure, tmp_path / "b.png")
    with pytest.raises(TypeError, match="found ndarray"):
        viz.save(np.zeros(3), tmp_path / "a.png")


def test_figures_show_in_notebooks_and_draw_in_threads():
    drawn = []
    threads = [threading.Thread(target=lambda: drawn.append(viz.towers()._repr_png_()))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 3 and len(set(drawn)) == 1 and drawn[0].startswith(b"\x89PNG")


def test_shorten_keeps_both_ends_and_fits():
    figure = style.new_figure(4, 3)
    name = "American Staffordshire terrier"
    assert style.shorten(figure, name, 9.0) == name
    for room in (0.3, 0.8, 1.5):
        short = style.shorten(figure, name, room)
        assert style.extent(figure, short)[0] <= room
        head, tail = short.split("…")
        assert name.startswith(head) and name.endswith(tail) and head
    longer = style.shorten(figure, name, 1.5)
    head, tail = longer.split("…")
    more = name[:len(head) + 1] + "…" + tail, head + "…" + name[-len(tail) - 1:]
    assert all(style.extent(figure, one)[0] > 1.5 for one in more)  # no letter is lost in vain


# ---------------------------------------------------------------------------------------- filters

def weights(count=96, side=11, channels=3, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (count, channels, side, side))


def tile(figure, sheet, row, column, zoom, side=11):
    """The pixels of one filter, and how many of them a weight takes."""
    step = side * zoom + min(zoom, 8)
    part = region(figure, figure.axes[1 + sheet])
    return part[row * step:row * step + side * zoom, column * step:column * step + side * zoom]


def test_filter_pixels_are_the_scaled_weights():
    w = weights()
    figure = viz.filters(w, towers=2)  # 16 columns at 8 pixels a weight, as in the paper
    for k in (0, 15, 16, 47, 48, 95):
        want = np.rint(255 * (0.5 + w[k] / (2 * np.abs(w[k]).max())))
        want = np.kron(want.transpose(1, 2, 0), np.ones((8, 8, 1)))
        got = tile(figure, k // 48, k % 48 // 16, k % 16, 8)
        np.testing.assert_array_equal(got, want)


def test_filters_stay_sharp_when_printed_larger(tmp_path):
    figure = viz.filters(weights(6))
    small = region(figure, figure.axes[1])
    box = figure.axes[1].get_window_extent()
    with Image.open(viz.save(figure, tmp_path / "a.png", dpi=2 * figure.dpi)) as picture:
        page = np.asarray(picture.convert("RGB"))
    left, low = 2 * round(box.x0), len(page) - 2 * round(box.y1)
    large = page[low:low + 2 * len(small), left:left + 2 * small.shape[1]]
    np.testing.assert_array_equal(large, small.repeat(2, axis=0).repeat(2, axis=1))


def test_towers_stand_apart_and_are_named():
    figure = viz.filters(weights(), towers=2)
    assert len(figure.axes) == 3  # the page and a sheet for each tower
    upper, lower = (axes.get_window_extent() for axes in figure.axes[1:])
    assert 30 <= upper.y0 - lower.y1 <= 80  # thin, but wider than the 8 pixels between filters
    name, = (text for text in texts(figure) if text.get_text() == "tower 1: filters 48 to 95")
    box = name.get_window_extent(figure.canvas.get_renderer())
    assert lower.y1 < box.y0 and box.y1 < upper.y0
    page = pixels(figure)
    gap = page[len(page) - round(upper.y0):len(page) - round(lower.y1), round(box.x1) + 5:]
    assert (gap == 255).all()


@pytest.mark.parametrize("count,side,channels,towers", [
    (1, 11, 3, 1), (2, 1, 3, 2), (7, 11, 3, 1), (13, 5, 1, 1), (64, 3, 3, 2), (512, 3, 3, 1),
    (96, 11, 3, 3), (6, 64, 3, 1), (97, 7, 3, 1)])
def test_every_filter_is_drawn_once(count, side, channels, towers):
    w = np.full((count, channels, side, side), -1.0)  # black: easy to count on white
    figure = viz.filters(w, towers=towers, zoom=1)
    black = sum((region(figure, axes) == 0).all(axis=2).sum() for axes in figure.axes[1:])
    assert black == count * side * side
    assert_legible(figure)


def test_few_filters_are_large_and_gray_ones_gray():
    figure = viz.filters(weights(4))
    assert region(figure, figure.axes[1]).shape[0] >= 8 * 11
    w = weights(5, channels=1)
    part = region(viz.filters(w), viz.filters(w).axes[1])
    assert (part[..., 0] == part[..., 1]).all() and (part[..., 0] == part[..., 2]).all()


def test_broken_and_empty_filters_are_seen():
    w = weights(4)
    w[1, 2, 3, 4], w[2] = np.nan, 0
    w[3, 0, 0, 0] = -np.inf
    figure = viz.filters(w, zoom=8)
    columns = round(region(figure, figure.axes[1]).shape[1] / 96)
    for k in (1, 3):
        got = tile(figure, 0, k // columns, k % columns, 8)
        assert set(np.unique(got)) == {0, 255} and (got[0] == 0).all() and (got[44, 44] == 0).all()
        assert (got == 255).mean() > 0.9
    assert (tile(figure, 0, 2 // columns, 2 % columns, 8) == 128).all()  # zeros: mid-gray
    np.testing.assert_array_equal(tile(figure, 0, 0, 0, 8),
                                  tile(viz.filters(w[:1], zoom=8), 0, 0, 0, 8))
    assert "2 with NaN or infinity" in figure.alt_text


def test_filters_of_any_number_type_and_magnitude():
    w = weights(3)
    whole = np.rint(w * 100)
    want = pixels(viz.filters(whole))
    for other in (whole.astype(np.int8), whole.astype(np.float16), whole * 1e300, whole * 1e-300):
        other.flags.writeable = False
        np.testing.assert_array_equal(pixels(viz.filters(other)), want)
    kept = w.copy()
    viz.filters(w)
    np.testing.assert_array_equal(w, kept)


@pytest.mark.parametrize("arguments,error,message", [
    ((np.zeros((4, 48, 5, 5)),), ValueError, "48 input channels.*conv1.*c:c \\+ 1"),
    ((np.zeros((4, 3, 5)),), ValueError, r"shape \(K, 3, KH, KW\).*found \(4, 3, 5\)"),
    ((np.zeros((0, 3, 5, 5)),), ValueError, "at least 1"),
    ((np.zeros((9, 3, 5, 5)), 2), ValueError, "towers=2 cannot share 9 filters"),
    ((np.zeros((9, 3, 5, 5)), 0), ValueError, "towers=0"),
    ((np.zeros((9, 3, 5, 5)), 1.5), TypeError, "float"),
    ((np.zeros((9, 3, 5, 5)), 1, 0), ValueError, "zoom must be at least 1"),
    ((np.zeros((9, 3, 5, 5)), 1, 10**6), ValueError, "choose a smaller zoom"),
    ((np.zeros((9, 3, 5, 5), complex),), TypeError, "complex"),
    ((object(),), TypeError, r"tensor\.numpy\(\)")])
def test_filters_errors_teach(arguments, error, message):
    with pytest.raises(error, match=message):
        viz.filters(*arguments)


# ----------------------------------------------------------------------------------------- curves

def log(count=200, every=50, rates=(0.01,), **changes):
    rows = []
    for s in range(count):
        rows.append(dict(kind="train", step=s, epoch=s / 100, loss=4 / (1 + s / count), top1=60.0,
                         lr=rates[s * len(rates) // count], images_per_s=9.0))
        if every and (s + 1) % every == 0:
            rows.append(dict(kind="val", step=s, epoch=s / 100, loss=3.0, top1=50.0, top5=20.0))
    return [dict(row, **changes) for row in rows]


def line(axes, name):
    return next(line for line in axes.lines if str(line.get_label()).startswith(name))


def test_curves_show_the_rows():
    rows = log()
    kept = copy.deepcopy(rows)
    figure = viz.curves(iter(rows), classes=10)
    loss, error = figure.axes
    train = [row for row in rows if row["kind"] == "train"]
    np.testing.assert_array_equal(line(loss, "train").get_xdata(), [r["epoch"] for r in train])
    np.testing.assert_array_equal(line(loss, "train").get_ydata(), [r["loss"] for r in train])
    np.testing.assert_array_equal(line(error, "validation, top-5").get_ydata(), [20.0] * 4)
    assert line(loss, "guessing").get_ydata()[0] == math.log(10)
    assert line(error, "guessing").get_ydata()[0] == 90
    assert loss.get_yscale() == "linear" and loss.get_xlabel() == "epoch"
    assert rows == kept
    assert_legible(figure)


def test_curves_differ_by_more_than_color():
    error = viz.curves(log(), classes=10).axes[1]
    looks = [(line.get_linestyle(), line.get_marker()) for line in error.lines]
    assert len(set(map(str, looks))) == len(looks) == 4
    assert len({line.get_color() for line in error.lines}) == 4


def test_summary_hides_nothing():
    rng = np.random.default_rng(0)
    for count in (0, 1, 299, 300, 301, 1234, 100_000):
        y = rng.normal(size=count)
        s = summarize(np.arange(float(count)), y)
        assert len(s.y) == len(s.x) <= 300
        groups = [y[n:n + s.per] for n in range(0, count, s.per)]
        np.testing.assert_allclose(s.y, [g.mean() for g in groups], atol=1e-12)
        np.testing.assert_array_equal(s.low, [g.min() for g in groups])
        np.testing.assert_array_equal(s.high, [g.max() for g in groups])


def test_a_hundred_thousand_rows_become_a_band():
    rows = log(100_000, every=1000)
    rows[50_000]["loss"] = 77.0  # one spike among all: the band must still reach it
    figure = viz.curves(rows)
    loss = figure.axes[0]
    assert len(line(loss, "train").get_ydata()) <= 300
    band, = loss.collections
    assert band.get_paths()[0].get_extents().y1 == 77
    assert any("mean of 334" in word for word in words(figure))
    assert_legible(figure)


@pytest.mark.parametrize("rows", [
    [], [{}], [{"kind": "note", "text": "hello"}], [{"kind": "train"}],
    [{"kind": "train", "step": 0}], [{"kind": "train", "step": 7, "loss": 0.0}],
    [{"kind": "val", "epoch": 0.5, "top5": 3}], [{"kind": "val", "step": 3, "loss": math.nan}],
    log(2, every=0), log(3, every=1, loss=None), log(3, every=1, epoch=None),
    log(3, every=1, step=None), log(3, every=1, lr=0), log(3, every=1, loss=1e30),
    log(3, every=1, top1=math.inf), log(400, every=1)])
def test_odd_logs_are_drawn(rows):
    for classes in (None, 1000):
        figure = viz.curves(rows, classes=classes)
        assert_legible(figure)
        drawn = any(len(line.get_xdata()) for axes in figure.axes for line in axes.lines)
        assert drawn or figure.alt_text.startswith("A run")


def test_no_rows_says_so():
    assert words(viz.curves([])).count("no rows yet") == 2


def test_nan_is_marked_not_swallowed():
    rows = log(20, every=0)
    for n in (3, 4, 9):
        rows[n]["loss"] = (math.nan, math.inf, -math.inf)[n % 3]
    loss = viz.curves(rows).axes[0]
    crosses = line(loss, "train, NaN")
    np.testing.assert_array_equal(crosses.get_xdata(), [0.03, 0.04, 0.09])
    assert crosses.get_marker() == "x" and crosses.get_label().endswith(": 3")
    assert len(line(loss, "train").get_ydata()) == 17


def test_a_resumed_run_replaces_what_it_overtook():
    first, second = log(100, every=10), log(80, every=10)
    for row in second:
        row["loss"] = 9.0
    rows = first + second[44:]  # from step 40, in the order in which a log holds them
    loss = viz.curves(rows).axes[0]
    y = line(loss, "train").get_ydata()
    assert len(y) == 80 and (y[:40] < 9).all() and (y[40:] == 9).all()
    y = line(loss, "validation").get_ydata()
    np.testing.assert_array_equal(y, [3] * 4 + [9] * 4)
    loss = viz.curves(first + second[44:47]).axes[0]  # has not come to its next validation
    assert len(line(loss, "train").get_ydata()) == 43
    assert len(line(loss, "validation").get_ydata()) == 4


def test_the_loss_is_logarithmic_where_it_falls_far():
    rows = log(100, every=0)
    for n, row in enumerate(rows):
        row["loss"] = 7 * 0.9**n
    assert viz.curves(rows).axes[0].get_yscale() == "log"
    rows[50]["loss"] = 0.0  # which no log scale can show
    assert viz.curves(rows).axes[0].get_yscale() == "linear"


def test_changes_of_the_learning_rate_are_marked():
    figure = viz.curves(log(300, rates=(0.01, 0.001, 0.0001)))
    for axes in figure.axes:
        marks = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert [mark.get_xdata()[0] for mark in marks] == [1.0, 2.0]
    assert words(figure, "rate")[:3] == ["lr 0.01", "0.001", "0.0001"]
    assert_legible(figure)
    assert_legible(viz.curves(log(300, rates=[0.1**n for n in range(12)])))
    close = viz.curves(log(300, rates=[0.1] * 40 + [0.05, 0.02] + [0.01] * 18))
    assert_legible(close)
    assert words(close, "rate")[:3] == ["lr 0.1", "0.05", "0.02"]  # on two levels; no third
    many = viz.curves(log(300, rates=[0.1 / n for n in range(1, 40)]))
    assert not words(many, "rate") and any("changing all along" in word for word in words(many))


@pytest.mark.parametrize("rows,classes,error,message", [
    ([1], None, TypeError, r"rows\[0\] must be a dict, found int"),
    ([{"kind": "val", "loss": "low"}], None, ValueError, r"rows\[0\]\['loss'\].*'low'"),
    ([{}, {"kind": "train", "lr": [1]}], None, ValueError, r"rows\[1\]\['lr'\]"),
    ([], 1, ValueError, "classes must be at least 2, found 1")])
def test_curves_errors_teach(rows, classes, error, message):
    with pytest.raises(error, match=message):
        viz.curves(rows, classes=classes)


# ------------------------------------------------------------------------------------ predictions

NAMES = ("cat", "dog", "ox", "short-haired pointer", "costs $5, not $6", "hen", "cow")


def pictures(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def softmax(count, classes=len(NAMES), seed=0):
    z = np.exp(np.random.default_rng(seed).normal(0, 2, (count, classes)))
    return z / z.sum(axis=1, keepdims=True)


def bars(figure, cell):
    return [patch for patch in cell.patches if str(patch.get_gid()).startswith("bar")]


def test_the_best_guesses_are_named_measured_and_the_true_one_marked():
    p = [[0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.015625]]
    figure = viz.predictions(pictures((8, 8)), p, NAMES, labels=[1])
    assert words(figure, "guess") == ["cat", "✓ dog", "ox", NAMES[3], NAMES[4]]
    assert words(figure, "percent") == ["50 %", "25 %", "12 %", "6.2 %", "3.1 %"]
    assert words(figure, "truth") == ["dog"] and not words(figure, "rank")
    drawn = bars(figure, figure.axes[1])
    widths = np.array([bar.get_width() for bar in drawn])
    np.testing.assert_allclose(widths / widths[0], [1, 0.5, 0.25, 0.125, 0.0625])
    assert [bar.get_hatch() or "" for bar in drawn] == ["", "////", "", "", ""]
    assert [text.get_fontweight() for text in texts(figure, "guess")].count("bold") == 1
    for bar, color in zip(drawn, (style.BLUE, style.ORANGE)):
        want = np.rint(255 * np.array(style.mix(color, 0.45)))
        assert (np.abs(region(figure, bar) - want).max(axis=2) <= 1).mean() > 0.2
    assert figure.alt_text == ("1 picture with its most probable classes. "
                               "Picture 1: cat 50 %, truly dog.")


def test_pictures_are_shown_as_they_are():
    square = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 99, 199]]], np.uint8)
    figure = viz.predictions([square], softmax(1), NAMES)
    part = region(figure, figure.axes[0])
    n = len(part) // 4
    for row in (0, 1):
        for column in (0, 1):
            np.testing.assert_array_equal(part[n + 2 * n * row, n + 2 * n * column],
                                          square[row, column])
    wide = viz.predictions(pictures((50, 100)), softmax(1), NAMES)
    high, across = region(wide, wide.axes[0]).shape[:2]
    assert abs(across - 2 * high) <= 2


def test_a_true_class_beyond_the_guesses_is_told():
    p = softmax(3)
    order = np.argsort(-p, axis=1)
    figure = viz.predictions(pictures(*[(9, 9)] * 3), p, NAMES, labels=order[:, 5])
    assert [word.split(",")[0] for word in words(figure, "rank")] == ["rank 6"] * 3
    assert not any("✓" in word for word in words(figure, "guess"))
    assert_legible(figure)


def test_equal_probabilities_come_in_order_of_class():
    names = [f"class {n}" for n in range(300)]
    p = np.tile([1, 3, 2], 100) / 600
    figure = viz.predictions(pictures((9, 9)), p[None], names, top=30)
    assert words(figure, "guess") == names[1::3][:30]


@pytest.mark.parametrize("classes,top,labels,sizes", [
    (7, 5, True, [(375, 500), (500, 375), (32, 32), (1, 400), (400, 1), (1, 1), (64, 64), (9, 8)]),
    (1, 5, True, [(32, 32)]), (3, 5, False, [(32, 32), (20, 64)]),
    (7, 1, True, [(300, 300)] * 5), (7, 7, False, [(30, 30)] * 9)])
def test_predictions_are_legible(classes, top, labels, sizes):
    p = softmax(len(sizes), classes)
    names = [f"{NAMES[n]} and its {'very ' * 20 * (n % 2)}long name" for n in range(classes)]
    given, truth = pictures(*sizes), np.arange(len(sizes)) % classes
    kept = copy.deepcopy((given, p, truth))
    figure = viz.predictions(given, p, names, truth if labels else None, top=top)
    assert_legible(figure)
    assert len(words(figure, "guess")) == len(sizes) * min(top, classes)
    assert len(words(figure, "truth")) == (len(sizes) if labels else 0)
    for ours, theirs in zip((*given, p, truth), (*kept[0], *kept[1:])):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("change,error,message", [
    (dict(pictures=[]), ValueError, "nothing to draw"),
    (dict(pictures=[np.zeros((4, 4, 3))]), TypeError, r"pictures\[0\] must be uint8.*float64"),
    (dict(pictures=[np.zeros((4, 4), np.uint8)]), ValueError, r"shape \(H, W, 3\)"),
    (dict(pictures=[np.zeros((0, 4, 3), np.uint8)]), ValueError, r"found \(0, 4, 3\)"),
    (dict(probabilities=[[0.5, 0.5, 0]]), ValueError, r"= \(1, 2\), found \(1, 3\)"),
    (dict(probabilities=[[3.0, -1.0]]), ValueError, "softmax's output, not the logits"),
    (dict(probabilities=[[math.nan, 1.0]]), ValueError, r"probabilities\[0\].*nan"),
    (dict(probabilities=[[0.5, 0.4]]), ValueError, "sum 0.9"),
    (dict(classes=(), probabilities=np.zeros((1, 0))), ValueError, "probabilities must have"),
    (dict(labels=[2]), ValueError, r"0\.\.1, found 2 to 2"),
    (dict(labels=[-1]), ValueError, "found -1"),
    (dict(labels=[0, 1]), ValueError, r"found shape \(2,\)"),
    (dict(labels=[0.5]), TypeError, "labels must be integers"),
    (dict(top=0), ValueError, "top=0"), (dict(columns=0), ValueError, "columns=0")])
def test_predictions_errors_teach(change, error, message):
    good = dict(pictures=pictures((4, 4)), probabilities=[[0.5, 0.5]], classes=("a", "b"))
    viz.predictions(**good)
    with pytest.raises(error, match=message):
        viz.predictions(**{**good, **change})


def test_too_many_pictures_are_refused_before_they_are_drawn():
    with pytest.raises(ValueError, match="pass fewer at a time"):
        viz.predictions(np.zeros((900, 4, 4, 3), np.uint8), np.ones((900, 1)), ["one"])


# ----------------------------------------------------------------------------------------- towers

def mini(devices=("cpu:0", "cpu:1"), towers=2):
    rows = [dict(name="input", tower=None, shape=(3, 67, 67))]
    apart = len(set(devices)) > 1
    for name, shape, kernel, bytes_in in (
            ("conv1", (16, 15, 15), 11, 0), ("pool1", (16, 7, 7), None, 0),
            ("conv2", (32, 7, 7), 5, 0), ("conv3", (48, 3, 3), 3, 6272), ("fc6", (128,), None, 512),
            ("fc7", (128,), None, 512), ("fc8", (10,), None, 512)):
        for tower in range(1 if name == "fc8" else towers):
            rows.append(dict(name=name, tower=tower, shape=shape, device=devices[tower],
                             bytes_in=bytes_in * apart, joins=bytes_in > 0, kernel=kernel,
                             parameters=7))
    return rows


def test_the_papers_net_and_its_bytes():
    figure = viz.towers()
    assert words(figure, "crossing") == [
        "pool2 → conv3\n173,056 B", "pool5 → fc6\n36,864 B", "fc6 → fc7\n16,384 B",
        "fc7 → fc8\n8,192 B"]
    sizes = words(figure, "size")
    for size, times in (("224×224×3", 1), ("55×55×48", 2), ("27×27×48", 2), ("27×27×128", 2),
                        ("13×13×192", 4), ("13×13×128", 4), ("6×6×128", 2), ("2048", 4),
                        ("1000", 1)):
        assert sizes.count(size) == times
    assert len(sizes) == 22
    assert words(figure, "tower") == ["tower 0", "tower 1"]
    assert words(figure, "device") == ["cuda:0", "cuda:1"]
    assert any("234,496 bytes per image" in word for word in words(figure))
    assert "234,496" in figure.alt_text and "conv3 13×13×192" in figure.alt_text


def test_everything_is_to_scale():
    rows = towers_layout.check(towers_layout.paper())
    columns = towers_layout.layout(rows, [])[0]
    bodies = [body for column in columns for body in column]
    maps = [body for body in bodies if len(body.row["shape"]) == 3]
    dense = [body for body in bodies if len(body.row["shape"]) == 1]
    inch = [body.h / body.row["shape"][1] for body in maps]
    deep = [body.w / body.row["shape"][0] for body in maps if body.row["name"] != "input"]
    unit = [body.h / body.row["shape"][0] for body in dense]
    for scale in (inch, deep, unit):
        np.testing.assert_allclose(scale, scale[0])
    rights = [max(b.x + b.w + b.dx for b in column) for column in columns]
    assert all(right < column[0].x for right, column in zip(rights, columns[1:]))


def test_bands_are_as_thick_as_their_bytes():
    from matplotlib.colors import to_hex
    from matplotlib.patches import PathPatch
    bands = {}
    for patch in viz.towers().axes[0].patches:
        if isinstance(patch, PathPatch):
            color = to_hex(patch.get_edgecolor()).upper()
            bands.setdefault(color, []).append(patch.get_linewidth())
    per_byte = 11 / 86528
    assert sorted(bands[style.BLUE]) == pytest.approx(  # tower 0 sends to conv3, fc6 and fc7
        sorted(per_byte * n for n in (86528, 18432, 8192)))
    assert sorted(bands[style.ORANGE]) == pytest.approx(  # and tower 1 to fc8 too
        sorted(per_byte * n for n in (86528, 18432, 8192, 8192)))


@pytest.mark.parametrize("rows", [
    None, mini(), mini(("cpu:0", "cpu:0")), mini(("cuda:0", "cuda:0#1")), mini(("cpu:0",), 1),
    [dict(name="fc", tower=0, shape=(10,))], [dict(name="input", tower=None, shape=(1, 5, 9))],
    [dict(name="a", tower=1, shape=(4, 8, 8), note="a long note\nin two lines")],
    [dict(name=f"a rather long name {n}", tower=t, shape=(4, 8, 8), bytes_in=10**9, device=f"d{t}")
     for n in range(3) for t in (0, 1)]], ids=lambda rows: str(len(rows or "paper")))
def test_towers_are_legible(rows):
    kept = copy.deepcopy(rows)
    assert_legible(viz.towers(rows))
    assert rows == kept


def test_devices_differ_by_more_than_color():
    def fronts(rows):
        return {(patch.get_facecolor(), patch.get_hatch() or "")
                for patch in viz.towers(rows).axes[0].patches if patch.get_zorder() == 3}
    assert any(hatch for _, hatch in fronts(mini()))
    assert not any(hatch for _, hatch in fronts(mini(("cpu:0", "cpu:0"))))
    assert "Nothing crosses between devices" in words(viz.towers(mini(("cpu:0", "cpu:0"))))


@pytest.mark.parametrize("rows,error,message", [
    ([], ValueError, "nothing to draw"), ([7], TypeError, r"rows\[0\] must be a dict"),
    ([dict(name="a", shape=(3,))], ValueError, r"rows\[0\] lacks tower"),
    ([dict(name="a", tower=0, shape=(3, 4))], ValueError, r"\(C, H, W\) or \(units,\)"),
    ([dict(name="a", tower=0, shape=(0,))], ValueError, "each at least 1"),
    ([dict(name="a", tower=0, shape=7)], TypeError, "shape must hold integers"),
    ([dict(name="a", tower=0, shape=(1.5,))], TypeError, "shape must hold integers"),
    ([dict(name="a", tower=2, shape=(3,))], ValueError, "0, 1 or None, found 2"),
    ([dict(name="a", tower=0, shape=(3,), bytes_in=-1)], ValueError, "bytes_in"),
    ([dict(name="a", tower=0, shape=(3,))] * 2, ValueError, "comes twice")])
def test_towers_errors_teach(rows, error, message):
    with pytest.raises(error, match=message):
        viz.towers(rows)


def test_the_picture_in_the_docs_is_the_picture_drawn_now(tmp_path):
    figure = viz.towers()
    now = viz.save(figure, tmp_path / "now.png", dpi=200)
    with Image.open(ROOT / "docs" / "towers.png") as old, Image.open(now) as new:
        assert old.text["Description"] == figure.alt_text and old.size == new.size
        old, new = (np.asarray(picture.convert("RGB"), float) for picture in (old, new))
    assert np.abs(old - new).mean() < 2  # room for another release of the font renderer
