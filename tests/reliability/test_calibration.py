"""Calibration: known answers, scikit-learn's own where it has them, and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import expected_calibration_error, measure_calibration, reliability_table


def drawn(n=2000, seed=0, shift=0.0):
    """Confidences, and answers that are right with that probability minus ``shift``."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1.0, n)
    return confidence, rng.random(n) < confidence - shift


def test_ece_by_hand():
    confidence = [0.95, 0.95, 0.95, 0.95, 0.55, 0.55]
    correct = [1, 1, 1, 0, 0, 1]
    # bins of width 0.1: |3/4 - 0.95| * 4/6 + |1/2 - 0.55| * 2/6
    assert expected_calibration_error(confidence, correct) == pytest.approx(
        0.2 * 4 / 6 + 0.05 * 2 / 6
    )
    # halves by mass: the median of these is 0.95, so the same two bins
    assert expected_calibration_error(confidence, correct, bins=2, binning="mass") == pytest.approx(
        0.2 * 4 / 6 + 0.05 * 2 / 6
    )
    assert expected_calibration_error([1.0, 1.0, 0.0], [1, 1, 0]) == 0
    assert expected_calibration_error([1.0, 1.0], [0, 0]) == 1


def test_confidences_on_an_edge_fall_into_the_bin_above():
    table = reliability_table([0.1, 0.2, 0.3, 0.30000000000000004, 0.6, 0.7, 1.0], [1] * 7)
    assert table["n"].tolist() == [1, 1, 2, 1, 1, 1]


def test_reliability_table_is_scikit_learns_curve():
    confidence, correct = drawn()
    table = reliability_table(confidence, correct)
    share, mean = calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose(table["accuracy"], share)
    np.testing.assert_allclose(table["confidence"], mean)
    assert table["n"].sum() == 2000
    assert np.ptp(reliability_table(confidence, correct, binning="mass")["n"]) <= 1


def test_calibrated_answers_have_no_gap_and_overconfident_ones_do():
    found = measure_calibration(*drawn(), seed=0, n_resamples=500)
    assert found.gap.low < 0 < found.gap.high
    assert found.ece_width.value < 0.05
    assert found.ece_width.value < found.ece_width_if_calibrated < 0.06
    assert found.ece_mass.value < found.ece_mass_if_calibrated < 0.06
    over = measure_calibration(*drawn(shift=0.2), seed=0, n_resamples=500)
    assert over.gap.low > 0.1
    assert over.ece_width.value > 2 * over.ece_width_if_calibrated
    assert over.ece_width.value == pytest.approx(0.2, abs=0.03)
    assert over.ece_mass.value == pytest.approx(0.2, abs=0.03)


def test_brier_is_scikit_learns():
    confidence, correct = drawn(300, seed=3)
    found = measure_calibration(confidence, correct)
    assert found.brier.value == pytest.approx(brier_score_loss(correct, confidence))
    assert found.ece_width.value == pytest.approx(expected_calibration_error(confidence, correct))


def test_intervals_resample_images():
    confidence, correct = drawn(200, seed=1)
    single = measure_calibration(confidence, correct)
    fivefold = measure_calibration(
        np.repeat(confidence, 5), np.repeat(correct, 5), np.repeat(np.arange(200), 5)
    )
    assert fivefold.gap.n_groups == 200
    for name in ("brier", "gap"):
        a, b = getattr(single, name), getattr(fivefold, name)
        assert b.value == pytest.approx(a.value)
        assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.15)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 20),
    st.sampled_from(["width", "mass"]),
)
def test_ece_bounds(rows, bins, binning):
    confidence, correct = (np.array(column) for column in zip(*rows, strict=True))
    ece = expected_calibration_error(confidence, correct, bins=bins, binning=binning)
    gap = abs(confidence.mean() - correct.mean())
    assert gap - 1e-9 <= ece <= np.abs(confidence - correct).mean() + 1e-9


def test_what_is_no_confidence_is_refused():
    with pytest.raises(InputError, match="0 to 1"):
        expected_calibration_error([-0.2, 0.5], [0, 1])
    with pytest.raises(NumericalError, match="NaN"):
        expected_calibration_error([np.nan, 0.5], [0, 1])
    with pytest.raises(InputError, match="one length"):
        expected_calibration_error([0.5], [0, 1])
    with pytest.raises(InputError, match="one length"):
        expected_calibration_error([], [])
    with pytest.raises(InputError, match="0 and 1"):
        expected_calibration_error([0.5, 0.5], [0, 2])
    with pytest.raises(InputError, match="width"):
        expected_calibration_error([0.5], [1], binning="quantile")
    with pytest.raises(InputError, match="bins"):
        expected_calibration_error([0.5], [1], bins=0)
