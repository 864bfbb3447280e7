"""Lesson 05: the backward of ReLU and of tanh."""
import numpy as np
import tinyalex as ta

from .judging import Exercise, Wrong, compare


def relu_library(gy, x):
    """The library's gradient of max(x, 0)."""
    x = ta.Tensor(x, requires_grad=True)
    ta.functional.relu(x).backward(gy)
    return x.grad


def tanh_library(gy, y):
    """The library's gradient of tanh, from its result y."""
    return gy * (1 - y * y)


def check_relu(ask):
    """Without zeros, with zeros, and for maps."""
    rng = np.random.default_rng(5)
    x = np.array([-2.0, -1.0, -0.5, 0.25, 0.5, 2.0])
    shapes = ("for a row of six numbers", x, np.array([3.0, -2.0, 4.0, -5.0, 0.5, 7.0])), (
        "where x is 0 (it is right elsewhere)", np.array([-1.0, 0.0, 1.0, -0.0]),
        np.array([2.0, 3.0, 4.0, 5.0])), (
        "for maps (2, 3, 4, 5)", rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5)))
    for where, x, gy in shapes:
        compare("gx", ask(gy, x), relu_library(gy, x), where, relu_suspects(gy, x), x=x)
    report = ta.check_grads(lambda t: _with(ask, ta.functional.relu, t), rng.choice([-1, 1], 12)
                            * rng.uniform(0.5, 2, 12))
    if not report:
        raise Wrong(f"The numbers are right, but ta.check_grads is not content:\n{report}")
    return "Slope 1 above zero, 0 below, and 0 at the kink itself; check_grads agrees."


def relu_suspects(gy, x):
    """Yield (text, array): what typical mistakes would give."""
    yield ("At x = 0 your slope is 1. The library, like the code of 2012, says 0: use >, not >=.",
           gy * (x >= 0))
    yield ("At x = 0 your slope is 1/2. Any number from 0 to 1 could be defended; the library "
           "says 0.", gy * np.heaviside(x, 0.5))
    yield ("gy is missing: dL/dx = dL/dy * dy/dx, and you return dy/dx.", 1.0 * (x > 0))
    yield ("You multiply by x; dy/dx is 1 where x > 0, however large x is.", gy * (x > 0) * x)
    yield ("You return y, the forward: max(x, 0).", np.maximum(x, 0))
    yield ("The mask looks at the sign of gy. It is x that was cut off; gy of either sign passes.",
           gy * (gy > 0))
    yield ("The mask looks at both signs, of x and of gy. gy of either sign passes where x > 0.",
           gy * (gy > 0) * (x > 0))
    yield ("The mask is turned around: gy passes where x > 0.", gy * (x < 0))
    yield ("There is no mask: where x < 0, moving x changes nothing, so its gradient is 0.", gy)
    yield ("Below zero yours has slope -1, as |x| would; max(x, 0) is flat there.",
           gy * np.sign(x))
    yield ("Below zero yours has a small slope (a leaky ReLU); max(x, 0) is flat there.",
           np.where(x > 0, gy, 0.01 * gy))


def check_tanh(ask):
    """Against the derivative, and by check_grads."""
    rng = np.random.default_rng(55)
    for where, shape in (("for a row of six numbers", (6,)), ("for maps (2, 3, 4, 5)",
                                                              (2, 3, 4, 5))):
        y, gy = np.tanh(rng.normal(size=shape)), rng.normal(size=shape)
        compare("gx", ask(gy, y), tanh_library(gy, y), where, tanh_suspects(gy, y))
    report = ta.check_grads(lambda t: _with(ask, ta.functional.tanh, t, True), rng.normal(size=12))
    if not report:
        raise Wrong(f"The numbers are right, but ta.check_grads is not content:\n{report}")
    return "1 - y*y: at most 1, and almost 0 where tanh saturates; check_grads agrees."


def tanh_suspects(gy, y):
    """Yield (text, array): what typical mistakes would give."""
    yield ("gy is missing: dL/dx = dL/dy * dy/dx, and you return dy/dx.", 1 - y * y)
    yield ("The square is missing: dy/dx = 1 - y * y.", gy * (1 - y))
    yield ("y is tanh x already; you take the tanh of it once more.", gy * (1 - np.tanh(y)**2))
    yield ("y (1 - y) is the derivative of the logistic function.", gy * y * (1 - y))
    yield ("The sign: 1 - y * y; a slope of tanh is never above 1.", gy * (1 + y * y))
    yield ("(1 - y)^2 is not 1 - y^2.", gy * (1 - y)**2)
    yield ("You divide by the slope, which leads from x to y; the gradient is multiplied by it.",
           gy / (1 - y * y))
    yield ("gy belongs to both terms: gy * (1 - y * y), in parentheses.", gy - y * y)
    yield ("gy belongs to both terms: gy * (1 - y * y), in parentheses.", gy * 1 - y**2)
    yield ("You return the forward; its derivative is wanted.", np.tanh(y))
    yield ("You treat tanh as a straight line; far from 0 it saturates, and gx goes to 0.", gy)
    yield ("2 y is the derivative of y * y; here 1 - y * y itself is the slope.",
           gy * (1 - 2 * y))
    yield ("2 y is the derivative of y * y; here 1 - y * y itself is the slope.", -gy * 2 * y)


def _with(ask, forward, t, of_result=False):
    """The library's forward with the student's backward, as an op."""
    class Mine(ta.Function):
        def forward(self, x):
            y = forward(ta.Tensor(x)).data
            self.save(y if of_result else x)
            return y

        def backward(self, gy):
            return (ask(gy, *self.saved),)

    return Mine()(t)


EXERCISES = (
    Exercise(
        number="5.1",
        title="ReLU's backward",
        call="relu_backward(gy, x) -> gx",
        library=relu_library,
        check=check_relu,
        hints=(
            "Move one x a little. Where x is positive, by how much does max(x, 0) move? And where "
            "it is negative?",
            "dL/dx = dL/dy * dy/dx, and dy/dx is 1 or 0. A comparison of arrays gives True and "
            "False, which multiply like 1 and 0.",
            "gx = gy * (x > 0). With > the slope at 0 itself is 0, as in the library.",
        ),
    ),
    Exercise(
        number="5.2",
        title="tanh's backward",
        call="tanh_backward(gy, y) -> gx, with y = tanh x",
        library=tanh_library,
        check=check_tanh,
        hints=(
            "tanh = sinh / cosh, sinh' = cosh and cosh' = sinh. Differentiate the quotient.",
            "The quotient rule gives (cosh^2 - sinh^2) / cosh^2. Write it with y = sinh / cosh "
            "alone: then backward needs y and not x.",
            "dy/dx = 1 - y*y, so gx = gy * (1 - y * y).",
        ),
    ),
)
