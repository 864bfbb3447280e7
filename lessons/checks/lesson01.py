"""Lesson 01: how many windows there are."""
import numbers

import numpy as np
import tinyalex as ta

from .judging import Exercise, Wrong

PAPER = ((224, 11, 4, 0, False), (224, 11, 4, 0, True), (227, 11, 4, 0, False),
         (227, 11, 4, 0, True), (55, 3, 2, 0, False), (27, 5, 1, 2, False), (13, 3, 1, 1, False))


def library(size, kernel, stride, padding, ceil_mode):
    """Ask the engine itself: convolve a strip of zeros, and look how long the result is."""
    strip = ta.Tensor(np.zeros((1, 1, size, 1), np.float32))
    taps = ta.Tensor(np.zeros((1, 1, kernel, 1), np.float32))
    return ta.functional.conv2d(strip, taps, None, (stride, 1), ((padding, padding), (0, 0)),
                                ceil_mode=ceil_mode).shape[2]


def _wrong_ways(n, k, s, p, up):
    """Yield (text, number): what typical mistakes give for one geometry."""
    room = n + 2 * p - k
    floor, ceil = room // s, -(-room // s)
    steps = ceil if up else floor
    yield ("You count the steps from window to window. Three windows are two steps apart: "
           "one window more.", steps)
    yield ("Padding lies on both sides: the strip is size + 2 * padding long.",
           1 + (-(-(n + p - k) // s) if up else (n + p - k) // s))
    yield ("The padding is missing: the strip is size + 2 * padding long.",
           1 + (-(-(n - k) // s) if up else (n - k) // s))
    yield ("A window is kernel pixels long, so the last one starts kernel pixels before the end: "
           "the room to move in is size + 2 * padding - kernel.",
           1 + (-(-(n + 2 * p) // s) if up else (n + 2 * p) // s))
    yield ("ceil_mode=True is not heard: it keeps a last window that hangs over the end.",
           1 + floor)
    yield ("ceil_mode=False is not heard: it drops a last window that would hang over the end.",
           1 + ceil)
    yield ("round() goes to the nearest number; the rules here are down (floor), and up (ceil) "
           "with ceil_mode.", 1 + round(room / s))
    yield ("A division binds more tightly than a minus: put size + 2 * padding - kernel in "
           "parentheses, and divide that.", n + 2 * p - (-(-k // s) if up else k // s) + 1)
    yield ("Rounding up adds one only where the division leaves a rest: 216 / 4 is 54 either way.",
           1 + floor + up)
    yield ("The 1 stands inside the division; windows are counted after it: 1 + room / stride.",
           -(-(room + 1) // s) if up else (room + 1) // s)


def check(ask):
    """Compare with the engine on the paper's geometries and on 200 others."""
    rng = np.random.default_rng(1)
    geometries = list(PAPER)
    while len(geometries) < 200 + len(PAPER):
        n, k, s, p = (int(rng.integers(a, b)) for a, b in ((1, 60), (1, 12), (1, 6), (0, 4)))
        if n + 2 * p >= k and p < k:
            geometries.append((n, k, s, p, bool(rng.integers(2))))
    answers = [ask(*geometry) for geometry in geometries]
    for geometry, answer in zip(geometries, answers, strict=True):
        if not isinstance(answer, numbers.Integral) or isinstance(answer, bool):
            raise Wrong(f"output_size{geometry} gives {answer!r}, a {type(answer).__name__}; "
                        "expected an integer: there is no part of a window (// divides so).")
    right = [library(*geometry) for geometry in geometries]
    missed = [i for i, answer in enumerate(answers) if answer != right[i]]
    if not missed:
        return (f"The engine makes as many windows in all {len(geometries)} geometries, and 224 "
                "pixels give 54 windows by the floor rule, 55 by the ceil rule.")
    guesses = [list(_wrong_ways(*geometry)) for geometry in geometries]
    causes = [text for i, (text, _) in enumerate(guesses[0])
              if answers == [guess[i][1] for guess in guesses]]
    first = missed[0]
    n, k, s, p, up = geometries[first]
    raise Wrong(f"size {n}, kernel {k}, stride {s}, padding {p}, ceil_mode={up}: yours "
                f"{answers[first]}, the engine makes {right[first]} windows "
                f"({len(missed)} of {len(geometries)} geometries differ).\n"
                + (causes or ["Draw the strip on paper, and slide the window along it."])[0])


EXERCISES = (Exercise(
    number="1.1",
    title="how many windows",
    call="output_size(size, kernel, stride, padding, ceil_mode) -> int",
    library=library,
    check=check,
    hints=(
        "The padded strip is size + 2 * padding pixels long, and a window needs kernel of them. "
        "How many pixels are left for it to move in?",
        "Each step takes stride pixels. Count the steps that fit into the room, and then the "
        "windows: one more than steps. With ceil_mode, a step that fits only in part counts too.",
        "room = size + 2 * padding - kernel; the windows are 1 + room // stride, or, with "
        "ceil_mode, 1 + the same rounded up, which is -(-room // stride).",
    ),
),)
