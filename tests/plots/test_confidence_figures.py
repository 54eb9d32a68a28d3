"""Reliability diagrams, risk over coverage, ROC curves with bands."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve

from mechvrp.errors import InputError
from mechvrp.plots import reliability_diagram, risk_coverage, roc_curves
from mechvrp.reliability import measure_calibration, measure_selective_risk, reliability_table
from mechvrp.statistics import accuracy_interval, auroc_interval, roc_band

FEW = {"n_resamples": 300}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 1, 300).round(2)
    correct = (rng.random(300) < confidence).astype(int)
    return confidence, correct, np.repeat(np.arange(100), 3).astype(str)


def test_reliability_diagram_has_every_bin_with_its_interval(data):
    confidence, correct, images = data
    found = measure_calibration(*data, **FEW)
    figure = found.plot()
    diagonal, line, bars = figure.data
    assert list(diagonal.x) == list(diagonal.y) == [0, 1]
    table = reliability_table(confidence, correct)
    assert list(line.x) == table["confidence"].tolist()
    assert list(line.y) == table["accuracy"].tolist()
    assert list(bars.y) == table["n"].tolist()
    assert sum(bars.y) == 300
    inside = (confidence >= 0.5) & (confidence < 0.6)
    exact = accuracy_interval(correct[inside], images[inside], **FEW)
    row = int(np.flatnonzero(table["low"] >= 0.5)[0])
    assert line.error_y.array[row] == pytest.approx(exact.high - exact.value)
    assert line.error_y.arrayminus[row] == pytest.approx(exact.value - exact.low)
    caption = figure.layout.xaxis2.title.text
    assert "n = 300 examples of 100 images" in caption
    assert f"ECE {found.ece_width.value:.3f} [{found.ece_width.low:.3f}, " in caption
    assert f"below {found.ece_width_if_calibrated:.3f}" in caption


def test_a_bin_of_one_image_has_no_interval():
    found = measure_calibration([0.1, 0.9, 0.9, 0.9], [0, 1, 1, 0], ["a", "b", "c", "d"], **FEW)
    assert found.table["images"].tolist() == [1, 3]
    assert found.table["accuracy_low"].isna().tolist() == [True, False]
    assert "no bar: the bin holds one image" in found.plot().layout.xaxis2.title.text


def test_risk_coverage_is_the_curve_with_its_table(data):
    found = measure_selective_risk(*data, **FEW)
    figure = found.plot()
    low, high, curve, points = figure.data
    np.testing.assert_allclose(curve.y, 100 * found.curve["risk"])
    np.testing.assert_allclose(curve.x, 100 * found.curve["coverage"])
    np.testing.assert_allclose(points.y, 100 * found.table["risk"])
    np.testing.assert_allclose(low.y, 100 * found.band["low"])
    np.testing.assert_allclose(high.y, 100 * found.band["high"])
    assert high.fill == "tonexty"
    # The band is the table's interval where both are given.
    both = found.band.merge(found.table, on="coverage", suffixes=("", "_of_table"))
    assert len(both) == len(found.table)
    for end in ("low", "risk", "high"):
        np.testing.assert_allclose(both[end], both[f"{end}_of_table"])
    assert f"AURC {found.aurc.value:.3f} [{found.aurc.low:.3f}, " in curve.name
    assert "n = 300 examples of 100 images" in figure.layout.xaxis.title.text
    assert figure.layout.shapes[0].y0 == pytest.approx(100 * (1 - data[1].mean()))


def test_roc_band_is_scikit_learns_curve_with_a_band_around_it(data):
    confidence, correct, _ = data
    found = roc_band(*data, **FEW)
    x, y, _ = roc_curve(correct, confidence, drop_intermediate=False)
    np.testing.assert_allclose(found.curve, np.stack([x, y], axis=-1))
    assert auc(*found.curve.T) == pytest.approx(found.area.value)
    assert found.area == auroc_interval(*data, **FEW)
    middle = np.interp(found.rates, x[np.r_[np.diff(x) > 0, True]], y[np.r_[np.diff(x) > 0, True]])
    inside = (found.low <= middle + 1e-9) & (middle <= found.high + 1e-9)
    assert inside.mean() > 0.95
    assert (np.diff(found.low) >= -1e-9).all()
    assert (found.n_positive, found.n_negative) == (correct.sum(), 300 - correct.sum())
    figure = roc_curves({"<b>": found})
    low, high, curve = figure.data[1:]
    np.testing.assert_allclose(low.y, 100 * found.low)
    np.testing.assert_allclose(high.y, 100 * found.high)
    assert high.fill == "tonexty"
    np.testing.assert_allclose(curve.y, 100 * y)
    assert curve.name.startswith("&lt;b&gt;<br>AUROC ")
    assert f"[{found.area.low:.3f}, {found.area.high:.3f}]" in curve.name
    caption = figure.layout.xaxis.title.text
    assert "n = 300 examples of 100 images" in caption
    assert "95 % interval" in caption


def test_the_band_resamples_images_not_rows(data):
    """Ten copies of each row are no more data, as long as copies share their image."""
    confidence, correct, _ = data
    ids = np.arange(300)
    alone = roc_band(confidence, correct, ids, **FEW)
    copied = roc_band(*(np.repeat(v, 10) for v in (confidence, correct, ids)), **FEW)
    np.testing.assert_allclose(copied.low, alone.low)
    np.testing.assert_allclose(copied.high, alone.high)
    wrong = roc_band(*(np.repeat(v, 10) for v in (confidence, correct)), **FEW)
    assert (wrong.high - wrong.low).mean() < 0.6 * (alone.high - alone.low).mean()


def test_roc_band_of_separated_classes_says_that_there_is_none():
    found = roc_band([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], **FEW)
    assert found.low is None
    (_, curve) = roc_curves(found).data
    assert "no band" in curve.name
    for labels, message in (([1, 1, 1, 1], "both classes"), ([0, 1], "shape")):
        with pytest.raises(InputError, match=message):
            roc_band([0.1, 0.2, 0.8, 0.9], labels)
    with pytest.raises(InputError, match="points"):
        roc_band([0.1, 0.2, 0.8], [0, 1, 0], points=1)


def test_few_images_of_a_class_are_refused():
    with pytest.raises(InputError, match="images"):
        roc_band([0.1, 0.2, 0.3, 0.2], [0, 1, 0, 1], ["a", "b", "a", "b"], n_resamples=200)


@pytest.mark.parametrize("draw", [reliability_diagram, risk_coverage, roc_curves])
def test_other_results_are_refused(draw):
    with pytest.raises(InputError, match="nothing to draw"):
        draw({})
    with pytest.raises(InputError, match="got str"):
        draw("x")


def test_a_table_without_intervals_is_refused(data):
    from dataclasses import replace

    found = measure_calibration(*data, **FEW)
    with pytest.raises(InputError, match="measure_calibration"):
        reliability_diagram(replace(found, table=reliability_table(*data[:2])))
