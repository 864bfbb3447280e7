"""Curves that grow while a net learns: redrawn in a notebook, printed line by line elsewhere."""

import sys
import time

from tinyalex.viz.curves import curves


class Live:
    """The curves of a run while it runs; a list of rows that shows itself.

    In a notebook the figure stands in one place and is redrawn, at most every `seconds`; elsewhere
    each validation, and a training row at most every `seconds`, is a printed line.

    Parameters
    ----------
    classes : int, optional
        As :func:`curves` takes it.
    seconds : float
        The time between two drawings, so that drawing does not take the time of learning.

    Attributes
    ----------
    rows : list of dict

    Examples
    --------
    >>> from tinyalex import viz
    >>> with viz.live() as run:
    ...     run.add(kind="train", step=1, loss=2.25, top1=80.0)
    ...     run.add(kind="val", step=1, loss=2.5, top1=75.0)
    train  step 1  loss 2.25  top1 80
    val  step 1  loss 2.5  top1 75
    >>> run.figure().alt_text
    'A run from step 1 to 1. Last validation at step 1: loss 2.5, top-1 error 75 %.'
    """

    def __init__(self, classes=None, seconds=1.0):
        self.rows, self.classes, self.seconds = [], classes, seconds
        self._handle, self._drawn, self._shown = None, -float("inf"), 0

    def add(self, **row):
        """Add a row as :func:`curves` describes it, and show it where it is time."""
        self.rows.append(row)
        due = time.monotonic() - self._drawn >= self.seconds
        if in_notebook():
            if due:
                self.show()
        elif due or row.get("kind") == "val":
            self._drawn = time.monotonic()
            print("  ".join([str(row.get("kind", "")),
                             *(f"{key} {value:.4g}" if isinstance(value, float) else
                               f"{key} {value}" for key, value in row.items() if key != "kind")]))

    def figure(self):
        """Return the curves of all rows as a Figure."""
        return curves(self.rows, self.classes)

    def show(self):
        """In a notebook, draw what was added since; elsewhere nothing."""
        if not in_notebook() or self._shown == len(self.rows):
            return
        from IPython.display import display

        figure, self._shown = self.figure(), len(self.rows)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._drawn = time.monotonic()             # after: drawing takes time too

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.show()


def live(classes=None, seconds=1.0):
    """Return :class:`Live` curves; inside ``with``, the last rows are drawn at its end.

    >>> from tinyalex import viz
    >>> viz.live().add(kind="train", step=1, loss=2.25)
    train  step 1  loss 2.25
    """
    return Live(classes, seconds)


def in_notebook():
    """Whether this runs in a Jupyter kernel.

    >>> in_notebook()
    False
    """
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
