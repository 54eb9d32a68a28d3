"""The rank test that flips images, and balanced accuracy: known answers, parity, honest levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics import (
    auroc,
    balanced_accuracy_interval,
    rank_difference_test,
    within_task_auroc,
)
from tests.statistics.test_simulations import SIZE, normals


def answers(seed, n_images=80, share=0.7, accuracy=0.7, effect=0.0):
    """Six questions an image; signal and label each share an effect of the image."""
    rng = np.random.default_rng(seed)
    labels = normals(rng, n_images, share) < stats.norm.ppf(accuracy)
    return (
        effect * labels + normals(rng, n_images, share),
        labels,
        np.repeat(np.arange(n_images), SIZE),
    )


@given(st.integers(0, 10_000), st.booleans())
def test_the_statistic_is_auroc_and_so_is_its_within_task_form(seed, tied):
    signal, labels, images = answers(seed, n_images=8)
    signal = np.round(signal) if tied else signal
    tasks = np.tile(["a", "b", "c"], 16)
    if labels.all() or not labels.any():
        return
    found = rank_difference_test(signal, labels, images, n_permutations=19)
    assert found.excess == pytest.approx(auroc(signal, labels) - 0.5)
    within = rank_difference_test(signal, labels, images, tasks, n_permutations=19)
    assert within.excess == pytest.approx(within_task_auroc(signal, labels, tasks) - 0.5)
    assert 0 < found.p_value <= 1


def test_one_question_an_image_is_the_mann_whitney_test():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.2, 0.4):
        labels = rng.random(300) < 0.6
        signal = shift * labels + rng.normal(size=300)
        expected = stats.mannwhitneyu(signal[labels], signal[~labels]).pvalue
        assert rank_difference_test(signal, labels, None).p_value == pytest.approx(
            expected, abs=0.02
        )


def test_many_images_agree_with_statsmodels_cluster_robust_covariance():
    signal, labels, images = answers(1, n_images=500, effect=0.08)
    ranks = stats.rankdata(signal)
    fit = sm.OLS(ranks, sm.add_constant(labels.astype(float))).fit(
        cov_type="cluster", cov_kwds={"groups": images}, use_t=True
    )
    assert fit.df_resid_inference == 499
    found = rank_difference_test(signal, labels, images, n_permutations=20_000).p_value
    assert found == pytest.approx(float(fit.pvalues[1]), abs=0.01)
    assert 0.001 < found < 0.6  # not a comparison of zeros


def test_monotone_transforms_change_nothing():
    signal, labels, images = answers(2, effect=0.3)
    assert rank_difference_test(signal, labels, images) == rank_difference_test(
        np.exp(5 * signal), labels, images
    )


@pytest.mark.parametrize("accuracy", [0.7, 0.9])
def test_level_is_kept_by_image_and_not_by_row(accuracy):
    by_image, by_row, within = [], [], []
    tasks = np.tile(np.arange(SIZE) % 3, 80)
    for seed in range(800):
        signal, labels, images = answers(seed, accuracy=accuracy)
        options = {"n_permutations": 399, "seed": seed}
        by_image.append(rank_difference_test(signal, labels, images, **options).p_value)
        within.append(rank_difference_test(signal, labels, images, tasks, **options).p_value)
        by_row.append(rank_difference_test(signal, labels, None, **options).p_value)
    # A share of 800 has a standard error of 0.8 points at 5 %.
    for found in (by_image, within):
        assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.07
        assert 0.42 < np.mean(np.array(found) <= 0.5) < 0.58
    assert np.mean(np.array(by_row) <= 0.05) > 0.15


@pytest.mark.slow
@pytest.mark.parametrize(("images", "accuracy"), [(80, 0.7), (80, 0.97), (30, 0.9), (200, 0.99)])
def test_level_is_kept_where_wrong_answers_are_rare(images, accuracy):
    p = []
    for seed in range(2000):
        signal, labels, groups = answers(seed, n_images=images, accuracy=accuracy)
        if 0 < labels.sum() < len(labels):
            found = rank_difference_test(signal, labels, groups, n_permutations=399, seed=seed)
            p.append(found.p_value)
    assert 0.03 <= np.mean(np.array(p) <= 0.05) <= 0.07


def test_power_and_a_task_that_only_tells_tasks_apart():
    signal, labels, images = answers(3, n_images=150, effect=1.0)
    assert rank_difference_test(signal, labels, images).p_value < 0.001
    # The signal is the task; tasks differ in accuracy.
    rng = np.random.default_rng(4)
    tasks = np.tile([0, 1], 300)
    labels = rng.random(600) < np.where(tasks == 0, 0.3, 0.9)
    signal = tasks + 0.01 * rng.normal(size=600)
    images = np.repeat(np.arange(300), 2)
    assert rank_difference_test(signal, labels, images).p_value < 0.001
    assert rank_difference_test(signal, labels, images, tasks).p_value > 0.01


def test_what_cannot_be_tested_is_refused():
    signal, labels, images = answers(5)
    with pytest.raises(InputError, match="needs both classes"):
        rank_difference_test(signal, np.ones_like(labels), images)
    with pytest.raises(InputError, match="the same for all"):
        rank_difference_test(np.zeros_like(signal), labels, images)
    with pytest.raises(InputError, match="no task has both"):
        rank_difference_test(signal, labels, images, labels.astype(int))
    with pytest.raises(InputError, match="n_permutations must be a whole number of at least 1"):
        rank_difference_test(signal, labels, images, n_permutations=0)
    with pytest.raises(NumericalError):
        rank_difference_test(np.where(labels, np.nan, signal), labels, images)


def test_a_class_on_one_image_is_never_significant():
    rng = np.random.default_rng(6)
    images = np.repeat(np.arange(100), SIZE)
    labels = images != 7
    signal = rng.normal(size=600) + 10 * labels
    assert rank_difference_test(signal, labels, images).p_value > 0.3


def test_balanced_accuracy_is_scikit_learn_s_and_its_interval_knows_images():
    signal, labels, images = answers(7, effect=1.0)
    said = signal > 0.5
    found = balanced_accuracy_interval(said, labels, images, n_resamples=500)
    assert found.value == pytest.approx(balanced_accuracy_score(labels, said))
    alone = balanced_accuracy_interval(said, labels, None, n_resamples=500)
    assert found.high - found.low > 1.2 * (alone.high - alone.low)
    assert balanced_accuracy_interval(labels * 0 + 1, labels, images).value == 0.5


def test_balanced_accuracy_covers_and_bounds_itself_at_one():
    held = 0
    for seed in range(200):
        signal, labels, images = answers(seed, effect=1.0)
        found = balanced_accuracy_interval(signal > 0.5, labels, images, n_resamples=200, seed=seed)
        held += found.low <= stats.norm.cdf(0.5) <= found.high
    assert held / 200 > 0.89  # a standard error of 1.5 points at 95 %
    _, labels, images = answers(8)
    perfect = balanced_accuracy_interval(labels, labels, images, n_resamples=100)
    rarer = min(len(set(images[labels == side])) for side in (False, True))
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(math.exp(math.log(0.025) / rarer))
    with pytest.raises(InputError, match="both classes"):
        balanced_accuracy_interval(labels, np.zeros_like(labels), images)
    with pytest.raises(InputError, match="predictions were given"):
        balanced_accuracy_interval(labels[:5], labels, images)
