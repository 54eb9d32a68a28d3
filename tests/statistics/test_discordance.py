"""McNemar's test against the binomial and chi-squared tests it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mechvrp.statistics as ms
from mechvrp.errors import InputError


def answers(gained, lost, same=20):
    before = np.r_[np.zeros(gained), np.ones(lost), np.ones(same), np.zeros(same)]
    after = np.r_[np.ones(gained), np.zeros(lost), np.ones(same), np.zeros(same)]
    return before, after


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_exact_test_is_a_sign_test_of_what_changed(gained, lost):
    found = ms.mcnemar(*answers(gained, lost), None)
    assert (found.gained, found.lost, found.n) == (gained, lost, gained + lost + 40)
    assert found.statistic is None
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p_value == pytest.approx(expected)


def test_the_large_sample_test_by_hand():
    found = ms.mcnemar(*answers(20, 45), None, exact=False)
    chi = (abs(20 - 45) - 1) ** 2 / 65
    assert found.statistic == pytest.approx(chi)
    assert found.p_value == pytest.approx(stats.chi2.sf(chi, 1))
    assert str(found) == f"20 gained, 45 lost of 105, p = {found.p_value:.3g}"


def test_p_values_are_valid_where_gains_and_losses_are_equally_likely():
    p = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        before = rng.random(120) < 0.8
        changed = rng.random(120) < 0.2
        first, second = before, before ^ changed
        swap = rng.random(120) < 0.5
        p.append(
            ms.mcnemar(np.where(swap, second, first), np.where(swap, first, second), None).p_value
        )
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= level + 3 * np.sqrt(level / 1000)


def test_what_mcnemar_is_not_for():
    with pytest.raises(InputError, match=r"2 of 2 images .* use paired_accuracy_change"):
        ms.mcnemar([1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 2, 2])
    with pytest.raises(InputError, match="not the same data"):
        ms.mcnemar([1, 0], [1, 0, 1], None)
    with pytest.raises(InputError, match="no answer changed"):
        ms.mcnemar([1, 0], [1, 0], None, exact=False)
    assert ms.mcnemar([1, 0], [1, 0], None).p_value == 1
    with pytest.raises(InputError, match="must be 0 or 1"):
        ms.mcnemar([2, 0], [1, 0], None)
