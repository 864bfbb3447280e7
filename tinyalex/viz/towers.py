"""The net drawn to scale, tower by tower: what the paper's figure 2 shows, and what crosses.

docs/towers.png is made by

    python -c "from tinyalex import viz; viz.save(viz.towers(), 'docs/towers.png', dpi=200)"
"""

import math

from tinyalex.viz import style
from tinyalex.viz import towers_layout as plan
from tinyalex.viz.towers_layout import MARGIN, NAME, SMALL

THICK = 11.0  # points, the thickness of the band that carries most: 1 point for the paper's least
HOST = "#858b93"
FACES = (0.28, 0.75, 0.52)  # how much color the top, the side and the front have; the rest is white


def towers(rows=None, title=None):
    """Draw a net of one or two towers to scale, with the bytes that cross between devices.

    Boxes are as high and as deep as their maps and as long as their number; dense layers are
    bars as high as their units.  Devices differ in color and in hatching.  The bands between
    the towers are as thick as the bytes that they carry.

    Parameters
    ----------
    rows : sequence of dict, optional
        What to draw, in the order of computation; by default the net of the paper.

        name : str
            Rows of one name stand in one column, one for each tower; a name that begins with
            "pool" is drawn paler.
        tower : 0, 1 or None
            None stands between the towers, as the input does.
        shape : (C, H, W) or (units,)
            Of what this row puts out, for one image.
        device : str, optional
            Where it is computed.
        bytes_in : int, optional
            Bytes per image that reach this row from the other device in a forward pass.
        joins : bool, optional
            Whether it reads the other tower; by default, whether `bytes_in` is above 0.
        kernel : int, optional
            Side of the window through which it looks, drawn on its source.
        note : str, optional
            Short lines under the name.

        Other keys are ignored.
    title : str, optional
        By default one that counts the towers and the devices.

    Returns
    -------
    matplotlib.figure.Figure
        As wide as the net is long, with ``figure.alt_text``.

    Raises
    ------
    TypeError
        A row that is no dict, or a shape that holds no integers.
    ValueError
        No rows, a row without name, tower or shape or with senseless ones, or two rows of the
        same name and tower.

    Notes
    -----
    Source: paper section 3.5 and figure 2.

    Examples
    --------
    >>> from tinyalex import viz
    >>> viz.towers().alt_text.split(". ")[-1]
    'Between the devices cross 234,496 bytes per image forward, and as many backward.'
    """
    own = rows is None
    rows = plan.check(plan.paper() if own else rows)
    devices = list(dict.fromkeys(row["device"] for row in rows if row["device"] is not None))
    total = sum(row["bytes_in"] for row in rows)
    title = title or ("AlexNet, 2012: " if own else "") + _counts(rows, devices)
    title = title[:1].upper() + title[1:]
    story = (f"{total:,} bytes per image cross between the devices on the way forward, and as many "
             "on the way back" if total else "Nothing crosses between devices")
    scale = ("Drawn to scale: the sides of the maps, their number, the units of dense layers"
             + ", the bytes of a band." * bool(total))
    if any(row["name"].startswith("pool") for row in rows):
        scale = scale.rstrip(".") + ". Paler: pooling."
    columns, centers, lane, width, height = plan.layout(rows, [
        (title, plan.TITLE, "bold"), (story, SMALL + 1), (scale, SMALL)])

    figure = style.new_figure(width, height, _alt(title, rows, total))
    page = style.bare_axes(figure, 0, 0, width, height, "inches")
    style.write(page, MARGIN, height - MARGIN, title, plan.TITLE, weight="bold", va="top")
    style.write(page, MARGIN, height - MARGIN - 0.37, story, SMALL + 1, style.SOFT, va="top")
    style.write(page, MARGIN, MARGIN, scale, SMALL, style.SOFT, va="bottom")
    _grounds(page, columns, centers, lane, devices)
    widest = max(row["bytes_in"] for row in rows) or 1
    for before, column in zip([[], *columns], columns):
        for body in column:
            _solid(page, body, devices)
        _flow(page, before, column, centers, devices, widest)
        _words(page, column, centers, height)
    return figure


def _solid(page, body, devices):
    """A box seen from the front, left and above; the input has a picture on its side."""
    color, hatch = _look(body.row["device"], devices)
    strength = 0.5 if body.row["name"].startswith("pool") else 1
    _, x, y, w, h, dx, dy = body
    top = [(x, y + h), (x + dx, y + h + dy), (x + w + dx, y + h + dy), (x + w, y + h)]
    side = [(x + w, y), (x + w + dx, y + dy), (x + w + dx, y + h + dy), (x + w, y + h)]
    front = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    for corners, share, lines in zip((top, side, front), FACES, ("", "", hatch)):
        _polygon(page, corners, facecolor=style.mix(color, share * strength), edgecolor=color,
                 linewidth=0.8, joinstyle="round", hatch=lines, zorder=3)
    if body.row["tower"] is None and len(body.row["shape"]) == 3:
        _scene(page, body)


def _scene(page, body):
    """Hills under a sun, for the image that comes in."""
    def on_side(u, v):
        return body.x + body.w + u * body.dx, body.y + v * body.h + u * body.dy

    sun = [(0.72 + 0.13 * math.cos(a), 0.76 + 0.13 * math.sin(a))
           for a in (math.tau * k / 48 for k in range(48))]
    hills = [(0, 0), (0, 0.3), (0.22, 0.52), (0.4, 0.36), (0.62, 0.62), (1, 0.26), (1, 0)]
    meadow = [(0, 0), (0, 0.2), (0.3, 0.24), (0.65, 0.14), (1, 0.2), (1, 0)]
    whole = [(0, 0), (1, 0), (1, 1), (0, 1)]
    for shape, share in ((whole, 0.18), (sun, 0.0), (hills, 0.5), (meadow, 0.75)):
        _polygon(page, [on_side(u, v) for u, v in shape], facecolor=style.mix(HOST, share),
                 edgecolor="none", zorder=3)


def _flow(page, before, column, centers, devices, widest):
    """What a column reads: of its own tower a window or an arrow, of the other a band."""
    for body in column:
        row = body.row
        # Where two arrive, they stand apart: the band from the other tower on the side it is on.
        inward = 1 if centers[row["tower"]] < centers[None] else -1
        joins = row["joins"] and any(b.row["tower"] not in (row["tower"], None) for b in before)
        apart = inward * min(max(0.25 * body.h, 0.05), 0.3) if joins else 0
        for source in before:
            start = (source.x + source.w + source.dx / 2, centers[source.row["tower"]])
            end = (body.x, centers[row["tower"]])
            if source.row["tower"] in (row["tower"], None) or row["tower"] is None:
                end = (end[0], end[1] - apart)
                if row["kernel"] and len(source.row["shape"]) == 3:
                    _window(page, source, start, end, row["kernel"])
                else:
                    _arrow(page, (start[0] + source.dx / 2, start[1]), end, style.SOFT, 1)
            elif joins:
                color = _look(source.row["device"], devices)[0] if row["bytes_in"] else style.SOFT
                _arrow(page, start, (end[0], end[1] + apart), color,
                       max(THICK * row["bytes_in"] / widest, 1))
    lines = plan.crossing(before, column)
    if lines:
        x = (max(b.x + b.w + b.dx for b in before) + min(b.x for b in column)) / 2
        style.write(page, x, centers[None], "\n".join(lines), SMALL, weight="bold", ha="center",
                    va="center", linespacing=1.3, zorder=6, gid="crossing",
                    bbox=dict(boxstyle="round,pad=0.35", facecolor="white",
                              edgecolor=style.FAINT, linewidth=1))


def _window(page, source, middle, end, kernel):
    """The window of a convolution, true to scale on its source, narrowing to what it makes."""
    share = min(1, kernel / source.row["shape"][1]) / 2
    (x, y), dx, h, dy = middle, share * source.dx, share * source.h, share * source.dy
    corners = [(x - dx, y - h - dy), (x + dx, y - h + dy), (x + dx, y + h + dy),
               (x - dx, y + h - dy)]
    for k in range(4):
        _polygon(page, [corners[k - 1], corners[k], end], facecolor=style.INK, alpha=0.07,
                 edgecolor="none", zorder=4)
        page.plot(*zip(corners[k], end), color=style.SOFT, linewidth=0.45, zorder=4)
    _polygon(page, corners, facecolor="white", edgecolor=style.INK, linewidth=0.5, zorder=4)


def _arrow(page, start, end, color, points):
    """A curve that leaves and arrives level, `points` thick, on a thin white edge."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (x0, y0), (x1, y1) = start, end
    thick = points / 72
    head, half = 0.08 + 0.6 * thick, 0.035 + 0.8 * thick
    neck = x1 - head
    bend = 0.6 * (neck - x0)
    path = Path([start, (x0 + bend, y0), (neck - bend, y1), (neck, y1)],
                [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    for edge, width in (("white", points + 2), (color, points)):
        page.add_patch(PathPatch(path, facecolor="none", edgecolor=edge, linewidth=width,
                                 capstyle="butt", zorder=2))
    _polygon(page, [end, (neck, y1 + half), (neck, y1 - half)], facecolor=color,
             edgecolor="none", zorder=2)


def _grounds(page, columns, centers, lane, devices):
    """A pale ground under each tower, its name in the outer corner."""
    bodies = [body for column in columns for body in column]
    right = page.get_xlim()[1] - MARGIN / 2
    left = min((b.x for b in bodies if b.row["tower"] is not None), default=0) - 0.25
    left = max(left, MARGIN / 2)
    for tower in (tower for tower in centers if tower is not None):
        places = list(dict.fromkeys(
            b.row["device"] for b in bodies if b.row["tower"] == tower and b.row["device"]))
        color, _ = _look(places[0] if places else None, devices)
        above = _above(tower, centers)
        low = centers[tower] - lane / 2 - (0.1 if above else 2 * plan.ROW)
        high = centers[tower] + lane / 2 + (2 * plan.ROW if above else 0.1)
        _polygon(page, [(left, low), (right, low), (right, high), (left, high)],
                 facecolor=style.mix(color, 0.09), edgecolor="none", zorder=0)
        y = high - 0.2 if above else low + 0.2
        _name(page, left + 0.12, y, f"tower {tower}", places, devices)


def _name(page, x, y, name, places, devices):
    """The name of a tower and a swatch for each of its devices."""
    style.write(page, x, y, name, NAME, weight="bold", va="center_baseline", gid="tower")
    x += style.extent(page.figure, name, NAME, "bold")[0] + 0.2
    for device in places:
        color, hatch = _look(device, devices)
        _polygon(page, [(x, y - 0.08), (x + 0.28, y - 0.08), (x + 0.28, y + 0.08), (x, y + 0.08)],
                 hatch=hatch, facecolor=style.mix(color, FACES[2]), edgecolor=color, linewidth=0.8)
        style.write(page, x + 0.36, y, device, NAME, va="center_baseline", gid="device")
        x += 0.36 + style.extent(page.figure, device, NAME)[0] + 0.25


def _words(page, column, centers, height):
    """Name and notes over the column; the size of each box on its outer side."""
    x = column[0].x + (column[0].w + column[0].dx) / 2
    top = height - MARGIN - plan.HEAD
    style.write(page, x, top, column[0].row["name"], NAME, weight="bold", ha="center", va="top",
                gid="name")
    for n, line in enumerate(column[0].row["note"].splitlines()):
        style.write(page, x, top - 0.23 - plan.LINE * n, line, SMALL, style.SOFT, ha="center",
                    va="top", gid="note")
    for body in column:
        above = _above(body.row["tower"], centers)
        y = body.y + body.h + body.dy + 0.06 if above else body.y - 0.06
        style.write(page, body.x + (body.w + body.dx) / 2, y, plan.size(body.row), SMALL,
                    ha="center", va="bottom" if above else "top", gid="size")


def _above(tower, centers):
    """Whether the words of a tower stand over it: those of the lower of two stand under it."""
    return tower is not None and (len(centers) == 2 or centers[tower] > centers[None])


def _polygon(page, corners, **how):
    from matplotlib.patches import Polygon

    page.add_patch(Polygon(corners, closed=True, **how))


def _look(device, devices):
    """Color and hatching of a device; neutral gray for what lives on none."""
    if device is None:
        return HOST, ""
    n = devices.index(device) % len(style.DEVICE_COLORS)
    return style.DEVICE_COLORS[n], style.DEVICE_HATCHES[n]


def _counts(rows, devices):
    counts = [(len({row["tower"] for row in rows} - {None}), "tower"), (len(devices), "device")]
    words = {1: "one", 2: "two", 3: "three", 4: "four"}
    return " on ".join(f"{words.get(count, count)} {noun}{'s' * (count != 1)}"
                       for count, noun in counts if count)


def _alt(title, rows, total):
    parts = [f"{title}, drawn to scale"]
    for tower in dict.fromkeys(row["tower"] for row in rows):
        boxes = ", ".join(f"{row['name']} {plan.size(row)}" for row in rows
                          if row["tower"] == tower)
        parts.append(boxes if tower is None else f"Tower {tower}: {boxes}")
    if total:
        parts.append(f"Between the devices cross {total:,} bytes per image forward, and as many "
                     "backward")
    return ". ".join(parts) + "."
