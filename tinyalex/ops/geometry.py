"""Where windows fall: the arithmetic of strides and borders that conv and pool share."""
import math
import numbers


def pair(name, value, least):
    """Return `value` as (vertical, horizontal) integers of at least `least`, or teach."""
    both = (value, value) if isinstance(value, numbers.Integral) else value
    try:
        a, b = both
        if isinstance(a, numbers.Integral) and isinstance(b, numbers.Integral) \
                and min(a, b) >= least:
            return int(a), int(b)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name}: got {value!r}; expected an integer of at least {least} "
                     "or a pair of them (vertical, horizontal)")


def sides(value):
    """Return padding as ((top, bottom), (left, right)).

    >>> sides(2), sides((1, 2)), sides(((0, 3), (0, 3)))
    (((2, 2), (2, 2)), ((1, 1), (2, 2)), ((0, 3), (0, 3)))
    """
    if isinstance(value, (tuple, list)) and len(value) == 2 \
            and all(isinstance(v, (tuple, list)) for v in value):
        return pair("padding", tuple(value[0]), 0), pair("padding", tuple(value[1]), 0)
    vertical, horizontal = pair("padding", value, 0)
    return (vertical, vertical), (horizontal, horizontal)


def windows(extent, kernel, stride, before, after, ceil_mode):
    """Return how many windows fit along one axis.

    The floor rule drops a window that would hang over the end; the ceil rule of 2012 keeps it:
    224 pixels, kernel 11, stride 4 give 54 by the first and 55 by the second.

    >>> windows(224, 11, 4, 0, 0, False), windows(224, 11, 4, 0, 0, True)
    (54, 55)
    """
    room = extent + before + after - kernel
    if room < 0:
        return 0
    return 1 + (math.ceil(room / stride) if ceil_mode else room // stride)


def taps(extent, out, offset, stride, before):
    """Return which windows have tap `offset` inside the picture, and which pixels it meets.

    Window ``o`` starts at pixel ``o * stride - before``. Returns two slices: windows, pixels.

    >>> taps(5, 3, 0, 2, 1)      # windows start at -1, 1, 3: tap 0 of the first is padding
    (slice(1, 3, None), slice(1, 4, 2))
    """
    shift = offset - before
    first = max(0, -(shift // stride))
    last = min(out - 1, (extent - 1 - shift) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + shift
    return slice(first, last + 1), slice(start, last * stride + shift + 1, stride)


def refuse(op, x, kernel, stride, padding, why):
    """Raise the one ValueError that lists the whole geometry and says what is wrong."""
    raise ValueError(f"{op}: {why} (input {tuple(x.shape)}, kernel {kernel}, stride {stride}, "
                     f"padding {padding})")
