"""Lesson 12: the average over ten crops."""
import numpy as np

from .judging import Exercise, Wrong, compare

PLACES = ("top left", "top right", "bottom left", "bottom right", "center")


def crops(picture, size):
    """The five places, then the same mirrored: (10, 3, size, size)."""
    H, W = picture.shape[1:]
    corners = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size),
               ((H - size) // 2, (W - size) // 2)]
    five = np.stack([picture[:, y:y + size, x:x + size] for y, x in corners])
    return np.concatenate([five, five[..., ::-1]])


def softmax(logits, axis=-1):
    """Probabilities from logits."""
    e = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def library(predict, picture, size):
    """The mean of the ten probabilities."""
    return softmax(np.asarray(predict(crops(picture, size)))).mean(axis=0)


class Net:
    """A made-up net that remembers which crops it was shown."""

    def __init__(self, size, seed):
        self.weights = np.random.default_rng([12, seed]).normal(size=(7, 3 * size * size))
        self.size, self.seen = size, []

    def predict(self, images):
        """Logits (n, 7) of crops (n, 3, size, size)."""
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != (3, self.size, self.size):
            raise Wrong(f"predict was given shape {images.shape}; expected (n, 3, {self.size}, "
                        f"{self.size}): n crops.")
        self.seen += [image.copy() for image in images]
        return 3 * np.tanh(images.reshape(len(images), -1) @ self.weights.T)


def check(ask):
    """Which crops the net was shown, and then how its answers are averaged."""
    for number, (H, W, size) in enumerate(((12, 12, 8), (11, 13, 7))):
        net = Net(size, number)
        picture = np.random.default_rng([120, number]).uniform(-1, 1, (3, H, W)) / size
        answer = ask(lambda images, net=net: net.predict(images), picture, size)
        judge_crops(net.seen, picture, size)
        logits = net.predict(crops(picture, size))
        p = softmax(logits)
        compare("the answer", answer, p.mean(axis=0), f"for a picture {H} x {W}",
                suspects(p, logits))
    return "Ten crops, shown to the net and averaged as the library does."


def judge_crops(seen, picture, size):
    """Raise Wrong unless the net saw the ten, and them alone."""
    five, ten = crops(picture, size)[:5], crops(picture, size)
    names = [*PLACES, *(f"{place}, mirrored" for place in PLACES)]

    def shown(crop):
        return any(np.array_equal(crop, other) for other in seen)

    missing = [name for name, crop in zip(names, ten, strict=True) if not shown(crop)]
    if not missing and len(seen) == 10:
        return
    strange = [s for s in seen if not any(np.array_equal(s, crop) for crop in ten)]
    head = f"The net was shown {len(seen)} crops. "
    if not missing:
        raise Wrong(head + "All ten are among them, but some more than once, or others too.")
    head += f"Missing: {'; '.join(missing)}.\n"
    back, mirror = slice(None, None, -1), "A photo is mirrored left to right, along its last axis"
    turns = (((slice(None), back), f"Some are upside down. {mirror}."),
             ((back,), f"Some have their colors turned around. {mirror}."),
             ((slice(None), back, back), f"Some are turned by 180 degrees. {mirror} alone."))
    for turn, text in turns:
        if strange and any(np.array_equal(strange[-1], crop[turn]) for crop in five):
            raise Wrong(head + text)
    if len(missing) == 5 and not strange:
        raise Wrong(head + "Each of the five places has a mirror image: ten in all.")
    H, W = picture.shape[1:]
    for dy, dx in np.ndindex(H - size + 1, W - size + 1):
        if missing[0] == "center" and strange and np.array_equal(
                strange[0], picture[:, dy:dy + size, dx:dx + size]):
            raise Wrong(head + f"Yours for the center starts at row {dy}, column {dx}; the center "
                        f"starts at row {(H - size) // 2}, column {(W - size) // 2}.")
    raise Wrong(head + "A crop of the far corner ends where the picture ends: it starts at "
                "height - size, width - size.")


def suspects(p, logits):
    """Yield (text, array): what typical mistakes would give."""
    yield ("You average the logits, and take the softmax of that; the paper averages what the "
           "softmax says, ten votes.", softmax(logits.mean(axis=0)))
    yield ("These are averaged logits. Probabilities are averaged: a softmax for each crop.",
           logits.mean(axis=0))
    yield ("You add ten probabilities up; their mean is wanted, which sums to 1.", p.sum(axis=0))
    yield ("You take the largest of ten; the mean is wanted, so that all have a vote.",
           p.max(axis=0))
    yield ("The softmax runs over the crops; it runs over the classes, axis 1.",
           softmax(logits, axis=0).mean(axis=0))
    yield ("The softmax runs over crops and classes together; each crop has its own.",
           (np.exp(logits) / np.exp(logits).sum()).mean(axis=0))
    yield ("You multiply the probabilities, so that one crop's no is a veto; the mean is wanted.",
           p.prod(axis=0) / p.prod(axis=0).sum())
    yield ("You take the median; the mean is wanted.", np.median(p, axis=0))
    yield ("Only the mirrored five count in the mean.", p[5:].mean(axis=0))
    yield ("Only the plain five count in the mean; the mirrored five vote too.",
           p[:5].mean(axis=0))


EXERCISES = (Exercise(
    number="12.1",
    title="the average over ten crops",
    call="ten_crop(predict, picture, size) -> probabilities (classes,)",
    library=library,
    check=check,
    hints=(
        "Five places: the four corners and the center. Each as it is and mirrored left to right. "
        "picture is (3, H, W); a crop is picture[:, y:y + size, x:x + size].",
        "predict takes (10, 3, size, size) and gives logits (10, classes). A softmax for each crop "
        "turns them into probabilities; average these, not the logits.",
        "y is 0, H - size or (H - size) // 2, and x likewise. With the five in a list:\n"
        "    five = np.stack(five)\n"
        "    ten = np.concatenate([five, five[..., ::-1]])\n"
        "    e = np.exp(predict(ten))\n"
        "    return (e / e.sum(axis=1, keepdims=True)).mean(axis=0)",
    ),
),)
