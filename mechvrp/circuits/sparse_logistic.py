"""The L1 logistic regression behind the sparse probe and the ranking by it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import l1_min_c

from mechvrp.circuits.logistic import FittedProbe

__all__ = ["fit_sparse", "least_c"]

_MAX_ITERATIONS = 1000
# liblinear penalises the intercept like a weight; scaled up, its price is small.
_INTERCEPT = 100.0


def fit_sparse(features: np.ndarray, truth: np.ndarray, c: float, seed: int) -> FittedProbe:
    """Fit on features ``[n, d]`` and boolean labels ``[n]`` with an L1 penalty: most weights are 0.

    Equivalent to ``make_pipeline(StandardScaler(), LogisticRegression(C=c, penalty="l1",
    solver="liblinear"))``, the intercept all but free of the penalty.
    """
    scaler = StandardScaler().fit(np.asarray(features, dtype=np.float64))
    # scikit-learn 1.8 renamed the choice of penalty.
    new = inspect.signature(LogisticRegression).parameters["penalty"].default == "deprecated"
    penalty: dict[str, Any] = {"l1_ratio": 1.0} if new else {"penalty": "l1"}
    model = LogisticRegression(
        C=c,
        solver="liblinear",
        random_state=seed,
        max_iter=_MAX_ITERATIONS,
        intercept_scaling=_INTERCEPT,
        **penalty,
    )
    model.fit(scaler.transform(features), truth)
    return FittedProbe(scaler.mean_, scaler.scale_, model.coef_[0], float(model.intercept_[0]), c)


def least_c(features: np.ndarray, truth: np.ndarray) -> float:
    """The C at which the first weight leaves zero; of constant features 1, for any will do."""
    scaled = StandardScaler().fit_transform(np.asarray(features, dtype=np.float64))
    if not scaled.any():
        return 1.0
    # Centred columns: what the intercept alone leaves of the labels projects on them as the labels do.
    return float(l1_min_c(scaled, truth, loss="log", fit_intercept=False))
