"""Means of many quantities at once, with bootstrap intervals by group."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics.checks import check_resampling, group_codes, numbers

__all__ = ["Means", "group_means"]

_BLOCK = 4_000_000


class Means(NamedTuple):
    """Means and the ends of their intervals, in the shape of one row of the data."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def group_means(
    values: ArrayLike,
    groups: ArrayLike | None,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Means:
    """The mean over rows of each column, with percentile intervals from resampling whole groups.

    For one column it is ``group_bootstrap`` of the mean; for many, all use the same resamples.
    Intervals are one column at a time, not simultaneous.

    Args:
        values: ``[n, ...]``.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        n_resamples, level, seed: of the bootstrap.

    Raises:
        InputError: fewer than two groups, or a bad level.
        NumericalError: NaN or infinity in the values.
    """
    data = numbers(values, "values")
    if not data.ndim:
        raise InputError(f"values are an array; got {values!r:.60}")
    check_resampling(level, n_resamples, seed)
    if not np.isfinite(data).all():
        raise NumericalError(
            f"{int((~np.isfinite(data)).sum())} of {data.size} values are not finite"
        )
    codes, n_groups = group_codes(groups, len(data))
    flat = data.reshape(len(data), -1)
    sums = np.zeros((n_groups, flat.shape[1]))
    np.add.at(sums, codes, flat)
    sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    totals = weights @ sizes
    ends = np.empty((2, flat.shape[1]))
    step = max(1, _BLOCK // n_resamples)
    tails = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    for start in range(0, flat.shape[1], step):
        columns = slice(start, start + step)
        ends[:, columns] = np.percentile(
            weights @ sums[:, columns] / totals[:, None], tails, axis=0
        )
    shape = data.shape[1:]
    return Means(data.mean(axis=0), ends[0].reshape(shape), ends[1].reshape(shape))
