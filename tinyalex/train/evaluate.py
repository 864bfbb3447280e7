"""Measuring a net: top-1 and top-5 error, ten crops, the average of several nets.

Paper section 4.1: a picture is judged by the softmax outputs averaged over ten patches, the four
corners, the center and their mirror images; section 6 averages those of several nets, too.
"""
import contextlib
from dataclasses import dataclass

import numpy as np

from ..data import Crops
from ..graph import no_grad
from ..tensor import Tensor


@dataclass(frozen=True)
class Score:
    """How well a net did on some pictures: mean loss (nats) and errors (percent)."""

    loss: float
    top1: float
    top5: float
    pictures: int

    def __str__(self):
        return f"top-1 error {self.top1:.1f} %, top-5 error {self.top5:.1f} %"

    def row(self):
        """Return what a row of the log says of it."""
        return {"loss": self.loss, "top1": self.top1, "top5": self.top5}


class Tally:
    """Sums of loss and errors over batches of any sizes.

    Parameters
    ----------
    sums : dict, optional
        Those of another Tally, to go on from: ``pictures``, ``loss``, ``top1``, ``top5``.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add(0.5, np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    >>> tally.score()
    Score(loss=0.5, top1=50.0, top5=0.0, pictures=2)
    """

    def __init__(self, sums=None):
        self.sums = dict(sums or {"pictures": 0, "loss": 0.0, "top1": 0.0, "top5": 0.0})

    def add(self, loss, scores, labels):
        """Count a batch: its mean loss, and an array (N, K) of which the highest is the guess."""
        n = len(labels)
        self.sums["pictures"] += n
        self.sums["loss"] += n * float(loss)
        self.sums["top1"] += n * top_k_error(scores, labels, 1)
        self.sums["top5"] += n * top_k_error(scores, labels, 5)

    def __bool__(self):
        return self.sums["pictures"] > 0

    def score(self):
        """Return the means as a Score; a ValueError where nothing was counted."""
        n = self.sums["pictures"]
        if n == 0:
            raise ValueError("there is no picture to measure the net on")
        return Score(*(self.sums[key] / n for key in ("loss", "top1", "top5")), n)


def predict(net, images, batch_size=256):
    """Return the class probabilities that a net gives to pictures.

    Parameters
    ----------
    net : Module
        Its training mode is left as it was; dropout is off meanwhile.
    images : array or Crops, shape (N, 3, S, S) or (N, T, 3, S, S)
        Prepared pictures, or T patches of each, whose probabilities are averaged.
    batch_size : int
        How many go through the net at once.

    Returns
    -------
    numpy.ndarray, shape (N, K), float64
        Each row sums to 1.

    Raises
    ------
    ValueError
        If `images` has another number of axes.

    Examples
    --------
    >>> import tinyalex as ta
    >>> class Flat(ta.nn.Module):
    ...     def forward(self, x):
    ...         return x.reshape(len(x), -1)[:, :2]
    >>> predict(Flat(), np.zeros((3, 3, 8, 8), np.float32)).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """
    if images.ndim not in (4, 5):
        raise ValueError(f"images has shape {images.shape}; expected (N, 3, S, S), or "
                         "(N, T, 3, S, S) with T patches of each picture")
    patches = (images.flat() if isinstance(images, Crops) else
               images.reshape(-1, *images.shape[-3:]))                # (N*T, 3, S, S)
    with _judging(net):
        logits = np.concatenate([net(shown(patches[i:i + batch_size])).numpy()
                                 for i in range(0, len(patches), batch_size)])
    probabilities = softmax(logits)                                   # (N*T, K)
    return probabilities.reshape(len(images), -1, logits.shape[1]).mean(1)      # (N, K)


def measure(net, batches, ranks=None):
    """Measure a net on labeled pictures.

    Parameters
    ----------
    net : Module
    batches : iterable of Batch
        With ``images`` as :func:`predict` takes them, and ``labels``.
    ranks : Ranks, optional
        Those who measure with us, each on its share of the pictures; all get the whole's score.

    Returns
    -------
    Score

    Raises
    ------
    ValueError
        There is no picture at all.

    Examples
    --------
    >>> import tinyalex as ta
    >>> from types import SimpleNamespace as Batch
    >>> class Flat(ta.nn.Module):
    ...     def forward(self, x):
    ...         return x.reshape(len(x), -1)[:, :4]
    >>> images, labels = np.zeros((2, 3, 8, 8), np.float32), np.array([0, 3])
    >>> print(measure(Flat(), [Batch(images=images, labels=labels)]))   # it knows nothing at all
    top-1 error 75.0 %, top-5 error 0.0 %
    """
    return _score(((predict(net, batch.images), batch.labels) for batch in _filled(batches)), ranks)


def measure_average(members):
    """Measure the average of several nets' probabilities.

    Parameters
    ----------
    members : iterable of (net, batches)
        The same pictures in the same order for all; crops, sizes and means may differ. Taken one
        by one, so that only one net need be in memory.

    Returns
    -------
    Score

    Raises
    ------
    ValueError
        The members saw different labels.
    """
    sums, labels, count = [], [], 0
    for count, (net, batches) in enumerate(members, 1):
        for i, batch in enumerate(_filled(batches)):
            p = predict(net, batch.images)
            if count == 1:
                sums.append(p)
                labels.append(batch.labels)
            elif i < len(sums) and np.array_equal(labels[i], batch.labels):
                sums[i] += p
            else:
                raise ValueError(f"net {count} did not see the same pictures as the first")
    return _score((p / count, truth) for p, truth in zip(sums, labels, strict=True))


def top_k_error(probabilities, labels, k=1):
    """Return the percentage of pictures whose true class is not among the k likeliest.

    A tie counts by its chance, as in the 2012 source: of t classes that tie for the last r places
    each is inside with r / t. So a net that gives all K classes the same errs 100 (1 - k / K) %,
    and one with NaN errs always. With k of K or more there is no error.

    Parameters
    ----------
    probabilities : array, shape (N, K)
        Or logits: only the order matters.
    labels : integer array, shape (N,)
    k : int

    Returns
    -------
    float

    Examples
    --------
    >>> top_k_error(np.array([[.7, .2, .1], [.4, .4, .2]]), np.array([0, 1]))
    25.0
    """
    own = np.take_along_axis(probabilities, labels[:, None], 1)       # (N, 1)
    above = (probabilities > own).sum(1)                              # (N,)
    tied = (probabilities == own).sum(1)                              # (N,), itself included
    inside = np.clip((k - above) / np.maximum(tied, 1), 0, 1)
    inside[~np.isfinite(probabilities).all(1)] = 0
    return 100.0 * float(1 - inside.mean())


def softmax(logits):
    """Return softmax over the last axis of a host array, in float64.

    Examples
    --------
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    z = np.asarray(logits, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def shown(images):
    """Return what a net is shown: an array as a Tensor, and Crops as they are.

    Examples
    --------
    >>> shown(np.zeros((1, 3, 8, 8), np.float32)).device
    Device('cpu:0')
    """
    return images if isinstance(images, Crops) else Tensor(images)


def _filled(batches):
    return (batch for batch in batches if len(batch.labels))     # not those all of whose are broken


def _score(pairs, ranks=None):
    tally = Tally()
    for p, labels in pairs:
        own = p[np.arange(len(labels)), labels]
        loss = -np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()
        tally.add(loss, p, labels)
    return (ranks.summed(tally) if ranks else tally).score()


@contextlib.contextmanager
def _judging(net):
    """Dropout off and no graph, and afterwards the mode that was."""
    training = net.training
    net.eval()
    try:
        with no_grad():
            yield
    finally:
        net.train(training)
