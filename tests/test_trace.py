"""A trace holds what the ops computed, costs nothing while nobody traces, and can be read."""
import base64
import gc
import html.parser
import inspect
import io
import re
import threading
import weakref

import numpy as np
import pytest
import tinyalex as ta
from PIL import Image
from tinyalex import functional as F
from tinyalex import ops, steps, tensor
from tinyalex.tensor import Function
from tinyalex.viz.strip import strip, table
from tinyalex.viz.thumbnail import thumbnail

CALL, BACKWARD = Function.__call__, Function.run_backward


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def all_ops():
    found, waiting = set(), [Function]
    while waiting:
        for op in waiting.pop().__subclasses__():
            waiting.append(op)
            if op.__module__.startswith(ops.__name__) and "forward" in dir(op):
                found.add(op)
    return sorted(found, key=lambda op: op.__name__)


# ---------------------------------------------------------------------------- what it costs

def test_outside_the_engine_is_the_engine():
    assert Function.__call__ is CALL and Function.run_backward is BACKWARD
    assert CALL.__code__.co_filename == BACKWARD.__code__.co_filename == tensor.__file__
    with ta.trace():
        assert Function.__call__ is not CALL and Function.run_backward is not BACKWARD
    assert Function.__call__ is CALL and Function.run_backward is BACKWARD
    with pytest.raises(ZeroDivisionError), ta.trace():
        1 / 0
    assert Function.__call__ is CALL and Function.run_backward is BACKWARD
    assert "trac" not in inspect.getsource(CALL) + inspect.getsource(BACKWARD)


def test_what_is_computed_stays_the_same(device):
    def run():
        x, w = (ta.Tensor(numbers(4, n, seed=n), device, requires_grad=True) for n in (3, 3))
        loss = F.cross_entropy(F.linear(F.relu(x), w), np.array([0, 1, 2, 3]))
        loss.backward()
        return [device.numpy(a).tobytes() for a in (loss.data, x.grad, w.grad)]

    plain = run()
    with ta.trace() as t:
        assert run() == plain
    assert len(t) == 3


def test_it_keeps_no_array_alive():
    x = ta.Tensor(numbers(64, 64), requires_grad=True)
    with ta.trace() as t:
        y = F.relu(x) * 2
        seen = weakref.ref(y.data)
        y.sum().backward()
        del y
        gc.collect()
        assert seen() is None
    kept = [s for step in t for s in (*step.inputs, step.output, step.gradient, *step.gradients)]
    assert all(s.values.base is None and s.values.nbytes <= 4 * 1024 for s in kept)


# ---------------------------------------------------------------------------- what it holds

def test_inputs_outputs_and_gradients(device):
    a, b = numbers(2, 3), numbers(2, 3, seed=1)
    x, w = ta.Tensor(a, device, requires_grad=True), ta.Tensor(b, device, requires_grad=True)
    with ta.trace(x=x, weight=w) as t:
        y = x * w
        z = y + y
        z.sum().backward()
    assert [step.op for step in t] == ["Multiply", "Add", "Sum"]
    product, add, total = t
    assert product.sources == (t.leaves[0], t.leaves[1]) and add.sources == (product, product)
    assert [leaf.name for leaf in t.leaves] == ["x", "weight"]
    np.testing.assert_array_equal(product.inputs[1].values, b)
    np.testing.assert_array_equal(product.output.values, a * b)
    np.testing.assert_array_equal(add.inputs[0].values, a * b)
    np.testing.assert_array_equal(total.output.values, (a * b + a * b).sum())
    np.testing.assert_array_equal(add.gradients[1].values, np.ones((2, 3)))
    np.testing.assert_array_equal(product.gradient.values, np.full((2, 3), 2))  # both roads
    np.testing.assert_array_equal(product.gradients[0].values, 2 * b)
    np.testing.assert_array_equal(t.leaves[1].gradient.values, 2 * a)
    assert [step.turn for step in t] == [3, 2, 1]
    assert {step.device for step in t} == {device.name} == {step.place for step in t}
    assert all(step.seconds > 0 and step.backward_seconds > 0 for step in t)


def test_the_words_come_from_the_op_itself():
    for op in all_ops():
        formula, derivation = steps.words(op)
        assert formula and not formula.startswith("#"), op
        if op.__name__ not in ("Pool",):
            assert derivation and "#" not in derivation, op
    formula, derivation = steps.words(ops.conv.Conv2d)
    assert formula.startswith("y[n,k,o,p] = b[k] + sum")
    assert derivation.startswith("With the windows as columns, y = w cols is a matrix product")
    assert "\n  dL/dw    = dL/dy cols^T        summed over images\n" in derivation
    assert derivation.endswith("and behind a ReLU, dL/dy counts only where y > 0")
    assert steps.words(ops.lrn.SpatialResponseNorm)[0].startswith("The same with other neighbors")
    assert steps.words(ops.lrn.SpatialResponseNorm)[1] == steps.words(ops.lrn.LocalResponseNorm)[1]


def test_an_op_without_words_is_traced_too():
    space = {"Function": Function}
    exec("class Twice(Function):\n    def forward(self, x):\n        return 2 * x\n"
         "    def backward(self, gy):\n        return (2 * gy,)\n", space)
    with ta.trace() as t:
        space["Twice"]()(ta.Tensor([1.0], requires_grad=True)).backward()
    assert (t[0].op, t[0].formula, t[0].derivation) == ("Twice", "", "")
    assert t[0].gradients[0].values == [2]


def test_modules_and_their_parameters_have_names():
    net = ta.nn.Sequential(ta.nn.Linear(3, 4), ta.nn.ReLU(), ta.nn.Linear(4, 2))
    x = ta.Tensor(numbers(5, 3))
    with ta.trace(net=net, x=x) as t:
        net(x)
    assert [step.module for step in t][::2] == ["0", "2"]
    assert [leaf.name for leaf in t.leaves] == ["x", *(n for n, _ in net.named_parameters())]
    with pytest.raises(TypeError, match="trace: x is a ndarray; expected a Tensor or a Module"):
        ta.trace(x=numbers(3))


def test_large_arrays_are_thinned_and_told():
    a = numbers(4, 8, 20, 33)
    a[0, 0, 0, 0], a[3, 7, 19, 32], a[1] = np.nan, np.inf, 0
    kept = steps.snapshot(a, ta.Device("cpu:0"))
    good = a[np.isfinite(a)].astype(float)
    assert (kept.shape, kept.nbytes, kept.odd, kept.whole) == (a.shape, a.nbytes, 2, False)
    np.testing.assert_allclose([kept.low, kept.high, kept.mean, kept.std, kept.zeros],
                               [good.min(), good.max(), good.mean(), good.std(),
                                (good == 0).mean()], rtol=1e-4)
    np.testing.assert_array_equal(kept.values, a[0, ::2, ::2, ::3])
    whole = steps.snapshot(a, ta.Device("cpu:0"), keep=a.size)
    assert whole.whole and whole.values is not a
    np.testing.assert_array_equal(whole.values, a)
    for shape in ((1025,), (10**6,), (33, 40), (5, 3000), (2, 3, 4, 5, 999)):
        assert 1 <= steps.thinned(np.zeros(shape)).size <= 1024
    nothing = steps.snapshot(np.full(3, np.nan), ta.Device("cpu:0"))
    assert nothing.odd == 3 and np.isnan(nothing.mean)


def test_copies_between_devices_show_their_bytes(pair):
    a, b = pair
    net = ta.models.mini(4, devices=pair, image_size=32)
    images = ta.Tensor(numbers(2, 3, 32, 32), a)
    for device in pair:
        device.ledger.reset()
    with ta.trace(net=net, images=images) as t:
        F.cross_entropy(net(images), np.array([0, 3])).backward()
    copies = [step for step in t if step.nbytes]
    assert {step.op for step in copies} == {"To"} and len(copies) == 8
    assert {step.place for step in copies} == {f"{a.name} → {b.name}", f"{b.name} → {a.name}"}
    forward = sum(step.nbytes for step in copies)
    backward = sum(step.nbytes for step in copies if step.turn)
    booked = sum(sum(device.ledger.bytes.values()) for device in pair)
    assert forward + backward == booked
    assert f"{forward:,} bytes across devices in 8 copies" in str(t)
    assert f"{backward:,} bytes across devices in 7 copies" in str(t)
    back = [f for f in t.frames() if f["way"] == "backward" and f["nbytes"]]
    turned = {step.turn: step for step in copies}
    assert [f["place"] for f in back] == [
        f"{turned[n].home} → {turned[n].device}" for n in sorted(n for n in turned if n)]


# ---------------------------------------------------------------------------- odd ways to use it

def test_in_place_and_without_a_graph():
    with ta.trace() as t, ta.no_grad():
        y = ta.Tensor([-1.0, 2.0]) * 1
        F.relu(y, inplace=True)
        y * 3
    assert [step.output.values.tolist() for step in t] == [[-1, 2], [0, 2], [0, 6]]
    assert t[1].inputs[0].values.tolist() == [-1, 2]          # as it was before
    assert t[1].sources == (t[0],) and t[2].sources == (t[1],)
    assert not any(step.turn for step in t) and t.leaves[0].name == "leaf 1"


def test_a_leaf_that_changes_is_seen_as_it_was():
    w = ta.Tensor([1.0], requires_grad=True)
    with ta.trace(w=w) as t:
        w * 2
        w.data += 10
        w * 2
    assert [step.inputs[0].values.item() for step in t] == [1, 11]
    assert t.leaves[0].output.values == 1 and len(t.leaves) == 1


def test_the_second_walk_counts():
    x = ta.Tensor([3.0], requires_grad=True)
    with ta.trace() as t:
        y = x * x
        y.backward(retain_graph=True)
        y.backward(np.array([10], np.float32))
    assert t[0].gradient.values == 10 and t[0].turn == 2
    assert t.leaves[0].gradient.values == 66


def test_what_ran_before_is_not_recorded():
    x = ta.Tensor([3.0], requires_grad=True)
    y = x * x
    with ta.trace() as t:
        (y * 1).backward()
    assert [step.op for step in t] == ["Scale"] and x.grad == 6


def test_only_this_thread_is_recorded():
    x = ta.Tensor([3.0], requires_grad=True)
    with ta.trace() as t:
        thread = threading.Thread(target=lambda: (x * x).backward())
        thread.start()
        thread.join()
    assert len(t) == 0 and x.grad == 6
    with ta.trace() as t:
        y = x * x
        thread = threading.Thread(target=y.backward)
        thread.start()
        thread.join()
    assert len(t) == 1 and t[0].turn is None and x.grad == 12


def test_errors_pass_through_as_they_are():
    a, b = ta.Tensor([1.0]), ta.Tensor([1.0], device="cpu:1")
    with ta.trace() as t:
        with pytest.raises(ta.DeviceMismatch, match="Add: inputs live on several devices"):
            a + b
        with pytest.raises(TypeError, match="Multiply: input 1 is a ndarray|expected a Tensor"):
            ops.arithmetic.Multiply()(a, np.ones(1, np.float32))
    assert len(t) == 0


def test_one_inside_another():
    x = ta.Tensor([1.0], requires_grad=True)
    with ta.trace() as outer:
        x * 2
        with ta.trace() as inner:
            (x * 3).backward()
    assert len(outer) == 2 and len(inner) == 1 and inner[0].turn == outer[1].turn == 1
    with pytest.raises(RuntimeError, match="make a new one"), inner:
        pass
    assert Function.__call__ is CALL


# ---------------------------------------------------------------------------- how it is shown

class Page(html.parser.HTMLParser):
    """What stands in a table for those without scripts and styles, and what else there is."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.tags, self.sources = [], [], [], []
        self.feed(text)
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.sources += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag in ("img", "input", "br", "col"):
            return
        self.open.append((tag, "hidden" in attributes))
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        hidden = any(gone or tag in ("script", "style") for tag, gone in self.open)
        if ("tr", False) in self.open and not hidden:
            self.rows[-1] += data


def small():
    x, w = ta.Tensor(numbers(2, 3), requires_grad=True), ta.Tensor(numbers(4, 3, seed=1))
    with ta.trace(x=x, w=w) as t:
        F.relu(F.linear(x, w)).sum().backward()
    return t


def test_the_strip_is_a_table_where_no_script_runs():
    t = small()
    text = t._repr_html_()
    page = Page(text)
    head, *rows = page.rows
    assert head == "stepwhat it computesgivengave"
    assert [re.match(r"\d \w+, \w+", row)[0] for row in rows] == [
        "1 Linear, forward", "2 ReLU, forward", "3 Sum, forward",
        "3 Sum, backward", "2 ReLU, backward", "1 Linear, backward"]
    assert "y = max(x, 0)." in rows[1] and "dL/dx_i = dL/dy_i * [y_i > 0]" in rows[4]
    assert f"{t[2].output.values.item():.4f}"[:5] in rows[2]
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "http" not in text and text.count("<script>") == 1
    assert text == strip(t.frames())                      # the same trace, the same bytes


def test_names_cannot_break_the_page():
    x = ta.Tensor([1.0])
    with ta.trace(**{"<b>&": x}) as t:
        x * 2
    text = t._repr_html_()
    assert "&lt;b&gt;&amp;" in text and "<b>&" not in text
    Page(text)


def test_an_empty_trace_says_so():
    with ta.trace() as t:
        pass
    assert str(t).endswith("\nNothing was recorded.")
    assert "Nothing was recorded." in t._repr_html_() and t.rows() == []
    Page(t._repr_html_())


def pixels(image):
    data = re.search(r'base64,([^"]+)"', image)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_thumbnail_is_the_array():
    a = np.arange(14.0).reshape(2, 7)
    want = np.arange(14) * 255 // 13
    np.testing.assert_array_equal(pixels(thumbnail(a)), want.reshape(2, 7, 1).repeat(3, axis=2))
    maps = np.stack([np.full((2, 2), 5.0), np.array([[0, 5], [np.nan, np.inf]])])
    got = pixels(thumbnail(maps[None]))                   # two maps and the gap between them
    assert got.shape == (2, 5, 3) and (got[:, 2] == 255).all() and (got[:, :2] == 255).all()
    assert (got[0, 3] == 0).all() and (got[1, 3:] == (213, 94, 0)).all()
    for shape in ((), (1,), (33,), (40, 1, 1), (1, 1), (1, 20, 3, 3), (2, 3, 4, 5, 6)):
        assert pixels(thumbnail(np.zeros(shape))).shape[1] <= 32
    assert pixels(thumbnail(np.full((2, 2), np.nan))).tolist() == [[[213, 94, 0]] * 2] * 2


def test_the_printed_table():
    t = small()
    lines = str(t).splitlines()
    assert lines[0].split() == ["way", "op", "device", "given", "gave", "time"]
    assert len(lines) == 1 + 6 + 1
    assert len({line.index("cpu:0") for line in lines[1:-1]}) == 1
    assert "x 2×3, w 4×3" in lines[1] and "to step 2" in lines[4]
    assert lines[-1].startswith("3 steps forward in ") and "; 3 steps backward in " in lines[-1]
    assert table(t.frames()) == str(t)


def test_rows_are_plain_and_in_order():
    rows = small().rows()
    assert [row["name"] for row in rows] == ["x", "w", "Linear", "ReLU", "Sum"]
    assert [row["inputs"] for row in rows] == [[], [], [0, 1, None], [2], [3]]
    assert rows[4]["shape"] == () and rows[4]["gradient"] == "1"
    assert float(rows[4]["value"]) > 0 and rows[0]["value"] is None
    assert [row["turn"] for row in rows] == [None, None, 3, 2, 1]
