"""Where an array is wrong: for the gradients that a student derives."""

import numpy as np

from tinyalex.viz import heat, style

FEW = 14       # cells on a side up to which numbers are written into them
MARGIN = 0.3   # inches


def error_map(expected, found=None, title=None):
    """Draw where an array is wrong: of more than two axes, the plane that holds the worst error.

    Too large is orange, too small is violet, right is white, and the numbers are written where
    there is room; what is no number is crossed out, and the worst place is framed.

    Parameters
    ----------
    expected : array
        What would be right; or the errors themselves, where `found` is left out.
    found : array, optional
        What was found, of the same shape.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError, ValueError
        Arrays that hold no numbers, or shapes that differ.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex import viz
    >>> viz.error_map(np.ones((2, 3)), np.array([[1, 1, 1], [1, 0.5, 1]])).alt_text
    'Largest error at [1, 1]: found 0.5, expected 1. 1 of 6 elements is off by more than a \
hundredth of that.'
    """
    right = style.as_floats(expected, "expected")
    given = None if found is None else style.as_floats(found, "found")
    if given is not None and given.shape != right.shape:
        raise ValueError(f"found must have the shape of expected, {right.shape}, "
                         f"found {given.shape}")
    if not right.size:
        raise ValueError(f"expected holds no elements, found shape {right.shape}")
    errors = right if given is None else given - right
    size = np.where(np.isfinite(errors), np.abs(errors), np.inf)
    worst = np.unravel_index(size.argmax(), size.shape)
    where = [int(i) for i in worst]
    if size[worst] == 0:
        alt = f"All {right.size:,} elements are right."
    else:
        values = f"{errors[worst]:.3g}" if given is None else \
            f"found {given[worst]:.4g}, expected {right[worst]:.4g}"
        finite = np.isfinite(size[worst])
        off = int((size > 0.01 * size[worst] if finite else np.isinf(size)).sum())
        alt = (f"Largest error at {where}: {values}. {off:,} of {right.size:,} elements "
               f"{'is' if off == 1 else 'are'} "
               + ("off by more than a hundredth of that." if finite else "no number."))
    planes = [("errors", errors)]
    if given is not None:
        planes = [("expected", right), ("found", given), ("found - expected", errors)]
    return _planes(planes, worst, title or "Where it is wrong", alt, size[worst] == 0)


def _planes(planes, worst, title, alt, is_right):
    """Draw the same plane of several arrays beside each other, the worst place framed."""
    from matplotlib.patches import Rectangle

    def plane(array):
        array = array[tuple(worst[:-2])] if array.ndim > 2 else array
        return np.atleast_2d(array)                                   # a row, or one number

    rows, columns = plane(planes[0][1]).shape
    cell = min(0.42, 3.6 / max(rows, columns))
    wide, high = max(columns * cell, 1.6), max(rows * cell, 0.25)
    lead = "".join(f"{i}, " for i in worst[:-2]) if len(worst) > 2 else ""
    ruler = style.new_figure(1, 1)
    room = max(len(planes) * (wide + 0.55) + 0.3, 6.2)
    room = max(room, style.extent(ruler, alt, 9)[0] + 2 * MARGIN)
    figure = style.new_figure(room, high + 2.15, f"{title}. {alt}" if is_right or title !=
                              "Where it is wrong" else alt)
    page = style.bare_axes(figure, 0, 0, room, high + 2.15, "inches")
    style.write(page, MARGIN, high + 1.95, title, 12, weight="bold", va="top", gid="title")
    style.write(page, MARGIN, high + 1.6, alt, 9, style.SOFT, va="top", gid="note")
    scale = max((np.abs(plane(a)[np.isfinite(plane(a))]).max(initial=0) for _, a in planes[:-1]),
                default=0)
    for n, (name, array) in enumerate(planes):
        values, left = plane(array), 0.6 + n * (wide + 0.55)
        finite = np.isfinite(values)
        most = np.abs(values[finite]).max(initial=0) if n == len(planes) - 1 else scale
        axes = heat.axes(figure, left, 0.95, wide, high)
        drawn = axes.imshow(np.where(finite, values, 0), cmap="PuOr_r", vmin=-(most or 1),
                           vmax=most or 1, interpolation="nearest", aspect="auto")
        heat.ticks(axes, rows, columns)
        power = int(np.floor(np.log10(most))) if most and not 0.1 <= most < 100 else 0
        style.write(page, left, high + 1.03, (f"{name}[{lead}:, :]" if lead else name)
                    + f", in 1e{power}" * bool(power), 9, weight="bold", va="bottom", gid="heading")
        if max(rows, columns) <= FEW:
            form = "{:+.2g}" if n == len(planes) - 1 else "{:.2g}"
            heat.numbers(axes, values, form.format, drawn, cell, 10.0**power)
        for r, c in np.argwhere(~finite):
            axes.plot([c - 0.5, c + 0.5, np.nan, c - 0.5, c + 0.5],
                      [r - 0.5, r + 0.5, np.nan, r + 0.5, r - 0.5], color=style.INK, lw=1,
                      gid="no number")
        if not is_right:
            r, c = (0, 0, *worst)[-2:]
            side = max(1.0, 0.03 * max(rows, columns))                # seen also among many
            axes.add_patch(Rectangle((c - side / 2, r - side / 2), side, side, facecolor="none",
                                     edgecolor=style.INK, linewidth=2.2, clip_on=False,
                                     gid="worst"))
        heat.bar(figure, drawn, left, 0.45, wide, "", most)
    return figure
