"""The exercises of the lessons, as a notebook uses them::

    from exercises import check, exercise, hint, progress

    progress(4)                      # a line of boxes, filled by the checks further down

    @exercise("4.1")                 # an open exercise runs as the library's version
    def conv2d_backward(gy, x, w, stride, padding, groups):
        ...

    check("4.1")                     # runs what you wrote, and says what is wrong with it
    hint("4.1")                      # one step further each time, three in all

Nothing is stored: the boxes are what the checks say, each time they are asked.
"""
import contextlib
import dis
import functools
import io

from checks import lesson
from checks.drawing import draw, show_text
from checks.judging import Verdict, judge

_written, _hinted, _lines = {}, {}, {}      # the functions of this kernel; hints seen; the boxes


def exercise(number):
    """Decorate the student's function: open, it runs as the library's version.

    Parameters
    ----------
    number : str
        ``"4.1"``.
    """
    found = _find(number)

    def decorate(fn):
        _written[number] = fn
        if is_open(fn):
            print(f"{number} open: using the library's version.")
            return functools.wraps(fn)(lambda *args, **kw: found.library(*args, **kw))
        return fn
    return decorate


def is_open(fn):
    """Whether the body of a function is nothing but ``...``."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return False
    steps = [step for step in dis.get_instructions(code)
             if step.opname not in ("RESUME", "NOP", "COPY_FREE_VARS")]
    return all(step.opname.startswith(("LOAD_CONST", "RETURN_")) and step.argval is None
               for step in steps)


def verdict(number, fn=None):
    """Judge what the student wrote (or `fn`), and draw nothing.

    Returns
    -------
    Verdict
    """
    asked, fn = _find(number), fn or _written.get(number)
    if fn is None:
        return Verdict(number, False, f"{number} is not defined yet: run the cell with "
                                      f'@exercise("{number}") first.')
    if is_open(fn):
        return Verdict(number, False, f"{number} open. Write {asked.call}, "
                                      "in place of the three dots, and run the check again.")
    return judge(asked, fn)


def check(number):
    """Run the student's code; say what is right or wrong with it, and draw the error map.

    Returns
    -------
    None: what it found is shown.
    """
    found = verdict(number)
    show_text(found.text)
    for name, right, yours in found.maps:
        draw(f"{number}: the errors of {name}", right, yours)
    progress(int(number.split(".")[0]), show=False)


def hint(number, step=None):
    """Show the next hint of three, or the one that `step` names."""
    hints = _find(number).hints
    _hinted[number] = min(_hinted.get(number, 0) + 1, len(hints)) if step is None else step
    if not 1 <= _hinted[number] <= len(hints):
        raise ValueError(f"step: got {step!r}; expected 1 to {len(hints)}")
    text = f"Hint {_hinted[number]} of {len(hints)} for {number}. {hints[_hinted[number] - 1]}"
    show_text(text)


def progress(lesson_number, show=True):
    """Show a box for each exercise of a lesson; later checks fill it where it stands."""
    with contextlib.redirect_stdout(io.StringIO()):       # what the student prints is for check
        boxes = "   ".join(f"{'■' if verdict(e.number) else '□'} {e.number} {e.title}"
                           for e in lesson(lesson_number))
    if show:
        _lines[lesson_number] = show_text(boxes, updatable=True)
    elif _lines.get(lesson_number) is not None:
        _lines[lesson_number].update(_lines[lesson_number].made(boxes))


def _find(number):
    found = [e for e in lesson(int(str(number).split(".")[0])) if e.number == number]
    if not found:
        raise ValueError(f"there is no exercise {number!r}")
    return found[0]
