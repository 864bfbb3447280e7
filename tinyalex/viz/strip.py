"""A recorded computation to walk through: as a strip in a notebook, as a table of plain text.

The strip is a table of all steps; where scripts run, a few lines hide all rows but one and put
a row of marks and two buttons over it. So it stays readable where they do not, and on paper.
"""

import html

import numpy as np

from tinyalex.viz import style
from tinyalex.viz.thumbnail import thumbnail

FEW = 32       # elements that are written as numbers; more are drawn as pixels
LOOK = """
.tinyalex-trace { background: #fff; color: %(ink)s; font: 13px/1.4 sans-serif; max-width: 70em }
.tinyalex-trace .walk { display: flex; gap: 8px; align-items: center; margin: 6px 0 }
.tinyalex-trace [hidden] { display: none }
.tinyalex-trace .walk input { flex: 1 }
.tinyalex-trace .walk button { font-size: 15px; min-width: 2.4em; cursor: pointer }
.tinyalex-trace .marks { display: flex; gap: 1px; height: 16px }
.tinyalex-trace .marks i { flex: 1; border: 2px solid; box-sizing: border-box; cursor: pointer }
.tinyalex-trace .marks .backward { background: #fff !important }
.tinyalex-trace .marks .now { outline: 3px solid %(ink)s; z-index: 1 }
.tinyalex-trace table { border-collapse: collapse; width: 100%%; table-layout: fixed }
.tinyalex-trace td, .tinyalex-trace th { text-align: left !important; vertical-align: top;
  padding: 6px; border-top: 1px solid %(faint)s; background: #fff; color: %(ink)s;
  overflow-wrap: anywhere; white-space: normal }
.tinyalex-trace pre { margin: 0 0 6px; background: none; color: %(ink)s; white-space: pre-wrap;
  font: 12px/1.35 monospace }
.tinyalex-trace img { display: block; image-rendering: pixelated; margin: 2px 0;
  border: 1px solid %(faint)s }
.tinyalex-trace small { color: %(soft)s }
.tinyalex-trace.walks tbody tr { display: none }
.tinyalex-trace.walks tbody tr.now { display: table-row }
@media print {
  .tinyalex-trace .walk, .tinyalex-trace .marks { display: none }
  .tinyalex-trace.walks tbody tr { display: table-row; break-inside: avoid }
}
""" % {"ink": style.INK, "soft": style.SOFT, "faint": style.FAINT}
WALK = """
document.querySelectorAll(".tinyalex-trace:not(.walks)").forEach(function (strip) {
  var rows = strip.querySelectorAll("tbody tr"), marks = strip.querySelectorAll(".marks i");
  var place = strip.querySelector("input"), said = strip.querySelector("output"), now = 0;
  function show(k) {
    now = Math.max(0, Math.min(rows.length - 1, Number(k)));
    [rows, marks].forEach(function (list) {
      list.forEach(function (one, n) { one.classList.toggle("now", n === now); });
    });
    place.value = now;
    said.textContent = (now + 1) + " of " + rows.length;
  }
  place.oninput = function () { show(place.value); };
  strip.querySelector(".before").onclick = function () { show(now - 1); };
  strip.querySelector(".after").onclick = function () { show(now + 1); };
  marks.forEach(function (mark, n) { mark.onclick = function () { show(n); }; });
  strip.querySelectorAll("[hidden]").forEach(function (part) { part.hidden = false; });
  strip.classList.add("walks");
  show(0);
});
"""


def strip(frames):
    """Return the HTML of a strip: no network, no library, and readable without scripts.

    Parameters
    ----------
    frames : list of dict
        As ``Trace.frames()`` gives them.

    Returns
    -------
    str

    Examples
    --------
    >>> import tinyalex as ta
    >>> from tinyalex.viz.strip import strip
    >>> with ta.trace() as t:
    ...     y = ta.Tensor([1.0]) * 2
    >>> strip(t.frames()).count("<tr class")
    1
    """
    colors = _colors(frames)
    marks = "".join(f'<i class="{f["way"]}" title="{_text(_title(f))}" style="background: '
                    f'{colors[_home(f)]}; border-color: {colors[_home(f)]}"></i>' for f in frames)
    rows = "".join(_row(frame, colors) for frame in frames)
    return (f'<div class="tinyalex-trace"><style>{LOOK}</style>'
            f'<p><b>{_text(summary(frames))}</b></p>'
            f'<div class="marks" hidden>{marks}</div><div class="walk" hidden>'
            '<button class="before" aria-label="one step before">◀</button>'
            f'<input type="range" min="0" max="{max(len(frames) - 1, 0)}" value="0" '
            'aria-label="step"><button class="after" aria-label="one step after">▶</button>'
            '<output></output></div><table><colgroup><col style="width: 16%">'
            '<col style="width: 32%"><col style="width: 26%"><col style="width: 26%"></colgroup>'
            '<thead><tr><th>step</th><th>what it computes</th><th>given</th><th>gave</th></tr>'
            f'</thead><tbody>{rows}</tbody></table><script>{WALK}</script></div>')


def table(frames):
    """Return the same as plain text, one line for each frame.

    >>> import tinyalex as ta
    >>> from tinyalex.viz.strip import table
    >>> with ta.trace() as t:
    ...     y = ta.Tensor([1.0]) * 2
    >>> print(table(t.frames()))
    way        op     device  given     gave    time
    forward 1  Scale  cpu:0   leaf 1 1  y 1: 2  ...s
    1 step forward in ...s.
    """
    lines = [["way", "op", "module", "device", "given", "gave", "time", "bytes across"]]
    for f in frames:
        lines.append([f"{f['way']} {f['number']}", f["op"], f["module"], f["place"], *_sides(f),
                      duration(f["seconds"]), f"{f['nbytes']:,}" if f["nbytes"] else ""])
    used = [n for n in range(8) if n not in (2, 7) or any(line[n] for line in lines[1:])]
    widths = {n: max(len(line[n]) for line in lines) for n in used}
    text = ["  ".join(line[n].ljust(widths[n]) for n in used).rstrip() for line in lines]
    return "\n".join(text + [summary(frames)])


def _sides(frame):
    """What was given and what came out, in few words: of the two, results with their range."""
    def sizes(name, kept):
        return f"{_own(name, frame)} {'×'.join(map(str, kept.shape))}".rstrip()

    def ranges(name, kept):
        return f"{sizes(name, kept)}: {kept}"

    ways = (sizes, ranges) if frame["way"] == "forward" else (ranges, lambda name, _: name)
    return [", ".join(tell(_own(name, frame), kept) for name, kept in frame[side])
            for tell, side in zip(ways, ("given", "gave"))]


def _own(name, frame):
    """The name of a module's own parameter without the path of the module."""
    return name.replace(f"{frame['module']}.", "") if frame["module"] else name


def summary(frames):
    """Say how many steps there are each way, how long they took and what crossed.

    >>> from tinyalex.viz.strip import summary
    >>> summary([])
    'Nothing was recorded.'
    """
    said = []
    for way in ("forward", "backward"):
        those = [f for f in frames if f["way"] == way]
        if not those:
            continue
        steps = f"{len(those)} step{'s' * (len(those) != 1)}"
        text = f"{steps} {way} in {duration(sum(f['seconds'] for f in those))}"
        copies = [f["nbytes"] for f in those if f["nbytes"]]
        if copies:
            text += f", {sum(copies):,} bytes across devices in {len(copies)} " \
                    f"{'copy' if len(copies) == 1 else 'copies'}"
        said.append(text)
    return ("; ".join(said) or "Nothing was recorded") + "."


def duration(seconds):
    """Return a time with three digits and a unit.

    >>> from tinyalex.viz.strip import duration
    >>> duration(0.01234), duration(2), duration(4.2e-6)
    ('12.3 ms', '2 s', '4.2 µs')
    """
    factor, unit = next(((f, u) for f, u in ((1, "s"), (1e3, "ms")) if seconds * f >= 1),
                        (1e6, "µs"))
    return f"{seconds * factor:.3g} {unit}"


def _row(frame, colors):
    across = f"<br>{frame['nbytes']:,} bytes across" if frame["nbytes"] else ""
    where = f"<br><small>{_text(frame['module'])}</small>" if frame["module"] else ""
    swatch = f'<span style="color: {colors[_home(frame)]}">■</span>'
    given, gave = ("".join(_array(_own(name, frame), kept) for name, kept in frame[side])
                   for side in ("given", "gave"))
    return (f'<tr class="{frame["way"]}"><td><b>{_text(_title(frame))}</b>{where}<br>{swatch} '
            f'{_text(frame["place"])}{across}<br>{duration(frame["seconds"])}</td>'
            f'<td><pre>{_text(frame["words"])}</pre></td><td>{given}</td>'
            f'<td>{gave}</td></tr>')


def _array(name, kept):
    """Name, sizes and range of an array, and its numbers or its picture."""
    head = f"<small>{_text(name)} {kept.shape} {kept.dtype}"
    if kept.values.size <= FEW and kept.whole:
        numbers = np.array2string(kept.values, precision=4, separator=", ", max_line_width=30)
        return f"{head}</small><pre>{_text(numbers)}</pre>"
    part = "" if kept.whole else ", a part is shown"
    return (f"{head}</small>{thumbnail(kept.values)}<small>{kept.low:.3g} to {kept.high:.3g}, mean "
            f"{kept.mean:.3g}, {100 * kept.zeros:.3g} % zeros"
            + f", {kept.odd:,} NaN or infinite" * bool(kept.odd) + f"{part}</small><br>")


def _title(frame):
    return f"{frame['number']} {frame['op']}, {frame['way']}"


def _home(frame):
    return frame["place"].split(" → ")[-1]


def _colors(frames):
    homes = dict.fromkeys(_home(frame) for frame in frames)
    return {home: style.DEVICE_COLORS[n % len(style.DEVICE_COLORS)]
            for n, home in enumerate(homes)}


def _text(string):
    return html.escape(str(string))
