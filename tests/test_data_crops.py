"""Pictures that go over as bytes: the same numbers as arrays, on any device, to the last bit."""
import contextlib
import threading

import numpy as np
import pytest
from standin import compiled

import tinyalex as ta
from tinyalex import models, nn, random
from tinyalex.data import Augment, Crops, crops as crops_module
from tinyalex.device.core import Device
from tinyalex.kernels import loader as kernels

VALUES = np.array([14830.0, 1376.0, 389.0])
VECTORS, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))
MEAN = np.random.default_rng(9).uniform(60, 190, (12, 14, 3)).astype(np.float32)
SIZES = ((12, 14), (12, 12), (8, 30), (5, 5), (12, 14), (20, 9))


def some(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def generator():
    return random.generator("augment", seed=1, step=2, index=3)


def augment(size=8, mean=MEAN, scale=3.0, noise=0.1, reading="source", **options):
    return Augment(size, mean, scale, VALUES, VECTORS, noise, reading, **options)


def prepared(mode, pictures, how, device=None):
    """Windows as `mode` makes them: an array, or Crops for a device."""
    if mode == "train":
        return how.train(pictures, generator(), device=device)
    return getattr(how, mode)(pictures, device)


def one_by_one(crops):
    """What the table says, one number after another; NumPy's float32 all the way."""
    means, size = crops.means, crops.means.size
    images = np.empty((len(crops.table), 3, size, size), np.float32)
    for i, c, row, column in np.ndindex(images.shape):
        start, height, width, y, x, mirrored, kind = crops.table[i].tolist()
        h, w = y + row, x + (size - 1 - column if mirrored else column)
        value = np.float32(0)
        if 0 <= h < height and 0 <= w < width:
            mean = (means.color if kind == 0 else means.central[row, column] if kind == 1
                    else means.picture[h, w])
            value = np.float32(crops.bytes[start + 3 * (h * width + w) + c]) - mean[c]
        if crops.noise is not None:
            value += crops.noise[i, c]
        images[i, c, row, column] = value / np.float32(crops.divisor)
    return images.reshape(crops.shape)


# ---- a card whose kernels run as C++ on this machine

class Card(Device):
    """A GPU as Crops and the Loader see one. What was staged is spoiled when its time is over."""

    kind = "cuda"

    def _open(self):
        self.sent, self.blocks, self.threads = [], [], set()

    def pinned(self, shape, dtype):
        self.blocks.append(np.full(shape, 77, dtype))
        self.threads.add(threading.current_thread().name)
        return self.blocks[-1]

    def array(self, host, dtype=None):
        self.sent.append(np.array(host, dtype))
        return self.sent[-1]

    def empty(self, shape, dtype):
        return np.full(shape, np.nan, dtype)            # in C order, as on a GPU

    @contextlib.contextmanager
    def staged(self, host):
        data = host.copy()
        yield data
        data[:] = 0


def launched(device, name, n, *args):
    """Run a kernel as `kernels.launch` does, between guards."""
    file, kernel = name.split(".")
    built = compiled.build(kernels.source(file), kernels.options(np.dtype(np.float32)))
    args = [a if isinstance(a, np.ndarray) or a is None else
            kernels._argument(a, np.dtype(np.float32)) for a in args]
    if n:
        built[kernel].run_on(*([size] for size in kernels.geometry(n)), (*args, np.int32(n)))


@pytest.fixture
def card(monkeypatch):
    """A Card, ``Device("cuda:7")`` for as long as the test runs."""
    try:
        compiled.build('extern "C" __global__ void nothing(int n) {}')
    except compiled.NoCompiler as missing:
        pytest.skip(str(missing))
    monkeypatch.setitem(Device.kinds, "cuda", Card)
    monkeypatch.setattr(Device, "_interned", dict(Device._interned))
    monkeypatch.setattr(crops_module, "launch", launched)
    return Device("cuda:7")


# ---- the same bits everywhere

CASES = [("train", {}), ("train", {"noise": 0.0}), ("train", {"reading": "paper", "scale": 1.0}),
         ("train", {"central_mean": True}), ("train", {"mean": np.full((1, 1, 3), 99.5)}),
         ("train", {"crop": False}), ("train", {"size": 13}), ("train", {"resize": 10}),
         ("center", {}), ("center", {"size": 13, "scale": 1.0}), ("ten", {}),
         ("ten", {"central_mean": True}), ("ten", {"size": 13})]


@pytest.mark.parametrize("mode, options", CASES)
def test_crops_are_what_arrays_are_to_the_bit(mode, options):
    pictures, how = some(*SIZES), augment(**options)
    array, crops = (prepared(mode, pictures, how, device) for device in (None, "cpu:0"))
    assert isinstance(array, np.ndarray) and isinstance(crops, Crops)
    assert (crops.shape, crops.ndim, len(crops)) == (array.shape, array.ndim, len(array))
    found = crops.on("cpu:0")
    assert isinstance(found, ta.Tensor) and found.dtype == crops.dtype == np.float32
    assert found.data.tobytes() == array.tobytes() == one_by_one(crops).tobytes()
    windows = found.data.reshape(-1, *found.shape[-3:])
    assert windows.transpose(0, 2, 3, 1).flags.c_contiguous             # channels-last
    assert np.isfinite(array).all() and array.any()


@pytest.mark.parametrize("mode, options", CASES)
def test_the_kernel_of_a_card_gives_the_same_bits(mode, options, card):
    pictures, how = some(*SIZES), augment(**options)
    crops = prepared(mode, pictures, how, card)
    found = crops.on(card)
    assert found.device is card and found.data.flags.c_contiguous
    assert found.data.tobytes() == prepared(mode, pictures, how).tobytes()
    assert found.data.tobytes() == crops.on("cpu:1").data.tobytes()      # they may go elsewhere


@pytest.mark.parametrize("mode, options", CASES)
def test_every_device_there_is_gives_the_same_bits(mode, options, device):
    pictures, how = some(*SIZES), augment(**options)
    found = prepared(mode, pictures, how, device).on(device)
    assert found.device is device
    assert device.numpy(found.data).tobytes() == np.ascontiguousarray(
        prepared(mode, pictures, how)).tobytes()


def test_all_kinds_of_mean_and_places_outside_are_among_the_cases():
    kinds, outside = set(), 0
    for mode, options in CASES:
        crops = prepared(mode, some(*SIZES), augment(**options), "cpu:0")
        kinds |= {(kind, mirrored) for *_, mirrored, kind in crops.table.tolist()}
        _, height, width, y, x, *_ = crops.table.T
        outside += (y < 0).any() and (x < 0).any() and (x + crops.means.size > width).any()
    assert kinds == {(kind, mirrored) for kind in range(3) for mirrored in range(2)}
    assert outside >= 3


# ---- what crosses

def test_ten_windows_share_the_bytes_of_their_picture():
    crops = augment().ten(some(*SIZES), "cpu:0")
    assert crops.bytes.size == sum(3 * h * w for h, w in SIZES) and crops.bytes.dtype == np.uint8
    assert crops.table.shape == (60, 7) and crops.table.dtype == np.int64
    starts = crops.table[:, 0].reshape(6, 10)
    assert (starts == starts[:, :1]).all() and len(set(starts[:, 0])) == 6


def test_the_bytes_that_cross_are_booked_as_input(card):
    crops = augment().train(some(*SIZES), generator(), device=card)
    assert crops.nbytes == crops.bytes.nbytes + crops.table.nbytes + crops.noise.nbytes
    for device in (card, Device("cpu:1"), Device("cpu:0")):
        device.ledger.reset()
        crops.on(device), crops.on(device)
        crossed = device is not Device("cpu:0")
        assert device.ledger.bytes["cpu:0", "input"] == 2 * crops.nbytes * crossed
        assert device.ledger.copies["cpu:0", "input"] == 2 * crossed
    plain = augment(noise=0).center(some(*SIZES), card)
    assert plain.noise is None and plain.nbytes == plain.bytes.nbytes + plain.table.nbytes


def test_bytes_wait_where_the_card_copies_from_and_means_go_over_once(card):
    how = augment()
    for seed in range(3):
        crops = how.train(some(*SIZES, seed=seed), generator(), device=card)
        assert crops.bytes is card.blocks[-1]
        crops.on(card)
    assert len(card.blocks) == 3
    sent = [a.shape for a in card.sent]
    assert sent.count(MEAN.shape) == sent.count((8, 8, 3)) == sent.count((3,)) == 1
    other = Device("cuda:6")                           # each card has copies of its own
    crops.on(other)
    assert [a.shape for a in other.sent].count(MEAN.shape) == 1


def test_both_towers_get_their_own_bytes():
    net = models.mini(image_size=32, devices=("cpu:0", "cpu:1")).eval()
    how = Augment(32, np.full((1, 1, 3), 120), 64.0)
    pictures = some((36, 40), (32, 32))
    crops = how.center(pictures, "cpu:0")
    Device("cpu:1").ledger.reset()
    logits = net(crops)
    assert Device("cpu:1").ledger.bytes["cpu:0", "input"] == crops.nbytes
    assert np.array_equal(logits.data, net(how.center(pictures)).data)
    with pytest.raises(ValueError, match=r"images have shape \(2, 10, 3, 32, 32\)"):
        net(how.ten(pictures, "cpu:0"))


def test_a_sequential_net_takes_crops():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).to("cpu:1")
    crops = augment().center(some(*SIZES), "cpu:0")
    assert np.array_equal(net(crops).data, net(augment().center(some(*SIZES))).data)


# ---- parts

@pytest.mark.parametrize("mode", ["train", "ten"])
def test_a_slice_holds_the_bytes_of_its_own_pictures(mode):
    crops = prepared(mode, some(*SIZES), augment(), "cpu:0")
    whole = crops.on("cpu:0").data
    for part in (slice(0, 2), slice(2, 5), slice(5, 99), slice(None, None, 2), slice(3, 3)):
        some_, sizes = crops[part], SIZES[part]
        assert some_.shape == whole[part].shape
        assert np.array_equal(some_.on("cpu:0").data, whole[part])
        if part.step is None:
            assert some_.bytes.size == sum(3 * h * w for h, w in sizes)
    assert np.shares_memory(crops[1:3].bytes, crops.bytes)


def test_windows_along_one_axis_may_be_cut_within_a_picture():
    crops = augment().ten(some(*SIZES), "cpu:0")
    flat, whole = crops.flat(), crops.on("cpu:0").data.reshape(60, 3, 8, 8)
    assert flat.shape == (60, 3, 8, 8) and np.array_equal(flat.on("cpu:0").data, whole)
    part = flat[7:23]
    assert np.array_equal(part.on("cpu:0").data, whole[7:23])
    assert part.bytes.size == sum(3 * h * w for h, w in SIZES[:3])


@pytest.mark.parametrize("mode, shape", [("train", (0, 3, 8, 8)), ("center", (0, 3, 8, 8)),
                                         ("ten", (0, 10, 3, 8, 8))])
def test_there_may_be_no_picture(mode, shape):
    crops = prepared(mode, [], augment(), "cpu:0")
    assert crops.shape == crops[:4].shape == crops.on("cpu:0").shape == shape
    assert crops.flat().shape == (0, 3, 8, 8) and len(crops) == 0


def test_what_is_no_array_says_so():
    crops = augment().center(some(*SIZES), "cpu:0")
    with pytest.raises(TypeError, match=r"bytes, not numbers yet; use crops.on\(device\)"):
        np.asarray(crops)
    with pytest.raises(TypeError, match="bytes, not numbers yet"):
        ta.Tensor(crops)
    with pytest.raises(TypeError, match=r"got \[3\]; expected a slice"):
        crops[3]
    with pytest.raises(TypeError, match="expected a slice"):
        list(crops)
    with pytest.raises(TypeError, match="Cannot cast"):                 # floats are not bytes
        augment().center([np.zeros((9, 9, 3))], "cpu:0")


def test_pictures_need_not_lie_in_c_order_and_are_not_written_to():
    pictures = [p.transpose(1, 0, 2) for p in some(*SIZES)]
    before = [p.copy() for p in pictures]
    for picture in pictures:
        picture.flags.writeable = False
    crops = augment().ten(pictures, "cpu:0")
    assert np.array_equal(crops.on("cpu:0").data, augment().ten(pictures))
    assert all(np.array_equal(a, b) for a, b in zip(pictures, before, strict=True))
