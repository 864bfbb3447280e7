"""AlexNet with its two towers, each on a device of its own. Paper sections 3 and 4.2, figure 2.

The two towers are always there in the code. On one device they share it; on two, activations are
copied at the four exchange points, and nowhere else.
"""
from dataclasses import dataclass
from numbers import Integral

from .. import functional as F
from .. import nn
from ..device import Device
from ..ops.geometry import windows
from . import variants


@dataclass(frozen=True)
class Shape:
    """The sizes of an AlexNet, both towers together.

    Attributes
    ----------
    conv1 : (int, int)
        Kernel and stride of the first layer.
    maps : tuple of five int
        Maps out of conv1 .. conv5.
    units : (int, int)
        Units of fc6 and fc7.
    """

    conv1: tuple = (11, 4)
    maps: tuple = (96, 256, 384, 384, 256)
    units: tuple = (4096, 4096)


class Tower(nn.Module):
    """Half of the net: half the maps of every convolution, half the units of fc6 and fc7."""

    def __init__(self, index, shape, variant, image_size, dropout, start, device):
        m1, m2, m3, m4, m5 = (maps // 2 for maps in shape.maps)
        u6, u7 = (units // 2 for units in shape.units)
        self.variant = variant

        def conv(name, maps_in, maps_out, kernel, **geometry):
            return nn.Conv2d(maps_in, maps_out, kernel, device=device, **start(name), **geometry)

        def norm():
            return nn.LocalResponseNorm(**variant.lrn)

        def pool():
            return nn.MaxPool2d(3, 2, ceil_mode=True, ties=variant.ties)

        kernel, stride = shape.conv1
        self.conv1 = conv("conv1", 3, m1, kernel, stride=stride, ceil_mode=True)
        self.norm1, self.pool1 = norm(), pool()
        self.conv2 = conv("conv2", m1, m2, 5, padding=2)
        self.norm2, self.pool2 = norm(), pool()
        if variant.spatial_norm:
            self.spatial2 = nn.SpatialResponseNorm(**variant.spatial_norm)
        self.conv3 = conv("conv3", 2 * m2, m3, 3, padding=1)           # sees both towers
        self.conv4 = conv("conv4", m3, m4, 3, padding=1)
        self.conv5 = conv("conv5", m4, m5, 3, padding=1)
        self.pool5 = pool()
        side = last_side(image_size, shape)
        self.fc6 = nn.Linear(2 * m5 * side**2, u6, device=device, **start("fc6"))
        self.drop6 = nn.Dropout(dropout, "paper", "drop6", 2 * u6, index * u6)
        self.fc7 = nn.Linear(2 * u6, u7, device=device, **start("fc7"))
        self.drop7 = nn.Dropout(dropout, "paper", "drop7", 2 * u7, index * u7)

    @property
    def device(self):
        """Where this tower's parameters live."""
        return self.conv1.weight.device

    def conv1_to_pool2(self, x):                                       # (N, 3, 224, 224)
        """The picture to this tower's maps of pool2."""
        x = self.conv1(x)                                              # (N, 48, 55, 55)
        if self.variant.norm1_before_relu:
            x = F.relu(self.pool1(self.norm1(x)))                      # (N, 48, 27, 27)
        else:
            x = self.pool1(self.norm1(F.relu(x)))                      # (N, 48, 27, 27)
        x = self.norm2(F.relu(self.conv2(x)))                          # (N, 128, 27, 27)
        if self.variant.spatial_norm:
            x = self.spatial2(x)
        return self.pool2(x)                                           # (N, 128, 13, 13)

    def conv3_to_pool5(self, x):                                       # (N, 128 + 128, 13, 13)
        """Both towers' maps of pool2 to this tower's maps of pool5."""
        x = F.relu(self.conv3(x))                                      # (N, 192, 13, 13)
        x = F.relu(self.conv4(x))                                      # (N, 192, 13, 13)
        x = F.relu(self.conv5(x))                                      # (N, 128, 13, 13)
        return self.pool5(x)                                           # (N, 128, 6, 6)

    def fully6(self, x):                                               # (N, 128 + 128, 6, 6)
        """Both towers' maps of pool5 to this tower's units of fc6."""
        return self.drop6(F.relu(self.fc6(F.flatten(x))))              # (N, 2048)

    def fully7(self, x):                                               # (N, 2048 + 2048)
        """Both towers' units of fc6 to this tower's units of fc7."""
        return self.drop7(F.relu(self.fc7(x)))                         # (N, 2048)


class AlexNet(nn.Module):
    """The net of 2012. Use :func:`alexnet` or :func:`mini` to build one.

    Parameters
    ----------
    variant : Variant
    shape : Shape
    num_classes, image_size : int
    devices : sequence of one or two Device or str
    dropout : float
    start : callable
        From a layer's name to its ``init`` and ``bias_init``.
    """

    def __init__(self, variant, shape, num_classes, image_size, devices, dropout, start):
        if not isinstance(num_classes, Integral) or num_classes < 2:
            raise ValueError(f"num_classes: got {num_classes!r}; expected an integer >= 2")
        if isinstance(devices, (str, Device)):
            devices = (devices,)
        devices = tuple(Device(d) for d in devices)
        if len(devices) not in (1, 2):
            raise ValueError(f"devices: got {len(devices)}; the net has two towers, so name one "
                             "device or two")
        last_side(image_size, shape)             # teach before anything large is made
        self.variant, self.image_size, self.num_classes = variant, int(image_size), int(num_classes)
        self.towers = nn.ModuleList([
            Tower(t, shape, variant, image_size, dropout, start, device)
            for t, device in enumerate((devices[0], devices[-1]))])
        self.fc8 = nn.Linear(shape.units[1], num_classes, device=devices[0], **start("fc8"))

    @property
    def devices(self):
        """The device of each tower, also after ``to()``."""
        return tuple(tower.device for tower in self.towers)

    def forward(self, images):
        """Return the logits (N, num_classes), on the first device, of images (N, 3, S, S)."""
        shape, size = tuple(getattr(images, "shape", ())), self.image_size
        if len(shape) != 4 or shape[1:] != (3, size, size):
            raise ValueError(f"AlexNet: images have shape {shape}; expected (N, 3, {size}, {size})")
        a, b = self.towers
        maps = [a.conv1_to_pool2(nn.as_input(images, a.device)),
                b.conv1_to_pool2(nn.as_input(images, b.device))]
        both_a, both_b = F.exchange(maps)                              # pool2 -> conv3
        maps = [a.conv3_to_pool5(both_a), b.conv3_to_pool5(both_b)]
        both_a, both_b = F.exchange(maps)                              # pool5 -> fc6
        units = [a.fully6(both_a), b.fully6(both_b)]
        both_a, both_b = F.exchange(units)                             # fc6 -> fc7
        units = [a.fully7(both_a), b.fully7(both_b)]
        return self.fc8(F.exchange(units, to=self.fc8.weight.device))  # fc7 -> fc8


def last_side(image_size, shape):
    """Return the side of pool5's maps, or say that the picture is too small."""
    if not isinstance(image_size, Integral) or image_size < 1:
        raise ValueError(f"image_size: got {image_size!r}; expected a positive integer")
    kernel, stride = shape.conv1
    side = windows(image_size, kernel, stride, 0, 0, ceil_mode=True)   # 55
    for _ in range(3):                                                 # 27, 13, 6
        side = windows(side, 3, 2, 0, 0, ceil_mode=True)
    if side < 1:
        raise ValueError(f"image_size: {image_size} leaves nothing after three pools; conv1 is "
                         f"{kernel}x{kernel}, {stride} apart")
    return side


def alexnet(variant="paper", num_classes=1000, devices=("cpu:0",), image_size=224, dropout=0.5,
            init="variant"):
    """Build AlexNet, 60,965,224 parameters for 1000 classes.

    Parameters
    ----------
    variant : {"paper", "source2012"}
        What the text says, or what the released code of that very net does: docs/variants.md.
    num_classes : int
    devices : one or two of Device or str
        One tower each; fc8 is on the first.
    image_size : int
        224 (the last window of conv1 hangs over by 3 pixels, as in the source) or 227.
    dropout : float
        Probability of silence in fc6 and fc7.
    init : {"variant", "he"}
        How weights start: as the variant has it, or at N(0, sqrt(2 / fan-in)) with biases at 0,
        which wants pixels divided by about 64. The first is made for a million pictures and stays
        on its plateau for long; the second leaves it even on a hundred.

    Returns
    -------
    AlexNet

    Raises
    ------
    ValueError, BackendUnavailable

    Examples
    --------
    >>> from tinyalex import models
    >>> net = models.alexnet(num_classes=10, devices=("cpu:0", "cpu:1"))
    >>> net.towers[1].conv2.weight.shape, net.towers[1].conv2.weight.device
    ((128, 48, 5, 5), Device('cpu:1'))
    """
    chosen = variants.find(variant)
    if init not in ("variant", "he"):
        raise ValueError(f"init: got {init!r}; choose 'variant' or 'he'")

    def start(name):        # "the constant 1" feeds the ReLUs positive inputs early (section 5)
        if init == "he":
            return {}                      # nn.Conv2d's and nn.Linear's own
        std = chosen.weight_std.get(name, chosen.weight_std["other"])
        ones = ("conv2", "conv4", "conv5", "fc6", "fc7")
        return {"init": nn.init.normal(std), "bias_init": 1.0 if name in ones else 0.0}

    return AlexNet(chosen, Shape(), num_classes, image_size, devices, dropout, start)


MINI = {67: (11, 4), 64: (11, 4), 32: (5, 2)}    # conv1 of each input size: always 15x15 maps


def mini(num_classes=16, devices=("cpu:0",), image_size=67, variant="paper", dropout=0.5):
    """Build AlexNet's whole graph made small, for pictures of 67, 64 or 32 pixels.

    Parameters
    ----------
    num_classes : int
    devices : one or two of Device or str
    image_size : {67, 64, 32}
    variant : {"paper", "source2012"}
    dropout : float

    Returns
    -------
    AlexNet with 32-96-128-128-128 maps and 512-512 units.

    Notes
    -----
    N(0, 0.01) in every layer fits the paper's fan-ins: a net this small never leaves its plateau
    with it. Here conv1 starts at N(0, 0.01), other weights at N(0, sqrt(2 / fan-in)), biases at 0,
    and the recipe divides pixels by 64. A small start lets conv1's filters show what they learned.

    Examples
    --------
    >>> from tinyalex import models
    >>> sum(p.size for p in models.mini().parameters())
    645488
    """
    if image_size not in MINI:
        raise ValueError(f"mini: image_size is {image_size!r}; expected one of {list(MINI)}")
    shape = Shape(MINI[image_size], (32, 96, 128, 128, 128), (512, 512))

    def start(name):
        return {"init": nn.init.normal(0.01) if name == "conv1" else nn.init.he, "bias_init": 0.0}

    return AlexNet(variants.find(variant), shape, num_classes, image_size, devices, dropout, start)
