"""Crossing between devices: the copy, the exchange between towers, and what must not mix."""

from unittest import mock

import numpy as np
import pytest
import reference as ref
import strategies
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from tinyalex import functional as F
from tinyalex.gradcheck import check_adjoint, check_grads


def tensor(device, *shape, seed=0, dtype=np.float32, requires_grad=True):
    return ta.Tensor(strategies.normal(shape, seed, dtype), device, requires_grad)


def host(tensor):
    return tensor.device.numpy(tensor.data)


# ---------------------------------------------------------------------------- x.to(device)

def test_to_copies_forward_and_the_gradient_back(pair):
    here, there = pair
    x = tensor(here, 2, 3)
    for device in pair:
        device.ledger.reset()
    y = x.to(there)
    assert y.device is there and y.data is not x.data and np.array_equal(host(y), host(x))
    if there.kind == "cpu":
        assert not np.shares_memory(x.data, y.data)
    gy = strategies.normal((2, 3), 1, np.float32)
    y.backward(there.array(gy))
    assert np.array_equal(here.numpy(x.grad), gy)
    for device, source in [(there, here), (here, there)]:
        assert device.ledger.copies == {(source.name, "exchange"): 1}
        assert device.ledger.bytes == {(source.name, "exchange"): 24}


def test_to_where_it_is_already_is_itself(pair):
    x = tensor(pair[0], 3)
    pair[0].ledger.reset()
    assert x.to(pair[0]) is x and x.to(pair[0].name) is x and not pair[0].ledger.copies


def test_to_books_under_its_kind(pair):
    here, there = pair
    x = tensor(here, 5, dtype=np.float64)
    there.ledger.reset(), here.ledger.reset()
    ta.ops.exchange.to(x, there, kind="input").backward(there.array(np.ones(5)))
    assert there.ledger.bytes == {(here.name, "input"): 40}
    assert here.ledger.bytes == {(there.name, "input"): 40}


@given(strategies.map_shapes(3), strategies.dtypes(), strategies.layouts(), strategies.seeds())
def test_there_and_back_is_nothing(agrees, shape, dtype, layout, seed):
    agrees(lambda x: x.to("cpu:1").to("cpu:0"), lambda x: x, strategies.normal(shape, seed),
           dtype=dtype, layout=layout)


def test_cpu_is_the_first():
    assert tensor("cpu:1", 2).cpu().device is ta.Device("cpu:0")
    with pytest.raises(ValueError, match="device: got 'gpu'; expected 'cpu:0', 'cpu:1', 'cuda:0'"):
        tensor("cpu:0", 2).to("gpu")


# ---------------------------------------------------------------------------- exchange

@st.composite
def tower_maps(draw):
    """The maps of some towers, as wide as each likes along the axis that is joined."""
    axis = draw(st.sampled_from([1, -3]))
    widths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    seed = draw(strategies.seeds())
    return axis, [strategies.normal((2, width, 2, 3), [seed, i]) for i, width in enumerate(widths)]


def placed(arrays, devices, requires_grad=False):
    return [ta.Tensor(a, devices[i % len(devices)], requires_grad) for i, a in enumerate(arrays)]


@given(tower_maps(), st.sampled_from([["cpu:0"], ["cpu:0", "cpu:1"], ["cpu:1", "cpu:0", "cpu:2"]]))
def test_every_tower_sees_the_maps_of_all(found, devices):
    axis, arrays = found
    parts = placed(arrays, devices)
    joined = F.exchange(parts, axis)
    assert [t.device for t in joined] == [p.device for p in parts]
    for got, expected in zip(joined, ref.exchange(arrays, axis), strict=True):
        assert np.array_equal(got.data, expected)
    alone = F.exchange(parts, axis, to="cpu:1")
    assert alone.device.name == "cpu:1"
    assert np.array_equal(alone.data, ref.concatenate(arrays, axis))


@given(tower_maps(), st.sampled_from([["cpu:0"], ["cpu:0", "cpu:1"], ["cpu:1", "cpu:0", "cpu:2"]]))
def test_each_tower_gets_back_the_sum_of_what_all_devices_send(found, devices):
    axis, arrays = found
    parts = placed(arrays, devices, requires_grad=True)
    joined = F.exchange(parts, axis)
    gys = [strategies.away_from_zero(t.shape, 10 + i) for i, t in enumerate(joined)]
    # one number out of all, so that one walk goes down through everything
    terms = [(t * ta.Tensor(gy, t.device)).sum().to("cpu:0")
             for t, gy in zip(joined, gys, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    total.backward()
    widths = [a.shape[axis] for a in arrays]
    for part, expected in zip(parts, ref.exchange_backward(gys, widths, axis), strict=True):
        assert np.allclose(part.grad, expected, rtol=0, atol=1e-14)


def test_gradients_on_every_device(pair):
    """Two towers with a layer each, an exchange, two layers, and one number at the end."""
    here, there = pair
    shapes = [(2, 3), (4, 3), (2, 3), (5, 7), (6, 7)]

    def net(x, w0, w1, v0, v1):
        a = F.linear(x, w0)
        b = F.linear(x.to(there), w1.to(there))
        # 4 units here; 2 there, and the first of them again: halves of unlike width
        b = F.concatenate([b, b[:, :1]], 1)
        left, right = F.exchange([a, b])
        return F.exchange([F.linear(left, v0), F.linear(right, v1.to(there))], to=here)

    def reference(x, w0, w1, v0, v1):
        b = ref.linear(x, w1)
        joined = ref.concatenate([ref.linear(x, w0), ref.concatenate([b, b[:, :1]])])
        return ref.concatenate([ref.linear(joined, v0), ref.linear(joined, v1)])

    arrays = [strategies.normal(shape, i) for i, shape in enumerate(shapes)]
    check_grads(net, *arrays, reference=reference, kind="multilinear",
                device=here).raise_if_wrong()


def test_backward_is_the_adjoint_of_forward():
    """The copy to two devices and its way back: y = (x, x), and gx is the sum of both."""
    def forward(x):
        a, b = F.exchange(placed([x[:, :2], x[:, 2:]], ["cpu:0", "cpu:1"]))
        return np.stack([a.data, b.data])

    def backward(c):
        parts = placed([np.zeros((3, 2)), np.zeros((3, 4))], ["cpu:0", "cpu:1"], True)
        for joined, gy in zip(F.exchange(parts), c, strict=True):
            joined.backward(gy, retain_graph=True)
        return np.concatenate([p.grad for p in parts], axis=1)

    check_adjoint(forward, backward, strategies.normal((3, 6), 0)).raise_if_wrong()


def test_bytes_of_the_papers_first_exchange(pair):
    """pool2 to conv3: 13 x 13 x 128 maps a tower, both ways, 173,056 bytes forward and back."""
    parts = [tensor(device, 1, 128, 13, 13) for device in pair]
    for device in pair:
        device.ledger.reset()
    joined = F.exchange(parts)
    forward = sum(sum(device.ledger.bytes.values()) for device in pair)
    for t in joined:
        t.backward(t.device.array(np.ones(t.shape, np.float32)), retain_graph=True)
    both = sum(sum(device.ledger.bytes.values()) for device in pair)
    assert forward == 173_056 and both - forward == 173_056
    assert [sum(device.ledger.copies.values()) for device in pair] == [2, 2]


def test_to_one_device_only_the_others_travel(pair):
    """fc7 to fc8: the first tower's half is there already."""
    here, there = pair
    parts = [tensor(here, 2, 3), tensor(there, 2, 4)]
    here.ledger.reset(), there.ledger.reset()
    assert F.exchange(parts, to=here).shape == (2, 7)
    assert here.ledger.bytes == {(there.name, "exchange"): 32} and not there.ledger.bytes


def test_on_one_device_nothing_travels_and_nothing_is_joined_twice():
    ta.Device("cpu:0").ledger.reset()
    a, b = F.exchange([tensor("cpu:0", 2, 3), tensor("cpu:0", 2, 3, seed=1)])
    assert a is b and not ta.Device("cpu:0").ledger.copies


@pytest.mark.parametrize("axis, shapes, message", [
    (1, [(2, 3, 4, 4), (2, 3, 5, 4)],
     r"concatenate: shapes \[\(2, 3, 4, 4\), \(2, 3, 5, 4\)\] differ in more than axis 1"),
    (4, [(2, 3), (2, 3)], "axis: got 4; expected an integer from -2 to 1"),
    (-3, [(2, 3), (2, 3)], "axis: got -3; expected an integer from -2 to 1")])
def test_parts_that_do_not_fit(axis, shapes, message):
    parts = [tensor(f"cpu:{i}", *shape) for i, shape in enumerate(shapes)]
    with pytest.raises(ValueError, match=message):
        F.exchange(parts, axis)


def test_plain_arrays_are_refused():
    for part, kind in [(np.ones((2, 3), np.float32), "ndarray"), ([1.0], "list")]:
        with pytest.raises(TypeError, match=f"exchange: got a plain {kind}; expected a Tensor"):
            F.exchange([tensor("cpu:0", 2, 3), part])
    with pytest.raises(TypeError, match="To: got a plain ndarray; expected a Tensor"):
        ta.ops.exchange.to(np.ones(3), "cpu:1")


# ---------------------------------------------------------------------------- what must not mix

MIXERS = {                              # name of the op: what it is called with
    "Add": lambda a, b: a + b, "Subtract": lambda a, b: a - b, "Multiply": lambda a, b: a * b,
    "Divide": lambda a, b: a / b, "MatMul": lambda a, b: a @ b,
    "Linear": F.linear, "Concatenate": lambda a, b: F.concatenate([a, b]),
    "Conv2d": lambda a, b: F.conv2d(a.reshape(1, 1, 3, 3), b.reshape(1, 1, 3, 3))}


@pytest.mark.parametrize("name", MIXERS)
def test_mixing_devices_is_refused_before_memory_is_touched(pair, name):
    here, there = pair
    a, b = tensor(here, 3, 3), tensor(there, 3, 3)
    MIXERS[name](a, a), MIXERS[name](b, b)
    op = {op.__name__: op for op in subclasses(ta.Function)}[name]
    live = [device.ledger.live_bytes for device in pair]
    for x, y in [(a, b), (b, a)]:
        with mock.patch.object(op, "forward") as forward, pytest.raises(ta.DeviceMismatch) as error:
            MIXERS[name](x, y)
        assert not forward.called
        message = str(error.value)
        assert message.startswith(f"{name}: inputs live on several devices: {x.device.name} (")
        assert f", {y.device.name} (" in message
        assert message.endswith(f"move one of them first, for example x.to('{x.device.name}')")
        assert isinstance(error.value, TypeError)
    del error
    assert [device.ledger.live_bytes for device in pair] == live


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_a_bias_elsewhere_is_seen_too():
    x, w, b = tensor("cpu:0", 2, 3), tensor("cpu:0", 4, 3), tensor("cpu:1", 4)
    with pytest.raises(ta.DeviceMismatch, match=r"cpu:0 \(2, 3\), cpu:0 \(4, 3\), cpu:1 \(4,\)"):
        F.linear(x, w, b)


def test_the_message_names_the_module():
    net = ta.nn.Sequential(ta.nn.Linear(3, 5), ta.nn.ReLU(), ta.nn.Linear(5, 2, device="cpu:1"))
    with pytest.raises(ta.DeviceMismatch, match=r"^Linear in module 2: inputs live on several "
                                                r"devices: cpu:0 \(4, 5\), cpu:1 \(2, 5\)"):
        net(tensor("cpu:0", 4, 3))


def test_moving_first_is_the_fix():
    a, b = tensor("cpu:0", 3), tensor("cpu:1", 3)
    (a + b.to("cpu:0")).sum().backward()
    assert a.grad.tolist() == b.grad.tolist() == [1, 1, 1]
