"""Self-consistency: the majority's share, and its exact expectation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import expected_majority_share, majority_share


def test_majority_share():
    assert majority_share(["yes"] * 7 + ["no"] * 3) == 0.7
    assert majority_share(["a", "b", "c"]) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="no answers"):
        majority_share([])


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 5))
def test_expectation_is_the_sum_over_all_draws(weights, k):
    p = np.array(weights) / sum(weights)
    expected = sum(
        np.prod(p[list(draw)]) * majority_share(draw) for draw in product(range(len(p)), repeat=k)
    )
    assert expected_majority_share(p, k) == pytest.approx(expected)


def test_two_answers_are_binomial():
    from scipy.stats import binom

    counts = np.arange(11)
    expected = (np.maximum(counts, 10 - counts) * binom(10, 0.3).pmf(counts)).sum() / 10
    assert expected_majority_share([0.3, 0.7], 10) == pytest.approx(expected, abs=1e-12)
    assert expected_majority_share([0.7, 0.0, 0.3], 10) == pytest.approx(expected, abs=1e-12)


def test_limits():
    assert expected_majority_share([1.0], 10) == pytest.approx(1)
    assert expected_majority_share([0.2] * 5, 1) == pytest.approx(1)
    assert 0.5 < expected_majority_share([0.5, 0.5], 400) < 0.53
    # so many answers that no two of ten draws agree, or hardly ever
    many = expected_majority_share(np.full(20_000, 5e-5), 10)
    assert many == pytest.approx(0.1 * (1 + 45 / 20_000), rel=1e-4)


def test_sampling_converges_to_it():
    rng = np.random.default_rng(0)
    for size in (2, 3, 12, 300):
        p = rng.dirichlet(np.full(size, 0.5))
        shares = rng.multinomial(10, p, size=20_000).max(axis=1) / 10
        error = shares.std() / np.sqrt(len(shares))
        assert abs(shares.mean() - expected_majority_share(p, 10)) < 4 * error + 1e-12


@given(st.integers(0, 2**31), st.integers(1, 8))
def test_order_and_splitting_do_what_they_should(seed, k):
    p = np.random.default_rng(seed).dirichlet(np.ones(6))
    found = expected_majority_share(p, k)
    assert found == pytest.approx(expected_majority_share(p[::-1], k))
    merged = np.array([p[0] + p[1], *p[2:]])
    assert found <= expected_majority_share(merged, k) + 1e-9
    assert max(p.max(), 1 / k) - 1e-9 <= found <= 1 + 1e-9


def test_what_is_no_distribution_is_refused():
    for wrong in ([0.5, 0.6], [], [[0.5, 0.5]], [1.5, -0.5]):
        with pytest.raises(InputError, match="sum to 1"):
            expected_majority_share(wrong, 3)
    with pytest.raises(NumericalError, match="NaN"):
        expected_majority_share([np.nan, 1.0], 3)
    with pytest.raises(InputError, match="at least 1"):
        expected_majority_share([1.0], 0)
