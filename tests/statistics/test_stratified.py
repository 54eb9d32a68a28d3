"""Pooling rows of several models: within each model only, images in all of them at once."""

import numpy as np
import pytest

import mechvrp.statistics as ms
from mechvrp.errors import InputError, NumericalError


def shown_to_three(rng, n=150, effect=0.8):
    """Signals and correctness of three models on the same images, of different accuracy and scale."""
    images = np.tile(np.arange(n), 3)
    models = np.repeat(["a", "b", "c"], n)
    level = np.repeat([0.0, 1.0, 2.0], n)
    labels = rng.random(3 * n) < 0.5 + 0.15 * level
    signal = (effect * labels + rng.normal(size=3 * n)) * (1 + level) + 50 * level
    return signal, labels, models, images


def test_a_signal_that_only_knows_the_model_earns_nothing():
    _, labels, models, images = shown_to_three(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    signal = np.where(models == "a", 0, np.where(models == "b", 10, 20)) + rng.normal(size=450)
    assert ms.point_biserial_interval(signal, labels, images).low > 0.1
    assert ms.auroc_interval(signal, labels, images).low > 0.55
    r = ms.stratified_point_biserial(signal, labels, models, images)
    assert r.low < 0 < r.high
    area = ms.stratified_auroc(signal, labels, models, images)
    assert area.low < 0.5 < area.high


def test_it_is_the_mean_of_the_models_own():
    signal, labels, models, images = shown_to_three(np.random.default_rng(2))
    keep = np.random.default_rng(3).random(450) < np.where(models == "a", 1.0, 0.6)
    signal, labels, models, images = (x[keep] for x in (signal, labels, models, images))
    own, rows = [], []
    for name in "abc":
        inside = models == name
        own.append(ms.point_biserial_interval(signal[inside], labels[inside]).value)
        rows.append(inside.sum())
    found = ms.stratified_point_biserial(signal, labels, models, images)
    assert found.value == pytest.approx(np.average(own, weights=rows))
    assert found.n_groups == len(np.unique(images))


def test_one_model_is_the_plain_statistic():
    signal, labels, models, images = (x[:150] for x in shown_to_three(np.random.default_rng(4)))
    found = ms.stratified_point_biserial(signal, labels, models, images)
    plain = ms.point_biserial_interval(signal, labels, images)
    assert (found.low, found.value, found.high) == pytest.approx(
        (plain.low, plain.value, plain.high)
    )
    assert ms.stratified_auroc(signal, labels, models, images) == ms.auroc_interval(
        signal, labels, images
    )


def test_a_models_scale_does_not_matter():
    signal, labels, models, images = shown_to_three(np.random.default_rng(5))
    scaled = np.where(models == "b", 1000 + 7 * signal, signal)
    for function in (ms.stratified_point_biserial, ms.stratified_auroc):
        one = function(signal, labels, models, images)
        other = function(scaled, labels, models, images)
        assert (one.low, one.value, one.high) == pytest.approx((other.low, other.value, other.high))


@pytest.mark.parametrize("function", [ms.stratified_point_biserial, ms.stratified_auroc])
def test_the_same_images_in_three_models_are_not_three_times_the_data(function):
    signal, labels, _, images = (x[:150] for x in shown_to_three(np.random.default_rng(6)))
    one = function(signal, labels, np.zeros(150), images)
    thrice = [np.tile(x, 3) for x in (signal, labels)]
    models = np.repeat([0, 1, 2], 150)
    shared = function(*thrice, models, np.tile(images, 3))
    assert shared.high - shared.low == pytest.approx(one.high - one.low, rel=1e-6)
    apart = function(*thrice, models, np.arange(450))
    assert apart.high - apart.low < 0.75 * (one.high - one.low)


def test_models_without_a_comparison_are_named():
    signal, labels, models, images = shown_to_three(np.random.default_rng(7))
    for function in (ms.stratified_point_biserial, ms.stratified_auroc):
        with pytest.raises(InputError, match="all 150 labels of model 'b' are 1"):
            function(signal, labels | (models == "b"), models, images)
        with pytest.raises(NumericalError):
            function(np.where(images == 0, np.nan, signal), labels, models, images)
    with pytest.raises(InputError, match="all 150 values of model 'c' are 5.0"):
        ms.stratified_point_biserial(np.where(models == "c", 5.0, signal), labels, models, images)
