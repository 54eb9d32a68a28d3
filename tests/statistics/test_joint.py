"""The joint test of equal figures in several models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics import auroc, joint_equality, point_biserial_interval


def models(seed: int, slopes: tuple[float, ...], images: int = 60, shared: float = 0.8):
    """One row an image and model: signals and labels of an image agree between models."""
    rng = np.random.default_rng(seed)
    common, hard = rng.normal(size=images), rng.normal(size=images)
    parts = []
    for i, slope in enumerate(slopes):
        noise = np.sqrt(1 - shared**2)
        signal = shared * common + noise * rng.normal(size=images)
        right = slope * signal + shared * hard + noise * rng.normal(size=images) > 0
        parts.append(
            (
                signal,
                right,
                np.full(images, f"model {i}"),
                np.char.zfill(np.arange(images).astype(str), 3),
            )
        )
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def test_the_values_are_each_models_own():
    signal, right, model, image = models(0, (1.0, 0.2, 0.0))
    found = joint_equality(signal, right, model, image, n_resamples=200)
    areas = joint_equality(signal, right, model, image, measure="auroc", n_resamples=200)
    for name in found.values:
        rows = model == name
        own = point_biserial_interval(signal[rows], right[rows], n_resamples=100).value
        assert found.values[name] == pytest.approx(own)
        assert areas.values[name] == pytest.approx(auroc(signal[rows], right[rows]))
    assert found.n_groups == 60
    assert found.n_left_out == 0


def test_it_is_hotellings_test_of_resampled_differences():
    signal, right, model, image = models(1, (1.0, 0.0))
    found = joint_equality(signal, right, model, image, n_resamples=400, seed=3)
    first, second = (model == name for name in ("model 0", "model 1"))
    rng = np.random.default_rng(3)
    counts = rng.multinomial(60, np.full(60, 1 / 60), size=400)
    z = []
    for count in counts:
        rows = np.repeat(np.arange(60), count)
        z.append(
            [
                np.arctanh(np.corrcoef(signal[m][rows], right[m][rows])[0, 1])
                for m in (first, second)
            ]
        )
    difference = np.arctanh(found.values["model 1"]) - np.arctanh(found.values["model 0"])
    statistic = difference**2 / np.var(np.diff(z, axis=1), ddof=1)
    assert found.statistic == pytest.approx(statistic, rel=1e-6)
    assert found.p_value == pytest.approx(f.sf(statistic, 1, 59), rel=1e-6)


def test_it_keeps_its_level_where_models_share_images():
    p = [
        joint_equality(
            *models(seed, (0.7, 0.7, 0.7), images=80), n_resamples=200, seed=seed
        ).p_value
        for seed in range(300)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.085  # 0.05 and 2.8 standard errors
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_it_finds_a_difference():
    assert joint_equality(*models(5, (2.0, -2.0)), n_resamples=400).p_value < 1e-4


def test_what_it_refuses():
    signal, right, model, image = models(0, (1.0, 0.0))
    with pytest.raises(InputError, match="two at least"):
        joint_equality(signal, right, np.full(120, "one"), image)
    with pytest.raises(InputError, match="'r' or 'auroc'"):
        joint_equality(signal, right, model, image, measure="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 200, got 50"):
        joint_equality(signal, right, model, image, n_resamples=50)
    with pytest.raises(InputError, match="too few to compare"):
        joint_equality(signal[:3], right[:3] | True, ["a", "b", "b"], ["1", "2", "3"])
    with pytest.raises(NumericalError):
        joint_equality(np.where(signal > 2, np.nan, signal), right, model, image)
    perfect = np.where(model == "model 0", right, signal)
    with pytest.raises(InputError, match="end of its range"):
        joint_equality(perfect, right, model, image, measure="auroc")


def test_r_needs_answers_of_both_kinds():
    signal, _, model, image = models(0, (1.0, 0.0))
    rare = np.tile(np.arange(60) >= 19, 2)
    rare[60 + 19] = False  # 19 wrong in the first, 20 in the second
    with pytest.raises(InputError, match="'model 0' has 19 rows of the rarer label.*needs 20"):
        joint_equality(signal, rare, model, image)
    assert 0 <= joint_equality(signal, rare, model, image, measure="auroc").p_value <= 1
    with pytest.raises(InputError, match="has 19 rows"):  # of right answers likewise
        joint_equality(signal, ~rare, model, image)
    rare[19] = False
    assert 0 <= joint_equality(signal, rare, model, image).p_value <= 1


def test_the_same_rows_twice_are_refused():
    signal, right, _, image = models(0, (1.0,))
    twice = [np.concatenate([v, v]) for v in (signal, right)]
    names = np.repeat(["a", "b"], 60)
    with pytest.raises(NumericalError, match="same rows twice"):
        joint_equality(*twice, names, np.concatenate([image, image]))
