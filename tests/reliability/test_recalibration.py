"""Recalibration: known maps recovered, what scikit-learn gives, files, refusals."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax
from sklearn.isotonic import IsotonicRegression

from mechvrp.errors import DataError, InputError, NumericalError
from mechvrp.reliability import (
    IsotonicCalibration,
    PlattScaling,
    TemperatureScaling,
    expected_calibration_error,
    load_recalibration,
)


def drawn(n=4000, seed=0, slope=0.5, shift=0.0):
    """Confidences whose log-odds times ``slope`` plus ``shift`` are the true ones."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0.5, 2, n)
    return expit(log_odds), rng.random(n) < expit(slope * log_odds + shift)


def test_the_temperature_is_found():
    confidence, correct = drawn(20_000)
    found = TemperatureScaling.fit(confidence, correct)
    assert found.temperature == pytest.approx(2, abs=0.1)
    fresh, truth = drawn(4000, seed=1)
    assert expected_calibration_error(fresh, truth) > 0.08
    assert expected_calibration_error(found(fresh), truth) < 0.03
    np.testing.assert_allclose(logit(found(fresh)), logit(fresh) / found.temperature)


def test_the_temperature_of_logits_is_the_best_of_a_grid():
    rng = np.random.default_rng(2)
    true = rng.normal(0, 2, (3000, 4))
    targets = np.array([rng.choice(4, p=p) for p in softmax(true, axis=1)])
    found = TemperatureScaling.fit_logits(3 * true, targets)
    assert found.temperature == pytest.approx(3, abs=0.2)

    def loss(t):
        p = TemperatureScaling(t).probabilities(3 * true)
        return -np.log(p[np.arange(3000), targets]).mean()

    assert all(loss(found.temperature) <= loss(t) for t in np.geomspace(0.1, 30, 60))
    np.testing.assert_allclose(found.probabilities(3 * true).sum(axis=1), 1)


def test_two_classes_are_a_binary_confidence():
    confidence, correct = drawn(500)
    logits = np.stack([np.zeros(500), logit(confidence)], axis=1)
    by_logits = TemperatureScaling.fit_logits(logits, correct.astype(int))
    by_confidence = TemperatureScaling.fit(confidence, correct)
    assert by_logits.temperature == pytest.approx(by_confidence.temperature, rel=1e-3)


def test_platt_finds_slope_and_shift():
    confidence, correct = drawn(20_000, slope=0.5, shift=-0.7)
    found = PlattScaling.fit(confidence, correct)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.intercept == pytest.approx(-0.7, abs=0.06)
    # The maximum of a smoothed likelihood: residuals sum to 0.
    n, right = 20_000, correct.sum()
    target = np.where(correct, (right + 1) / (right + 2), 1 / (n - right + 2))
    assert (found(confidence) - target).mean() == pytest.approx(0, abs=1e-6)


def test_platt_has_a_fit_where_the_confidence_separates():
    found = PlattScaling.fit([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
    assert np.isfinite([found.slope, found.intercept]).all()
    assert found([0.9])[0] == pytest.approx(0.75, abs=0.1)  # (2 + 1) / (2 + 2)


def test_isotonic_is_scikit_learns():
    confidence, correct = drawn(600)
    found = IsotonicCalibration.fit(confidence, correct)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct)
    fresh = np.linspace(0, 1, 201)
    np.testing.assert_allclose(found(fresh), theirs.predict(fresh), atol=1e-12)
    assert (np.diff(found(fresh)) >= 0).all()
    assert expected_calibration_error(found(confidence), correct) < 1e-6


@pytest.mark.parametrize("kind", [TemperatureScaling, PlattScaling, IsotonicCalibration])
def test_files(kind, tmp_path):
    confidence, correct = drawn(300)
    found = kind.fit(confidence, correct)
    found.save(tmp_path / "map.json")
    again = load_recalibration(tmp_path / "map.json")
    assert again == found
    np.testing.assert_array_equal(again(confidence), found(confidence))
    assert json.loads((tmp_path / "map.json").read_text())["kind"] == kind.kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[1]", "format 1"),
        ('{"format": 2}', "format 1"),
        ('{"format": 1, "kind": "beta"}', "kind 'beta'"),
        ('{"format": 1, "kind": "temperature"}', "numbers of 'temperature'"),
        ('{"format": 1, "kind": "temperature", "temperature": -1}', "above 0"),
        ('{"format": 1, "kind": "temperature", "temperature": "x"}', "numbers of"),
        ('{"format": 1, "kind": "isotonic", "confidence": [1, 0], "accuracy": [0, 1]}', "rising"),
        ('{"format": 1, "kind": "isotonic", "confidence": [0, 2], "accuracy": [0, 1]}', "0 to 1"),
        (
            '{"format": 1, "kind": "isotonic", "confidence": [[0, 1]], "accuracy": [[0, 1]]}',
            "no num",
        ),
        ('{"format": 1, "kind": ["isotonic"]}', "of kind"),
        ('{"format": 1, "kind": "platt", "slope": 0.7, "intercept": [0, 1]}', "is no number"),
        ('{"format": true, "kind": "temperature", "temperature": 1}', "format 1"),
    ],
)
def test_damaged_files(text, message, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_recalibration(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_recalibration(tmp_path / "absent.json")


@given(st.floats(0.05, 20), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_temperature_keeps_order_and_sides(temperature, confidence):
    values = np.array(confidence)
    out = TemperatureScaling(temperature)(values)
    order = np.argsort(values, kind="stable")
    assert (np.diff(out[order]) >= 0).all()
    assert (((out > 0.5) == (values > 0.5)) | np.isclose(values, 0.5)).all()
    assert ((out >= 0) & (out <= 1)).all()


def test_confidences_of_exactly_one_stay_finite():
    confidence = np.r_[np.ones(50), np.full(50, 0.6)]
    correct = np.r_[np.ones(45), np.zeros(5), np.ones(30), np.zeros(20)]
    found = TemperatureScaling.fit(confidence, correct)
    assert np.isfinite(found.temperature)
    assert found([1.0])[0] < 1


def test_what_cannot_be_fitted():
    for kind in (TemperatureScaling, PlattScaling, IsotonicCalibration):
        with pytest.raises(InputError, match="both classes"):
            kind.fit([0.5, 0.6], [1, 1])
        with pytest.raises(NumericalError):
            kind.fit([0.5, np.nan], [1, 0])
        with pytest.raises(InputError, match="0 to 1"):
            kind.fit([0.5, -3], [1, 0])
    with pytest.raises(InputError, match="no temperature .* separate"):
        TemperatureScaling.fit([0.9, 0.8, 0.2], [1, 1, 0])
    with pytest.raises(InputError, match="no temperature"):  # surer where it is wrong
        TemperatureScaling.fit([0.9, 0.8, 0.2], [0, 0, 1])
    with pytest.raises(InputError, match="the same at all"):
        TemperatureScaling.fit([0.5, 0.5, 0.5], [1, 0, 1])
    with pytest.raises(InputError, match="at least 2 classes"):
        TemperatureScaling.fit_logits([[1.0], [2.0]], [0, 0])
    with pytest.raises(InputError, match="targets run from 0 to 2; there are 2 classes"):
        TemperatureScaling.fit_logits([[1.0, 0], [2.0, 1]], [0, 2])
    with pytest.raises(InputError, match=r"targets are whole numbers \[2\]"):
        TemperatureScaling.fit_logits([[1.0, 0], [2.0, 1]], [0.0, 1.0])
    with pytest.raises(NumericalError):
        TemperatureScaling.fit_logits([[1.0, np.nan], [2.0, 1]], [0, 1])
    with pytest.raises(InputError, match="0 to 1"):
        TemperatureScaling(2.0)([1.5])
