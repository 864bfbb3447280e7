"""Answers to lesson 10: the paper's update rule."""
import numpy as np

from . import right, wrong


@right("10.1")
def two_lines(w, v, g, lr, momentum, weight_decay):
    v = momentum * v - weight_decay * lr * w - lr * g
    return w + v, v


@right("10.1")
def one_gradient(w, v, g, lr, momentum, weight_decay):
    g = g + weight_decay * w
    v = momentum * v - lr * g
    return w + v, v


@right("10.1")
def on_copies(w, v, g, lr, momentum, weight_decay):
    w, v = np.copy(w), np.copy(v)
    v *= momentum
    v -= lr * (weight_decay * w + g)
    w += v
    return [w, v]


def rule(says, velocity, weight=lambda w, v, new, lr, g, m, d: w + new):
    """A wrong answer, by its velocity and what it does with it."""
    @wrong("10.1", says)
    def sgd_step(w, v, g, lr, momentum, weight_decay):
        new = velocity(w, v, g, lr, momentum, weight_decay)
        return weight(w, v, new, lr, g, momentum, weight_decay), new
    return sgd_step


def good(w, v, g, lr, m, d):
    return m * v - d * lr * w - lr * g


rule("This is PyTorch's velocity, without learning rate and sign",
     lambda w, v, g, lr, m, d: m * v + g + d * w,
     lambda w, v, new, lr, g, m, d: w - lr * new)
rule("The gradient points uphill", lambda w, v, g, lr, m, d: m * v - d * lr * w + lr * g)
rule("The weight decay is multiplied by lr as well",
     lambda w, v, g, lr, m, d: m * v - lr * g - d * w)
rule("The weight decay is missing", lambda w, v, g, lr, m, d: m * v - lr * g)
rule("This decay makes weights grow", lambda w, v, g, lr, m, d: m * v - lr * g + d * lr * w)
rule("not to the gradient", lambda w, v, g, lr, m, d: m * v - lr * g - d * lr * g)
rule("You damp the gradient by 1 - momentum",
     lambda w, v, g, lr, m, d: m * v - (1 - m) * lr * (g + d * w))
rule("The old velocity is forgotten", lambda w, v, g, lr, m, d: -lr * g - d * lr * w)
rule("The old velocity goes on undamped", lambda w, v, g, lr, m, d: v - lr * g - d * lr * w)
rule("momentum multiplies the old velocity alone",
     lambda w, v, g, lr, m, d: m * (v - lr * g - d * lr * w) if m else -lr * (g + d * w))
rule("w moves by the old velocity", good, lambda w, v, new, lr, g, m, d: w + v)
rule("The minus stands in v already", good, lambda w, v, new, lr, g, m, d: w - new)
rule("The velocity holds lr already", good, lambda w, v, new, lr, g, m, d: w + lr * new)
rule("You look ahead as Nesterov does", good,
     lambda w, v, new, lr, g, m, d: w + m * new - lr * (g + d * w))
rule("outside of v", lambda w, v, g, lr, m, d: m * v - lr * g,
     lambda w, v, new, lr, g, m, d: w + new - lr * d * w)


@wrong("10.1", "in the wrong order")
def turned(w, v, g, lr, momentum, weight_decay):
    return two_lines(w, v, g, lr, momentum, weight_decay)[::-1]


@wrong("10.1", "writes into one of its arguments")
def in_place(w, v, g, lr, momentum, weight_decay):
    v *= momentum
    v -= lr * (g + weight_decay * w)
    w += v
    return w, v
