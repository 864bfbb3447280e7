"""Grids of cells with numbers in them, drawn at a place given in inches."""

import numpy as np

from tinyalex.viz import style


def grid(page, left, top, cell, numbers, values):
    """Cells in the color of the pixel of each number; 0 is padding."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    ramp = colormaps["cividis"]
    for (r, c), n in np.ndenumerate(numbers):
        color = ramp((n - 1) / max(len(values) - 2, 1)) if n else (1, 1, 1)
        page.add_patch(Rectangle((left + c * cell, top - (r + 1) * cell), cell, cell,
                                 facecolor=color, edgecolor="white" if n else style.FAINT,
                                 linewidth=0.6, hatch="" if n else "////", gid=f"pixel {n}"))
        dark = np.dot(color[:3], (0.3, 0.59, 0.11)) < 0.5
        if n:
            _value(page, left, top, cell, r, c, values[n], "white" if dark else style.INK)


def plain(page, left, top, cell, values, marked=None):
    """Gray cells with their numbers, pale where some are marked; those are left to the marks."""
    from matplotlib.patches import Rectangle

    for (r, c), value in np.ndenumerate(values):
        page.add_patch(Rectangle((left + c * cell, top - (r + 1) * cell), cell, cell,
                                 facecolor="#f3f4f5", edgecolor="white", linewidth=0.6))
        if marked is None or (r, c) not in map(tuple, marked):
            _value(page, left, top, cell, r, c, value, style.SOFT if marked else style.INK)


def _value(page, left, top, cell, r, c, value, color):
    """The number of a cell, if it has room there."""
    text = short(value)
    if style.extent(page.figure, text, 7)[0] <= 0.95 * cell:
        style.write(page, left + (c + 0.5) * cell, top - (r + 0.5) * cell, text, 7, color,
                    ha="center", va="center_baseline", gid="value", zorder=3)


def mark(page, x, y, cell, text, wins):
    """A winner: orange, its number bold; dark where it won more than once."""
    from matplotlib.patches import Rectangle

    color = style.VERMILLION if wins > 1 else style.mix(style.ORANGE, 0.6)
    page.add_patch(Rectangle((x, y - cell), cell, cell, facecolor=color, edgecolor=style.INK,
                             linewidth=2 if wins > 1 else 0.8, zorder=4, gid=f"wins {wins}"))
    style.write(page, x + cell / 2, y - cell / 2, text, 7, "white" if wins > 1 else style.INK,
                weight="bold", ha="center", va="center_baseline", zorder=5, gid="winner")


def frame(page, x, y, width, height):
    """A thick line around a window whose upper left corner is (x, y)."""
    from matplotlib.patches import Rectangle

    page.add_patch(Rectangle((x, y - height), width, height, facecolor="none", linewidth=2,
                             edgecolor=style.VERMILLION, zorder=4, gid="window"))


def heading(page, x, y, text, room):
    """A line over a grid, shortened to `room` inches."""
    style.write(page, x, y + 0.06, style.shorten(page.figure, text, room, 9, "bold"), 9,
                weight="bold", va="bottom", gid="heading")


def short(value):
    """Return a number in few characters.

    >>> short(0.123), short(99.7), short(-1234.5), short(1.23e9)
    ('0.12', '100', '-1234', '1.2e+09')
    """
    return f"{value:.0f}" if 99.5 <= abs(value) < 1e5 else f"{value:.2g}"
