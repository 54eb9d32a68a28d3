"""Risk and coverage: by hand, by brute force over orders, and properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import measure_selective_risk, risk_coverage_curve
from mechvrp.statistics import group_bootstrap


def area(correct_in_order):
    """AURC of answers from the surest down, by its definition."""
    wrong = ~np.asarray(correct_in_order, dtype=bool)
    return float(np.mean(wrong.cumsum() / np.arange(1, len(wrong) + 1)))


def over_orders(scores, correct):
    """Mean AURC over all orders of equal scores."""
    blocks = [np.flatnonzero(scores == s) for s in np.unique(scores)[::-1]]
    orders = itertools.product(*(itertools.permutations(block) for block in blocks))
    return float(np.mean([area(correct[list(itertools.chain(*order))]) for order in orders]))


def test_by_hand():
    found = measure_selective_risk([5, 4, 3, 2, 1], [1, 1, 0, 1, 0], coverages=[0.2, 0.6, 1.0])
    assert found.aurc.value == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert found.e_aurc.value == pytest.approx(found.aurc.value - (1 / 4 + 2 / 5) / 5)
    assert found.risk.value == pytest.approx(0.4)
    assert found.table["risk"].tolist() == pytest.approx([0, 1 / 3, 0.4])
    assert found.curve["risk"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert found.curve["coverage"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


def test_equal_scores_are_answered_together():
    curve = risk_coverage_curve([2, 1, 2, 1, 0], [1, 0, 0, 1, 1])
    assert curve["threshold"].tolist() == [2, 1, 0]
    assert curve["answered"].tolist() == [2, 4, 5]
    assert curve["errors"].tolist() == [1, 2, 2]
    # Half way into a block half of its errors are there.
    found = measure_selective_risk([1, 1, 1, 0], [1, 0, 0, 1], coverages=[0.375, 0.75])
    assert found.table["risk"].tolist() == pytest.approx([2 / 3, 2 / 3])


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6))
def test_aurc_is_the_mean_over_orders_of_equal_scores(rows):
    scores, correct = (np.array(column) for column in zip(*rows, strict=True))
    found = measure_selective_risk(scores, correct, coverages=[1.0], n_resamples=25)
    assert found.aurc.value == pytest.approx(over_orders(scores, correct))
    best = area(np.sort(correct)[::-1])
    assert found.e_aurc.value == pytest.approx(found.aurc.value - best, abs=1e-12)
    assert found.e_aurc.value >= -1e-12


def test_the_weighted_form_is_that_of_the_resampled_rows():
    rng = np.random.default_rng(0)
    correct = rng.random(90) < 0.7
    scores = np.round(rng.normal(size=90) + correct, 1)
    groups = rng.integers(0, 25, 90)

    def rows(s, y):
        return measure_selective_risk(s, y, coverages=[0.35], n_resamples=25).aurc.value

    fast = measure_selective_risk(scores, correct, groups, n_resamples=30, seed=4, level=0.9)
    slow = group_bootstrap(rows, scores, correct, groups=groups, n_resamples=30, seed=4, level=0.9)
    assert (fast.aurc.low, fast.aurc.value, fast.aurc.high) == pytest.approx(
        (slow.low, slow.value, slow.high)
    )

    def at_35(s, y):
        order = np.argsort(-s, kind="stable")
        n = 0.35 * len(s)
        whole = risk_coverage_curve(s[order], y[order])
        ends = np.r_[0, whole["answered"]], np.r_[0, whole["errors"]]
        return float(np.interp(n, *ends) / n)

    slow = group_bootstrap(at_35, scores, correct, groups=groups, n_resamples=30, seed=4, level=0.9)
    fast = measure_selective_risk(
        scores, correct, groups, coverages=[0.35], n_resamples=30, seed=4, level=0.9
    )
    assert fast.table.loc[0, ["low", "risk", "high"]].tolist() == pytest.approx(
        [slow.low, slow.value, slow.high]
    )


def test_what_the_figures_mean():
    rng = np.random.default_rng(1)
    correct = rng.random(3000) < 0.7
    few = {"n_resamples": 200}
    blind = measure_selective_risk(rng.normal(size=3000), correct, coverages=[0.5], **few)
    assert blind.aurc.low < blind.risk.value < blind.aurc.high
    assert measure_selective_risk(np.zeros(3000), correct, **few).aurc.value == pytest.approx(
        1 - correct.mean()
    )
    perfect = measure_selective_risk(correct, correct, **few)
    assert perfect.e_aurc.value == pytest.approx(0.0, abs=0.06)
    ordered = measure_selective_risk(correct + rng.random(3000) / 2, correct, **few)
    assert ordered.e_aurc.value == pytest.approx(0, abs=1e-12)
    # Its limit: error rate + accuracy * log(accuracy), Geifman et al. 2019.
    right = correct.mean()
    assert ordered.aurc.value == pytest.approx(1 - right + right * np.log(right), abs=1e-3)
    assert ordered.table["risk"].iloc[:6].max() == 0


def test_intervals_resample_images():
    rng = np.random.default_rng(2)
    correct = rng.random(120) < 0.7
    scores = rng.normal(size=120) + correct
    one = measure_selective_risk(scores, correct, coverages=[0.5])
    images = np.repeat(np.arange(120), 5)
    fivefold = measure_selective_risk(
        np.repeat(scores, 5), np.repeat(correct, 5), images, coverages=[0.5]
    )
    assert fivefold.aurc.n_groups == 120
    for name in ("aurc", "e_aurc", "risk"):
        a, b = getattr(one, name), getattr(fivefold, name)
        assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.1)


def test_unusable_data():
    with pytest.raises(InputError, match=r"shares in \(0, 1\]"):
        measure_selective_risk([1, 2], [0, 1], coverages=[0.0])
    with pytest.raises(InputError, match="at least one"):
        measure_selective_risk([1, 2], [0, 1], coverages=[])
    with pytest.raises(NumericalError):
        risk_coverage_curve([1, np.nan], [0, 1])
    with pytest.raises(InputError, match="must be 0 or 1"):
        risk_coverage_curve([1, 2], [0, 3])


def test_a_risk_of_nothing_has_the_exact_bound_of_its_images():
    images = np.repeat(np.arange(10), 2)
    scores = np.arange(20, 0, -1.0)
    correct = np.ones(20, dtype=int)
    correct[14:] = 0
    found = measure_selective_risk(scores, correct, images, coverages=[0.5], n_resamples=200)
    row = found.table.iloc[0]
    # Ten answers of five images, none wrong: Clopper and Pearson's bound of 0 of 5.
    assert (row["risk"], row["low"]) == (0, 0)
    assert row["high"] >= 1 - 0.025 ** (1 / 5) - 1e-9  # up to rounding
    assert found.band["coverage"].tolist() == pytest.approx([0.02 * i for i in range(1, 51)])
    assert (found.band["high"] > found.band["low"]).all()
