"""How fast a run learns, and when: the fall of the learning rate, and its climb at the start."""
import contextlib

from .. import optim


def schedule(recipe, optimizer, steps, epoch_steps):
    """Return the schedule that a recipe asks for in a run of so many steps."""
    if recipe.plateau:
        return optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=recipe.plateau)
    marks = ([round(share * steps) for share in recipe.milestones]
             if recipe.lr_epochs is None
             else [round(epoch * epoch_steps) for epoch in recipe.lr_epochs])
    return optim.lr_scheduler.MultiStepLR(optimizer, marks)


@contextlib.contextmanager
def climbing(optimizer, step, steps):
    """Context: in the first `steps` steps the rates climb linearly to what they are.

    Large batches allow large rates, but not while the weights are still those of the start: Goyal
    and others 2017, "Accurate, large minibatch SGD", section 2.2.

    Examples
    --------
    >>> import tinyalex as ta
    >>> opt = optim.SGD([ta.nn.Parameter(ta.Tensor([1.0]).data)], lr=0.5)
    >>> with climbing(opt, step=0, steps=10):
    ...     print(opt.lr)
    0.05
    >>> opt.lr
    0.5
    """
    share = min(1, (step + 1) / steps) if steps else 1
    lr, bias_lr = optimizer.lr, optimizer.bias_lr
    optimizer.lr, optimizer.bias_lr = lr * share, bias_lr and bias_lr * share
    try:
        yield
    finally:
        optimizer.lr, optimizer.bias_lr = lr, bias_lr
