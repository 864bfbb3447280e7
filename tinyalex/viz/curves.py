"""A training run as two panels: the loss and the error, from the rows of its log."""

import math
from collections import namedtuple

import numpy as np

from tinyalex.viz import style

BINS = 300     # points that a curve has at most; more rows are gathered into bins
DROPS = 12     # learning rates that change more often than this are not marked one by one
LOG_FROM = 20  # the loss is drawn on a log scale from this ratio of largest to smallest
Series = namedtuple("Series", "x y low high lost per")  # lost: x of values that are no numbers


def curves(rows, classes=None):
    """Draw the loss and the error of a run over its epochs, or over its steps.

    Parameters
    ----------
    rows : iterable of dict
        As a log holds them, in the order written.  ``{"kind": "train", "step": int,
        "epoch": float, "loss": float, "top1": percent, "lr": float}`` or ``{"kind": "val",
        "step": int, "epoch": float, "loss": float, "top1": percent, "top5": percent}``.
        Other kinds and keys are ignored; where a value is missing or None, the line passes on
        to the next.  Where the steps go back, because a run was resumed, the rows that were
        overtaken are left out.
    classes : int, optional
        How many classes there are: draws what guessing would score, a loss of ln(classes).

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError
        A row that is no dict, or `classes` no number.
    ValueError
        A value that is no number, or fewer than 2 classes.

    Notes
    -----
    Nothing is hidden by drawing less: where a curve has more than 300 rows, each point is the
    mean of equally many rows (the last, of what remains) and a pale band reaches from their
    lowest to their highest value.  NaN and infinite values are marked by crosses along the top.
    A dashed line stands where the learning rate changes, unless it changes more than 12 times.
    The loss has a log scale where its largest value is 20 times its smallest or more.

    Examples
    --------
    >>> from tinyalex import viz
    >>> rows = [{"kind": "train", "step": s, "epoch": s / 100, "loss": 2.3 / (1 + s / 50),
    ...          "top1": 90 / (1 + s / 50), "lr": 0.01} for s in range(200)]
    >>> rows.append({"kind": "val", "step": 200, "epoch": 2.0, "loss": 0.5, "top1": 21.5})
    >>> viz.curves(rows, classes=10).alt_text
    'A run from epoch 0 to 2. Last validation at epoch 2: loss 0.5, top-1 error 21.5 %.'
    """
    if classes is not None and not classes >= 2:
        raise ValueError(f"classes must be at least 2, found {classes}")
    kinds, table, unit = _table(rows)
    train, val = kinds == "train", kinds == "val"
    x = table["x"]
    figure = style.new_figure(11, 5, _alt(val, table, unit))
    loss, error = _panel(figure, 0.08, "loss", unit, x), _panel(figure, 0.57, "error, %", unit, x)
    for axes, key, which in ((loss, "loss", ""), (error, "top1", ", top-1")):
        _curve(axes, x[train], table[key][train], "train" + which, style.BLUE, "-")
        _curve(axes, x[val], table[key][val], "validation" + which, style.VERMILLION, "o-")
    _curve(error, x[val], table["top5"][val], "validation, top-5", style.GREEN, "s--")
    if classes is not None:
        _chance(loss, math.log(classes), f"guessing: ln {classes} = {math.log(classes):.4g}")
        _chance(error, 100 - 100 / classes, f"guessing, top-1: {100 - 100 / classes:.3g} %")
    _scale(loss, table["loss"])
    error.set_ylim(0, max(error.get_ylim()[1], 1))
    for axes in (loss, error):
        _mark_rates(figure, axes, x[train], table["lr"][train])
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=style.INK, ncols=2, loc="upper left",
                        bbox_to_anchor=(-0.02, -0.15), handlelength=1.8, columnspacing=1.4,
                        prop={"family": style.FONT, "size": 8.5})
        if not len(x):
            axes.set(xticks=(), yticks=())
            style.write(axes, 0.5, 0.5, "no rows yet", 10, style.SOFT, ha="center",
                        transform=axes.transAxes)
    return figure


def summarize(x, y):
    """Gather a series into at most 300 bins of equally many rows.

    Parameters
    ----------
    x, y : arrays of float, shape (n,), x rising

    Returns
    -------
    Series
        Of each bin the mean x, mean y, lowest and highest y (over its finite values); then the
        x of all values that are not finite, and the number of rows per bin.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.viz.curves import summarize
    >>> s = summarize(np.arange(600.0), np.tile([1.0, 3.0], 300))
    >>> s.y.shape, s.per, s.low[:2].tolist(), s.y[:2].tolist(), s.high[:2].tolist()
    ((300,), 2, [1.0, 1.0], [2.0, 2.0], [3.0, 3.0])
    """
    finite = np.isfinite(y)
    lost, x, y = x[~finite], x[finite], y[finite]
    per = max(1, math.ceil(len(y) / BINS))
    starts = np.arange(0, len(y), per)
    if not len(y):
        return Series(x, y, y, y, lost, per)
    counts = np.diff(np.append(starts, len(y)))
    return Series(np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts,
                  np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts), lost, per)


def _table(rows):
    """Return the kinds, a dict of float columns, and what the x axis counts."""
    rows = list(rows)
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TypeError(f"rows[{n}] must be a dict, found {type(row).__name__}: {row!r:.60}")
    rows = [(n, row) for n, row in enumerate(rows) if row.get("kind") in ("train", "val")]
    kinds = np.array([row["kind"] for _, row in rows], dtype="U5")
    table = {key: np.array([_number(n, row, key) for n, row in rows], dtype=float)
             for key in ("step", "epoch", "loss", "top1", "top5", "lr")}
    stepped = np.isfinite(table["step"]).any()
    unit = "epoch" if np.isfinite(table["epoch"]).all() or not stepped else "step"
    clock = table["step" if stepped else "epoch"]
    keep = np.isfinite(table[unit]) & ~_overtaken(clock, np.greater)
    for kind in ("train", "val"):  # a step told twice counts as it was told last
        keep[kinds == kind] &= ~_overtaken(clock[kinds == kind], np.greater_equal)
    order = np.flatnonzero(keep)
    order = order[np.argsort(table[unit][order], kind="stable")]
    table = {key: column[order] for key, column in table.items()}
    return kinds[order], dict(table, x=table[unit]), unit


def _overtaken(clock, later):
    """Which rows are followed by a row of an earlier time: a resumed run took their place."""
    rest = np.append(np.where(np.isfinite(clock), clock, np.inf), np.inf)
    return later(clock, np.minimum.accumulate(rest[::-1])[::-1][1:])


def _number(n, row, key):
    """A float; NaN where the row does not know it, infinity where it knows it to be no number."""
    value = row.get(key)
    if value is None:
        return math.nan
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"rows[{n}][{key!r}] must be a number, found {value!r:.60}") from None
    return value if math.isfinite(value) else math.inf


def _panel(figure, left, title, unit, x):
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_axes((left, 0.27, 0.41, 0.59), facecolor="white")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10), integer=unit == "step"))
    axes.grid(True, color="#e8eaec", linewidth=0.8, linestyle="-")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=style.SOFT, linewidth=0.8)
    axes.tick_params(colors=style.SOFT, labelcolor=style.INK, labelsize=9, which="both",
                     labelfontfamily=style.FONT)
    axes.set_xlabel(unit, fontsize=9.5, color=style.INK, family=style.FONT)
    style.write(axes, 0, 1.15, title, 11, weight="bold", transform=axes.transAxes)
    axes.xaxis.set_major_formatter("{x:,.0f}" if unit == "step" else "{x:g}")
    if len(x):
        first, last = (x[0], x[-1]) if x[-1] > x[0] else (min(0, x[0]), max(x[0], 1))
        margin = 0.02 * (last - first)
        axes.set_xlim(first - margin, last + margin)
    return axes


def _curve(axes, x, y, name, color, form):
    """A line with its band; markers where the form has them; crosses for what is no number."""
    known = ~np.isnan(y)
    s = summarize(x[known], y[known])
    if len(s.y):
        lone = {"-": "D"}.get(form[0], form[0])  # a line of one point would not be seen
        axes.plot(s.x, s.y, form if len(s.y) > 1 else lone, color=color, linewidth=1.4,
                  markersize=4.8, markeredgecolor="white", markeredgewidth=0.6,
                  markevery=max(1, len(s.y) // 40),
                  label=f"{name}, mean of {s.per:,}" if s.per > 1 else name)
    if s.per > 1:
        said = "_" if axes.collections else "lowest to highest of these"  # "_": not in the legend
        axes.fill_between(s.x, s.low, s.high, color=color, alpha=0.2, linewidth=0, zorder=1.5,
                          label=said)
    if len(s.lost):
        few = s.lost[::math.ceil(len(s.lost) / 40)]
        height = 0.98 - 0.03 * sum(line.get_marker() == "x" for line in axes.lines)  # none hidden
        axes.plot(few, np.full(len(few), height), "x", color=color, markersize=6, clip_on=False,
                  markeredgewidth=1.5, transform=axes.get_xaxis_transform(),
                  label=f"{name}, NaN or inf: {len(s.lost):,}")


def _chance(axes, height, name):
    axes.axhline(height, color=style.INK, linewidth=1, linestyle=(0, (1, 2)), label=name)


def _scale(axes, y):
    """A log scale with plain numbers on it, where the loss falls far and stays above 0."""
    from matplotlib.ticker import LogLocator, NullLocator

    y = y[np.isfinite(y)]
    if len(y) and y.min() > 0 and y.max() / y.min() >= LOG_FROM:
        axes.set_yscale("log")
        few = y.max() < 1e4 * y.min()  # decades: then 2 and 5 have room between the powers of ten
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")  # plain numbers, no power of ten in a corner


def _mark_rates(figure, axes, x, rate):
    """A dashed line where the learning rate changes, the new rate above it."""
    x, rate = x[np.isfinite(rate)], rate[np.isfinite(rate)]
    if not len(rate):
        return
    changed = 1 + np.flatnonzero(np.abs(np.diff(rate)) > 1e-9 * np.abs(rate[1:]))
    if len(changed) > DROPS:
        style.write(axes, 0, 1.02, f"lr {rate[0]:.3g} to {rate[-1]:.3g}, changing all along", 8,
                    style.SOFT, transform=axes.transAxes)
        return
    wide = axes.get_position().width * figure.get_size_inches()[0]
    ends = [-1.0, -1.0]  # how far the labels of each of two levels reach, as a share of the width
    for k in [0, *changed]:
        label = f"lr {rate[k]:.3g}" if k == 0 else f"{rate[k]:.3g}"
        half = style.extent(figure, label, 8)[0] / wide / 2
        left, right = axes.get_xlim()
        place = max((x[k] - left) / (right - left), half)
        if k:
            axes.axvline(x[k], color=style.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        level = next((n for n in (0, 1) if ends[n] < place - half - 0.01), None)
        if level is not None:  # else three stand too close: the lines alone must do
            ends[level] = place + half
            style.write(axes, place, 1.02 + 0.05 * level, label, 8, style.SOFT, ha="center",
                        transform=axes.transAxes, gid="rate")


def _alt(val, table, unit):
    if not len(val):
        return "A run without rows yet."
    text = f"A run from {unit} {table['x'][0]:.4g} to {table['x'][-1]:.4g}."
    if val.any():
        n = np.flatnonzero(val)[-1]
        known = [f"{name} {table[key][n]:.3g}{sign}" for key, name, sign in
                 (("loss", "loss", ""), ("top1", "top-1 error", " %"),
                  ("top5", "top-5 error", " %"))
                 if np.isfinite(table[key][n])]
        known = ", ".join(known) or "no number"
        text += f" Last validation at {unit} {table['x'][n]:.4g}: {known}."
    return text
