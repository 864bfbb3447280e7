"""Randomness as a function of (seed, step, place): never of who asks, in which order, how much."""
import hashlib

import numpy as np
import pytest
import tinyalex as ta
from hypothesis import given
from hypothesis import strategies as st
from tinyalex import random
from tinyalex.ops.dropout import draw_mask


@pytest.fixture(autouse=True)
def seeded():
    ta.manual_seed(0)


# ---------------------------------------------------------------------------- the words

def philox4x64_10(key, counter):
    """Four 64-bit words: the function as its authors wrote it down, in Python integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b % 2**64, (a >> 64) ^ c3 ^ k1, a % 2**64
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    return c0, c1, c2, c3


def place_key(purpose, name):
    return int.from_bytes(hashlib.blake2b(f"{purpose}/{name}".encode(), digest_size=8).digest(),
                          "little")


def test_the_layout_of_the_words_is_the_documented_one():
    random.set_state(seed=2**63 + 5, step=7)
    got = random.bits("dropout", "drop6", 3, 13, use=2, first_row=5)
    key = 2**63 + 5, place_key("dropout", "drop6")
    for row in range(3):
        for unit in range(13):
            i = (5 + row) * 13 + unit
            word = philox4x64_10(key, (i // 8 + 1, 0, 2, 7))[i // 2 % 4]
            assert got[row, unit] == (word >> 32 * (i % 2)) % 2**32


def test_the_words_are_those_of_numpys_philox():
    random.set_state(seed=9, step=4)
    key = np.array([9, place_key("p", "n")], np.uint64)        # (a list would become floats)
    raw = np.random.Philox(key=key, counter=[0, 0, 1, 4]).random_raw(50).tolist()
    halves = [half for word in raw for half in (word % 2**32, word >> 32)]
    assert random.bits("p", "n", 10, 10, use=1).ravel().tolist() == halves


@given(rows=st.integers(1, 12), units=st.integers(1, 40), cuts=st.sets(st.integers(1, 11)))
def test_any_cut_of_the_rows_gives_the_same_words(rows, units, cuts):
    whole = random.bits("dropout", "fc", rows, units)
    edges = [0, *sorted(c for c in cuts if c < rows), rows]
    parts = [random.bits("dropout", "fc", b - a, units, first_row=a)
             for a, b in zip(edges, edges[1:], strict=False)]
    assert whole.dtype == np.uint32 and whole.shape == (rows, units)
    assert np.array_equal(np.concatenate(parts), whole)


def test_the_order_of_asking_is_nothing():
    forward = [random.bits("dropout", name, 2, 5) for name in "abc"]
    backward = [random.bits("dropout", name, 2, 5) for name in "cba"][::-1]
    assert np.array_equal(forward, backward)


def test_every_coordinate_makes_a_difference():
    draws = {"itself": random.bits("dropout", "fc", 4, 8)}
    draws["purpose"] = random.bits("noise", "fc", 4, 8)
    draws["name"] = random.bits("dropout", "fd", 4, 8)
    draws["use"] = random.bits("dropout", "fc", 4, 8, use=1)
    draws["rows"] = random.bits("dropout", "fc", 4, 8, first_row=4)
    random.next_step()
    draws["step"] = random.bits("dropout", "fc", 4, 8)
    ta.manual_seed(1)
    draws["seed"] = random.bits("dropout", "fc", 4, 8)
    assert len({d.tobytes() for d in draws.values()}) == len(draws)
    ta.manual_seed(0)
    assert np.array_equal(random.bits("dropout", "fc", 4, 8), draws["itself"])


def test_nothing_can_be_asked_for():
    assert random.bits("dropout", "fc", 0, 8).shape == (0, 8)
    assert random.bits("dropout", "fc", 3, 0, first_row=7).shape == (3, 0)


# ---------------------------------------------------------------------------- generator

def test_generator_is_a_pure_function():
    def draw(*args, **kwargs):
        return random.generator(*args, **kwargs).standard_normal(4).tolist()

    first = draw("init", "conv1")
    draw("init", "conv2")
    random.next_step()                                # neither other draws nor steps matter
    assert draw("init", "conv1") == first == draw("init", "conv1", seed=0, step=0, index=0)
    others = [draw("init", "conv2"), draw("order", "conv1"), draw("init", "conv1", seed=1),
              draw("init", "conv1", step=1), draw("init", "conv1", index=1)]
    assert len({tuple(d) for d in [first, *others]}) == 6
    ta.manual_seed(1)
    assert draw("init", "conv1") == others[2] and draw("init", "conv1", seed=0) == first


# ---------------------------------------------------------------------------- the state

def test_the_state_is_seed_and_step():
    ta.manual_seed(5)
    assert random.get_state() == {"seed": 5, "step": 0}
    random.next_step()
    random.next_step()
    state = random.get_state()
    assert state == {"seed": 5, "step": 2}
    words = random.bits("dropout", "fc", 2, 3)
    ta.manual_seed(8)
    random.set_state(**state)
    assert np.array_equal(random.bits("dropout", "fc", 2, 3), words)


def test_the_optimizer_counts_the_steps():
    w = ta.Tensor([1.0], requires_grad=True)
    opt = ta.optim.SGD([w], 0.1)
    for step in range(3):
        assert random.get_state()["step"] == step
        opt.step()                                    # also where no gradient is there


def test_uses_count_within_a_step_and_start_again():
    assert [random.next_use("a") for _ in range(3)] == [0, 1, 2] and random.next_use("b") == 0
    random.next_step()
    assert random.next_use("a") == 0
    random.set_state(0, 1)
    assert random.next_use("a") == 0


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int64(3), np.uint64(2**64 - 1), True])
def test_good_seeds(seed):
    ta.manual_seed(seed)
    assert random.get_state()["seed"] == int(seed)
    assert random.generator("init", seed=seed).integers(10) in range(10)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "0", None, [0], np.float64(1)])
def test_bad_seeds_teach(seed):
    with pytest.raises(ValueError, match=r"seed: got .*; expected an integer from 0 to 2\*\*64"):
        ta.manual_seed(seed)
    assert random.get_state() == {"seed": 0, "step": 0}
    with pytest.raises(ValueError, match="step: got"):
        random.set_state(0, -1)
    with pytest.raises(ValueError, match="index: got"):
        random.generator("init", index=-1)


# ---------------------------------------------------------------------------- statistics

def test_every_bit_is_fair():
    words = random.bits("dropout", "statistics", 100, 1000).ravel()
    for bits in (words, words[1:] ^ words[:-1]):      # by itself, and beside its neighbor
        ones = (bits[:, None] >> np.arange(32, dtype=np.uint32) & 1).mean(axis=0)
        assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(words.size)      # five sigma


@pytest.mark.parametrize("other", ["use", "step", "seed", "name"])
def test_neighbors_in_any_coordinate_are_unlike(other):
    one = random.bits("dropout", "fc", 100, 100)
    if other == "step":
        random.next_step()
    if other == "seed":
        ta.manual_seed(1)
    two = random.bits("dropout", "fd" if other == "name" else "fc", 100, 100,
                      use=1 if other == "use" else 0)
    same = (~(one ^ two)[..., None] >> np.arange(32, dtype=np.uint32) & 1).mean()
    assert abs(same - 0.5) < 5 * 0.5 / np.sqrt(one.size * 32)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_silences_the_share_it_should(p):
    speaks = draw_mask((200, 500), p, "statistics")
    bound = 5 * np.sqrt(p * (1 - p) / speaks.size)
    assert abs(1 - speaks.mean() - p) <= bound
    rows, columns = speaks.mean(axis=1), speaks.mean(axis=0)
    assert np.abs(1 - rows - p).max() <= 6 * np.sqrt(p * (1 - p) / 500)
    assert np.abs(1 - columns - p).max() <= 6 * np.sqrt(p * (1 - p) / 200)


def test_masks_of_two_towers_are_parts_of_the_joined_mask():
    joined = draw_mask((6, 10), 0.5, "drop6")
    parts = [draw_mask((6, 5), 0.5, "drop6", units=10, start=start) for start in (0, 5)]
    ta.manual_seed(0)
    again = [draw_mask((6, 5), 0.5, "drop6", units=10, start=start) for start in (0, 5)]
    assert np.array_equal(np.concatenate(again, axis=1), joined)
    assert np.array_equal(parts[1], again[1])         # its first use before as well as now
    assert not np.array_equal(parts[0], again[0])     # its second use, after the joined draw


def test_masks_of_two_ranks_are_rows_of_the_global_mask():
    joined = draw_mask((6, 2, 5), 0.5, "drop6")
    ta.manual_seed(0)
    ranks = [draw_mask((3, 2, 5), 0.5, "drop6", first_row=first) for first in (0, 3)]
    assert np.array_equal(np.concatenate(ranks), joined)


def test_a_second_forward_in_one_step_draws_another_mask():
    x = ta.Tensor(np.ones((4, 50), np.float32))
    masks = [ta.functional.dropout(x).data.tobytes() for _ in range(3)]
    random.next_step()
    masks.append(ta.functional.dropout(x).data.tobytes())
    assert len(set(masks)) == 4
    ta.manual_seed(0)
    assert ta.functional.dropout(x).data.tobytes() == masks[0]
