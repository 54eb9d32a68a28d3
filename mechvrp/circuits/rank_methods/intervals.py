"""Intervals of scores over the folds of a cross-validation."""

from __future__ import annotations

import numpy as np
from scipy import stats

from mechvrp.errors import NumericalError

__all__ = ["INTERVAL", "fold_interval"]

#: What ``low`` and ``high`` are, in words that settings carry.
INTERVAL = "95 % interval of the delete-a-fold jackknife (whole images), Student's t"


def fold_interval(
    scores: np.ndarray, by_fold: np.ndarray, n_folds: int, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The delete-a-group jackknife's interval, the groups being the folds.

    Each fold's images are left out in turn, the score is made anew from the rest, and the spread of these
    scores says how far another set of as many images would take it: the score plus and minus Student's t
    (folds - 1 degrees of freedom) times ``sqrt((K - 1) / K * sum((by_fold - mean)^2))`` of K folds
    (Quenouille 1949; Kott 2001, "The delete-a-group jackknife"). An image is in one fold, so
    several questions about one are no independent evidence. For scores that are means it is close to exact;
    for weights of a penalised fit it holds the penalty still; for a selection (an L1 weight that is 0
    in some folds) it is a rough guide.

    Args:
        scores: ``[row]``, from all examples.
        by_fold: ``[fold, row]``, from all but each fold's.
        n_folds: K; ``by_fold`` may hold fewer, where a fold lacked a class and was left out.
        level: nominal coverage.

    Returns:
        The lower and the upper ends, ``[row]`` each.
    """
    if not np.isfinite(by_fold).all():
        raise NumericalError(
            f"{int((~np.isfinite(by_fold)).sum())} scores of the folds are NaN or infinite"
        )
    spread = (n_folds - 1) * by_fold.var(axis=0)
    half = float(stats.t.ppf((1 + level) / 2, len(by_fold) - 1)) * np.sqrt(spread)
    return scores - half, scores + half
