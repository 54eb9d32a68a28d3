"""Correlations: SciPy's, and what Fisher's interval misses where the label is lopsided."""

import math

import numpy as np
import pytest
from scipy import stats

import mechvrp.statistics as ms
from mechvrp.errors import InputError, NumericalError

R, ACCURACY = 0.43, 0.95


def scored_answers(rng, n=1000):
    """A signal normal within right and within wrong answers, whose R with them is 0.43."""
    apart = R / math.sqrt((1 - R**2) * ACCURACY * (1 - ACCURACY))
    labels = rng.random(n) < ACCURACY
    return rng.normal(size=n) + apart * labels, labels


def test_pearson_is_scipys_even_far_from_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(size=150)
    y = 1e8 + x + rng.normal(size=150)
    found = ms.correlation_interval(x, y)
    assert found.value == pytest.approx(stats.pearsonr(x, y - 1e8).statistic)
    assert found.low < found.value < found.high
    assert ms.correlation_interval(x, -y).value == pytest.approx(-found.value)
    assert ms.correlation_interval(x, 3 * x).value == pytest.approx(1)


def test_point_biserial_is_the_correlation_with_the_label():
    signal, labels = scored_answers(np.random.default_rng(1), 300)
    groups = np.repeat(np.arange(50), 6)
    assert ms.point_biserial_interval(signal, labels, groups) == ms.correlation_interval(
        signal, labels.astype(float), groups
    )


def test_fishers_interval_is_scipys():
    signal, labels = scored_answers(np.random.default_rng(2), 200)
    found = ms.fisher_z_interval(signal, labels, level=0.9)
    theirs = stats.pearsonr(signal, labels)
    low, high = theirs.confidence_interval(0.9)
    assert (found.value, found.low, found.high) == pytest.approx((theirs.statistic, low, high))
    assert (found.n, found.n_groups, found.level) == (200, 200, 0.9)


def test_fishers_interval_falls_short_where_few_answers_are_wrong():
    held = 0
    for seed in range(2000):
        found = ms.fisher_z_interval(*scored_answers(np.random.default_rng(seed)))
        held += found.low <= R <= found.high
    # Tate's variance: 1.30 times Fisher's standard error. A share of 2000 is known to 0.8 points.
    tate = math.sqrt(1 - 1.5 * R**2 + R**2 / (4 * ACCURACY * (1 - ACCURACY)))
    expected = 2 * stats.norm.cdf(stats.norm.ppf(0.975) / tate) - 1
    assert expected == pytest.approx(0.867, abs=0.001)
    assert held / 2000 == pytest.approx(expected, abs=0.03)


def test_the_bootstrap_does_not_where_fishers_does():
    held = 0
    for seed in range(300):
        found = ms.point_biserial_interval(
            *scored_answers(np.random.default_rng(seed)), n_resamples=200, seed=seed
        )
        held += found.low <= R <= found.high
    assert held / 300 > 0.91  # 87 % would be above 0.91 about once in 60 times


def test_what_has_no_correlation_is_refused():
    with pytest.raises(InputError, match=r"signal that varies; all values are 2\.0"):
        ms.correlation_interval([1, 2, 3], [2, 2, 2])
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        ms.correlation_interval([1, 2], [1, 2, 3])
    with pytest.raises(NumericalError):
        ms.correlation_interval([1, np.nan, 2], [1, 2, 3])
    with pytest.raises(InputError, match="at least 4 rows, got 3"):
        ms.fisher_z_interval([1, 2, 3], [0, 1, 1])
    with pytest.raises(InputError, match="the signal is the label"):
        ms.fisher_z_interval([0, 0, 5, 5], [0, 0, 1, 1])
    with pytest.raises(InputError, match="signal that varies"):
        ms.fisher_z_interval([1, 2, 3, 4], [1, 1, 1, 1])
    with pytest.raises(InputError, match="level"):
        ms.fisher_z_interval([1, 2, 3, 4], [1, 0, 1, 1], level=95)
    with pytest.raises(NumericalError):
        ms.fisher_z_interval([1, 2, 3, np.inf], [1, 0, 1, 1])
