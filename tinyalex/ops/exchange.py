"""Crossing between devices: the differentiable copy, and the paper's exchange between towers."""
from ..device import Device, transfer
from ..tensor import Function, Tensor, _common_device
from .shape import Concatenate


class To(Function):
    """y = x, on another device. Paper section 3.5: the towers communicate in certain layers."""

    def __init__(self, device, kind="exchange"):
        self.destination, self.kind = Device(device), kind

    def forward(self, x):
        self.home = self.destination
        return transfer(x, self.device, self.home, self.kind)

    # dy/dx = 1, on the device where x lives: the gradient crosses back

    def backward(self, gy):
        return (transfer(gy, self.home, self.device, self.kind),)


def to(x, device, kind="exchange"):
    """Return the Tensor `x` on `device`; itself where it is there already.

    Parameters
    ----------
    x : Tensor
    device : Device or str
    kind : str
        What the ledgers book the copy (and the gradient's way back) under.

    Examples
    --------
    >>> import tinyalex as ta
    >>> ta.Tensor([1.0]).to("cpu:1").device
    Device('cpu:1')
    """
    device = Device(device)
    return x if x.device is device else To(device, kind)(x)


def exchange(parts, axis=1, to=None):
    """Let every tower see the maps of all: join `parts` on each of their devices.

    Parameters
    ----------
    parts : sequence of Tensor
        One per tower, tower 0 first, each on its own device (or all on one).
    axis : int
        The axis to join: channels of maps, units of a fully-connected layer.
    to : Device or str, optional
        Join on this device alone (fc8 lives on the first).

    Returns
    -------
    list of Tensor, the joined maps on each part's device; or one Tensor where `to` is given.
        On the way back each tower's gradient is the sum of what all devices send it.

    Notes
    -----
    The paper's exchange points: pool2 to conv3, pool5 to fc6, fc6 to fc7, fc7 to fc8 (figure 2).

    Examples
    --------
    >>> import tinyalex as ta
    >>> a, b = ta.Tensor([[1.0]]), ta.Tensor([[2.0]], device="cpu:1")
    >>> [t.device.name for t in ta.functional.exchange([a, b])]
    ['cpu:0', 'cpu:1']
    """
    parts = list(parts)
    for part in parts:
        _common_device("exchange", (part,))
    homes = [part.device for part in parts] if to is None else [Device(to)]
    joined = {}
    for home in homes:
        if home not in joined:
            joined[home] = Concatenate(axis)(*(part.to(home) for part in parts))
    return joined[homes[0]] if to is not None else [joined[home] for home in homes]


Tensor.to = to
Tensor.cpu = lambda self: to(self, "cpu:0")
Tensor.cuda = lambda self, index=0: to(self, f"cuda:{index}")
