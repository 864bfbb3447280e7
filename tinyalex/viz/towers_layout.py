"""Where everything stands in the picture of the towers: rows in, places in inches out."""

import operator
from collections import namedtuple

from tinyalex.viz import style

DX, DY = 0.27, 0.225            # where an inch of a map's width goes: to the right, and up
DEEPEST = 0.62                  # how far the most maps reach along the page
LANE, ALONE = 1.3, 1.9          # for the boxes of a tower, where there are two and where one
ROW, STRIP = 0.28, 1.0          # for sizes or a name; between the towers, where bands cross
HEAD, FOOT, MARGIN = 0.82, 0.62, 0.25
LINE = 0.18                     # from one line of small text to the next
TITLE, NAME, SMALL = 17, 12, 10  # points; all above is inches

# A row as a box: its front face is w by h from (x, y), its depth goes to (dx, dy).
Body = namedtuple("Body", "row x y w h dx dy")


def paper():
    """Return the net of the paper as rows; a crossing is counted where it arrives, in float32.

    Examples
    --------
    >>> from tinyalex.viz.towers_layout import paper
    >>> sum(row["bytes_in"] for row in paper())
    234496
    """
    rows = [dict(name="input", tower=None, shape=(3, 224, 224), device=None, bytes_in=0,
                 note="one image,\nboth towers")]
    for name, shape, kernel, bytes_in, note in (
            ("conv1", (48, 55, 55), 11, 0, "11×11, stride 4\nthen LRN"),
            ("pool1", (48, 27, 27), None, 0, "max 3×3\nstride 2"),
            ("conv2", (128, 27, 27), 5, 0, "5×5\nthen LRN"),
            ("pool2", (128, 13, 13), None, 0, "max 3×3\nstride 2"),
            ("conv3", (192, 13, 13), 3, 4 * 128 * 13 * 13, "3×3\nboth towers"),
            ("conv4", (192, 13, 13), 3, 0, "3×3\nown tower"),
            ("conv5", (128, 13, 13), 3, 0, "3×3\nown tower"),
            ("pool5", (128, 6, 6), None, 0, "max 3×3\nstride 2"),
            ("fc6", (2048,), None, 4 * 128 * 6 * 6, "dense\ndropout"),
            ("fc7", (2048,), None, 4 * 2048, "dense\ndropout"),
            ("fc8", (1000,), None, 4 * 2048, "dense\nsoftmax")):
        for tower in (0, 1) if name != "fc8" else (0,):  # fc8 lives on the first device
            rows.append(dict(name=name, tower=tower, shape=shape, device=f"cuda:{tower}",
                             bytes_in=bytes_in, kernel=kernel, note=note))
    return rows


def check(rows):
    """Return copies of the rows with every key filled in, or raise an error that helps."""
    clean, seen = [], set()
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TypeError(f"rows[{n}] must be a dict, found {type(row).__name__}: {row!r:.60}")
        missing = [key for key in ("name", "tower", "shape") if key not in row]
        if missing:
            raise ValueError(f"rows[{n}] lacks {' and '.join(missing)}, found {row!r:.90}")
        row = {"device": None, "bytes_in": 0, "kernel": None, "note": "", **row}
        row["name"] = str(row["name"])
        try:
            row["shape"] = tuple(map(operator.index, row["shape"]))
            row["bytes_in"] = operator.index(row["bytes_in"])
        except TypeError:
            raise TypeError(f"rows[{n}]: shape must hold integers and bytes_in be an integer, "
                            f"found {row['shape']!r} and {row['bytes_in']!r}") from None
        if len(row["shape"]) not in (1, 3) or min(row["shape"]) < 1:
            raise ValueError(f"rows[{n}]['shape'] must be (C, H, W) or (units,), each at least 1, "
                             f"found {row['shape']}")
        if row["tower"] not in (0, 1, None):
            raise ValueError(f"rows[{n}]['tower'] must be 0, 1 or None, found {row['tower']!r}")
        if row["bytes_in"] < 0:
            raise ValueError(f"rows[{n}]['bytes_in'] must be at least 0, found {row['bytes_in']}")
        if (row["name"], row["tower"]) in seen:
            raise ValueError(f"rows[{n}]: {row['name']!r} of tower {row['tower']} comes twice; "
                             "a name may come once in each tower")
        seen.add((row["name"], row["tower"]))
        row.setdefault("joins", row["bytes_in"] > 0)
        clean.append(row)
    if not clean:
        raise ValueError("rows is empty: there is nothing to draw")
    return clean


def layout(rows, texts):
    """Give every row its place, on a page just large enough for all boxes and words.

    Parameters
    ----------
    rows : list of dict
        As `check` returns them.
    texts : sequence of (str, points, weight)
        Lines over the whole picture, which must fit on the page too.

    Returns
    -------
    columns : list of list of Body
        Rows of one name, from left to right.
    centers : dict
        Of each tower, and of None, the height of its middle line.
    lane : float
        The height that the boxes of a tower may take.
    width, height : float
        Of the page. All in inches.
    """
    towers = sorted({row["tower"] for row in rows} - {None})
    two = len(towers) > 1
    lane = LANE if two else ALONE
    zone = lane + 2 * ROW  # above or below the boxes, a row for sizes and one for the tower's name
    span = 2 * zone + STRIP if two else zone
    centers = {tower: FOOT + lane / 2 + 2 * ROW * two for tower in towers}
    centers[None] = FOOT + span / 2
    if two:
        centers[towers[0]] = FOOT + zone + STRIP + lane / 2

    maps = [row for row in rows if len(row["shape"]) == 3]
    units = [row["shape"][0] for row in rows if len(row["shape"]) == 1]
    inch = min(((lane if row["tower"] is not None else span - 2 * ROW)
                / (row["shape"][1] + DY * row["shape"][2]) for row in maps), default=1)
    deep = DEEPEST / max((row["shape"][0] for row in maps), default=1)
    unit = lane / max(units, default=1)
    groups = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(_body(row, inch, deep, unit, centers))

    ruler = style.new_figure(1, 1)

    def reach(line, points, weight="normal"):
        return style.extent(ruler, line, points, weight)[0]

    columns, boxes, words = [], MARGIN, MARGIN  # how far boxes and words reach to the right
    for group in groups.values():
        wide = max(body.w + body.dx for body in group)
        own = [body.row for body in group]
        lines = [line for row in own for line in (*row["note"].splitlines(), size(row))]
        text = max(reach(own[0]["name"], NAME, "bold"), *(reach(line, SMALL) for line in lines))
        gap = 0.0 if own[0]["tower"] is None else 0.15
        if columns:
            roomy = columns[-1][0].row["tower"] is None or any(row["joins"] for row in own)
            gap = max([0.6 if roomy else 0.3, *(reach(line, SMALL, "bold") + 0.18
                                                for line in crossing(columns[-1], group))])
        left = max(boxes + gap, words + 0.14 * bool(columns) + max(0, text - wide) / 2)
        columns.append([body._replace(x=left + (wide - body.w - body.dx) / 2) for body in group])
        boxes, words = left + wide, left + (wide + max(text, wide)) / 2
    width = max([words, *(MARGIN + reach(*text) for text in texts)]) + MARGIN
    lines = max(len(row["note"].splitlines()) for row in rows)
    return columns, centers, lane, width, FOOT + span + 0.4 + LINE * lines + HEAD + MARGIN


def _body(row, inch, deep, unit, centers):
    if len(row["shape"]) == 1:
        w, h, dx, dy = 0.12, max(row["shape"][0] * unit, 0.04), 0.06, 0.05
    else:
        maps, high, wide = row["shape"]
        w, h = max(maps * deep, 0.03), max(high * inch, 0.03)
        dx, dy = wide * inch * DX, wide * inch * DY
    return Body(row, 0, centers[row["tower"]] - (h + dy) / 2, w, h, dx, dy)


def crossing(before, column):
    """What is written on a crossing: between which layers, and how many bytes in all."""
    total = sum(body.row["bytes_in"] for body in column)
    if not total or not before:
        return []
    return [f"{before[0].row['name']} → {column[0].row['name']}", f"{total:,} B"]


def size(row):
    """The sizes of a row as the paper gives them, the number of maps last."""
    return "×".join(str(n) for n in (*row["shape"][1:], row["shape"][0]))
