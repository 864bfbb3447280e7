"""Heat maps: which neighbors inhibit whom, and what a net looks at."""

import numpy as np

from tinyalex.viz import cells, heat, style

FEW = 14       # cells on a side up to which numbers are written into them
MARGIN = 0.3   # inches


def inhibition(x, size=5, alpha=1e-4, beta=0.75, k=2.0, divide_alpha=False, title=None):
    """Draw how strongly channels inhibit each other through local response normalization.

    Row c, column j: by how many percent y_c would rise, were channel j silent.  Over the map
    stand the activities before, beside it those after; the axis of both begins at 0.

    Parameters
    ----------
    x : array, shape (C,)
        The activities of all channels at one place of one picture: ``maps[n, :, h, w]``.
    size, alpha, beta, k, divide_alpha
        As ``F.local_response_norm`` has them; the defaults are the paper's.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError, ValueError
        `x` is no row of finite numbers, or `size` is below 1.

    Notes
    -----
    Source: paper section 3.3.

    Examples
    --------
    >>> from tinyalex import viz
    >>> viz.inhibition([0.0, 3.0, 1.0], size=3, alpha=1.0).alt_text
    'Inhibition among 3 channels: strongest of channel 0 by channel 1, which silent would raise it \
by 259 %.'
    """
    x = style.as_floats(x, "x")
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"x must be one row of finite numbers, maps[n, :, h, w], found shape "
                         f"{x.shape}")
    if size < 1:
        raise ValueError(f"size must be at least 1, found {size}")
    a, C = alpha / size if divide_alpha else alpha, len(x)
    c, j = np.arange(C)[:, None], np.arange(C)[None]
    near = (j >= c - size // 2) & (j < c - size // 2 + size)          # row c: the window of c
    d = k + a * (near * x**2).sum(axis=1, keepdims=True)              # (C, 1)
    without = np.maximum(d - a * near * x**2, np.finfo(float).tiny)   # (C, C): j silent
    percent = 100 * np.where(near & (c != j), (d / without) ** beta - 1, 0)
    y = x / d[:, 0] ** beta

    who, by = np.unravel_index(percent.argmax(), percent.shape)
    alt = (f"Inhibition among {C} channels: strongest of channel {who} by channel {by}, which "
           f"silent would raise it by {percent[who, by]:.3g} %.")
    side, strip = 4.6, 0.95
    figure = style.new_figure(side + strip + 1.4, side + strip + 1.95, _with(title, alt))
    left, low = 0.8, 0.65
    style.write(figure, 0.3 / figure.get_figwidth(), 1 - 0.2 / figure.get_figheight(),
                title or "Neighbors inhibit each other", 12, weight="bold", va="top", gid="title")
    axes = heat.axes(figure, left, low, side, side)
    drawn = axes.imshow(percent, cmap="Blues", vmin=0, vmax=max(percent.max(), 1e-12),
                        interpolation="nearest", aspect="auto")
    heat.ticks(axes, C, C)
    heat.label(axes, "channel j, that inhibits", "channel c, inhibited")
    if C <= FEW:
        heat.numbers(axes, percent, cells.short, drawn, side / C)
    above = heat.axes(figure, left, low + side + 0.1, side, strip)
    above.bar(np.arange(C), x, color=style.BLUE, width=0.8)
    above.set(xlim=axes.get_xlim(), xticks=(), ylim=_from_zero(x, y))
    heat.label(above, "", "x, before")
    beside = heat.axes(figure, left + side + 0.1, low, strip, side)
    beside.barh(np.arange(C), x, color="none", edgecolor=style.FAINT, height=0.8)
    beside.barh(np.arange(C), y, color=style.ORANGE, hatch="////" * (C <= FEW), edgecolor="white",
                linewidth=0, height=0.8)
    beside.set(ylim=axes.get_ylim(), yticks=(), xlim=_from_zero(x, y))
    heat.label(beside, "y, after", "")
    heat.bar(figure, drawn, left, low + side + strip + 0.63, side,
             "% that y would gain, were j silent")
    return figure


def occlusion(picture, probabilities, whole=None, name=None, title=None):
    """Draw how probable a class stays while a gray patch hides one part of a picture after another.

    Dark places are those that the net needs: hidden, they cost the most probability.

    Parameters
    ----------
    picture : uint8 array, shape (H, W, 3)
    probabilities : array, shape (h, w)
        Of the class, the patch lying on the (i, j)-th of h x w places spread evenly over the
        picture.
    whole : float, optional
        The probability with nothing hidden; a white line surrounds what costs half of it.
    name : str, optional
        The class.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError, ValueError
        A picture that is none, or numbers that are no probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> p = np.array([[0.9, 0.8], [0.1, 0.9]])
    >>> viz.occlusion(np.zeros((8, 8, 3), np.uint8), p, 0.9, "cat").alt_text
    'A picture, and the probability of cat while a patch hides a part: 90 % with nothing hidden, \
least, 10 %, at row 1, column 0 of 2 × 2 places.'
    """
    picture, p = np.asarray(picture), style.as_floats(probabilities, "probabilities")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise TypeError(f"picture must be a uint8 array (H, W, 3), found {picture.dtype} "
                        f"{picture.shape}")
    if p.ndim != 2 or not p.size or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities must have shape (h, w) and lie in 0..1, found {p.shape}")
    r, c = np.unravel_index(p.argmin(), p.shape)
    said = "" if whole is None else f"{100 * whole:.3g} % with nothing hidden, "
    alt = (f"A picture, and the probability of {name or 'its class'} while a patch hides a part: "
           f"{said}least, {100 * p.min():.3g} %, at row {r}, column {c} of {p.shape[0]} × "
           f"{p.shape[1]} places.")
    high, wide = (3.2 * n / max(picture.shape[:2]) for n in picture.shape[:2])
    room = max(wide, 1.6)                                  # for each of the two
    figure = style.new_figure(2 * room + 0.25 + 2 * MARGIN, high + 1.45, _with(title, alt))
    style.write(figure, MARGIN / figure.get_figwidth(), 1 - 0.2 / figure.get_figheight(),
                style.shorten(figure, title or f"What is needed to see {name or 'it'}",
                              2 * room + 0.2, 12, "bold"), 12, weight="bold", va="top", gid="title")
    place = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
    left = MARGIN + (room - wide) / 2
    axes = style.bare_axes(figure, left, 0.85, wide, high)
    axes.imshow(picture, aspect="auto")
    axes = style.bare_axes(figure, left + room + 0.25, 0.85, wide, high)
    gray = picture @ np.array([0.299, 0.587, 0.114])
    axes.imshow(gray, cmap="gray", vmin=0, vmax=255, aspect="auto")
    drawn = axes.imshow(100 * p, cmap="cividis", extent=place, alpha=0.65, aspect="auto", vmin=0,
                        vmax=max(100 * p.max(), 100 * (whole or 0), 1e-9), interpolation="nearest")
    if whole is not None and p.min() < whole / 2 < p.max() and min(p.shape) > 1:
        ys, xs = ((np.arange(n) + 0.5) * full / n - 0.5
                  for n, full in zip(p.shape, picture.shape[:2]))
        axes.contour(xs, ys, p, levels=[whole / 2], colors="white", linewidths=1.6)
    heat.bar(figure, drawn, MARGIN + room + 0.25, 0.6, room,
             style.shorten(figure, f"% {name or 'probability'}", room, 8.5))
    return figure


def _with(title, alt):
    return f"{title}. {alt}" if title else alt


def _from_zero(*rows):
    low, high = min(0, *(r.min() for r in rows)), max(0, *(r.max() for r in rows))
    return low, high + 0.05 * (high - low) or 1
