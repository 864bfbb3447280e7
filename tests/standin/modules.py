"""RawModule: CUDA sources as C++, run on the memory of a card."""
import numpy as np

from . import arrays, compiled, order
from .arrays import ndarray


class RawModule:
    """The kernels of a text.

    What a kernel takes as ``const T*`` it reads; what it takes as ``T*`` it reads and writes.
    """

    def __init__(self, *, code, options=(), backend="nvrtc", name_expressions=None):
        self._kernels = compiled.build(code, options)

    def get_function(self, name):
        """Return a kernel, to be called with (grid, block, arguments)."""
        return RawKernel(self._kernels[name])


class RawKernel:
    """A kernel, launched on the current stream."""

    def __init__(self, kernel):
        self._kernel, self.name = kernel, kernel.name

    def __call__(self, grid, block, args):
        kernel = self._kernel
        if len(args) != len(kernel.parameters):
            raise TypeError(f"{self.name} takes {len(kernel.parameters)} arguments, got "
                            f"{len(args)}: a card would read what lies behind them")
        given = [a for a in args if isinstance(a, ndarray)]
        operation = arrays._enqueue(self.name, *given)
        values, written = [], []
        for parameter, value in zip(kernel.parameters, args, strict=True):
            values.append(_argument(self.name, parameter, value))
            if isinstance(value, ndarray) and not parameter.const:
                arrays._write(operation, value, value._on_card)
                written.append(value._memory)
        kernel.run(grid, block, values)
        for mem in written:
            if not mem._block.is_whole(mem._nbytes):
                raise order.Misuse(f"{self.name} wrote behind the end of an array")


def _argument(name, parameter, value):
    if isinstance(value, ndarray):
        if not parameter.pointer or value.dtype != parameter.dtype:
            raise TypeError(f"{name}: {parameter.name} is {parameter.type}"
                            f"{'*' * parameter.pointer}, got an array of {value.dtype}")
        return value._on_card.ctypes.data
    if parameter.pointer:
        if not isinstance(value, np.uint64) or value:
            raise TypeError(f"{name}: {parameter.name} is a pointer, got {value!r}")
        return 0
    if not isinstance(value, np.generic):
        raise TypeError(f"{name}: {parameter.name} is {parameter.type}, got {value!r}: CuPy takes "
                        "Python's numbers as 64 bits")
    return value
