"""One signal's lead over another: the paired difference of two AUROCs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.bootstrap import group_bootstrap
from mechvrp.statistics.checks import group_codes, require_both, scored
from mechvrp.statistics.estimate import Estimate
from mechvrp.statistics.roc import weighted_auroc

__all__ = ["auroc_lead"]


def auroc_lead(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None,
    tasks: ArrayLike | None = None,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """AUROC of ``first`` minus that of ``second``, over all pairs or those of the same task; paired.

    Both are computed on the same resamples of images; the interval is of percentiles.

    Args:
        first, second: ``[n]`` scores, higher for positives.
        labels: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row: what is resampled; ``None`` makes each row its own.
        tasks: ``[n]``; ``None``: all pairs count.
        n_resamples, level, seed: of :func:`group_bootstrap`.

    Raises:
        InputError: lengths differ, one class only, or no task has both.
        NumericalError: NaN or infinity in the scores.
    """
    one, truth = scored(first, labels)
    other, _ = scored(second, labels)
    require_both(truth, "AUROC")
    n = len(truth)
    codes = np.zeros(n, dtype=np.intp) if tasks is None else group_codes(tasks, n, least=1)[0]
    if not np.isfinite(weighted_auroc(one, truth, codes, weights=np.ones((1, n)))[0]):
        raise InputError("AUROC needs both classes, and no task has both")

    def difference(*columns: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, right, task = columns
        return weighted_auroc(x, right, task, weights=weights) - weighted_auroc(
            y, right, task, weights=weights
        )

    return group_bootstrap(
        difference,
        one,
        other,
        truth,
        codes,
        groups=groups,
        n_resamples=n_resamples,
        level=level,
        seed=seed,
        weighted=True,
    )
