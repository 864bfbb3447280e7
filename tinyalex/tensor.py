"""Tensor and Function: what a reader of the engine meets. It knows no op.

A Function is an op and, once applied, a node of the graph; a Tensor is an array on a device that
may hold a node. ``ops/`` attaches the operators, so no arrow runs upward.
"""
import numpy as np

from .device import Device, DeviceMismatch
from .graph import Accumulator, check_finite, mode, numbers, refuse_gradients, walk


class Function:
    """One op: arrays in, an array out, and its hand-derived gradient beneath.

    Subclasses define ``forward(*arrays)``, which calls ``self.save(...)`` with what backward needs
    and nothing else, and ``backward(gy)``, which returns one array (or None) per input. Inside,
    ``self.xp`` is the array module, ``self.device`` the device, ``self.needs_grad[i]`` tells
    whether input ``i`` wants a gradient and ``self.saved`` holds what was saved.

    Examples
    --------
    >>> import tinyalex as ta
    >>> class Square(ta.Function):
    ...     def forward(self, x):
    ...         self.save(x)
    ...         return x * x
    ...     # dL/dx = dL/dy * 2x
    ...     def backward(self, gy):
    ...         (x,) = self.saved
    ...         return (gy * 2 * x,)
    >>> x = ta.Tensor([3.0], requires_grad=True)
    >>> Square()(x).backward()
    >>> float(x.grad[0])
    6.0
    """

    device, grad, keep, own, in_place, saved, versions = None, None, False, False, False, (), ()

    def __call__(self, *tensors):
        """Apply the op to tensors (None for an absent one) of one device and one dtype."""
        if self.device is not None:
            raise RuntimeError(f"{self}: this object is a node of the graph already; make a new "
                               "one for each call")
        self.module = mode.modules[-1] if mode.modules else ""
        self.device = self.home = device = _common_device(self, tensors)   # home: of the result
        self.xp = device.xp
        arrays, self.parents, self.needs_grad = [], [], []
        for t in tensors:
            arrays.append(None if t is None else t.data)
            self.parents.append(None if t is None else t.node)
            self.needs_grad.append(self.parents[-1] is not None)
        self.recording = mode.recording and True in self.needs_grad
        if self.recording:
            self.number = next(numbers)
            self.shapes = [None if a is None else a.shape for a in arrays]
        with device.scope():
            y = self.forward(*arrays)
        if mode.anomaly:
            check_finite(self, "forward", self.home, (y,))
        node = self if self.recording else None
        if self.in_place:                  # the same Tensor, now one node further down
            tensors[0].node = node or tensors[0].node
            return tensors[0]
        return Tensor._of(y, self.home, node)

    def save(self, *arrays):
        """Keep `arrays` for backward, and note how often each was overwritten until now."""
        if self.recording:
            self.saved, self.versions = arrays, []
            for a in arrays:
                if isinstance(a, self.xp.ndarray):
                    held = self.device.ledger.hold(a)
                    self.versions.append((held, held.version))

    def overwrite(self, x):
        """Announce that forward writes its result over its input `x`; refuse where that harms."""
        held, producer = self.device.ledger.hold(x), self.parents[0]
        if self.recording and isinstance(producer, Accumulator):
            raise RuntimeError(f"{self}: inplace=True would lose the value of a leaf; "
                               "use inplace=False")
        if isinstance(producer, Function) and any(h is held for h, _ in producer.versions):
            raise RuntimeError(f"{self}: inplace=True, but {producer} needs its own output in "
                               "backward; use inplace=False")
        if self.recording and producer is not None and producer.number != held.maker:
            raise RuntimeError(f"{self}: inplace=True, but what {producer} returned is a view and "
                               "another Tensor would change with it; use inplace=False")
        held.version += 1
        self.in_place = True

    def run_backward(self, gy):
        """Return the gradients of the inputs, their number and shapes checked."""
        if self.parents is None:
            raise RuntimeError(f"backward: an earlier backward() has already freed the graph at "
                               f"{self}; pass retain_graph=True to that one to walk it twice")
        if [held for held, version in self.versions if held.version != version]:
            raise RuntimeError(f"backward: what {self} saved was overwritten afterwards by an op "
                               "with inplace=True; use inplace=False there, and opt.step() last")
        with self.device.scope():
            gxs = self.backward(gy)
            if not isinstance(gxs, (tuple, list)):
                raise TypeError(f"{self}.backward returned {type(gxs).__name__}; expected a tuple "
                                "of one gradient (or None) per input")
            gxs = [g if g is None else self.xp.asarray(g) for g in gxs]   # NumPy's sums are numbers
        if mode.anomaly:
            check_finite(self, "backward", self.device, gxs)
        fits = len(gxs) == len(self.shapes)
        for gx, shape in zip(gxs, self.shapes):
            fits = fits and (gx is None or gx.shape == shape and gx.dtype == gy.dtype)
        if not fits:
            refuse_gradients(self, gxs, gy.dtype)
        return gxs

    def release(self):
        """Let go of the saved arrays and of the way down, so that memory is freed at once."""
        self.saved, self.versions, self.parents = (), (), None

    def __str__(self):
        return type(self).__name__ + (f" in module {self.module}" if self.module else "")


def _common_device(op, tensors):
    """Return the device of all inputs, or teach; nothing has touched memory yet."""
    first = odd = None
    for t in tensors:
        if t is None:
            continue
        if not isinstance(t, Tensor):
            kind = type(t).__name__
            raise TypeError(f"{op}: got a plain {kind}; expected a Tensor: wrap it, "
                            f"ta.Tensor({'array' if kind == 'ndarray' else 'value'}, device=...)")
        if first is None:
            first = t
        elif odd is None and (t.device is not first.device or t.data.dtype != first.data.dtype):
            odd = t
    if first is None:
        raise TypeError(f"{op}: needs at least one Tensor")
    if odd is None:
        return first.device
    if odd.device is not first.device:
        names = ", ".join(f"{t.device.name} {t.shape}" for t in tensors if t is not None)
        raise DeviceMismatch(f"{op}: inputs live on several devices: {names}; move one of them "
                             f"first, for example x.to('{first.device.name}')")
    raise TypeError(f"{op}: inputs have dtypes {first.dtype} and {odd.dtype}; convert one first, "
                    "for example array.astype('float32') (or a whole net: net.double())")


class Tensor:
    """An array on a device, with a place in the graph where gradients are wanted.

    Parameters
    ----------
    array : array, number or nested list
        A float32 or float64 array is adopted as it is; numbers and lists become float32.
    device : Device or str
        Where it lives; a NumPy array given for a GPU is copied there.
    requires_grad : bool
        Whether ``backward()`` shall leave a gradient in ``.grad``.

    Attributes
    ----------
    data : array
        The values: a NumPy array, or a CuPy array on a GPU.
    grad : array or None
        A plain array on the same device; of leaves, and of others after ``retain_grad()``.
    shape, dtype, ndim, size, device, requires_grad, is_leaf : as PyTorch's

    Raises
    ------
    TypeError
        If `array` holds no floats: labels and uint8 pictures stay plain arrays.

    Examples
    --------
    >>> import tinyalex as ta
    >>> x = ta.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 4.0, 6.0]
    """

    __slots__ = ("__weakref__", "data", "device", "node")

    def __init__(self, array, device="cpu:0", requires_grad=False):
        self.device = device = Device(device)
        if isinstance(array, Tensor):
            raise TypeError("Tensor: got a Tensor; use x.detach() or x.to(device)")
        if not hasattr(array, "dtype") or np.isscalar(array):
            array = np.asarray(array)
            array = array.astype(np.float32) if array.dtype.kind in "biuf" else array
        if array.dtype.name not in ("float32", "float64"):
            raise TypeError(f"Tensor: got dtype {array.dtype}; expected float32 or float64 "
                            "(labels and uint8 pictures stay plain arrays)")
        self.data = device.array(array)
        device.ledger.hold(self.data)
        self.node = Accumulator(device) if requires_grad else None

    @classmethod
    def _of(cls, array, device, node):
        tensor = object.__new__(Tensor)
        tensor.data = array if isinstance(array, device.xp.ndarray) else device.xp.asarray(array)
        tensor.device, tensor.node = device, node
        device.ledger.hold(tensor.data, node and node.number)
        return tensor

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    requires_grad = property(lambda self: self.node is not None)
    is_leaf = property(lambda self: not isinstance(self.node, Function))

    @property
    def grad(self):
        return None if self.node is None else self.node.grad

    @grad.setter
    def grad(self, value):
        if self.node is None:
            raise RuntimeError("grad: this Tensor has requires_grad=False")
        value = np.asarray(value) if np.isscalar(value) else value
        self.node.grad = None if value is None else self._fitting("grad", value)
        self.node.own = False

    def requires_grad_(self, flag=True):
        """Turn the wish for a gradient on or off; only a leaf can do so. Returns the Tensor."""
        if not self.is_leaf:
            raise RuntimeError("requires_grad_: only leaves; use x.detach() to cut the graph")
        if flag != self.requires_grad:
            self.node = Accumulator(self.device) if flag else None
        return self

    def retain_grad(self):
        """Let ``backward()`` leave the gradient of this result in ``.grad`` too."""
        if self.node is None:
            raise RuntimeError("retain_grad: this Tensor has requires_grad=False")
        self.node.keep = True

    def detach(self):
        """Return the same array as a leaf without a graph."""
        return Tensor._of(self.data, self.device, None)

    def numpy(self):
        """Return the values as a NumPy array; detach first where a gradient is wanted."""
        if self.requires_grad:
            raise RuntimeError("numpy: this Tensor wants a gradient; use x.detach().numpy()")
        return self.device.numpy(self.data)

    def item(self):
        """Return the one value of a one-element Tensor as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: needs a Tensor of one element; got shape {self.shape}")
        return self.device.numpy(self.data).item()

    def backward(self, gradient=None, retain_graph=False):
        """Send a gradient down the graph; leaves add what reaches them to ``.grad``.

        Parameters
        ----------
        gradient : array of this Tensor's shape, dtype and device, optional
            dL/d(this Tensor); 1 for a scalar where None.
        retain_graph : bool
            Keep saved arrays, so that the same graph can be walked again.

        Raises
        ------
        RuntimeError
            Without a graph, through a freed one, or from several elements without `gradient`.
        """
        if self.node is None:
            raise RuntimeError("backward: this Tensor has no graph; build it from Tensors with "
                               "requires_grad=True and outside no_grad()")
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(f"backward: shape {self.shape} is no scalar; pass its gradient, "
                                   "or reduce first with .sum() or .mean()")
            with self.device.scope():
                gradient = self.device.xp.ones_like(self.data)
        walk(self.node, self._fitting("backward", gradient), retain_graph)

    def _fitting(self, name, gradient):
        if not isinstance(gradient, self.device.xp.ndarray) or gradient.shape != self.shape \
                or gradient.dtype != self.dtype:
            got = f"{type(gradient).__name__} {getattr(gradient, 'shape', '')}"
            raise TypeError(f"{name}: gradient is {got} {getattr(gradient, 'dtype', '')}; expected "
                            f"an array {self.shape} {self.dtype} on {self.device.name}")
        return gradient

    def __repr__(self):
        values = np.array2string(self.device.numpy(self.data), precision=4, separator=", ",
                                 threshold=20, prefix="Tensor(")
        wish = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({values}, device='{self.device.name}'{wish})"

    def __len__(self):
        return len(self.data)

    def __bool__(self):
        return bool(self.item())

    __float__ = item
