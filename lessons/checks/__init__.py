"""The exercises of the lessons, one file for each lesson, and what checks them.

``exercises.py`` is what a notebook uses of it.
"""
import importlib
import pathlib


def lesson(number):
    """Return the exercises of a lesson, in order."""
    if number not in lessons():
        raise ValueError(f"there is no lesson {number!r} with exercises; expected one of "
                         f"{lessons()}")
    return importlib.import_module(f"checks.lesson{number:02d}").EXERCISES


def lessons():
    """Return the numbers of the lessons that have exercises."""
    return sorted(int(path.stem[6:]) for path in pathlib.Path(__file__).parent.glob("lesson*.py"))
