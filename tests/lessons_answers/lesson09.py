"""Answers to lesson 09: the exchange between two towers."""
import numpy as np
import tinyalex as ta

from . import right, wrong


@right("9.1")
def concatenated(a, b, homes):
    return (np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1),
            np.concatenate([ta.transfer(a, homes[0], homes[1]), b], axis=1))


@right("9.1")
def into_empty(a, b, homes):
    joined = []
    for own, (first, second) in enumerate(((a, ta.transfer(b, homes[1], homes[0])),
                                           (ta.transfer(a, homes[0], homes[1]), b))):
        whole = np.empty((len(a), first.shape[1] + second.shape[1], *a.shape[2:]))
        whole[:, :first.shape[1]], whole[:, first.shape[1]:] = first, second
        joined.append(whole)
    return joined


@right("9.1")
def over_all_homes(a, b, homes):
    parts = list(zip((a, b), homes))
    return tuple(np.hstack([ta.transfer(part, src, dst, "exchange") for part, src in parts])
                 for dst in homes)


@wrong("9.1", "Nothing crossed by transfer")
def no_transfer(a, b, homes):
    return np.concatenate([a, b], axis=1), np.concatenate([a, b], axis=1)


@wrong("9.1", "You send whole what the other has a part of")
def sends_the_whole(a, b, homes):
    joined = np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1)
    return joined, ta.transfer(joined, homes[0], homes[1])


@wrong("9.1", "Both devices hold the same array")
def one_array(a, b, homes):
    joined = np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1)
    return joined, joined


@wrong("9.1", "src is where the array lives")
def src_and_dst_turned(a, b, homes):
    return (np.concatenate([a, ta.transfer(b, homes[0], homes[1])], axis=1),
            np.concatenate([ta.transfer(a, homes[1], homes[0]), b[:, :]], axis=1)
            ) if a.shape != b.shape else concatenated(a, b, homes)


@wrong("9.1", "in the order of who asks")
def own_maps_first(a, b, homes):
    return (np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1),
            np.concatenate([b, ta.transfer(a, homes[0], homes[1])], axis=1))


@wrong("9.1", "expected (4, 6, 2, 2)")
def joined_as_pictures(a, b, homes):
    return (np.concatenate([a, ta.transfer(b, homes[1], homes[0])]),
            np.concatenate([ta.transfer(a, homes[0], homes[1]), b]))


@wrong("9.1", "The same part stands twice")
def own_maps_twice(a, b, homes):
    return (np.concatenate([a, ta.transfer(a, homes[1], homes[0])], axis=1),
            np.concatenate([ta.transfer(b, homes[0], homes[1]), b], axis=1))


@wrong("9.1", "The ledger books your copies under 'input'")
def wrong_kind(a, b, homes):
    return (np.concatenate([a, ta.transfer(b, homes[1], homes[0], "input")], axis=1),
            np.concatenate([ta.transfer(a, homes[0], homes[1], "input"), b], axis=1))


@wrong("9.1", "returned one value; expected 2: joined0, joined1")
def one_device(a, b, homes):
    return np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1)


# ---------------------------------------------------------------------------- backward

@right("9.2")
def slices(g0, g1, width, homes):
    return (g0[:, :width] + ta.transfer(g1[:, :width], homes[1], homes[0]),
            g1[:, width:] + ta.transfer(g0[:, width:], homes[0], homes[1]))


@right("9.2")
def split(g0, g1, width, homes):
    (a0, b0), (a1, b1) = np.split(g0, [width], 1), np.split(g1, [width], 1)
    return np.add(ta.transfer(a1, homes[1], homes[0]), a0), b1 + ta.transfer(b0, *homes)


@right("9.2")
def in_steps(g0, g1, width, homes):
    ga, gb = g0[:, :width].copy(), g1[:, width:].copy()
    ga += ta.transfer(g1[:, :width], src=homes[1], dst=homes[0])
    gb += ta.transfer(g0[:, width:], src=homes[0], dst=homes[1])
    return [ga, gb]


@wrong("9.2", "Only one device's gradient counts")
def own_gradient(g0, g1, width, homes):
    return g0[:, :width], g1[:, width:]


@wrong("9.2", "You take the mean of both gradients")
def mean(g0, g1, width, homes):
    ga, gb = slices(g0, g1, width, homes)
    return ga / 2, gb / 2


@wrong("9.2", "The parts are exchanged")
def parts_turned(g0, g1, width, homes):
    return slices(g0, g1, width, homes)[::-1]


@wrong("9.2", "has shape (4, 6, 2, 2)")
def everything(g0, g1, width, homes):
    return (g0 + ta.transfer(g1, homes[1], homes[0]), ta.transfer(g0, homes[0], homes[1]) + g1)


@wrong("9.2", "The gradients are multiplied")
def product(g0, g1, width, homes):
    return (g0[:, :width] * ta.transfer(g1[:, :width], homes[1], homes[0]),
            ta.transfer(g0[:, width:], homes[0], homes[1]) * g1[:, width:])


@wrong("9.2", "The second gradient is subtracted")
def difference(g0, g1, width, homes):
    return (g0[:, :width] - ta.transfer(g1[:, :width], homes[1], homes[0]),
            ta.transfer(g0[:, width:], homes[0], homes[1]) - g1[:, width:])


@wrong("9.2", "has shape (4, 3, 2, 2); expected (4, 2, 2, 2)")
def always_halves(g0, g1, width, homes):
    return slices(g0, g1, g0.shape[1] // 2, homes)


@wrong("9.2", "Nothing crossed by transfer")
def no_crossing(g0, g1, width, homes):
    return (g0 + g1)[:, :width], (g0 + g1)[:, width:]


@wrong("9.2", "You send whole what the other has a part of")
def all_crosses(g0, g1, width, homes):
    there, back = ta.transfer(g0, homes[0], homes[1]), ta.transfer(g1, homes[1], homes[0])
    return (g0 + back)[:, :width], (there + g1)[:, width:]


@wrong("9.2", "The ledger books your copies under 'gradient'")
def other_kind(g0, g1, width, homes):
    return (g0[:, :width] + ta.transfer(g1[:, :width], homes[1], homes[0], "gradient"),
            g1[:, width:] + ta.transfer(g0[:, width:], homes[0], homes[1], "gradient"))
