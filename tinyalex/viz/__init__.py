"""Pictures of a net and of its training: arrays and plain rows in, matplotlib Figures out.

Knows no model class, and imports matplotlib only when a picture is drawn.

filters(weights, towers)        what the first layer has learned (the paper's figure 3)
curves(rows)                    loss and error over a run, from the rows of its log
predictions(pictures, ...)      pictures with the five best guesses (the paper's figure 4)
towers(rows)                    the net drawn to scale on its devices (the paper's figure 2)
save(figure, path)              to a .png, .svg or .pdf file, whole or not at all
"""

from tinyalex.viz.curves import curves
from tinyalex.viz.filters import filters
from tinyalex.viz.predictions import predictions
from tinyalex.viz.style import save
from tinyalex.viz.towers import towers

__all__ = ["curves", "filters", "predictions", "save", "towers"]
