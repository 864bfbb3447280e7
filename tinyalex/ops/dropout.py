"""Dropout: each unit is silent with probability p while training. Paper section 4.2."""
import numbers

import numpy as np

from .. import random
from ..device import Device
from ..kernels import launch, on
from ..tensor import Function, _common_device


class Dropout(Function):
    """y = scale * mask * x, with mask 0 or 1 per unit (None: all 1)."""

    def __init__(self, mask, scale):
        self.mask, self.scale = mask, scale

    def forward(self, x):
        mask, self.mask = self.mask, None       # what is saved is freed in backward
        self.save(mask)
        y = x * self.scale if self.scale != 1 else x
        return y if mask is None else y * mask

    # dL/dx = scale * mask * dL/dy: a silent unit hears nothing either

    def backward(self, gy):
        (mask,) = self.saved
        gx = gy * self.scale if self.scale != 1 else gy
        return (gx if mask is None else gx * mask,)


def draw_mask(shape, p, place="", *, units=None, start=0, first_row=None, device="cpu:0"):
    """Return a mask (a boolean array on `device`) of `shape`, True with probability 1 - p.

    It is a function of (seed, step, use, place, row, unit): the same on any device, in any number
    of towers or machines.

    Parameters
    ----------
    shape : tuple, (N, ...)
        Rows and the units of one row.
    p : float
        The probability of silence.
    place : str
        The layer's name.
    units, start : int
        Where this is one tower's part of a joined layer: units of the whole, and where it starts.
    first_row : int, optional
        The place of row 0 in the global batch. Where None, each row's is what
        :func:`tinyalex.random.rows_at` says.
    device : Device or str
        A GPU draws by itself, and gets the same bits.
    """
    rows, own, device = shape[0], 1, Device(device)
    if first_row is None:
        places = random.places(rows)
        first, end = (int(places[0]), int(places[-1]) + 1) if rows else (0, 0)
        mask = draw_mask((end - first, *shape[1:]), p, place, units=units, start=start,
                         first_row=first, device=device)
        if end - first == rows:
            return mask
        with device.scope():                  # some rows are missing: broken pictures
            return mask[device.array(places - first)]
    for extent in shape[1:]:
        own *= extent
    use = random.next_use(("dropout", place, start, first_row))
    units, threshold = units or own, round(p * 2**32)
    if on(device):
        mask = device.empty(shape, np.uint8)
        numbers = (*random.key("dropout", place), use, random.get_state()["step"], threshold,
                   first_row, units, start)
        with device.scope():
            launch(device, "dropout.draw_mask", mask.size, mask, *map(np.uint64, numbers), own)
            return mask.view(bool)
    words = random.bits("dropout", place, rows, units, use=use, first_row=first_row)
    return device.array((words[:, start:start + own] >= threshold).reshape(shape))


def dropout(x, p=0.5, training=True, mask=None, scaling="inverted", place="F.dropout", **part):
    """Silence units at random while training.

    Parameters
    ----------
    x : Tensor, (N, ...)
    p : float
        The probability that a unit is silent, 0 to 1.
    training : bool
    mask : boolean array of x's shape, optional
        Which units speak; drawn from the counter-based generator where None.
    scaling : {"inverted", "paper"}
        "inverted" divides by 1 - p in training and leaves testing alone, as PyTorch; "paper"
        multiplies by 1 - p in testing and leaves training alone (section 4.2).
    place : str
        The layer's name, part of what the mask is a function of.
    **part
        ``units``, ``start``, ``first_row`` of :func:`tinyalex.ops.dropout.draw_mask`.

    Returns
    -------
    Tensor of x's shape

    Raises
    ------
    ValueError
        If `p`, `scaling`, or the dtype or shape of `mask` is wrong.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> x = ta.Tensor([[1.0, 2.0]])
    >>> ta.functional.dropout(x, 0.5, mask=np.array([[True, False]])).data.tolist()
    [[2.0, 0.0]]
    >>> ta.functional.dropout(x, 0.5, training=False, scaling="paper").data.tolist()
    [[0.5, 1.0]]
    """
    _common_device("dropout", (x,))
    if not isinstance(p, numbers.Real) or not 0 <= p <= 1:
        raise ValueError(f"dropout: p is {p!r}; expected a probability from 0 to 1")
    if scaling not in ("inverted", "paper"):
        raise ValueError(f"dropout: scaling is {scaling!r}; expected 'inverted' or 'paper'")
    if mask is not None and (getattr(mask, "dtype", None) != bool or mask.shape != x.shape):
        got = f"{getattr(mask, 'dtype', type(mask).__name__)} {getattr(mask, 'shape', '')}"
        raise ValueError(f"dropout: mask is {got.strip()}; expected a boolean array {x.shape}")
    if not training:
        return Dropout(None, 1 - p)(x) if scaling == "paper" and p else x
    if mask is None and p == 0:
        return x
    if mask is None:
        mask = draw_mask(x.shape, p, place, device=x.device, **part)
    scale = 1 / (1 - p) if scaling == "inverted" and p < 1 else 1
    return Dropout(x.device.array(mask), scale)(x)
