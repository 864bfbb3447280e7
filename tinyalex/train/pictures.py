"""The three pictures that a run leaves behind."""
import warnings

import numpy as np

from .. import viz
from ..data import BrokenPicture
from .disk import reason
from .evaluate import predict
from .rundir import RunNote


def draw(trainer, everything=False):
    """Draw a Trainer's curves, or all three; what cannot be written is only warned of."""
    run, net = trainer.run, trainer.net
    try:
        draw_curves(run, len(trainer.train.classes))
        if everything:
            draw_filters(run, net)
            draw_predictions(run, net, trainer.val, trainer.augment)
    except OSError as error:
        warnings.warn(f"could not draw: {reason(error)}", RunNote, stacklevel=3)


def draw_curves(run, classes):
    """Draw ``curves.png``: loss and errors from the run's log."""
    viz.save(viz.curves(run.rows(), classes), run.path / "curves.png")


def draw_filters(run, net):
    """Draw ``filters.png``: what the first layer has learned (the paper's figure 3)."""
    towers = first_filters(net)
    if towers:
        figure = viz.filters(np.concatenate(towers), towers=len(towers))
        viz.save(figure, run.path / "filters.png")


def draw_predictions(run, net, dataset, augment, count=8):
    """Draw ``predictions.png``: some held-out pictures and guesses (the paper's figure 4)."""
    pictures, labels = [], []
    for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        try:
            pictures.append(dataset.picture(int(i)))
            labels.append(int(dataset.labels[i]))
        except BrokenPicture:
            continue
    if pictures:
        probabilities = predict(net, augment.center(pictures))
        figure = viz.predictions(pictures, probabilities, dataset.classes, labels)
        viz.save(figure, run.path / "predictions.png")


def first_filters(net):
    """Return the weights that look at three colors, one array (K, 3, KH, KW) for each tower.

    Examples
    --------
    >>> from tinyalex import models
    >>> [w.shape for w in first_filters(models.mini())]
    [(16, 3, 11, 11), (16, 3, 11, 11)]
    """
    return [w for w in net.state_dict().values() if w.ndim == 4 and w.shape[1] == 3]
