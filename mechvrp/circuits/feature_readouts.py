"""Classifiers on a table of features instead of a hidden state: linear, and of trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from mechvrp.circuits.logistic import DEFAULT_C_GRID, fit_probe, one_thread_if_small
from mechvrp.circuits.readouts import (
    Readout,
    ReadoutTask,
    Scorer,
    Validated,
    best_of,
    finish,
    validate,
)
from mechvrp.errors import InputError, NumericalError, ShapeError

__all__ = ["feature_readout", "tree_readout"]


class _Trees(NamedTuple):
    """A candidate: how it is called, and its estimator's class and settings."""

    words: str
    kind: Any
    settings: dict[str, Any]


# The more regularised first: of equals the first is kept.
_CANDIDATES = (
    *(
        _Trees(
            f"random forest of 300 trees, at least {least} examples a leaf",
            RandomForestClassifier,
            {"n_estimators": 300, "min_samples_leaf": least, "n_jobs": 1},
        )
        for least in (20, 5)
    ),
    *(
        _Trees(
            f"gradient boosting, {n} trees of depth {depth}",
            GradientBoostingClassifier,
            {"n_estimators": n, "max_depth": depth, "learning_rate": 0.05, "subsample": 0.7},
        )
        for n, depth in ((50, 1), (100, 2), (200, 3))
    ),
)


def feature_readout(
    features: np.ndarray,
    task: ReadoutTask,
    *,
    name: str,
    c_grid: Sequence[float] = DEFAULT_C_GRID,
) -> Readout:
    """A logistic regression (L2) on standardised features, its strength chosen by cross-validation.

    Args:
        features: ``[example, feature]``; constant ones count for nothing.
        task: of `readout_task`.
        name: of the readout, e.g. ``"11 attention features"``.
        c_grid: inverse L2 strengths to choose from.

    Raises:
        ShapeError: not a row of numbers for each example.
        NumericalError: NaN or infinity.
        InputError: every feature is constant on the training images.
    """
    table = _checked(features, task, name)
    inside, truth = table[task.train], task.truth

    def fit_at(c: float) -> Any:
        def fit(x: np.ndarray, y: np.ndarray) -> Scorer:
            return fit_probe(x, y, c).scores

        return fit

    with one_thread_if_small(table):
        best = best_of(validate(c, fit_at(c), inside, truth, task.folds) for c in sorted(c_grid))
        scores = fit_at(best.choice)(inside, truth)(table[task.heldout])
    detail = f"logistic regression, L2, C = {best.choice:g}"
    return finish(name, task, best, scores, detail=detail, settings={"c": best.choice})


def tree_readout(features: np.ndarray, task: ReadoutTask, *, name: str) -> Readout:
    """Random forests and gradient boosting, of which cross-validation chooses: the stronger test.

    They see what a linear readout cannot: thresholds, and features that matter together. About 10 s for
    11 features of 500 training examples.

    Args, raises: as `feature_readout`.
    """
    table = _checked(features, task, name)
    inside, truth = table[task.train], task.truth

    def candidates() -> Iterator[Validated[_Trees]]:
        for trees in _CANDIDATES:
            yield validate(trees, _grow(trees, task.seed), inside, truth, task.folds)

    with one_thread_if_small(table):
        best = best_of(candidates())
        scores = _grow(best.choice, task.seed)(inside, truth)(table[task.heldout])
    return finish(
        name, task, best, scores, detail=best.choice.words, settings=dict(best.choice.settings)
    )


def _grow(trees: _Trees, seed: int) -> Any:
    def fit(x: np.ndarray, y: np.ndarray) -> Scorer:
        model = trees.kind(random_state=seed, **trees.settings).fit(x, y)
        return lambda new: np.asarray(model.predict_proba(new)[:, 1])

    return fit


def _checked(features: np.ndarray, task: ReadoutTask, name: str) -> np.ndarray:
    table = np.asarray(features)
    n = len(task.labels)
    if table.ndim != 2 or len(table) != n or not table.shape[1] or table.dtype.kind not in "fiub":
        raise ShapeError(
            f"{name}: features of shape {table.shape} and dtype {table.dtype}; expected numbers "
            f"[{n}, feature]"
        )
    table = table.astype(np.float64)
    bad = int((~np.isfinite(table)).sum())
    if bad:
        raise NumericalError(f"{name}: {bad} of {table.size} features are NaN or infinite")
    if not np.ptp(table[task.train], axis=0).any():
        raise InputError(
            f"{name}: every feature is the same on all {len(task.train)} training examples; they can "
            "tell nothing"
        )
    return table
