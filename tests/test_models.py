"""The nets: every count of the original, two towers as one net, and the recipes."""
import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import strategies
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import models, nn
from tinyalex.device.memory import Ledger
from tinyalex.models import cifar
from tinyalex.models.alexnet import AlexNet, Shape
from tinyalex.models.build import RECIPES

BOTH = ("cpu:0", "cpu:1")
VARIANTS = ("paper", "source2012")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
MICRO = Shape(conv1=(5, 2), maps=(8, 12, 16, 16, 12), units=(16, 16))


@pytest.fixture(autouse=True)
def seeded():
    ta.manual_seed(0)


@pytest.fixture
def blank(monkeypatch):
    """Weights are zeros that the system has not even handed out: 61 million cost nothing."""
    def zeros(shape, rng):
        return np.zeros(shape, np.float32)

    monkeypatch.setattr(nn.init, "normal", lambda std: zeros)


def reset_books():
    ledgers = [ta.Device(name).ledger for name in BOTH]
    for ledger in ledgers:
        ledger.reset()
    return ledgers


def micro(variant="paper", devices=("cpu:0",), num_classes=5, image_size=32, shape=MICRO):
    """A small AlexNet in float64, none of whose parameters is zero."""
    def start(name):
        return {"init": nn.init.he, "bias_init": 0.0}

    net = AlexNet(models.VARIANTS[variant], shape, num_classes, image_size, devices, 0.5, start)
    net.double()
    rng = np.random.default_rng(1)
    for p in net.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape)
    return net


# ---------------------------------------------------------------------------- counts

@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("image_size", [224, 227])
def test_counts_of_the_original(blank, variant, image_size):
    table = models.summary(models.alexnet(variant, image_size=image_size))
    total = table.total
    assert total["parameters"] == 60_965_224
    assert total["neurons"] == 659_272
    assert total["macs"] == 724_406_816
    assert total["bytes_in"] == 0                     # one device: nothing crosses
    rows = {layer: [row for row in table.rows if row["layer"].split(".")[-1] == layer]
            for layer in LAYERS}
    assert [len(rows[layer]) for layer in LAYERS] == [2] * 7 + [1]
    got = {layer: tuple(sum(row[key] for row in rows[layer])
                        for key in ("neurons", "parameters", "macs")) for layer in LAYERS}
    assert got == {
        "conv1": (290_400, 34_848 + 96, 105_415_200),
        "conv2": (186_624, 307_200 + 256, 223_948_800),
        "conv3": (64_896, 884_736 + 384, 149_520_384),
        "conv4": (64_896, 663_552 + 384, 112_140_288),
        "conv5": (43_264, 442_368 + 256, 74_760_192),
        "fc6": (4_096, 37_748_736 + 4_096, 37_748_736),
        "fc7": (4_096, 16_777_216 + 4_096, 16_777_216),
        "fc8": (1_000, 4_096_000 + 1_000, 4_096_000)}
    shapes = {row["layer"]: row["output"] for row in table.rows}
    for t in range(2):
        assert shapes[f"towers.{t}.conv1"] == (48, 55, 55)
        assert shapes[f"towers.{t}.pool1"] == (48, 27, 27)
        assert shapes[f"towers.{t}.pool2"] == (128, 13, 13)
        assert shapes[f"towers.{t}.pool5"] == (128, 6, 6)


def test_parameters_of_each_tower(blank):
    net = models.alexnet(devices=BOTH)
    held = {name: sum(p.size for p in net.parameters() if p.device.name == name) for name in BOTH}
    assert held == {"cpu:0": 32_531_112, "cpu:1": 28_434_112}
    assert sum(p.size for p in net.towers[0].parameters()) == 28_434_112
    weights = sum(p.size for p in net.parameters() if not p.is_bias)
    assert weights == 60_954_656
    assert {name: net.state_dict()[f"towers.0.{name}.weight"].shape for name in LAYERS[:7]} == {
        "conv1": (48, 3, 11, 11), "conv2": (128, 48, 5, 5), "conv3": (192, 256, 3, 3),
        "conv4": (192, 192, 3, 3), "conv5": (128, 192, 3, 3), "fc6": (2048, 9216),
        "fc7": (2048, 4096)}


# ---------------------------------------------------------------------------- what crosses

@pytest.mark.parametrize("variant", VARIANTS)
def test_exchanges_to_the_byte(blank, monkeypatch, variant):
    arrivals = []
    count = Ledger.count

    def spy(ledger, source, kind, nbytes):
        arrivals.append((kind, nbytes))
        count(ledger, source, kind, nbytes)

    monkeypatch.setattr(Ledger, "count", spy)
    net = models.alexnet(variant, devices=BOTH)
    images = ta.Tensor(np.zeros((1, 3, 224, 224), np.float32))
    here, there = reset_books()
    points = [86_528] * 2 + [18_432] * 2 + [8_192] * 2 + [8_192]     # pool2 pool5 fc6 fc7

    logits = net(images)
    assert arrivals == [("input", 602_112)] + [("exchange", n) for n in points]
    assert sum(points) == 173_056 + 36_864 + 16_384 + 8_192 == 234_496
    assert here.bytes == {("cpu:1", "exchange"): 121_344}
    assert there.bytes == {("cpu:0", "exchange"): 113_152, ("cpu:0", "input"): 602_112}
    assert logits.device.name == "cpu:0"

    reset_books()
    del arrivals[:]
    logits.sum().backward()
    assert arrivals == [("exchange", n) for n in reversed(points)]
    assert here.bytes == {("cpu:1", "exchange"): 113_152}
    assert there.bytes == {("cpu:0", "exchange"): 121_344}


def test_on_one_device_nothing_crosses():
    net = models.mini(image_size=32)
    here, there = reset_books()
    F.cross_entropy(net(np.zeros((2, 3, 32, 32), np.float32)), np.array([0, 1])).backward()
    assert here.bytes == there.bytes == {}


def test_bytes_grow_with_the_batch():
    net = models.mini(image_size=32, devices=BOTH)
    totals = []
    for n in (1, 2, 5):
        here, there = reset_books()
        net(np.zeros((n, 3, 32, 32), np.float32))
        totals.append(here.bytes["cpu:1", "exchange"] + there.bytes["cpu:0", "exchange"])
    assert totals == [totals[0], 2 * totals[0], 5 * totals[0]]
    assert totals[0] == models.summary(net).total["bytes_in"]


# ---------------------------------------------------------------------------- two towers = one net

def joined(state, layer, kind):
    return np.concatenate([state[f"towers.{t}.{layer}.{kind}"] for t in range(2)])


def grouped(state, images, labels, variant, conv1):
    """AlexNet without towers: grouped convolutions, LRN in two halves, joined layers and masks.

    Returns the logits and the gradients, under the towers' names.
    """
    state = {name: value.copy() for name, value in state.items()}
    P = {}                                            # joined parameters
    for layer in LAYERS[:7]:
        for kind in ("weight", "bias"):
            P[layer, kind] = ta.Tensor(joined(state, layer, kind), requires_grad=True)
    for kind in ("weight", "bias"):
        P["fc8", kind] = ta.Tensor(state[f"fc8.{kind}"], requires_grad=True)
    paper = variant == "paper"

    def conv(layer, x, **geometry):
        return F.conv2d(x, P[layer, "weight"], P[layer, "bias"], **geometry)

    def norm(x):
        half = x.shape[1] // 2
        halves = [F.local_response_norm(part, 5, 1e-4, 0.75, 2.0, divide_alpha=not paper)
                  for part in (x[:, :half], x[:, half:])]
        return F.concatenate(halves, axis=1)

    def pool(x):
        return (F.max_pool2d if paper else F.max_pool2d_ties)(x, 3, 2, ceil_mode=True)

    def fully(layer, x):
        return F.relu(F.linear(x, P[layer, "weight"], P[layer, "bias"]))

    x = conv("conv1", ta.Tensor(images), stride=conv1[1], ceil_mode=True)
    x = pool(norm(F.relu(x))) if paper else F.relu(pool(norm(x)))
    x = norm(F.relu(conv("conv2", x, padding=2, groups=2)))
    x = pool(x if paper else F.spatial_response_norm(x, 5, 1e-3, 0.75))
    x = F.relu(conv("conv3", x, padding=1))
    x = F.relu(conv("conv4", x, padding=1, groups=2))
    x = pool(F.relu(conv("conv5", x, padding=1, groups=2)))
    x = F.dropout(fully("fc6", F.flatten(x)), 0.5, scaling="paper", place="drop6")
    x = F.dropout(fully("fc7", x), 0.5, scaling="paper", place="drop7")
    logits = F.linear(x, P["fc8", "weight"], P["fc8", "bias"])
    F.cross_entropy(logits, labels).backward()
    grads = {}
    for (layer, kind), p in P.items():
        parts = [p.grad] if layer == "fc8" else np.split(p.grad, 2)
        for t, part in enumerate(parts):
            grads[f"fc8.{kind}" if layer == "fc8" else f"towers.{t}.{layer}.{kind}"] = part
    return logits.data, grads


def run(net, images, labels):
    """Logits and gradients of one training step, and what the layers were called with."""
    ta.manual_seed(3)
    net.zero_grad()
    logits = net(images)
    F.cross_entropy(logits, labels).backward()
    return logits.data, {name: p.grad for name, p in net.named_parameters()}


def same(one, other, tolerance=1e-12):
    (logits, grads), (others, theirs) = one, other
    assert np.abs(logits - others).max() <= tolerance * np.abs(logits).max()
    assert set(grads) == set(theirs)
    for name, g in grads.items():
        assert g.shape == theirs[name].shape and np.abs(g).max() > 0, name
        assert np.abs(g - theirs[name]).max() <= tolerance * np.abs(g).max(), name


def check_three_ways(variant, shape, image_size, n, classes=5):
    rng = np.random.default_rng(2)
    images = rng.standard_normal((n, 3, image_size, image_size))
    labels = rng.integers(0, classes, n)
    two = micro(variant, BOTH, classes, image_size, shape)
    results = run(two, images, labels)
    state = two.state_dict()
    del two
    one = micro(variant, ("cpu:0",), classes, image_size, shape)
    one.load_state_dict(state)
    same(run(one, images, labels), results)
    del one
    ta.manual_seed(3)
    same(grouped(state, images, labels, variant, shape.conv1), results)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_devices_are_one_device_are_the_grouped_net(variant):
    mini = Shape((5, 2), (32, 96, 128, 128, 128), (512, 512))
    check_three_ways(variant, mini, image_size=32, n=4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_with_the_convolutions_of_the_original(variant):
    check_three_ways(variant, Shape(units=(32, 32)), image_size=224, n=1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_at_full_size(variant):
    check_three_ways(variant, Shape(), image_size=224, n=2, classes=1000)


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_bits_do_not_depend_on_the_placement(variant):
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 3, 32, 32)).astype(np.float32), np.array([0, 1, 2, 3])
    results = []
    for devices in (("cpu:0",), ("cpu:0", "cpu:0"), BOTH, ("cpu:1", "cpu:0")):
        ta.manual_seed(0)
        net = models.mini(variant=variant, image_size=32, devices=devices)
        logits, grads = run(net, images, labels)
        assert logits.dtype == np.float32
        results.append(logits.tobytes() + b"".join(g.tobytes() for g in grads.values()))
    assert results[0] == results[1] == results[2] == results[3]


def test_dropout_makes_a_difference_in_training_alone():
    net = models.mini(image_size=32)
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert not np.array_equal(net(images).data, net(images).data)
    net.eval()
    assert np.array_equal(net(images).data, net(images).data)


# ---------------------------------------------------------------------------- the variants

def calls(net, images):
    """What each layer of tower 0 was given and what it returned, in the order of the calls."""
    seen = []
    for name, layer in net.towers[0].named_children():
        layer.register_forward_hook(
            lambda m, i, o, name=name: seen.append((name, i[0].data, o.data)))
    net(images)
    return seen


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_the_first_block(variant):
    images = 10 * np.random.default_rng(0).standard_normal((2, 3, 32, 32))
    seen = calls(micro(variant), images)
    spatial = ["spatial2"] if variant == "source2012" else []
    assert [name for name, _, _ in seen] == [
        "conv1", "norm1", "pool1", "conv2", "norm2", *spatial, "pool2", "conv3", "conv4", "conv5",
        "pool5", "fc6", "drop6", "fc7", "drop7"]
    given = {name: i for name, i, _ in seen}
    gave = {name: o for name, _, o in seen}
    assert gave["conv1"].min() < 0
    if variant == "source2012":                       # conv, LRN of the raw sums, pool, ReLU
        assert np.array_equal(given["norm1"], gave["conv1"]) and gave["pool1"].min() < 0
        assert np.array_equal(given["conv2"], np.maximum(gave["pool1"], 0))
        assert np.array_equal(given["pool2"], gave["spatial2"])
    else:                                             # conv, ReLU, LRN, pool
        assert np.array_equal(given["norm1"], np.maximum(gave["conv1"], 0))
        assert np.array_equal(given["conv2"], gave["pool1"])
        assert np.array_equal(given["pool2"], gave["norm2"])
    for after, before in (("norm2", "conv2"), ("conv4", "conv3"), ("conv5", "conv4"),
                          ("pool5", "conv5"), ("drop6", "fc6"), ("drop7", "fc7")):
        assert np.array_equal(given[after], np.maximum(gave[before], 0))
    assert np.array_equal(gave["norm1"], F.local_response_norm(
        ta.Tensor(given["norm1"]), 5, 1e-4, 0.75, 2.0, divide_alpha=variant != "paper").data)


@pytest.mark.parametrize("variant, stds", [
    ("paper", [0.01] * 8), ("source2012", [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01])])
def test_initial_weights_and_biases(monkeypatch, variant, stds):
    monkeypatch.setattr(nn.init, "normal", lambda std: lambda shape, rng: np.broadcast_to(
        np.float32(std), shape))
    net = models.alexnet(variant)
    stds = dict(zip(LAYERS, stds, strict=True))
    biases = dict(conv1=0, conv2=1, conv3=0, conv4=1, conv5=1, fc6=1, fc7=1, fc8=0)
    seen = set()
    for name, p in net.named_parameters():
        layer, kind = name.split(".")[-2:]
        expected = biases[layer] if p.is_bias else np.float32(stds[layer])
        assert p.is_bias == (kind == "bias") and (p.data == expected).all(), name
        seen.add(layer)
    assert seen == set(LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_initial_weights_as_drawn(variant):
    net = models.alexnet(variant)
    drawn = set()
    for name, p in net.named_parameters():
        if p.is_bias:
            continue
        layer = name.split(".")[-2]
        std = 0.03 if variant == "source2012" and layer in ("conv3", "conv4", "conv5") else 0.01
        error = 5 / np.sqrt(2 * p.size)
        assert abs(p.data.std(dtype=np.float64) / std - 1) < error, name
        assert abs(p.data.mean(dtype=np.float64)) < 5 * std / np.sqrt(p.size), name
        drawn.add(p.data.ravel()[:50].tobytes())
    assert len(drawn) == 15


def test_alexnet_may_start_by_fan_in(monkeypatch):
    monkeypatch.setattr(nn.init, "he", lambda shape, rng: np.broadcast_to(np.float32(7), shape))
    net, recipe = models.build("alexnet", 10, init="he")
    assert recipe.init == "he"
    assert all((p.data == (0 if p.is_bias else 7)).all() for p in net.parameters())
    for make in (models.alexnet, lambda init: models.build("mini", 10, init=init)):
        with pytest.raises(ValueError, match="init: got 'she'"):
            make(init="she")


def test_mini_starts_by_fan_in():
    for name, p in models.mini().named_parameters():
        if p.is_bias:
            assert not p.data.any()
        else:
            std = 0.01 if "conv1" in name else np.sqrt(2 / np.prod(p.shape[1:]))
            assert abs(p.data.std() / std - 1) < 5 / np.sqrt(2 * p.size), name


def test_what_each_variant_is():
    paper, source = (models.VARIANTS[name] for name in VARIANTS)
    lrn = dict(size=5, alpha=1e-4, beta=0.75, k=2.0)
    assert paper.lrn == dict(lrn, divide_alpha=False) and source.lrn == dict(lrn, divide_alpha=True)
    assert not paper.ties and source.ties and paper.spatial_norm is None
    assert source.spatial_norm == dict(size=5, alpha=1e-3, beta=0.75, k=1.0)
    for variant in VARIANTS:
        net = models.mini(variant=variant, image_size=32)
        pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
        assert len(pools) == 6 and {p.ties for p in pools} == {variant == "source2012"}
        assert {p.settings for p in pools} == {(3, 2, 0, True)}


@pytest.mark.parametrize("name", ["caffe", "owt"])
def test_variants_to_come_say_so(name):
    with pytest.raises(ValueError, match=f"variant '{name}': .*not here yet; choose one of paper, "
                                         "source2012"):
        models.alexnet(name)


@pytest.mark.parametrize("name", ["vgg", "", "Paper", None])
def test_a_wrong_variant_teaches(name):
    for make in (models.alexnet, lambda variant: models.mini(variant=variant)):
        with pytest.raises(ValueError, match="variant: got .*; choose one of paper, source2012"):
            make(name)


# ---------------------------------------------------------------------------- sizes, devices

@pytest.mark.parametrize("classes", [2, 10, 1000, np.int64(7)])
def test_class_counts(blank, classes):
    net = models.alexnet(num_classes=classes)
    assert net.fc8.weight.shape == (classes, 4096) and type(net.num_classes) is int
    small = models.mini(classes, image_size=32)
    assert small(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, classes)


@pytest.mark.parametrize("classes", [1, 0, -5, "10", 10.0, None])
def test_a_wrong_class_count_teaches(classes):
    with pytest.raises(ValueError, match="num_classes: got .*; expected an integer >= 2"):
        models.mini(classes)


@pytest.mark.parametrize("conv1, least", [((11, 4), 52), ((5, 2), 26)])
def test_the_smallest_picture(conv1, least):
    shape = Shape(conv1, MICRO.maps, MICRO.units)
    net = micro(image_size=least, shape=shape)
    assert net(np.zeros((1, 3, least, least))).shape == (1, 5)
    with pytest.raises(ValueError, match=f"image_size: {least - 1} leaves nothing after three"):
        micro(image_size=least - 1, shape=shape)


@pytest.mark.parametrize("size", [0, -1, 224.0, "224", None])
def test_a_wrong_image_size_teaches(size):
    with pytest.raises(ValueError, match="image_size: got .*; expected a positive integer"):
        models.alexnet(image_size=size)
    with pytest.raises(ValueError, match=r"mini: image_size is .*; expected one of \[67, 64, 32\]"):
        models.mini(image_size=size)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3),
                                   (1, 3, 32, 33)])
def test_wrong_pictures_teach(shape):
    net = models.mini(image_size=32)
    with pytest.raises(ValueError, match=r"images have shape .*; expected \(N, 3, 32, 32\)"):
        net(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"images have shape \(\); expected"):
        net([[[[0.0]]]])


@pytest.mark.parametrize("size, kernel", [(67, 11), (64, 11), (32, 5)])
def test_mini_comes_in_three_sizes_with_the_same_maps(size, kernel):
    net = models.mini(image_size=size)
    shapes = {row["layer"]: row["output"] for row in models.summary(net).rows}
    assert shapes["towers.0.conv1"] == (16, 15, 15) and shapes["towers.1.pool5"] == (64, 1, 1)
    assert net.towers[0].conv1.kernel_size == (kernel, kernel)


@pytest.mark.parametrize("devices, towers", [
    ("cpu:1", ("cpu:1", "cpu:1")), (("cpu:0",), ("cpu:0", "cpu:0")),
    (["cpu:1", "cpu:0"], ("cpu:1", "cpu:0")), ((ta.Device("cpu:0"), "cpu:1"), BOTH),
    (ta.Device("cpu:1"), ("cpu:1", "cpu:1"))])
def test_one_device_or_two(devices, towers):
    net = models.mini(image_size=32, devices=devices)
    assert tuple(d.name for d in net.devices) == towers
    logits = net(np.zeros((1, 3, 32, 32), np.float32))
    assert logits.device is net.fc8.weight.device is net.devices[0]


@pytest.mark.parametrize("devices, count", [((), 0), (("cpu:0", "cpu:1", "cpu:2"), 3)])
def test_no_device_and_three_teach(devices, count):
    with pytest.raises(ValueError, match=f"devices: got {count}; the net has two towers, so name "
                                         "one device or two"):
        models.alexnet(devices=devices)


def test_a_net_can_move_as_a_whole():
    net = models.mini(image_size=32, devices=BOTH).eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    before = net(images).data
    net.to("cpu:1")
    assert {d.name for d in net.devices} == {"cpu:1"} == {p.device.name for p in net.parameters()}
    after = net(images)
    assert after.device.name == "cpu:1" and np.array_equal(after.data, before)


def test_a_misplaced_layer_is_named_in_full():
    net = models.mini(image_size=32, devices=BOTH)
    net.towers[1].conv2.to("cpu:0")
    with pytest.raises(ta.DeviceMismatch, match=(
            r"^Conv2d in module towers\.1\.conv2: inputs live on several devices: "
            r"cpu:1 \(1, 16, 7, 7\), cpu:0")):
        net(np.zeros((1, 3, 32, 32), np.float32))


# ---------------------------------------------------------------------------- states

def test_one_state_for_one_device_and_two():
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    one = models.mini(image_size=32).eval()
    two = models.mini(image_size=32, devices=BOTH).eval()
    expected = one(images).data
    assert two.load_state_dict(one.state_dict()) == ([], [])
    homes = [p.device.name for p in two.parameters()]
    assert homes == ["cpu:0"] * 14 + ["cpu:1"] * 14 + ["cpu:0"] * 2
    assert np.array_equal(two(images).data, expected)
    back = models.mini(image_size=32, devices=("cpu:1",)).eval()
    back.load_state_dict(two.state_dict())
    assert np.array_equal(back(images).data, expected)


def test_a_new_last_layer_for_other_classes():
    old, new = models.mini(16, image_size=32), models.mini(5, image_size=32, devices=BOTH)
    assert new.load_state_dict(old.state_dict(), strict=False) == (["fc8.weight", "fc8.bias"],) * 2
    assert np.array_equal(new.towers[1].fc7.weight.data, old.towers[1].fc7.weight.data)
    old.fc8 = nn.Linear(512, 5, init=nn.init.normal(0.01))
    images = np.zeros((2, 3, 32, 32), np.float32)
    assert new(images).shape == old(images).shape == (2, 5)
    old.towers.requires_grad_(False)
    F.cross_entropy(old(images), np.array([0, 1])).backward()
    moved = [name for name, p in old.named_parameters() if p.grad is not None]
    assert moved == ["fc8.weight", "fc8.bias"]


# ---------------------------------------------------------------------------- gradients

@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("devices", [("cpu:0",), BOTH], ids=["one", "two"])
def test_gradients_of_the_whole_net(variant, devices):
    net = micro(variant, devices)
    rng = np.random.default_rng(4)
    images, labels = strategies.normal((2, 3, 32, 32), 5), np.array([3, 1])
    params = list(net.parameters())

    def loss():
        ta.manual_seed(6)                             # the same masks each time
        return F.cross_entropy(net(images), labels)

    loss().backward()
    scale = max(np.abs(p.grad).max() for p in params)
    for k in range(40):                               # one element each, in every parameter
        p = params[k % len(params)]
        at = tuple(rng.integers(0, extent) for extent in p.shape)
        value, h = p.data[at], 1e-6
        p.data[at] = value + h
        up = loss().item()
        p.data[at] = value - h
        down = loss().item()
        p.data[at] = value
        assert abs((up - down) / (2 * h) - p.grad[at]) <= 1e-7 * scale + 1e-6 * abs(p.grad[at])
    ways = [rng.standard_normal(p.shape) for p in params]
    slope = sum((p.grad * way).sum() for p, way in zip(params, ways, strict=True))
    losses = []
    for h in (1e-7, -1e-7):
        for p, way in zip(params, ways, strict=True):
            p.data += h * way
        losses.append(loss().item())
        for p, way in zip(params, ways, strict=True):
            p.data -= h * way
    assert abs((losses[0] - losses[1]) / 2e-7 - slope) <= 1e-5 * abs(slope)


# ---------------------------------------------------------------------------- CIFAR-10 of 2012

@pytest.mark.parametrize("make, count, decays, stds", [
    (cifar.quick_80sec, 145_578, [None, None, None, 0.03, 0.03], [1e-4, 0.01, 0.01, 0.1, 0.1]),
    (cifar.rnorm_18pct, 89_578, [None, None, None, 1.0], [1e-4, 0.01, 0.01, 0.01])])
def test_the_nets_of_cifar10(make, count, decays, stds):
    net = make()
    params = list(net.parameters())
    weights = [p for p in params if not p.is_bias]
    assert sum(p.size for p in params) == count
    assert [p.weight_decay for p in weights] == decays
    assert all(p.weight_decay is None and not p.data.any() for p in params if p.is_bias)
    for p, std in zip(weights, stds, strict=True):
        assert abs(p.data.std() / std - 1) < 5 / np.sqrt(2 * p.size)
    assert net(np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 10)
    shapes = [row["output"] for row in models.summary(net).rows if len(row["output"]) == 3]
    assert [s for i, s in enumerate(shapes) if i == 0 or s[1] != shapes[i - 1][1]] == [
        (32, 32, 32), (32, 16, 16), (32, 8, 8), (64, 4, 4)]
    other = make(100, "cpu:1")
    assert other(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 100)
    assert {p.device.name for p in other.parameters()} == {"cpu:1"}
    assert [p.weight_decay for p in other.parameters() if not p.is_bias] == decays


def test_18pct_has_two_norms_within_maps():
    norms = [m.settings for m in models.rnorm_18pct().modules()
             if isinstance(m, nn.SpatialResponseNorm)]
    assert norms == [(3, 5e-5, 0.75, 1.0)] * 2
    assert not any(isinstance(m, nn.SpatialResponseNorm) for m in models.quick_80sec().modules())


def test_a_decay_of_its_own_reaches_the_optimizer():
    net, recipe = models.build("80sec", 10)
    before = net.state_dict()
    opt = ta.optim.SGD(net.parameters(), 0.1, 0.0, recipe.weight_decay)
    for p in net.parameters():
        p.grad = np.zeros(p.shape, np.float32)
    opt.step()
    for name, p in net.named_parameters():
        decay = 0 if p.is_bias else 0.03 if p.ndim == 2 else 0.004
        np.testing.assert_allclose(p.data, before[name] * (1 - 0.1 * decay), rtol=1e-6)


# ---------------------------------------------------------------------------- build, recipes

def test_build_hands_out_the_recipe_that_fits():
    net, recipe = models.build("mini", 7, "source2012", BOTH, 32, dropout=0.25)
    assert (recipe.name, recipe.variant, recipe.image_size, recipe.dropout) == (
        "mini", "source2012", 32, 0.25)
    assert net.variant.name == "source2012" and net.num_classes == 7 and net.image_size == 32
    assert net.towers[0].drop6.p == 0.25 and tuple(d.name for d in net.devices) == BOTH
    net, recipe = models.build("mini", 7)
    assert net.image_size == recipe.image_size == 67 and net.towers[0].drop7.p == recipe.dropout


def test_recipes_of_alexnet(blank):
    net, paper = models.build("alexnet", 1000)
    assert net.image_size == paper.image_size == 224 and net.towers[0].drop6.p == 0.5
    assert (paper.batch_size, paper.lr, paper.epochs) == (128, 0.01, 90)
    assert (paper.momentum, paper.weight_decay, paper.bias_lr) == (0.9, 5e-4, None)
    assert paper.plateau and not paper.milestones and paper.resize == 256
    source = RECIPES["alexnet", "source2012"]
    assert (source.bias_lr, source.color_reading, source.central_mean) == (0.02, "source", True)


@pytest.mark.parametrize("name", ["80sec", "18pct"])
def test_cifar_nets_by_name(name):
    net, recipe = models.build(name, 10, devices="cpu:1")
    assert recipe.name == name and {p.device.name for p in net.parameters()} == {"cpu:1"}
    for wrong in (dict(variant="source2012"), dict(devices=BOTH), dict(image_size=64),
                  dict(image_size=0), dict(dropout=0.5), dict(init="he")):
        with pytest.raises(ValueError, match=f"model {name}: it has one tower, one start, no "
                                             "variants, no dropout and pictures of 32; got "):
            models.build(name, 10, **wrong)


def test_a_wrong_name_teaches():
    with pytest.raises(ValueError, match="model: got 'resnet'; choose one of alexnet, mini, 80sec"):
        models.build("resnet", 10)
    with pytest.raises(ValueError, match="mini: image_size is 0"):
        models.build("mini", 10, image_size=0)


@pytest.mark.parametrize("key", RECIPES, ids="-".join)
def test_recipes_travel_as_json(key):
    recipe = RECIPES[key]
    assert (recipe.name, recipe.variant) == key and key[0] in models.NAMES
    for one in (recipe, replace(recipe, lr_epochs=(20.0, 45.0)), replace(recipe, lr_epochs=())):
        assert models.Recipe.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert bool(recipe.plateau) != bool(recipe.milestones)
    assert all(0 < share < 1 for share in recipe.milestones)
    with pytest.raises(FrozenInstanceError):
        recipe.lr = 1.0
    with pytest.raises(ValueError, match=r"recipe: unknown settings \['surprise'\]"):
        models.Recipe.from_dict(recipe.to_dict() | {"surprise": 1})


# ---------------------------------------------------------------------------- the summary

def test_the_table_on_one_device_and_two():
    for devices, crossing in ((("cpu:0",), 0), (BOTH, 7_040)):
        net = models.mini(image_size=32, devices=devices)
        table = models.summary(net)
        assert table.total == {"parameters": 636_272, "neurons": 16_400, "macs": 5_079_904,
                               "activation_bytes": 127_552, "im2col_bytes": 436_952,
                               "bytes_in": crossing}
        assert all(sum(row[k] for row in table.rows) == v for k, v in table.total.items())
        lines = str(table).split("\n")
        assert lines[0].split() == ["layer", "device", "output", "parameters", "FLOP", "act", "MB",
                                    "im2col", "MB", "bytes", "in"]
        assert lines[1] == lines[-5] == "-" * len(lines[1])
        assert lines[-4].split()[:3] == ["total", "636,272", "10,159,808"]
        assert lines[-2:] == [
            "636,272 parameters, 16,400 neurons, 5,079,904 multiply-adds per picture forward",
            f"{crossing:,} bytes cross between devices per picture forward, and the same backward"]
        assert max(map(len, lines)) <= 100 and all(line == line.rstrip() for line in lines)
        row = next(line for line in lines if line.startswith("towers.1.conv2"))
        assert row.split()[:5] == ["towers.1.conv2", devices[-1], "48x7x7", "19,248", "1,881,600"]


def test_where_the_bytes_come_in():
    table = models.summary(models.mini(image_size=32, devices=BOTH))
    arriving = {row["layer"]: row["bytes_in"] for row in table.rows if row["bytes_in"]}
    pool2, pool5, units = 48 * 3 * 3 * 4, 64 * 4, 256 * 4
    assert arriving == {"towers.0.conv3": pool2, "towers.1.conv3": pool2, "towers.0.fc6": pool5,
                        "towers.1.fc6": pool5, "towers.0.fc7": units, "towers.1.fc7": units,
                        "fc8": units}


def test_the_table_is_in_float32_whatever_the_net():
    net = models.mini(image_size=32, devices=BOTH)
    assert models.summary(net.double()).total == models.summary(models.mini(
        image_size=32, devices=BOTH)).total


def test_memory_of_a_step():
    table = models.summary(models.mini(image_size=32))
    assert table.memory(8) == 12 * 636_272 + 16 * 127_552


def test_the_largest_batch_that_fits():
    table = models.summary(models.mini(image_size=32))
    for n in (1, 7, 128):
        assert table.fits(table.memory(n)) == n == table.fits(table.memory(n + 1) - 1)
    assert table.fits(table.memory(1) - 1) == table.fits(10) == 0


def test_memory_of_one_device_of_two():
    table = models.summary(models.mini(image_size=32, devices=BOTH))
    first, second = (table.memory(8, [device]) for device in BOTH)
    fc8 = 12 * 16 * (512 + 1) + 2 * 8 * 16 * 4           # which lives on the first
    assert first == second + fc8 and first + second == table.memory(8) == table.memory(8, BOTH)
    assert [table.fits(second, [device]) for device in BOTH] == [7, 8]
    assert table.fits(1e6, ["cuda:5"]) == 1e6            # nothing of the net is there


def test_a_summary_leaves_no_trace():
    net = models.mini(image_size=32)
    net.towers[0].drop6.eval()
    modes = [m.training for m in net.modules()]
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    ta.manual_seed(0)
    expected = net(images).data
    ta.manual_seed(0)
    models.summary(net)
    assert [m.training for m in net.modules()] == modes
    assert np.array_equal(net(images).data, expected)          # no mask was drawn meanwhile
    assert not any(m.__dict__.get("hooks") for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_a_summary_of_any_net():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    table = models.summary(net, image_size=8)
    assert [row["layer"] for row in table.rows] == ["0", "1", "2", "3"]
    assert table.total["parameters"] == 108 + 290 and table.total["macs"] == 27 * 144 + 288
    single = models.summary(nn.Conv2d(3, 4, 3), image_size=8)
    assert [row["layer"] for row in single.rows] == ["Conv2d"] and single.total["parameters"] == 112
    assert models.summary(nn.Sequential(nn.ReLU())).total["parameters"] == 0


def test_a_summary_counts_shared_and_loose_parameters_once():
    class Odd(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter(np.ones((1, 3, 1, 1), np.float32))
            self.conv = self.again = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.again(self.conv(x * self.scale))

    table = models.summary(Odd(), image_size=8)
    assert [row["layer"] for row in table.rows] == ["conv", "conv"]
    assert table.total["parameters"] == 3 + 84 and table.total["macs"] == 2 * 81 * 64


def test_a_start_for_few_pictures():
    net = models.alexnet(num_classes=2, init="he")
    for name, p in net.named_parameters():
        if p.is_bias:
            assert not p.data.any(), name
        else:
            expected = np.sqrt(2 / np.prod(p.shape[1:]))
            assert p.data.std() == pytest.approx(expected, rel=0.05), name
    assert models.build("alexnet", 2, init="he")[1].init == "he"
    for wrong in (lambda: models.alexnet(init="zeros"), lambda: models.build("mini", 2, init="he")):
        with pytest.raises(ValueError, match="init: got"):
            wrong()
