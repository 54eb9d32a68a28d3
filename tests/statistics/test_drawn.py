"""Changes over draws: the paired change where there is one draw, valid under the null where there are more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.errors import InputError, ShapeError
from mechvrp.statistics import drawn_accuracy_change, group_bootstrap, paired_accuracy_change
from mechvrp.statistics.bootstrap import weighted_mean

FEW = {"n_resamples": 200, "n_permutations": 200}


@given(st.integers(0, 999), st.integers(1, 3))
def test_of_one_draw_it_is_the_paired_change(seed, each):
    rng = np.random.default_rng(seed)
    before, after, control = rng.random((3, 24)) < 0.7
    groups = np.arange(24) // each
    found = drawn_accuracy_change(before, after[None], control[None], groups, seed=3, **FEW)
    for mine, theirs in ((found.change, after), (found.control, control)):
        expected = paired_accuracy_change(before, theirs, groups, seed=3, **FEW)
        assert mine.p_value == expected.p_value
        for name in ("value", "low", "high"):
            got, wanted = getattr(mine.change, name), getattr(expected.change, name)
            assert got == pytest.approx(wanted, abs=1e-9)
    difference = 100 * (after.mean() - control.mean())
    assert found.excess.change.value == pytest.approx(difference)


def test_draws_are_averaged_within_an_example():
    before = np.array([1, 1, 0, 0], bool)
    after = np.array([[1, 0, 0, 0], [1, 1, 0, 1]], bool)
    control = np.ones((3, 4), bool)
    found = drawn_accuracy_change(before, after, control, **FEW)
    assert found.change.change.value == pytest.approx(100 * (4 / 8 - 1 / 2))
    assert found.control.change.value == pytest.approx(50)
    assert found.excess.change.value == pytest.approx(-50)


@pytest.mark.parametrize("images", [3, 4, 6])
def test_no_interval_is_wider_than_what_is_possible(images):
    """Few images that nearly all turn: Student's t alone reaches beyond a change of 100 pp."""
    before = np.ones(4 * images, bool)
    after = np.zeros((2, 4 * images), bool)
    after[:, 0] = True
    groups = np.repeat(np.arange(images), 4)
    share = 100 * (after.mean(0) - before)
    free = group_bootstrap(
        weighted_mean, share, groups=groups, interval="t", weighted=True, n_resamples=200
    )
    assert free.low < -100
    found = drawn_accuracy_change(before, after, np.ones((1, 4 * images), bool), groups, **FEW)
    for one in (
        found.change,
        found.excess,
        paired_accuracy_change(before, after[0], groups, **FEW),
    ):
        assert one.change.low == -100
        assert -100 < one.change.value < one.change.high < 0
        turned = paired_accuracy_change(after[0], before, groups, **FEW)
        assert turned.change.high == 100


def test_nothing_that_changed_is_no_certainty():
    before = np.ones(50, bool)
    found = drawn_accuracy_change(before, np.ones((4, 50), bool), np.ones((2, 50), bool), **FEW)
    assert found.change.p_value == 1
    assert found.change.change.low < -1 < 1 < found.change.change.high


def test_intervals_cover_and_p_is_valid_with_images_and_draws():
    """Images of three questions, four noisy draws and four of a control that is alike."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 3)
    covered, small, runs = 0, 0, 250
    for run in range(runs):
        base = rng.beta(4, 1, 60)[groups]
        before = rng.random(180) < base
        harm = rng.beta(2, 6, 60)[groups]  # an image's questions are harmed alike
        after, control = (before & (rng.random((4, 180)) > harm) for _ in range(2))
        found = drawn_accuracy_change(before, after, control, groups, seed=run, **FEW)
        truth = -100 * 0.8 * 0.25
        covered += found.change.change.low <= truth <= found.change.change.high
        small += found.excess.p_value <= 0.05
    assert 0.91 <= covered / runs <= 0.985
    assert small / runs <= 0.085


def test_unfitting_input_is_refused():
    before = np.ones(4, bool)
    with pytest.raises(ShapeError, match="after has shape"):
        drawn_accuracy_change(before, np.ones(4, bool), np.ones((2, 4), bool))
    with pytest.raises(ShapeError, match="control has shape"):
        drawn_accuracy_change(before, np.ones((1, 4), bool), np.ones((2, 5), bool))
    with pytest.raises(InputError, match="0 or 1"):
        drawn_accuracy_change(before, np.full((1, 4), -1), np.ones((2, 4), bool))
    with pytest.raises(InputError, match="n_permutations"):
        drawn_accuracy_change(before, before[None], before[None], n_permutations=0)
