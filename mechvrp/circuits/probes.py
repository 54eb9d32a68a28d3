"""A linear probe for correctness at every layer, chosen on training images, judged on others.

The protocol, so that nothing held out leaks into a choice: standardisation, the L2 strength and
the layer are all fixed by cross-validation grouped by image *within* the training images; each
layer's probe is then fitted once on all of them and scored once on the held-out images. Intervals
resample held-out images, since questions about one image are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    CrossValidation,
    Fold,
    cross_validate,
    fit_probe,
    grouped_folds,
    one_thread_if_small,
)
from mechvrp.circuits.probe_results import LayerResult, ProbeSweep, TaskResult
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.statistics import auroc_interval, within_task_auroc_interval

__all__ = ["check_split", "choose_layer", "probe_sweep", "task_results"]


def probe_sweep(
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    tasks: Sequence[str] | np.ndarray,
    train: Sequence[int] | np.ndarray,
    heldout: Sequence[int] | np.ndarray,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    n_resamples: int = 2000,
    folds: int = 5,
    c_grid: Sequence[float] = DEFAULT_C_GRID,
) -> ProbeSweep:
    """Fit and judge a linear probe for correctness at every layer.

    Args:
        features: ``[layer, example, d]``, e.g. residual streams of the last prompt token.
        labels: boolean ``[example]``, whether the greedy answer is right.
        groups: ``[example]``, image ids; folds, splits and intervals keep an image together.
        tasks: ``[example]``, task names.
        train: indices of the training examples.
        heldout: indices of the held-out examples; shares no image with ``train``.
        layers: numbers of the layers; 0, 1, ... by default.
        seed: seeds the folds and the resampling.
        n_resamples: bootstrap resamples of held-out images.
        folds: folds of the cross-validation, grouped by image and stratified by label.
        c_grid: inverse L2 strengths to choose from.

    Raises:
        ShapeError: lengths or dtypes do not fit each other.
        NumericalError: a layer's features hold NaN or infinity.
        InputError: an image is on both sides of the split, an index is out of range, one class is
            missing, or either class occurs on fewer training images than there are folds.
    """
    features, labels, groups, tasks = _check_arrays(features, labels, groups, tasks)
    numbers = list(range(len(features))) if layers is None else [int(layer) for layer in layers]
    if len(numbers) != len(features):
        raise ShapeError(f"{len(numbers)} layer numbers for features of {len(features)} layers")
    if not c_grid or min(c_grid) <= 0:
        raise InputError(f"c_grid={tuple(c_grid)}; expected at least one positive number")
    train, heldout = check_split(labels, groups, train, heldout)
    parts = grouped_folds(labels[train], groups[train], folds, seed)

    with one_thread_if_small(features):
        chosen, validations = choose_layer(features[:, train], labels[train], parts, c_grid)
        fitted = [
            fit_probe(layer[train], labels[train], validation.c, groups[train])
            for layer, validation in zip(features, validations, strict=True)
        ]
    results, scores = [], []
    for number, layer, probe, validation in zip(
        numbers, features, fitted, validations, strict=True
    ):
        score = probe.scores(layer[heldout])
        estimate = auroc_interval(
            score, labels[heldout], groups[heldout], seed=seed, n_resamples=n_resamples
        )
        results.append(
            LayerResult(number, validation.c, validation.auroc, validation.fold_auroc, estimate)
        )
        scores.append(score)
    rows = task_results(
        labels[heldout], scores[chosen], groups[heldout], tasks[heldout], seed, n_resamples
    )
    return ProbeSweep(
        layers=tuple(results),
        chosen=chosen,
        probe=fitted[chosen],
        scores=scores[chosen],
        tasks=rows,
        heldout=heldout,
        train=train,
        n_train_images=len(np.unique(groups[train])),
        seed=seed,
        n_resamples=n_resamples,
    )


def choose_layer(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[Fold], c_grid: Sequence[float]
) -> tuple[int, list[CrossValidation]]:
    """Index of the layer with the best cross-validated AUROC (of equals the first), and each's.

    ``features`` are ``[layer, train, d]`` and ``labels`` ``[train]``: training examples only.
    """
    found = [cross_validate(np.asarray(x, np.float64), labels, folds, c_grid) for x in features]
    return int(np.argmax([round(result.auroc, 12) for result in found])), found


def task_results(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    tasks: np.ndarray,
    seed: int,
    n_resamples: int,
) -> tuple[TaskResult, ...]:
    """AUROC over all, within tasks pooled, and per task; a task of one class is an explicit gap."""
    settings = {"seed": seed, "n_resamples": n_resamples}
    n, right = len(labels), int(labels.sum())
    try:
        estimate = within_task_auroc_interval(scores, labels, tasks, groups, **settings)
        pooled = TaskResult("within tasks", n, right, estimate)
    except InputError as error:  # no task, or too few images, with both classes
        pooled = TaskResult("within tasks", n, right, None, str(error))
    rows = [
        _task_result(str(name), labels[inside], scores[inside], groups[inside], **settings)
        for name in np.unique(tasks)
        for inside in [np.flatnonzero(tasks == name)]
    ]
    return (_task_result("all", labels, scores, groups, **settings), pooled, *rows)


def check_split(
    labels: np.ndarray,
    groups: np.ndarray,
    train: Sequence[int] | np.ndarray,
    heldout: Sequence[int] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The two index arrays, checked: in range, no repeats, no shared image, both classes.

    Raises:
        InputError: any of these does not hold; the message names the offenders.
    """
    sides = {}
    for name, given in (("train", train), ("heldout", heldout)):
        index = np.asarray(given)
        if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
            raise InputError(
                f"{name} must be a non-empty list of example indices; given an array of shape "
                f"{index.shape} and dtype {index.dtype} (for a mask use np.flatnonzero(mask))"
            )
        if index.min() < 0 or index.max() >= len(labels):
            raise InputError(
                f"{name} holds indices from {index.min()} to {index.max()}; there are "
                f"{len(labels)} examples"
            )
        if len(np.unique(index)) != len(index):
            raise InputError(f"{name} holds an example more than once")
        if not 0 < labels[index].sum() < len(index):
            which = "right" if labels[index].all() else "wrong"
            raise InputError(
                f"all {len(index)} {name} answers are {which}; a probe for correctness needs right "
                "and wrong ones on both sides of the split: use more or other examples"
            )
        sides[name] = index
    shared = np.intersect1d(groups[sides["train"]], groups[sides["heldout"]])
    if len(shared):
        raise InputError(
            f"{len(shared)} images are on both sides of the split, e.g. {str(shared[0])!r}; "
            "split by image, or the probe is judged on images it was fitted on"
        )
    return sides["train"], sides["heldout"]


def _check_arrays(
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    tasks: Sequence[str] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    features, labels = np.asarray(features), np.asarray(labels)
    groups, tasks = np.asarray(groups), np.asarray(tasks)
    if features.ndim != 3 or 0 in features.shape or features.dtype.kind != "f":
        raise ShapeError(
            f"features of shape {features.shape} and dtype {features.dtype}; expected floats "
            "[layer, example, d]"
        )
    if labels.dtype != np.bool_:
        raise ShapeError(f"labels of dtype {labels.dtype}; expected booleans (right or wrong)")
    n = features.shape[1]
    for name, array in (("labels", labels), ("groups", groups), ("tasks", tasks)):
        if array.shape != (n,):
            raise ShapeError(f"{name} of shape {array.shape}; expected [{n}], one per example")
    for index, layer in enumerate(features):
        bad = int((~np.isfinite(layer)).sum())
        if bad:
            raise NumericalError(
                f"features of layer index {index} hold {bad} values that are NaN or infinite of "
                f"{layer.size}; half-precision overflow is the usual cause: capture in float32"
            )
    return features, labels, groups, tasks


def _task_result(
    task: str, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, **settings: int
) -> TaskResult:
    n, right = len(labels), int(labels.sum())
    if right in (0, n):
        gap = f"all {n} held-out answers are {'right' if right else 'wrong'}; no AUROC exists"
        return TaskResult(task, n, right, None, gap)
    try:
        return TaskResult(task, n, right, auroc_interval(scores, labels, groups, **settings))
    except InputError as error:  # too few images with the rarer class to resample
        return TaskResult(task, n, right, None, str(error))
