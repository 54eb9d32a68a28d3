"""What a probe must beat: the task and the answer alone, the probability alone, shuffled labels.

A probe on hidden states can score well because the state tells which task was asked and what was
answered, and tasks and answers differ in how often they are right. So the same protocol (fit on
training images, judge on held-out ones) is run on exactly that information, and on the answer
probability, and once more with labels that carry no information beyond the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logit
from sklearn.preprocessing import OneHotEncoder

from mechvrp.circuits.baseline_results import Baseline, Comparison, ShuffledControl
from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    Fold,
    cross_validate,
    fit_probe,
    grouped_folds,
    one_thread_if_small,
)
from mechvrp.circuits.probe_results import ProbeSweep
from mechvrp.circuits.probes import choose_layer, task_results
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.statistics import auroc, auroc_lead, within_task_auroc

__all__ = ["compare_with_baselines"]

# float32 probabilities reach exactly 0 and 1; their log-odds must stay finite.
_PROBABILITY_MARGIN = 1e-6


def compare_with_baselines(
    sweep: ProbeSweep,
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    tasks: Sequence[str] | np.ndarray,
    answers: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
    *,
    draws: int = 20,
    folds: int = 5,
    c_grid: Sequence[float] = DEFAULT_C_GRID,
) -> Comparison:
    """Judge the probe against what needs no hidden state, and against shuffled labels.

    Args:
        sweep: the result of `probe_sweep` on the arguments of the same name; its split, seed and
            number of resamples are used again, so differences are paired.
        features: ``[layer, example, d]``.
        labels: boolean ``[example]``.
        groups: ``[example]``, image ids.
        tasks: ``[example]``, task names.
        answers: ``[example]``, the model's own (predicted) answers.
        probabilities: ``[example]``, the model's probability of its answer, 0 to 1.
        draws: shuffles of the control.
        folds: as in `probe_sweep`.
        c_grid: as in `probe_sweep`.

    Raises:
        ShapeError: lengths do not fit each other.
        NumericalError: a probability is NaN.
        InputError: a probability is outside 0..1, or ``draws`` is not positive.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    groups, tasks = np.asarray(groups), np.asarray(tasks).astype(str)
    answers, probabilities = np.asarray(answers).astype(str), np.asarray(probabilities, float)
    n = len(labels)
    for name, array in (("answers", answers), ("probabilities", probabilities), ("tasks", tasks)):
        if array.shape != (n,):
            raise ShapeError(f"{name} of shape {array.shape}; expected [{n}], one per example")
    if np.isnan(probabilities).any():
        raise NumericalError(f"{int(np.isnan(probabilities).sum())} answer probabilities are NaN")
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(
            f"answer probabilities run from {probabilities.min():.3g} to "
            f"{probabilities.max():.3g}; expected 0 to 1 (log-probabilities? take np.exp)"
        )
    if draws < 1:
        raise InputError(f"draws={draws}; the shuffled-label control needs at least 1")
    train, heldout = sweep.train, sweep.heldout
    parts = grouped_folds(labels[train], groups[train], folds, sweep.seed)

    clipped = np.clip(probabilities, _PROBABILITY_MARGIN, 1 - _PROBABILITY_MARGIN)
    inputs = {
        "task and answer": _one_hot(tasks, answers, train),
        "answer probability": logit(clipped)[:, None],
    }
    baselines = []
    for name, columns in inputs.items():
        with one_thread_if_small(columns):
            best = cross_validate(columns[train], labels[train], parts, c_grid)
            scores = fit_probe(columns[train], labels[train], best.c).scores(columns[heldout])
        baselines.append(
            _baseline(name, scores, sweep, labels[heldout], groups[heldout], tasks[heldout])
        )
    with one_thread_if_small(features):
        control = _shuffled(sweep, features, labels, tasks, draws, parts, c_grid)
    return Comparison(sweep, tuple(baselines), control)


def _one_hot(tasks: np.ndarray, answers: np.ndarray, train: np.ndarray) -> np.ndarray:
    # Task, answer and their pair; what the training images lack is all zeros, hence uninformative.
    # A NUL cannot be part of a name, so pairs of different parts never coincide.
    pairs = np.array([f"{t}\0{a}" for t, a in zip(tasks, answers, strict=True)])
    columns = np.stack([tasks, answers, pairs], axis=1).astype(object)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(columns[train])
    return np.asarray(encoder.transform(columns))


def _baseline(
    name: str,
    scores: np.ndarray,
    sweep: ProbeSweep,
    labels: np.ndarray,
    groups: np.ndarray,
    tasks: np.ndarray,
) -> Baseline:
    resampling: dict[str, Any] = {"seed": sweep.seed, "n_resamples": sweep.n_resamples}
    overall, within = task_results(labels, scores, groups, tasks, sweep.seed, sweep.n_resamples)[:2]

    return Baseline(
        name,
        scores,
        overall,
        within,
        auroc_lead(sweep.scores, scores, labels, groups, **resampling),
        auroc_lead(sweep.scores, scores, labels, groups, tasks, **resampling)
        if within.auroc
        else None,
    )


def _shuffled(
    sweep: ProbeSweep,
    features: np.ndarray,
    labels: np.ndarray,
    tasks: np.ndarray,
    draws: int,
    folds: Sequence[Fold],
    c_grid: Sequence[float],
) -> ShuffledControl:
    train, heldout = sweep.train, sweep.heldout
    truth, names = labels[heldout], tasks[heldout]
    pooled = any(0 < truth[names == name].sum() < (names == name).sum() for name in set(names))
    overall, within, layers = np.empty(draws), np.empty(draws), np.empty(draws, dtype=np.int64)
    for draw in range(draws):
        shuffled, parts = _shuffle(labels[train], tasks[train], folds, [sweep.seed, draw])
        chosen, validations = choose_layer(features[:, train], shuffled, parts, c_grid)
        probe = fit_probe(features[chosen, train], shuffled, validations[chosen].c)
        scores = probe.scores(features[chosen, heldout])
        overall[draw] = auroc(scores, truth)
        within[draw] = within_task_auroc(scores, truth, names) if pooled else np.nan
        layers[draw] = sweep.layers[chosen].layer
    return ShuffledControl(overall, within if pooled else None, layers, sweep.seed)


def _shuffle(
    labels: np.ndarray, tasks: np.ndarray, folds: Sequence[Fold], seed: list[int]
) -> tuple[np.ndarray, list[Fold]]:
    """Labels permuted within each task, and the folds that still hold both classes.

    A permutation can leave a fold without the rarer class; such a fold takes no part, and a
    permutation that leaves fewer than two folds is drawn again (labels that stay as they are keep
    their folds, so this ends).
    """
    rng = np.random.default_rng(seed)
    while True:
        shuffled = labels.copy()
        for name in np.unique(tasks):
            inside = np.flatnonzero(tasks == name)
            shuffled[inside] = labels[rng.permutation(inside)]
        kept = [
            fold for fold in folds if all(0 < shuffled[part].sum() < len(part) for part in fold)
        ]
        if len(kept) >= 2:
            return shuffled, kept
