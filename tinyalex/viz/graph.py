"""The graph of a computation: what was made from what, on which device, and what crossed."""

from tinyalex.viz import graph_layout as plan
from tinyalex.viz import style

THICK = 7.0    # points, the line that carries the most bytes
PANEL = 0.45   # inches over a panel, for its name


def graph(rows, title=None, fold=None, leaves=None, turn=None):
    """Draw a graph: boxes are ops, in the color and hatching of their device, the first on top.

    Round boxes are leaves.  What is used twice sends two lines.  Lines between devices are as
    thick as the bytes that they carry, and say how many.  Gradients stand in a box with an arrow
    upward.

    Parameters
    ----------
    rows : Trace, or sequence of dict
        What to draw, in the order of computation.

        name : str
        inputs : sequence of int
            Places of earlier rows; a row without is a leaf.
        device, home : str, optional
            Where it runs, and where its result lives; a row with two different ones is a copy.
        nbytes : int, optional
            Bytes that a copy carries.
        module, value, gradient : str, optional
            Said in the box.
        shape : tuple, optional
            Of the result, said where there is no value.
        turn : int, optional
            The place of its backward among all, from 1 on.

        Other keys are ignored.
    title : str, optional
    fold : bool, optional
        Draw a chain of ops as one box; by default where there are more than 24 rows.
    leaves : bool, optional
        Draw all leaves, or only those that an op reads first; by default all of few.
    turn : int, optional
        Show the gradients after so many backward steps; by default all.

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Raises
    ------
    TypeError, ValueError
        A row that is no dict, without a name, or with inputs that are no earlier rows; or more
        than 200 boxes.

    Examples
    --------
    >>> import tinyalex as ta
    >>> from tinyalex import viz
    >>> x, w = ta.Tensor([2.0], requires_grad=True), ta.Tensor([3.0], device="cpu:1")
    >>> with ta.trace(x=x, w=w) as t:
    ...     y = x.to("cpu:1") * w
    >>> viz.graph(t).alt_text
    'A graph of 3 boxes: x, w, Multiply. cpu:0 sends 4 B to Multiply on cpu:1.'
    """
    return _page(rows, title, fold, leaves, [turn], 1)


def filmstrip(rows, turns=None, title=None, columns=4):
    """Draw a graph again and again, while the gradients come back through it.

    Parameters
    ----------
    rows : as :func:`graph` takes them
    turns : sequence of int, optional
        How many backward steps were done in each panel; by default 0, 1, ... to the last.
    title : str, optional
    columns : int
        Panels in a row.

    Returns
    -------
    matplotlib.figure.Figure
        With ``figure.alt_text``.

    Examples
    --------
    >>> import tinyalex as ta
    >>> from tinyalex import viz
    >>> x = ta.Tensor([2.0], requires_grad=True)
    >>> with ta.trace(x=x) as t:
    ...     (x * x).backward()
    >>> viz.filmstrip(t).alt_text
    'A graph of 2 boxes: x, Multiply. Shown after 0, 1 backward steps.'
    """
    rows = plan.check(rows)
    last = max((row["turn"] or 0 for row in rows), default=0)
    turns = list(range(last + 1) if turns is None else turns)
    if not turns or columns < 1:
        raise ValueError(f"turns and columns must be at least one, found {turns} and {columns}")
    return _page(rows, title, None, None, turns, columns)


def _page(rows, title, fold, leaves, turns, columns):
    rows = plan.check(rows)
    last = max((row["turn"] or 0 for row in rows), default=0)
    found = plan.boxes(rows, fold, leaves)
    for box in found:
        box.names, box.lines = _lines(box)
    layers, lanes, wide, high = plan.layout(found)
    columns = min(columns, len(turns))
    names = [_after(turn) for turn in turns] if len(turns) > 1 else []
    panel, needed = PANEL if names else 0, wide
    down = -(-len(turns) // columns)
    ruler = style.new_figure(1, 1)
    legend = 0.35
    wide = max(wide, style.extent(ruler, title or "", 13, "bold")[0] / columns + 0.4,
               *(style.extent(ruler, name, 10, "bold")[0] + 0.4 for name in names),
               (sum(style.extent(ruler, device)[0] + 0.6 for device in lanes) + 0.2) / columns)
    head = 0.5 if title else 0.1
    width, height = columns * wide, down * (high + panel) + head + legend
    figure = style.new_figure(width, height, _alt(title, found, turns))
    page = style.bare_axes(figure, 0, 0, width, height, "inches")
    if title:
        style.write(page, 0.2, height - 0.15, title, 13, weight="bold", va="top", gid="title")
    _legend(page, list(lanes))
    widest = max((row["nbytes"] for row in rows), default=0) or 1
    for n, turn in enumerate(turns):
        left = n % columns * wide
        low = height - head - (n // columns + 1) * (high + panel)
        if panel:
            style.write(page, left + wide / 2, low + high + 0.12, names[n], 10, weight="bold",
                        ha="center", gid="panel")
        turn = None if turn is not None and turn >= last else turn
        _draw(page, left + (wide - needed) / 2, low, layers, list(lanes), widest, turn)
    return figure


def _after(turn):
    """The name of a panel."""
    return f"after {turn} backward step{'s' * (turn != 1)}" if turn else "forward"


def _lines(box):
    """What is said in a box, how many lines of it are names: of a chain all, of one op its own."""
    if len(box.rows) > 1:
        names = [plan.label(row) for row in box.rows]
        names = [" ".join(names[n:n + 4]) for n in range(0, len(names), 4)]
        return len(names), names + _facts(box.rows[-1])
    row = box.rows[0]
    gradient = [f"↑ {row['gradient']}"] if row["gradient"] is not None else []
    return 1, [row["name"], *[row["module"]] * bool(row["module"]), *_facts(row), *gradient]


def _facts(row):
    if row["value"] is not None:
        return [str(row["value"])]
    return ["×".join(map(str, row["shape"]))] if row["shape"] else []


def _draw(page, left, low, layers, devices, widest, turn):
    for box in (box for layer in layers for box in layer):
        for k, (other, crossing) in enumerate(box.above):
            same = [n for n, (source, _) in enumerate(box.above) if source is other]
            aside = 0.14 * (same.index(k) - (len(same) - 1) / 2)   # a line for each use
            start = left + other.x + aside, low + other.y - other.height / 2
            end = left + box.x + aside, low + box.y + box.height / 2
            color = style.DEVICE_COLORS[devices.index(other.device) % 4] if crossing else style.SOFT
            _line(page, start, end, color, max(THICK * crossing / widest, 1.2), bool(box.lines))
            if crossing:
                x, y = _on_curve(start, end, 0.27)
                style.write(page, x, y, plan.size(crossing), plan.SMALL, weight="bold",
                            ha="center", va="center", zorder=6, gid="crossing",
                            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white",
                                  "edgecolor": color, "linewidth": 0.8})
        if box.lines:
            row = box.rows[-1]
            known = turn is None or (row["turn"] or turn + 1) <= turn
            _box(page, box, left, low, devices.index(box.device) % len(style.DEVICE_COLORS),
                 known and row["gradient"] is not None)


def _line(page, start, end, color, points, arrives):
    """A curve downward; with a head, where it does not only pass by."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    bend = (start[1] - end[1]) / 2
    path = Path([start, (start[0], start[1] - bend), (end[0], end[1] + bend), end],
                [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    page.add_patch(PathPatch(path, facecolor="none", edgecolor=color, zorder=1, linewidth=points))
    if arrives:
        page.plot(*end, marker="v", markersize=4 + points, color=color, zorder=2, clip_on=False)


def _box(page, box, left, low, n, shown):
    """A box of device number `n`, and its gradient if it is `shown`."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    color, (x, y) = style.DEVICE_COLORS[n], (left + box.x, low + box.y)
    corner = 0.16 if not box.rows[0]["inputs"] else 0.04
    page.add_patch(FancyBboxPatch(
        (x - box.width / 2, y - box.height / 2), box.width, box.height,
        boxstyle=f"round,pad=0,rounding_size={corner}", facecolor=style.mix(color, 0.16), zorder=3,
        edgecolor=style.INK if shown else color, linewidth=1.8 if shown else 1))
    page.add_patch(Rectangle((x - box.width / 2, y - box.height / 2 + corner), 0.08,
                             box.height - 2 * corner, facecolor=style.mix(color, 0.4),
                             edgecolor=color, hatch=2 * style.DEVICE_HATCHES[n], linewidth=0.5,
                             zorder=4))
    top = y + box.height / 2 - (plan.BOX + plan.LINE) / 2
    for k, line in enumerate(box.lines):
        name = k < box.names
        if shown or name or not line.startswith("↑"):
            style.write(page, x + 0.04, top - k * plan.LINE, line,
                        plan.NAME if name else plan.SMALL,
                        style.INK if name or shown else style.SOFT,
                        weight="bold" if name else "normal", ha="center", va="center_baseline",
                        zorder=5, gid="box")


def _on_curve(start, end, share):
    """A point on the line between two boxes, and not on a straight one."""
    (x0, y0), (x1, y1), t = start, end, share
    ease = 3 * t * t * (1 - t) + t**3
    return x0 + (x1 - x0) * ease, y0 + (y1 - y0) * (1.5 * t * (1 - t) + t**3)


def _legend(page, devices):
    from matplotlib.patches import Rectangle

    x = 0.2
    for n, device in enumerate(devices):
        color = style.DEVICE_COLORS[n % 4]
        page.add_patch(Rectangle((x, 0.12), 0.26, 0.16, facecolor=style.mix(color, 0.4),
                                 edgecolor=color, hatch=style.DEVICE_HATCHES[n % 4]))
        text = style.write(page, x + 0.34, 0.2, device, va="center_baseline", gid="device")
        x += 0.6 + style.extent(page.figure, text.get_text())[0]


def _alt(title, found, turns):
    names = [" ".join(plan.label(row) for row in box.rows) for box in found]
    text = f"A graph of {len(found)} boxes: {', '.join(names)}."
    for box in found:
        for other, crossing in box.above:
            if crossing:
                text += (f" {other.device} sends {plan.size(crossing)} to "
                         f"{plan.label(box.rows[0])} on {box.device}.")
    if len(turns) > 1:
        text += f" Shown after {', '.join(map(str, turns))} backward steps."
    return f"{title}. {text}" if title else text
