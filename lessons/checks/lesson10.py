"""Lesson 10: the paper's update rule."""
import numpy as np
import tinyalex as ta

from .judging import Exercise, alike, compare, several

STAGES = (                               # what is new, steps, momentum, weight decay, rates
    ("in one step without momentum and weight decay", 1, 0.0, 0.0, (0.5,)),
    ("with weight decay (it is right without)", 1, 0.0, 0.25, (0.5,)),
    ("in the third step with momentum 0.75", 3, 0.75, 0.0, (0.5,)),
    ("in a step of 50, the rate falling from 0.1 to 0.01 on the way", 50, 0.9, 0.0005,
     (0.1, 0.01)),
)


def library(w, v, g, lr, momentum, weight_decay):
    """One step of the library's SGD."""
    p = ta.nn.Parameter(w.copy())
    opt = ta.optim.SGD([p], lr, momentum, weight_decay)
    opt.velocity[0] = v.copy()
    p.grad = g.copy()
    step = ta.random.get_state()
    opt.step()
    ta.random.set_state(**step)
    return p.data, opt.velocity[0]


def check(ask):
    """Follow the library for 50 steps, the student on its own track."""
    for where, steps, momentum, decay, rates in STAGES:
        rng = np.random.default_rng(10)
        w, v = rng.normal(size=(3, 4)), np.zeros((3, 4))
        for t in range(steps):
            g, lr = rng.normal(size=w.shape), rates[len(rates) * t // steps]
            rule = (w, v, g, lr, momentum, decay)
            want_w, want_v = library(*rule)
            got_w, got_v = several("sgd_step", ask(*rule), ("w", "v"))
            causes = [text for text, a, b in suspects(*rule)
                      if alike(np.asarray(got_w), a) and alike(np.asarray(got_v), b)]
            for name, got, want in (("v", got_v, want_v), ("w", got_w, want_w)):
                compare(name, got, want, where, [(text, got) for text in causes], atol=1e-12)
            w, v = got_w, got_v
    return "The same track as the library's for 50 steps, through a fall of the learning rate."


def suspects(w, v, g, lr, momentum, decay):
    """Yield (text, w, v): what typical mistakes would give."""
    right = momentum * v - decay * lr * w - lr * g
    plain = momentum * v + decay * w + g
    yield ("This is PyTorch's velocity, without learning rate and sign. Here v is the step itself: "
           "the rate stands inside, and w + v is the new w.", w - lr * plain, plain)
    yield ("This is PyTorch's velocity, without learning rate. Here v is the step itself: the "
           "rate stands inside.", w - lr * plain, -plain)
    yield ("w and v are returned in the wrong order.", right, w + right)
    for v_, text in (
            (momentum * v - decay * lr * w + lr * g,
             "The gradient points uphill; we go down: - lr * g."),
            (momentum * v - g - decay * lr * w, "The gradient is taken whole: - lr * g."),
            (momentum * v - lr * g - decay * w, "The weight decay is multiplied by lr as well."),
            (momentum * v - lr * g, "The weight decay is missing."),
            (momentum * v - lr * g + decay * lr * w,
             "This decay makes weights grow: - weight_decay * lr * w."),
            (momentum * v - lr * g - decay * lr * g,
             "The decay is in proportion to the weights, not to the gradient."),
            (momentum * v - (1 - momentum) * lr * (g + decay * w),
             "You damp the gradient by 1 - momentum; the paper does not."),
            (-lr * (g + decay * w), "The old velocity is forgotten: momentum * v."),
            (v - lr * (g + decay * w), "The old velocity goes on undamped: momentum * v."),
            (momentum * (v - lr * (g + decay * w)),
             "momentum multiplies the old velocity alone, not the new gradient.")):
        if not np.allclose(v_, right):
            yield text, w + v_, v_
    yield ("w moves by the old velocity: compute v first, then w + v.", w + v, right)
    yield ("v is what w moves by: add it. The minus stands in v already.", w - right, right)
    yield ("The velocity holds lr already; do not multiply by it again.", w + lr * right, right)
    yield ("You look ahead as Nesterov does; the paper adds v and no more.",
           w + momentum * right - lr * (g + decay * w), right)
    yield ("The weights shrink by themselves, outside of v; in the paper the decay is part of v, "
           "so it has momentum too.", w + momentum * v - lr * g - decay * lr * w,
           momentum * v - lr * g)


EXERCISES = (Exercise(
    number="10.1",
    title="the paper's update",
    call="sgd_step(w, v, g, lr, momentum, weight_decay) -> w, v",
    library=library,
    check=check,
    hints=(
        "Section 5 of the paper has two lines: one for the velocity v, one for the weight w. Which "
        "of them does the learning rate stand in?",
        "The new v has three terms: what is left of the old v, the pull of the weight decay "
        "towards 0, and the step downhill. lr stands in the last two. Then w moves by v.",
        "Two lines, without +=, which would write into the caller's arrays:\n"
        "    v = momentum * v - weight_decay * lr * w - lr * g\n"
        "    return w + v, v",
    ),
),)
