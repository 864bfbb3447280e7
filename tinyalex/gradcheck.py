"""Gradient checks: is a backward the derivative of its forward, and does it behave?

Numerics that know nothing of each other judge it: central differences of the forward, the complex
step on a reference, the adjoint identity. All in float64, and with a random cotangent v, never
ones: a softmax sums to 1 whatever its input, so with ones a backward of zeros would pass.
"""
import gc
import weakref

import numpy as np

from .device import Device
from .gradreport import Comparison, Report, close, described, same
from .graph import no_grad
from .tensor import Function, Tensor

_MOST = 20_000                # elements that check_grads is willing to move one by one
_NUMERICS = {                 # step h; tolerance relative to each element, and to the largest one
    "smooth": (2.0**-14, 1e-8, 1e-9),      # finer than float32, so one on the way is seen
    "multilinear": (1.0, 0.0, 1e-11),      # a straight line along each element: any h is exact
}


def check_grads(fn, *arrays, seed=0, reference=None, device="cpu:0", kind="smooth"):
    """Check each element of each gradient of `fn`, and its conduct.

    Arrays are promoted to float64 and keep their memory layout. Besides the numbers: inputs and
    cotangent stay as they were; gradients have their inputs' shape, dtype and device; a re-run
    gives the same bits, a second forward and backward exactly twice the gradient, an input used
    twice the sum; the graph dies with its result, uncollected; ``no_grad`` builds none.

    Parameters
    ----------
    fn : callable
        Takes one Tensor per array, returns a Tensor of any shape.
    *arrays : arrays of real numbers
        Where to differentiate: small (2 to 4 forwards per element), and away from kinks.
    seed : int
        Draws the cotangent.
    reference : callable, optional
        The same function of NumPy arrays, complex ones too: the complex step runs on it, and its
        result is compared with that of `fn`.
    device : Device or str
    kind : str
        ``"multilinear"`` if the result is a straight line along each single element
        (convolution, matrix product, a maximum more than 1 away from a tie), else ``"smooth"``.

    Returns
    -------
    Report

    Raises
    ------
    ValueError, TypeError
        If there is nothing or too much to check, if `fn` returns no Tensor, or `reference` another
        shape or no complex numbers; and whatever the engine refuses, such as a gradient's shape.

    Examples
    --------
    >>> import tinyalex as ta
    >>> bool(ta.check_grads(lambda x: x * x, [1.0, 2.0], reference=lambda x: x * x))
    True
    """
    size = sum(map(np.size, arrays))
    if size > _MOST:
        raise ValueError(f"check_grads: {size} elements to move one by one; expected at most "
                         f"{_MOST}: take smaller arrays, or check_direction")
    run = _Run(fn, arrays, seed, device, kind)
    if reference is not None:
        run.compare_forward(reference)
    return run.report("check_grads", lambda i, gx: run.each_element(i, gx, reference))


def check_direction(fn, *arrays, seed=0, device="cpu:0", kind="smooth"):
    """Check as :func:`check_grads`, but move each input as a whole in one random direction.

    Two or four forwards per input whatever its size, hence for real shapes; one wrong element may
    drown among millions, a wrong formula does not. Elements move by 0.5 h to 1.5 h, h = 1 if `kind`
    is ``"multilinear"`` (straight along each whole input), else 2**-14: keep kinks further off.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.gradcheck import check_direction
    >>> bool(check_direction(lambda x: x * x, np.linspace(-1, 1, 1000)))
    True
    """
    run = _Run(fn, arrays, seed, device, kind)
    return run.report("check_direction", run.one_direction)


def check_adjoint(forward, backward, x, seed=0):
    """Check <forward(x), c> = <x, backward(c)> for linear maps of NumPy arrays and a random c.

    No step and no difference, so it holds to rounding: im2col and col2im, a padding and its crop.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.gradcheck import check_adjoint
    >>> bool(check_adjoint(lambda x: x[1:], lambda c: np.pad(c, (1, 0)), [1, 2, 3]))
    True
    """
    (x,) = _promote([x])
    x_kept, y = x.copy(), np.array(forward(x))
    c = _signed(seed, 0, y.shape)
    c_kept, gx = c.copy(), np.array(backward(c))
    complaints = [] if same([x, c], [x_kept, c_kept]) else [
        "an argument is overwritten; return a new array instead"]
    if gx.shape != x.shape:
        complaints.append(f"backward returns shape {gx.shape}; expected that of x, {x.shape}")
        return Report("check_adjoint", (), complaints)
    scale = max(np.linalg.norm(y * c_kept), np.linalg.norm(x_kept * gx))
    found = Comparison("<x, backward(c)>", "<forward(x), c>", np.vdot(x_kept, gx),
                       np.vdot(y, c_kept), 0, 1e-12 * scale)
    return Report("check_adjoint", [found], complaints)


def _promote(arrays):
    """The arrays as float64, in the memory layout they have."""
    arrays = [np.asarray(a) for a in arrays]
    if not arrays:
        raise ValueError("arrays: got none; expected one for each argument of fn")
    for i, a in enumerate(arrays):
        if a.size == 0 or a.dtype.kind not in "fiu":
            raise ValueError(f"array {i}: got {a.dtype} {a.shape}; expected some real numbers")
    return [a.astype(np.float64, copy=False) for a in arrays]


def _signed(seed, use, shape):
    """Random numbers of either sign, 0.5 to 1.5 in size, so that none counts for little."""
    # each use has its own: a direction equal to v would not see a transposed backward
    rng = np.random.default_rng([2012, seed, use])
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


class _Both(Function):
    """y = a + b. Each gets the very same gy, so a backward that writes into it is seen."""

    def forward(self, a, b):
        return a + b

    def backward(self, gy):
        return gy, gy


class _Run:
    """`fn` at one point: its result y, the cotangent v, the gradients, and the complaints."""

    def __init__(self, fn, arrays, seed, device, kind):
        if kind not in _NUMERICS:
            raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(_NUMERICS)}")
        self.fn, self.seed, self.device = fn, seed, Device(device)
        self.step, self.rtol, self.atol = _NUMERICS[kind]
        self.given, self.complaints = _promote(arrays), []
        self.arrays = [a.copy() for a in self.given]           # safe from whatever fn does
        self.y = self.forward()
        self.v = _signed(seed, 0, self.y.shape)
        # rounding in <v, y>: of the results, and of inputs that cancel on the way to them
        self.noise = 2e-15 * np.linalg.norm(self.v * self.y) \
            + 5e-16 * max(np.abs(a).max() for a in self.arrays)
        self.gradients = self.conduct()                        # by input, as far as usable

    def complain(self, wrong, text):
        if wrong and text not in self.complaints:
            self.complaints.append(text)

    def apply(self, leaves):
        y = self.fn(*leaves)
        if not isinstance(y, Tensor):
            raise TypeError(f"fn returned a {type(y).__name__}; expected a Tensor")
        return y

    def forward(self, i=None, moved=None):
        """Return the result as a host array, without a graph; `moved` stands in for input `i`."""
        arrays = [np.array(moved if i == j else a, order="K") for j, a in enumerate(self.arrays)]
        with no_grad():
            y = self.apply([Tensor(a, self.device, requires_grad=True) for a in arrays])
        self.complain(not y.is_leaf, "no_grad: a graph is built all the same")
        return y.device.numpy(y.data)

    def once(self, leaves=None, twice=False):
        """Go forward and backward; return leaves, gradients on the host, the result's values."""
        leaves = leaves or [Tensor(a, self.device, requires_grad=True) for a in self.given]
        y = self.apply(leaves)
        values = np.array(y.device.numpy(y.data))
        y = _Both()(y, self.apply(leaves)) if twice else y
        v = y.device.array(self.v.copy())
        if y.requires_grad:
            y.backward(v)
        self.complain(not same([y.device.numpy(v)], [self.v]), "backward overwrites gy; "
                      "return a new array instead")
        self.restore(leaves)
        gradients = [np.zeros(x.shape) if x.grad is None else
                     np.array(self.device.numpy(x.grad)) for x in leaves]
        return leaves, gradients, values

    def restore(self, leaves):
        """Put back what fn has overwritten, which may be the caller's arrays."""
        for i, (leaf, a) in enumerate(zip(leaves, self.arrays, strict=True)):
            if not same([self.device.numpy(leaf.data)], [a]):
                self.complain(True, f"input {i} is overwritten; return a new array instead")
                leaf.data[...] = self.device.array(a)

    def conduct(self):
        """Go forward and backward in several ways; return {input: gradient} of the first."""
        leaves, first, values = self.once()
        again, second, other_values = self.once()
        if not same([values], [other_values]):
            self.complain(True, "fn is random: a second run on the same inputs gives another "
                          "result, so no slope can be taken; fix the mask, or seed inside fn")
            return {}
        double = [2 * gx for gx in second]
        self.complain(not same(first, second), "backward is random: a second run gives other bits")
        self.complain(not same(self.once(again)[1], double),
                      "a second forward and backward does not give exactly twice the gradient")
        self.complain(not all(map(close, self.once(twice=True)[1], double)),
                      "used twice, an input does not get the sum of both gradients")
        self.complain(self.outlives(leaves), "the graph outlives its result: a cycle, or a keeper")
        for i, leaf in enumerate(leaves):
            got, expected = described(leaf.grad), described(leaf.data)
            self.complain(leaf.grad is not None and got != expected,
                          f"the gradient of input {i} is {got}; expected {expected}")
        return {i: gx for i, gx in enumerate(first) if gx.shape == self.arrays[i].shape}

    def outlives(self, leaves):
        """Whether the node of a result is alive after the result, with no collector running."""
        resume = gc.enable if gc.isenabled() else gc.disable
        gc.disable()
        try:
            y = self.apply(leaves)
            node = None if y.is_leaf else weakref.ref(y.node)
            del y
            self.restore(leaves)
            return node is not None and node() is not None
        finally:
            resume()

    def report(self, check, compare):
        return Report(f"{check} in float64 on {self.device.name}, seed {self.seed}",
                      [compare(i, gx) for i, gx in self.gradients.items()], self.complaints)

    def compare_forward(self, reference):
        expected = np.asarray(reference(*(a.copy() for a in self.arrays)))
        if expected.shape != self.y.shape:
            raise ValueError(f"reference: got a result of shape {expected.shape}; expected that "
                             f"of fn, {self.y.shape}")
        if self.gradients:      # fn is not random
            error = np.abs(self.y - expected)
            at = np.unravel_index(error.argmax(), error.shape)
            self.complain(not error[at] <= 1e-12 * np.abs(expected).max(),
                          f"the result differs from the reference's, most at "
                          f"{[int(i) for i in at]}: {self.y[at]:.9g}, reference {expected[at]:.9g}")

    def slope(self, i, d):
        """Differentiate <v, fn> along `d` of input `i`: slope, its bend, how many results move."""
        def central(h):
            up, down = (self.forward(i, self.arrays[i] + step * d) for step in (h, -h))
            return up - down, np.vdot(self.v, up - down) / (2 * h), up - 2 * self.y + down

        change, slope, bend = central(self.step)
        if self.rtol:           # Richardson: of two steps together the errors h^2 cancel
            slope = (4 * central(self.step / 2)[1] - slope) / 3
        fan = np.count_nonzero(np.abs(change) > 1e-9 * np.abs(change).max())     # less is rounding
        return slope, np.linalg.norm(self.v * bend) / self.step, fan

    def each_element(self, i, gx, reference):
        """Compare with central differences; where these agree, with the sharper complex step."""
        x = self.arrays[i]
        numeric, bend, fan, d = (np.zeros(x.shape) for _ in range(4))
        for j in np.ndindex(x.shape):
            d[j] = 1
            numeric[j], bend[j], fan[j] = self.slope(i, d)
            d[j] = 0
        scale, known = np.abs(numeric).max(), dict(x=x, y=self.y, fan=fan)
        found = Comparison(f"input {i}", "central differences", gx, numeric, self.rtol,
                           max(self.atol * scale, self.noise / self.step), bend=bend, **known)
        if reference is None or found.count:
            return found
        for j in np.ndindex(x.shape):
            arrays = [a.astype(complex if i == k else float) for k, a in enumerate(self.arrays)]
            arrays[i][j] += 1e-20j
            y = np.asarray(reference(*arrays))
            if y.dtype.kind != "c":
                raise TypeError("reference: complex in, real out; it must keep the imaginary part")
            numeric[j] = np.vdot(self.v, y.imag) / 1e-20         # no difference: nothing cancels
        return Comparison(f"input {i}", "complex step", gx, numeric, 0,
                          max(1e-12 * scale, self.noise), **known)

    def one_direction(self, i, gx):
        """Compare the slope along a direction d with <gx, d>."""
        d = _signed(self.seed, 1 + i, gx.shape)
        slope, bend, _ = self.slope(i, d)
        # the length a sum of such terms has: that they may cancel must not sharpen the test
        length = np.linalg.norm(gx * d)
        return Comparison(f"input {i} {gx.shape} in one direction", "central difference",
                          np.vdot(gx, d), slope, 0,
                          max(100 * self.atol * length, self.noise / self.step),
                          x=self.arrays[i], y=self.y,
                          bend=np.asarray(bend) if bend > 1e-3 * length else None)
