"""Pictures with the net's best guesses: the left panel of the paper's figure 4."""

import operator

import numpy as np

from tinyalex.viz import style

PICTURE, BAR, LABEL, RANK, FOOT = 2.1, 0.215, 0.27, 0.17, 0.2  # inches
GAP, MARGIN = 0.34, 0.25


def predictions(pictures, probabilities, classes, labels=None, top=5, columns=4):
    """Draw pictures, each with its true class and the most probable classes as bars.

    The bar of the true class is orange, hatched, ticked and set in bold; the others are plain
    blue.  Where the true class is not among the guesses, its rank and probability stand under
    the picture.  Long names lose their middle.  Of equal probabilities, the class of lower
    number comes first.

    Parameters
    ----------
    pictures : sequence of uint8 arrays, each of shape (H, W, 3), or one array (N, H, W, 3)
        Red, green, blue; sizes may differ, and small pictures are enlarged. Not modified.
    probabilities : array, shape (N, K)
        Each row lies in 0..1 and sums to 1, as softmax gives it.
    classes : sequence of K str
        What the classes are called.
    labels : sequence of N int, optional
        The true classes, 0 to K-1; without them nothing is marked.
    top : int
        How many guesses per picture; at most K are drawn.
    columns : int
        Pictures per row.

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError
        Pictures that are not uint8, or arguments that are no numbers.
    ValueError
        No pictures, shapes or counts that do not fit together, labels out of range, or rows
        that are no probabilities (NaN, below 0, above 1, or a sum that is not 1).

    Notes
    -----
    Source: paper section 6.1 and figure 4.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    >>> figure = viz.predictions([picture], [[0.1, 0.7, 0.2]], ("cat", "dog", "ox"), labels=[1])
    >>> figure.alt_text
    '1 picture with its most probable classes. Picture 1: dog 70 %, truly dog.'
    """
    probabilities = style.as_floats(probabilities, "probabilities")
    pictures, classes, labels = _check(pictures, probabilities, classes, labels)
    top, columns = operator.index(top), min(operator.index(columns), len(pictures))
    if top < 1 or columns < 1:
        raise ValueError(f"top and columns must be at least 1, found top={top}, columns={columns}")
    top = min(top, len(classes))
    order = np.argsort(-probabilities, axis=1, kind="stable")  # (N, K), best first

    ranks = None if labels is None else 1 + np.argmax(order == labels[:, None], axis=1)  # (N,)
    lines = [slice(n, n + columns) for n in range(0, len(pictures), columns)]
    tall = [max(_size(picture)[1] for picture in pictures[line]) for line in lines]
    below = [top * BAR + (0.08 if labels is None else LABEL + RANK * (ranks[line] > top).any())
             for line in lines]
    foot = 0 if labels is None else FOOT
    width = columns * (PICTURE + GAP) - GAP + 2 * MARGIN
    height = sum(tall) + sum(below) + (len(lines) - 1) * GAP + foot + 2 * MARGIN
    figure = style.new_figure(width, height, _alt(probabilities, classes, labels, order))
    if height * figure.dpi >= 2**16:
        raise ValueError(f"{len(pictures)} pictures in {columns} columns are too high a page to "
                         "draw: pass fewer at a time, or more columns")
    edge = height - MARGIN
    for line, high, deep in zip(lines, tall, below):
        for n in range(*line.indices(len(pictures))):
            left = MARGIN + n % columns * (PICTURE + GAP)
            _picture(figure, pictures[n], left, edge - high)
            cell = style.bare_axes(figure, left, edge - high - deep, PICTURE, deep, "inches")
            truth = None if labels is None else labels[n]
            if truth is not None:
                _truth(figure, cell, deep, classes[truth], probabilities[n, truth],
                       None if ranks[n] <= top else ranks[n])
            for place, k in enumerate(order[n, :top]):
                _bar(figure, cell, (top - place - 0.5) * BAR, classes[k], probabilities[n, k],
                     k == truth)
        edge -= high + deep + GAP
    if foot:
        style.write(figure, MARGIN / width, (MARGIN - 0.06) / height,
                    "✓ and hatching: the true class", 7.5, style.SOFT, va="bottom", gid="note")
    return figure


def _size(picture):
    """Width and height in inches of a picture fitted into a square, its proportions kept."""
    high, wide = picture.shape[:2]
    return tuple(max(PICTURE * n / max(high, wide), 0.02) for n in (wide, high))


def _picture(figure, picture, left, bottom):
    """The whole picture, standing right above its name."""
    width, height = _size(picture)
    axes = style.bare_axes(figure, left + (PICTURE - width) / 2, bottom, width, height)
    # Small pictures as the squares they are; large ones smoothed as they shrink.
    few = max(picture.shape[:2]) < 100
    axes.imshow(picture, interpolation="nearest" if few else "antialiased", aspect="auto")


def _truth(figure, cell, top, name, probability, rank):
    """The true class under the picture, and where it came if it is not among the bars."""
    name = style.shorten(figure, name, PICTURE, 10, "bold")
    style.write(cell, PICTURE / 2, top - 0.55 * LABEL, name, 10, weight="bold", ha="center",
                va="center_baseline", gid="truth")
    if rank is not None:
        style.write(cell, PICTURE / 2, top - LABEL - 0.4 * RANK,
                    f"rank {rank:,}, {_percent(probability)}", 7.5, style.SOFT, ha="center",
                    va="center_baseline", gid="rank")


def _bar(figure, cell, y, name, probability, is_true):
    """One guess: a pale bar as long as its probability, the name upon it, the number right."""
    from matplotlib.patches import Rectangle

    color = style.ORANGE if is_true else style.BLUE
    half = 0.43 * BAR
    cell.add_patch(Rectangle((0, y - half), PICTURE, 2 * half, color="#f3f4f5", linewidth=0))
    cell.add_patch(Rectangle(
        (0, y - half), PICTURE * probability, 2 * half, facecolor=style.mix(color, 0.45),
        edgecolor=style.mix(color, 0.75), hatch="////" if is_true else "", linewidth=0,
        gid="bar of the true class" if is_true else "bar"))
    weight = "bold" if is_true else "normal"
    number = style.write(cell, PICTURE - 0.04, y, _percent(probability), 8, weight=weight,
                         ha="right", va="center_baseline", gid="percent")
    used = style.extent(figure, number.get_text(), 8, weight)[0] + 0.16
    tick = "✓ " if is_true else ""
    used += style.extent(figure, tick, 8.5, weight)[0]
    name = style.shorten(figure, name, PICTURE - used, 8.5, weight)
    style.write(cell, 0.06, y, tick + name, 8.5, weight=weight, va="center_baseline", gid="guess")


def _percent(probability):
    percent = 100 * probability
    if percent < 0.1:
        return "< 0.1 %" if percent > 0 else "0 %"
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def _alt(probabilities, classes, labels, order):
    lines = [f"{len(order)} {'picture with its' if len(order) == 1 else 'pictures with their'} "
             "most probable classes."]
    for n, best in enumerate(order[:, 0]):
        truth = "" if labels is None else f", truly {classes[labels[n]]}"
        lines.append(f"Picture {n + 1}: {classes[best]} {_percent(probabilities[n, best])}{truth}.")
    return " ".join(lines)


def _check(pictures, probabilities, classes, labels):
    pictures = [np.asarray(picture) for picture in pictures]
    classes = [str(name) for name in classes]
    for n, picture in enumerate(pictures):
        if picture.dtype != np.uint8:
            raise TypeError(f"pictures[{n}] must be uint8 (0 to 255), found {picture.dtype}")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
            raise ValueError(f"pictures[{n}] must have shape (H, W, 3), found {picture.shape}")
    if not pictures:
        raise ValueError("pictures is empty: there is nothing to draw")
    want = (len(pictures), len(classes))
    if probabilities.shape != want or not classes:
        raise ValueError(f"probabilities must have shape (pictures, classes) = {want}, "
                         f"found {probabilities.shape}")
    odd = ~((probabilities >= 0) & (probabilities <= 1.001)).all(axis=1)  # True for NaN as well
    odd |= ~(np.abs(probabilities.sum(axis=1) - 1) < 0.01)  # room for half precision
    if odd.any():
        n = int(np.flatnonzero(odd)[0])
        low, high, total = (f(probabilities[n]) for f in (np.min, np.max, np.sum))
        raise ValueError(f"probabilities[{n}] must lie in 0..1 and sum to 1, found {low:.3g} to "
                         f"{high:.3g}, sum {total:.3g}: pass softmax's output, not the logits")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"labels must be integers, found {labels.dtype}")
        if labels.shape != want[:1]:
            raise ValueError(f"labels must be one class per picture, {want[0]} in all, "
                             f"found shape {labels.shape}")
        if labels.min() < 0 or labels.max() >= want[1]:
            raise ValueError(f"labels must lie in 0..{want[1] - 1}, "
                             f"found {labels.min()} to {labels.max()}")
    return pictures, classes, labels
