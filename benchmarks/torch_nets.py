"""The nets of tinyalex as a PyTorch user writes them: one device, grouped convolutions, nn modules.

Where there is a choice it is the one of torchvision's own AlexNet, such as ReLU in place. Pictures
that tinyalex's first layer lets hang over the border come here with their zeros on already
(`overhang`): PyTorch spends no time on them.
"""
import torch
from torch import nn
from torch.nn import functional as F

# name: conv1's kernel and stride, maps of conv1 to conv5, units of fc6 and fc7, side after pool5
ALEXNETS = {
    "paper": (11, 4, (96, 256, 384, 384, 256), (4096, 4096), 6),
    "paper-nolrn": (11, 4, (96, 256, 384, 384, 256), (4096, 4096), 6),
    "mini64": (11, 4, (32, 96, 128, 128, 128), (512, 512), 1),
    "mini32": (5, 2, (32, 96, 128, 128, 128), (512, 512), 1),
}
OVERHANG = {"mini64": 3, "mini32": 1}      # zeros right and below; at 227 pixels there are none


class TowerNorm(nn.Module):
    """nn.LocalResponseNorm over the maps of one tower: the reshape is a view.

    With `whole`, over all maps at once: pictures that lie channels-last would be copied by the
    reshape, so PyTorch is spared it there. The result differs at the four maps on the seam.
    """

    def __init__(self, whole=False):
        super().__init__()
        self.whole, self.norm = whole, self.make()

    @staticmethod
    def make():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)   # PyTorch divides alpha by 5

    def forward(self, x):
        if self.whole:
            return self.norm(x)
        n, c, h, w = x.shape
        return self.norm(x.reshape(2 * n, c // 2, h, w)).reshape(n, c, h, w)


class HandWritten(TowerNorm):
    """The same as an expert writes it: five shifted sums, and roots instead of a power."""

    @staticmethod
    def make():
        return five_sums


def five_sums(x):
    """Local response normalization over five maps, beta 0.75, differentiated by autograd."""
    c = x.shape[1]
    squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
    sums = squares[:, 0:c] + squares[:, 1:c + 1]
    for i in (2, 3, 4):
        sums.add_(squares[:, i:c + i])
    root = torch.rsqrt(sums * 1e-4 + 2.0)
    return x * (root * torch.sqrt(root))


class SpatialNorm(nn.Module):
    """The 2012 source's norm within each map, 3 x 3 pixels around each."""

    def forward(self, x):
        mean = F.avg_pool2d(x * x, 3, 1, padding=1)
        return x / (1 + 5e-5 * mean).pow(0.75)


def alexnet(name, variant, classes, dropout):
    """Return the whole AlexNet called `name`; the parameters are named as in the paper."""
    kernel, stride, (m1, m2, m3, m4, m5), (u6, u7), side = ALEXNETS[name]

    def norm(layer):
        if name == "paper-nolrn":
            return {}
        if variant == "handwritten":
            return {layer: HandWritten()}
        return {layer: TowerNorm(whole=variant == "channels_last")}

    def relu():
        return nn.ReLU(inplace=True)

    layers = {
        "conv1": nn.Conv2d(3, m1, kernel, stride), "relu1": relu(), **norm("norm1"),
        "pool1": nn.MaxPool2d(3, 2),
        "conv2": nn.Conv2d(m1, m2, 5, padding=2, groups=2), "relu2": relu(), **norm("norm2"),
        "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(m2, m3, 3, padding=1), "relu3": relu(),
        "conv4": nn.Conv2d(m3, m4, 3, padding=1, groups=2), "relu4": relu(),
        "conv5": nn.Conv2d(m4, m5, 3, padding=1, groups=2), "relu5": relu(),
        "pool5": nn.MaxPool2d(3, 2), "flatten": nn.Flatten(),
        "fc6": nn.Linear(m5 * side**2, u6), "relu6": relu(), "drop6": nn.Dropout(dropout),
        "fc7": nn.Linear(u6, u7), "relu7": relu(), "drop7": nn.Dropout(dropout),
        "fc8": nn.Linear(u7, classes)}
    net = nn.Sequential()
    for layer, module in layers.items():
        net.add_module(layer, module)
    return net


def cifar(name, classes):
    """Return the CIFAR-10 net of 2012 called `name`; the layers stand as tinyalex's do."""
    def conv(maps_in, maps_out):
        return nn.Conv2d(maps_in, maps_out, 5, padding=2)

    def average():
        return nn.AvgPool2d(3, 2, ceil_mode=True)

    def relu():
        return nn.ReLU(inplace=True)

    norm = [SpatialNorm] if name == "18pct" else []
    last = ([nn.Linear(1024, classes)] if name == "18pct"
            else [nn.Linear(1024, 64), relu(), nn.Linear(64, classes)])
    return nn.Sequential(
        conv(3, 32), nn.MaxPool2d(3, 2, ceil_mode=True), relu(), *(n() for n in norm),
        conv(32, 32), relu(), average(), *(n() for n in norm),
        conv(32, 64), relu(), average(), nn.Flatten(), *last)


def build(name, variant, classes, dropout):
    """Return the net called `name` in training mode.

    Parameters
    ----------
    name : {"paper", "paper-nolrn", "mini64", "mini32", "80sec", "18pct"}
    variant : {"default", "channels_last", "handwritten"}
    classes : int
    dropout : float
    """
    if name in ALEXNETS:
        net = alexnet(name, variant, classes, dropout)
    else:
        net = cifar(name, classes)
    return net.to(memory_format=torch.channels_last) if variant == "channels_last" else net


def pictures(images, name, variant):
    """Return the batch (N, H, W, 3) as this side likes it: (N, 3, H, W), contiguous or not."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)                    # (N, 3, H, W)
    zeros = OVERHANG.get(name, 0)
    x = F.pad(x, (0, zeros, 0, zeros))
    order = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    return x.contiguous(memory_format=order)


def groups(net, rates):
    """Return SGD's parameter groups; `rates` holds (learning rate, weight decay) by name."""
    by_rates = {}
    for name, parameter in net.named_parameters():
        by_rates.setdefault(tuple(rates[name]), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay}
            for (lr, decay), params in by_rates.items()]
