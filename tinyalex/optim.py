"""The paper's update rule and the ways its learning rate fell. Paper section 5."""
import math

from . import random


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
    lr : float
    momentum, weight_decay : float
    bias_lr : float, optional
        Learning rate of biases; `lr` where None.

    Raises
    ------
    ValueError
        If a rate is negative or not finite, or there is no parameter.

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
        self.params = list(params)
        if not self.params:
            raise ValueError("SGD: got no parameter; pass net.parameters()")
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay),
                            ("bias_lr", lr if bias_lr is None else bias_lr)):
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise ValueError(f"SGD: {name} is {value!r}; expected a number >= 0")
        self.lr, self.bias_lr = lr, bias_lr
        self.momentum, self.weight_decay = momentum, weight_decay
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
        random.next_step()

    def _update(self, p, g, v):
        """Apply the rule to one parameter, in slices that the threads share."""
        lr, decay = self.lr, self.weight_decay if p.weight_decay is None else p.weight_decay
        if p.is_bias:
            lr, decay = (self.lr if self.bias_lr is None else self.bias_lr), 0.0

        def some(rows):
            w, v_ = p.data[rows], v[rows]
            v_ *= self.momentum
            v_ -= lr * g[rows]
            if decay:
                v_ -= (decay * lr) * w
            w += v_

        p.device.map(len(p.data), some, work=30 * p.data[0].size)

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
            if i >= len(self.params) or tuple(v.shape) != self.params[i].shape:
                raise ValueError(f"SGD: velocity {key} of shape {tuple(v.shape)} fits no parameter")
            velocity[i] = self.params[i].device.array(v.astype(self.params[i].dtype))
        self.velocity, self.lr, self.bias_lr = velocity, state["lr"], state["bias_lr"]


class MultiStepLR:
    """Multiply the learning rate by `gamma` when the count of :meth:`step` calls hits a milestone.

    Parameters
    ----------
    optimizer : SGD
    milestones : iterable of int
        Epochs (or steps: whatever is counted).
    gamma : float

    Examples
    --------
    >>> import numpy as np, tinyalex as ta
    >>> opt = ta.optim.SGD([ta.nn.Parameter(np.ones(1, np.float32))], lr=1.0)
    >>> schedule = ta.optim.lr_scheduler.MultiStepLR(opt, [2])
    >>> [(schedule.step(), opt.lr)[1] for _ in range(3)]
    [1.0, 0.1, 0.1]
    """

    def __init__(self, optimizer, milestones, gamma=0.1):
        self.optimizer, self.gamma = optimizer, gamma
        self.milestones, self.count = sorted(milestones), 0

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
        self.optimizer, self.factor, self.patience = optimizer, factor, patience
        self.threshold, self.min_lr = threshold, min_lr
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


def _lower(optimizer, factor):
    optimizer.lr *= factor
    if optimizer.bias_lr is not None:
        optimizer.bias_lr *= factor


class lr_scheduler:  # noqa: N801  (a namespace, spelled as PyTorch's)
    """The schedules, under the name PyTorch gives them."""

    MultiStepLR = MultiStepLR
    ReduceLROnPlateau = ReduceLROnPlateau
