"""Ablation curves against known outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.circuits import AblationCurve, analyse_ablation, default_ks
from mechvrp.errors import InputError, ShapeError

N, DRAWS = 120, 20
KS = (0, 1, 5)
GROUPS = np.repeat(np.arange(N // 3), 3)
TASKS = np.array(["a", "b", "c"])[np.arange(N) % 3]


def outcomes(top_loss: int, random_loss: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All right when clean; at k = 5 the first ``top_loss`` wrong, and any ``random_loss`` of
    random draws."""
    clean = np.ones(N, dtype=bool)
    top = np.ones((3, N), dtype=bool)
    top[2, np.random.default_rng(0).permutation(N)[:top_loss]] = False
    random = np.ones((DRAWS, 3, N), dtype=bool)
    for draw in range(DRAWS):
        random[draw, 2, np.random.default_rng([1, draw]).permutation(N)[:random_loss]] = False
    return clean, top, random


def curve(top_loss: int, random_loss: int) -> AblationCurve:
    return analyse_ablation(
        *outcomes(top_loss, random_loss),
        GROUPS,
        KS,
        TASKS,
        units=10,
        n_resamples=500,
        least_draws=DRAWS,
    )


def test_known_drop() -> None:
    found = curve(36, 12)
    nothing, one, five = found.points
    assert five.accuracy.value == pytest.approx(0.7)
    assert five.change.value == pytest.approx(-30)
    assert five.random_change.value == pytest.approx(-10)
    assert five.excess.value == pytest.approx(-20)
    assert five.change.low < -30 < five.change.high < 0
    assert five.excess.high < 0
    assert five.random_range == pytest.approx((-10, -10))
    assert five.excess_p == pytest.approx(1 / 21) == found.smallest_possible_p
    assert five.excess_q == pytest.approx(2 / 21)  # the lesser of two tests
    assert five.change_p < 0.001
    assert one.change.value == 0
    assert one.change_p == 1
    assert one.change.low < 0 < one.change.high  # none seen is not none possible
    assert (nothing.change.low, nothing.change.high) == (0, 0)
    assert nothing.change_p is None
    assert found.curve_p["all"] == pytest.approx(1 / 21)


def test_top_like_random_is_not_distinguished() -> None:
    five = curve(12, 12).points[2]
    assert five.excess.low < 0 < five.excess.high
    assert five.excess_p == 1  # ties count for the draws


def test_few_draws_have_no_p_unless_they_are_asked_for() -> None:
    clean, top, random = outcomes(36, 12)
    found = analyse_ablation(clean, top, random, GROUPS, KS, TASKS, n_resamples=50)
    assert {(p.excess_p, p.excess_q) for p in found.points} == {(None, None)}
    assert set(found.curve_p.values()) == {None}
    assert found.points[2].change_q < 0.01  # which needs no draws
    assert found.points[2].excess.high < 0  # nor does the interval need many
    assert not found.tested
    frame = found.to_frame()
    assert frame[["excess_p", "excess_q", "curve_p"]].isna().all(axis=None)
    assert set(frame.dtypes[["change_p", "excess_p", "curve_p"]]) == {np.dtype(float)}
    assert "too few draws for a p" in repr(found)
    with pytest.raises(InputError, match="20 random draws, too few.*draws=199"):
        found.smallest_k()
    many = np.repeat(random, 10, axis=0)
    for draws, known in ((198, False), (199, True)):
        among = analyse_ablation(clean, top, many[:draws], GROUPS, KS, TASKS, n_resamples=50)
        assert among.tested == known
        assert among.points[2].excess_p == (pytest.approx(1 / 200) if known else None)
    assert among.smallest_k() == 5


def test_interval_covers_draws_too() -> None:
    # Draws that differ widely make the random band wide even when images hardly matter.
    clean, top, random = outcomes(0, 0)
    random[: DRAWS // 2, 2] = False
    wide = analyse_ablation(clean, top, random, GROUPS, KS, TASKS, n_resamples=500).points[2]
    assert wide.random_change.value == pytest.approx(-50)
    assert wide.random_change.high - wide.random_change.low > 30
    assert wide.random_range == (-100, 0)


def test_tasks_are_analysed_alone() -> None:
    clean, top, random = outcomes(0, 0)
    top[2, TASKS == "b"] = False
    found = analyse_ablation(clean, top, random, GROUPS, KS, TASKS, n_resamples=200)
    assert found.task_points["b"][2].change.value == pytest.approx(-100)
    assert found.task_points["a"][2].change.value == 0
    frame = found.to_frame()
    assert frame["task"].unique().tolist() == ["all", "a", "b", "c"]
    assert len(frame) == 12


def test_a_task_of_one_image_is_left_out() -> None:
    tasks = np.where(GROUPS == 0, "rare", "common")
    found = analyse_ablation(*outcomes(6, 3), GROUPS, KS, tasks, n_resamples=100)
    assert list(found.task_points) == ["common"]


@given(top_loss=st.integers(0, N), random_loss=st.integers(0, N))
def test_bounds(top_loss: int, random_loss: int) -> None:
    found = analyse_ablation(
        *outcomes(top_loss, random_loss), GROUPS, KS, TASKS, n_resamples=50, least_draws=1
    )
    for point in found.points[1:]:
        assert 1 / 21 <= point.excess_p <= 1
        assert point.excess_q >= point.excess_p
        assert point.random_change.low <= point.random_change.value + 1e-9
        assert point.excess.value == pytest.approx(point.change.value - point.random_change.value)


@pytest.mark.parametrize(
    ("d", "ks"),
    [
        (2, (0, 1)),
        (3, (0, 1)),
        (20, (0, 1, 2, 5, 10)),
        (96, (0, 1, 2, 5, 10, 20, 48)),
        (4096, (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 2048)),
    ],
)
def test_default_ks(d: int, ks: tuple[int, ...]) -> None:
    assert default_ks(d) == ks


@given(d=st.integers(2, 100_000))
def test_default_ks_ascend_to_half(d: int) -> None:
    ks = default_ks(d)
    assert ks[0] == 0
    assert ks[-1] == d // 2
    assert all(a < b for a, b in itertools.pairwise(ks))


def test_errors() -> None:
    clean, top, random = outcomes(3, 3)
    with pytest.raises(ShapeError, match="random of shape"):
        analyse_ablation(clean, top, random[:, :2], GROUPS, KS, TASKS)
    with pytest.raises(ShapeError, match="booleans"):
        analyse_ablation(clean.astype(float), top, random, GROUPS, KS, TASKS)
    with pytest.raises(ShapeError, match="groups"):
        analyse_ablation(clean, top, random, GROUPS[:-1], KS, TASKS)
    with pytest.raises(InputError, match="ascending"):
        analyse_ablation(clean, top, random, GROUPS, (0, 5, 1), TASKS)
    top[0, 3] = False
    with pytest.raises(InputError, match="1 outcomes differ from the clean run"):
        analyse_ablation(clean, top, random, GROUPS, KS, TASKS)
    with pytest.raises(InputError, match="at least 2 units"):
        default_ks(1)
