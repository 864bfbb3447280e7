"""Answers to lesson 08: dropout in both scalings."""
import numpy as np

from . import right, wrong


def drop(x, p, training, scaling, mask, *, train=None, test=None):
    """Put a mask to use; `train` and `test` are factors in place of the right ones."""
    if training:
        right_one = 1 / (1 - p) if scaling == "inverted" else 1
        return x * mask * (right_one if train is None else train)
    right_one = 1 - p if scaling == "paper" else 1
    return x * (right_one if test is None else test)


@right("8.1")
def uniform(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape) >= p)


@right("8.1")
def binomial(x, p, training, scaling, rng):
    keep = 1 - p
    if not training:
        return keep * x if scaling == "paper" else x
    mask = rng.binomial(1, keep, x.shape)
    return x * mask / keep if scaling == "inverted" else x * mask


@right("8.1")
def silenced(x, p, training, scaling, rng):
    y = x.copy()
    if training:
        y[rng.uniform(0, 1, x.shape) < p] = 0
    if (scaling == "inverted") == training:
        y = y / (1 - p) if training else y * (1 - p)
    return y


@wrong("8.1", "p is the probability of silence, not")
def p_speaks(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape) < p)


@wrong("8.1", "the inverted scaling".capitalize() + " makes up")
def never_divided(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape) >= p, train=1)


@wrong("8.1", "you divide by p, the share that is silent")
def divided_by_p(x, p, training, scaling, rng):
    train = 1 / p if scaling == "inverted" else 1
    return drop(x, p, training, scaling, rng.random(x.shape) >= p, train=train)


@wrong("8.1", "half as many must speak twice as loud")
def multiplied(x, p, training, scaling, rng):
    train = 1 - p if scaling == "inverted" else 1
    return drop(x, p, training, scaling, rng.random(x.shape) >= p, train=train)


@wrong("8.1", "The paper leaves training alone")
def always_inverted(x, p, training, scaling, rng):
    train = 1 / (1 - p)
    return drop(x, p, training, scaling, rng.random(x.shape) >= p, train=train)


@wrong("8.1", "it must be made weaker")
def test_untouched(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape) >= p, test=1)


@wrong("8.1", "y is p x")
def test_by_p(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape) >= p,
                test=p if scaling == "paper" else 1)


@wrong("8.1", "never both")
def paid_twice(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape) >= p, test=1 - p)


@wrong("8.1", "At test time all")
def drops_at_test(x, p, training, scaling, rng):
    y = drop(x, p, training, scaling, rng.random(x.shape) >= p)
    return y if training else y * (rng.random(x.shape) >= p)


@wrong("8.1", "all rows have the same mask")
def one_mask_for_all(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random(x.shape[1:]) >= p)


@wrong("8.1", "silent as a whole or not at all")
def whole_rows(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.random((len(x), 1)) >= p)


@wrong("8.1", "a second call draws the same mask")
def own_seed(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, np.random.default_rng(0).random(x.shape) >= p)


@wrong("8.1", "units are silent each time")
def exactly_half(x, p, training, scaling, rng):
    mask = (np.arange(x.size) >= round(p * x.size)).astype(float)
    return drop(x, p, training, scaling, rng.permutation(mask).reshape(x.shape))


@wrong("8.1", "a unit is silent, or it speaks as it is")
def noise(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.normal(1, 0.5, x.shape))


@wrong("8.1", "of so many, a fair draw gives")
def rounded(x, p, training, scaling, rng):
    return drop(x, p, training, scaling, rng.integers(0, 100, x.shape) > 100 * p)
