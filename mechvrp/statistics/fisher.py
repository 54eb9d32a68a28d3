"""Fisher's z interval of a correlation, as the study reports it."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from mechvrp.errors import InputError
from mechvrp.statistics.checks import check_level, scored
from mechvrp.statistics.correlation import pearson
from mechvrp.statistics.estimate import Estimate

__all__ = ["fisher_z_interval"]


def fisher_z_interval(signal: ArrayLike, labels: ArrayLike, *, level: float = 0.95) -> Estimate:
    """The study's interval of the point-biserial R; for comparison with it only.

    ``tanh(atanh(R) +- z / sqrt(n - 3))`` (Fisher 1921), the interval of arXiv 2605.08200. It is for
    two normal variables in independent rows. A 0/1 label is not normal: for normal scores within
    each class the variance of R is (1 - R^2)^2 (1 - 3/2 R^2 + R^2 / (4 p (1 - p))) / n, where p is
    the accuracy (Tate 1954, Ann. Math. Stat. 25, 603-607), and Fisher's has 1 in place of the second
    bracket. At R = 0.43 and an accuracy of 0.95 its 95 % interval holds the truth in 87 % of 10,000
    simulated data sets of 1,000 such rows. Several questions an image make it worse still. Use
    :func:`point_biserial_interval`.

    Args:
        signal: ``[n]``.
        labels: ``[n]``, 0 or 1.
        level: nominal coverage in (0, 1).

    Raises:
        InputError: fewer than four rows, a constant signal, one class only, or |R| = 1.
        NumericalError: NaN or infinity in the signal.
    """
    from scipy.stats import norm

    values, truth = scored(signal, labels)
    check_level(level)
    n = len(truth)
    if n < 4:
        raise InputError(f"Fisher's z needs at least 4 rows, got {n}")
    r = pearson(values, truth)
    if abs(r) > 1 - 1e-12:
        raise InputError(
            f"R is {r:.0f} in all {n} rows, where Fisher's z has no interval: the signal is the label"
        )
    middle, reach = math.atanh(r), float(norm.ppf((1 + level) / 2)) / math.sqrt(n - 3)
    return Estimate(
        value=r,
        low=math.tanh(middle - reach),
        high=math.tanh(middle + reach),
        n=n,
        n_groups=n,
        level=level,
        method="Fisher z, rows taken as independent",
    )
