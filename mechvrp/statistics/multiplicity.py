"""Permutation p-values, and their adjustment for many tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.checks import numbers, require_finite

__all__ = ["benjamini_hochberg", "two_sided_permutation_p"]


def two_sided_permutation_p(observed: float, null: ArrayLike) -> float:
    """Twice the smaller tail of a permutation null, counting the observed value among the draws.

    The + 1 in ``(1 + as extreme) / (1 + draws)`` keeps the test valid at any number of draws, and p
    from being 0 (Phipson and Smyth 2010). The null need not be symmetric or centred at zero.

    Args:
        observed: the statistic on the data.
        null: ``[draws]`` of it under the null hypothesis.

    Raises:
        InputError: no draws.
        NumericalError: NaN or infinity.
    """
    draws, observed = numbers(null, "null").ravel(), float(numbers(observed, "observed"))
    require_finite(np.append(draws, observed))
    if not len(draws):
        raise InputError("the null distribution is empty; draw at least one permutation")
    tail = min(int((draws >= observed).sum()), int((draws <= observed).sum()))
    return min(1.0, 2 * (1 + tail) / (1 + len(draws)))


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values adjusted for the false discovery rate (Benjamini and Hochberg 1995), same shape.

    Rejecting those at most q keeps the expected share of false rejections at q or less, for
    independent or positively dependent tests. As ``scipy.stats.false_discovery_control``.

    Raises:
        InputError: a value outside [0, 1].
        NumericalError: NaN.
    """
    from scipy.stats import false_discovery_control

    values = numbers(p_values, "p_values")
    require_finite(values)
    if not values.size:
        return values.copy()
    if values.min() < 0 or values.max() > 1:
        raise InputError(f"p-values lie in [0, 1]; got {values.min()} to {values.max()}")
    adjusted = false_discovery_control(values.ravel(), method="bh")
    return np.asarray(adjusted, dtype=np.float64).reshape(values.shape)
