"""What heat maps share: axes at a place in inches, numbers in cells, a strip that tells colors."""

import numpy as np

from tinyalex.viz import cells, style

BAR = 0.16     # inches


def axes(figure, left, bottom, width, height):
    """Return framed axes at a place given in inches."""
    wide, high = figure.get_size_inches()
    made = figure.add_axes((left / wide, bottom / high, width / wide, height / high))
    made.spines[:].set(color=style.SOFT, linewidth=0.8)
    made.tick_params(colors=style.SOFT, labelcolor=style.INK, labelsize=8, length=2,
                     labelfontfamily=style.FONT)
    return made


def ticks(axes, rows, columns):
    """Number at most a dozen rows and columns, in whole steps."""
    for axis, count in ((axes.yaxis, rows), (axes.xaxis, columns)):
        step = next(n for n in (1, 2, 5, 10, 20, 50, 100, 1000, 10**9) if count <= 12 * n)
        axis.set_ticks(range(0, count, step))


def label(axes, x, y):
    """Say what the two axes count."""
    axes.set_xlabel(x, fontsize=9, color=style.INK, family=style.FONT)
    axes.set_ylabel(y, fontsize=9, color=style.INK, family=style.FONT)


def numbers(axes, values, write, drawn, room, unit=1.0):
    """Write the number of each cell in `unit`, light on dark, if it fits into `room` inches."""
    for (r, c), value in np.ndenumerate(values):
        text = write(value / unit)
        if np.isfinite(value) and value and style.extent(axes.figure, text, 7)[0] <= 0.95 * room:
            dark = np.dot(drawn.cmap(drawn.norm(value))[:3], (0.3, 0.59, 0.11)) < 0.5
            style.write(axes, c, r, text, 7, "white" if dark else style.INK, ha="center",
                        va="center_baseline", gid="value")


def bar(figure, drawn, left, bottom, width, label, most=None):
    """What the colors mean, as a strip of them with numbers under it."""
    strip = axes(figure, left, bottom, width, BAR)
    figure.colorbar(drawn, cax=strip, orientation="horizontal")
    low, high = drawn.get_clim()
    strip.set_xticks([low, (low + high) / 2, high] if most != 0 else [0])
    strip.xaxis.set_major_formatter(lambda x, place: cells.short(x))
    if label:
        strip.set_xlabel(label, fontsize=8.5, color=style.INK, family=style.FONT)
