"""What readouts of correctness share: the task they are set, their result, and how they are chosen.

The protocol is that of `probe_sweep`: layer, strength and threshold are chosen by cross-validation grouped
by image within the training images, standardisation is fitted within each fold, the choice is fitted once on
all training images, and held-out images are scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from mechvrp.circuits.logistic import Fold, grouped_folds
from mechvrp.circuits.probes import check_split
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.statistics import auroc

__all__ = [
    "Fit",
    "LayerScores",
    "Readout",
    "ReadoutTask",
    "Scorer",
    "States",
    "Validated",
    "best_of",
    "finish",
    "layer_states",
    "readout_task",
    "validate",
]

#: Hidden states of a layer by its number, [example, d_model].
States = Callable[[int], np.ndarray]
#: Scores [n] from features [n, d], higher for right answers.
Scorer = Callable[[np.ndarray], np.ndarray]
#: From training features [n, d] and labels [n] to a scorer.
Fit = Callable[[np.ndarray, np.ndarray], Scorer]
Choice = TypeVar("Choice")


@dataclass(frozen=True, eq=False)
class ReadoutTask:
    """Which answers are right, on which images, and how they are divided. Made by `readout_task`.

    Attributes:
        labels: boolean ``[example]``, whether the answer is right.
        groups: ``[example]``, image ids.
        train, heldout: indices of the examples of either side.
        folds: of the cross-validation, as pairs of indices *into* ``train``.
        seed: of the folds, and of what is random in a fit.
    """

    labels: np.ndarray
    groups: np.ndarray
    train: np.ndarray
    heldout: np.ndarray
    folds: tuple[Fold, ...]
    seed: int

    @property
    def truth(self) -> np.ndarray:
        """Labels of the training examples, ``[train]``."""
        return np.asarray(self.labels[self.train])


def readout_task(
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    train: Sequence[int] | np.ndarray,
    heldout: Sequence[int] | np.ndarray,
    *,
    folds: int = 5,
    seed: int = 0,
) -> ReadoutTask:
    """The task of reading correctness, with everything checked.

    Args:
        labels: boolean ``[example]``.
        groups: ``[example]``, image ids; folds and split keep an image together.
        train, heldout: indices of the examples of either side; they share no image.
        folds: of the cross-validation, stratified by label.
        seed: of the folds, and of what is random in a fit.

    Raises:
        ShapeError: labels that are not boolean, or not one group each.
        InputError: as `probe_sweep`.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if labels.dtype != np.bool_ or labels.ndim != 1 or groups.shape != labels.shape:
        raise ShapeError(
            f"labels of shape {labels.shape} and dtype {labels.dtype}, groups of shape {groups.shape}; "
            "expected booleans [example] and an image id for each"
        )
    train, heldout = check_split(labels, groups, train, heldout)
    parts = grouped_folds(labels[train], groups[train], folds, seed)
    return ReadoutTask(labels, groups, train, heldout, parts, seed)


@dataclass(frozen=True, eq=False)
class LayerScores:
    """A readout of one layer among several.

    Attributes:
        layer: its number.
        detail: what was chosen at this layer on the training images, in words.
        cv_auroc: mean AUROC over the folds.
        scores: ``[heldout]``, from the fit on all training images.
    """

    layer: int
    detail: str
    cv_auroc: float
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Readout:
    """A fitted way to read correctness, and its scores.

    Attributes:
        name: as in a report.
        layers: what it reads; empty where it does not read hidden states.
        detail: what was chosen on the training images, in words.
        settings: the same as values.
        cv_auroc: mean AUROC over the folds, by which it was chosen: slightly optimistic.
        train_scores: ``[train]``, each from a fit that left the example's image out; NaN for examples
            of a fold without both classes.
        threshold: of the scores, chosen on ``train_scores``: at or above it an answer is called right.
        scores: ``[heldout]``, from the fit on all training images; higher for right answers.
        task: what it was fitted on.
        by_layer: every layer it was chosen from, in the order given; empty where no layer is chosen.
    """

    name: str
    layers: tuple[int, ...]
    detail: str
    settings: dict[str, Any]
    cv_auroc: float
    train_scores: np.ndarray
    threshold: float
    scores: np.ndarray
    task: ReadoutTask
    by_layer: tuple[LayerScores, ...] = ()

    @property
    def called_right(self) -> np.ndarray:
        """Boolean ``[heldout]``: whether the threshold calls the answer right."""
        return np.asarray(self.scores >= self.threshold)

    def per_example(self) -> np.ndarray:
        """Scores ``[example]``, none of them from a fit that saw the example's image; NaN elsewhere.

        So they can enter `mechvrp.reliability.fuse` beside signals that are not fitted.
        """
        found = np.full(len(self.task.labels), np.nan)
        found[self.task.train] = self.train_scores
        found[self.task.heldout] = self.scores
        return found

    def __repr__(self) -> str:
        return f"Readout({self.name!r}: {self.detail}; cross-validated AUROC {self.cv_auroc:.3f})"


@dataclass(frozen=True, eq=False)
class Validated(Generic[Choice]):
    """One candidate's cross-validation: its scores ``[train]`` out of fold, and their mean AUROC."""

    choice: Choice
    scores: np.ndarray
    auroc: float


def validate(
    choice: Choice, fit: Fit, features: np.ndarray, truth: np.ndarray, folds: Sequence[Fold]
) -> Validated[Choice]:
    """Fit on each fold's rest and score the fold; features and truth are those of training examples."""
    scores, areas = np.full(len(truth), np.nan), []
    for rest, fold in folds:
        scores[fold] = fit(features[rest], truth[rest])(features[fold])
        areas.append(auroc(scores[fold], truth[fold]))
    return Validated(choice, scores, float(np.mean(areas)))


def best_of(candidates: Iterable[Validated[Choice]]) -> Validated[Choice]:
    """The candidate of the highest mean AUROC; of equals the first, so give simpler ones first."""
    best: Validated[Choice] | None = None
    for candidate in candidates:
        if best is None or round(candidate.auroc, 12) > round(best.auroc, 12):
            best = candidate
    if best is None:
        raise InputError("there is no candidate to choose from: give at least one layer or setting")
    return best


def finish(
    name: str,
    task: ReadoutTask,
    validated: Validated[Any],
    scores: np.ndarray,
    *,
    detail: str,
    settings: dict[str, Any],
    layers: Sequence[int] = (),
    by_layer: Sequence[LayerScores] = (),
) -> Readout:
    """The result, with its threshold.

    Raises:
        NumericalError: a score is NaN or infinite.
        InputError: all scores are the same, which an interval would make look like a finding.
    """
    if not np.isfinite(scores).all():
        raise NumericalError(f"{name}: {int((~np.isfinite(scores)).sum())} scores are not finite")
    if np.ptp(scores) == 0:
        raise InputError(
            f"{name}: what was chosen on the training images ({detail}) gives all {len(scores)} held-out "
            "examples the same score"
        )
    return Readout(
        name=name,
        layers=tuple(layers),
        detail=detail,
        settings=settings,
        cv_auroc=validated.auroc,
        train_scores=validated.scores,
        threshold=_threshold(validated.scores, task.truth),
        scores=scores,
        task=task,
        by_layer=tuple(by_layer),
    )


def layer_states(states: States | np.ndarray, task: ReadoutTask) -> States:
    """Hidden states by layer, checked when they are read.

    Args:
        states: a function of the layer's number, or an array [layer, example, d_model].
        task: says how many examples there must be.

    Raises:
        ShapeError: an array that is not [layer, example, d_model]; or, when a layer is read, not floats
            of one row per example.
        NumericalError: when a layer is read that holds NaN or infinity.
    """
    if not callable(states):
        given = np.asarray(states)
        if given.ndim != 3:
            raise ShapeError(
                f"states of shape {given.shape}; expected [layer, example, d_model] or a function"
            )
        return layer_states(lambda layer: given[layer], task)
    source: States = states

    def read(layer: int) -> np.ndarray:
        found = np.asarray(source(layer))
        n = len(task.labels)
        if found.ndim != 2 or len(found) != n or found.dtype.kind != "f" or not found.shape[1]:
            raise ShapeError(
                f"layer {layer} has states of shape {found.shape} and dtype {found.dtype}; expected "
                f"floats [{n}, d_model]"
            )
        bad = int((~np.isfinite(found)).sum())
        if bad:
            raise NumericalError(
                f"states of layer {layer} hold {bad} values that are NaN or infinite of {found.size}; "
                "half-precision overflow is the usual cause: capture in float32"
            )
        return found

    return read


def _threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The score with the best balanced accuracy; of a stretch of equals its middle."""
    known = np.isfinite(scores)
    values, right = scores[known], truth[known]
    order = np.argsort(values, kind="stable")
    values, right = values[order], right[order]
    # Cut i: the i lowest are called wrong. Not between equal scores.
    cuts = np.flatnonzero(np.r_[True, np.diff(values) > 0, True])
    lost = np.r_[0, np.cumsum(right)][cuts] / right.sum()
    caught = np.r_[0, np.cumsum(~right)][cuts] / (~right).sum()
    gain = (caught - lost).round(12)
    best = cuts[np.flatnonzero(gain == gain.max())]
    cut = best[(len(best) - 1) // 2]
    if cut in (0, len(values)):  # nothing told apart: the middle, as good as any
        return float(np.median(values))
    return float((values[cut - 1] + values[cut]) / 2)
