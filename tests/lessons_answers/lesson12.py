"""Answers to lesson 12: the average over ten crops."""
import numpy as np

from . import right, wrong


def five(picture, size, middle=0, short=0):
    """The corners and the center; `middle` and `short` are mistakes."""
    _, H, W = picture.shape
    y, x = H - size - short, W - size - short
    places = [(0, 0), (0, x), (y, 0), (y, x), ((H - size) // 2 + middle, (W - size) // 2 + middle)]
    return np.stack([picture[:, y:y + size, x:x + size] for y, x in places])


def ten(picture, size):
    crops = five(picture, size)
    return np.concatenate([crops, crops[:, :, :, ::-1]])


def softmax(z, axis=1):
    e = np.exp(z)
    return e / e.sum(axis=axis, keepdims=True)


@right("12.1")
def at_once(predict, picture, size):
    return softmax(predict(ten(picture, size))).mean(axis=0)


@right("12.1")
def one_by_one(predict, picture, size):
    total = 0
    for crop in ten(picture, size):
        z = predict(crop[None])[0]
        e = np.exp(z - z.max())
        total = total + e / e.sum()
    return total / 10


@right("12.1")
def mirrored_picture(predict, picture, size):
    both = [softmax(predict(five(p, size))) for p in (picture, picture[:, :, ::-1])]
    return np.concatenate(both).sum(axis=0) / 10


def answer(says, average=None, crops=ten):
    """A wrong answer: ``average(logits)`` of ``crops(picture, size)``."""
    @wrong("12.1", says)
    def ten_crop(predict, picture, size):
        logits = predict(crops(picture, size))
        return average(logits) if average else softmax(logits).mean(axis=0)
    return ten_crop


answer("You average the logits, and take", lambda z: softmax(z.mean(axis=0), axis=0))
answer("These are averaged logits", lambda z: z.mean(axis=0))
answer("You add ten probabilities up", lambda z: softmax(z).sum(axis=0))
answer("You take the largest of ten", lambda z: softmax(z).max(axis=0))
answer("The softmax runs over the crops", lambda z: softmax(z, axis=0).mean(axis=0))
answer("over crops and classes together", lambda z: (np.exp(z) / np.exp(z).sum()).mean(axis=0))
answer("one crop's no is a veto",
       lambda z: softmax(z).prod(axis=0) / softmax(z).prod(axis=0).sum())
answer("You take the median", lambda z: np.median(softmax(z), axis=0))
answer("has shape (10,); expected (7,)", lambda z: softmax(z).mean(axis=1))
answer("has shape (); expected (7,)", lambda z: softmax(z).mean(axis=0).argmax())
answer("Each of the five places has a mirror image", crops=five)
answer("Some are upside down",
       crops=lambda p, s: np.concatenate([five(p, s), five(p, s)[:, :, ::-1]]))
answer("Some have their colors turned around",
       crops=lambda p, s: np.concatenate([five(p, s), five(p, s)[:, ::-1]]))
answer("Some are turned by 180",
       crops=lambda p, s: np.concatenate([five(p, s), five(p, s)[:, :, ::-1, ::-1]]))
answer("Yours for the center starts at row 3", crops=lambda p, s: np.concatenate(
    [five(p, s, middle=1), five(p, s, middle=1)[..., ::-1]]))
answer("A crop of the far corner ends where", crops=lambda p, s: np.concatenate(
    [five(p, s, short=1), five(p, s, short=1)[..., ::-1]]))
answer("predict was given shape (10, 8, 8, 3)", crops=lambda p, s: ten(p, s).transpose(0, 2, 3, 1))
