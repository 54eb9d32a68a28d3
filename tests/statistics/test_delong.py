"""DeLong's variance against its definition, its levels by simulation, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mechvrp.statistics as ms
from mechvrp.errors import InputError, NumericalError

rows = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=4, max_size=25
).filter(lambda found: 2 <= sum(label for *_, label in found) <= len(found) - 2)


def by_definition(scores, labels):
    """AUROCs and their covariance from the placements of every row among the other class."""
    wins = [
        [[1.0 if p > q else 0.5 if p == q else 0.0 for q in s[~labels]] for p in s[labels]]
        for s in scores
    ]
    table = np.array(wins)  # [score, positive, negative]
    m, n = table.shape[1:]
    area = table.mean(axis=(1, 2))
    ten, one = table.mean(axis=2) - area[:, None], table.mean(axis=1) - area[:, None]
    return area, ten @ ten.T / (m - 1) / m + one @ one.T / (n - 1) / n


@given(rows)
def test_the_variance_is_that_of_the_placements(found):
    first, second, labels = (np.array(column) for column in zip(*found, strict=True))
    area, covariance = by_definition([first, second], labels)
    for index, scores in enumerate((first, second)):
        variance = covariance[index, index]
        if variance < 1e-12:
            with pytest.raises(InputError, match="auroc_interval"):
                ms.delong_interval(scores, labels, None)
            continue
        plain = ms.delong_interval(scores, labels, None, scale="linear")
        reach = 1.959964 * math.sqrt(variance)
        assert plain.value == pytest.approx(area[index])
        assert plain.value == pytest.approx(ms.auroc(scores, labels))
        assert plain.low == pytest.approx(max(0, area[index] - reach), abs=1e-6)
        assert plain.high == pytest.approx(min(1, area[index] + reach), abs=1e-6)
        curved = ms.delong_interval(scores, labels, None)
        assert 0 < curved.low < curved.value < curved.high < 1
        slope = area[index] * (1 - area[index])
        width = np.log(curved.high / (1 - curved.high)) - np.log(curved.low / (1 - curved.low))
        assert width == pytest.approx(2 * reach / slope, rel=1e-5)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance > 1e-9:
        test = ms.delong_test(first, second, labels, None)
        z = (area[0] - area[1]) / math.sqrt(variance)
        assert test.z == pytest.approx(z, abs=1e-6)
        assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
        assert test.difference.high - test.difference.low == pytest.approx(
            2 * 1.959964 * math.sqrt(variance), rel=1e-5
        )


def test_intervals_cover_at_their_level():
    truth, held = stats.norm.cdf(1 / math.sqrt(2)), 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        labels = rng.random(200) < 0.7
        found = ms.delong_interval(rng.normal(size=200) + labels, labels, None)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 1000 <= 0.97


def test_equal_signals_differ_as_often_as_the_level_says():
    p = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        labels = rng.random(150) < 0.6
        common = rng.normal(size=150) + labels
        first, second = common + rng.normal(size=(2, 150))
        p.append(ms.delong_test(first, second, labels, None).p_value)
    # 3 standard errors of a share of 1000, and half a point for the normal approximation.
    for level in (0.05, 0.2, 0.5):
        margin = 3 * math.sqrt(level * (1 - level) / 1000) + 0.005
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=margin)


def test_it_agrees_with_the_bootstrap_of_the_lead():
    rng = np.random.default_rng(0)
    labels = rng.random(800) < 0.7
    first = rng.normal(size=800) + 1.2 * labels
    second = first + rng.normal(size=800)
    found = ms.delong_test(first, second, labels, None)
    lead = ms.auroc_lead(first, second, labels, None)
    assert found.difference.value == pytest.approx(lead.value)
    assert found.difference.low == pytest.approx(lead.low, abs=0.006)
    assert found.difference.high == pytest.approx(lead.high, abs=0.006)
    assert found.p_value < 0.001
    assert str(found).endswith(f"p = {found.p_value:.3g}")


def test_scores_that_rank_alike_do_not_differ():
    rng = np.random.default_rng(1)
    labels, scores = rng.random(50) < 0.5, rng.normal(size=50)
    found = ms.delong_test(scores, np.exp(scores), labels, None)
    assert (found.difference.value, found.z, found.p_value) == (0, 0, 1)


def test_what_delong_is_not_for():
    scores, labels = np.arange(6.0), np.array([0, 1, 0, 1, 1, 0])
    images = np.array(["a", "b", "b", "c", "d", "b"])
    for call in (
        lambda: ms.delong_interval(scores, labels, images),
        lambda: ms.delong_test(scores, -scores, labels, images),
    ):
        with pytest.raises(
            InputError, match=r"1 of 4 images .* 3, image 'b'\): use auroc_interval"
        ):
            call()
    assert ms.delong_interval(scores, labels, list("abcdef")).n == 6
    with pytest.raises(InputError, match="the interval would have no width; use auroc_interval"):
        ms.delong_interval(labels, labels, None)
    with pytest.raises(InputError, match="without any variance"):
        ms.delong_test(labels, -labels, labels, None)
    with pytest.raises(InputError, match="got 1 positives and 3 negatives"):
        ms.delong_interval([1, 2, 3, 4], [0, 1, 0, 0], None)
    with pytest.raises(InputError, match="both classes"):
        ms.delong_interval([1, 2, 3], [1, 1, 1], None)
    with pytest.raises(InputError, match="'logit' or 'linear'"):
        ms.delong_interval(scores, labels, None, scale="probit")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        ms.delong_interval(scores, labels, None, level=1)
    with pytest.raises(NumericalError):
        ms.delong_interval([1, 2, np.nan, 3, 4, 5], labels, None)
