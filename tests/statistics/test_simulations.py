"""Levels by simulation where six questions share an image: intervals by image keep theirs.

All seeded, so each passes or fails for good. The quick ones reject a wrong method with wide margins;
the slow ones hold intervals to 93 to 97 %.
"""

import math

import numpy as np
import pytest
from scipy import stats

import mechvrp.statistics as ms

SIZE = 6


def normals(rng, n_images, share):
    """``[n_images * 6]`` standard normals, ``share`` of whose variance is common to an image."""
    common, own = rng.normal(size=(n_images, 1)), rng.normal(size=(n_images, SIZE))
    return (math.sqrt(share) * common + math.sqrt(1 - share) * own).ravel()


def answers(rng, n_images=80, share=0.7, accuracy=0.7, effect=0.0):
    """A signal, labels and images; signal and labels each alike within an image."""
    labels = normals(rng, n_images, share) < stats.norm.ppf(accuracy)
    signal = effect * labels + normals(rng, n_images, share)
    return signal, labels, np.repeat(np.arange(n_images), SIZE)


def coverage(interval, truth, draw, n, **settings):
    held = 0
    for seed in range(n):
        found = interval(*draw(np.random.default_rng(seed)), seed=seed, **settings)
        held += found.low <= truth <= found.high
    return held / n


def rows_alone(interval):
    """The same interval, not told which rows share an image."""

    def ungrouped(*data, **settings):
        return interval(*data[:-1], None, **settings)

    return ungrouped


def two_models(rng):
    """Two models on the same images; their answers are alike, and their signals."""
    signal, labels, images = answers(rng, effect=0.8)
    other = 0.8 * labels + 0.8 * (signal - 0.8 * labels) + 0.6 * rng.normal(size=len(labels))
    models = np.repeat(["a", "b"], len(labels))
    return np.r_[signal, 5 + 3 * other], np.r_[labels, labels], models, np.r_[images, images]


def two_signals(rng):
    """Two signals of one AUROC, each with an error of its own that an image's questions share."""
    first, labels, images = answers(rng, effect=1.0)
    return first, labels + normals(rng, 80, 0.7), labels, images


R_EFFECT = 0.8 * math.sqrt(0.21) / math.sqrt(1 + 0.64 * 0.21)

CASES = {
    "auroc": (
        ms.auroc_interval,
        stats.norm.cdf(1 / math.sqrt(2)),
        lambda rng: answers(rng, effect=1.0),
    ),
    "point-biserial": (ms.point_biserial_interval, 0.0, answers),
    "accuracy": (ms.accuracy_interval, 0.7, lambda rng: answers(rng)[1:]),
    "lead": (ms.auroc_lead, 0.0, two_signals),
    "stratified R": (ms.stratified_point_biserial, R_EFFECT, two_models),
    "stratified AUROC": (ms.stratified_auroc, stats.norm.cdf(0.8 / math.sqrt(2)), two_models),
}


@pytest.mark.parametrize("name", CASES)
def test_resampling_images_is_honest_and_resampling_rows_is_not(name):
    interval, truth, draw = CASES[name]
    # A share of 150 has a standard error of 1.8 points at 95 %, and of 3.3 at 80 %.
    assert coverage(interval, truth, draw, 150, n_resamples=150) > 0.88
    assert coverage(rows_alone(interval), truth, draw, 150, n_resamples=150) < 0.86


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_95_percent_intervals_cover_93_to_97_percent(name):
    interval, truth, draw = CASES[name]
    # A share of 1000 has a standard error of 0.7 points.
    assert 0.93 <= coverage(interval, truth, draw, 1000, n_resamples=400) <= 0.97


def null_p_values(n, *, grouped, n_permutations):
    """Sign-flip p-values where before and after are exchangeable for whole images."""
    p = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        before = normals(rng, 40, 0.7) < 0.5
        after = normals(rng, 40, 0.7) < 0.5
        groups = np.repeat(np.arange(40), SIZE) if grouped else None
        found = ms.paired_accuracy_change(
            before, after, groups, n_permutations=n_permutations, n_resamples=40, seed=seed
        )
        p.append(found.p_value)
    return np.array(p)


def test_sign_flips_of_images_are_valid_and_those_of_rows_are_not():
    by_image = null_p_values(300, grouped=True, n_permutations=199)
    for level in (0.01, 0.05, 0.1, 0.5):
        assert np.mean(by_image <= level) <= level + 3.5 * math.sqrt(level / 300)
    assert np.mean(by_image <= 0.5) > 0.35  # and not by never rejecting
    assert np.mean(null_p_values(300, grouped=False, n_permutations=199) <= 0.05) > 0.12


@pytest.mark.slow
def test_sign_flips_are_valid_in_many_simulations():
    p = null_p_values(8000, grouped=True, n_permutations=399)
    for level in (0.01, 0.05, 0.1, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 3 * math.sqrt(level * (1 - level) / 8000)
