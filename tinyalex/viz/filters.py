"""The filters of a first layer as small pictures: the paper's figure 3."""

import math
import operator

import numpy as np

from tinyalex.viz import style

PAGE = 1600    # pixels across that a sheet of many filters may take
TILE = 176     # pixels across that one filter takes where there is room
LARGEST = 16_384
DPI = 150


def filters(weights, towers=1, zoom=None):
    """Draw every filter of a first layer as a picture.

    Each filter is scaled alone, its channels together, about mid-gray: a weight w becomes
    ``0.5 + w / (2 * max|w|)``.  So 0 is mid-gray in every filter, the weight of largest
    magnitude is black or white in its channel, and hues are comparable within a filter.  (The
    strength of a filter is not shown: a filter of zeros is plain gray.)  Pixels are drawn as
    sharp squares.  A filter that holds NaN or infinity is a white tile crossed out in black.

    Parameters
    ----------
    weights : array, shape (K, 3, KH, KW) or (K, 1, KH, KW)
        Filters over R, G, B, or over gray; any real numbers.  Not modified.
    towers : int
        How many towers share the filters.  The first K/towers belong to tower 0 and are drawn
        first, a thin labelled gap follows, then tower 1, as in the paper's 48 + 48.
    zoom : int, optional
        Pixels on the sheet per weight.  By default as many as fit: 8 for the paper's 96
        filters of 11 x 11, more where there are few, fewer where there are hundreds of large.

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError
        `weights` is no array of real numbers, or `towers` or `zoom` no integer.
    ValueError
        Not four axes, no filters, neither 1 nor 3 channels, filters that do not share out
        evenly between the towers, a zoom below 1, or one that makes too large a sheet.

    Notes
    -----
    Source: paper section 6.1 and figure 3.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> weights = np.random.default_rng(0).normal(0, 0.01, (96, 3, 11, 11))
    >>> viz.filters(weights, towers=2).alt_text[:47]
    '96 filters of 11 × 11 weights as color pictures'
    """
    weights = style.as_floats(weights, "weights")
    towers, zoom = _check(weights, towers, zoom)
    count, channels, height, width = weights.shape
    each = count // towers
    tiles, broken = scale(weights)
    columns = _columns(each, towers)
    zoom = zoom or _zoom(columns, max(height, width))
    wide, high = columns * (width + 1) * zoom, math.ceil(each / columns) * towers * height * zoom
    if max(wide, high) > LARGEST:
        raise ValueError(f"zoom={zoom} makes a sheet of {wide:,} x {high:,} pixels, more than "
                         f"{LARGEST:,} on a side: choose a smaller zoom, or fewer filters")
    sheets = [_sheet(tiles[t * each:(t + 1) * each], broken[t * each:(t + 1) * each],
                     columns, zoom) for t in range(towers)]  # each (rows, columns, 3) of pixels

    size = f"{count} {'filter' if count == 1 else 'filters'} of {height} × {width} weights"
    shares = [f"tower {t}: filters {t * each} to {(t + 1) * each - 1}" for t in range(towers)]
    notes = ["mid-gray is weight 0; each filter to its own scale"]
    if broken.any():
        notes.append(f"crossed out: {broken.sum()} with NaN or infinity")
    alt = f"{size} as {'color' if channels == 3 else 'gray'} pictures"
    alt += "; " + ", ".join(shares) if towers > 1 else ""
    alt += f"; {notes[1]}" if broken.any() else ""
    return _page(sheets, size, shares if towers > 1 else [], notes, alt + ".")


def scale(weights):
    """Return each filter as an RGB picture in 0..1, and which filters hold NaN or infinity.

    Parameters
    ----------
    weights : array of float, shape (K, 1 or 3, KH, KW)

    Returns
    -------
    tiles : array of float, shape (K, KH, KW, 3)
        ``0.5 + w / (2 * max|w|)``, the maximum taken over each filter; white where not finite.
    broken : array of bool, shape (K,)

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.viz.filters import scale
    >>> tiles, broken = scale(np.array([-2.0, 0.0, 1.0]).reshape(1, 3, 1, 1))
    >>> tiles.ravel().tolist()
    [0.0, 0.5, 0.75]
    """
    broken = ~np.isfinite(weights).all(axis=(1, 2, 3))
    safe = np.where(broken[:, None, None, None], 0.0, weights)
    peak = np.abs(safe).max(axis=(1, 2, 3), keepdims=True)
    # Divided before it is halved: twice the peak could pass the largest float.
    tiles = 0.5 + safe / np.where(peak > 0, peak, 1) / 2
    tiles = np.broadcast_to(tiles, (len(tiles), 3) + tiles.shape[2:])  # (K, 3, KH, KW)
    tiles = tiles.transpose(0, 2, 3, 1).copy()                         # (K, KH, KW, 3)
    tiles[broken] = 1
    return tiles, broken


def _sheet(tiles, broken, columns, zoom):
    """Lay tiles in rows, a white gap of one weight between them: uint8 (rows, columns, 3)."""
    count, height, width, _ = tiles.shape
    gap = min(zoom, 8)
    high, wide = height * zoom + gap, width * zoom + gap
    rows = math.ceil(count / columns)
    sheet = np.full((rows * high - gap, columns * wide - gap, 3), 255, np.uint8)
    for k in range(count):
        top, left = k // columns * high, k % columns * wide
        tile = np.rint(tiles[k] * 255).astype(np.uint8)
        tile = tile.repeat(zoom, axis=0).repeat(zoom, axis=1)  # (KH * zoom, KW * zoom, 3)
        if broken[k]:
            _cross_out(tile)
        sheet[top:top + high - gap, left:left + wide - gap] = tile
    return sheet


def _cross_out(tile):
    height, width = tile.shape[:2]
    tile[[0, -1]] = tile[:, [0, -1]] = 0
    steps = np.linspace(0, 1, 2 * max(height, width))
    down, right = (np.rint(steps * (side - 1)).astype(int) for side in (height, width))
    tile[down, right] = tile[down, width - 1 - right] = 0


def _columns(each, towers):
    """How many filters a row holds: a sheet wider than high, with few places left empty."""
    ideal = math.sqrt(each * towers * 8 / 3)  # 16 for the paper's 96
    choices = range(max(1, round(0.75 * ideal)), max(1, math.floor(1.3 * ideal)) + 1)
    return min(choices, key=lambda columns: (-each % columns, abs(columns - ideal)))


def _zoom(columns, side):
    return min(max(1, PAGE // (columns * (side + 1))), max(8, TILE // side))


def _page(sheets, title, labels, notes, alt):
    """Set the sheets under each other, pixel for pixel, each under its label."""
    high, wide = (n / DPI for n in (sum(len(sheet) for sheet in sheets), sheets[0].shape[1]))
    margin, heading, label, note = 0.25, 0.3, 0.32, 0.19  # inches
    height = high + 2 * margin + heading + label * len(labels) + note * len(notes)
    height = math.ceil(height * DPI) / DPI  # whole pixels, so that the sheets fall on whole pixels
    figure = style.new_figure(max(wide, 3.8) + 2 * margin, height, alt, DPI)
    page = style.bare_axes(figure, 0, 0, *figure.get_size_inches(), units="inches")
    top = height - margin
    style.write(page, margin, top, title, 11, weight="bold", va="top")
    top -= heading
    for t, sheet in enumerate(sheets):
        if labels:
            color = style.DEVICE_COLORS[t % len(style.DEVICE_COLORS)]
            middle = top - 0.62 * label
            page.fill_between([margin, margin + 0.12], middle - 0.06, middle + 0.06,
                              facecolor=color, edgecolor="white", linewidth=0,
                              hatch=style.DEVICE_HATCHES[t % len(style.DEVICE_HATCHES)])
            style.write(page, margin + 0.2, middle, labels[t], 9, va="center_baseline")
            top -= label
        # Whole pixels from the corner: the picture is then exactly the sheet, nothing resampled.
        left, bottom = round(margin * DPI), round((top - len(sheet) / DPI) * DPI)
        axes = style.bare_axes(figure, left / DPI, bottom / DPI,
                               sheet.shape[1] / DPI, len(sheet) / DPI)
        axes.imshow(sheet, interpolation="nearest", aspect="auto")
        top -= len(sheet) / DPI
    for k, line in enumerate(notes):
        style.write(page, margin, top - 0.08 - k * note, line, 8, style.SOFT, va="top")
    return figure


def _check(weights, towers, zoom):
    if weights.ndim != 4 or 0 in weights.shape:
        raise ValueError(f"weights must have shape (K, 3, KH, KW), K, KH and KW at least 1, "
                         f"found {weights.shape}")
    count, channels = weights.shape[:2]
    if channels not in (1, 3):
        raise ValueError(f"weights have {channels} input channels: only a first layer's filters, "
                         "over 3 (red, green, blue) or 1 (gray), are pictures; pass conv1's "
                         "weights, or one channel of a later layer as gray: weights[:, c:c + 1]")
    towers = operator.index(towers)  # a TypeError for what is no integer
    if towers < 1 or count % towers:
        raise ValueError(f"towers={towers} cannot share {count} filters evenly: "
                         f"name a divisor of {count}")
    zoom = None if zoom is None else operator.index(zoom)
    if zoom is not None and zoom < 1:
        raise ValueError(f"zoom must be at least 1 pixel per weight, found {zoom}")
    return towers, zoom
