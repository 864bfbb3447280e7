"""Pictures of a net and of its training: arrays and plain rows in, matplotlib Figures out.

Knows no model class, and imports matplotlib only when a picture is drawn.

filters(weights, towers)        what the first layer has learned (the paper's figure 3)
curves(rows)                    loss and error over a run, from the rows of its log
live()                          the same while it runs
predictions(pictures, ...)      pictures with the five best guesses (the paper's figure 4)
neighbors(pictures, rows)       pictures with those nearest to them (figure 4 too)
towers(rows)                    the net drawn to scale on its devices (the paper's figure 2)
graph(trace), filmstrip(trace)  what was made from what, and how gradients come back
unroll(picture, kernel)         windows as columns of a matrix
pool_map(picture)               where each pooled gradient lands
inhibition(x)                   how channels inhibit each other
occlusion(picture, p)           what is needed to see something
contact_sheet(pictures)         many versions of one photo
error_map(expected, found)      where an array is wrong
save(figure, path)              to a .png, .svg or .pdf file, whole or not at all
"""

from tinyalex.viz.curves import curves
from tinyalex.viz.errors import error_map
from tinyalex.viz.filters import filters
from tinyalex.viz.graph import filmstrip, graph
from tinyalex.viz.live import live
from tinyalex.viz.maps import inhibition, occlusion
from tinyalex.viz.patches import pool_map, unroll
from tinyalex.viz.predictions import predictions
from tinyalex.viz.sheets import contact_sheet, neighbors
from tinyalex.viz.style import save
from tinyalex.viz.towers import towers

__all__ = ["contact_sheet", "curves", "error_map", "filmstrip", "filters", "graph", "inhibition",
           "live", "neighbors", "occlusion", "pool_map", "predictions", "save", "towers", "unroll"]
