"""The pictures of the lessons: what they show is what was computed, and all of it can be read."""
import copy
import sys
import types

import numpy as np
import pytest
import tinyalex as ta
from test_viz import assert_legible, pixels, region, texts, words
from tinyalex import functional as F
from tinyalex import viz
from tinyalex.ops.conv import im2col
from tinyalex.viz import graph_layout as plan
from tinyalex.viz import style

pytestmark = pytest.mark.filterwarnings("error")


def rng(seed=0):
    return np.random.default_rng(seed)


def patches(figure, gid):
    return [p for axes in figure.axes for p in axes.patches if str(p.get_gid()) == gid]


# ------------------------------------------------------------------------------------------ graph

def twice():
    """b = a + a, c = b w + a: with two roads, each taken twice."""
    a, w = (ta.Tensor([v], requires_grad=True) for v in (2.0, 3.0))
    with ta.trace(a=a, w=w) as t:
        b = a + a
        (b * w + a).backward()
    return t


def two_towers(*devices, image_size=32):
    net = ta.models.mini(4, devices=devices, image_size=image_size)
    images = ta.Tensor(rng().normal(size=(1, 3, image_size, image_size)).astype(np.float32),
                       devices[0])
    with ta.trace(net=net, images=images) as t:
        F.cross_entropy(net(images), np.array([1])).backward()
    return t


def test_a_graph_says_what_was_computed():
    figure = viz.graph(twice(), title="Two roads")
    assert figure.alt_text == "Two roads. A graph of 5 boxes: a, Add, w, Multiply, Add."
    assert sorted(words(figure, "box")) == sorted(
        ["a", "2", "↑ 7", "w", "3", "↑ 4", "Add", "4", "↑ 3", "Multiply", "12", "↑ 1", "Add", "14",
         "↑ 1"])
    assert_legible(figure)


def test_each_use_is_a_line_of_its_own():
    from matplotlib.patches import PathPatch
    lines = [p.get_path() for p in viz.graph(twice()).axes[0].patches
             if type(p) is PathPatch]
    starts = [tuple(np.round(path.vertices[0], 3)) for path in lines]
    # a -> Add twice, Add and w -> Multiply, Multiply -> Add, a -> Add past the layers between
    links = sum(len(layer) for layer in plan.layout(_boxes(twice()))[0]) - 5
    assert len(lines) == len(set(starts)) == 6 + links


def _boxes(rows, **how):
    found = plan.boxes(plan.check(rows), **how)
    for box in found:
        box.names, box.lines = 1, [box.rows[0]["name"]]
    return found


def test_every_box_stands_below_what_it_needs_and_beside_its_neighbors():
    for rows in (twice(), two_towers("cpu:0", "cpu:1"), two_towers("cpu:0")):
        for fold in (True, False):
            layers, lanes, width, height = plan.layout(_boxes(rows, fold=fold, leaves=True))
            for layer in layers:
                for one, other in zip(layer, layer[1:]):
                    assert one.x + one.width / 2 <= other.x - other.width / 2 + 1e-9
                for box in layer:
                    left, right = lanes[box.device]
                    assert left - 1e-9 <= box.x - box.width / 2
                    assert box.x + box.width / 2 <= right + 1e-9 < width
                    assert 0 < box.y - box.height / 2 and box.y + box.height / 2 < height
                    assert all(above.y - above.height / 2 > box.y + box.height / 2
                               for above, _ in box.above)


@pytest.mark.parametrize("fold", [None, False])
def test_copies_are_lines_with_their_bytes(fold):
    t = two_towers("cpu:0", "cpu:1")
    figure = viz.graph(t, fold=fold)
    copies = [plan.size(step.nbytes) for step in t if step.nbytes]
    assert sorted(words(figure, "crossing")) == sorted(copies) and len(copies) == 8
    assert words(figure, "device") == ["cpu:0", "cpu:1"] and "To" not in words(figure, "box")
    assert all(f" sends {nbytes} to " in figure.alt_text for nbytes in copies)
    assert_legible(figure)
    alone = viz.graph(two_towers("cpu:0"), fold=fold)
    assert not words(alone, "crossing") and "sends" not in alone.alt_text
    assert_legible(alone)


def test_lines_are_as_thick_as_their_bytes():
    rows = [dict(name="x"), dict(name="big", inputs=(0,), home="cpu:1", nbytes=700),
            dict(name="small", inputs=(0,), home="cpu:2", nbytes=300),
            dict(name="a", inputs=(1,), device="cpu:1"), dict(name="b", inputs=(2,),
                                                              device="cpu:2")]
    thick = {round(p.get_linewidth(), 6) for p in viz.graph(rows).axes[0].patches
             if type(p).__name__ == "PathPatch"}
    assert thick == {7.0, 3.0}


def test_chains_are_folded_where_there_is_much():
    t = two_towers("cpu:0", "cpu:1")
    said = words(viz.graph(t), "box")
    assert said.count("conv1 ReLU norm1 pool1") == said.count("conv2 ReLU norm2 pool2") == 2
    assert "towers.0.conv1.weight" not in said and "images" in said
    said = words(viz.graph(t, fold=False, leaves=True), "box")
    assert "towers.0.conv1.weight" in said and said.count("ReLU") == 14
    small = words(viz.graph(twice()), "box")
    assert "w" in small
    assert "w" not in words(viz.graph(twice(), leaves=False), "box")


def test_devices_differ_by_more_than_color():
    figure = viz.graph(two_towers("cpu:0", "cpu:1"))
    hatched = [bool(p.get_hatch()) for p in figure.axes[0].patches
               if type(p).__name__ == "Rectangle"]
    assert hatched.count(True) == 4 + 1 and hatched.count(False) == 6 + 1   # boxes, and the legend


def test_gradients_come_back_step_by_step():
    t = twice()
    for turn, known in ((0, 0), (1, 1), (2, 2), (3, 5)):      # the last gives leaves theirs too
        figure = viz.graph(t, turn=turn)
        assert sum(word.startswith("↑") for word in words(figure, "box")) == known
    figure = viz.filmstrip(t, columns=3)
    assert words(figure, "panel") == ["forward", "after 1 backward step",
                                      "after 2 backward steps", "after 3 backward steps"]
    assert sum(word.startswith("↑") for word in words(figure, "box")) == 0 + 1 + 2 + 5
    assert_legible(figure)
    assert_legible(viz.filmstrip(t, turns=[3], title="a title that is much longer than the graph"))


def test_the_names_of_narrow_panels_stand_apart():
    x = ta.Tensor([2.0], requires_grad=True)
    with ta.trace(x=x) as t:
        (x * 2 * 3).backward()
    assert_legible(viz.filmstrip(t))


@pytest.mark.parametrize("rows", [
    [dict(name="x")], [dict(name="x", device=f"d{n}") for n in range(6)],
    [dict(name="a name that is rather long " * 3, shape=(1, 2, 3))],
    [dict(name=f"x{n}", inputs=list(range(n))) for n in range(8)],
    [dict(name="x"), dict(name="To", inputs=[0], home="cpu:1", nbytes=10**9)],
    [dict(name=f"x{n}", inputs=[n - 1] if n else []) for n in range(199)]], ids=len)
def test_odd_graphs_are_drawn(rows):
    kept = copy.deepcopy(rows)
    assert_legible(viz.graph(rows))
    assert rows == kept


@pytest.mark.parametrize("rows,error,message", [
    ([], ValueError, "nothing to draw"), ([7], TypeError, r"rows\[0\] must be a dict"),
    ([{}], ValueError, r"rows\[0\] lacks name"),
    ([dict(name="a", inputs=[0])], ValueError, r"must name earlier rows, 0 to -1, found \[0\]"),
    ([dict(name="a") for _ in range(201)], ValueError, "201 boxes are too many")])
def test_graph_errors_teach(rows, error, message):
    with pytest.raises(error, match=message):
        viz.graph(rows, leaves=True)


# ---------------------------------------------------------------------------------------- patches

@pytest.mark.parametrize("shape,kernel,stride,padding", [
    ((5, 5), 3, 1, 0), ((4, 4), 3, 1, 1), ((2, 4, 4), 2, 2, 0), ((6, 5), (2, 3), (2, 1), (1, 0)),
    ((1, 1), 1, 1, 0)])
def test_unrolled_cells_are_those_of_im2col(shape, kernel, stride, padding):
    x = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    figure = viz.unroll(x, kernel, stride, padding)
    KH, KW = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    SH, SW = stride if isinstance(stride, tuple) else (stride, stride)
    PH, PW = padding if isinstance(padding, tuple) else (padding, padding)
    maps = x.reshape(1, -1, *shape[-2:])
    out = ((shape[-2] + 2 * PH - KH) // SH + 1, (shape[-1] + 2 * PW - KW) // SW + 1)
    cols = im2col(np, maps, (KH, KW), (SH, SW), ((PH, PH), (PW, PW)), out)
    inside = np.count_nonzero(cols)
    pads = maps.shape[1] * ((shape[-2] + 2 * PH) * (shape[-1] + 2 * PW) - shape[-2] * shape[-1])
    for n in range(1, x.size + 1):                 # in the picture, and in the matrix
        cells = patches(figure, f"pixel {n}")
        assert len(cells) == 1 + np.count_nonzero(cols == n)
        assert len({cell.get_facecolor() for cell in cells}) == 1
    assert len(patches(figure, "pixel 0")) == cols.size - inside + pads
    assert len({patches(figure, f"pixel {n}")[0].get_facecolor()
                for n in range(1, x.size + 1)}) == x.size
    assert words(figure, "value").count("1") >= 2
    assert_legible(figure)


def test_the_framed_window_is_its_column():
    figure = viz.unroll(np.arange(1, 17).reshape(4, 4), 2, 2, window=3)
    first, column = patches(figure, "window")
    edge = 1e-6
    cells = {n: patches(figure, f"pixel {n}") for n in range(1, 17)}
    inside = [[n for n, drawn in cells.items() for cell in drawn
               if frame.get_x() - edge <= cell.get_x() < frame.get_x() + frame.get_width() - edge
               and frame.get_y() - edge <= cell.get_y() < frame.get_y() + frame.get_height() - edge]
              for frame in (first, column)]
    assert inside == [[11, 12, 15, 16]] * 2


def test_filters_multiply_the_matrix():
    x, w = rng().integers(0, 5, (1, 4, 4)), rng(1).integers(-2, 3, (2, 1, 3, 3))
    figure = viz.unroll(x, 3, w=w)
    y = F.conv2d(ta.Tensor(x[None].astype(float)), ta.Tensor(w.astype(float))).data
    assert words(figure, "value")[-y.size:] == [f"{v:.2g}" for v in y.ravel()]
    assert "multiplied by 2 filters" in figure.alt_text
    assert_legible(figure)
    assert_legible(viz.unroll(np.ones((5, 5)), 3, padding=1, w=np.ones((3, 3))))


@pytest.mark.parametrize("arguments,error,message", [
    ((np.zeros(3), 1), ValueError, r"\(H, W\) or \(C, H, W\)"),
    ((np.zeros((3, 3)), 4), ValueError, "larger than the padded picture of 3 × 3"),
    ((np.zeros((30, 30)), 3), ValueError, "9 × 784 cells, more than 4,096"),
    ((np.zeros((3, 3)), 0), ValueError, "kernel"),
    ((np.zeros((3, 3)), 2, 1, 0, np.zeros((3, 3))), ValueError, r"shape \(K, 1, 2, 2\)"),
    ((np.zeros((3, 3)), 2, 1, 0, None, 4), ValueError, "window must be 0 to 3, found 4")])
def test_unroll_errors_teach(arguments, error, message):
    with pytest.raises(error, match=message):
        viz.unroll(*arguments)


@pytest.mark.parametrize("shape,kernel,stride", [((7, 7), 3, 2), ((6, 6), 2, 2), ((5, 7), 3, 1)])
def test_pooled_gradients_land_where_the_op_sends_them(shape, kernel, stride):
    x = rng().integers(0, 5, shape).astype(float)             # with ties
    given = ta.Tensor(x[None, None], requires_grad=True)
    y = F.max_pool2d(given, kernel, stride)
    gy = rng(1).integers(1, 9, y.shape).astype(float)
    y.backward(gy)
    figure = viz.pool_map(x, kernel, stride, gy[0, 0])
    gx = given.grad[0, 0]
    count = y.size
    assert words(figure, "winner")[:count] == [f"{v:.2g}" for v in y.data.ravel()]
    assert words(figure, "winner")[count:] == [f"{v:.2g}" for v in gx[gx != 0]]
    ones = ta.Tensor(x[None, None], requires_grad=True)
    F.max_pool2d(ones, kernel, stride).sum().backward()
    for wins in range(2, int(ones.grad.max()) + 1):
        assert len(patches(figure, f"wins {wins}")) == (ones.grad == wins).sum()
    assert len(patches(figure, "window")) == count
    assert_legible(figure)


def test_pool_map_errors_teach():
    with pytest.raises(ValueError, match=r"must have shape \(H, W\), found \(1, 3, 3\)"):
        viz.pool_map(np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match="13 × 13 windows; expected 1 to 25"):
        viz.pool_map(np.zeros((27, 27)))
    with pytest.raises(ValueError, match=r"gy must have shape \(2, 2\)"):
        viz.pool_map(np.zeros((5, 5)), gy=np.zeros(4))


# ------------------------------------------------------------------------------------------- maps

def images(figure):
    """The arrays that were drawn, colorbars not counted."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


@pytest.mark.parametrize("divide", [False, True])
def test_inhibition_is_what_silence_would_give_back(divide):
    x = np.abs(rng().normal(size=9)) * 30
    how = dict(size=4, alpha=1e-2, beta=0.6, k=1.5, divide_alpha=divide)

    def norm(values):
        return F.local_response_norm(ta.Tensor(values.reshape(1, -1, 1, 1)), **how).data.ravel()

    figure = viz.inhibition(x, **how)
    percent = images(figure)[0]
    for j in range(9):
        silent = x.copy()
        silent[j] = 0
        others = np.arange(9) != j
        np.testing.assert_allclose(percent[others, j], (100 * (norm(silent) / norm(x) - 1))[others],
                                   atol=1e-9)
    assert (np.diag(percent) == 0).all()
    beside = [bar.get_width() for bar in figure.axes[2].patches[9:]]
    np.testing.assert_allclose(beside, norm(x))
    assert_legible(figure)
    whole, boxes = [axes.get_tightbbox() for axes in figure.axes], [
        axes.get_window_extent() for axes in figure.axes]      # with their labels, and without
    for n, one in enumerate(whole):
        assert not any(one.overlaps(box) for k, box in enumerate(boxes) if k != n)


@pytest.mark.parametrize("x", [[1.0], [0.0, 0.0], np.ones(96), -np.arange(20.0)], ids=len)
def test_odd_rows_are_drawn(x):
    assert_legible(viz.inhibition(x))


def test_inhibition_errors_teach():
    with pytest.raises(ValueError, match=r"one row of finite numbers, maps\[n, :, h, w\]"):
        viz.inhibition(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="size must be at least 1"):
        viz.inhibition([1.0], size=0)


def test_occlusion_shows_the_map_over_the_picture():
    picture = rng().integers(0, 256, (40, 60, 3), dtype=np.uint8)
    p = rng(1).random((5, 6)) * 0.9
    figure = viz.occlusion(picture, p, whole=0.95, name="cat")
    shown, gray, heat = images(figure)[:3]
    np.testing.assert_array_equal(shown, picture)
    np.testing.assert_allclose(heat, 100 * p)
    assert gray.shape == (40, 60)
    assert f"least, {100 * p.min():.3g} %" in figure.alt_text and figure.axes[1].collections
    assert_legible(figure)
    for picture, p in ((picture, [[0.0]]), (picture[:, :2], np.ones((3, 3)))):
        assert_legible(viz.occlusion(picture, p, name="a class with a rather long name"))
    with pytest.raises(ValueError, match=r"lie in 0..1, found \(1, 1\)"):
        viz.occlusion(picture, [[2.0]])
    with pytest.raises(TypeError, match="uint8 array"):
        viz.occlusion(picture / 255, [[0.5]])


def test_a_hundred_percent_is_written_in_full():
    occlusion = viz.occlusion(np.zeros((8, 8, 3), np.uint8), np.ones((2, 2)), whole=1.0)
    inhibition = viz.inhibition([0.0, 3.0, 50.0], size=3, alpha=1.0, beta=0.75, k=1.0)
    for figure in (occlusion, inhibition):
        figure.canvas.draw()
        labels = [t.get_text() for axes in figure.axes for t in axes.get_xticklabels()]
        written = labels + [text.get_text() for axes in figure.axes for text in axes.texts]
        assert not [text for text in written if "e+" in text]
    assert "100" in [t.get_text() for axes in occlusion.axes for t in axes.get_xticklabels()]


def test_the_error_map_frames_the_worst():
    right = rng().normal(size=(2, 3, 4, 5))
    found = right.copy()
    found[1, 2, 3, 0] += 0.5
    found[1, 2, 0, 1] -= 0.1
    found[0, 0, 0, 0] += 0.2
    figure = viz.error_map(right, found, title="4.1")
    one, other, error = images(figure)[:3]
    np.testing.assert_array_equal(one, right[1, 2])
    np.testing.assert_array_equal(other, found[1, 2])
    np.testing.assert_allclose(error, found[1, 2] - right[1, 2])
    frames = patches(figure, "worst")
    assert [(f.get_x(), f.get_y()) for f in frames] == [(-0.5, 2.5)] * 3
    assert figure.alt_text.startswith("4.1. Largest error at [1, 2, 3, 0]: found ")
    assert "3 of 120 elements are off" in figure.alt_text
    assert {"+0.5", "-0.1"} <= set(words(figure, "value"))
    assert "found[1, 2, :, :]" in words(figure, "heading")
    assert_legible(figure)


def test_errors_alone_and_small_ones():
    errors = np.zeros((4, 6))
    errors[2, 5], errors[0, 0] = -3e-4, 1e-4
    figure = viz.error_map(errors, title="4.1: the errors of dL/dw")
    assert words(figure, "heading") == ["errors, in 1e-4"]
    assert set(words(figure, "value")) == {"-3", "+1"}
    assert len(patches(figure, "worst")) == 1
    assert_legible(figure)


def test_what_is_no_number_is_crossed_out():
    found = np.ones((3, 4))
    found[1, 2] = np.nan
    figure = viz.error_map(np.ones((3, 4)), found)
    crosses = [line for axes in figure.axes for line in axes.lines if line.get_gid() == "no number"]
    assert len(crosses) == 2                                   # among what was found, and errors
    assert "Largest error at [1, 2]: found nan, expected 1. 1 of 12 elements is no number." \
        in figure.alt_text
    assert_legible(figure)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 1), (27, 40), (3, 200), (300, 2),
                                   (2, 3, 11, 11), (0, 3)], ids=str)
def test_error_maps_of_any_shape(shape):
    right = rng().normal(size=shape)
    if not right.size:
        with pytest.raises(ValueError, match="no elements"):
            viz.error_map(right)
        return
    assert_legible(viz.error_map(right, right * 1.1))
    figure = viz.error_map(right, right)
    assert figure.alt_text.endswith("elements are right.") and not patches(figure, "worst")
    assert_legible(figure)


def test_error_map_errors_teach():
    with pytest.raises(ValueError, match=r"shape of expected, \(2,\), found \(3,\)"):
        viz.error_map(np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match="found must be an array of real numbers"):
        viz.error_map(np.zeros(2), np.array(["a", "b"]))


# ----------------------------------------------------------------------------------------- sheets

def photos(count, *size):
    return rng().integers(0, 256, (count, *(size or (12, 12)), 3), dtype=np.uint8)


def test_a_contact_sheet_holds_every_picture():
    pictures = photos(48)
    figure = viz.contact_sheet(pictures, original=pictures[0])
    drawn = images(figure)
    assert len(drawn) == 49
    np.testing.assert_array_equal(drawn[0], pictures[0])
    np.testing.assert_array_equal(np.stack(drawn[1:]), pictures)
    tops = {round(axes.get_position().y0, 6) for axes in figure.axes[2:]}
    assert len(tops) == 6 and words(figure, "title") == ["One photo, 48 times"]
    page = region(figure, figure.axes[2])
    assert page.reshape(-1, 3).std() > 40
    assert_legible(figure)
    assert_legible(viz.contact_sheet(photos(3, 8, 20), captions=["a", "b " * 40, "$5"],
                                     title="A title that is far too long for three pictures only"))
    assert_legible(viz.contact_sheet(photos(1), columns=3))


def test_contact_sheet_errors_teach():
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.contact_sheet([])
    with pytest.raises(TypeError, match=r"pictures\[0\] must be uint8"):
        viz.contact_sheet(np.zeros((2, 3, 3, 3)))
    with pytest.raises(ValueError, match="one for each of the 2 pictures, found 1"):
        viz.contact_sheet(photos(2), captions=["a"])
    with pytest.raises(ValueError, match="columns must be at least 1"):
        viz.contact_sheet(photos(2), columns=0)


def test_neighbors_stand_in_order_with_their_distance():
    pictures, names = photos(6), ["cat", "dog", "cat", "an extremely long name", "ox", "dog"]
    figure = viz.neighbors(pictures, [[0, 2, 3, 4], [1, 5, 0]], [[0.5, 1.25, 2], [3, 4]], names)
    np.testing.assert_array_equal(np.stack(images(figure)), pictures[[0, 2, 3, 4, 1, 5, 0]])
    said = words(figure, "caption")
    assert said[:3] == ["cat", "✓ cat", "0.5"] and said[-2:] == ["✗ cat", "4"]
    assert len(patches(figure, "frame")) == 2
    assert figure.alt_text == ("Nearest neighbors of 2 pictures. cat: cat, an extremely long name, "
                               "ox. dog: dog, cat. 2 of 5 neighbors have the same name.")
    assert_legible(figure)
    assert_legible(viz.neighbors(pictures, [[0, 1]]))


@pytest.mark.parametrize("arguments,message", [
    (([],), "at least a picture and a neighbor"), (([[0]],), "at least a picture and a neighbor"),
    (([[0, 6]],), r"rows\[0\] must name places in pictures, 0 to 5"),
    (([[0, 1]], [[1, 2]]), r"distances\[0\] must be one for each of 1 neighbors, found 2"),
    (([[0, 1]], None, ["a"]), "names must be one for each of the 6 pictures")])
def test_neighbors_errors_teach(arguments, message):
    with pytest.raises(ValueError, match=message):
        viz.neighbors(photos(6), *arguments)


# ------------------------------------------------------------------------------------------- live

@pytest.fixture
def notebook(monkeypatch):
    """A kernel that notes what it is asked to show: [("new" or "again", figure)]."""
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(("again", figure))

    def display(figure, display_id):
        assert display_id is True
        shown.append(("new", figure))
        return Handle()

    kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=1))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    return shown


def test_live_curves_stand_in_one_place(notebook, capsys):
    with viz.live(classes=10, seconds=0) as run:
        for step in range(3):
            run.add(kind="train", step=step, loss=2.0 - step)
    assert [how for how, _ in notebook] == ["new", "again", "again"]
    line = notebook[-1][1].axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [2, 1, 0])
    assert any("guessing" in word for word in words(notebook[-1][1]))
    assert capsys.readouterr().out == ""


def test_live_curves_do_not_take_the_time_of_learning(notebook):
    with viz.live(seconds=1000) as run:
        for step in range(100):
            run.add(kind="train", step=step, loss=1.0)
        assert len(notebook) == 1
    assert len(notebook) == 2                                  # and the end is not lost
    assert len(notebook[-1][1].axes[0].lines[0].get_xdata()) == 100


def test_outside_a_notebook_lines_are_printed(capsys, monkeypatch):
    shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())  # a terminal's
    monkeypatch.setitem(sys.modules, "IPython", shell)
    with viz.live(seconds=1000) as run:
        for step in range(3):
            run.add(kind="train", step=step, loss=1 / 3)
        run.add(kind="val", step=2, loss=0.25)
    assert capsys.readouterr().out.splitlines() == [
        "train  step 0  loss 0.3333", "val  step 2  loss 0.25"]
    assert len(run.rows) == 4 and "loss 0.25" in run.figure().alt_text


# ------------------------------------------------------------------------------------------ paper

@pytest.mark.parametrize("draw", [
    lambda: viz.graph(twice()), lambda: viz.unroll(np.eye(4), 2), lambda: viz.pool_map(np.eye(5)),
    lambda: viz.inhibition(np.arange(5.0)), lambda: viz.contact_sheet(photos(2)),
    lambda: viz.error_map(np.eye(3)), lambda: viz.neighbors(photos(2), [[0, 1]]),
    lambda: viz.occlusion(photos(1)[0], np.eye(3))],
    ids=["graph", "unroll", "pool_map", "inhibition", "contact_sheet", "error_map", "neighbors",
         "occlusion"])
def test_every_picture_is_saved_the_same_twice(draw, tmp_path):
    files = [viz.save(draw(), tmp_path / f"{n}.png", dpi=80).read_bytes() for n in (0, 1)]
    assert files[0] == files[1] and len(files[0]) < 120_000
    figure = draw()
    edge = pixels(figure)
    border = np.concatenate([edge[0], edge[-1], edge[:, 0], edge[:, -1]])
    assert (border == 255).all()                               # nothing is cut off
    assert figure.alt_text and all(text.get_fontfamily() == [style.FONT]
                                   for text in texts(figure))
