"""Floor 6: training, from a recipe and pictures to a net that is measured and saved.

In the order in which to read: ``trainer`` (the loop), ``evaluate`` (errors, ten windows,
averages), ``checkpoint`` (whole or not at all), ``restore`` (what a checkpoint holds, and back),
``rundir`` (a run's folder and log), ``surgery`` (a trained net put to a new use), ``progress``
and ``pictures``; then ``options`` and ``console``, which the programs in examples/ share.
"""
from .checkpoint import CheckpointError
from .evaluate import Score, measure, measure_average, predict, top_k_error
from .restore import Saved, open_net
from .rundir import RunError, RunFolder
from .surgery import freeze, take_weights
from .trainer import Diverged, Trainer

__all__ = ["CheckpointError", "Diverged", "RunError", "RunFolder", "Saved", "Score", "Trainer",
           "freeze", "measure", "measure_average", "open_net", "predict", "take_weights",
           "top_k_error"]
