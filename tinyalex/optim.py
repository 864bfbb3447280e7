"""The paper's update rule and the ways its learning rate fell. Paper section 5."""
import math
import numbers

from . import random
from .kernels import launch, on
from .tensor import Tensor


class SGD:
    """Stochastic gradient descent with momentum and weight decay, as the paper writes it::

        v <- momentum v - weight_decay lr w - lr dL/dw
        w <- w + v

    The learning rate stands inside the velocity: when it falls, the velocity keeps its old speed
    for a while, where PyTorch's rule would slow it at once. At a constant rate both agree.
    Biases never decay, and may have a rate of their own, as in the 2012 source. A parameter with a
    ``weight_decay`` of its own keeps to that.

    Parameters
    ----------
    params : iterable of Parameter
        A plain leaf Tensor counts as a weight.
    lr : float
    momentum, weight_decay : float
    bias_lr : float, optional
        Learning rate of biases; `lr` where None.

    Raises
    ------
    TypeError
        If `params` holds anything but leaves.
    ValueError
        If a rate is negative or not finite, or a parameter stands twice, or there is none.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> w = ta.nn.Parameter(np.array([1.0], np.float32))
    >>> opt = ta.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> round(w.item(), 6)
    0.8
    """

    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0, bias_lr=None):
        single = isinstance(params, Tensor) or hasattr(params, "parameters")
        self.params = [params] if single else list(params)
        if not self.params:
            raise ValueError("SGD: got no parameter; pass net.parameters()")
        wrong = [p for p in self.params if single or not isinstance(p, Tensor) or not p.is_leaf]
        if wrong:
            raise TypeError(f"SGD: params holds a {type(wrong[0]).__name__}; expected a list of "
                            "leaves, as net.parameters() gives them")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError("SGD: a parameter stands twice in params and would move twice a step")
        self.lr, self.momentum = _rate("lr", lr), _rate("momentum", momentum)
        self.weight_decay = _rate("weight_decay", weight_decay)
        self.bias_lr = None if bias_lr is None else _rate("bias_lr", bias_lr)
        self.velocity = [None] * len(self.params)

    def zero_grad(self):
        """Forget all gradients."""
        for p in self.params:
            if p.requires_grad:
                p.grad = None

    def step(self):
        """Update every parameter that has a gradient, and advance the step of all randomness."""
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            with p.device.scope():
                if self.velocity[i] is None:
                    self.velocity[i] = p.device.xp.zeros_like(p.data)
                    p.device.ledger.hold(self.velocity[i])
                self._update(p, p.grad, self.velocity[i])
                p.device.ledger.hold(p.data).version += 1     # a graph that saved w is stale now
        random.next_step()

    def _update(self, p, g, v):
        """Apply the rule to one parameter, in slices that the threads share."""
        own = getattr(p, "weight_decay", None)
        lr, decay = self.lr, self.weight_decay if own is None else own
        if getattr(p, "is_bias", False):
            lr, decay = (self.lr if self.bias_lr is None else self.bias_lr), 0.0
        if on(p.device):
            launch(p.device, "sgd.update", v.size, p.data, p.device.xp.ascontiguousarray(g), v,
                   self.momentum, lr, decay * lr)
            return
        xp, (w, g, v) = p.device.xp, (p.device.xp.atleast_1d(a) for a in (p.data, g, v))

        def some(rows):
            w_, v_ = w[rows], v[rows]
            part = p.device.scratch("sgd", w_.shape, w_.dtype)
            v_ *= self.momentum
            v_ -= xp.multiply(g[rows], lr, out=part)
            if decay:
                v_ -= xp.multiply(w_, decay * lr, out=part)
            w_ += v_

        row = w.size / max(len(w), 1)
        p.device.map(len(w), some, work=60 * row, nbytes=4 * row * w.itemsize)

    def state_dict(self):
        """Return ``{"lr", "bias_lr", "momentum": {index: NumPy array}}``."""
        return {"lr": self.lr, "bias_lr": self.bias_lr,
                "momentum": {str(i): self.params[i].device.numpy(v).copy()
                             for i, v in enumerate(self.velocity) if v is not None}}

    def load_state_dict(self, state):
        """Continue from what :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            If a velocity does not have its parameter's shape.
        """
        velocity = [None] * len(self.params)
        for key, v in state["momentum"].items():
            i = int(key)
            if not 0 <= i < len(self.params) or tuple(v.shape) != self.params[i].shape:
                raise ValueError(f"SGD: velocity {key} of shape {tuple(v.shape)} fits no parameter")
            velocity[i] = self.params[i].device.array(v.astype(self.params[i].dtype))
            self.params[i].device.ledger.hold(velocity[i])
        self.velocity, self.lr, self.bias_lr = velocity, state["lr"], state["bias_lr"]


class MultiStepLR:
    """Multiply the learning rate by `gamma` when the count of :meth:`step` calls hits a milestone.

    Parameters
    ----------
    optimizer : SGD
    milestones : iterable of int
        Epochs (or steps: whatever is counted).
    gamma : float

    Raises
    ------
    ValueError
        If a milestone is no integer, for then it would never be hit.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> opt = ta.optim.SGD([ta.nn.Parameter(np.ones(1, np.float32))], lr=1.0)
    >>> schedule = ta.optim.lr_scheduler.MultiStepLR(opt, [2])
    >>> [(schedule.step(), opt.lr)[1] for _ in range(3)]
    [1.0, 0.1, 0.1]
    """

    def __init__(self, optimizer, milestones, gamma=0.1):
        self.optimizer, self.gamma = optimizer, _rate("gamma", gamma, "MultiStepLR")
        self.milestones, self.count = sorted(milestones), 0
        if not all(isinstance(m, numbers.Integral) for m in self.milestones):
            raise ValueError(f"MultiStepLR: milestones are {self.milestones}; expected integers, "
                             "counts of step()")

    def step(self):
        """Count one epoch (or step) more."""
        self.count += 1
        for milestone in self.milestones:
            if milestone == self.count:
                _lower(self.optimizer, self.gamma)

    def state_dict(self):
        """Return what there is to keep; the rates themselves are kept by the optimizer."""
        return {"count": self.count}

    def load_state_dict(self, state):
        """Continue from what :meth:`state_dict` returned."""
        self.count = state["count"]


class ReduceLROnPlateau:
    """Divide the learning rate by ten when the validation error stops improving.

    "Divide the learning rate by 10 when the validation error rate stopped improving" (section 5);
    in 2012 a person watched, and did it three times.

    Parameters
    ----------
    optimizer : SGD
    factor : float
        What the rate is multiplied by.
    patience : int
        So many epochs without improvement are forgiven; at the next one the rate falls.
    threshold : float
        An improvement is a fall of the error by more than this share of the best.
    min_lr : float
        The rate falls no lower.

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> opt = ta.optim.SGD([ta.nn.Parameter(np.ones(1, np.float32))], lr=1.0)
    >>> schedule = ta.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1)
    >>> [(schedule.step(error), opt.lr)[1] for error in (50, 50, 50, 40)]
    [1.0, 1.0, 0.1, 0.1]
    """

    def __init__(self, optimizer, factor=0.1, patience=10, threshold=1e-4, min_lr=0.0):
        self.optimizer, self.patience, self.threshold = optimizer, patience, threshold
        self.factor = _rate("factor", factor, "ReduceLROnPlateau")
        self.min_lr = _rate("min_lr", min_lr, "ReduceLROnPlateau")
        self.best, self.bad, self.drops = math.inf, 0, 0

    def step(self, error):
        """Take note of one more validation error; return whether the rate fell."""
        if error < self.best * (1 - self.threshold):
            self.best, self.bad = error, 0
            return False
        self.bad += 1
        if self.bad <= self.patience or self.optimizer.lr <= self.min_lr:
            return False
        self.bad = 0
        self.drops += 1
        _lower(self.optimizer, max(self.factor, self.min_lr / self.optimizer.lr))
        return True

    def state_dict(self):
        """Return what there is to keep; the rates themselves are kept by the optimizer."""
        best = None if math.isinf(self.best) else self.best     # JSON has no infinity
        return {"best": best, "bad": self.bad, "drops": self.drops}

    def load_state_dict(self, state):
        """Continue from what :meth:`state_dict` returned."""
        self.best = math.inf if state["best"] is None else state["best"]
        self.bad, self.drops = state["bad"], state["drops"]


def _rate(name, value, owner="SGD"):
    if not (isinstance(value, numbers.Real) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{owner}: {name} is {value!r}; expected a number >= 0")
    return float(value)      # a NumPy float64 here would turn float32 arithmetic into float64


def _lower(optimizer, factor):
    optimizer.lr *= factor
    if optimizer.bias_lr is not None:
        optimizer.bias_lr *= factor


class lr_scheduler:  # noqa: N801  (a namespace, spelled as PyTorch's)
    """The schedules, under the name PyTorch gives them."""

    MultiStepLR = MultiStepLR
    ReduceLROnPlateau = ReduceLROnPlateau
