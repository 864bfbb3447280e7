"""Where everything stands in the picture of a graph: rows in, boxes and lines in inches out.

A copy between devices is a line and no box; where there is much, a chain of ops is one box. Boxes
stand in layers, each below all that it needs, and each device has a lane of its own.
"""

from dataclasses import dataclass, field

from tinyalex.viz import style

MANY = 24                       # boxes from which chains are folded and parameters left out
MOST = 200                      # boxes that a picture may hold
LINE, BOX, PAD = 0.17, 0.12, 0.2   # a line of text, the room around it, between two boxes
GAP, CROSS = 0.38, 0.75         # between layers; where something crosses
LANE = 0.55                     # between lanes
SMALL, NAME = 8, 9.5            # points; all above but the counts is inches


@dataclass(eq=False)
class Box:
    """A box, or one link of a long line (then without `lines`); its middle is at (x, y)."""

    device: str
    lines: list = field(default_factory=list)
    names: int = 0                                # how many of the lines are names
    rows: list = field(default_factory=list)
    above: list = field(default_factory=list)     # of (Box, bytes that cross)
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.14
    height: float = 0.0


def check(rows):
    """Return copies of the rows with every key filled in, or raise an error that helps."""
    rows = rows.rows() if hasattr(rows, "rows") else rows
    clean = []
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TypeError(f"rows[{n}] must be a dict, found {type(row).__name__}: {row!r:.60}")
        if "name" not in row:
            raise ValueError(f"rows[{n}] lacks name, found {row!r:.90}")
        row = {"inputs": (), "module": "", "device": "cpu:0", "shape": None, "nbytes": 0,
               "value": None, "gradient": None, "turn": None, **row}
        row.setdefault("home", row["device"])
        row["inputs"] = [i for i in row["inputs"] if i is not None]
        if not all(isinstance(i, int) and 0 <= i < n for i in row["inputs"]):
            raise ValueError(f"rows[{n}]['inputs'] must name earlier rows, 0 to {n - 1}, "
                             f"found {row['inputs']}")
        clean.append(row)
    if not clean:
        raise ValueError("rows is empty: there is nothing to draw")
    return clean


def boxes(rows, fold=None, leaves=None):
    """Return the boxes of a graph, in order, each knowing those above it.

    Parameters
    ----------
    rows : list of dict
        As `check` returns them.
    fold, leaves : bool, optional
        Whether chains become one box, and whether every leaf is drawn or only those that an op
        reads first; by default as the number of rows bids.
    """
    many = len(rows) > MANY
    fold, leaves = many if fold is None else fold, not many if leaves is None else leaves
    users = [[] for _ in rows]
    for n, row in enumerate(rows):
        for i in row["inputs"]:
            users[i].append(n)
    made, found = {}, []
    for n, row in enumerate(rows):
        if not row["inputs"] and not leaves and users[n] \
                and not any(rows[u]["inputs"][0] == n for u in users[n]):
            continue
        copy = row["home"] != row["device"]
        above = [made[i] for i in row["inputs"] if i in made]
        if copy and users[n] and above:
            made[n] = above[0][0], row["nbytes"]
            continue
        before = above[0][0] if len(above) == 1 and not above[0][1] and not copy else None
        joins = fold and before is not None and before.rows[-1]["inputs"] \
            and users[row["inputs"][0]] == [n] and before.device == row["home"]
        if joins:
            before.rows.append(row)
            made[n] = before, 0
            continue
        box = Box(row["home"], rows=[row], above=above)
        made[n] = box, 0
        found.append(box)
    if len(found) > MOST:
        raise ValueError(f"{len(found)} boxes are too many to draw, more than {MOST}: trace a "
                         "smaller net, or pass fold=True")
    return found


def label(row):
    """What an op is called in a folded box: its module's own name, or its class.

    >>> from tinyalex.viz.graph_layout import label
    >>> label(dict(name="Conv2d", module="towers.0.conv1")), label(dict(name="ReLU", module=""))
    ('conv1', 'ReLU')
    """
    own = row["module"].rsplit(".")[-1]
    return row["name"] if not own or own.isdigit() else own


def size(nbytes):
    """Return a number of bytes in few characters.

    >>> size(6912), size(1_384_448)
    ('6,912 B', '1.38 MB')
    """
    return f"{nbytes:,} B" if nbytes < 1e6 else f"{nbytes / 1e6:.3g} MB"


def layout(found):
    """Give every box its place on a page just large enough.

    Returns
    -------
    layers : list of list of Box
        From the top; with the links of lines that pass a layer.
    lanes : dict
        Of each device, the left and right of its lane.
    width, height : float
        Inches. The y of boxes counts from the lower edge.
    """
    for box in found:
        box.layer = max((other.layer + 1 for other, _ in box.above), default=0)
    for box in found[::-1]:                                # a leaf right above its first user
        if not box.above:
            below = [other.layer for other in found if any(b is box for b, _ in other.above)]
            box.layer = min(below, default=1) - 1
    layers = [[] for _ in range(max(box.layer for box in found) + 1)]
    for box in found:
        layers[box.layer].append(box)
        box.above = [(_link(layers, other, box), crossing) for other, crossing in box.above]
    devices = list(dict.fromkeys(box.device for box in found))
    ruler = style.new_figure(1, 1)
    for box in found:
        sizes = [style.extent(ruler, line, *((NAME, "bold") if n < box.names else (SMALL,)))[0]
                 for n, line in enumerate(box.lines)]
        box.width = max(0.6, max(sizes) + 2 * BOX + 0.08)
        box.height = LINE * len(box.lines) + BOX
    wide = {device: max(sum(b.width + PAD for b in layer if b.device == device)
                        for layer in layers) for device in devices}
    lanes, left = {}, PAD
    for device in devices:
        lanes[device] = left, left + wide[device]
        left += wide[device] + LANE
    for _ in range(3):                                     # each under the middle of its sources
        for layer in layers:
            layer.sort(key=lambda b: (devices.index(b.device), _middle(b)))
            for device in devices:
                _spread([b for b in layer if b.device == device], *lanes[device])
    y = PAD
    for n, layer in enumerate(layers):
        crosses = any(crossing for box in layer for _, crossing in box.above)
        high = max(box.height for box in layer)
        y += (CROSS if crosses else GAP if n else 0) + high / 2
        for box in layer:
            box.y = y
        y += high / 2
    for layer in layers:
        for box in layer:
            box.y = y + PAD - box.y                        # from below
    return layers, lanes, left - LANE + PAD, y + PAD


def _link(layers, top, box):
    """Return what stands right above `box` on the line from `top`: links pass the layers between.
    """
    for n in range(top.layer + 1, box.layer):
        link = Box(top.device, above=[(top, 0)], layer=n)
        layers[n].append(link)
        top = link
    return top


def _middle(box):
    return sum(other.x for other, _ in box.above) / len(box.above) if box.above else box.x


def _spread(row, left, right):
    """Put boxes beside each other, as near to the middle of what is above as there is room."""
    if not row:
        return
    x = left
    for box in row:
        box.x = x + (box.width + PAD) / 2
        x += box.width + PAD
    spare = right - x
    wish = sum((_middle(b) or (left + right) / 2) - b.x for b in row if b.above or not b.lines)
    known = sum(bool(b.above) for b in row)
    shift = min(max(wish / known if known else spare / 2, 0), spare)
    for box in row:
        box.x += shift
