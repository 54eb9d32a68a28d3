"""Pearson correlations and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.bootstrap import group_bootstrap
from mechvrp.statistics.checks import numbers, require_both, require_finite, scored
from mechvrp.statistics.estimate import Estimate

__all__ = [
    "correlation_interval",
    "pearson",
    "point_biserial_interval",
    "standardised",
    "weighted_correlation",
]


def point_biserial_interval(
    signal: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, **settings: Any
) -> Estimate:
    """Point-biserial correlation of a signal with a 0/1 label, and its bootstrap interval by group.

    Pearson's r, as ``scipy.stats.pointbiserialr``; the interval is of percentiles.

    Args:
        signal: ``[n]``.
        labels: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.

    Raises:
        InputError: the signal is constant, or the labels have one class.
        NumericalError: NaN or infinity in the signal.
    """
    values, truth = scored(signal, labels)
    require_both(truth, "a correlation")
    return correlation_interval(values, truth, groups, **settings)


def correlation_interval(
    first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None, **settings: Any
) -> Estimate:
    """Pearson's r of two signals, and its bootstrap interval by group, of percentiles.

    Args:
        first: ``[n]``.
        second: ``[n]``, in the same order.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.

    Raises:
        InputError: lengths differ, or a signal is constant.
        NumericalError: NaN or infinity.
    """
    x, y = (numbers(values, "what is correlated") for values in (first, second))
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise InputError(f"expected two signals [n], got shapes {x.shape} and {y.shape}")
    return group_bootstrap(
        weighted_correlation,
        standardised(x),
        standardised(y),
        groups=groups,
        weighted=True,
        **settings,
    )


def pearson(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's r of two ``[n]``; ``InputError`` if either is constant."""
    return float(np.clip(np.mean(standardised(first) * standardised(second)), -1, 1))


def standardised(values: NDArray[Any]) -> NDArray[np.float64]:
    """``values`` with mean 0 and standard deviation 1; ``InputError`` if they do not vary.

    Raw sums of squares would lose the digits of a signal far from zero.
    """
    require_finite(values)
    if np.ptp(values.astype(np.float64)) == 0:
        raise InputError(
            f"a correlation needs a signal that varies; all values are {float(values[0])}"
        )
    return np.asarray((values - values.mean()) / values.std())


def weighted_correlation(
    first: NDArray[np.float64], second: NDArray[np.float64], *, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``[resamples]`` correlations with each row counted by its weight; NaN where undefined.

    Both are to be :func:`standardised` over all rows.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = weights @ first / total, weights @ second / total
        covariance = weights @ (first * second) / total - mean_x * mean_y
        spread_x = weights @ first**2 / total - mean_x**2
        spread_y = weights @ second**2 / total - mean_y**2
        # Products of standardised values: what is left of a constant after rounding is far below.
        varies = (spread_x > 1e-12) & (spread_y > 1e-12)
        return np.asarray(np.where(varies, covariance / np.sqrt(spread_x * spread_y), np.nan))
