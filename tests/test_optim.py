"""The paper's update rule against itself written out by hand, and the schedules against traces."""
import json
import math
from unittest import mock

import numpy as np
import pytest
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import nn
from tinyalex.device import pool
from tinyalex.optim import SGD, lr_scheduler


def parameters(seed=0, dtype=np.float64):
    """A matrix, a bias, a feature map's filter, and a number."""
    rng = np.random.default_rng(seed)
    shapes = [((3, 4), False), ((3,), True), ((2, 3, 2, 2), False), ((), False)]
    return [nn.Parameter(np.asarray(rng.standard_normal(shape), dtype), is_bias=bias)
            for shape, bias in shapes]


def gradients(params, steps, seed=1):
    rng = np.random.default_rng(seed)
    return [[np.asarray(rng.standard_normal(p.shape), p.dtype) for p in params]
            for _ in range(steps)]


def give(params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = g.copy()


# ---------------------------------------------------------------------------- the rule

def test_fifty_steps_as_the_paper_writes_them():
    params = parameters()
    w = [p.data.copy() for p in params]
    v = [np.zeros_like(a) for a in w]
    opt = SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4, bias_lr=0.02)
    for step, grads in enumerate(gradients(params, 50)):
        if step == 30:                                # the rate falls, the velocity goes on
            opt.lr, opt.bias_lr = 0.001, 0.002
        lr, bias_lr = (0.01, 0.02) if step < 30 else (0.001, 0.002)
        give(params, grads)
        opt.step()
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if p.is_bias:
                v[i] = 0.9 * v[i] - bias_lr * g
            else:
                v[i] = 0.9 * v[i] - 5e-4 * lr * w[i] - lr * g
            w[i] = w[i] + v[i]
            np.testing.assert_allclose(p.data, w[i], rtol=1e-13, atol=1e-15)
        assert all(np.array_equal(p.grad, g) for p, g in zip(params, grads, strict=True))


def test_at_a_constant_rate_it_is_pytorchs_rule():
    params = parameters()
    w = [p.data.copy() for p in params]
    buffers = [None] * len(w)
    opt = SGD(params, lr=0.03, momentum=0.8, weight_decay=0.01)
    for grads in gradients(params, 50):
        give(params, grads)
        opt.step()
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            d = g if p.is_bias else g + 0.01 * w[i]   # g + decay w; b = m b + d; w = w - lr b
            buffers[i] = d if buffers[i] is None else 0.8 * buffers[i] + d
            w[i] = w[i] - 0.03 * buffers[i]
            np.testing.assert_allclose(p.data, w[i], rtol=1e-12, atol=1e-14)


def test_after_a_fall_of_the_rate_the_velocity_keeps_its_speed():
    p = nn.Parameter(np.zeros(1))
    opt = SGD([p], lr=1.0, momentum=0.5)
    give([p], [np.ones(1)])
    opt.step()
    opt.lr = 0.0
    give([p], [np.ones(1)])
    opt.step()                                        # PyTorch's rule would stand still here
    assert p.data.tolist() == [-1.5]


def test_biases_never_decay_and_weights_do():
    params = parameters()
    before = [p.data.copy() for p in params]
    opt = SGD(params, lr=0.5, weight_decay=0.1)
    give(params, [np.zeros(p.shape) for p in params])
    opt.step()
    for p, w in zip(params, before, strict=True):
        np.testing.assert_allclose(p.data, w if p.is_bias else w * (1 - 0.05), rtol=1e-15)


def test_a_parameter_may_have_a_decay_of_its_own():
    a, b, c = (nn.Parameter(np.ones(2), weight_decay=decay) for decay in (None, 0.4, 0.0))
    bias = nn.Parameter(np.ones(2), is_bias=True, weight_decay=0.4)
    opt = SGD([a, b, c, bias], lr=0.5, weight_decay=0.1)
    give([a, b, c, bias], [np.zeros(2)] * 4)
    opt.step()
    assert [p.data[0] for p in (a, b, c, bias)] == [0.95, 0.8, 1.0, 1.0]


def test_biases_may_learn_at_a_rate_of_their_own():
    weight, bias = nn.Parameter(np.zeros(1)), nn.Parameter(np.zeros(1), is_bias=True)
    for bias_lr, expected in ((None, -0.1), (0.3, -0.3), (0, 0.0)):
        weight.data[:] = bias.data[:] = 0
        give([weight, bias], [np.ones(1)] * 2)
        SGD([weight, bias], lr=0.1, bias_lr=bias_lr).step()
        assert weight.data[0] == -0.1 and bias.data[0] == expected


def test_where_no_gradient_is_nothing_moves():
    a, b = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    opt = SGD([a, b], lr=0.5, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        a.grad, b.grad = np.ones(2), None
        opt.step()
    assert b.data.tolist() == [1, 1] and a.data[0] < 0
    give([b], [np.ones(2)])
    opt.step()
    still = b.data.copy()
    opt.zero_grad()
    assert a.grad is None and b.grad is None
    opt.step()
    assert np.array_equal(b.data, still)


def test_plain_leaves_numbers_and_empty_parameters():
    w, n, e = (ta.Tensor(np.ones(shape), requires_grad=True) for shape in ((2,), (), (0, 3)))
    opt = SGD([w, n, e], lr=0.5, momentum=0.9)
    give([w, n, e], [np.ones(2), np.ones(()), np.ones((0, 3))])
    opt.step()
    assert w.data.tolist() == [0.5, 0.5] and n.item() == 0.5 and e.shape == (0, 3)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_bits_depend_neither_on_threads_nor_on_memory_order(order):
    def trajectory(threads):
        ta.set_num_threads(threads)
        rng = np.random.default_rng(0)
        inverse = np.argsort(order)
        w = rng.standard_normal((64, 32, 9, 9)).astype(np.float32)
        p = nn.Parameter(np.ascontiguousarray(w.transpose(order)).transpose(inverse))
        opt = SGD([p], lr=0.01, momentum=0.9, weight_decay=5e-4)
        for _ in range(3):
            give([p], [rng.standard_normal(w.shape).astype(np.float32)])
            opt.step()
        return p.data.tobytes()

    before = ta.get_num_threads()
    try:
        with mock.patch.object(pool, "GRAIN", 1):     # cut even work as small as this
            results = {trajectory(threads) for threads in (1, 2, 3)}
    finally:
        ta.set_num_threads(before)
    assert len(results) == 1
    rng = np.random.default_rng(0)
    plain = nn.Parameter(rng.standard_normal((64, 32, 9, 9)).astype(np.float32))
    opt = SGD([plain], lr=0.01, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        give([plain], [rng.standard_normal(plain.shape).astype(np.float32)])
        opt.step()
    assert results == {plain.data.tobytes()}


def test_numpy_rates_give_the_bits_of_pythons():
    results = []
    for number in (float, np.float64):
        (p,) = [q for q in parameters(dtype=np.float32) if q.shape == (3, 4)]
        opt = SGD([p], number(0.1), number(0.9), number(5e-4), number(0.2))
        assert type(opt.lr) is type(opt.bias_lr) is float
        for grads in gradients([p], 10):
            give([p], grads)
            opt.step()
        results.append(p.data.tobytes())
    assert results[0] == results[1]
    assert SGD([p], np.float32(0.5)).lr == 0.5 and SGD([p], 1).lr == 1


def test_a_net_learns():
    ta.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 5)).astype(np.float32)
    labels = (x @ rng.standard_normal((5, 3))).argmax(1)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    opt = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(net(x), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]


# ---------------------------------------------------------------------------- mistakes

@pytest.mark.parametrize("rates, match", [
    (dict(lr=-0.1), "SGD: lr is -0.1; expected a number >= 0"), (dict(lr=math.nan), "lr is nan"),
    (dict(lr=math.inf), "lr is inf"), (dict(lr="0.1"), "lr is '0.1'"),
    (dict(lr=None), "lr is None"), (dict(lr=1, momentum=-1), "momentum is -1"),
    (dict(lr=1, momentum=1j), "momentum is 1j"), (dict(lr=1, bias_lr=-1), "bias_lr is -1"),
    (dict(lr=1, weight_decay=-1), "weight_decay is -1")])
def test_bad_rates_teach(rates, match):
    with pytest.raises(ValueError, match=match):
        SGD(parameters(), **rates)


def test_bad_parameters_teach():
    with pytest.raises(ValueError, match=r"SGD: got no parameter; pass net.parameters\(\)"):
        SGD([], 0.1)
    p, net = nn.Parameter(np.ones(2)), nn.Sequential(nn.Linear(1, 1))
    for wrong, kind in ((net, "Sequential"), (p, "Parameter"), ([p * 2.0], "Tensor"),
                        ([np.ones(2)], "ndarray"), (net.named_parameters(), "tuple"),
                        ([{"params": [p]}], "dict"), (list(net), "Linear")):
        with pytest.raises(TypeError, match=f"SGD: params holds a {kind}; expected a list of "
                                            r"leaves, as net.parameters\(\) gives them"):
            SGD(wrong, 0.1)
    with pytest.raises(ValueError, match="stands twice in params"):
        SGD([p, p], 0.1)


# ---------------------------------------------------------------------------- resuming

def test_a_resumed_optimizer_goes_on_bit_by_bit():
    def fresh():
        params = parameters(dtype=np.float32)
        return params, SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4, bias_lr=0.02)

    params, opt = fresh()
    grads = gradients(params, 20)
    grads[3][2] = None                                # one parameter had no gradient so far
    for step in range(20):
        if step == 10:
            opt.lr *= 0.1
            weights = [p.data.copy() for p in params]
            state = opt.state_dict()
            numbers = json.loads(json.dumps({k: state[k] for k in ("lr", "bias_lr")}))
            velocities = {k: v.copy() for k, v in state["momentum"].items()}
        for p, g in zip(params, grads[step], strict=True):
            p.grad = g
        opt.step()
    again, resumed = fresh()
    for p, w in zip(again, weights, strict=True):
        p.data[...] = w
    resumed.load_state_dict({"momentum": velocities, **numbers})
    assert resumed.lr == opt.lr and resumed.bias_lr == 0.02
    for step in range(10, 20):
        for p, g in zip(again, grads[step], strict=True):
            p.grad = g
        resumed.step()
    assert [p.data.tobytes() for p in again] == [p.data.tobytes() for p in params]


def test_a_state_is_a_copy_and_knows_only_what_has_moved():
    params = parameters()
    opt = SGD(params, lr=0.1, momentum=0.9)
    assert opt.state_dict() == {"lr": 0.1, "bias_lr": None, "momentum": {}}
    params[1].grad = np.ones(3)
    opt.step()
    state = opt.state_dict()
    assert list(state["momentum"]) == ["1"]
    state["momentum"]["1"] += 100
    assert np.array_equal(opt.velocity[1], np.full(3, -0.1))
    opt.load_state_dict(state)
    state["momentum"]["1"] += 100
    assert np.allclose(opt.velocity[1], 99.9)


def test_velocities_are_booked():
    p, ledger = nn.Parameter(np.ones(1000)), ta.Device("cpu:0").ledger
    opt = SGD([p], lr=0.1, momentum=0.9)
    before = ledger.live_bytes
    opt.load_state_dict({"lr": 0.1, "bias_lr": None, "momentum": {"0": np.zeros(1000)}})
    assert ledger.live_bytes == before + 8000
    del opt
    assert ledger.live_bytes == before


@pytest.mark.parametrize("momentum", [{"0": np.ones(5)}, {"4": np.ones(3)}, {"-1": np.ones(())},
                                      {"1": np.ones((3, 1))}])
def test_a_velocity_that_fits_nowhere_teaches_and_changes_nothing(momentum):
    opt = SGD(parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"SGD: velocity -?\d of shape .* fits no parameter"):
        opt.load_state_dict({"lr": 0.5, "bias_lr": None, "momentum": momentum})
    assert opt.lr == 0.1 and opt.velocity == [None] * 4


# ---------------------------------------------------------------------------- schedules

def optimizer(lr=1.0, bias_lr=None):
    return SGD([nn.Parameter(np.ones(1))], lr=lr, bias_lr=bias_lr)


def test_multi_step():
    opt = optimizer(lr=1.0, bias_lr=2.0)
    schedule = lr_scheduler.MultiStepLR(opt, [6, 3], gamma=0.5)
    trace = [(schedule.step(), opt.lr, opt.bias_lr)[1:] for _ in range(8)]
    assert trace == [(1, 2)] * 2 + [(0.5, 1)] * 3 + [(0.25, 0.5)] * 3
    assert optimizer(bias_lr=None).bias_lr is None


def test_multi_step_resumes():
    opt = optimizer()
    schedule = lr_scheduler.MultiStepLR(opt, [3])
    schedule.step()
    schedule.step()
    resumed = lr_scheduler.MultiStepLR(opt, [3])
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    resumed.step()
    assert opt.lr == pytest.approx(0.1)


@pytest.mark.parametrize("milestones", [[0.7, 0.9], [2.0], ["3"]])
def test_a_milestone_that_is_never_hit_teaches(milestones):
    with pytest.raises(ValueError, match="MultiStepLR: milestones are .*; expected integers"):
        lr_scheduler.MultiStepLR(optimizer(), milestones)


def test_plateau_by_hand():
    opt = optimizer(lr=1.0, bias_lr=2.0)
    schedule = lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=2)
    errors = [50, 40, 40, 41, 40, 40, 39, 39, 39, 39, 39, 39, 39]
    #         new new  1   2  fall  1 new  1   2  fall  1   2  fall
    fell = [schedule.step(error) for error in errors]
    assert [i for i, yes in enumerate(fell) if yes] == [4, 9, 12]
    assert (opt.lr, opt.bias_lr) == (0.125, 0.25)


def test_plateau_needs_more_than_a_hair():
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer(), patience=0, threshold=0.1)
    assert [schedule.step(e) for e in (100, 91, 89, 81, 80)] == [False, True, False, True, False]
    assert lr_scheduler.ReduceLROnPlateau(optimizer(), patience=0).step(math.nan) is True


def test_plateau_stops_at_the_floor():
    opt = optimizer(lr=1.0)
    schedule = lr_scheduler.ReduceLROnPlateau(opt, patience=0, min_lr=0.05)
    trace = [(schedule.step(50.0), opt.lr)[1] for _ in range(5)]
    assert trace == pytest.approx([1.0, 0.1, 0.05, 0.05, 0.05]) and schedule.drops == 2


def test_plateau_resumes():
    errors = [50, 50, 50, 45, 45, 46, 44, 44, 44, 44]

    def run(cut):
        opt = optimizer()
        schedule = lr_scheduler.ReduceLROnPlateau(opt, patience=1)
        trace = []
        for i, error in enumerate(errors):
            if i == cut:
                state = json.loads(json.dumps(schedule.state_dict()))
                schedule = lr_scheduler.ReduceLROnPlateau(opt, patience=1)
                schedule.load_state_dict(state)
            schedule.step(error)
            trace.append(opt.lr)
        return trace

    assert all(run(cut) == run(None) for cut in range(len(errors)))


@pytest.mark.parametrize("make, match", [
    (lambda opt: lr_scheduler.MultiStepLR(opt, [1], gamma=-1), "MultiStepLR: gamma is -1"),
    (lambda opt: lr_scheduler.ReduceLROnPlateau(opt, factor="0.1"), "ReduceLROnPlateau: factor is"),
    (lambda opt: lr_scheduler.ReduceLROnPlateau(opt, min_lr=-1), "min_lr is -1")])
def test_bad_schedules_teach(make, match):
    with pytest.raises(ValueError, match=match):
        make(optimizer())
