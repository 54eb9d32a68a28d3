"""Linear readouts on one layer: the probe of a sweep, and a sparse one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechvrp.circuits.by_layer import FittedLayer, choose_layer
from mechvrp.circuits.logistic import fit_probe, one_thread_if_small
from mechvrp.circuits.probe_results import ProbeSweep
from mechvrp.circuits.readouts import (
    Fit,
    Readout,
    ReadoutTask,
    Scorer,
    States,
    best_of,
    finish,
    layer_states,
    validate,
)
from mechvrp.circuits.sparse_logistic import fit_sparse, least_c
from mechvrp.errors import InputError

__all__ = ["linear_readout", "sparse_probe"]

# Multiples of the C below which every weight is zero: from a few weights to most of them.
_MULTIPLES = (1.5, 3.0, 6.0, 12.0, 25.0, 50.0)


def linear_readout(sweep: ProbeSweep, states: States | np.ndarray, task: ReadoutTask) -> Readout:
    """The chosen probe of a sweep as a readout: its own scores, and scores out of fold besides.

    Args:
        sweep: of `probe_sweep` on the same split.
        states: as `layer_states`.
        task: of `readout_task`.

    Raises:
        InputError: the sweep is of another split.
    """
    if not (
        np.array_equal(sweep.train, task.train) and np.array_equal(sweep.heldout, task.heldout)
    ):
        raise InputError("the sweep was made on another split than the task's")
    layer, c = sweep.chosen_layer, sweep.probe.c
    features = layer_states(states, task)(layer)[task.train]
    with one_thread_if_small(features):
        validated = validate(layer, _l2(c), features, task.truth, task.folds)
    return finish(
        "linear probe",
        task,
        validated,
        sweep.scores,
        detail=f"L2, C = {c:g}",
        settings={"c": c},
        layers=(layer,),
    )


def sparse_probe(
    states: States | np.ndarray,
    task: ReadoutTask,
    layers: Sequence[int],
    *,
    multiples: Sequence[float] = _MULTIPLES,
) -> Readout:
    """A logistic regression with an L1 penalty at each layer, of which cross-validation chooses one.

    scikit-learn's liblinear on standardised features. Strengths are multiples of the one below which
    every weight is zero (`sklearn.svm.l1_min_c`), so that they suit any width and number of examples;
    of equals the sparser is kept. About 11 s a layer of 500 training examples by 4,096 dimensions on one
    core.

    Args:
        states: as `layer_states`.
        task: of `readout_task`.
        layers: numbers of the layers to choose from.
        multiples: of the strength, above 1.

    Raises:
        InputError: no layers, or multiples that are not above 1.
        ShapeError, NumericalError: as `layer_states`.
    """
    if not multiples or min(multiples) <= 1:
        raise InputError(f"multiples={tuple(multiples)}; expected numbers above 1")
    truth = task.truth

    def fit(features: np.ndarray) -> FittedLayer:
        inside = features[task.train]
        least = least_c(inside, truth)
        best = best_of(
            validate(c, _l1(c, task.seed), inside, truth, task.folds)
            for c in (float(least * multiple) for multiple in sorted(multiples))
        )
        probe = fit_sparse(inside, truth, best.choice, task.seed)
        kept, width = int((probe.coef != 0).sum()), len(probe.coef)
        return FittedLayer(
            best,
            probe.scores(features[task.heldout]),
            f"L1, C = {best.choice:.3g}, {kept} of {width} weights",
            {"c": best.choice, "nonzero": kept, "width": width, "coef": probe.coef},
        )

    return choose_layer("sparse probe", states, task, layers, fit)


def _l2(c: float) -> Fit:
    def fit(features: np.ndarray, truth: np.ndarray) -> Scorer:
        return fit_probe(features, truth, c).scores

    return fit


def _l1(c: float, seed: int) -> Fit:
    def fit(features: np.ndarray, truth: np.ndarray) -> Scorer:
        return fit_sparse(features, truth, c, seed).scores

    return fit
