"""DeLong's interval of an AUROC and test of a difference, for one question an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.checks import check_level, require_both, require_one_row_each, scored
from mechvrp.statistics.estimate import Estimate

__all__ = ["DeLongTest", "delong_interval", "delong_test"]

Scale = Literal["logit", "linear"]


@dataclass(frozen=True, slots=True)
class DeLongTest:
    """The difference of two AUROCs of the same rows.

    Attributes:
        difference: AUROC of the first score minus that of the second, with its interval.
        z: the difference over its standard error.
        p_value: two-sided, of there being no difference.
    """

    difference: Estimate
    z: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.difference}, p = {self.p_value:.3g}"


def delong_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None,
    *,
    level: float = 0.95,
    scale: Scale = "logit",
) -> Estimate:
    """AUROC with DeLong's interval.

    The variance is that of DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44, 837-845),
    from mid-ranks (Sun and Xu 2014, IEEE Signal Process. Lett. 21, 1389-1393). It takes rows as
    independent, so data in which an image has several questions are refused.

    Args:
        scores: ``[n]``, higher for positives.
        labels: ``[n]``, 0 or 1, at least two of each.
        groups: ``[n]`` image of each row, to be sure that none occurs twice; ``None`` says so.
        level: nominal coverage in (0, 1).
        scale: the interval is symmetric on the ``"logit"`` scale, which covers better near 1, or on
            the ``"linear"`` one (then cut at 0 and 1), as most programs give it.

    Raises:
        InputError: an image has several rows, or the classes are separated perfectly (for both use
            :func:`auroc_interval`), one class has fewer than two rows.
        NumericalError: NaN or infinity in the scores.
    """
    from scipy.special import expit, logit

    values, truth = _checked(scores, labels, groups, level)
    if scale not in ("logit", "linear"):
        raise InputError(f"scale is 'logit' or 'linear', got {scale!r}")
    areas, covariance = _areas(values[None], truth)
    area, variance = float(areas[0]), float(covariance[0, 0])
    if variance == 0:
        raise InputError(
            f"AUROC is {area:g} and its variance by DeLong 0: the interval would have no width; use "
            "auroc_interval, which gives an exact bound"
        )
    reach = _quantile(level) * variance**0.5
    if scale == "linear":
        low, high = max(0.0, area - reach), min(1.0, area + reach)
    else:
        middle, reach = float(logit(area)), reach / (area * (1 - area))
        low, high = float(expit(middle - reach)), float(expit(middle + reach))
    n = len(truth)
    return Estimate(area, low, high, n, n, level, f"DeLong, {scale}")


def delong_test(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None,
    *,
    level: float = 0.95,
) -> DeLongTest:
    """Are two AUROCs of the same rows different? DeLong's test for correlated ROC curves.

    Source: as :func:`delong_interval`. Scores that rank all pairs alike give p = 1.

    Args:
        first, second: ``[n]`` scores, higher for positives.
        labels: ``[n]``, 0 or 1, at least two of each.
        groups: ``[n]`` image of each row, to be sure that none occurs twice; ``None`` says so.
        level: nominal coverage of the interval of the difference.

    Raises:
        InputError: an image has several rows (use :func:`auroc_lead`), one class has fewer than two
            rows, or the difference has no variance.
        NumericalError: NaN or infinity in the scores.
    """
    from scipy.stats import norm

    one, truth = _checked(first, labels, groups, level)
    other, _ = _checked(second, labels, groups, level)
    areas, covariance = _areas(np.stack([one, other]), truth)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = max(0.0, variance) ** 0.5
    if error < 1e-12:
        if abs(difference) > 1e-12:
            raise InputError(
                f"the AUROCs {areas[0]:g} and {areas[1]:g} differ without any variance by DeLong "
                "(perfect separation): use auroc_lead with more data"
            )
        difference, z, p = 0.0, 0.0, 1.0
    else:
        z = difference / error
        p = float(2 * norm.sf(abs(z)))
    reach = _quantile(level) * error
    n = len(truth)
    found = Estimate(difference, difference - reach, difference + reach, n, n, level, "DeLong")
    return DeLongTest(found, z, p)


def _checked(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike | None, level: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, truth = scored(scores, labels)
    require_both(truth, "AUROC")
    n, positives = len(truth), int(truth.sum())
    require_one_row_each(
        groups, n, "DeLong's variance", "use auroc_interval or auroc_lead, which resample images"
    )
    check_level(level)
    if min(positives, n - positives) < 2:
        raise InputError(
            f"DeLong's variance needs at least 2 rows of each class, got {positives} positives and "
            f"{n - positives} negatives"
        )
    return values, truth


def _areas(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROCs ``[k]`` of scores ``[k, n]``, and their covariance ``[k, k]``."""
    from scipy.stats import rankdata

    positive, negative = scores[:, truth], scores[:, ~truth]
    m, n = positive.shape[1], negative.shape[1]
    ranks = rankdata(scores, axis=1)
    # Placements: the share of the other class that a row outscores, ties half.
    above = (ranks[:, truth] - rankdata(positive, axis=1)) / n
    below = 1 - (ranks[:, ~truth] - rankdata(negative, axis=1)) / m
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return above.mean(axis=1), covariance


def _quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))
