"""Statistics against known answers: other libraries, hand counts, and simulated truth.

The simulations are seeded, so they pass or fail for good. Shares of 600 simulations have a standard
error of 0.9 percentage points at 95 %: the bounds of 93 and 97 % are 2.2 of them away.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mechvrp.statistics as ms
from mechvrp.errors import InputError, NumericalError

SIMULATIONS = 600


def grouped_normal(rng, n_groups, size, share):
    """``[n_groups * size]`` standard normals, ``share`` of whose variance is common to a group."""
    common = rng.normal(size=(n_groups, 1))
    own = rng.normal(size=(n_groups, size))
    return (math.sqrt(share) * common + math.sqrt(1 - share) * own).ravel()


def coverage(interval, truth, draw, n=SIMULATIONS):
    """How often the interval of simulated data holds the truth."""
    held = 0
    for seed in range(n):
        found = interval(*draw(np.random.default_rng(seed)), n_resamples=300, seed=seed)
        held += found.low <= truth <= found.high
    return held / n


# The bootstrap itself


def test_percentiles_agree_with_scipy():
    x = np.random.default_rng(0).gamma(2, size=80)
    ours = ms.group_bootstrap(np.mean, x, groups=None, n_resamples=20_000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    width = ours.high - ours.low
    assert ours.value == pytest.approx(x.mean())
    # Either end is a quantile of 20,000 draws: known to about 1.5 % of the width.
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_a_weighted_statistic_gives_what_the_resampled_rows_give():
    rng = np.random.default_rng(1)
    labels = rng.random(120) < 0.6
    scores = np.round(rng.normal(size=120) + labels, 1)  # with ties
    groups = rng.integers(0, 30, 120)
    settings: dict[str, Any] = {"n_resamples": 200, "seed": 5}
    slow = ms.group_bootstrap(
        ms.auroc, scores, labels, groups=groups, interval="logit-t", **settings
    )
    fast = ms.auroc_interval(scores, labels, groups, **settings)
    assert (slow.low, slow.value, slow.high) == pytest.approx((fast.low, fast.value, fast.high))
    tasks = np.zeros(120)
    assert ms.within_task_auroc_interval(scores, labels, tasks, groups, **settings) == fast
    r = ms.point_biserial_interval(scores, labels, groups, **settings)
    slow = ms.group_bootstrap(
        lambda x, y: np.corrcoef(x, y)[0, 1], scores, labels, groups=groups, **settings
    )
    assert (r.low, r.value, r.high) == pytest.approx((slow.low, slow.value, slow.high))


def test_a_seed_fixes_everything_and_the_estimate_reads_well():
    correct = np.random.default_rng(2).random(300) < 0.8
    groups = np.repeat(np.arange(50), 6)
    found = ms.accuracy_interval(correct, groups, seed=7)
    assert found == ms.accuracy_interval(correct, groups, seed=7)
    assert found != ms.accuracy_interval(correct, groups, seed=8)
    assert (found.n, found.n_groups, found.level) == (300, 50, 0.95)
    assert str(found).endswith("(95% bootstrap by group, logit-t; n = 300 in 50 groups)")
    assert str(found).startswith(f"{found.value:.4g} [{found.low:.4g}, ")
    wide = ms.accuracy_interval(correct, groups, seed=7, level=0.99)
    assert wide.low < found.low < found.value < found.high < wide.high


def test_group_names_do_not_matter():
    rng = np.random.default_rng(3)
    correct, codes = rng.random(90) < 0.5, rng.integers(0, 20, 90)
    named = [f"{code:02d}.jpg" for code in codes]
    assert ms.accuracy_interval(correct, named) == ms.accuracy_interval(correct, codes)
    mixed = [code if code % 2 else str(code) for code in codes.tolist()]
    assert ms.accuracy_interval(correct, mixed).n_groups == len(set(codes))


def test_degenerate_resamples_are_redrawn_and_counted():
    labels = np.r_[np.ones(2), np.zeros(28)]
    scores = np.random.default_rng(4).normal(size=30)
    found = ms.auroc_interval(scores, labels, n_resamples=1000)
    # A resample misses both positives with probability (28/30)^30 = 0.126.
    assert 100 < found.n_degenerate < 190
    assert "resamples redrawn" in str(found)
    one = np.r_[1, np.zeros(29)]
    found = ms.auroc_interval(scores, one, n_resamples=1000)  # 0.362 of them are degenerate
    assert 450 < found.n_degenerate < 700


def test_too_many_degenerate_resamples_are_an_error():
    def rarely(x):
        return float("nan") if len(np.unique(x)) < 8 else 1.0

    with pytest.raises(InputError, match=r"undefined in \d+ of \d+ resamples.*use more images"):
        ms.group_bootstrap(rarely, np.arange(10.0), groups=None)


# Coverage


def auroc_data(rng, n_groups=60, size=6, shift=1.0):
    labels = rng.random(n_groups * size) < 0.7
    scores = shift * labels + grouped_normal(rng, n_groups, size, 0.4)
    return scores, labels, np.repeat(np.arange(n_groups), size)


@pytest.mark.parametrize(("shift", "size"), [(1.0, 6), (2.3, 6), (1.0, 1)])
def test_auroc_intervals_cover_at_their_level(shift, size):
    # Two unit normals ``shift`` apart: the AUROC is Phi(shift / sqrt 2).
    truth = stats.norm.cdf(shift / math.sqrt(2))
    held = coverage(ms.auroc_interval, truth, lambda rng: auroc_data(rng, size=size, shift=shift))
    assert 0.93 <= held <= 0.97


def accuracy_data(rng, n_groups=60, size=6, share=0.4):
    correct = grouped_normal(rng, n_groups, size, share) < stats.norm.ppf(0.85)
    return correct, np.repeat(np.arange(n_groups), size)


def test_accuracy_intervals_cover_at_their_level():
    assert 0.93 <= coverage(ms.accuracy_interval, 0.85, accuracy_data) <= 0.97


def test_ignoring_that_questions_share_an_image_is_overconfident():
    def rows_alone(correct, groups, **settings):
        return ms.accuracy_interval(correct, None, **settings)

    assert coverage(rows_alone, 0.85, accuracy_data, n=300) < 0.88


def test_paired_changes_cover_at_their_level():
    def draw(rng):
        before, groups = accuracy_data(rng)
        lost = grouped_normal(rng, 60, 6, 0.5) < stats.norm.ppf(0.1)
        return before, before & ~lost, groups

    def interval(*data, **settings):
        return ms.paired_accuracy_change(*data, n_permutations=1, **settings).change

    assert 0.93 <= coverage(interval, -8.5, draw) <= 0.97


def test_correlation_intervals_cover_near_their_level():
    # r of a normal with its own sign is sqrt(2 / pi); with as much noise again, half its square.
    def draw(rng):
        x = grouped_normal(rng, 60, 3, 0.3)
        return x + rng.normal(size=x.size), x > 0, np.repeat(np.arange(60), 3)

    held = coverage(ms.point_biserial_interval, math.sqrt(1 / math.pi), draw)
    assert 0.92 <= held <= 0.97  # percentiles fall a little short


# Nothing wrong, nothing right


def test_perfection_is_not_certainty():
    found = ms.accuracy_interval(np.ones(60), np.repeat(np.arange(10), 6))
    assert (found.value, found.high, found.method) == (1.0, 1.0, "exact bound")
    assert found.low == pytest.approx(stats.binomtest(10, 10).proportion_ci().low)
    found = ms.accuracy_interval(np.zeros(10))
    assert (found.low, found.high) == pytest.approx((0, 1 - 0.025**0.1))

    labels = np.r_[np.ones(30), np.zeros(5)]
    found = ms.auroc_interval(labels + 0.1, labels)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 5))  # five disjoint pairs
    assert ms.auroc_interval(-labels, labels).high == pytest.approx(1 - 0.025 ** (1 / 5))

    change = ms.paired_accuracy_change(np.ones(20), np.ones(20))
    assert change.p_value == 1
    # Bonett and Price: one more answer gained and one more lost, of 22.
    reach = 100 * stats.norm.ppf(0.975) * np.sqrt((2 / 22) / 22)
    assert change.change.low == -change.change.high == pytest.approx(-reach)


def test_a_change_of_few_answers_has_an_interval_that_grows_smoothly():
    groups, before = np.repeat(np.arange(17), 6), np.ones(102)
    widths = []
    for changed in range(5):
        after = before.copy()
        after[np.arange(changed) * 12] = 0
        found = ms.paired_accuracy_change(before, after, groups).change
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert all(a < b < 1.6 * a for a, b in itertools.pairwise(widths))


# AUROC


scored_rows = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 2)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label, _ in rows}) == 2)


@given(scored_rows)
def test_auroc_is_the_share_of_pairs_won(rows):
    scores, labels, tasks = map(np.array, zip(*rows, strict=True))

    def pairs(keep):
        wins = [
            1.0 if p > q else 0.5 if p == q else 0.0
            for p in scores[labels & keep]
            for q in scores[~labels & keep]
        ]
        return sum(wins), len(wins)

    wins, count = pairs(np.ones(len(rows), dtype=bool))
    assert ms.auroc(scores, labels) == pytest.approx(wins / count)
    by_task = [pairs(tasks == task) for task in np.unique(tasks)]
    total = sum(n for _, n in by_task)
    if total == 0:
        with pytest.raises(InputError, match="no task has both"):
            ms.within_task_auroc(scores, labels, tasks)
    else:
        expected = sum(won for won, _ in by_task) / total
        assert ms.within_task_auroc(scores, labels, tasks) == pytest.approx(expected)


def test_a_score_that_only_knows_the_task_earns_nothing_within_tasks():
    rng = np.random.default_rng(5)
    tasks = np.repeat([0, 1], 1000)
    labels = rng.random(2000) < np.where(tasks, 0.9, 0.3)
    assert ms.auroc(tasks, labels) > 0.75
    assert ms.within_task_auroc(tasks, labels, tasks) == 0.5
    noisy = tasks + rng.normal(size=2000)
    found = ms.within_task_auroc_interval(noisy, labels, tasks)
    assert found.low < 0.5 < found.high
    assert ms.auroc_interval(noisy, labels).low > 0.6


@pytest.mark.parametrize("function", [ms.auroc, ms.auroc_interval, ms.point_biserial_interval])
def test_unusable_scores(function):
    with pytest.raises(InputError, match="needs both classes, and all 3 labels are 1"):
        function([1.0, 2, 3], [1, 1, 1])
    with pytest.raises(NumericalError, match="1 of 3 values are NaN or infinite"):
        function([1, 2, np.nan], [1, 0, 1])
    with pytest.raises(NumericalError):
        function([1, 2, np.inf], [1, 0, 1])
    with pytest.raises(InputError, match=r"labels must be 0 or 1, got \[0\.0, 2\.0\]"):
        function([1, 2, 3], [0, 2, 2])
    with pytest.raises(InputError, match=r"shape \(2,\), labels \(3,\)"):
        function([1, 2], [0, 1, 1])


def test_unusable_settings():
    correct = [1, 0, 1, 1]
    with pytest.raises(InputError, match="at least 2 groups"):
        ms.accuracy_interval(correct, ["a"] * 4)
    with pytest.raises(InputError, match=r"each of 4 rows, got shape \(3,\)"):
        ms.accuracy_interval(correct, ["a", "b", "c"])
    for settings in ({"level": 1.0}, {"n_resamples": 10}):
        with pytest.raises(InputError, match="level"):
            ms.accuracy_interval(correct, **settings)
    with pytest.raises(InputError, match="one length, got lengths"):
        ms.group_bootstrap(np.mean, [1.0, 2], [1.0], groups=None)
    with pytest.raises(InputError, match="'percentile', 't' or 'logit-t'"):
        ms.group_bootstrap(np.mean, [1.0, 2], groups=None, interval="bca")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"within \(0, 1\)"):
        ms.group_bootstrap(np.mean, [1.0, 2], groups=None, interval="logit-t")
    with pytest.raises(NumericalError):
        ms.group_bootstrap(np.mean, [1.0, np.nan], groups=None)
    with pytest.raises(InputError, match="signal that varies"):
        ms.point_biserial_interval([2, 2, 2], [0, 1, 1])
    with pytest.raises(InputError, match="not the same data"):
        ms.paired_accuracy_change([1, 0], [1, 0, 1])


# Correlation


def test_point_biserial_is_scipys_even_far_from_zero():
    rng = np.random.default_rng(6)
    labels = rng.random(200) < 0.4
    signal = 1e8 + rng.normal(size=200) + labels
    found = ms.point_biserial_interval(signal, labels)
    assert found.value == pytest.approx(stats.pointbiserialr(labels, signal - 1e8).statistic)
    assert found.low < found.value < found.high


# Tests


def test_a_change_by_hand():
    before = np.array([1, 1, 1, 1, 0, 0, 1, 1, 0, 1])
    after = np.array([0, 0, 0, 1, 0, 1, 0, 0, 0, 0])
    found = ms.paired_accuracy_change(before, after, n_permutations=100_000)
    assert found.change.value == pytest.approx(-50.0)
    # Six lost, one won: the exact sign test, P(at most 1 or at least 6 of 7).
    assert found.p_value == pytest.approx(stats.binomtest(1, 7).pvalue, abs=0.005)
    mirrored = ms.paired_accuracy_change(after, before, n_permutations=100_000)
    assert mirrored.change.value == pytest.approx(50.0)
    assert mirrored.change.low == pytest.approx(-found.change.high)


def paired_null(rng, n_groups=40, size=6):
    """No effect, but answers of one image change together."""
    groups = np.repeat(np.arange(n_groups), size)
    before = rng.random(n_groups * size) < 0.7
    flipped = np.repeat(rng.random(n_groups) < 0.3, size)
    other = np.repeat(rng.random(n_groups) < 0.5, size)
    return before, np.where(flipped, other, before), groups


def test_p_values_under_the_null():
    def symmetric(rng):
        before, after, groups = paired_null(rng)
        swap = np.repeat(rng.random(40) < 0.5, 6)  # makes before and after exchangeable
        return np.where(swap, after, before), np.where(swap, before, after), groups

    by_image, by_row = [], []
    for seed in range(400):
        before, after, groups = symmetric(np.random.default_rng(seed))
        settings = {"n_permutations": 399, "n_resamples": 40, "seed": seed}
        by_image.append(ms.paired_accuracy_change(before, after, groups, **settings).p_value)
        by_row.append(ms.paired_accuracy_change(before, after, **settings).p_value)
    # 3 standard errors of a share of 400 above its level.
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(by_image) <= level) <= level + 3 * math.sqrt(level / 400)
    assert np.mean(np.array(by_image) <= 0.5) > 0.4  # and not by being useless
    assert np.mean(np.array(by_row) <= 0.05) > 0.15  # six questions an image taken for independent


def test_a_permutation_p_counts_the_observed_value():
    assert ms.two_sided_permutation_p(5.0, np.arange(4)) == 2 * 1 / 5
    assert ms.two_sided_permutation_p(-5.0, np.arange(4)) == 2 * 1 / 5
    assert ms.two_sided_permutation_p(1.0, np.ones(9)) == 1
    null = np.random.default_rng(7).normal(0.5, 0.01, 999)  # centred where an AUROC's null is
    assert ms.two_sided_permutation_p(0.4, null) == 2 / 1000
    assert ms.two_sided_permutation_p(0.5, null) > 0.8
    with pytest.raises(InputError, match="empty"):
        ms.two_sided_permutation_p(1.0, [])
    with pytest.raises(NumericalError):
        ms.two_sided_permutation_p(float("nan"), [1.0])


def test_permutation_p_values_are_valid_at_few_draws():
    rng = np.random.default_rng(8)
    draws = rng.normal(size=(20_000, 40))
    p = np.array([ms.two_sided_permutation_p(row[0], row[1:]) for row in draws])
    for level in (0.05, 0.1, 0.5):
        assert np.mean(p <= level) <= level + 3 * math.sqrt(level / 20_000)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_benjamini_hochberg_by_its_definition(p):
    adjusted = ms.benjamini_hochberg(p)
    m = len(p)
    for value, found in zip(p, adjusted, strict=True):
        above = [q for q in p if q >= value]
        expected = min(min(1.0, q * m / sum(r <= q for r in p)) for q in above)
        assert found == pytest.approx(expected)


def test_benjamini_hochberg_keeps_shape_and_refuses_what_is_no_p():
    assert ms.benjamini_hochberg(np.full((2, 3), 0.5)).shape == (2, 3)
    with pytest.raises(InputError, match=r"lie in \[0, 1\]"):
        ms.benjamini_hochberg([0.1, 1.1])
    with pytest.raises(NumericalError):
        ms.benjamini_hochberg([0.1, np.nan])


def test_group_means_are_the_bootstrap_of_each_mean():
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=(60, 2, 3)), np.repeat(np.arange(20), 3)
    found = ms.group_means(values, groups, n_resamples=400, seed=7)
    for i in range(2):
        for j in range(3):
            one = ms.group_bootstrap(
                np.mean, values[:, i, j], groups=groups, n_resamples=400, seed=7
            )
            assert found.mean[i, j] == pytest.approx(one.value)
            assert found.low[i, j] == pytest.approx(one.low, abs=0.03)
            assert found.high[i, j] == pytest.approx(one.high, abs=0.03)
    with pytest.raises(InputError, match="at least 2 groups"):
        ms.group_means(values, np.zeros(60))
    with pytest.raises(NumericalError, match="not finite"):
        ms.group_means([1.0, np.nan], None)


def test_several_statistics_at_once_are_each_one_alone():
    rng = np.random.default_rng(9)
    x, groups = rng.normal(size=90), np.repeat(np.arange(30), 3)

    def moments(values, *, weights):
        total = weights.sum(axis=1)
        return {"mean": weights @ values / total, "square": weights @ values**2 / total}

    found = ms.group_bootstrap_all(moments, x, groups=groups, n_resamples=300, seed=4)
    for name, power in (("mean", 1), ("square", 2)):
        alone = ms.group_bootstrap(np.mean, x**power, groups=groups, n_resamples=300, seed=4)
        assert (found[name].low, found[name].value, found[name].high) == pytest.approx(
            (alone.low, alone.value, alone.high)
        )
        assert found[name].method == alone.method
    with pytest.raises(InputError, match="odds is undefined"):
        ms.group_bootstrap_all(
            lambda v, *, weights: {"odds": np.full(len(weights), np.nan)}, x, groups=groups
        )
    with pytest.raises(InputError, match="level"):
        ms.group_bootstrap_all(moments, x, groups=groups, level=1.0)
