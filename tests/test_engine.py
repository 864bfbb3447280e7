"""The engine: Tensor, Function and the walk backward, with all the traps that a graph can hold."""
import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import nn
from tinyalex.graph import Accumulator

CPU = ta.Device("cpu:0")


def leaf(*values, dtype=np.float32):
    return ta.Tensor(np.array(values, dtype), requires_grad=True)


def shares(*arrays):
    return any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


class Custom(ta.Function):
    """y = a + b (+ ...), with whatever `back` returns as gradients."""

    def __init__(self, back):
        self.back = back

    def forward(self, *arrays):
        return sum(arrays[1:], start=arrays[0])

    def backward(self, gy):
        return self.back(gy)


# ---------------------------------------------------------------------------- depth and memory

def test_ten_thousand_ops_deep():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + x * 0.0
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y                                             # the freed graph


def test_ten_thousand_ops_deep_can_be_dropped_unwalked():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = F.relu(y)
    gone = weakref.ref(y.node)
    del y
    assert gone() is None


def test_a_graph_dies_by_reference_counting():
    gc.collect()
    gc.disable()
    try:
        before = CPU.ledger.live_bytes
        x = leaf(1.0, 2.0)
        h = x * x
        y = F.tanh(h).sum()
        gone = [weakref.ref(o) for o in (x, h, y, x.node, h.node, y.node, y.node.parents[0],
                                         x.data, h.data, *h.node.saved)]
        y.backward()
        gone.append(weakref.ref(x.grad))
        del x, h, y
        assert [ref() for ref in gone] == [None] * len(gone)
        assert CPU.ledger.live_bytes == before
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_nobody_saved_dies_with_its_name():
    x = leaf(1.0, 2.0)
    h = x + 1.0                                       # Shift saves nothing, nor does the next
    gone = weakref.ref(h.data)
    y = h * 2.0
    del h
    assert gone() is None
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_training_leaves_no_garbage():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2),
                        nn.Dropout(), nn.Flatten(), nn.Linear(36, 3))
    opt = ta.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    images, labels = np.ones((2, 3, 8, 8), np.float32), np.array([0, 2])

    def step():
        opt.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        opt.step()

    step()
    gc.collect()
    gc.disable()
    try:
        step()
        live = CPU.ledger.live_bytes
        step()
        assert CPU.ledger.live_bytes == live and gc.collect() == 0
    finally:
        gc.enable()


def test_saved_arrays_are_freed_node_by_node():
    live = []

    class Watch(ta.Function):
        def forward(self, x):
            self.save(np.ones(1000, np.float32))
            return x + 1

        def backward(self, gy):
            live.append(CPU.ledger.live_bytes)
            return (gy,)

    chain = [ta.Tensor(np.ones(1000, np.float32), requires_grad=True)]
    for _ in range(5):
        chain.append(Watch()(chain[-1]))              # all results stay alive, and so do the nodes
    chain[-1].sum().backward()
    assert np.diff(live).tolist() == [-4000] * 4


# ---------------------------------------------------------------------------- sums

def test_a_value_used_twice_gets_both_gradients():
    x = leaf(3.0)
    b = x + x
    c = b + b                                         # the trap: b's gradient is complete first
    c.backward()
    assert x.grad.tolist() == [4]


def test_diamonds_on_diamonds():
    x = leaf(1.5, dtype=np.float64)
    y = x
    for _ in range(60):                               # 2^60 paths, 60 nodes
        y = y * 0.5 + y * 0.5
    y.backward()
    assert x.grad.tolist() == [1.0]


def test_uneven_paths_wait_for_each_other():
    x = leaf(2.0)
    deep = x * 3.0
    long = deep
    for _ in range(5):
        long = long * 1.0
    (deep * long).backward()                          # d(9 x^2)/dx
    assert x.grad.tolist() == [36]


def test_one_order_of_sums():
    values = [np.float32(v) for v in (1e8, 1.0, -1e8, 3.0, 1e-3, 7e6)]
    seen = set()
    for _ in range(5):
        x = leaf(1.0)
        parts = [x * float(v) for v in values]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        total.backward()
        seen.add(x.grad.tobytes())
    by_hand = np.float32(0)
    for v in reversed(values):                        # the node made last is walked first
        by_hand = by_hand + v
    assert seen == {by_hand.tobytes()}


def test_two_backwards_accumulate_exactly_twice():
    x = ta.Tensor(np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
                  requires_grad=True)

    def loss():
        return (F.tanh(x) * x).sum()

    loss().backward()
    once = x.grad.copy()
    loss().backward()
    assert np.array_equal(x.grad, once + once)


def test_broadcasting_sums_over_what_was_repeated():
    a = ta.Tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    for shape in ((), (1,), (4,), (1, 4), (3, 1), (1, 1), (2, 1, 1)):
        b = ta.Tensor(np.full(shape, 2.0), requires_grad=True)
        a.grad = None
        (a * b).sum().backward()
        full = np.broadcast_shapes(a.shape, shape)
        copies = np.prod(full) / a.size
        assert b.grad.shape == shape and np.isclose(b.grad.sum(), a.data.sum() * copies)
        assert np.array_equal(a.grad, np.full((3, 4), 2.0 * copies))


# ---------------------------------------------------------------------------- retain_graph

def test_a_second_walk_through_a_freed_graph_teaches():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="earlier backward.* freed the graph at Multiply.*"
                                           "retain_graph=True"):
        y.backward()
    assert x.grad.tolist() == [4]


def test_two_losses_over_one_freed_trunk_teach():
    trunk = F.tanh(leaf(2.0))
    one, two = trunk * 2.0, trunk * 3.0
    one.backward()
    with pytest.raises(RuntimeError, match="freed the graph at Tanh; pass retain_graph=True"):
        two.backward()


def test_retain_graph_walks_twice():
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12]


def test_only_leaves_keep_their_gradient():
    x = leaf(2.0)
    h = x * 3.0
    y = h * h
    y.backward()
    assert h.grad is None and y.grad is None and x.grad.tolist() == [36]


def test_retain_grad():
    x = leaf(2.0)
    h = x * 3.0
    h.retain_grad()
    y = h * h
    y.retain_grad()
    y.backward(retain_graph=True)
    y.backward()
    assert h.grad.tolist() == [24] and y.grad.tolist() == [2]
    assert not shares(x.grad, h.grad, y.grad)
    x.retain_grad()                                   # a leaf keeps it anyway
    with pytest.raises(RuntimeError, match="retain_grad.*requires_grad=False"):
        ta.Tensor([1.0]).retain_grad()


# ---------------------------------------------------------------------------- whose memory?

@pytest.mark.parametrize("back", [
    lambda gy: (gy, gy),
    lambda gy: (gy[:], gy[:]),
    lambda gy: (lambda g: (g, g))(gy * 2),
    lambda gy: (lambda g: (g[0], g[1]))(np.stack([gy, gy])),
    lambda gy: (gy, gy * 2),
    lambda gy: (np.broadcast_to(gy[:1], gy.shape),) * 2,
], ids=["gy twice", "views of gy", "one new array twice", "views of one array", "gy", "broadcast"])
def test_gradients_never_share_memory(back):
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    gradient = np.ones(2, np.float32)
    for times in (1, 2, 3):
        Custom(back)(a, b).backward(gradient)
        assert not shares(a.grad, b.grad, gradient)
        assert gradient.tolist() == [1, 1] and a.grad.flags.writeable
        expected = times * np.asarray(back(gradient))
        assert np.array_equal(a.grad, expected[0]) and np.array_equal(b.grad, expected[1])


def test_an_op_may_return_what_it_saved():
    class Kept(ta.Function):
        """y = the sum of k x, which returns its saved k as gradient."""

        def forward(self, x):
            self.save(np.array([2.0, 3.0], x.dtype))
            return (self.saved[0] * x).sum() if self.saved else x.sum()

        def backward(self, gy):
            return self.saved

    x = leaf(1.0, 1.0)
    y = Kept()(x)
    (kept,) = y.node.saved
    for times in (1, 2, 3):
        y.backward(retain_graph=True)
        assert x.grad.tolist() == [2 * times, 3 * times] and kept.tolist() == [2, 3]
        assert not shares(kept, x.grad)


def test_the_engine_adds_only_into_its_own_arrays():
    x = leaf(1.0, 2.0)
    h = x + 0.0
    gradients = [np.array([i, 2 * i], np.float32) for i in range(1, 5)]

    class Fan(ta.Function):
        """Four inputs, whose gradients are arrays that the op goes on holding."""

        def forward(self, *arrays):
            return arrays[0] + arrays[1] + arrays[2] + arrays[3]

        def backward(self, gy):
            return tuple(gradients)

    given = np.ones(2, np.float32)
    Fan()(h, h, h, h).backward(given)
    assert x.grad.tolist() == [10, 20] and given.tolist() == [1, 1]
    assert [g.tolist() for g in gradients] == [[1, 2], [2, 4], [3, 6], [4, 8]]


def test_what_an_op_goes_on_holding_is_not_added_into():
    kept = np.array([2.0, 3.0], np.float32)
    x = leaf(1.0, 1.0)
    for _ in range(4):
        Custom(lambda gy: (kept,))(x).backward(np.ones(2, np.float32))
    assert x.grad.tolist() == [8, 12] and kept.tolist() == [2, 3]
    x.grad = kept                                     # and what the user gave stays as it is
    (x * 1.0).sum().backward()
    assert x.grad.tolist() == [3, 4] and kept.tolist() == [2, 3]


def test_a_retained_gradient_is_out_of_reach_of_other_ops():
    class Rude(ta.Function):
        def forward(self, x):
            return x + 1

        def backward(self, gy):
            gy *= 5                                   # what no op should do
            return (gy,)

    h = Rude()(leaf(1.0, 2.0))
    h.retain_grad()
    (h * 3.0).sum().backward()
    assert h.grad.tolist() == [3, 3]


def test_a_leaf_adopts_a_gradient_that_nobody_else_holds():
    made = []

    class Fresh(ta.Function):
        def forward(self, x):
            return x + 1

        def backward(self, gy):
            made.append(gy * 2)
            return (made[-1],)

    x, h = leaf(1.0, 2.0), leaf(1.0, 2.0) + 0.0
    Fresh()(x).backward(np.ones(2, np.float32))
    assert x.grad is made[0]                          # 240 MB are not copied for AlexNet's weights
    h.retain_grad()
    Fresh()(h).backward(np.ones(2, np.float32))
    assert not shares(h.grad, made[1])                # which is on its way further down


def test_a_read_only_gradient_is_enough():
    x = leaf(1.0, 2.0)
    gradient = np.broadcast_to(np.float32(1), (2,))
    x.backward(gradient)
    x.backward(gradient)
    (x + x).backward(gradient)
    assert x.grad.tolist() == [4, 4]


def test_the_users_gradient_of_a_leaf_is_copied():
    x, gradient = leaf(1.0), np.ones(1, np.float32)
    x.backward(gradient)
    x.backward(gradient)
    assert x.grad.tolist() == [2] and gradient.tolist() == [1]


# ---------------------------------------------------------------------------- switching

def test_no_grad_and_enable_grad():
    x = leaf(2.0)
    with ta.no_grad():
        y = x * x
        with ta.enable_grad():
            z = x * x
        again = x * x
    assert not y.requires_grad and not again.requires_grad and z.requires_grad
    assert y.is_leaf and (x * x).requires_grad

    @ta.no_grad()
    def double(t):
        return t * 2.0
    assert not double(x).requires_grad and not double(x).requires_grad


def test_no_grad_ends_with_an_exception_and_holds_for_one_thread():
    with pytest.raises(KeyError), ta.no_grad():
        raise KeyError
    x, seen = leaf(2.0), []
    with ta.no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * x).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True] and (x * x).requires_grad


def test_detach_shares_values_and_cuts_the_graph():
    x = leaf(2.0)
    d = (x * 3.0).detach()
    assert d.is_leaf and not d.requires_grad and d.node is None
    (x * d).backward()
    assert x.grad.tolist() == [6]
    assert x.detach().data is x.data


def test_requires_grad_can_be_switched_on_leaves_alone():
    x = ta.Tensor([2.0])
    assert x.requires_grad_() is x and x.requires_grad and x.is_leaf
    (x * x).backward()
    x.requires_grad_(True)
    assert x.grad.tolist() == [4]                     # no change keeps the gradient
    assert not x.requires_grad_(False).requires_grad and x.grad is None
    y = leaf(1.0) * 2.0
    with pytest.raises(RuntimeError, match=r"requires_grad_: only leaves; use x.detach\(\)"):
        y.requires_grad_(False)


def test_absent_and_unwanted_gradients():
    x, w = ta.Tensor([[1.0, 2.0]]), ta.Tensor([[3.0, 4.0]], requires_grad=True)
    F.linear(x, w, None).backward()
    assert w.grad.tolist() == [[1, 2]] and x.grad is None and not x.requires_grad


def test_the_gradient_can_be_set():
    x = leaf(1.0, 2.0)
    x.grad = np.array([5.0, 6.0], np.float32)
    (x * 1.0).backward(np.ones(2, np.float32))
    assert x.grad.tolist() == [6, 7]
    x.grad = None
    assert x.grad is None
    for wrong in (np.ones(3, np.float32), np.ones(2), [1.0, 2.0], 1.0):
        with pytest.raises(TypeError, match=r"grad: gradient is .*; expected an array \(2,\) "):
            x.grad = wrong
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        ta.Tensor([1.0]).grad = np.ones(1, np.float32)
    scalar = leaf(2.0).sum()
    scalar.grad = np.float32(3)
    assert scalar.grad.shape == ()


def test_a_copied_leaf_is_another_leaf():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad and twin.grad is None and not shares(twin.data, x.data)
    x.grad = None
    (x * twin * x).sum().backward()
    assert x.grad.tolist() == [2, 8] and twin.grad.tolist() == [1, 4]


# ---------------------------------------------------------------------------- detect_anomaly

class Tower(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(2, 2)

    def half(self, x):                                # a helper, not a call of the module
        return F.log(self.fc(x) * 0.0)


class Net(nn.Module):
    def __init__(self):
        self.towers = nn.ModuleList([Tower(), Tower()])

    def forward(self, x):
        return self.towers[1].half(x)


def test_detect_anomaly_names_the_op_that_gave_nan_forward():
    with np.errstate(divide="ignore"), ta.detect_anomaly():
        with pytest.raises(FloatingPointError, match="forward of Log gave NaN or infinity"):
            F.log(ta.Tensor([0.0]))
    with np.errstate(divide="ignore"):
        assert F.log(ta.Tensor([0.0])).item() == -np.inf


def test_detect_anomaly_names_op_and_module_backward():
    class Blow(ta.Function):
        def forward(self, x):
            return x

        def backward(self, gy):
            return (gy * np.inf,)

    class Bomb(nn.Module):
        def forward(self, x):
            return Blow()(x)

    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), Bomb()))
    y = net(ta.Tensor([[1.0, 2.0]])).sum()
    with ta.detect_anomaly():
        with pytest.raises(FloatingPointError, match=r"backward of Blow in module 1\.1 gave NaN"):
            y.backward()


def test_detect_anomaly_across_devices():
    x = leaf(1.0)
    with ta.detect_anomaly():
        (x.to("cpu:1") * 2.0).to("cpu:0").sum().backward()
    assert x.grad.tolist() == [2]


def test_the_whole_module_path_is_named():
    net = Net()
    assert [path for path, _ in net.named_modules()] == [
        "", "towers", "towers.0", "towers.0.fc", "towers.1", "towers.1.fc"]
    images = ta.Tensor([[1.0, 2.0]], device="cpu:1")
    with pytest.raises(ta.DeviceMismatch, match=(
            r"Linear in module towers\.1\.fc: inputs live on several devices: cpu:1 \(1, 2\), "
            r"cpu:0 \(2, 2\), cpu:0 \(2,\); move one of them first, for example "
            r"x\.to\('cpu:1'\)")):
        net(images)
    wrapped = nn.Sequential(nn.Flatten(), net)        # another net around it, another path
    with pytest.raises(ta.DeviceMismatch, match=r"Linear in module 1\.towers\.1\.fc: "):
        wrapped[1](images)
    with pytest.raises(ta.DeviceMismatch, match="^Linear: "):
        F.linear(images, net.towers[0].fc.weight)


def test_a_module_outside_of_the_net_speaks_of_the_caller():
    loose = nn.Linear(2, 2)

    class Caller(nn.Module):
        def forward(self, x):
            return loose(x)

    net = nn.Sequential(Caller())
    with pytest.raises(TypeError, match=r"Linear in module 0: got a plain str"):
        net[0]("x")


# ---------------------------------------------------------------------------- mistakes teach

def test_a_mismatch_is_raised_before_memory_is_touched():
    class Touch(ta.Function):
        def forward(self, a, b):
            raise AssertionError("memory was touched")

    with pytest.raises(ta.DeviceMismatch, match="Touch: inputs live on several devices"):
        Touch()(ta.Tensor([1.0]), ta.Tensor([1.0], device="cpu:1"))
    with pytest.raises(TypeError, match=r"Touch: inputs have dtypes float32 and float64; convert "
                                        r"one first, for example array.astype\('float32'\) "
                                        r"\(or a whole net: net.double\(\)\)"):
        Touch()(ta.Tensor([1.0]), ta.Tensor(np.ones(1)))
    with pytest.raises(TypeError, match=r"Touch: got a plain ndarray; expected a Tensor: wrap it, "
                                        r"ta.Tensor\(array, device=\.\.\.\)"):
        Touch()(ta.Tensor([1.0], device="cpu:1"), np.ones(1))
    with pytest.raises(TypeError, match="Touch: got a plain ndarray"):    # also after a mismatch
        Touch()(ta.Tensor([1.0]), ta.Tensor([1.0], device="cpu:1"), np.ones(1))
    with pytest.raises(TypeError, match="Touch: needs at least one Tensor"):
        Touch()(None)


def test_the_first_misfit_is_named():
    here, there = ta.Tensor([1.0]), ta.Tensor([1.0], device="cpu:1")
    double = ta.Tensor(np.ones(1))
    with pytest.raises(ta.DeviceMismatch, match=r"Custom: .*: cpu:0 \(1,\), cpu:1 \(1,\), cpu:0 "):
        Custom(None)(None, here, there, double)
    with pytest.raises(TypeError, match="Custom: inputs have dtypes float32 and float64"):
        Custom(None)(None, here, double, there)


def test_a_float32_net_fed_float64_names_the_fix():
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"Linear in module 0: .*float64 and float32.*"
                                        r"astype\('float32'\)"):
        net(np.ones((1, 2)))


@pytest.mark.parametrize("back, error, match", [
    (lambda gy: (gy,), ValueError, r"Custom.backward returned .*\[\(2,\)\]; expected .*, "
                                   r"\[\(2,\), \(2,\)\]"),
    (lambda gy: (gy, gy, gy), ValueError, "Custom.backward returned gradients of shapes"),
    (lambda gy: (gy[:1], gy), ValueError, r"shapes \[\(1,\), \(2,\)\]; expected those of its in"),
    (lambda gy: (1.0, gy), ValueError, r"shapes \[\(\), \(2,\)\]"),
    (lambda gy: gy, TypeError, "Custom.backward returned ndarray; expected a tuple of one grad"),
    (lambda gy: None, TypeError, "Custom.backward returned NoneType; expected a tuple"),
    (lambda gy: (gy, gy.astype(np.float64)), TypeError, r"dtypes \['float32', 'float64'\]; "
                                                        "expected float32"),
    (lambda gy: (None, gy.astype(np.float64)), TypeError, "dtypes .*'float64'.*expected float32"),
])
def test_a_wrong_backward_teaches(back, error, match):
    with pytest.raises(error, match=match):
        Custom(back)(leaf(1.0, 2.0), leaf(3.0, 4.0)).sum().backward()


def test_a_gradient_may_be_none_a_list_or_a_scalar():
    a, b = leaf(2.0, 3.0), leaf(4.0, 5.0)
    Custom(lambda gy: [None, gy])(a, b).sum().backward()
    assert a.grad is None and b.grad.tolist() == [1, 1]
    c = leaf(2.0).sum()
    c.retain_grad()
    Custom(lambda gy: (gy.sum(),))(c).backward()      # NumPy's sum is no array
    assert isinstance(c.grad, np.ndarray) and c.grad.shape == ()


def test_an_op_object_is_one_node():
    op, x = Custom(lambda gy: (gy,)), leaf(1.0)
    op(x)
    with pytest.raises(RuntimeError, match="Custom: this object is a node of the graph already; "
                                           "make a new one for each call"):
        op(x)


def test_an_op_may_save_numbers():
    class Stretch(ta.Function):
        """y = x times its largest element, a NumPy scalar, held constant."""

        def forward(self, x):
            most = x.max()
            self.save(most, 2.0, None)
            return x * most

        def backward(self, gy):
            most, two, nothing = self.saved
            assert two == 2.0 and nothing is None
            return (gy * most,)

    x = leaf(1.0, 3.0)
    Stretch()(x).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_backward_teaches():
    with pytest.raises(RuntimeError, match="backward: this Tensor has no graph; .*requires_grad"):
        ta.Tensor([1.0]).backward()
    with ta.no_grad():
        y = leaf(1.0) * 2.0
    with pytest.raises(RuntimeError, match="no graph"):
        y.backward()
    z = leaf(1.0, 2.0) * 2.0
    with pytest.raises(RuntimeError, match=r"backward: shape \(2,\) is no scalar; .*\.sum\(\)"):
        z.backward()
    for wrong in (np.ones(3, np.float32), np.ones(2), 1.0, [1.0, 1.0], ta.Tensor([1.0, 1.0])):
        with pytest.raises(TypeError, match=r"backward: gradient is .*; expected an array \(2,\) "
                                            r"float32 on cpu:0"):
            z.backward(wrong)
    z.backward(np.ones(2, np.float32))


# ---------------------------------------------------------------------------- in place

def test_in_place_is_refused_on_a_leaf_and_on_its_views():
    with pytest.raises(RuntimeError, match="would lose the value of a leaf"):
        F.relu(leaf(1.0), inplace=True)
    for view in (lambda x: x, lambda x: x.reshape(2, 1), lambda x: x[:], lambda x: x.T,
                 lambda x: x.reshape(2, 1)[0]):
        x = leaf(-1.0, 2.0)
        with pytest.raises(RuntimeError, match="inplace=True.*use inplace=False"):
            F.relu(view(x), inplace=True)
        assert x.data.tolist() == [-1, 2]


def test_in_place_is_refused_where_another_tensor_would_change():
    x = leaf(-1.0, 2.0)
    h = x * 3.0
    with pytest.raises(RuntimeError, match="what Reshape returned is a view .*use inplace=False"):
        F.relu(h.reshape(2, 1), inplace=True)
    (h * 2.0).sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_in_place_over_what_was_saved_through_a_view_is_noticed():
    x = leaf(-1.0, 2.0)
    h = x * 3.0
    y = F.log_softmax(h.reshape(1, 2)) + h.reshape(1, 2) ** 2       # Power saved a view of h
    F.relu(h, inplace=True)
    with pytest.raises(RuntimeError, match="what Power saved was overwritten afterwards"):
        y.sum().backward()


def test_in_place_after_use_is_right_where_nobody_saved():
    x = leaf(-1.0, 2.0)
    h = x * 3.0
    before = h * 5.0                                  # Scale saves nothing
    after = F.relu(h, inplace=True)
    (before + after * after).sum().backward()         # 15 x + 9 relu(x)^2
    assert x.grad.tolist() == [15, 15 + 36]


def test_in_place_used_twice():
    x = leaf(-1.0, 2.0)
    h = F.relu(x * 3.0, inplace=True)
    (h * 2.0 + h * h).sum().backward()
    assert x.grad.tolist() == [0, 6 + 36]


def test_in_place_under_no_grad_keeps_the_leaf_a_leaf():
    w = leaf(-1.0, 2.0)
    with ta.no_grad():
        assert F.relu(w, inplace=True) is w
    assert w.requires_grad and w.is_leaf and w.data.tolist() == [0, 2]
    (w * w).sum().backward()
    assert w.grad.tolist() == [0, 4]


def test_in_place_under_no_grad_over_what_was_saved_is_noticed():
    h = leaf(-1.0, 2.0) * 3.0
    y = h * h
    with ta.no_grad():
        F.relu(h, inplace=True)
    assert h.requires_grad
    with pytest.raises(RuntimeError, match="overwritten afterwards"):
        y.sum().backward()


def test_an_update_between_forward_and_backward_is_noticed():
    w = leaf(1.0, 2.0)
    opt = ta.optim.SGD([w], 0.1)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    opt.step()
    with pytest.raises(RuntimeError, match=r"what Multiply saved was overwritten.*opt.step\(\)"):
        loss.backward()


# ---------------------------------------------------------------------------- Tensor

@pytest.mark.parametrize("value, shape", [
    (2, ()), (2.5, ()), (True, ()), (np.float64(2), ()), (np.int64(2), ()), (np.bool_(True), ()),
    ([1, 2], (2,)), ([[1.0, 2.0]], (1, 2)), ([True, False], (2,)), ((1, 2), (2,)), ([], (0,)),
    (range(3), (3,)), ([np.float64(1)], (1,)), ([np.ones(2), np.zeros(2)], (2, 2))])
def test_numbers_and_lists_become_float32(value, shape):
    x = ta.Tensor(value)
    assert x.dtype == np.float32 and x.shape == shape
    assert np.array_equal(x.data, np.asarray(value))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_float_arrays_are_adopted(dtype, shape):
    array = np.zeros(shape, dtype)
    x = ta.Tensor(array)
    assert x.data is array and x.dtype == dtype
    assert (x.shape, x.ndim, x.size) == (shape, array.ndim, array.size)


@pytest.mark.parametrize("value", [
    np.zeros(2, np.uint8), np.zeros(2, np.int64), np.zeros(2, bool), np.zeros(2, np.float16),
    np.zeros(2, complex), np.array(3), None, "2.5", ["a"], [1j], [None]],
    ids=lambda v: str(getattr(v, "dtype", v)))
def test_other_things_are_refused(value):
    with pytest.raises(TypeError, match="Tensor: got dtype .*; expected float32 or float64 .labels "
                                        "and uint8 pictures stay plain arrays"):
        ta.Tensor(value)


def test_a_tensor_is_no_array():
    x = leaf(1.0)
    with pytest.raises(TypeError, match=r"got a Tensor; use x.detach\(\) or x.to\(device\)"):
        ta.Tensor(x)
    with pytest.raises(TypeError, match="a Tensor does not turn into a NumPy array by itself"):
        ta.Tensor([x, x])
    with pytest.raises(ValueError):
        ta.Tensor([[1.0], [1.0, 2.0]])


def test_item_float_bool_and_len():
    x = ta.Tensor([[2.5]])
    assert x.item() == 2.5 and float(x) == 2.5 and bool(x) and type(x.item()) is float
    assert not bool(ta.Tensor(0.0)) and len(ta.Tensor([1.0, 2.0])) == 2
    for convert in (float, bool, ta.Tensor.item):
        with pytest.raises(ValueError, match=r"item: needs .* one element; got shape \(2,\)"):
            convert(ta.Tensor([1.0, 2.0]))


def test_numpy_and_cpu():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"numpy: .*use x.detach\(\).numpy\(\)"):
        x.numpy()
    assert x.detach().numpy() is x.data
    there = ta.Tensor([1.0], device="cpu:1")
    assert there.cpu().device is CPU and not shares(there.cpu().data, there.data)


def test_repr():
    assert repr(ta.Tensor([1.0, 2.5])) == "Tensor([1. , 2.5], device='cpu:0')"
    assert repr(ta.Tensor(3.0, "cpu:1", True)) == "Tensor(3., device='cpu:1', requires_grad=True)"
    assert repr(ta.Tensor([])) == "Tensor([], device='cpu:0')"
    assert "..." in repr(ta.Tensor(np.zeros(10_000, np.float32)))
    assert len(repr(ta.Tensor(np.zeros((100, 100), np.float32)))) < 1000


def test_every_op_takes_a_tensor_without_axes():
    for fn in (F.relu, F.tanh, F.sigmoid, F.exp, F.log, lambda x: x ** 2, lambda x: 2 ** x,
               lambda x: 1 / x, lambda x: x / x, lambda x: x.sum(), lambda x: x.mean(),
               lambda x: x.max(), lambda x: x.reshape(1, 1), lambda x: -x * x - x + 2):
        x = ta.Tensor(0.5, requires_grad=True)
        y = fn(x)
        y.backward()
        assert isinstance(y.data, np.ndarray) and y.size == 1
        assert isinstance(x.grad, np.ndarray) and x.grad.shape == () and x.grad.dtype == np.float32


# ---------------------------------------------------------------------------- operators

NUMBERS = [3, 3.0, np.float32(3), np.float64(3), np.int64(3), np.uint8(3)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operators_with_numbers_on_both_sides(number, dtype):
    value = np.array([0.5, 2.0], dtype)
    for op in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b,
               lambda a, b: a ** b):
        x = ta.Tensor(value.copy(), requires_grad=True)
        for got, expected in ((op(x, number), op(value, dtype(number))),
                              (op(number, x), op(dtype(number), value))):
            assert isinstance(got, ta.Tensor) and got.dtype == dtype and got.requires_grad
            np.testing.assert_allclose(got.data, expected, rtol=1e-6)
    assert (-x).data.tolist() == [-0.5, -2.0]


@pytest.mark.parametrize("op", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b,
                                lambda a, b: a / b, lambda a, b: a ** b, lambda a, b: a @ b])
def test_arrays_beside_tensors_teach(op):
    x, array = leaf(1.0, 2.0), np.ones(2, np.float32)
    for a, b in ((x, array), (array, x)):
        with pytest.raises(TypeError, match=r"wrap (it|the array): ta.Tensor\(array, "
                                            r"device='cpu:0'\)"):
            op(a, b)
    array += 1
    with pytest.raises(TypeError, match="wrap the array"):
        array += x
    assert array.tolist() == [2, 2]


@pytest.mark.parametrize("other", ["a", None, [1.0], (1.0,), True, 1j, object()])
def test_other_operands_are_refused(other):
    for op in (lambda a, b: a + b, lambda a, b: b * a, lambda a, b: a ** b):
        with pytest.raises(TypeError):
            op(leaf(1.0), other)


@pytest.mark.parametrize("call, use", [
    (np.exp, r"F\.exp\(x\)"), (np.sum, r"x\.sum\(\)"), (np.max, r"x\.max\(\)"),
    (np.mean, r"x\.mean\(\)"), (np.sqrt, r"x \*\* 0\.5"), (lambda x: np.maximum(x, 0), r"F\.relu"),
    (lambda x: np.reshape(x, -1), r"x\.reshape"), (lambda x: np.dot(x, x), "a @ b"),
    (lambda x: np.concatenate([x, x]), r"F\.concatenate"), (np.sin, "an op of tinyalex.functional"),
    (lambda x: np.add(x, x), r"a \+ b"), (np.argmax, r"x\.detach\(\)\.numpy\(\)"),
    (np.asarray, r"x\.detach\(\)\.numpy\(\)"), (np.array, r"x\.detach\(\)\.numpy\(\)")])
def test_numpy_functions_name_the_op_to_use(call, use):
    with pytest.raises(TypeError, match=use):
        call(leaf(1.0, 2.0))


def test_rows_can_be_walked():
    rows = list(ta.Tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert [row.data.tolist() for row in rows] == [[1, 2], [3, 4]]


def test_an_accumulator_belongs_to_its_leaf():
    x = leaf(1.0)
    assert isinstance(x.node, Accumulator) and x.is_leaf and (x * 2.0).node.parents == [x.node]
