"""What a check shows: a text, and the map of the errors; in a notebook or in a terminal."""
import textwrap

from tinyalex.viz.live import in_notebook


def show_text(text, updatable=False):
    """Print a text; in a notebook, return with `updatable` a handle that can replace it later."""
    if not (updatable and in_notebook()):
        for line in text.split("\n"):
            # a page of a notebook is about this wide; what is indented is a map, and stays
            print(line if line.startswith(" ") else textwrap.fill(
                line, 92, break_on_hyphens=False))
        return None
    from IPython.display import display

    handle = display(Plain(text), display_id=True)
    handle.made = Plain
    return handle


class Plain:
    """A text that a notebook shows as it is."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def draw(title, right, yours):
    """Show a map of where `yours` is not `right`, in a notebook."""
    if in_notebook():
        from IPython.display import display
        from tinyalex import viz

        display(viz.error_map(right, yours, title=title))
