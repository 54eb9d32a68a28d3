"""Pooling over models against sums by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

import mechvrp.statistics as ms
from mechvrp.errors import InputError, NumericalError

Z = stats.norm.ppf(0.975)


def estimate(value, error, n=100, groups=50, level=0.95):
    reach = stats.norm.ppf((1 + level) / 2) * error
    return ms.Estimate(value, value - reach, value + reach, n, groups, level, "given")


def test_fixed_effect_by_hand():
    found = ms.pooled_estimate({"a": estimate(1.0, 0.1), "b": estimate(2.0, 0.2, n=60, groups=60)})
    # weights 100 and 25
    assert found.fixed.value == pytest.approx(1.2)
    assert found.fixed.high - found.fixed.low == pytest.approx(2 * Z / np.sqrt(125))
    assert found.weights_fixed == pytest.approx({"a": 0.8, "b": 0.2})
    assert found.q == pytest.approx(100 * 0.2**2 + 25 * 0.8**2)
    assert found.p_heterogeneity == pytest.approx(stats.chi2.sf(20, 1))
    assert found.i_squared == pytest.approx(19 / 20)
    assert (found.fixed.n, found.fixed.n_groups) == (160, 60)


values = st.lists(st.tuples(st.floats(-2, 2), st.floats(0.05, 1)), min_size=2, max_size=6)


@given(values)
def test_random_effects_are_paule_and_mandels(pairs):
    found = ms.pooled_estimate({str(i): estimate(*pair) for i, pair in enumerate(pairs)})
    y, error = np.array(pairs).T
    weights = 1 / (error**2 + found.tau_squared)
    mean = (weights * y).sum() / weights.sum()
    assert found.random.value == pytest.approx(mean, abs=1e-6)
    # Knapp and Hartung: t times the larger of the weighted spread's error and the ordinary one.
    spread = (weights * (y - mean) ** 2).sum()
    larger = max(1.0, np.sqrt(spread / (len(y) - 1)))
    reach = stats.t.ppf(0.975, len(y) - 1) * larger / np.sqrt(weights.sum())
    assert found.random.high - mean == pytest.approx(reach, rel=1e-5)
    assert mean - found.random.low == pytest.approx(reach, rel=1e-5)
    assert sum(found.weights_random.values()) == pytest.approx(1)
    if found.tau_squared > 1e-6:  # its defining equation
        assert spread == pytest.approx(len(y) - 1, rel=1e-2)
    assert found.random.high - found.random.low >= found.fixed.high - found.fixed.low - 1e-9
    assert 0 <= found.i_squared < 1


def test_models_that_agree_are_one():
    found = ms.pooled_estimate({name: estimate(0.3, 0.1) for name in "abc"})
    assert (found.q, found.i_squared, found.p_heterogeneity) == pytest.approx((0, 0, 1))
    assert found.tau_squared == pytest.approx(0, abs=1e-9)
    # Nothing between them, but t with 2 degrees of freedom (4.303) in place of 1.96.
    assert found.random.value == pytest.approx(found.fixed.value)
    assert found.random.high - 0.3 == pytest.approx(4.30265 * 0.1 / np.sqrt(3), rel=1e-4)
    assert found.random.high - 0.3 > found.fixed.high - 0.3


def test_random_effects_of_three_by_hand():
    # Equal errors of 0.01: weights are equal, so that the interval is that of the mean of three numbers.
    found = ms.pooled_estimate(
        {n: estimate(v, 0.01) for n, v in zip("abc", (0, 0.1, 0.2), strict=True)}
    )
    assert found.random.value == pytest.approx(0.1)
    assert found.random.high == pytest.approx(0.1 + 4.30265 * 0.1 / np.sqrt(3), rel=1e-4)
    assert found.tau_squared == pytest.approx(0.1**2 - 0.01**2, rel=1e-3)
    assert "Hartung-Knapp" in found.random.method


@pytest.mark.parametrize(
    ("tau", "errors"),
    [
        (0.05, (0.01,) * 3),
        (0.02, (0.02,) * 3),
        (0.0, (0.02,) * 3),
        (0.02, (0.01, 0.03, 0.06)),
    ],
)
def test_random_effects_of_three_cover(tau, errors):
    # The normal interval covers 0.82, 0.91, 0.96 and 0.82 of these.
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        drawn = 0.7 + tau * rng.normal(size=3) + np.array(errors) * rng.normal(size=3)
        found = ms.pooled_estimate(
            {str(i): estimate(v, e) for i, (v, e) in enumerate(zip(drawn, errors, strict=True))}
        )
        held += found.random.low <= 0.7 <= found.random.high
    assert held / 1000 >= 0.93


def test_scales():
    shares = {name: estimate(v, 0.02) for name, v in (("a", 0.8), ("b", 0.9))}
    found = ms.pooled_estimate(shares, scale="logit")
    there = {}
    for name, given_ in shares.items():
        error = (logit(given_.high) - logit(given_.low)) / (2 * Z)
        there[name] = estimate(logit(given_.value), error)
    plain = ms.pooled_estimate(there)
    for ours, theirs in ((found.fixed, plain.fixed), (found.random, plain.random)):
        expected = expit([theirs.value, theirs.low, theirs.high])
        assert [ours.value, ours.low, ours.high] == pytest.approx(expected.tolist())
    r = ms.pooled_estimate({"a": estimate(0.5, 0.05), "b": estimate(0.5, 0.05)}, scale="fisher-z")
    assert r.fixed.value == pytest.approx(0.5)


def test_pooled_intervals_cover_at_their_level():
    rng = np.random.default_rng(0)
    errors = np.array([0.1, 0.2, 0.15])
    held, q_small = 0, 0
    for _ in range(400):
        drawn = 0.7 + errors * rng.normal(size=3)
        found = ms.pooled_estimate(
            {str(i): estimate(v, e) for i, (v, e) in enumerate(zip(drawn, errors, strict=True))}
        )
        held += found.fixed.low <= 0.7 <= found.fixed.high
        q_small += found.p_heterogeneity <= 0.1
    assert 0.92 <= held / 400 <= 0.98
    assert q_small / 400 == pytest.approx(0.1, abs=0.05)


def test_what_cannot_be_pooled():
    one = estimate(0.5, 0.1)
    with pytest.raises(InputError, match="at least 2 estimates, got 1"):
        ms.pooled_estimate({"a": one})
    with pytest.raises(InputError, match=r"one level, got \[0\.9, 0\.95\]"):
        ms.pooled_estimate({"a": one, "b": estimate(0.5, 0.1, level=0.9)})
    exact = ms.auroc_interval([1, 2, 3, 4], [0, 0, 1, 1])
    with pytest.raises(InputError, match="the interval of 'b'.*no width on one side"):
        ms.pooled_estimate({"a": one, "b": exact})
    with pytest.raises(InputError, match=r"'b'.*is not within \(0, 1\)"):
        ms.pooled_estimate({"a": one, "b": estimate(0.9, 0.1)}, scale="logit")
    with pytest.raises(InputError, match="'linear', 'logit' or 'fisher-z'"):
        ms.pooled_estimate({"a": one, "b": one}, scale="log")  # type: ignore[arg-type]
    with pytest.raises(NumericalError, match="'b' is not finite"):
        ms.pooled_estimate({"a": one, "b": estimate(float("nan"), 0.1)})
