"""Many pictures on a page: a contact sheet of one photo's augmentations, and nearest neighbors."""

import operator

import numpy as np

from tinyalex.viz import style

MARGIN, GAP, HEAD = 0.25, 0.07, 0.42     # inches
SIDE, LABEL = 1.05, 0.2


def contact_sheet(pictures, original=None, columns=8, captions=None, title=None):
    """Draw pictures in rows, as a photographer's contact sheet: one photo, augmented 48 times.

    Parameters
    ----------
    pictures : sequence of uint8 arrays (H, W, 3), or one array (N, H, W, 3)
    original : uint8 array (H, W, 3), optional
        What they were made from; stands framed over them, twice as large.
    columns : int
    captions : sequence of N str, optional
        A line under each; long ones lose their middle.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError, ValueError
        Pictures that are not uint8 (H, W, 3), none at all, or counts that do not fit.

    Notes
    -----
    Source: paper section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> viz.contact_sheet(np.zeros((48, 8, 8, 3), np.uint8)).alt_text
    'A contact sheet of 48 pictures, 8 in a row.'
    """
    pictures = _check(pictures, "pictures")
    columns = min(operator.index(columns), len(pictures))
    if columns < 1:
        raise ValueError(f"columns must be at least 1, found {columns}")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"captions must be one for each of the {len(pictures)} pictures, "
                         f"found {len(captions)}")
    first = [] if original is None else _check([original], "original")
    step, line = SIDE + GAP, SIDE + GAP + LABEL * (captions is not None)
    rows = -(-len(pictures) // columns)
    width = max(columns * step - GAP, 3.2) + 2 * MARGIN
    height = 2 * MARGIN + HEAD + rows * line - GAP + (2 * SIDE + 0.2) * bool(first)
    alt = (f"A contact sheet of {len(pictures)} pictures, {columns} in a row"
           + ", made from the one framed over them" * bool(first) + ".")
    figure = style.new_figure(width, height, f"{title}. {alt}" if title else alt)
    page = style.bare_axes(figure, 0, 0, width, height, "inches")
    name = f"One photo, {len(pictures)} times" if first else f"{len(pictures)} pictures"
    _title(page, title or name)
    top = height - MARGIN - HEAD
    if first:
        _picture(figure, first[0], MARGIN, top - 2 * SIDE, 2 * SIDE)
        _frame(page, first[0], MARGIN, top - 2 * SIDE, 2 * SIDE)
        style.write(page, MARGIN + 2 * SIDE + 0.15, top - SIDE, "the original", 10,
                    va="center_baseline", gid="note")
        top -= 2 * SIDE + 0.2
    for n, picture in enumerate(pictures):
        left, low = MARGIN + n % columns * step, top - n // columns * line - SIDE
        _picture(figure, picture, left, low, SIDE)
        if captions is not None:
            _caption(page, left, low, captions[n])
    return figure


def neighbors(pictures, rows, distances=None, names=None, title=None):
    """Draw pictures with their nearest neighbors: the right panel of the paper's figure 4.

    Each row begins with the picture that was asked for, framed; the others follow, nearest first.
    Where names are known, a neighbor of another name has a cross and one of the same a tick.

    Parameters
    ----------
    pictures : sequence of uint8 arrays (H, W, 3), or one array (N, H, W, 3)
    rows : sequence of sequences of int
        Places in `pictures`: first what was asked for, then its neighbors.
    distances : sequence of sequences of float, optional
        Of each neighbor in each row, so one less than the row has.
    names : sequence of N str, optional
        The class of each picture.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError, ValueError
        Pictures that are not uint8 (H, W, 3), places that are not there, counts that differ.

    Notes
    -----
    Source: paper section 6.1 and figure 4.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> pictures = np.zeros((4, 8, 8, 3), np.uint8)
    >>> viz.neighbors(pictures, [[0, 2, 3]], names=["cat", "dog", "cat", "ox"]).alt_text
    'Nearest neighbors of 1 picture. cat: cat, ox. 1 of 2 neighbors have the same name.'
    """
    pictures, rows = _check(pictures, "pictures"), [list(row) for row in rows]
    if not rows or min(map(len, rows)) < 2:
        raise ValueError(f"rows must hold at least a picture and a neighbor each, found {rows}")
    for n, row in enumerate(rows):
        if not all(0 <= operator.index(i) < len(pictures) for i in row):
            raise ValueError(f"rows[{n}] must name places in pictures, 0 to {len(pictures) - 1}, "
                             f"found {row}")
        if distances is not None and len(distances[n]) != len(row) - 1:
            raise ValueError(f"distances[{n}] must be one for each of {len(row) - 1} neighbors, "
                             f"found {len(distances[n])}")
    if names is not None and len(names) != len(pictures):
        raise ValueError(f"names must be one for each of the {len(pictures)} pictures, found "
                         f"{len(names)}")
    lines = (names is not None) + (distances is not None)
    step, line, apart = SIDE + GAP, SIDE + 0.14 + 0.17 * lines, 0.35
    width = max(max(map(len, rows)) * step - GAP + apart, 3.2) + 2 * MARGIN
    height = 2 * MARGIN + HEAD + len(rows) * line
    figure = style.new_figure(width, height, _alt(title, rows, names))
    page = style.bare_axes(figure, 0, 0, width, height, "inches")
    _title(page, title or "Nearest neighbors")
    for n, row in enumerate(rows):
        low = height - MARGIN - HEAD - n * line - SIDE
        for k, i in enumerate(row):
            left = MARGIN + k * step + apart * bool(k)
            _picture(figure, pictures[i], left, low, SIDE)
            if not k:
                _frame(page, pictures[i], left, low, SIDE)
            if names is not None:
                same = "" if not k else "✓ " if names[i] == names[row[0]] else "✗ "
                _caption(page, left, low, f"{same}{names[i]}", "normal" if k else "bold")
            if distances is not None and k:
                _caption(page, left, low - 0.17 * (names is not None),
                         f"{distances[n][k - 1]:.3g}", color=style.SOFT)
    return figure


def _alt(title, rows, names):
    text = f"Nearest neighbors of {len(rows)} picture{'s' * (len(rows) != 1)}."
    if names is not None:
        for row in rows:
            text += f" {names[row[0]]}: {', '.join(str(names[i]) for i in row[1:])}."
        pairs = [names[i] == names[row[0]] for row in rows for i in row[1:]]
        text += f" {sum(pairs)} of {len(pairs)} neighbors have the same name."
    return f"{title}. {text}" if title else text


def _size(picture, side):
    """Width and height in inches of a picture fitted into a square, its proportions kept."""
    high, wide = picture.shape[:2]
    return tuple(max(side * n / max(high, wide), 0.02) for n in (wide, high))


def _picture(figure, picture, left, low, side):
    width, height = _size(picture, side)
    axes = style.bare_axes(figure, left + (side - width) / 2, low + (side - height) / 2, width,
                           height)
    few = max(picture.shape[:2]) < 100           # small pictures as the squares they are
    axes.imshow(picture, interpolation="nearest" if few else "antialiased", aspect="auto")


def _frame(page, picture, left, low, side):
    from matplotlib.patches import Rectangle

    (width, height), edge = _size(picture, side), 0.03
    page.add_patch(Rectangle((left + (side - width) / 2 - edge, low + (side - height) / 2 - edge),
                             width + 2 * edge, height + 2 * edge, facecolor="none",
                             edgecolor=style.INK, linewidth=2, gid="frame"))


def _caption(page, left, low, text, weight="normal", color=style.INK):
    text = style.shorten(page.figure, text, SIDE - 0.06, 8, weight)
    style.write(page, left + SIDE / 2, low - 0.12, text, 8, color, weight=weight, ha="center",
                va="center_baseline", gid="caption")


def _title(page, title):
    width, height = page.figure.get_size_inches()
    title = style.shorten(page.figure, title, width - 2 * MARGIN, 12, "bold")
    style.write(page, MARGIN, height - MARGIN, title, 12, weight="bold", va="top", gid="title")


def _check(pictures, name):
    pictures = [np.asarray(picture) for picture in pictures]
    if not pictures:
        raise ValueError(f"{name} is empty: there is nothing to draw")
    for n, picture in enumerate(pictures):
        if picture.dtype != np.uint8:
            raise TypeError(f"{name}[{n}] must be uint8 (0 to 255), found {picture.dtype}")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
            raise ValueError(f"{name}[{n}] must have shape (H, W, 3), found {picture.shape}")
    return pictures
