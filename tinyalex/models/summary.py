"""What a net costs: parameters, multiply-adds and bytes, layer by layer, as one picture shows."""
import math
from dataclasses import dataclass

import numpy as np

from ..graph import no_grad
from ..nn import Conv2d, Linear
from ..tensor import Tensor

COLUMNS = (("layer", "layer", "<"), ("device", "device", "<"), ("output", "output", "<"),
           ("parameters", "parameters", ">"), ("macs", "FLOP", ">"),
           ("activation_bytes", "act MB", ">"), ("im2col_bytes", "im2col MB", ">"),
           ("bytes_in", "bytes in", ">"))


@dataclass(frozen=True)
class Summary:
    """Rows of plain values, one per layer, and their totals; ``str()`` is the table.

    Attributes
    ----------
    rows : list of dict
        ``layer, device, output`` (shape of one picture's output), ``parameters, neurons, macs``
        (multiply-adds forward; FLOP are twice as many), ``activation_bytes, im2col_bytes,
        bytes_in`` (what crossed to the device before the layer, forward; backward the same bytes
        cross the other way). All of them are for one picture, in float32.
    total : dict
        The sums of the numbers; a parameter that several layers share counts once.
    """

    rows: list
    total: dict

    def __str__(self):
        cells = [[_cell(row, key) for key, _, _ in COLUMNS] for row in self.rows]
        cells.append([_cell({"layer": "total", **self.total}, key) for key, _, _ in COLUMNS])
        heads = [head for _, head, _ in COLUMNS]
        width = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
        lines = ["  ".join(f"{text:{side}{w}}" for text, w, (_, _, side) in
                           zip(line, width, COLUMNS, strict=True)).rstrip()
                 for line in [heads, *cells]]
        rule = "-" * max(map(len, lines))
        t = self.total
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "",
                          f"{t['parameters']:,} parameters, {t['neurons']:,} neurons, "
                          f"{t['macs']:,} multiply-adds per picture forward",
                          f"{t['bytes_in']:,} bytes cross between devices per picture forward, "
                          "and the same backward"])

    def memory(self, batch_size, devices=None):
        """Return about how many bytes a training step of `batch_size` pictures holds.

        Weights, gradients and velocities; every activation and its gradient. `devices` are the
        names of those that count; all where None.
        """
        fixed, each = self._bytes(devices)
        return fixed + batch_size * each

    def fits(self, nbytes, devices=None):
        """Return the largest batch whose training step holds no more than about `nbytes`.

        It is 0 where not even one picture fits.

        Examples
        --------
        >>> from tinyalex import models
        >>> table = models.summary(models.mini())
        >>> table.fits(table.memory(128))
        128
        """
        fixed, each = self._bytes(devices)
        return max(0, int(nbytes - fixed) // max(each, 1))

    def _bytes(self, devices):
        """Return what a training step holds once, and what for each picture."""
        total = self.total
        if devices is not None:
            rows = [row for row in self.rows if row["device"] in devices]
            total = {key: sum(row[key] for row in rows) for key in total}
        return 12 * total["parameters"], 2 * total["activation_bytes"]


def _cell(row, key):
    value = row.get(key, "")
    if key == "output" and value:
        return "x".join(map(str, value))
    if key == "macs":
        return f"{2 * value:,}" if value else ""
    if key.endswith("_bytes"):
        return f"{value / 2**20:.2f}" if value else ""
    return f"{value:,}" if isinstance(value, int) and value else str(value or "")


def summary(net, image_size=None):
    """Run one blank picture through `net` and note what each layer costs.

    Parameters
    ----------
    net : Module
    image_size : int, optional
        ``net.image_size`` where None, else 32.

    Returns
    -------
    Summary

    Examples
    --------
    >>> from tinyalex import models
    >>> table = models.summary(models.mini())
    >>> table.total["parameters"]
    645488
    """
    size = image_size or getattr(net, "image_size", 32)
    rows, removers, seen = [], [], {}
    for path, module in net.named_modules():
        if not any(True for _ in module.children()):
            recorder = _recorder(path or type(net).__name__, rows, seen)
            removers.append(module.register_forward_hook(recorder))
    first = next(net.parameters(), Tensor(0.0))
    blank = Tensor(np.zeros((1, 3, size, size), first.dtype), first.device)
    training = [m for m in net.modules() if m.training]
    net.eval()
    try:
        seen.update(_arrivals(p.device for p in net.parameters()))
        with no_grad():
            net(blank)
    finally:
        for module in training:
            module.training = True
        for remove in removers:
            remove()
    keys = ("parameters", "neurons", "macs", "activation_bytes", "im2col_bytes", "bytes_in")
    total = {key: sum(row[key] for row in rows) for key in keys}
    return Summary(rows, total | {"parameters": sum(p.size for p in net.parameters())})


def _arrivals(devices):
    """Return, per device, the bytes that exchanges have brought there so far."""
    return {d: sum(n for (_, kind), n in d.ledger.bytes.items() if kind == "exchange")
            for d in set(devices)}


def _recorder(path, rows, seen):
    """Return a hook that appends this layer's row."""
    def record(module, inputs, output):
        device, shape = output.device, tuple(output.shape[1:])
        now = _arrivals([device])[device]
        per_output = im2col = 0
        if isinstance(module, Conv2d):
            per_output = math.prod(module.weight.shape[1:])
            im2col = 4 * module.in_channels * math.prod(module.kernel_size) * math.prod(shape[1:])
        elif isinstance(module, Linear):
            per_output = module.in_features
        rows.append({
            "layer": path, "device": device.name, "output": shape,
            "parameters": sum(p.size for p in module.parameters()),
            "neurons": math.prod(shape) if per_output else 0,
            "macs": per_output * math.prod(shape),
            "activation_bytes": 4 * math.prod(shape), "im2col_bytes": im2col,
            "bytes_in": (now - seen.get(device, 0)) * 4 // output.dtype.itemsize})
        seen[device] = now
    return record
