"""Randomness as a function of (seed, step, place), never of device, rank or thread.

A generator with a state hands out numbers in the order in which it is asked, so two towers, two
machines or a resumed run would each see other masks. Philox4x64-10 is counter-based instead:
a keyed function from a counter to 256 random bits. The key is (seed, place), the counter holds
(position, 0, use, step); whoever asks for the same place gets the same bits, in any order.
"""
import contextlib
import hashlib
import operator

import numpy as np

_seed, _step = 0, 0
_places = None    # of the rows of the batch at hand in the global batch; None: 0, 1, ...
_uses = {}    # place -> how often it has been drawn from since the last step


def manual_seed(seed):
    """Start all randomness again from `seed`, at step 0.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.

    Raises
    ------
    ValueError
        If `seed` is not such an integer.

    Examples
    --------
    >>> import tinyalex as ta
    >>> ta.manual_seed(0)
    >>> first = ta.random.generator("init", "conv1").standard_normal()
    >>> first == ta.random.generator("init", "conv1").standard_normal()
    True
    """
    set_state(seed, 0)


def get_state():
    """Return all there is to keep: ``{"seed": int, "step": int}``."""
    return {"seed": _seed, "step": _step}


def set_state(seed, step):
    """Continue from `seed` and `step`, as :func:`get_state` gave them."""
    global _seed, _step
    _seed, _step = _word("seed", seed), _word("step", step)
    _uses.clear()


def next_step():
    """Advance the step; the optimizer calls it, so that each update sees new masks."""
    set_state(_seed, _step + 1)


def next_use(place):
    """Return how often `place` was drawn from in this step before now: 0, 1, ..."""
    use = _uses.get(place, 0)
    _uses[place] = use + 1
    return use


@contextlib.contextmanager
def rows_at(places):
    """Context: the rows of the batch at hand have these places in the global batch.

    Whoever draws for each row of a batch draws for its place. So many ranks, each with a share,
    draw what one would; and so does a batch in which broken pictures were left out.

    Parameters
    ----------
    places : integer array, shape (N,)
        Ascending.

    Examples
    --------
    >>> import tinyalex as ta
    >>> with ta.random.rows_at([4, 5, 7]):
    ...     ta.random.places(3).tolist()
    [4, 5, 7]
    """
    global _places
    given = np.asarray(places, np.int64)
    if given.ndim != 1 or (np.diff(given, prepend=-1) < 1).any():
        raise ValueError(f"rows_at: got {places!r}; expected ascending integers of 0 or more")
    before, _places = _places, None if np.array_equal(given, np.arange(len(given))) else given
    try:
        yield
    finally:
        _places = before


def places(rows):
    """Return the places of so many rows in the global batch: 0, 1, ... or what `rows_at` says.

    Raises
    ------
    ValueError
        If :func:`rows_at` was told of another number of rows.
    """
    if _places is None:
        return np.arange(rows)
    if rows != len(_places):
        raise ValueError(f"rows: got {rows}; the batch at hand has {len(_places)} rows, and their "
                         "places in the global batch say nothing about others")
    return _places


def generator(purpose, name="", *, seed=None, step=0, index=0):
    """Return a NumPy generator that is a pure function of its arguments.

    Everything that is drawn on the host uses one: initial weights, the order of an epoch, crops.

    Parameters
    ----------
    purpose, name : str
        The place: what the numbers are for, and where, as ``("init", "conv1.0.weight")``.
    seed : int, optional
        The global seed where None.
    step, index : int
        Two counters to use as fits: an epoch and a batch in it, say.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> import tinyalex as ta
    >>> [int(ta.random.generator("order", seed=s).integers(100)) for s in (0, 0, 1)]
    [42, 42, 58]
    """
    return np.random.Generator(_philox(purpose, name, seed, step, index, 0))


def bits(purpose, name, rows, units, *, use=0, first_row=0):
    """Return 32 random bits for each unit of each row: a uint32 array (rows, units).

    Word ``i`` of a place is half ``i % 2`` (low half first) of output ``(i // 2) % 4`` of block
    ``i // 8`` with ``i = row * units + unit``, so any machine can draw just its own rows. Block b
    is Philox4x64-10 of the counter (b + 1, 0, use, step): NumPy counts on before it computes.

    Parameters
    ----------
    purpose, name : str
        The place.
    rows, units : int
        The shape to draw; `units` is that of the joined layer, tower 0 first.
    use : int
        Which draw within this step, from :func:`next_use`.
    first_row : int
        The place of row 0 in the global batch.
    """
    start = first_row * units
    skip = start % 8
    words = skip + rows * units
    raw = _philox(purpose, name, None, _step, use, start // 8).random_raw((words + 1) // 2)
    halves = raw.astype("<u8", copy=False).view("<u4")       # low half first on every machine
    return halves[skip:words].reshape(rows, units)


def key(purpose, name):
    """Return Philox' key of a place, (seed, hash of the place), for those who draw elsewhere.

    >>> import tinyalex as ta
    >>> ta.manual_seed(0)
    >>> key("dropout", "drop6")[0]
    0
    """
    place = hashlib.blake2b(f"{purpose}/{name}".encode(), digest_size=8).digest()
    return _seed, int.from_bytes(place, "little")


def _philox(purpose, name, seed, step, index, block):
    own_seed, place = key(purpose, name)
    seed = own_seed if seed is None else _word("seed", seed)
    both = np.array([seed, place], np.uint64)
    counter = np.array([block, 0, _word("index", index), _word("step", step)], np.uint64)
    return np.random.Philox(key=both, counter=counter)


def _word(name, value):
    try:
        word = operator.index(value)
    except TypeError:
        word = -1
    if not 0 <= word < 2**64:
        raise ValueError(f"{name}: got {value!r}; expected an integer from 0 to 2**64 - 1")
    return word
