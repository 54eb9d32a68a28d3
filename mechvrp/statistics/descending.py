"""Rows in order of a score from the highest down, equal scores together, and what is added up on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["descending", "running_totals"]


def descending(values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows from the highest value down, and where in that order each run of equal values begins."""
    order = np.argsort(-values, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])


def running_totals(
    rows: NDArray[np.bool_],
    weights: NDArray[np.float64],
    order: NDArray[np.intp],
    starts: NDArray[np.intp],
) -> NDArray[np.float64]:
    """``[resamples, runs]`` weights of the chosen rows, up to and with each run of equal values.

    Args:
        rows: ``[n]``, which ones count.
        weights: ``[resamples, n]``.
        order, starts: of `descending`.
    """
    counted = weights[:, order] * rows[order]
    return np.asarray(np.add.reduceat(counted, starts, axis=1).cumsum(axis=1))
