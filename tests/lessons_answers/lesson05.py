"""Answers to lesson 05: the backward of ReLU and of tanh."""
import numpy as np

from . import right, wrong


@right("5.1")
def mask(gy, x):
    return gy * (x > 0)


@right("5.1")
def where(gy, x):
    return np.where(x > 0, gy, 0.0)


@right("5.1")
def copy_and_clear(gy, x):
    gx = gy.copy()
    gx[x <= 0] = 0
    return gx


WRONG_RELU = (
    ("At x = 0 your slope is 1.", lambda gy, x: gy * (x >= 0)),
    ("At x = 0 your slope is 1/2", lambda gy, x: gy * (np.sign(x) + 1) / 2),
    ("gy is missing", lambda gy, x: (x > 0).astype(float)),
    ("You multiply by x;", lambda gy, x: gy * np.maximum(x, 0)),
    ("You return y, the forward", lambda gy, x: np.where(x > 0, x, 0.0)),
    ("The mask looks at the sign of gy.", lambda gy, x: np.maximum(gy, 0)),
    ("The mask looks at both signs", lambda gy, x: np.where((gy > 0) & (x > 0), gy, 0.0)),
    ("The mask is turned around", lambda gy, x: gy * (x < 0)),
    ("There is no mask", lambda gy, x: gy.copy()),
    ("Below zero yours has slope -1", lambda gy, x: np.sign(x) * gy),
    ("(a leaky ReLU)", lambda gy, x: gy * np.where(x > 0, 1, 0.01)),
)
for says, fn in WRONG_RELU:
    wrong("5.1", says)(fn)


@right("5.2")
def square(gy, y):
    return gy * (1 - y * y)


@right("5.2")
def two_factors(gy, y):
    return gy * (1 + y) * (1 - y)


@right("5.2")
def through_x(gy, y):
    return gy / np.cosh(np.arctanh(y)) ** 2


WRONG_TANH = (
    ("gy is missing", lambda gy, y: 1 - y ** 2),
    ("The square is missing", lambda gy, y: gy * (1 - y)),
    ("you take the tanh of it once more", lambda gy, y: gy * (1 - np.tanh(y) ** 2)),
    ("the logistic function", lambda gy, y: gy * y * (1 - y)),
    ("a slope of tanh is never above 1", lambda gy, y: gy * (1 + y * y)),
    ("(1 - y)^2 is not 1 - y^2", lambda gy, y: gy * (1 - y) ** 2),
    ("You divide by the slope", lambda gy, y: gy / (1 - y * y)),
    ("gy belongs to both terms", lambda gy, y: gy - y * y),
    ("You treat tanh as a straight line", lambda gy, y: 1 * gy),
    ("2 y is the derivative of y * y", lambda gy, y: gy * (1 - 2 * y)),
)
for says, fn in WRONG_TANH:
    wrong("5.2", says)(fn)
