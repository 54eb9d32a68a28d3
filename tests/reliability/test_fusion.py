"""Fusion: what it finds where the truth is known, what it does not learn from, what it refuses."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.reliability import SIGNALS, Signal, fuse
from mechvrp.statistics import auroc, auroc_interval, auroc_lead

N_IMAGES, SIZE = 300, 3
N = N_IMAGES * SIZE
TRAIN, HELDOUT = np.arange(N // 2), np.arange(N // 2, N)


def table(seed=0):
    """Two signals that each know half of what makes an answer right, one that knows nothing."""
    rng = np.random.default_rng(seed)
    images = np.array([f"{i:03d}.png" for i in np.repeat(np.arange(N_IMAGES), SIZE)])
    one, other = rng.normal(size=(2, N))
    correct = one + other + rng.normal(size=N) > -0.8
    signals = pd.DataFrame(
        {
            "answer_probability": 1 / (1 + np.exp(-one)),
            "logit_entropy": 100 - 3 * other,
            "cluster_count": rng.integers(0, 6, N),
        }
    )
    return signals, correct, images


def test_fusion_beats_signals_that_complement_each_other():
    signals, correct, images = table()
    found = fuse(signals, correct, images, TRAIN, HELDOUT, seed=1)
    assert found.lead.low > 0.02
    assert found.auroc.value > max(single.auroc.value for single in found.singles) + 0.05
    assert found.best in ("answer_probability", "logit_entropy")
    directions = {single.signal.name: single.direction for single in found.singles}
    assert directions["answer_probability"] == 1
    assert directions["logit_entropy"] == -1
    assert [single.signal for single in found.singles] == [SIGNALS[name] for name in signals]
    weights = {single.signal.name: single.weight for single in found.singles}
    assert weights["answer_probability"] > 0.5
    assert weights["logit_entropy"] < -0.5
    assert abs(weights["cluster_count"]) < 0.3
    assert all(single.train_auroc >= 0.5 for single in found.singles)


def test_it_is_scikit_learns_pipeline_fitted_on_the_training_rows():
    signals, correct, images = table(1)
    found = fuse(signals, correct, images, TRAIN, HELDOUT)
    x = signals.to_numpy(float)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=found.model.c))
    theirs.fit(x[TRAIN], correct[TRAIN])
    np.testing.assert_allclose(found.scores, theirs.decision_function(x[HELDOUT]), atol=1e-3)
    places = images[HELDOUT]
    assert found.auroc == auroc_interval(found.scores, correct[HELDOUT], places)
    best = next(single for single in found.singles if single.signal.name == found.best)
    alone = best.direction * signals[found.best].to_numpy(float)[HELDOUT]
    assert found.lead == auroc_lead(found.scores, alone, correct[HELDOUT], places)
    assert best.auroc.value == pytest.approx(auroc(alone, correct[HELDOUT]))


def test_nothing_is_learnt_from_the_held_out_images():
    signals, correct, images = table(2)
    found = fuse(signals, correct, images, TRAIN, HELDOUT)
    flipped = correct.copy()
    flipped[HELDOUT] = ~flipped[HELDOUT]
    other = fuse(signals, flipped, images, TRAIN, HELDOUT)
    np.testing.assert_array_equal(found.scores, other.scores)
    assert found.best == other.best
    assert [s.direction for s in found.singles] == [s.direction for s in other.singles]
    assert other.auroc.value == pytest.approx(1 - found.auroc.value)
    # A signal whose meaning changes after training is judged in its direction of training.
    turned = signals.copy()
    turned.loc[HELDOUT, "answer_probability"] *= -1
    single = fuse(turned, correct, images, TRAIN, HELDOUT).singles[0]
    assert single.train_auroc > 0.6
    assert single.auroc.high < 0.5


def test_signals_without_information_have_no_lead():
    rng = np.random.default_rng(3)
    _, correct, images = table()
    noise = pd.DataFrame(rng.normal(size=(N, 3)), columns=["gini", "p_tok", "own_margin"])
    found = fuse(noise, correct, images, TRAIN, HELDOUT)
    assert found.auroc.low < 0.5 < found.auroc.high
    assert found.lead.low < 0 < found.lead.high


def test_the_scale_of_a_signal_does_not_matter():
    signals, correct, images = table(4)
    found = fuse(signals, correct, images, TRAIN, HELDOUT)
    scaled = signals.assign(answer_probability=1e6 + 1e3 * signals["answer_probability"])
    again = fuse(scaled, correct, images, TRAIN, HELDOUT)
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-3)


def test_the_frame():
    signals, correct, images = table(5)
    mine = Signal("mine", "comparator", None, False, 2.5, "Noise.", "me")
    signals["mine"] = np.random.default_rng(0).normal(size=N)
    frame = fuse(signals, correct, images, TRAIN, HELDOUT, extra=[mine]).to_frame()
    assert frame["name"].tolist() == ["fusion", *signals.columns]
    assert frame.loc[0, "cost_forwards"] == 2.5
    assert ((frame["low"] < frame["auroc"]) & (frame["auroc"] < frame["high"])).all()


def test_signals_that_cannot_be_used_are_named():
    signals, correct, images = table(6)

    def refused(message, error=InputError, rows=(TRAIN, HELDOUT), labels=correct, **changed):
        with pytest.raises(error, match=message):
            fuse(signals.assign(**changed), labels, images, *rows)

    x = np.arange(float(N))
    refused("'truth_margin' uses the right answer", truth_margin=x)
    refused("unknown signal 'entropy'", entropy=x)
    refused("'gini' holds 1 values that are NaN", NumericalError, gini=np.where(x == 7, np.nan, x))
    refused("'gini' holds 1 values", NumericalError, gini=np.where(x == 7, np.inf, x))
    refused("'gini' is 0.5 in all 450 training rows", gini=np.where(x < 450, 0.5, x))
    refused("'gini' is of dtype", ShapeError, gini=["high"] * N)
    with pytest.raises(InputError, match="no columns"):
        fuse(signals[[]], correct, images, TRAIN, HELDOUT)
    with pytest.raises(ShapeError, match="899 rows of signals"):
        fuse(signals[1:], correct, images, TRAIN, HELDOUT)
    with pytest.raises(InputError, match="c_grid"):
        fuse(signals, correct, images, TRAIN, HELDOUT, c_grid=())


def test_splits_that_cannot_be_used():
    signals, correct, images = table(7)
    with pytest.raises(InputError, match="both sides of the split, e.g. '150.png'"):
        fuse(signals, correct, images, np.arange(451), HELDOUT[1:])
    right_only = correct.copy()
    right_only[HELDOUT] = True
    with pytest.raises(InputError, match="heldout answers are right"):
        fuse(signals, right_only, images, TRAIN, HELDOUT)
    few = np.ones(N, dtype=bool)
    few[[0, 10, 500, 600]] = False
    with pytest.raises(InputError, match="occur on 2 training images"):
        fuse(signals, few, images, TRAIN, HELDOUT)
    with pytest.raises(InputError, match="'answer_probability' on the held-out rows.* 2 groups"):
        one_image = np.repeat("same.png", N // 2)
        fuse(signals, correct, np.r_[images[TRAIN], one_image], TRAIN, HELDOUT)
