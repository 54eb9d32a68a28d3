"""The standardised mean difference and its test, by hand and on the null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechvrp.circuits.rank_methods.mean_difference import image_test, standardised_difference
from mechvrp.errors import NumericalError


def test_hedges_g_by_hand():
    x = np.array([[1.0], [2.0], [3.0], [5.0], [7.0]])
    truth = np.array([False, False, False, True, True])
    # Means 6 and 2; squares 2 and 2; pooled variance 4 / 3; correction 1 - 3 / 11.
    expected = 4 / np.sqrt(4 / 3) * (1 - 3 / 11)
    assert standardised_difference(x, truth)[0] == pytest.approx(expected)
    assert standardised_difference(x, ~truth)[0] == pytest.approx(-expected)


def test_units_that_never_change_and_units_that_are_the_label():
    truth = np.array([True, False] * 5)
    still = np.full((10, 1), 0.1)
    assert standardised_difference(still, truth)[0] == 0
    assert image_test(still, truth, np.arange(10))[0] == 1
    with pytest.raises(NumericalError, match="infinite"):
        standardised_difference(truth[:, None] * 1.0, truth)


@given(seed=st.integers(0, 99), each=st.integers(1, 3))
def test_the_error_is_that_of_leaving_out_images_one_by_one(seed, each):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(9), each)
    x, truth = rng.normal(size=(9 * each, 4)), rng.random(9 * each) < 0.5
    truth[: 2 * each], truth[2 * each : 4 * each] = True, False

    def difference(rows):
        return x[rows & truth].mean(0) - x[rows & ~truth].mean(0)

    whole = difference(groups >= 0)
    without = np.stack([difference(groups != image) for image in range(9)])
    error = np.sqrt(8 / 9 * ((without - whole) ** 2).sum(0))
    images = min(len(set(groups[truth])), len(set(groups[~truth])))
    expected = 2 * stats.t.sf(np.abs(whole / error), images - 1)
    assert np.allclose(image_test(x, truth, groups.astype(str)), expected)


def test_of_one_question_an_image_it_is_close_to_welch_s():
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(400, 30)), rng.random(400) < 0.5
    x[truth] *= 2
    welch = stats.ttest_ind(x[truth], x[~truth], equal_var=False).pvalue
    assert np.allclose(image_test(x, truth, np.arange(400)), welch, atol=0.01)


def test_on_the_null_it_keeps_its_level_where_questions_share_images():
    shares = {"images": [], "rows": []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(25), 4)
        x = rng.normal(size=(25, 30))[groups] + 0.5 * rng.normal(size=(100, 30))
        lean = 2 * rng.normal(size=25)[groups]
        truth = rng.random(100) < 1 / (1 + np.exp(-lean))
        shares["images"].append((image_test(x, truth, groups) < 0.05).mean())
        shares["rows"].append((stats.ttest_ind(x[truth], x[~truth]).pvalue < 0.05).mean())
    assert 0.02 < np.mean(shares["images"]) < 0.065
    assert np.mean(shares["rows"]) > 0.12  # what a test of rows would claim
