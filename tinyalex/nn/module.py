"""Module: parts that hold parameters and call each other. The names are PyTorch's."""
import numpy as np

from ..device import Device, transfer
from ..graph import Accumulator, mode
from ..tensor import Tensor


class Parameter(Tensor):
    """A Tensor that an optimizer updates.

    Parameters
    ----------
    array : array
    device : Device or str
    is_bias : bool
        Biases may learn at a rate of their own and never decay.
    weight_decay : float, optional
        A decay of its own, where the optimizer's does not fit (the CIFAR-10 nets of 2012).

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import nn
    >>> nn.Parameter(np.zeros(3, np.float32), is_bias=True).is_bias
    True
    """

    __slots__ = ("is_bias", "weight_decay")

    def __init__(self, array, device="cpu:0", is_bias=False, weight_decay=None):
        super().__init__(array, device, requires_grad=True)
        self.is_bias, self.weight_decay = is_bias, weight_decay

    def place(self, device, dtype=None):
        """Move the parameter itself, gradient dropped; a leaf elsewhere is another leaf."""
        device = Device(device)
        if device is self.device and dtype in (None, self.dtype):
            return
        data = transfer(self.data, self.device, device, kind="weights")
        if dtype is not None:
            with device.scope():
                data = data.astype(dtype, copy=False)
        self.data, self.device = data, device
        device.ledger.hold(data)
        self.node = Accumulator(device) if self.requires_grad else None


class Module:
    """A part of a net: parameters and modules as attributes, and ``forward``.

    A new module is in training mode.

    Examples
    --------
    >>> import tinyalex as ta
    >>> class Double(ta.nn.Module):
    ...     def forward(self, x):
    ...         return x * 2
    >>> Double()(ta.Tensor([1.0])).item()
    2.0
    """

    training, path = True, ""      # path: dotted, from the outermost module that holds this one

    def forward(self, *inputs):
        """Compute the output; subclasses define it."""
        raise TypeError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *inputs, **kwargs):
        here = self.path or (mode.modules[-1] if mode.modules else "")
        mode.modules.append(here)                  # so that errors can say where they happened
        try:
            output = self.forward(*inputs, **kwargs)
        finally:
            mode.modules.pop()
        for hook in list(self.__dict__.get("hooks", {}).values()):
            changed = hook(self, inputs, output)
            output = output if changed is None else changed
        return output

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)
        if isinstance(value, Module):
            for path, module in value.named_modules(f"{self.path}.{name}" if self.path else name):
                module.path = path

    def named_children(self):
        """Yield (name, module) for the modules directly in this one."""
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value

    def children(self):
        """Yield the modules directly in this one."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix=""):
        """Yield (dotted path, module) for this module and all below it, in order of definition.

        A module that stands in several places comes once, under its first path.
        """
        seen, waiting = set(), [(prefix, self)]
        while waiting:
            path, module = waiting.pop()
            if module not in seen:
                seen.add(module)
                yield path, module
                waiting += [(f"{path}.{name}" if path else name, child)
                            for name, child in module.named_children()][::-1]

    def modules(self):
        """Yield this module and all below it."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self):
        """Yield (dotted name, parameter), each parameter once, in order of definition."""
        seen = set()
        for path, module in self.named_modules():
            for name, value in module.__dict__.items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self):
        """Yield the parameters of this module and all below it."""
        for _, parameter in self.named_parameters():
            yield parameter

    def train(self, flag=True):
        """Switch to training (dropout draws masks), or with False to testing; return the module."""
        for module in self.modules():
            module.training = flag
        return self

    def eval(self):
        """Switch to testing. Returns the module."""
        return self.train(False)

    def zero_grad(self):
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.grad = None

    def requires_grad_(self, flag=True):
        """Freeze (False) or thaw all parameters of this module. Returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(flag)
        return self

    def to(self, device):
        """Move all parameters to one device. Returns the module."""
        for parameter in self.parameters():
            parameter.place(device)
        return self

    def double(self):
        """Turn all parameters into float64, as gradient checks want them. Returns the module."""
        for parameter in self.parameters():
            parameter.place(parameter.device, np.float64)
        return self

    def register_forward_hook(self, hook):
        """Call ``hook(module, inputs, output)`` after each forward; its result replaces the output.

        Returns
        -------
        callable
            Call it to remove the hook.
        """
        hooks = self.__dict__.setdefault("hooks", {})
        key = object()
        hooks[key] = hook
        return lambda: hooks.pop(key, None)

    def state_dict(self):
        """Return a copy of all parameters as ``{dotted name: NumPy array}``, wherever they live."""
        return {name: np.array(p.device.numpy(p.data)) for name, p in self.named_parameters()}

    def load_state_dict(self, state, strict=True):
        """Take over parameters by name.

        Parameters
        ----------
        state : dict of str to array
        strict : bool
            With False, whatever does not match in name or shape is left as it is: that is how a
            trained net is given a new last layer.

        Returns
        -------
        missing, unexpected : list of str
            Parameters that `state` did not fill, and entries that found no place.

        Raises
        ------
        ValueError
            If `strict` and anything differs; the message lists what. Nothing is loaded then.
        """
        own = dict(self.named_parameters())
        fits = {name for name, p in own.items()
                if name in state and np.shape(state[name]) == p.shape}
        missing = [name for name in own if name not in fits]
        unexpected = [name for name in state if name not in fits]
        if strict and (missing or unexpected):
            shapes = [f"{n} is {np.shape(state[n])}, expected {own[n].shape}"
                      for n in missing if n in state]
            absent = [f"{n} is absent" for n in missing if n not in state]
            extra = [f"{n} has no place here" for n in unexpected if n not in own]
            raise ValueError("load_state_dict: " + "; ".join((shapes + absent + extra)[:6])
                             + (" ..." if len(shapes + absent + extra) > 6 else ""))
        for name in fits:
            p = own[name]
            p.data = p.device.array(np.array(state[name], p.dtype))
            p.device.ledger.hold(p.data)
        return missing, unexpected

    def __repr__(self):
        inner = [f"  ({name}): " + repr(child).replace("\n", "\n  ")
                 for name, child in self.named_children()]
        return f"{type(self).__name__}({self.describe()}" + (
            "\n" + "\n".join(inner) + "\n)" if inner else ")")

    def describe(self):
        """Return the settings that ``repr`` shows between the brackets."""
        return ""


class ModuleList(Module):
    """A list of modules, named "0", "1", ...

    >>> from tinyalex import nn
    >>> len(nn.ModuleList([nn.ReLU(), nn.ReLU()]))
    2
    """

    def __init__(self, modules=()):
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self):
        return self.children()

    def __len__(self):
        return len(list(self.children()))

    def __getitem__(self, index):
        return list(self.children())[index]


class Sequential(ModuleList):
    """Modules one after the other; the first input may be a plain array, and is moved.

    >>> import tinyalex as ta
    >>> ta.nn.Sequential(ta.nn.ReLU(), ta.nn.Flatten())(ta.Tensor([[-1.0]])).item()
    0.0
    """

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        if not isinstance(x, Tensor) or len(mode.modules) < 2:     # deeper, nothing moves by itself
            home = next((p.device for p in self.parameters()), getattr(x, "device", "cpu:0"))
            x = as_input(x, home)
        for module in self.children():
            x = module(x)
        return x


def as_input(images, device):
    """Return the pictures given to a net as a Tensor on `device`: the only implicit move there is.

    Parameters
    ----------
    images : Tensor, float array, or anything with a method ``on(device)``
        The last makes its Tensor itself: ``data.Crops``, which go to a GPU as bytes.
    device : Device or str

    Returns
    -------
    Tensor; the copy, where there is one, is booked under the kind "input".

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import nn
    >>> nn.as_input(np.zeros((1, 3, 2, 2), np.float32), "cpu:1").device
    Device('cpu:1')
    """
    if hasattr(images, "on"):
        return images.on(device)
    if not isinstance(images, Tensor):
        images = Tensor(images)
    return images.to(device, kind="input")
