"""The Brier score's parts: by hand, and that they are all of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import decompose_brier, measure_calibration

PARTS = ("brier", "reliability", "resolution", "uncertainty", "residual")


def test_by_hand():
    confidence = [0.9, 0.9, 0.9, 0.9, 0.6, 0.6]
    correct = [1, 1, 1, 0, 0, 1]
    found = decompose_brier(confidence, correct)
    assert found.reliability.value == pytest.approx((4 * 0.15**2 + 2 * 0.1**2) / 6)
    assert found.resolution.value == pytest.approx((4 * (1 / 12) ** 2 + 2 * (1 / 6) ** 2) / 6)
    assert found.uncertainty.value == pytest.approx(4 / 6 * 2 / 6)
    assert found.residual.value == pytest.approx(0)  # one confidence in each bin
    assert found.bins == 2
    assert found.brier.value == pytest.approx(brier_score_loss(correct, confidence))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40),
    st.integers(1, 12),
    st.sampled_from(["width", "mass"]),
)
def test_the_parts_are_the_whole(rows, bins, binning):
    confidence, correct = (np.array(column) for column in zip(*rows, strict=True))
    found = decompose_brier(confidence, correct, bins=bins, binning=binning, n_resamples=25)
    brier, reliability, resolution, uncertainty, residual = (
        getattr(found, part).value for part in PARTS
    )
    assert brier == pytest.approx(np.mean((confidence - correct) ** 2), abs=1e-12)
    assert reliability - resolution + uncertainty + residual == pytest.approx(brier, abs=1e-12)
    assert reliability >= 0
    assert -1e-12 <= resolution <= uncertainty + 1e-12
    assert uncertainty <= 0.25


def test_what_the_parts_mean():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 1, 4000)
    correct = rng.random(4000) < p
    calibrated = decompose_brier(p, correct)
    assert calibrated.reliability.value < 0.002
    assert calibrated.resolution.low > 0.03
    shy = decompose_brier(0.5 + (p - 0.6) / 4, correct)
    assert shy.reliability.low > 0.02
    constant = decompose_brier(np.full(4000, correct.mean()), correct)
    assert constant.resolution.value == constant.reliability.value == pytest.approx(0)
    assert constant.brier.value == pytest.approx(constant.uncertainty.value)


def test_intervals_resample_images():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=150)
    correct = rng.random(150) < p
    one = decompose_brier(p, correct)
    sixfold = decompose_brier(np.repeat(p, 6), np.repeat(correct, 6), np.repeat(np.arange(150), 6))
    for part in PARTS:
        a, b = getattr(one, part), getattr(sixfold, part)
        assert b.n_groups == 150
        assert (a.low, a.value, a.high) == pytest.approx((b.low, b.value, b.high))
    assert one.brier == measure_calibration(p, correct).brier


def test_what_is_no_confidence_is_refused():
    with pytest.raises(InputError, match="0 to 1"):
        decompose_brier([1.5, 0.5], [0, 1])
    with pytest.raises(NumericalError, match="NaN"):
        decompose_brier([np.nan, 0.5], [0, 1])
