"""Answers to lesson 01: how many windows there are."""
import math

import numpy as np

from . import right, wrong


@right("1.1")
def by_division(size, kernel, stride, padding, ceil_mode):
    room = size + 2 * padding - kernel
    return (-(-room // stride) if ceil_mode else room // stride) + 1


@right("1.1")
def by_math(size, kernel, stride, padding, ceil_mode):
    rounding = math.ceil if ceil_mode else math.floor
    return rounding((size + 2 * padding - kernel) / stride + 1)


@right("1.1")
def by_walking(size, kernel, stride, padding, ceil_mode):
    starts = np.arange(0, size + 2 * padding + stride, stride)
    fitting = int(np.sum(starts + kernel <= size + 2 * padding))
    whole = (fitting - 1) * stride + kernel == size + 2 * padding
    return fitting + (ceil_mode and not whole)


@wrong("1.1", "You count the steps from window to window")
def steps(size, kernel, stride, padding, ceil_mode):
    room = size + 2 * padding - kernel
    return math.ceil(room / stride) if ceil_mode else room // stride


@wrong("1.1", "Padding lies on both sides")
def padding_on_one_side(size, kernel, stride, padding, ceil_mode):
    return by_division(size - padding, kernel, stride, padding, ceil_mode)


@wrong("1.1", "The padding is missing")
def no_padding(size, kernel, stride, padding, ceil_mode):
    return by_division(size, kernel, stride, 0, ceil_mode)


@wrong("1.1", "A window is kernel pixels long")
def no_kernel(size, kernel, stride, padding, ceil_mode):
    length = size + 2 * padding
    return 1 + (math.ceil(length / stride) if ceil_mode else length // stride)


@wrong("1.1", "ceil_mode=True is not heard")
def always_down(size, kernel, stride, padding, ceil_mode):
    return (size + 2 * padding - kernel) // stride + 1


@wrong("1.1", "ceil_mode=False is not heard")
def always_up(size, kernel, stride, padding, ceil_mode):
    return math.ceil((size + 2 * padding - kernel) / stride) + 1


@wrong("1.1", "round() goes to the nearest number")
def nearest(size, kernel, stride, padding, ceil_mode):
    return round((size + 2 * padding - kernel) / stride) + 1


@wrong("1.1", "A division binds more tightly than a minus")
def no_parentheses(size, kernel, stride, padding, ceil_mode):
    return size + 2 * padding - (math.ceil(kernel / stride) if ceil_mode else kernel // stride) + 1


@wrong("1.1", "Rounding up adds one only where")
def one_more_always(size, kernel, stride, padding, ceil_mode):
    return (size + 2 * padding - kernel) // stride + (2 if ceil_mode else 1)


@wrong("1.1", "The 1 stands inside the division")
def one_inside(size, kernel, stride, padding, ceil_mode):
    room = size + 2 * padding - kernel + 1
    return math.ceil(room / stride) if ceil_mode else room // stride


@wrong("1.1", "a float; expected an integer")
def part_of_a_window(size, kernel, stride, padding, ceil_mode):
    return (size + 2 * padding - kernel) / stride + 1


@wrong("1.1", "Draw the strip on paper")
def half_the_kernel(size, kernel, stride, padding, ceil_mode):
    return (size + 2 * padding - kernel // 2) // stride + 1
