"""Lesson 09: the exchange between two towers, forward and backward."""
import numpy as np
import tinyalex as ta
from tinyalex import functional as F

from .judging import Exercise, Wrong, compare, several

HOMES = ("cpu:0", "cpu:1")


def forward_library(a, b, homes):
    """Join both parts on both devices."""
    there, back = ta.transfer(a, *homes), ta.transfer(b, *homes[::-1])
    return np.concatenate([a, back], axis=1), np.concatenate([there, b], axis=1)


def backward_library(g0, g1, width, homes):
    """Give each part the sum of what both devices send it."""
    ga = g0[:, :width] + ta.transfer(g1[:, :width], *homes[::-1])
    gb = ta.transfer(g0[:, width:], *homes) + g1[:, width:]
    return ga, gb


def crossed(fn):
    """Return the result of a call, and the bytes that arrived on each device under "exchange"."""
    ledgers = [ta.Device(home).ledger for home in HOMES]
    before = [dict(ledger.bytes) for ledger in ledgers]
    result = fn()
    arrived = [{key: n - old.get(key, 0) for key, n in ledger.bytes.items()
                if n != old.get(key, 0)} for ledger, old in zip(ledgers, before, strict=True)]
    other = {key[1] for books in arrived for key in books} - {"exchange"}
    if other:
        raise Wrong(f"The ledger books your copies under {other.pop()!r}; leave `kind` out, or "
                    'give "exchange".')
    return result, [sum(books.values()) for books in arrived]


def check_forward(ask):
    """The values, then the bytes, then whose memory it is."""
    rng = np.random.default_rng(9)
    for A, B in ((3, 3), (2, 5)):
        a, b = rng.normal(size=(4, A, 2, 2)), rng.normal(size=(4, B, 2, 2))
        result, arrived = crossed(lambda a=a, b=b: ask(a, b, HOMES))
        got = several("exchange_forward", result, ("joined0", "joined1"))
        where = f"for parts of {A} and {B} maps"
        for i, mine in enumerate(got):
            compare(f"joined{i}", mine, np.concatenate([a, b], axis=1), where,
                    forward_suspects(a, b))
        if got[0] is got[1] or np.shares_memory(*got):
            raise Wrong("Both devices hold the same array. Two devices have two memories: each "
                        "needs a joined array of its own.")
        for i, needed in enumerate((b.nbytes, a.nbytes)):
            judge_bytes(i, arrived[i], needed, a.nbytes + b.nbytes,
                        f"{'ba'[i]}, {needed} bytes, and nothing else")
    return ("Both towers see all maps, and each part crosses once: not one byte more than needed.")


def forward_suspects(a, b):
    """Yield (text, array): what typical mistakes would give."""
    if a.shape == b.shape:
        yield ("The parts stand in the order of who asks; tower 0's maps come first on both "
               "devices.", np.concatenate([b, a], axis=1))
        yield ("You add the parts. An exchange joins maps side by side.", a + b)
        yield ("The same part stands twice; the other tower's maps are missing.",
               np.concatenate([a, a], axis=1))
        yield ("The same part stands twice; the other tower's maps are missing.",
               np.concatenate([b, b], axis=1))


def judge_bytes(i, arrived, needed, both, what):
    """Raise Wrong unless just the bytes needed arrived on device `i`."""
    if arrived == needed:
        return
    here = f"{HOMES[i]} received {arrived} bytes; expected {what}.\n"
    if arrived == 0:
        raise Wrong(here + "Nothing crossed by transfer, so an array of the other device was used "
                    "as it stood. On two GPUs that fails: ta.transfer(array, from, to).")
    if arrived == both:
        raise Wrong(here + "You send whole what the other has a part of already. Send the part "
                    "that is missing there.")
    raise Wrong(here + "transfer(array, src, dst): src is where the array lives, dst where it is "
                "needed, and once is enough.")


def check_backward(ask):
    """The values, then the bytes, then two towers against the grouped net."""
    rng = np.random.default_rng(99)
    for A, B in ((3, 3), (2, 5)):
        g0, g1 = rng.normal(size=(2, 4, A + B, 2, 2))
        result, arrived = crossed(lambda g0=g0, g1=g1, A=A: ask(g0, g1, A, HOMES))
        got = several("exchange_backward", result, ("ga", "gb"))
        want = (g0 + g1)[:, :A], (g0 + g1)[:, A:]
        where = f"for parts of {A} and {B} maps"
        for i, mine in enumerate(got):
            compare(f"g{'ab'[i]}", mine, want[i], where, backward_suspects(i, g0, g1, A))
        for i, part in enumerate(want):
            judge_bytes(i, arrived[i], part.nbytes, g0.nbytes,
                        f"{part.nbytes}: what {HOMES[1 - i]} has for part {'ab'[i]}")
    off = towers_against_groups(ask)
    if off > 1e-12:
        raise Wrong(f"Two towers and the grouped net differ by {off:.1e}.")
    return f"Two towers give the gradients of the grouped net: {off:.0e} apart, at most."


def backward_suspects(i, g0, g1, width):
    """Yield (text, array): what typical mistakes would give."""
    part, other = (slice(width), slice(width, None))[::1 - 2 * i]
    for lone in (g0, g1):
        yield ("Only one device's gradient counts in yours. Both towers read this part, and a "
               "value used twice gets the sum.", lone[:, part])
    yield ("You take the mean of both gradients; a value used twice gets their sum.",
           (g0 + g1)[:, part] / 2)
    yield ("The parts are exchanged: part a is the first `width` maps, b the rest.",
           (g0 + g1)[:, other])
    yield ("The sum is right, but all of it; a part gets its own maps alone.", g0 + g1)
    yield ("The gradients are multiplied; a value used twice gets their sum.", (g0 * g1)[:, part])
    yield ("The second gradient is subtracted; a value used twice gets the sum.",
           (g0 - g1)[:, part])
    yield ("The second gradient is subtracted; a value used twice gets the sum.",
           (g1 - g0)[:, part])
    yield ("Part a is cut in half by the count of maps; its width is an argument.",
           (g0 + g1)[:, :g0.shape[1] // 2] if i == 0 else (g0 + g1)[:, g0.shape[1] // 2:])


def towers_against_groups(ask):
    """Return how far two towers with the student's exchange are from the grouped net."""
    rng = np.random.default_rng(999)
    x, w = rng.normal(size=(2, 4, 6, 6)), rng.normal(size=(6, 2, 3, 3))
    z, gy = rng.normal(size=(4, 6, 3, 3)), rng.normal(size=(2, 4, 2, 2))

    whole = [ta.Tensor(t, requires_grad=True) for t in (x, w, z)]
    F.conv2d(F.conv2d(*whole[:2], groups=2), whole[2]).backward(gy)

    halves = [[ta.Tensor(t.copy(), home, requires_grad=True) for t in pair]
              for home, pair in zip(HOMES, ((x[:, :2], w[:3]), (x[:, 2:], w[3:])), strict=True)]
    maps = [F.conv2d(*pair) for pair in halves]
    joined = forward_library(maps[0].data, maps[1].data, HOMES)
    seen = [ta.Tensor(j, home, requires_grad=True) for j, home in zip(joined, HOMES, strict=True)]
    for tower in (0, 1):
        own = slice(2 * tower, 2 * tower + 2)
        F.conv2d(seen[tower], ta.Tensor(z[own].copy(), HOMES[tower])).backward(gy[:, own].copy())
    for part, g in zip(maps, ask(seen[0].grad, seen[1].grad, 3, HOMES), strict=True):
        part.backward(np.ascontiguousarray(g))
    gw = np.concatenate([pair[1].grad for pair in halves])
    gx = np.concatenate([pair[0].grad for pair in halves], axis=1)
    return max(np.abs(gw - whole[1].grad).max(), np.abs(gx - whole[0].grad).max())


MAY_CALL = ("tinyalex.device.transfer.transfer", "tinyalex.device.core.Device")
EXERCISES = (
    Exercise(
        number="9.1",
        title="the exchange, forward",
        call="exchange_forward(a, b, homes) -> joined0, joined1",
        library=forward_library,
        check=check_forward,
        hints=(
            "a lives on homes[0] and b on homes[1]. What does each device have, and what is it "
            "missing?",
            "b must go to homes[0] and a to homes[1]: ta.transfer(array, src, dst). Then each "
            "device joins two arrays of its own, tower 0's maps first.",
            "joined0 = np.concatenate([a, ta.transfer(b, homes[1], homes[0])], axis=1), and "
            "joined1 with a transferred and b as it is.",
        ),
        may_call=MAY_CALL,
    ),
    Exercise(
        number="9.2",
        title="the exchange, backward",
        call="exchange_backward(g0, g1, width, homes) -> ga, gb",
        library=backward_library,
        check=check_backward,
        hints=(
            "Both towers used part a, so two gradients come back for it: one on each device. What "
            "happens to a value that is used twice?",
            "ga is a sum: the first `width` maps of g0, which are on homes[0] already, and those "
            "of g1, which must cross. For gb it is the other way around.",
            "Two sums:\n"
            "    ga = g0[:, :width] + ta.transfer(g1[:, :width], homes[1], homes[0])\n"
            "    gb = ta.transfer(g0[:, width:], homes[0], homes[1]) + g1[:, width:]",
        ),
        may_call=MAY_CALL,
    ),
)
