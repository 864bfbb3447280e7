"""Answers that students give to the exercises of the lessons: some right, most typically wrong.

Each is a function as it would stand in a notebook, with what the check has to say to it.
"""
import collections
import importlib
import pathlib

RIGHT = collections.defaultdict(list)       # exercise -> functions
WRONG = collections.defaultdict(list)       # exercise -> (function, what the check says)


def right(number):
    """Decorate an answer that must pass."""
    def keep(fn):
        RIGHT[number].append(fn)
        return fn
    return keep


def wrong(number, says):
    """Decorate an answer that must fail, with a verdict that holds the words of `says`."""
    def keep(fn):
        WRONG[number].append((fn, says))
        return fn
    return keep


def load():
    """Read every file of answers; return RIGHT and WRONG."""
    for path in sorted(pathlib.Path(__file__).parent.glob("lesson*.py")):
        importlib.import_module(f"{__name__}.{path.stem}")
    return RIGHT, WRONG
