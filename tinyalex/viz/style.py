"""What all pictures share: one palette, one typeface, one way to a figure and to a file.

The colors are those of Okabe and Ito (2008), chosen so that people with any of the common kinds
of color blindness tell them apart.  Nothing is told by color alone: a hatch, a marker or a line
style always says it again, and so a black-and-white print says it too.
"""

import io
import os
import pathlib
import secrets
from functools import partial

import numpy as np

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE = "#CC79A7"
DEVICE_COLORS = (BLUE, ORANGE, GREEN, PURPLE)  # in the order in which devices first appear
DEVICE_HATCHES = ("", "////", "....", "xxxx")
INK, SOFT, FAINT = "#1b1b1b", "#5a5f66", "#d5d8dc"  # text, second text, rules and empty grounds
FONT = "DejaVu Sans"  # comes with matplotlib, so a picture is the same on every machine


def new_figure(width, height, alt_text="", dpi=150):
    """Return an empty white Figure that belongs to no window and to no global list.

    Parameters
    ----------
    width, height : float
        Inches.
    alt_text : str
        What the picture shows, in words; kept as ``figure.alt_text``.
    dpi : int
        Pixels per inch on a screen and in a saved PNG.

    Returns
    -------
    matplotlib.figure.Figure
        It draws with Agg, so it works without a display, in threads and in notebooks.

    Examples
    --------
    >>> from tinyalex.viz import style
    >>> style.new_figure(4, 3, "an empty page").alt_text
    'an empty page'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    figure.alt_text = alt_text
    # A notebook shows what has this method; without it, only figures made by pyplot are shown.
    figure._repr_png_ = partial(_render, figure, "png")
    return figure


def write(owner, x, y, string, size=9, color=INK, **how):
    """Put a text on a figure or on axes, in the house typeface, and return its artist.

    A dollar sign stays a dollar sign: names of classes are not formulas.
    """
    return owner.text(x, y, string, fontsize=size, color=color, family=FONT,
                      parse_math=False, usetex=False, **how)


def extent(figure, string, size=9, weight="normal"):
    """Return (width, height) in inches of one line of text as `write` would draw it."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=FONT, size=size, weight=weight)
    renderer = figure.canvas.get_renderer()
    width, height, _ = renderer.get_text_width_height_descent(string, font, ismath=False)
    return width / figure.dpi, height / figure.dpi


def shorten(figure, string, room, size=9, weight="normal"):
    """Return `string`, or its two ends around an ellipsis where it is wider than `room` inches.

    The middle goes, because the ends tell names apart: two kinds of pointer keep their first
    letters, and each keeps "pointer".

    Examples
    --------
    >>> from tinyalex.viz import style
    >>> style.shorten(style.new_figure(4, 3), "German short-haired pointer", 1.4)
    'German sh… pointer'
    """
    string = " ".join(str(string).split())  # a line break would leave its row
    if extent(figure, string, size, weight)[0] <= room:
        return string
    low, high = 0, len(string) - 1  # how many characters stay: the most that fit, by bisection
    while low < high:
        kept = (low + high + 1) // 2
        wide = extent(figure, _ends(string, kept), size, weight)[0] > room
        low, high = (low, kept - 1) if wide else (kept, high)
    return _ends(string, low)


def _ends(string, kept):
    tail = kept // 2
    return string[:kept - tail] + "…" + (string[-tail:] if tail else "")


def mix(color, share):
    """Return the RGB triple of `share` of a color and white for the rest; share is 0 to 1."""
    from matplotlib.colors import to_rgb

    return tuple(1 - share * (1 - channel) for channel in to_rgb(color))


def bare_axes(figure, left, bottom, width, height, units="pixels"):
    """Return axes without frame or ticks at a place given in inches.

    With units="inches" the data coordinates are inches too, from the lower left corner.
    """
    wide, high = figure.get_size_inches()
    axes = figure.add_axes((left / wide, bottom / high, width / wide, height / high))
    axes.set_axis_off()
    if units == "inches":
        axes.set(xlim=(0, width), ylim=(0, height))
    return axes


def as_floats(values, name):
    """Return a float64 copy of an array of real numbers, or raise a TypeError that helps."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, found dtype {array.dtype}; "
                        "of a Tensor, pass tensor.numpy()")
    return array.astype(np.float64)


def save(figure, path, dpi=None):
    """Write a figure to a .png, .svg or .pdf file: the whole file, or none of it.

    The bytes go to a second file in the same folder, which then takes the name in one step, so
    that a reader never meets half a picture and an error leaves the older picture in place.
    ``figure.alt_text`` goes along as the file's description.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure, of this package or your own.
    path : str or os.PathLike
        Where to; the ending chooses the format. The folder must exist.
    dpi : float, optional
        Pixels per inch of a PNG; the figure's own where not given.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    TypeError
        `figure` is no Figure.
    ValueError
        The ending is none of the three.
    FileNotFoundError, IsADirectoryError
        The folder does not exist, or the path is a folder.

    Examples
    --------
    >>> import tempfile
    >>> from tinyalex import viz
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     viz.save(viz.towers(), f"{folder}/towers.png").name
    'towers.png'
    """
    from matplotlib.figure import Figure

    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a matplotlib Figure, found {type(figure).__name__}")
    path = pathlib.Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"path must end in .png, .svg or .pdf, found {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to write "
                                f"{path.name!r} into: make it first")
    if path.is_dir():
        raise IsADirectoryError(f"path {str(path)!r} is a folder: name a file")
    content = _render(figure, kind, dpi)  # before the disk is touched: drawing may fail
    waiting = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        waiting.write_bytes(content)
        os.replace(waiting, path)
    finally:
        waiting.unlink(missing_ok=True)
    return path


def _render(figure, kind, dpi=None):
    about = getattr(figure, "alt_text", "")
    # No dates: the same figure gives the same file.
    metadata = {"png": {"Description": about, "Software": "tinyalex"},
                "svg": {"Description": about, "Date": None},
                "pdf": {"Subject": about, "CreationDate": None}}[kind]
    page = io.BytesIO()
    figure.savefig(page, format=kind, dpi=dpi or figure.dpi, facecolor="white", metadata=metadata)
    return page.getvalue()
