"""The CIFAR-10 nets of 2012, named after how long they took or how often they erred.

Raw 0..255 pixels minus their mean, batches of 128; every pool is 3x3, 2 apart, clipped.
"""
from .. import nn


def _conv(maps_in, maps_out, std):
    return nn.Conv2d(maps_in, maps_out, 5, padding=2, init=nn.init.normal(std))


def _linear(units_in, units_out, std, decay):
    layer = nn.Linear(units_in, units_out, init=nn.init.normal(std))
    layer.weight.weight_decay = decay       # the last layers decay far more than the convolutions
    return layer


def _max():
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _avg():
    return nn.AvgPool2d(3, 2, ceil_mode=True)


def quick_80sec(num_classes=10, device="cpu:0"):
    """Build the net that reached 26 % error in 80 seconds on a GTX 580: 145,578 parameters.

    >>> from tinyalex import models
    >>> sum(p.size for p in models.quick_80sec().parameters())
    145578
    """
    return nn.Sequential(                                              # (N, 3, 32, 32)
        _conv(3, 32, 1e-4), _max(), nn.ReLU(),                         # (N, 32, 16, 16)
        _conv(32, 32, 0.01), nn.ReLU(), _avg(),                        # (N, 32, 8, 8)
        _conv(32, 64, 0.01), nn.ReLU(), _avg(),                        # (N, 64, 4, 4)
        nn.Flatten(), _linear(1024, 64, 0.1, decay=0.03), nn.ReLU(),       # (N, 64)
        _linear(64, num_classes, 0.1, decay=0.03)).to(device)


def rnorm_18pct(num_classes=10, device="cpu:0"):
    """Build the net that reached 18 % error in 20 minutes: within-map norms, 89,578 parameters.

    >>> from tinyalex import models
    >>> sum(p.size for p in models.rnorm_18pct().parameters())
    89578
    """
    def norm():
        return nn.SpatialResponseNorm(3, alpha=5e-5)

    return nn.Sequential(                                              # (N, 3, 32, 32)
        _conv(3, 32, 1e-4), _max(), nn.ReLU(), norm(),                 # (N, 32, 16, 16)
        _conv(32, 32, 0.01), nn.ReLU(), _avg(), norm(),                # (N, 32, 8, 8)
        _conv(32, 64, 0.01), nn.ReLU(), _avg(),                        # (N, 64, 4, 4)
        nn.Flatten(), _linear(1024, num_classes, 0.01, decay=1.0)).to(device)
