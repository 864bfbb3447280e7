"""Gradients of many parameters as few long arrays, which is what networks like to carry."""
import numpy as np

NBYTES = 25 << 20        # of a bucket; a parameter that is larger has one of its own


class Bucket:
    """Room for the gradients of some parameters, one after the other in one array.

    Parameters
    ----------
    params : list of Parameter
        Of one device and dtype.
    ranks : int
        The array's length is a multiple of it.

    Attributes
    ----------
    flat : array
    """

    def __init__(self, params, ranks):
        self.params, self.device, self.parts = params, params[0].device, []
        length = sum(p.size for p in params)
        self.flat = self.device.zeros((-(-length // ranks) * ranks,), params[0].dtype)
        self.device.ledger.hold(self.flat)
        start = 0
        for p in params:
            self.parts.append(self.flat[start:start + p.size].reshape(p.shape))
            start += p.size

    def fill(self, share):
        """Take in `share` times the gradients; a missing one, or one of an earlier step, is 0."""
        with self.device.scope():
            for p, part in zip(self.params, self.parts, strict=True):
                if p.grad is None or share == 0:
                    part[...] = 0
                else:
                    self.device.xp.multiply(p.grad, share, out=part)

    def hand_out(self):
        """Make the parts of the array the parameters' gradients."""
        for p, part in zip(self.params, self.parts, strict=True):
            p.grad = part


def buckets(params, ranks, nbytes=NBYTES):
    """Share the parameters that learn out among buckets, in the order of backward.

    Parameters
    ----------
    params : list of Parameter
    ranks : int
    nbytes : int
        What a bucket holds at most, unless it holds one parameter alone.

    Returns
    -------
    list of Bucket

    Examples
    --------
    >>> import tinyalex as ta
    >>> net = ta.nn.Sequential(ta.nn.Linear(10, 20), ta.nn.Linear(20, 3))
    >>> [[p.shape for p in b.params] for b in buckets(list(net.parameters()), 2, nbytes=300)]
    [[(3,), (3, 20)], [(20,)], [(20, 10)]]
    """
    groups, held = [], 0
    for p in [p for p in params if p.requires_grad][::-1]:
        size = p.size * p.dtype.itemsize
        if not groups or held + size > nbytes or p.dtype != groups[-1][0].dtype:
            groups.append([])
            held = 0
        groups[-1].append(p)
        held += size
    return [Bucket(group, ranks) for group in groups]


def checksum(parameter):
    """Return the sum of a parameter's 32-bit words, modulo 2**64: any one bit changes it.

    Examples
    --------
    >>> import tinyalex as ta
    >>> checksum(ta.nn.Parameter(np.array([1.0, 0.0], np.float32))) == 0x3f800000
    True
    """
    device, xp = parameter.device, parameter.device.xp
    with device.scope():
        words = xp.ascontiguousarray(parameter.data).reshape(-1).view(np.uint32)
        return int(device.numpy(xp.asarray(words.sum(dtype=np.uint64))))
