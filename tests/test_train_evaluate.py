"""Errors, ten windows and averages, against counting by hand."""
import itertools
from types import SimpleNamespace as Batch

import numpy as np
import pytest
import tiny_runs

import tinyalex as ta
from tinyalex import nn
from tinyalex.data import Augment
from tinyalex.train import evaluate
from tinyalex.train.evaluate import Tally, measure, measure_average, predict, top_k_error


class Means(ta.nn.Module):
    """Logits are the mean colors of the picture: a net whose answers are known."""

    def forward(self, x):
        return x.reshape(*x.shape[:2], -1).mean(axis=2)


def by_all_orders(scores, label, k):
    """The share of all orders of the classes, sorted stably by score, in which `label` misses."""
    orders = list(itertools.permutations(range(len(scores))))
    missed = [label not in sorted(order, key=lambda c: -scores[c])[:k] for order in orders]
    return 100 * np.mean(missed)


def test_top_k_with_and_without_ties_is_the_share_of_all_orders():
    rng = np.random.default_rng(0)
    for _ in range(60):
        scores, label = rng.integers(0, 3, 5) / 2, rng.integers(5)       # ties in most rows
        for k in (1, 2, 4, 5, 9):
            found = top_k_error(scores[None], np.array([label]), k)
            assert found == pytest.approx(by_all_orders(scores, label, k), abs=1e-9)


def test_top_k_is_a_mean_over_pictures_and_a_net_that_knows_nothing_scores_chance():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    assert top_k_error(p, np.array([0, 0, 1, 1])) == 50.0
    assert top_k_error(p, np.array([0, 0, 1, 1]), 2) == 25.0
    assert top_k_error(np.zeros((7, 16)), np.arange(7)) == pytest.approx(93.75)
    assert top_k_error(np.zeros((7, 16)), np.arange(7), 5) == pytest.approx(100 * 11 / 16)
    assert top_k_error(np.zeros((7, 3)), np.arange(7) % 3, 5) == 0        # all three are in five


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_net_that_broke_is_never_right(bad):
    p = np.array([[1.0, 0.0], [bad, 0.0], [0.0, bad], [bad, bad]])
    assert top_k_error(p, np.zeros(4, int)) == 75.0
    assert top_k_error(p, np.zeros(4, int), 2) == 75.0


def test_predict_is_softmax_and_does_not_depend_on_the_batch():
    images = np.random.default_rng(0).normal(size=(7, 3, 4, 4))
    expected = np.exp(images.mean((2, 3)))
    expected /= expected.sum(1, keepdims=True)
    for batch_size in (1, 3, 7, 100):
        p = predict(Means(), images, batch_size)
        np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_ten_windows_are_averaged_as_probabilities():
    pictures = [np.random.default_rng(s).integers(0, 256, (9, 11, 3), np.uint8) for s in (0, 1)]
    ten = Augment(6, np.full((1, 1, 3), 120), scale=30.0).ten(pictures)
    assert ten.shape == (2, 10, 3, 6, 6)
    p = predict(Means(), ten)
    for picture, row in zip(pictures, p, strict=True):
        by_hand = []
        for mirrored in (picture, picture[:, ::-1]):
            for y, x in ((0, 0), (0, 5), (3, 0), (3, 5), (1, 2)):
                x = 5 - x if mirrored is not picture and x == 2 else x    # the center's mirror
                e = np.exp((mirrored[y:y + 6, x:x + 6].mean((0, 1)) - 120) / 30)
                by_hand.append(e / e.sum())
        np.testing.assert_allclose(row, np.mean(by_hand, axis=0), rtol=1e-5)
    logits_first = np.exp(np.mean(np.log(p), 0))
    assert not np.allclose(logits_first / logits_first.sum(), p[0])       # not the same thing


def test_predict_leaves_the_mode_and_builds_no_graph():
    net = tiny_runs.net()
    images = np.random.default_rng(0).normal(size=(2, 3, 10, 10)).astype(np.float32)
    for training in (True, False):
        net.train(training)
        first, second = predict(net, images), predict(net, images)
        assert all(module.training is training for module in net.modules())
        np.testing.assert_array_equal(first, second)                      # no dropout
    with pytest.raises(ValueError, match=r"images has shape \(3, 10, 10\); expected \(N, 3, S"):
        predict(net, images[0])


def batches(images, labels, size):
    return [Batch(images=images[i:i + size], labels=labels[i:i + size])
            for i in range(0, len(images), size)]


def test_measure_weighs_pictures_not_batches():
    rng = np.random.default_rng(0)
    images, labels = rng.normal(0, 9, (10, 3, 2, 2)), rng.integers(0, 3, 10)
    p = predict(Means(), images)
    loss = -np.log(p[np.arange(10), labels]).mean()
    for size in (1, 4, 10):
        score = measure(Means(), batches(images, labels, size))
        assert (score.loss, score.top1) == pytest.approx((loss, top_k_error(p, labels)))
        assert score.top5 == 0 and score.pictures == 10
    assert str(score) == f"top-1 error {score.top1:.1f} %, top-5 error 0.0 %"


def test_measure_stays_finite_where_a_probability_underflows():
    images = np.zeros((1, 3, 1, 1))
    images[0, 0] = 1e4
    score = measure(Means(), batches(images, np.array([1]), 1))
    assert 700 < score.loss < 710 and score.top1 == 100.0


def test_measure_passes_over_empty_batches_and_refuses_to_measure_nothing():
    nothing = Batch(images=np.zeros((0, 3, 1, 1), np.float32), labels=np.zeros(0, int))
    one = batches(np.zeros((1, 3, 1, 1)), np.array([0]), 1)
    assert measure(Means(), [Batch(**vars(one[0])), *one]).pictures == 2
    with pytest.raises(ValueError, match="no picture to measure"):
        Tally().score()
    tally = Tally()
    assert not tally
    tally.add(1.0, np.eye(2), np.array([0, 0]))
    assert tally and Tally(tally.sums).score() == tally.score()
    assert measure(Means(), [nothing, *one]).pictures == 1


def test_the_average_of_nets_is_that_of_their_probabilities():
    rng = np.random.default_rng(3)
    images, labels = rng.normal(0, 5, (9, 3, 2, 2)), rng.integers(0, 3, 9)
    other = images[:, [1, 2, 0]]                        # as another preparation would give them
    p = (predict(Means(), images) + predict(Means(), other)) / 2
    score = measure_average([(Means(), batches(images, labels, 4)),
                             (Means(), batches(other, labels, 4))])
    assert score.loss == pytest.approx(-np.log(p[np.arange(9), labels]).mean())
    assert score.top1 == pytest.approx(top_k_error(p, labels))
    one = measure_average([(Means(), batches(images, labels, 4))])
    assert one == measure(Means(), batches(images, labels, 4))
    with pytest.raises(ValueError, match="net 2 did not see the same pictures"):
        measure_average([(Means(), batches(images, labels, 4)),
                         (Means(), batches(images, labels[::-1], 4))])


def test_softmax_of_large_and_equal_logits():
    np.testing.assert_allclose(evaluate.softmax(np.array([[1e4, 0, 0], [-1e4] * 3])),
                               [[1, 0, 0], [1 / 3] * 3])


@pytest.mark.parametrize("mode", ["center", "ten"])
def test_pictures_that_wait_as_bytes_are_judged_as_arrays_are(mode):
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (12, 9 + i, 3), np.uint8) for i in range(7)]
    make = getattr(Augment(8, np.full((12, 12, 3), 120), 64.0), mode)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    array, crops = make(pictures), make(pictures, "cpu:0")
    for batch_size in (1, 3, 64):                        # some part a picture from its windows
        assert np.array_equal(predict(net, crops, batch_size), predict(net, array, batch_size))
    labels = rng.integers(0, 3, 7)
    scores = [measure(net, [Batch(images=i[:4], labels=labels[:4]),
                            Batch(images=i[4:], labels=labels[4:])]) for i in (array, crops)]
    assert scores[0] == scores[1] and scores[0].pictures == 7
