"""Lesson 08: dropout, in both scalings."""
import numpy as np
import tinyalex as ta

from .judging import Exercise, Wrong, array

ROWS, UNITS = 400, 250                    # 100,000 units: shares are known to 1 in 600


def library(x, p, training, scaling, rng):
    """The library's dropout, with a mask from the generator `rng`."""
    mask = rng.random(x.shape) >= p
    return ta.functional.dropout(ta.Tensor(x), p, training, mask, scaling).data


def check(ask):
    """Testing is exact; training is judged by counting."""
    rng = np.random.default_rng(8)
    x = rng.uniform(0.5, 1.5, (ROWS, UNITS)) * rng.choice([-1, 1], (ROWS, UNITS))
    for scaling in ("paper", "inverted"):
        for p in (0.5, 0.2):
            check_test(ask, x, p, scaling, rng)
            check_train(ask, x, p, scaling, rng)
    return (f"{ROWS * UNITS:,} units at a time: as many are silent as should be, each by itself, "
            "and both scalings keep the mean.")


def check_test(ask, x, p, scaling, rng):
    """At test time no unit is silent, and the paper's are made weaker."""
    y = array("y", ask(x, p, False, scaling, rng), x)
    where = f"With training=False, scaling={scaling!r} and p = {p}"
    want = x * (1 - p) if scaling == "paper" else x
    if (y == 0).any():
        raise Wrong(f"{where}, {np.mean(y == 0):.0%} of your units are silent. At test time all "
                    "speak: the ensemble votes.")
    if np.allclose(y, want, rtol=1e-9):
        return
    ratio = float(np.median(y / x))
    if np.isclose(ratio, 1) and scaling == "paper":
        raise Wrong(f"{where}, y is x. In training a unit speaks 1 - p of the time, so at test "
                    "time, when it always speaks, it must be made weaker: y = (1 - p) x.")
    if np.isclose(ratio, p) and p != 0.5:
        raise Wrong(f"{where}, y is p x. p is the probability of silence: a unit speaks 1 - p of "
                    "the time, and y = (1 - p) x.")
    raise Wrong(f"{where}, y should be {'(1 - p) x' if scaling == 'paper' else 'x itself'}; yours "
                f"is about {ratio:.3g} x. (The inverted scaling pays in training, the paper's at "
                "test time; never both.)")


def check_train(ask, x, p, scaling, rng):
    """In training, count the silent units, and see how loud the others are."""
    where = f"With training=True, scaling={scaling!r} and p = {p}"
    y, again = (array("y", ask(x, p, True, scaling, rng), x) for _ in range(2))
    silent, count = y == 0, x.size
    loud, want = y[~silent] / x[~silent], 1 / (1 - p) if scaling == "inverted" else 1.0
    share, bound = silent.mean(), 5 * np.sqrt(p * (1 - p) / count)
    if loud.size and loud.std() > 1e-9:
        raise Wrong(f"{where}, the units that speak are multiplied by {loud.min():.2f} to "
                    f"{loud.max():.2f}: a unit is silent, or it speaks as it is.")
    if abs(share - p) > max(bound, 0.05):
        if abs(share - (1 - p)) <= max(bound, 0.05):
            raise Wrong(f"{where}, {share:.0%} are silent. p is the probability of silence, not "
                        "that of speaking.")
        raise Wrong(f"{where}, {share:.1%} of the units are silent; expected {p:.0%}, give or take "
                    f"{bound:.1%}.")
    if (silent == silent[:1]).all():
        raise Wrong(f"{where}, all rows have the same mask. Each picture of a batch draws its own: "
                    "a mask of x's shape.")
    if (silent == silent[:, :1]).all():
        raise Wrong(f"{where}, a row is silent as a whole or not at all. Each unit draws by "
                    "itself: a mask of x's shape.")
    if np.array_equal(silent, again == 0):
        raise Wrong(f"{where}, a second call draws the same mask. Draw from rng, which goes on; "
                    "do not make a new generator from a fixed seed.")
    if silent.sum() == (again == 0).sum() == round(p * count):
        raise Wrong(f"{where}, exactly {silent.sum():,} of {count:,} units are silent each time. "
                    "Each unit throws its own coin, so the number varies a little.")
    check_bounds(where, p, share, bound)
    check_loudness(where, p, scaling, float(loud[0]), want)


def check_bounds(where, p, share, bound):
    """Five standard deviations of a fair draw."""
    if abs(share - p) > bound:
        raise Wrong(f"{where}, {share:.2%} of the units are silent; of so many, a fair draw gives "
                    f"{p:.0%}, give or take {bound:.2%}.")


def check_loudness(where, p, scaling, factor, want):
    """How loud those are that speak."""
    if np.isclose(factor, want, rtol=1e-9):
        return
    if scaling == "inverted" and np.isclose(factor, 1):
        raise Wrong(f"{where}, those that speak are as loud as before. The inverted scaling makes "
                    "up for the silent ones at once: divide by 1 - p.")
    if scaling == "inverted" and np.isclose(factor, 1 / p):
        raise Wrong(f"{where}, you divide by p, the share that is silent; divide by 1 - p, the "
                    "share that speaks.")
    if scaling == "inverted" and np.isclose(factor, 1 - p):
        raise Wrong(f"{where}, you multiply by 1 - p; half as many must speak twice as loud, so "
                    "divide.")
    if scaling == "paper" and np.isclose(factor, 1 / (1 - p)):
        raise Wrong(f"{where}, you divide by 1 - p. The paper leaves training alone and pays at "
                    "test time.")
    raise Wrong(f"{where}, those that speak are multiplied by {factor:.4g}; expected {want:.4g}.")


EXERCISES = (Exercise(
    number="8.1",
    title="dropout in both scalings",
    call="dropout(x, p, training, scaling, rng) -> y",
    library=library,
    check=check,
    hints=(
        "In training every unit of every row throws its own coin: silent with probability p. "
        "rng.random(x.shape) gives numbers from 0 to 1, as many as units.",
        "A unit speaks 1 - p of the time, so on average it says (1 - p) x. The paper lets it be "
        "so, and multiplies by 1 - p at test time. The inverted scaling divides by 1 - p in "
        "training, and does nothing at test time.",
        "In training:\n"
        "    y = x * (rng.random(x.shape) >= p)\n"
        '    return y / (1 - p) if scaling == "inverted" else y\n'
        "At test time:\n"
        '    return x * (1 - p) if scaling == "paper" else x',
    ),
),)
