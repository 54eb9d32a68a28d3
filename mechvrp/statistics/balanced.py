"""Balanced accuracy: the mean of the accuracies on right and on wrong answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.bootstrap import group_bootstrap
from mechvrp.statistics.checks import binary, group_codes, require_both
from mechvrp.statistics.estimate import Estimate, exact_bound

__all__ = ["balanced_accuracy_interval"]


def balanced_accuracy_interval(
    predicted: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, **settings: Any
) -> Estimate:
    """Balanced accuracy with its interval: bootstrap by group, on the logit scale; 1/2 is chance.

    The value of ``sklearn.metrics.balanced_accuracy_score``. If all rows are classified rightly (or all
    wrongly), the open end is the exact binomial bound with the images of the rarer class as the trials
    (method ``"exact bound"``), since a bootstrap interval would have no width.

    Args:
        predicted: ``[n]``, 0 or 1.
        labels: ``[n]``, 0 or 1, both classes.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.

    Raises:
        InputError: lengths differ, one class only, fewer than two groups.
    """
    said, truth = binary(predicted, "predicted"), binary(labels, "labels")
    if said.shape != truth.shape:
        raise InputError(f"{len(said)} predictions were given for {len(truth)} labels")
    require_both(truth, "balanced accuracy")
    value = float(_balanced(said, truth, weights=np.ones((1, len(truth))))[0])
    constant = value in (0.0, 1.0)
    found = group_bootstrap(
        _balanced,
        said,
        truth,
        groups=groups,
        interval="percentile" if constant else "logit-t",
        weighted=True,
        **settings,
    )
    codes, _ = group_codes(groups, len(truth))
    images = min(len(np.unique(codes[truth == side])) for side in (False, True))
    return exact_bound(found, images) if constant else found


def _balanced(
    said: NDArray[np.bool_], truth: NDArray[np.bool_], *, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``[resamples]`` values; NaN where a resample holds one class only."""
    hit = said == truth
    with np.errstate(invalid="ignore"):
        shares = [(weights[:, c] @ hit[c]) / weights[:, c].sum(axis=1) for c in (truth, ~truth)]
    return np.asarray((shares[0] + shares[1]) / 2)
