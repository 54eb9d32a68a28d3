"""Areas under the ROC curve, pooled and within tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.bootstrap import group_bootstrap
from mechvrp.statistics.checks import group_codes, require_both, scored
from mechvrp.statistics.estimate import Estimate, exact_bound

__all__ = [
    "auroc",
    "auroc_interval",
    "weighted_auroc",
    "within_task_auroc",
    "within_task_auroc_interval",
]


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties half.

    Equal to ``sklearn.metrics.roc_auc_score``, but an error where that is undefined.

    Args:
        scores: ``[n]``, higher for positives.
        labels: ``[n]``, 0 or 1.

    Raises:
        InputError: lengths differ, labels other than 0 and 1, or one class only.
        NumericalError: NaN or infinity in the scores.
    """
    from sklearn.metrics import roc_auc_score

    values, truth = scored(scores, labels)
    require_both(truth, "AUROC")
    return float(roc_auc_score(truth, values))


def auroc_interval(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, **settings: Any
) -> Estimate:
    """:func:`auroc` with its interval: bootstrap by group, on the logit scale.

    If the classes are perfectly separated, so is every resample, and the bootstrap would give an
    interval without width. Then the open end is the exact binomial bound for as many pairs of a
    positive and a negative as can be formed without using a group twice (method ``"exact bound"``).

    Args:
        scores: ``[n]``, higher for positives.
        labels: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.
    """
    return within_task_auroc_interval(scores, labels, None, groups, **settings)


def within_task_auroc(scores: ArrayLike, labels: ArrayLike, tasks: ArrayLike) -> float:
    """AUROC over the pairs of a positive and a negative *of the same task*.

    The mean of the tasks' AUROCs weighted by their pairs; a task of one class has none and does not
    count. A score that merely tells tasks of different difficulty apart gets 0.5, where the pooled
    AUROC would credit it.

    Args:
        scores: ``[n]``, higher for positives.
        labels: ``[n]``, 0 or 1.
        tasks: ``[n]`` task of each row.

    Raises:
        InputError: lengths differ, labels other than 0 and 1, or no task has both classes.
        NumericalError: NaN or infinity in the scores.
    """
    values, truth = scored(scores, labels)
    codes, _ = group_codes(tasks, len(truth), least=1)
    area = float(weighted_auroc(values, truth, codes, weights=np.ones((1, len(truth))))[0])
    if not np.isfinite(area):
        raise InputError("AUROC needs both classes, and no task has both")
    return area


def within_task_auroc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    tasks: ArrayLike | None,
    groups: ArrayLike | None = None,
    **settings: Any,
) -> Estimate:
    """:func:`within_task_auroc` with its interval, made as in :func:`auroc_interval`."""
    values, truth = scored(scores, labels)
    require_both(truth, "AUROC")
    n = len(truth)
    codes = np.zeros(n, dtype=np.intp) if tasks is None else group_codes(tasks, n, least=1)[0]
    whole = weighted_auroc(values, truth, codes, weights=np.ones((1, n)))[0]
    separated = whole in (0.0, 1.0)
    found = group_bootstrap(
        weighted_auroc,
        values,
        truth,
        codes,
        groups=groups,
        interval="percentile" if separated else "logit-t",
        weighted=True,
        **settings,
    )
    return exact_bound(found, _disjoint_pairs(truth, codes, groups)) if separated else found


def _disjoint_pairs(truth: NDArray[np.bool_], tasks: NDArray[np.intp], groups: Any) -> int:
    """At least so many pairs within tasks can be formed of which no two share a group."""
    images, n_groups = group_codes(groups, len(truth))
    pairs = 0
    for task in np.unique(tasks):
        positive = np.unique(images[(tasks == task) & truth])
        negative = np.unique(images[(tasks == task) & ~truth])
        pairs += min(len(positive), len(negative))
    return max(1, min(pairs, n_groups // 2))


def weighted_auroc(
    values: NDArray[np.float64],
    truth: NDArray[np.bool_],
    tasks: NDArray[np.intp],
    *,
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``[resamples]`` within-task AUROC with each row counted by its weight; NaN without pairs."""
    wins, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for task in np.unique(tasks):
        rows = np.flatnonzero(tasks == task)
        rows = rows[np.argsort(values[rows], kind="stable")]
        positive, ordered = truth[rows], weights[:, rows]
        # Ties: the weights of equal scores are added up before anything is compared.
        starts = np.flatnonzero(np.r_[True, np.diff(values[rows]) != 0])
        up = np.add.reduceat(ordered * positive, starts, axis=1)
        down = np.add.reduceat(ordered * ~positive, starts, axis=1)
        below = np.cumsum(down, axis=1) - down
        wins += (up * (below + down / 2)).sum(axis=1)
        pairs += up.sum(axis=1) * down.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(wins / pairs)
