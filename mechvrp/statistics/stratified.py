"""Signals pooled over models, compared within each model only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.bootstrap import group_bootstrap
from mechvrp.statistics.checks import group_codes, scored
from mechvrp.statistics.correlation import standardised, weighted_correlation
from mechvrp.statistics.estimate import Estimate
from mechvrp.statistics.roc import within_task_auroc_interval

__all__ = ["stratified_auroc", "stratified_point_biserial"]


def stratified_point_biserial(
    signal: ArrayLike,
    labels: ArrayLike,
    models: ArrayLike,
    groups: ArrayLike | None,
    **settings: Any,
) -> Estimate:
    """Point-biserial R of signal and label, both standardised within each model; by image.

    It is the mean of the models' own R, each weighted by its rows: a signal that merely tells models
    of different accuracy or scale apart gets 0, where the plain R of all rows would credit it. Each
    resample standardises anew. The interval is of percentiles.

    Args:
        signal: ``[n]``.
        labels: ``[n]``, 0 or 1.
        models: ``[n]`` model of each row: the strata.
        groups: ``[n]`` image of each row. The rows of one image in several models are one group,
            since the same image was shown to each; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.

    Raises:
        InputError: within a model the signal is constant or the labels have one class; the message
            names the model.
        NumericalError: NaN or infinity in the signal.
    """
    values, truth = scored(signal, labels)
    codes = _strata(values, truth, models, "a correlation", varying=True)
    target = np.empty(len(truth))
    for code in np.unique(codes):
        inside = codes == code
        values[inside] = standardised(values[inside])
        target[inside] = standardised(truth[inside])
    return group_bootstrap(
        _mean_correlation, values, target, codes, groups=groups, weighted=True, **settings
    )


def stratified_auroc(
    signal: ArrayLike,
    labels: ArrayLike,
    models: ArrayLike,
    groups: ArrayLike | None,
    **settings: Any,
) -> Estimate:
    """AUROC over the pairs of a right and a wrong answer of the same model, by image.

    :func:`within_task_auroc_interval` with models for tasks, but a model of one class is an error
    here and not left out.

    Args:
        signal: ``[n]``, higher for right answers.
        labels: ``[n]``, 0 or 1.
        models: ``[n]`` model of each row: the strata.
        groups: ``[n]`` image of each row. The rows of one image in several models are one group,
            since the same image was shown to each; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.

    Raises:
        InputError: a model's labels have one class; the message names the model.
        NumericalError: NaN or infinity in the signal.
    """
    values, truth = scored(signal, labels)
    codes = _strata(values, truth, models, "AUROC", varying=False)
    return within_task_auroc_interval(values, truth, codes, groups, **settings)


def _strata(
    values: NDArray[np.float64],
    truth: NDArray[np.bool_],
    models: ArrayLike,
    what: str,
    *,
    varying: bool,
) -> NDArray[np.intp]:
    if models is None:
        raise InputError(f"{what} needs the model of each row; got None")
    codes, count = group_codes(models, len(truth), least=1)
    names = np.asarray(models)
    for code in range(count):
        inside = codes == code
        right, n, name = int(truth[inside].sum()), int(inside.sum()), str(names[inside][0])
        if right in (0, n):
            raise InputError(
                f"{what} needs both classes, and all {n} labels of model {name!r} are "
                f"{int(right > 0)}: leave the model out, or use more examples"
            )
        if varying and np.ptp(values[inside]) == 0:
            raise InputError(
                f"{what} needs a signal that varies, and all {n} values of model {name!r} are "
                f"{values[inside][0]}"
            )
    return codes


def _mean_correlation(
    values: NDArray[np.float64],
    target: NDArray[np.float64],
    codes: NDArray[np.intp],
    *,
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``[resamples]`` means of the strata's correlations by rows; NaN where any is undefined."""
    total = np.zeros(len(weights))
    for code in np.unique(codes):
        inside = codes == code
        own = weights[:, inside]
        r = weighted_correlation(values[inside], target[inside], weights=own)
        total += own.sum(axis=1) * r
    return np.asarray(total / weights.sum(axis=1))
