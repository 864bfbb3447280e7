"""Faults planted in the GPU's part of the project: each must be seen, every time.

They are those that run on a real card, mostly: a forgotten event, a forgotten scope, NumPy where
the array module belongs. And what no test of results can see: that no step waits for the card.
"""
import contextlib

import cards
import numpy as np
import pytest
import standin
import strategies
import tinyalex as ta
import tiny_runs
from standin import Misuse, Race, log
from tinyalex import functional as F
from tinyalex import kernels
from tinyalex.device import OutOfMemory, cuda
from tinyalex.ops import activation

pytestmark = pytest.mark.skipif(bool(cards.MISSING), reason=str(cards.MISSING))


@pytest.fixture(autouse=True)
def settled():
    """What a fault leaves behind is not for the next test."""
    yield
    standin.settle()


@pytest.fixture(params=["cuda:8 cuda:8#1", "cuda:8 cuda:9"])
def two(request):
    """Two Devices: one card under two names, and two cards."""
    return [cards.card(name) for name in request.param.split()]


@pytest.fixture
def one():
    return cards.card("cuda:8")


# ---------------------------------------------------------------------------- transfer

def there_and_on(src, dst, steps=3):
    """Copy, and work on the copy; its memory is free again for the next one."""
    with src.scope():
        x = src.array(strategies.normal((64, 64), 1, np.float32))
    for _ in range(steps):
        y = ta.transfer(x, src, dst)
        with dst.scope():
            y * 2
        del y
        with src.scope():
            x += 1


def without_waiting(monkeypatch, stream, for_other=None):
    """Let a stream forget to wait for events (of one other stream)."""
    real = standin.cards.Stream.wait_event

    def wait_event(self, event):
        if self is not stream or for_other is not None and event.queue is not for_other.queue:
            real(self, event)
    monkeypatch.setattr(standin.cards.Stream, "wait_event", wait_event)


def test_a_transfer_is_ordered(two):
    there_and_on(*two)
    there_and_on(*two[::-1])


def test_the_copy_must_be_there_before_it_is_read(two, monkeypatch):
    src, dst = two
    without_waiting(monkeypatch, dst._stream)
    with pytest.raises(Race, match="reads memory that memcpy.* writes"):
        there_and_on(src, dst)


def test_the_memory_must_be_free_before_it_is_written(two, monkeypatch):
    src, dst = two
    without_waiting(monkeypatch, src._stream, for_other=dst._stream)
    with pytest.raises(Race, match="memcpy.*writes memory that mul.* reads"):
        there_and_on(src, dst)


def test_an_event_recorded_too_early_orders_nothing(two, monkeypatch):
    src, dst = two
    with src.scope():
        early = src._mark()
    monkeypatch.setattr(src, "_mark", lambda stream=None: early, raising=False)
    with pytest.raises(Race):
        there_and_on(src, dst)


def two_towers(devices):
    """A step of a net whose towers meet, forward and backward."""
    net = ta.models.mini(4, devices, image_size=32)
    images = strategies.normal((2, 3, 32, 32), 1, np.float32)
    for _ in range(2):
        F.cross_entropy(net(images), [0, 1]).backward()


def test_a_net_of_two_towers_notices_as_well(two, monkeypatch):
    two_towers(two)
    without_waiting(monkeypatch, two[1]._stream)
    with pytest.raises(Race):
        two_towers(two)


@pytest.mark.parametrize("peers", [True, False])
def test_cards_that_do_not_reach_each_other_copy_all_the_same(monkeypatch, peers):
    monkeypatch.setattr(standin.runtime, "peers", peers)
    monkeypatch.setattr(standin.runtime, "enabled", set())
    monkeypatch.setattr(cuda, "_peers", set())
    src, dst = cards.card("cuda:8"), cards.card("cuda:9")
    with log() as book:
        copied = ta.transfer(src.array(np.arange(6.0)), src, dst)
    assert copied.device.id == 9 and dst.numpy(copied).tolist() == list(range(6))
    assert "peer" in [kind for kind, *_ in book.copies] and not book.syncs
    assert standin.runtime.enabled == ({(8, 9), (9, 8)} if peers else set())


# ---------------------------------------------------------------------------- uploads, results

def test_a_pinned_buffer_is_not_filled_while_it_is_copied(one, monkeypatch):
    monkeypatch.setattr(one._uploads, "slots", [])       # else there are others to take turns with
    monkeypatch.setattr(standin.cards.Event, "done", property(lambda self: True))
    with pytest.raises(Race, match="changed pinned memory"):
        for i in range(3):
            one.array(np.full(1000, i, np.float32))
        one.synchronize()


def test_what_is_fetched_is_kept_until_it_has_come(one, monkeypatch):
    monkeypatch.setattr(one, "_keep", lambda host, stream=None: one._mark(stream), raising=False)
    with pytest.raises(Race, match="was freed"):
        for _ in range(3):
            one.fetch(one.zeros((1000,), np.float32))


@pytest.mark.parametrize("forgetful", ["compute", "copy"])
def test_the_next_batch_waits_for_the_buffer_and_work_for_the_batch(one, monkeypatch, forgetful):
    def batches():
        for i in range(4):
            with one.staged(np.full(5000, i, np.uint8)) as data:
                data.sum()
    batches()
    without_waiting(monkeypatch, one._stream if forgetful == "compute" else one._input.stream)
    with pytest.raises(Race):
        batches()


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_a_batch_of_any_size_is_staged(one, count):
    host = one.pinned((count,), np.uint8)
    host[:] = 7
    with one.staged(host) as data:
        assert data.shape == (count,) and one.numpy(data).tolist() == [7] * count


# ---------------------------------------------------------------------------- scope

def net_on(device):
    x = ta.Tensor(strategies.normal((2, 4, 7, 7), 1, np.float32), device, requires_grad=True)
    w = ta.Tensor(strategies.normal((6, 4, 3, 3), 2, np.float32), device, requires_grad=True)
    F.max_pool2d(F.relu(F.conv2d(x, w, None)), 3, 2).sum().backward()


def test_a_forgotten_scope_is_seen(one, monkeypatch):
    net_on(one)
    x = ta.Tensor(np.ones(3, np.float32), one)
    monkeypatch.setattr(cuda.CudaDevice, "scope", lambda self: contextlib.nullcontext())
    with pytest.raises(Misuse, match="within device.scope"):
        F.relu(x)


def test_a_scope_of_the_card_without_its_stream_is_seen(one, monkeypatch):
    x = ta.Tensor(np.ones(3, np.float32), one)
    monkeypatch.setattr(cuda.CudaDevice, "scope",
                        lambda self: self.xp.cuda.Device(self.index))
    with pytest.raises(Misuse, match="null stream"):
        F.relu(x)


def test_a_launch_under_the_wrong_device_is_seen(two):
    here, there = two
    with here.scope():
        x, y = here.zeros((5,), np.float32), here.zeros((5,), np.float32)
    here.synchronize()
    with here.scope():
        kernels.launch(here, "bias.relu", 5, x, y)
    with there.scope(), pytest.raises((Misuse, Race)):
        kernels.launch(here, "bias.relu", 5, x, y)


def test_a_scope_within_another_goes_back_where_it_came_from(two):
    here, there = two
    with here.scope(), there.scope(), here.scope(), here.scope():
        assert standin.cards.here.card == here.index
        assert here.xp.cuda.get_current_stream() == here._stream
    with here.scope():
        with there.scope():
            assert here.xp.cuda.get_current_stream() == there._stream
        assert here.xp.cuda.get_current_stream() == here._stream
    with pytest.raises(Misuse):
        here.xp.zeros(3)


# ---------------------------------------------------------------------------- ops

class Careless(activation.ReLU):
    """A ReLU that is right on every CPU."""

    def forward(self, x):
        self.save(x)
        return np.maximum(x, 0)


class Uploading(ta.Function):
    """An op that forgets to bring its own array to the device."""

    def forward(self, x):
        return x + np.ones(3, np.float32)


class Peeking(ta.Function):
    """An op that looks at its numbers, for which the host must wait."""

    def forward(self, x):
        return x if x.max() > 0 else -x


@pytest.mark.parametrize("op", [Careless, Uploading])
def test_an_op_that_uses_numpy_is_seen(one, op):
    op()(ta.Tensor(np.ones(3, np.float32)))
    with pytest.raises(TypeError):
        op()(ta.Tensor(np.ones(3, np.float32), one))


# ---------------------------------------------------------------------------- nobody waits

def test_an_op_that_looks_at_its_numbers_is_seen(one):
    x = ta.Tensor(np.ones(3, np.float32), one)
    with log() as book:
        Peeking()(x)
    assert book.syncs


def test_no_step_of_training_waits_for_the_card(two):
    net = ta.models.mini(4, two, image_size=32)
    opt = ta.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = strategies.normal((2, 3, 32, 32), 1, np.float32)
    with log() as book:
        for _ in range(3):
            loss = F.cross_entropy(net(images), [0, 1])
            opt.zero_grad()
            loss.backward()
            opt.step()
            two[0].fetch(loss.data)
    assert not book.syncs and len(book.launches) > 100


def test_a_run_waits_for_no_step_but_the_one_before(one, tmp_path):
    """The loss of a step is read when the next one has been launched; so the card never idles."""
    run = tiny_runs.trainer(tmp_path / "run", net=tiny_runs.net().to(one))
    lags, real = [], run._train_on

    def step(batch):
        with log() as book:
            real(batch)
        lags.append([lag for _, lag in book.syncs])

    run._train_on = step
    run.fit()
    waits = [lag for one_step in lags for lag in one_step]
    assert len(waits) > 5 and min(waits) > 20, waits


# ---------------------------------------------------------------------------- memory

def test_what_does_not_fit_is_an_error_that_says_so(one):
    one.limit_memory(one.memory()["held_bytes"] + (1 << 20))
    try:
        with pytest.raises(OutOfMemory, match=r"cuda:8: .*in use of .* its limit is") as caught:
            one.zeros((1 << 20,), np.float32)
        assert caught.value.device is one
    finally:
        one.limit_memory(None)
    assert one.zeros((1 << 20,), np.float32).size == 1 << 20
