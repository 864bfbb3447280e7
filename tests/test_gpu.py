"""The same program on a GPU: the same numbers, the same bits every time, no memory lost.

Each test runs on a real card where there is one, and on the stand-in's, where every kernel is run
as C++ and every copy must be ordered by an event: see tests/standin.
"""
import numpy as np
import pytest
import strategies
import tinyalex as ta
from strategies import away_from_zero, distinct, normal
from tinyalex import functional as F
from tinyalex import kernels, models, nn, optim, random
from tinyalex.data import Augment, Shapes
from tinyalex.ops import conv_cuda
from tinyalex.ops.dropout import draw_mask

TOLERANCES = {np.float32: (1e-4, 1e-5), np.float64: (1e-10, 1e-10)}      # relative, absolute


def real(device):
    """Whether a card is there to be touched; the stand-in's first is cuda:8."""
    return device.index < 8


def assert_like_the_cpu(run, fn, arrays, cuda, dtype):
    """Assert that result and gradients on the card are those of the CPU in float64.

    The absolute tolerance is one of the largest element: long sums cancel to small numbers.
    """
    right = run(fn, arrays)
    found = run(fn, [a.astype(dtype) for a in arrays], device=cuda)
    relative, absolute = TOLERANCES[dtype]
    for i, (a, b) in enumerate(zip(found, right, strict=True)):
        assert a.shape == b.shape and a.dtype == dtype
        error, largest = np.abs(a - b), np.abs(b).max(initial=0)
        wrong = error > relative * np.abs(b) + absolute * largest
        assert largest > 0 and not wrong.any(), \
            f"{'gradient %d' % i if i else 'the result'}: off by {error.max()} of {largest}"


# ---------------------------------------------------------------------------- every op

X, Y = normal((3, 4), 1), away_from_zero((3, 4), 2)
MAPS = normal((2, 5, 6, 7), 3)
LABELS = np.array([3, 0, 3])
MASK = strategies.mask((3, 4), 5)
TIES = np.round(normal((2, 3, 7, 8), 4))                   # several pixels share a maximum
ROW = np.array([2, 0, 2, 2, 1])

OPS = [
    ("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, padding=1), MAPS),
    ("concatenate", lambda x, y: F.concatenate([x, y, x], 1), X, Y),
    ("conv2d", lambda x, w, b: F.conv2d(x, w, b, padding=1), MAPS, normal((4, 5, 3, 3), 6),
     normal(4, 7)),
    ("conv2d", lambda x, w, b: F.conv2d(x, w, b, relu=True), MAPS, normal((4, 5, 3, 3), 6),
     normal(4, 7)),
    ("cross_entropy", lambda x: F.cross_entropy(x, LABELS), X),
    ("cross_entropy", lambda x: F.cross_entropy(x, LABELS), 30 * normal((3, 1000), 8)),
    ("dropout", lambda x: F.dropout(x, 0.3, mask=x.device.array(MASK)), X),
    ("dropout", lambda x: F.dropout(x, 0.3, mask=x.device.array(MASK), scaling="paper"), X),
    ("dropout", lambda x: F.dropout(x, 0.3, training=False, scaling="paper"), X),
    ("exchange", lambda x, y: F.exchange([x, y], to=x.device), X, Y),
    ("exchange", lambda x, y: F.exchange([x, y])[1], MAPS, 2 * MAPS),
    ("exp", F.exp, X),
    ("flatten", F.flatten, MAPS),
    ("linear", F.linear, X, normal((5, 4), 9), normal(5, 10)),
    ("linear", lambda x, w: F.linear(x, w), X, normal((5, 4), 9)),
    ("linear", lambda x, w, b: F.linear(x, w, b, relu=True), X, normal((5, 4), 9), normal(5, 10)),
    ("local_response_norm", lambda x: F.local_response_norm(x, 5, 0.3), MAPS),
    ("local_response_norm", lambda x: F.local_response_norm(x, 2, 0.3, 0.6, 2.0, False), MAPS),
    ("local_response_norm", lambda x: F.local_response_norm(x, 4, 0.3), normal((1, 70, 2, 3), 11)),
    ("log", F.log, np.abs(Y)),
    ("log_softmax", F.log_softmax, X),
    ("matmul", F.matmul, X, normal((4, 2), 12)),
    ("matmul", F.matmul, normal((2, 3, 4), 13), normal((2, 4, 5), 14)),
    ("max_pool2d", lambda x: F.max_pool2d(x, 3, 2), distinct((2, 5, 6, 7), 15)),
    ("max_pool2d", lambda x: F.max_pool2d(x, 3, 2), TIES),
    ("max_pool2d_ties", lambda x: F.max_pool2d_ties(x, 3, 2), TIES),
    ("relu", F.relu, Y),
    ("relu", lambda x: F.relu(x * 2, inplace=True), Y),
    ("reshape", lambda x: F.reshape(x, 2, 6), X),
    ("sigmoid", F.sigmoid, X),
    ("softmax", F.softmax, X),
    ("spatial_response_norm", lambda x: F.spatial_response_norm(x, 3, 0.3), MAPS),
    ("stack", lambda x, y: F.stack([x, y], 1), X, Y),
    ("tanh", F.tanh, X),
    ("transpose", lambda x: F.transpose(x, 1, 0), X),
    ("operators", lambda x, y: (x + y) * (x - y) / y - x * 3 + 2 / y, X, Y),
    ("operators", lambda x, y: x**2 + abs(-1.5) ** x + np.float64(2) - (-y), X, Y),
    ("broadcasting", lambda x, row: x * row + row - x / row, X, Y[0]),
    ("reductions", lambda x: x.sum(1) + x.mean(1) + x.max(1), distinct((3, 4), 16)),
    ("index", lambda x: x[ROW], X),
    ("index", lambda x: x[ROW, [0, 3, 0, 0, 1]], X),
    ("index", lambda x: x[1:, ::2], X),
]
every_op = pytest.mark.parametrize("fn, arrays", [
    pytest.param(fn, arrays, id=f"{name}-{i}") for i, (name, fn, *arrays) in enumerate(OPS)])
dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: dtype.__name__)


def test_no_op_is_forgotten():
    assert set(F.__all__) <= {name for name, *_ in OPS}


@dtypes
@every_op
def test_an_op_gives_the_numbers_of_the_cpu(run, cuda, fn, arrays, dtype):
    assert_like_the_cpu(run, fn, arrays, cuda, dtype)


@dtypes
@every_op
def test_an_op_without_kernels_gives_them_too(run, cuda, fn, arrays, dtype):
    """The lines that both array modules share, which the kernels must agree with."""
    with kernels.off(), ta.conv_algorithm("plain"):
        assert_like_the_cpu(run, fn, arrays, cuda, dtype)


@every_op
def test_an_op_gives_the_same_bits_every_time(run, cuda, fn, arrays):
    arrays = [a.astype(np.float32) for a in arrays]
    first, second = (run(fn, arrays, device=cuda) for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


@pytest.mark.parametrize("layout", strategies.LAYOUTS)
@every_op
def test_an_op_takes_any_layout(run, cuda, fn, arrays, layout):
    """A view of an array on the card, as transpose and slices make them: the same bits."""
    arrays = [a.astype(np.float32) for a in arrays]
    right = run(fn, arrays, device=cuda)
    gy = away_from_zero(right[0].shape, 1, np.float32)
    tensors = [ta.Tensor(laid_out_on(cuda, a, layout), cuda, requires_grad=True) for a in arrays]
    y = fn(*tensors)
    y.backward(laid_out_on(cuda, gy, layout))
    found = [y.detach().numpy()] + [cuda.numpy(t.grad) for t in tensors]
    assert [a.tobytes() for a in found] == [a.tobytes() for a in right]


def laid_out_on(cuda, array, layout):
    """An array of the card that lies as strategies.laid_out has it, where there are such views."""
    with cuda.scope():
        if layout == "F":
            return cuda.array(array.T.copy()).T
        if layout == "channels_last" and array.ndim == 4:
            return cuda.array(array.transpose(0, 2, 3, 1).copy()).transpose(0, 3, 1, 2)
        if layout == "sliced" and array.ndim:
            return cuda.array(np.repeat(array, 2, -1))[..., ::2]
        if layout == "negative" and array.ndim:
            return cuda.array(array[::-1].copy())[::-1]
        return cuda.array(array)


# ---------------------------------------------------------------------------- odd geometry

CONVS = [                                                   # x, w, keywords
    ((2, 3, 10, 11), (4, 3, 3, 3), dict(stride=(2, 3))),                # strides that do not divide
    ((2, 3, 7, 6), (4, 3, 3, 3), dict(padding=((0, 2), (1, 0)))),       # other padding on each side
    ((1, 3, 12, 12), (2, 3, 5, 5), dict(stride=4, ceil_mode=True)),     # the last one hangs over
    ((2, 4, 6, 5), (6, 2, 3, 3), dict(padding=1, groups=2)),
    ((2, 3, 4, 5), (5, 3, 1, 1), dict()),
    ((2, 3, 7, 8), (5, 3, 1, 1), dict(stride=(3, 2), padding=1)),
    ((1, 2, 2, 3), (3, 2, 5, 5), dict(padding=2)),                      # kernel > input
    ((2, 3, 5, 9), (4, 3, 1, 4), dict(stride=(1, 2))),                  # a flat kernel
    ((1, 4, 7, 7), (4, 1, 3, 3), dict(groups=4)),                       # each map by itself
    ((2, 3, 9, 9), (2, 3, 2, 2), dict(stride=3)),                       # pixels that nobody sees
    ((1, 6, 8, 5), (4, 3, 3, 4), dict(stride=(3, 2), padding=((3, 0), (0, 1)), groups=2,
                                      ceil_mode=True)),
    ((1, 2, 4, 5), (3, 2, 4, 5), dict()),                               # a single window
]
POOLS = [                                                   # x, keywords
    ((2, 3, 10, 11), dict(kernel_size=3, stride=(2, 3))),
    ((2, 3, 8, 7), dict(kernel_size=3, stride=2, padding=((0, 1), (1, 0)))),
    ((1, 3, 8, 8), dict(kernel_size=3, stride=2, ceil_mode=True)),
    ((1, 3, 11, 8), dict(kernel_size=4, stride=3, padding=(2, 1), ceil_mode=True)),
    ((2, 3, 4, 5), dict(kernel_size=1)),
    ((2, 3, 5, 7), dict(kernel_size=1, stride=2)),
    ((2, 2, 2, 3), dict(kernel_size=4, stride=2, padding=2)),
    ((2, 2, 1, 1), dict(kernel_size=3, stride=1, padding=1)),
    ((2, 3, 5, 9), dict(kernel_size=(1, 4), stride=(1, 2))),
    ((2, 3, 9, 9), dict(kernel_size=2, stride=3)),
    ((1, 2, 18, 19), dict(kernel_size=17, stride=1)),                   # 289 taps: two bytes
    ((1, 2, 6, 6), dict(kernel_size=6)),
]


@dtypes
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("x, w, how", CONVS)
def test_a_convolution_of_odd_shape(run, cuda, x, w, how, relu, dtype):
    arrays = normal(x, 1), normal(w, 2), normal(w[0], 3)
    assert_like_the_cpu(run, lambda x, w, b: F.conv2d(x, w, b, relu=relu, **how), arrays, cuda,
                        dtype)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_convolution_in_pieces_of_the_batch(run, cuda, monkeypatch, images):
    """A batch of 5 in pieces of so many images each; the last one may be smaller."""
    arrays = normal((5, 4, 6, 5), 1), normal((6, 2, 3, 3), 2), normal(6, 3)
    monkeypatch.setattr(conv_cuda, "COLUMNS", images * (2 * 3 * 3) * (6 * 5))
    assert_like_the_cpu(run, lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2, relu=True),
                        arrays, cuda, np.float64)


@dtypes
@pytest.mark.parametrize("pool", [F.max_pool2d, F.max_pool2d_ties, F.avg_pool2d])
@pytest.mark.parametrize("x, how", POOLS)
def test_a_pool_of_odd_shape(run, cuda, x, how, pool, dtype):
    assert_like_the_cpu(run, lambda x: pool(x, **how), [distinct(x, 1, gap=0.1)], cuda, dtype)


LAYERS = {                                                  # of one tower, at a batch of 2
    "conv1": (lambda x, w, b: F.conv2d(x, w, b, stride=4, ceil_mode=True),
              (2, 3, 224, 224), (48, 3, 11, 11), (48,)),
    "norm1": (lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 2.0, divide_alpha=False),
              (2, 48, 55, 55)),
    "pool1": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), (2, 48, 55, 55)),
    "conv2": (lambda x, w, b: F.conv2d(x, w, b, padding=2),
              (2, 48, 27, 27), (128, 48, 5, 5), (128,)),
    "norm2": (lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 2.0, divide_alpha=False),
              (2, 128, 27, 27)),
    "pool2": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), (2, 128, 27, 27)),
    "conv3": (lambda x, w, b: F.conv2d(x, w, b, padding=1),
              (2, 256, 13, 13), (192, 256, 3, 3), (192,)),
    "conv4": (lambda x, w, b: F.conv2d(x, w, b, padding=1),
              (2, 192, 13, 13), (192, 192, 3, 3), (192,)),
    "conv5": (lambda x, w, b: F.conv2d(x, w, b, padding=1),
              (2, 192, 13, 13), (128, 192, 3, 3), (128,)),
    "pool5": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), (2, 128, 13, 13)),
    "fc6": (F.linear, (2, 9216), (2048, 9216), (2048,)),
    "fc7": (F.linear, (2, 4096), (2048, 4096), (2048,)),
    "fc8": (F.linear, (2, 4096), (1000, 4096), (1000,)),
    "grouped conv2": (lambda x, w, b: F.conv2d(x, w, b, padding=2, groups=2),
                      (2, 96, 27, 27), (256, 48, 5, 5), (256,)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_of_alexnet(run, cuda, layer):
    fn, *shapes = LAYERS[layer]
    values = distinct if "pool" in layer else normal
    assert_like_the_cpu(run, fn, [values(shape, i) for i, shape in enumerate(shapes)], cuda,
                        np.float32)


# ---------------------------------------------------------------------------- what is drawn

def masks(device, seed):
    """Masks of several layers, towers, rows, uses and steps, in the order in which they come."""
    drawn = []
    random.set_state(seed, 2**33)
    for _ in range(2):
        for shape, p, place, part in (
                ((3, 7), 0.5, "drop6", {}), ((3, 7), 0.5, "drop7", {}),
                ((3, 7), 0.5, "drop6", {}),                                     # its second use
                ((5, 6), 0.2, "drop6", dict(units=12, start=0)),
                ((5, 6), 0.2, "drop6", dict(units=12, start=6)),
                ((3, 5), 0.9, "F.dropout", dict(units=11, start=3, first_row=13)),
                ((2, 3, 3, 2), 0.5, "maps", dict(first_row=2**40)),
                ((13, 17), 1 / 3, "net.drop", {}), ((2, 300), 1.0, "silent", {})):
            drawn.append(device.numpy(draw_mask(shape, p, place, device=device, **part)))
        random.next_step()
    return drawn


@pytest.mark.parametrize("seed", [0, 12345, 2**64 - 1])
def test_dropout_draws_the_masks_of_numpy(cuda, seed):
    right, found = masks(ta.Device("cpu:0"), seed), masks(cuda, seed)
    for a, b in zip(found, right, strict=True):
        assert a.dtype == bool and a.shape == b.shape and a.tobytes() == b.tobytes()
    assert len({b.tobytes() for b in right}) == len(right) - 1          # all silent twice


def test_dropout_in_training_is_that_of_numpy(cuda):
    x = normal((5, 13), 1, np.float32)

    def outputs(device):
        ta.manual_seed(3)
        return [F.dropout(ta.Tensor(x, device), 0.4, place="drop6").numpy() for _ in range(3)]

    for a, b in zip(outputs(cuda), outputs("cpu:0"), strict=True):
        assert a.tobytes() == b.tobytes()


VALUES = np.array([14830.0, 1376.0, 389.0])
VECTORS, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))
MEAN = np.random.default_rng(9).uniform(60, 190, (12, 14, 3)).astype(np.float32)
PICTURES = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
            for i, size in enumerate(((12, 14), (12, 12), (8, 30), (5, 5), (12, 14), (20, 9)))]


@pytest.mark.parametrize("mode", ["train", "center", "ten"])
@pytest.mark.parametrize("options", [
    dict(), dict(color_noise=0.1), dict(color_noise=0.1, color_reading="paper", scale=1.0),
    dict(central_mean=True), dict(image_size=13), dict(resize=16, flip=False)], ids=str)
def test_pictures_are_cut_to_the_bits_of_the_cpu(cuda, mode, options):
    settings = dict(image_size=8, mean=MEAN, scale=3.0, eigenvalues=VALUES, eigenvectors=VECTORS)
    augment = Augment(**{**settings, **options})

    def windows(**where):
        if mode == "train":
            return augment.train(PICTURES, random.generator("augment", seed=1), **where)
        return getattr(augment, mode)(PICTURES, **where)

    found, right = windows(device=cuda).on(cuda), windows()
    assert found.device is cuda and found.shape == right.shape
    assert found.numpy().tobytes() == np.ascontiguousarray(right).tobytes()


# ---------------------------------------------------------------------------- training

CLASSES = 4


@pytest.fixture(scope="module")
def pictures():
    """A few batches of the embedded pictures, as bytes that wait: 32 of them in each."""
    shapes = Shapes("train", count=128)
    drawn = [shapes.picture(i) for i in range(128)]
    return [drawn[i:i + 32] for i in range(0, 128, 32)], shapes.labels.reshape(4, 32) % CLASSES


def training(pictures, devices, seed=0, batch=8):
    """Yield (loss, net) of one step of `mini` after the other, without end."""
    ta.manual_seed(seed)
    net = models.mini(CLASSES, devices, image_size=32)
    opt = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    augment = Augment(32, np.full((1, 1, 3), 128), scale=64.0, resize=36)
    step = 0
    while True:
        data, labels = (part[step % 4][:batch] for part in pictures)
        images = augment.train(data, random.generator("augment", step=step), device=devices[0])
        loss = F.cross_entropy(net(images), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        yield loss, net
        step += 1


def trained(pictures, devices, steps, **settings):
    """The losses of so many steps, and the net's state in the end, as NumPy arrays."""
    losses, run = [], training(pictures, devices, **settings)
    for _ in range(steps):
        loss, net = next(run)
        losses.append(loss.device.fetch(loss.data))
    return [loss.result() for loss in losses], net.state_dict()


def assert_same(one, other):
    (losses, state), (other_losses, other_state) = one, other
    assert [a.tobytes() for a in losses] == [a.tobytes() for a in other_losses]
    assert state.keys() == other_state.keys()
    for name, array in state.items():
        assert array.tobytes() == other_state[name].tobytes(), name


def test_training_gives_the_same_bits_every_time(cuda, pictures):
    steps = 20 if real(cuda) else 3
    one, again = (trained(pictures, [cuda], steps) for _ in range(2))
    assert_same(one, again)
    other, _ = trained(pictures, [cuda], 1, seed=1)
    assert other != one[0][:1]


def test_two_towers_on_two_streams_are_two_towers_on_one(cuda_pair, pictures):
    """Whatever an event forgets to order, shows in the last bits sooner or later."""
    steps = 200 if real(cuda_pair[0]) else 10
    assert_same(trained(pictures, cuda_pair, steps), trained(pictures, cuda_pair[:1], steps))


def test_training_follows_the_cpu(cuda, pictures):
    """Sums in another order differ by 1e-7, and each step multiplies the difference a little.
    """
    steps = 50 if real(cuda) else 8
    found, _ = trained(pictures, [cuda], steps)
    right, _ = trained(pictures, ["cpu:0"], steps)
    for step, (a, b) in enumerate(zip(found, right, strict=True)):
        assert abs(a - b) <= 1e-5 * 1.1**step * b, f"step {step}: {a} on the card, {b} on the CPU"


def test_no_memory_is_lost(cuda, pictures):
    settled, steps = (20, 500) if real(cuda) else (8, 20)
    run, sizes = training(pictures, [cuda]), []
    for _ in range(steps):
        loss, _ = next(run)
        sizes.append((cuda.memory()["used_bytes"], cuda.memory()["held_bytes"]))
    assert sizes[settled - 1] == sizes[-1] and sizes[-1][0] > 0
