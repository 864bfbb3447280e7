"""Modules: names, states, modes, hooks, places; and layers, thin around the functional ops."""
import copy

import numpy as np
import pytest
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import nn

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def seeded():
    ta.manual_seed(0)


class Net(nn.Module):
    """A convolution, two branches that share a layer, a last layer."""

    def __init__(self, classes=3):
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.branches = nn.ModuleList([nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False)),
                                       nn.Conv2d(4, 4, 1)])
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4 * 64, classes)

    def forward(self, x):
        x = self.conv(nn.as_input(x, self.conv.weight.device))
        x = self.branches[0](x) + self.branches[1](x)
        return self.last(self.drop(F.flatten(x)))


# ---------------------------------------------------------------------------- names

def test_names_follow_the_definition():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "conv.weight", "conv.bias", "branches.0.1.weight", "branches.1.weight", "branches.1.bias",
        "last.weight", "last.bias"]
    assert [path for path, _ in net.named_modules()] == [
        "", "conv", "branches", "branches.0", "branches.0.0", "branches.0.1", "branches.1", "drop",
        "last"]
    assert [name for name, _ in net.named_children()] == ["conv", "branches", "drop", "last"]
    assert [m.path for m in net.modules()] == [path for path, _ in net.named_modules()]
    assert list(net.children()) == [net.conv, net.branches, net.drop, net.last]
    assert [p is q for p, (_, q) in zip(net.parameters(), net.named_parameters(), strict=True)]
    assert [p.is_bias for p in net.parameters()] == [False, True, False, False, True, False, True]


def test_a_shared_module_has_its_first_name():
    class Shared(nn.Module):
        def __init__(self):
            self.first = nn.Linear(2, 2)
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    net = Shared()
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "first.bias"]
    net(ta.Tensor([[1.0, 2.0]])).sum().backward()
    assert net.load_state_dict(net.state_dict()) == ([], [])
    assert [path for path, _ in net.named_modules()] == ["", "first"]


def test_a_replaced_layer_has_its_place():
    net = Net()
    net.last = nn.Linear(256, 7)
    assert net.last.path == "last" and list(net.state_dict())[-1] == "last.bias"
    assert net(IMAGES).shape == (2, 7)
    setattr(net.branches, "1", nn.Conv2d(4, 4, 3, padding=1))
    assert net.branches[1].path == "branches.1" and net(IMAGES).shape == (2, 7)


def test_a_module_may_use_any_attribute():
    class Named(nn.Module):
        def __init__(self):
            self.fc, self.name, self.weights = nn.Linear(1, 1), "mine", [1, 2]

        def forward(self, x):
            return self.fc(x)

    net = Named()
    assert [name for name, _ in net.named_parameters()] == ["fc.weight", "fc.bias"]
    assert net.name == "mine" and net(ta.Tensor([[1.0]])).shape == (1, 1)


def test_repr_is_a_tree():
    assert repr(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 3)))) == (
        "Sequential(\n  (0): ReLU()\n  (1): Sequential(\n    (0): Linear(2, 3)\n  )\n)")


# ---------------------------------------------------------------------------- states

def test_state_dict_round_trip():
    one, two = Net(), Net()
    assert not np.array_equal(one.conv.weight.data, two.conv.weight.data)
    state = one.state_dict()
    assert list(state) == [name for name, _ in one.named_parameters()]
    assert two.load_state_dict(state) == ([], [])
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert np.array_equal(a.data, b.data) and not np.shares_memory(a.data, b.data)
    assert np.array_equal(one.eval()(IMAGES).data, two.eval()(IMAGES).data)


def test_a_state_is_a_copy_both_ways():
    net = Net()
    state = net.state_dict()
    before = state["last.bias"].copy()
    net.last.bias.data += 1
    assert np.array_equal(state["last.bias"], before)
    net.load_state_dict(state)
    state["last.bias"] += 5
    assert np.array_equal(net.last.bias.data, before)


def test_a_state_knows_no_device_and_keeps_the_nets_dtype():
    here, there = Net(), Net().to("cpu:1")
    there.load_state_dict(here.state_dict())
    assert {p.device.name for p in there.parameters()} == {"cpu:1"}
    wide = {name: value.astype(np.float64) for name, value in here.state_dict().items()}
    there.load_state_dict(wide)
    assert {p.dtype.name for p in there.parameters()} == {"float32"}
    assert all(np.array_equal(a, b) for a, b in zip(here.state_dict().values(),
                                                    there.state_dict().values(), strict=True))


def test_loading_keeps_the_parameter_and_its_gradient():
    net = Net()
    F.cross_entropy(net(IMAGES), np.array([0, 1])).backward()
    weight, grad = net.last.weight, net.last.weight.grad
    net.load_state_dict(net.state_dict())
    assert net.last.weight is weight and weight.grad is grad


def test_strict_loading_lists_every_difference_and_loads_nothing():
    net, before = Net(), Net().state_dict()
    net.load_state_dict(before)
    state = {name: value + 1 for name, value in before.items()}
    state["last.weight"] = state["last.weight"][:2]
    del state["conv.bias"]
    state["branches.2.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match=(
            r"load_state_dict: last.weight is \(2, 256\), expected \(3, 256\); "
            r"conv.bias is absent; branches.2.weight has no place here")):
        net.load_state_dict(state)
    assert all(np.array_equal(p.data, before[name]) for name, p in net.named_parameters())
    with pytest.raises(ValueError, match=r"absent; .*\.\.\.$"):
        net.load_state_dict({})


def test_loose_loading_gives_a_trained_net_a_new_last_layer():
    trained, net = Net(classes=3), Net(classes=5)
    fresh = net.last.weight.data.copy()
    missing, unexpected = net.load_state_dict(trained.state_dict(), strict=False)
    assert missing == unexpected == ["last.weight", "last.bias"]
    assert np.array_equal(net.last.weight.data, fresh)
    assert np.array_equal(net.conv.weight.data, trained.conv.weight.data)
    assert net.load_state_dict({"else": np.zeros(1)}, strict=False)[1] == ["else"]


def test_a_deep_copy_is_another_net():
    net = Net()
    twin = copy.deepcopy(net)
    loss = F.cross_entropy(net(IMAGES) + twin(IMAGES), np.array([0, 1]))
    loss.backward()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert a is not b and not np.shares_memory(a.data, b.data) and a.is_bias == b.is_bias
        assert a.grad is not None and b.grad is not None
    ta.optim.SGD(net.parameters(), 0.1).step()
    assert not np.array_equal(net.last.weight.data, twin.last.weight.data)


# ---------------------------------------------------------------------------- freezing, modes

def test_frozen_layers_get_no_gradient_and_do_not_move():
    net = Net()
    opt = ta.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1)

    def step():
        opt.zero_grad()
        F.cross_entropy(net(IMAGES), np.array([0, 1])).backward()
        opt.step()

    step()                                            # there is a velocity now
    net.conv.requires_grad_(False)
    net.branches.requires_grad_(False)
    before = net.state_dict()
    step()
    for name, p in net.named_parameters():
        frozen = not name.startswith("last")
        assert (p.grad is None) == frozen == np.array_equal(p.data, before[name])
    assert net.conv.requires_grad_(True) is net.conv
    step()
    assert net.conv.weight.grad is not None
    assert not np.array_equal(net.conv.weight.data, before["conv.weight"])


def test_a_wholly_frozen_net_builds_no_graph():
    net = Net().requires_grad_(False)
    y = net(IMAGES)
    assert not y.requires_grad and y.node is None
    net.zero_grad()                                   # and this does not stumble over it


def test_training_is_a_flag_of_every_module():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    net.drop.eval()
    assert net.training and not net.drop.training


def test_dropout_listens_to_the_flag():
    x = ta.Tensor(np.ones((4, 100), np.float32))
    drop = nn.Dropout(0.25)
    silent = drop(x).data == 0
    assert 0.1 < silent.mean() < 0.4
    assert drop.eval()(x) is x
    paper = nn.Dropout(0.25, scaling="paper")
    assert set(np.unique(paper(x).data)) == {0, 1}
    assert set(np.unique(paper.eval()(x).data)) == {0.75}


def test_dropout_draws_at_the_place_that_its_path_names():
    x = ta.Tensor(np.ones((4, 100), np.float32))
    net = nn.Sequential(nn.Dropout(), nn.Dropout())
    first, second = net[0](x).data, net[1](x).data
    assert not np.array_equal(first, second)
    ta.manual_seed(0)
    assert np.array_equal(net[1](x).data, second) and np.array_equal(net[0](x).data, first)
    ta.manual_seed(0)
    assert np.array_equal(F.dropout(x, place="1").data, second)
    ta.manual_seed(0)
    assert np.array_equal(nn.Dropout(place="1")(x).data, second)


def test_zero_grad():
    net = Net()
    F.cross_entropy(net(IMAGES), np.array([0, 1])).backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


# ---------------------------------------------------------------------------- hooks

def test_hooks_see_inputs_and_output_in_order_and_can_be_removed():
    net, seen = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []
    removers = [net[0].register_forward_hook(lambda m, i, o: seen.append(("a", m, i, o))),
                net[0].register_forward_hook(lambda m, i, o: seen.append(("b", m, i, o)))]
    y = net[0](ta.Tensor([[1.0, 2.0]]))
    assert [s[0] for s in seen] == ["a", "b"]
    assert seen[0][1] is net[0] and seen[0][2][0].shape == (1, 2) and seen[0][3] is y
    removers[0]()
    removers[0]()                                     # twice is no mistake
    net(ta.Tensor([[1.0, 2.0]]))
    assert [s[0] for s in seen] == ["a", "b", "b"]


def test_a_hook_may_replace_the_output():
    net = nn.Sequential(nn.ReLU())
    remove = net[0].register_forward_hook(lambda module, inputs, output: output * 10.0)
    assert net(ta.Tensor([2.0])).item() == 20
    remove()
    assert net(ta.Tensor([2.0])).item() == 2


def test_a_failing_forward_leaves_the_path_of_others_right():
    net = nn.Sequential(nn.Linear(2, 2))
    for _ in range(2):
        with pytest.raises(ValueError, match="linear: x"):
            net(ta.Tensor([[1.0]]))
    with pytest.raises(TypeError, match="^ReLU: got a plain int"):
        F.relu(1)


# ---------------------------------------------------------------------------- containers

def test_module_lists_and_sequences():
    layers = [nn.ReLU(), nn.Tanh(), nn.Sigmoid()]
    for container in (nn.ModuleList(layers), nn.Sequential(*layers)):
        assert len(container) == 3 and list(container) == layers
        assert container[0] is layers[0] and container[-1] is layers[2]
        assert container[1:] == layers[1:]
        with pytest.raises(IndexError):
            container[3]
    assert len(nn.ModuleList()) == 0
    x = ta.Tensor([1.0])
    assert nn.Sequential()(x) is x
    assert nn.Sequential(*layers)(x).item() == F.sigmoid(F.tanh(F.relu(x))).item()


def test_a_module_without_forward_teaches():
    with pytest.raises(TypeError, match=r"ModuleList defines no forward\(\)"):
        nn.ModuleList([nn.ReLU()])(ta.Tensor([1.0]))


# ---------------------------------------------------------------------------- places, dtypes

def test_a_net_moves_its_input_and_books_it():
    net, ledger = Net().to("cpu:1"), ta.Device("cpu:1").ledger
    ledger.reset()
    assert net(IMAGES).device.name == "cpu:1"         # an array comes from the host
    assert ledger.bytes == {("cpu:0", "input"): IMAGES.nbytes}
    assert net(ta.Tensor(IMAGES)).device.name == "cpu:1"
    assert net(ta.Tensor(IMAGES, device="cpu:1")).device.name == "cpu:1"
    assert ledger.bytes == {("cpu:0", "input"): 2 * IMAGES.nbytes}
    nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).to("cpu:1")(ta.Tensor(IMAGES))
    assert ledger.bytes["cpu:0", "input"] == 3 * IMAGES.nbytes


def test_inside_a_net_nothing_moves_by_itself():
    class Split(nn.Module):
        def __init__(self):
            self.a = nn.Sequential(nn.Linear(2, 2))
            self.b = nn.Sequential(nn.Linear(2, 2)).to("cpu:1")

        def forward(self, x):
            return self.b(self.a(x))

    net, ledger = Split(), ta.Device("cpu:1").ledger
    ledger.reset()
    with pytest.raises(ta.DeviceMismatch, match="Linear in module b.0: .*cpu:0.*cpu:1"):
        net(ta.Tensor([[1.0, 2.0]]))
    with pytest.raises(ta.DeviceMismatch), ta.no_grad():
        net(np.ones((1, 2), np.float32))
    assert ledger.bytes == {}


def test_a_sequence_without_parameters_takes_arrays():
    assert nn.Sequential(nn.ReLU())(np.array([-1.0, 2.0])).data.tolist() == [0, 2]
    there = nn.Sequential(nn.ReLU())(ta.Tensor([1.0], device="cpu:1"))
    assert there.device.name == "cpu:1"


def test_pictures_of_integers_teach():
    with pytest.raises(TypeError, match="got dtype uint8; expected float32 or float64"):
        Net()(np.zeros((1, 3, 8, 8), np.uint8))


def test_to_moves_everything_and_drops_gradients():
    net = Net()
    ledger = ta.Device("cpu:1").ledger
    ledger.reset()
    net.last.bias.requires_grad_(False)
    F.cross_entropy(net(IMAGES), np.array([0, 1])).backward()
    before = net.state_dict()
    assert net.to("cpu:0") is net and net.conv.weight.grad is not None     # it was there already
    assert net.to("cpu:1") is net
    assert {p.device.name for p in net.parameters()} == {"cpu:1"}
    assert all(p.grad is None for p in net.parameters())
    assert not net.last.bias.requires_grad and net.last.weight.requires_grad
    assert ledger.bytes == {("cpu:0", "weights"): sum(v.nbytes for v in before.values())}
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())
    F.cross_entropy(net(IMAGES), np.array([0, 1])).backward()
    assert net.conv.weight.grad is not None


def test_double_makes_every_parameter_float64():
    net = Net()
    assert net.double() is net and {p.dtype.name for p in net.parameters()} == {"float64"}
    y = net(IMAGES.astype(np.float64))
    y.sum().backward()
    assert y.dtype == np.float64 and net.conv.weight.grad.dtype == np.float64


# ---------------------------------------------------------------------------- initial weights

def test_initial_weights_are_a_function_of_the_seed():
    one = Net().state_dict()
    ta.manual_seed(0)
    same = Net().state_dict()
    after = Net().state_dict()
    ta.manual_seed(1)
    other = Net().state_dict()
    weights = [name for name in one if name.endswith("weight")]
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not any(np.array_equal(one[n], after[n]) or np.array_equal(one[n], other[n])
                   for n in weights)


def test_no_two_layers_start_alike():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(1, 4, 2), nn.Conv2d(1, 4, 2))
    ta.random.next_step()
    late = nn.Linear(4, 4)                            # made after an update, as a new last layer
    drawn = [p.data.tobytes() for p in [*net.parameters(), *late.parameters()] if not p.is_bias]
    assert len(set(drawn)) == 5


def test_weights_start_by_fan_in_and_biases_at_zero():
    for layer, fan_in in ((nn.Linear(400, 300), 400), (nn.Conv2d(32, 64, 5, groups=2), 400)):
        mean, std = layer.weight.data.mean(), layer.weight.data.std()
        assert abs(std / np.sqrt(2 / fan_in) - 1) < 0.03 and abs(mean) < std / 50
        assert layer.weight.dtype == np.float32 and not layer.bias.data.any()
        assert layer.bias.is_bias and not layer.weight.is_bias


def test_weights_may_start_otherwise():
    def ones(shape, rng):
        return np.ones(shape)

    layer = nn.Linear(3, 2, init=ones, bias_init=0.5)
    assert layer.weight.dtype == layer.bias.dtype == np.float64
    assert layer(ta.Tensor(np.ones((1, 3)))).data.tolist() == [[3.5, 3.5]]
    assert nn.Linear(3, 2, bias=False).bias is None
    assert nn.Conv2d(1, 1, 1, device="cpu:1").weight.device.name == "cpu:1"
    drawn = nn.init.normal(0.01)((1000, 100), np.random.default_rng(0))
    assert drawn.dtype == np.float32 and abs(drawn.std() / 0.01 - 1) < 0.02


# ---------------------------------------------------------------------------- layers

def test_layers_are_their_functions():
    x = ta.Tensor(IMAGES)
    conv = nn.Conv2d(3, 6, (3, 2), (2, 1), ((0, 1), (1, 0)), groups=3, ceil_mode=True)
    pairs = [
        (conv(x), F.conv2d(x, conv.weight, conv.bias, (2, 1), ((0, 1), (1, 0)), 3, True)),
        (nn.MaxPool2d(3, 2, 1, True)(x), F.max_pool2d(x, 3, 2, 1, True)),
        (nn.MaxPool2d(2)(x), F.max_pool2d(x, 2)),
        (nn.AvgPool2d(3, 2, ceil_mode=True)(x), F.avg_pool2d(x, 3, 2, ceil_mode=True)),
        (nn.LocalResponseNorm(3, 0.1, 0.5, 2.0, divide_alpha=False)(x),
         F.local_response_norm(x, 3, 0.1, 0.5, 2.0, divide_alpha=False)),
        (nn.SpatialResponseNorm(3, 0.1, 0.5, 2.0)(x), F.spatial_response_norm(x, 3, 0.1, 0.5, 2.0)),
        (nn.ReLU()(x), F.relu(x)), (nn.Tanh()(x), F.tanh(x)), (nn.Sigmoid()(x), F.sigmoid(x)),
        (nn.Flatten()(x), F.flatten(x))]
    for layer, function in pairs:
        assert np.array_equal(layer.data, function.data)
    logits, labels = F.flatten(x), np.array([1, 2])
    assert nn.CrossEntropyLoss()(logits, labels).item() == F.cross_entropy(logits, labels).item()


def test_ties_take_everything_or_the_first_takes_all():
    for ties, expected in ((False, [1, 0, 0, 0]), (True, [1, 1, 1, 1])):
        x = ta.Tensor(np.ones((1, 1, 2, 2), np.float32), requires_grad=True)
        nn.MaxPool2d(2, ties=ties)(x).sum().backward()
        assert x.grad.ravel().tolist() == expected


def test_relu_in_place():
    h = ta.Tensor([-1.0, 2.0], requires_grad=True) * 1.0
    assert nn.ReLU(inplace=True)(h) is h and h.data.tolist() == [0, 2]


@pytest.mark.parametrize("args, match", [
    ((3, 4, 3, 1, 0, 2), "Conv2d: groups=2 must divide in_channels=3"),
    ((4, 3, 3, 1, 0, 2), "must divide .*out_channels=3"),
    ((3, 4, 3, 1, 0, 0), "groups=0"), ((3, 4, 0), "kernel_size: got 0"),
    ((3, 4, 2.5), "kernel_size: got 2.5")])
def test_a_convolution_that_cannot_be_teaches(args, match):
    with pytest.raises(ValueError, match=match):
        nn.Conv2d(*args)
