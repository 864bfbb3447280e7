"""Batches: the same for any number of threads, exact to resume, and no thread left behind."""
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from test_data_crops import card  # noqa: F401  (a fixture)

from tinyalex import random
from tinyalex.data import ArrayDataset, Augment, BrokenPicture, Crops, Loader
from tinyalex.data import loader as loader_module
from tinyalex.data.dataset import Dataset
from tinyalex.data.loader import LoaderNote

PICTURES = np.random.default_rng(0).integers(0, 256, (53, 10, 10, 3), np.uint8)
PICTURES[:, 0, 0, 0] = np.arange(53)
AUGMENT = Augment(8, PICTURES.mean(0), 2.0, np.array([900.0, 90, 9]), np.eye(3), 0.1)


class Trouble(Dataset):
    """Some pictures are broken, slow, or raise what nobody expects."""

    def __init__(self, broken=(), slow=0.0, bug=()):
        super().__init__(("a", "b"), np.arange(53) % 2)
        self.broken, self.slow, self.bug = set(broken), slow, set(bug)
        self.reads = 0

    def _read(self, i):
        self.reads += 1
        time.sleep(self.slow)
        if i in self.bug:
            raise ZeroDivisionError(f"picture {i}")
        if i in self.broken:
            raise BrokenPicture(f"file{i}.jpg", "is damaged")
        return PICTURES[i]


def loader(dataset=None, batch_size=8, **options):
    if dataset is None:
        dataset = ArrayDataset(PICTURES, np.arange(53) % 2, ("a", "b"))
    return Loader(dataset, batch_size, AUGMENT, **options)


def content(batches):
    return [(b.images.tobytes(), b.labels.tolist(), b.rows.tolist(), b.skipped) for b in batches]


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("tinyalex-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    yield
    assert threads() == []


def test_shapes_labels_rows_and_length():
    it = loader()
    batches = list(it.batches(0))
    assert len(it) == len(batches) == 7
    assert [len(b.labels) for b in batches] == [8] * 6 + [5]
    assert batches[0].images.shape == (8, 3, 8, 8) and batches[0].images.dtype == np.float32
    assert batches[6].rows.tolist() == [0, 1, 2, 3, 4] and batches[0].labels.dtype == np.int64
    assert batches[0].images.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("mode", ["train", "center", "ten"])
def test_the_same_batches_for_any_number_of_workers(mode):
    inline = content(loader(workers=0, mode=mode).batches(2))
    for workers, prefetch in ((1, 1), (2, 4), (5, 2), (3, 50)):
        options = {"workers": workers, "prefetch": prefetch, "mode": mode}
        assert content(loader(**options).batches(2)) == inline


def test_seed_epoch_and_batch_decide():
    def first(seed=0, epoch=0):
        return next(loader(seed=seed, workers=0).batches(epoch)).images.tobytes()
    assert first() == first() and len({first(), first(seed=1), first(epoch=1)}) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_mid_epoch_is_bit_identical(workers):
    whole = content(loader(workers=workers).batches(3))
    for start in (1, 4, 6, 7):
        assert content(loader(workers=workers).batches(3, start)) == whole[start:]


def test_each_epoch_is_one_permutation():
    it = loader()
    orders = [it.order(epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(53)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])
    expected = random.generator("order", seed=0, step=1).permutation(53)
    assert np.array_equal(orders[1], expected)


def test_evaluation_goes_in_the_order_of_the_data_set():
    it = loader(shuffle=False, mode="center")
    labels = np.concatenate([b.labels for b in it.batches(0)])
    assert labels.tolist() == (np.arange(53) % 2).tolist()
    images = np.concatenate([b.images for b in it.batches(5)])
    assert np.array_equal(images, AUGMENT.center(list(PICTURES)))
    ten = next(loader(mode="ten", shuffle=False).batches(0))
    assert ten.images.shape == (8, 10, 3, 8, 8)


def test_windows_come_from_the_generator_of_their_batch():
    batch = list(loader(seed=4, shuffle=False).batches(2))[3]
    rng = random.generator("augment", seed=4, step=2, index=3)
    assert np.array_equal(batch.images, AUGMENT.train(list(PICTURES[24:32]), rng))


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_share_each_global_batch(ranks):
    whole = list(loader().batches(1))
    shares = [list(loader(rank=r, ranks=ranks).batches(1)) for r in range(ranks)]
    for b, batch in enumerate(whole):
        parts = [share[b] for share in shares]
        assert np.array_equal(np.concatenate([p.images for p in parts]), batch.images)
        assert np.array_equal(np.concatenate([p.labels for p in parts]), batch.labels)
        assert np.concatenate([p.rows for p in parts]).tolist() == batch.rows.tolist()
        sizes = [len(p.labels) for p in parts]
        assert max(sizes) - min(sizes) <= 1             # 5 pictures on 8 ranks: some have none


@settings(max_examples=60)
@given(st.data(), st.integers(1, 20), st.integers(0, 3), st.integers(1, 7), st.booleans(),
       st.integers(0, 2**64 - 1), st.integers(0, 3), st.sets(st.integers(0, 52)))
def test_each_picture_is_served_once_by_the_rank_whose_turn_it_is(
        data, batch_size, workers, ranks, shuffle, seed, epoch, broken):
    options = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed}
    start = data.draw(st.integers(0, -(-53 // batch_size)))
    whole = list(loader(workers=0, **options).batches(epoch))      # of one rank, nothing broken
    order, served = loader(**options).order(epoch), []
    for rank in range(ranks):
        it = loader(Trouble(broken), workers=workers, rank=rank, ranks=ranks, **options)
        batches = list(it.batches(epoch, start))
        assert len(batches) == len(whole) - start and it.skipped == sum(
            len(batch.skipped) for batch in batches)
        for b, batch in enumerate(batches, start):
            n = len(whole[b].rows)                       # the first n mod ranks ranks have one more
            first = rank * (n // ranks) + min(rank, n % ranks)
            share = range(first, first + n // ranks + (rank < n % ranks))
            pictures = [int(order[b * batch_size + row]) for row in share]
            assert batch.skipped == tuple(f"file{i}.jpg: is damaged"
                                          for i in pictures if i in broken)
            left = [row for row, i in zip(share, pictures, strict=True) if i not in broken]
            assert batch.rows.tolist() == left
            assert np.array_equal(batch.images, whole[b].images[left])
            assert np.array_equal(batch.labels, whole[b].labels[left])
            served += pictures
    assert sorted(served) == sorted(order[start * batch_size:].tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_named_skipped_and_counted(workers):
    it = loader(Trouble(broken=(2, 3, 50)), workers=workers, shuffle=False)
    batches = list(it.batches(0))
    assert batches[0].skipped == ("file2.jpg: is damaged", "file3.jpg: is damaged")
    assert batches[0].rows.tolist() == [0, 1, 4, 5, 6, 7] and len(batches[0].images) == 6
    assert it.skipped == 3 and batches[1].skipped == ()
    clean = list(loader(shuffle=False).batches(0))      # the others' windows have not moved
    assert np.array_equal(batches[0].images, clean[0].images[[0, 1, 4, 5, 6, 7]])
    list(it.batches(1))
    assert it.skipped == 6


@pytest.mark.parametrize("mode, shape", [
    ("train", (0, 3, 8, 8)), ("center", (0, 3, 8, 8)), ("ten", (0, 10, 3, 8, 8))])
def test_a_batch_of_broken_pictures_is_empty(mode, shape):
    batch = next(loader(Trouble(broken=range(8)), shuffle=False, mode=mode).batches(0))
    assert batch.images.shape == shape and batch.labels.shape == batch.rows.shape == (0,)
    assert batch.labels.dtype == np.int64 and len(batch.skipped) == 8


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_goes_wrong_in_a_worker_is_raised_here(workers):
    it = loader(Trouble(bug=(20,)), workers=workers, shuffle=False).batches(0)
    assert len(next(it).labels) == len(next(it).labels) == 8
    with pytest.raises(ZeroDivisionError, match="picture 20"):
        next(it)
    assert threads() == [] and list(it) == []


def test_leaving_the_loop_ends_the_threads():
    dataset = Trouble(slow=0.002)
    for batch in loader(dataset, workers=3).batches(0):
        assert len(threads()) > 0 and len(batch.labels) == 8
        break
    assert threads() == [] and dataset.reads < 53       # what had not begun is not begun

    def interrupted():
        for _, _ in loader(dataset, workers=3):
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert threads() == [] and caught.tb is not None    # although the traceback is still held


def test_an_interrupt_while_waiting_ends_the_threads(monkeypatch):
    import concurrent.futures

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt
    it = loader(Trouble(slow=0.005), workers=2).batches(0)
    next(it)
    monkeypatch.setattr(concurrent.futures.Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(it)
    assert threads() == []


def test_prefetch_is_bounded():
    dataset = Trouble()
    it = loader(dataset, workers=2, prefetch=2).batches(0)
    next(it)
    time.sleep(0.1)                                     # time enough to read everything
    assert dataset.reads <= 3 * 8
    it.close()


def test_waiting_is_accounted_for():
    slow = loader(Trouble(slow=0.002), workers=0)
    list(slow.batches(0))
    assert 53 * 0.002 <= slow.waited < 5
    ready = loader(Trouble(), workers=2, prefetch=7)
    it = ready.batches(0)
    next(it)
    time.sleep(0.5)                                     # the consumer at work: not waiting
    before = ready.waited
    next(it)
    assert ready.waited - before < 0.4
    it.close()


class Hanging(Trouble):
    """Two pictures come when someone lets them."""

    hanging = 2, 9                                      # in the first batch and in the second

    def __init__(self):
        super().__init__()
        self.released = threading.Event()

    def _read(self, i):
        if i in self.hanging:
            assert self.released.wait(30)
        return super()._read(i)

    def name(self, i):
        return f"disk/{i}.jpg"


def test_a_disk_that_hangs_is_noted_once_with_the_names(monkeypatch):
    monkeypatch.setattr(loader_module, "PATIENCE", 0.1)
    dataset = Hanging()
    it = loader(dataset, workers=2, shuffle=False)
    threading.Timer(0.5, dataset.released.set).start()
    with pytest.warns(LoaderNote) as notes:
        batches = content(it.batches(0))
    assert [str(note.message) for note in notes] == [
        "no batch for 0.1 seconds; being read: disk/2.jpg, disk/9.jpg"]
    assert batches == content(loader(shuffle=False).batches(0)) and it.waited > 0.4
    assert it._reading == {}


def test_iterating_serves_epoch_after_epoch_as_pairs():
    it = loader()
    first, second = [list(it), list(it)]
    assert it.epoch == 2
    for pairs, epoch in ((first, 0), (second, 1)):
        for (images, labels), batch in zip(pairs, it.batches(epoch), strict=True):
            assert np.array_equal(images, batch.images) and np.array_equal(labels, batch.labels)


def test_an_empty_share_of_an_epoch_and_wrong_arguments():
    it = loader()
    assert list(it.batches(0, start=7)) == []
    with pytest.raises(ValueError, match="start: got 8; expected 0 to 7"):
        it.batches(0, start=8)                          # at once, not at the first batch
    for wrong, match in (({"batch_size": 0}, "batch_size: got 0"), ({"workers": -1}, "workers"),
                         ({"prefetch": 0}, "prefetch"), ({"mode": "eval"}, "mode: got 'eval'"),
                         ({"rank": 2, "ranks": 2}, "rank: got 2; expected 0 to 1"),
                         ({"ranks": 0}, "ranks: got 0")):
        with pytest.raises(ValueError, match=match):
            loader(**wrong)


# ---- for a GPU

@pytest.mark.parametrize("mode", ["train", "center", "ten"])
@pytest.mark.parametrize("workers", [0, 3])
def test_a_gpu_gets_bytes_that_the_threads_packed(card, mode, workers):  # noqa: F811
    batches = list(loader(mode=mode, workers=workers, device=card).batches(2))
    for batch, plain in zip(batches, loader(mode=mode).batches(2), strict=True):
        assert isinstance(batch.images, Crops) and batch.images.shape == plain.images.shape
        assert batch.images.bytes.size == 300 * len(batch.labels)      # ten windows or one
        for device in (card, "cpu:0"):
            assert np.array_equal(batch.images.on(device).data, plain.images)
        assert np.array_equal(batch.labels, plain.labels)
    assert all(batch.images.bytes is block for batch, block in
               zip(sorted(batches, key=lambda b: b.images.bytes.ctypes.data),
                   sorted(card.blocks, key=lambda b: b.ctypes.data), strict=True))
    assert all(name.startswith("tinyalex-loader") == bool(workers) for name in card.threads)


def test_broken_pictures_leave_no_bytes(card):  # noqa: F811
    it = loader(Trouble(broken=(2, 3, *range(8, 16))), shuffle=False, device=card)
    first, second, *_ = it.batches(0)
    assert first.rows.tolist() == [0, 1, 4, 5, 6, 7] and first.images.bytes.size == 6 * 300
    plain = next(loader(Trouble(broken=(2, 3)), shuffle=False).batches(0))
    assert np.array_equal(first.images.on(card).data, plain.images)
    assert second.images.shape == (0, 3, 8, 8) and second.images.on(card).shape == (0, 3, 8, 8)


def test_cpus_get_arrays_whatever_they_are_called():
    for device in (None, "cpu:0", "cpu:1"):
        batch = next(loader(device=device).batches(0))
        assert isinstance(batch.images, np.ndarray)
    with pytest.raises(ValueError, match="device: got 'gpu'"):
        loader(device="gpu")
