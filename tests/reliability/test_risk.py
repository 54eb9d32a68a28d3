"""The monitor's threshold: the promise checked by simulation, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import choose_threshold, fewest_answers, threshold_grid

SIMULATIONS = 1000
GRID = np.linspace(0, 0.9, 37)


def answers(rng, n=800, slope=0.15):
    """Uniform scores; an answer of score s is wrong with probability 2 slope (1 - s)."""
    scores = rng.random(n)
    return scores, rng.random(n) >= 2 * slope * (1 - scores)


def true_risk(threshold, slope=0.15):
    """Error rate among answers of at least this score."""
    return slope * (1 - threshold)


def violations(draw, risk_of, choose=choose_threshold, n=SIMULATIONS, **settings):
    """How often the chosen threshold's true risk is above 0.05, and how often there is one."""
    broken = found = 0
    for seed in range(n):
        result = choose(*draw(np.random.default_rng(seed)), None, grid=GRID, **settings)
        if result.threshold is not None:
            found += 1
            broken += risk_of(result.threshold) > 0.05 + 1e-12
    return broken / n, found / n


def beyond(delta, n=SIMULATIONS):
    """Three Monte-Carlo standard errors above ``delta``."""
    return delta + 3 * math.sqrt(delta * (1 - delta) / n)


@pytest.mark.parametrize("delta", [0.1, 0.3])
def test_the_promise_is_kept(delta):
    broken, found = violations(answers, true_risk, delta=delta)
    assert broken <= beyond(delta)
    assert found > 0.35  # and not by never choosing


def test_the_promise_is_kept_where_every_threshold_is_just_too_bad():
    def flat(rng):
        return rng.random(400), rng.random(400) >= 0.0505

    broken, found = violations(flat, lambda _: 0.0505)
    assert broken == found
    # At the first threshold 40 are answered: too few; none can pass. Lower starts pass some.
    broken, _ = violations(flat, lambda _: 0.0505, starts=4)
    assert 0 < broken <= beyond(0.1)


def test_the_promise_is_kept_where_higher_scores_are_not_safer():
    def hill(rng):
        scores = rng.random(800)
        return scores, rng.random(800) >= np.where(scores > 0.6, 0.02, 0.10)

    def risk(t):
        return 0.02 if t >= 0.6 else (0.02 * 0.4 + 0.10 * (0.6 - t)) / (1 - t)

    broken, found = violations(hill, risk, starts=3)
    assert broken <= beyond(0.1)
    assert found > 0.5


def test_the_error_rate_alone_keeps_no_promise():
    def naive(scores, correct, groups, *, grid):
        result = choose_threshold(scores, correct, groups, grid=grid)
        fit = result.table[result.table["error_rate"] <= 0.05]
        lowest = None if fit.empty else float(fit["threshold"].min())
        return type("Choice", (), {"threshold": lowest})

    broken, _ = violations(answers, true_risk, naive, n=300)
    assert broken > 0.3


def test_a_grid_from_other_images_finds_thresholds():
    broken = found = 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        grid = threshold_grid(answers(rng, 300)[0], 600)
        result = choose_threshold(*answers(rng, 600, 0.08), None, grid=grid)
        found += result.threshold is not None
        broken += result.threshold is not None and true_risk(result.threshold, 0.08) > 0.05
    assert broken / 600 <= beyond(0.1, 600)
    assert found / 600 > 0.6


def test_one_question_an_image_is_drawn_and_the_promise_is_then_kept():
    """Six questions an image, all right or all wrong: six times the evidence that there is."""

    def crowd(rng, n=150):
        scores, correct = answers(rng, n, 0.2)
        images = np.repeat(np.arange(n), 6)
        return np.repeat(scores, 6), np.repeat(correct, 6), images

    grid = np.linspace(0, 0.72, 20)  # the risk is 0.05 at 0.75

    def run(seed, as_one):
        scores, correct, images = crowd(np.random.default_rng(seed))
        if as_one:
            return choose_threshold(scores, correct, images, grid=grid, seed=seed)
        return choose_threshold(scores, correct, None, grid=grid)

    def broken(as_one):
        results = [run(seed, as_one) for seed in range(400)]
        return np.mean(
            [r.threshold is not None and true_risk(r.threshold, 0.2) > 0.05 for r in results]
        )

    assert broken(as_one=True) <= beyond(0.1, 400)
    assert broken(as_one=False) > 0.15
    found = run(0, as_one=True)
    assert found.n == 150
    assert found.table["answered"].max() == 150


def test_by_hand():
    # 100 answers; the 60 surest right, then one wrong, then 39 of which 10 are wrong.
    scores = np.arange(100)[::-1] / 100
    correct = np.ones(100, dtype=bool)
    correct[60] = False
    correct[70:80] = False
    found = choose_threshold(scores, correct, None, grid=[0.2, 0.39, 0.4, 0.5])
    expected = stats.binom.cdf([0, 0, 1, 11], [50, 60, 61, 80], 0.05)
    assert found.table["p_value"].tolist() == pytest.approx(expected.tolist())
    assert found.table["threshold"].tolist() == [0.5, 0.4, 0.39, 0.2]
    assert found.table["passed"].tolist() == (expected <= 0.1).tolist()
    assert expected[2] > 0.1  # 1 of 61 does not show it, so the next is not tested
    assert found.table["tested"].tolist() == [True, True, True, False]
    assert found.threshold == 0.4
    assert (found.answered, found.errors, found.n) == (60, 0, 100)
    assert found.coverage == 0.6
    assert found.reason is None
    assert found.gives([0.39, 0.4, 0.41]).tolist() == [False, True, True]


@given(st.integers(1, 300), st.integers(0, 30), st.floats(0.02, 0.3), st.floats(0.02, 0.4))
def test_passing_is_a_clopper_pearson_bound_below_the_risk(n, wrong, risk, delta):
    wrong = min(wrong, n)
    correct = np.arange(n) >= wrong
    found = choose_threshold(np.zeros(n + 1), np.r_[correct, True], None, grid=[0.0], risk=risk)
    bound = 1.0 if wrong == n + 1 else stats.beta.ppf(0.9, wrong + 1, n + 1 - wrong)
    if abs(bound - risk) > 1e-9:
        assert (found.threshold is not None) == (bound < risk)
    assert (1 - risk) ** fewest_answers(risk, delta) <= delta * (1 + 1e-9)
    assert (1 - risk) ** (fewest_answers(risk, delta) - 1) > delta * (1 - 1e-9)


def test_where_no_threshold_qualifies_it_says_why():
    rng = np.random.default_rng(0)
    scores, correct = rng.random(300), rng.random(300) < 0.8
    found = choose_threshold(scores, correct, None, grid=GRID[:20])
    assert found.threshold is None
    assert (found.answered, found.coverage) == (0, 0)
    assert "answers are wrong (p = " in found.reason
    with pytest.raises(InputError, match=r"there is no threshold: at the threshold 0\.475"):
        found.gives([0.5])
    few = choose_threshold(scores, np.ones(300), None, grid=[0.9, 2.0])
    assert few.threshold is None
    assert "0 images are answered, and a risk of 0.05 takes at least 45" in few.reason
    assert fewest_answers(0.05, 0.1) == 45


def test_grids():
    reference = np.random.default_rng(1).random(1000)
    grid = threshold_grid(reference, 900, size=30)
    assert len(grid) == 30
    assert grid[0] == reference.min()
    assert (np.diff(grid) > 0).all()
    assert (reference >= grid[-1]).mean() * 900 == pytest.approx(135, abs=2)
    with pytest.raises(InputError, match="80 calibration images are too few .* at least 135"):
        threshold_grid(reference, 80)
    with pytest.raises(NumericalError):
        threshold_grid([0.1, np.nan], 900)
    with pytest.raises(InputError, match="at least 2"):
        threshold_grid([0.1], 900)
    with pytest.raises(InputError, match="size must be a whole number"):
        threshold_grid(reference, 900, size=0)


def test_unusable_arguments():
    scores, correct = np.array([0.1, 0.2, 0.3]), np.array([1, 0, 1])
    with pytest.raises(InputError, match="1 of 2 images have several questions .* set seed"):
        choose_threshold(scores, correct, ["a", "b", "b"], grid=[0.1])
    for name in ("risk", "delta"):
        with pytest.raises(InputError, match=f"{name} in"):
            choose_threshold(scores, correct, None, grid=[0.1], **{name: 5})
    with pytest.raises(InputError, match="list of thresholds"):
        choose_threshold(scores, correct, None, grid=[])
    with pytest.raises(InputError, match="starts is from 1 to the grid's 1"):
        choose_threshold(scores, correct, None, grid=[0.1, 0.1], starts=2)
    with pytest.raises(NumericalError):
        choose_threshold([0.1, np.nan, 0.3], correct, None, grid=[0.1])
    with pytest.raises(NumericalError):
        choose_threshold(scores, correct, None, grid=[np.nan])
    with pytest.raises(InputError, match="risk and delta"):
        fewest_answers(0, 0.1)
