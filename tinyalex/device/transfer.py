"""The only path between two devices. Every arrival is counted in the ledger of its destination."""
import numpy as np

from . import cuda
from .core import Device


def transfer(array, src, dst, kind="exchange"):
    """Return `array`, which lives on `src`, as an array of `dst`.

    Between two different devices the result is always new memory, also between ``cpu:0`` and
    ``cpu:1`` and between a GPU and its alias: what is tested on a laptop holds on two cards.
    The memory order is kept where both devices favor the same one.

    Parameters
    ----------
    array : array of `src`, any shape
    src, dst : Device or str
    kind : str
        What the copy is for: ``"exchange"`` between towers, ``"input"`` for images, ...;
        ``dst.ledger`` books copies and bytes under ``(src.name, kind)``.

    Returns
    -------
    array of `dst`, same shape and dtype; `array` itself when ``src`` is ``dst``.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> a = np.ones(3, np.float32)
    >>> b = ta.transfer(a, "cpu:0", "cpu:1")
    >>> b is a, b.tolist()
    (False, [1.0, 1.0, 1.0])
    """
    src, dst = Device(src), Device(dst)
    if src is dst:
        return array
    dst.ledger.count(src.name, kind, array.nbytes)
    if src.kind == dst.kind == "cpu":
        return np.array(array, order="K")
    return cuda.copy(array, src, dst)
