"""Attention sharpness and confidence."""

import math

import numpy as np
import pytest
from scipy import stats

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import (
    attention_sharpness,
    sharpness_against_confidence,
    spatial_entropy,
)


def test_the_ends_of_the_scale():
    uniform, single = np.full((4, 6), 1 / 24), np.zeros((4, 6))
    single[2, 3] = 1
    entropies = [spatial_entropy(uniform), spatial_entropy(single)]
    assert attention_sharpness(entropies, 24) == pytest.approx([0, 1], abs=1e-6)
    half = np.zeros((4, 6))
    half[:2] = 1 / 12
    found = attention_sharpness([spatial_entropy(half)], 24)
    assert found[0] == pytest.approx(1 - math.log(12) / math.log(24))
    # Grids of different sizes, each on its own scale.
    assert attention_sharpness([math.log(24) / 2, math.log(576) / 2], [24, 576]) == pytest.approx(
        [0.5, 0.5]
    )


def data(seed=0, n_images=200, size=3):
    rng = np.random.default_rng(seed)
    n = n_images * size
    sharp = rng.uniform(0.1, 0.6, n)
    confidence = np.clip(0.5 + sharp / 2 + 0.1 * rng.normal(size=n), 0, 1)
    return sharp, confidence, rng.random(n) < 0.7, np.repeat(np.arange(n_images), size)


def test_both_correlations():
    sharp, confidence, correct, images = data()
    found = sharpness_against_confidence(sharp, confidence, correct, images)
    assert found.confidence.value == pytest.approx(stats.pearsonr(sharp, confidence).statistic)
    assert found.confidence.n_groups == 200
    wrong = ~correct
    assert found.overconfidence.value == pytest.approx(
        stats.pearsonr(sharp[wrong], confidence[wrong]).statistic
    )
    assert found.overconfidence.n == found.n_wrong == wrong.sum()
    assert found.gap is None
    assert found.confidence.low > 0.3


def test_sharpness_that_is_only_of_right_answers():
    sharp, confidence, correct, images = data(1)
    rng = np.random.default_rng(2)
    confidence = np.where(correct, confidence, rng.uniform(0.3, 0.9, len(sharp)))
    found = sharpness_against_confidence(sharp, confidence, correct, images)
    assert found.confidence.low > 0.1
    assert found.overconfidence.low < 0 < found.overconfidence.high


def test_without_wrong_answers_there_is_a_gap_and_a_reason():
    sharp, confidence, correct, images = data(3)
    found = sharpness_against_confidence(sharp, confidence, np.ones_like(correct), images)
    assert (found.overconfidence, found.gap, found.n_wrong) == (None, "no answer is wrong", 0)
    one = np.ones_like(correct)
    one[:2] = 0  # both of the first image
    found = sharpness_against_confidence(sharp, confidence, one, images)
    assert found.overconfidence is None
    assert "at least 2 groups" in found.gap


def test_unusable_data():
    sharp, confidence, correct, images = data(4)
    with pytest.raises(InputError, match="signal that varies"):
        sharpness_against_confidence(np.full(600, 0.3), confidence, correct, images)
    with pytest.raises(InputError, match=r"shape \(599,\), confidence \(600,\)"):
        sharpness_against_confidence(sharp[1:], confidence, correct, images)
    with pytest.raises(NumericalError):
        sharpness_against_confidence(
            np.where(images == 0, np.nan, sharp), confidence, correct, images
        )
    with pytest.raises(InputError, match="in bits"):
        attention_sharpness([math.log2(24)], 24)
    with pytest.raises(InputError, match="in bits"):
        attention_sharpness([-0.1], 24)
    with pytest.raises(InputError, match="at least 2 image tokens, got 1"):
        attention_sharpness([0.0], 1)
    with pytest.raises(InputError, match="one number of tokens"):
        attention_sharpness([0.1, 0.2], [24, 24, 24])
    with pytest.raises(NumericalError, match="1 of 2 entropies"):
        attention_sharpness([0.1, np.nan], 24)
