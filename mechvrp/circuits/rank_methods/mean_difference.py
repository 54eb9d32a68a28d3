"""Ranking by the standardised difference between right and wrong answers, with a test of each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import stats

from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores
from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics import benjamini_hochberg

__all__ = ["MeanDifference", "image_test", "standardised_difference"]


@dataclass(frozen=True)
class MeanDifference(RankingMethod):
    """Hedges' g of each unit: mean over right answers minus mean over wrong ones, in standard deviations.

    Each unit by itself, whatever the others do. Columns: ``difference`` in units of activation, ``p`` of
    `image_test`, and ``q``, the same adjusted for the number of units (Benjamini and Hochberg 1995). A unit
    that never changes has a difference of 0 and p = 1.

    A head's output is a vector: the size of its score is the root mean square of g over its dimensions, its
    sign that of the difference in the length of its output (above 0: the head writes more where the answer
    is right), and its p is ``d_head`` times the least of its dimensions' (Bonferroni), at most 1.
    """

    name: ClassVar[str] = "mean difference"
    labelled: ClassVar[bool] = True

    def check(self, task: RankingTask) -> None:
        if task.truth is None:
            return  # checked again when answers are known
        for name, inside in (("right", task.labels), ("wrong", ~task.labels)):
            images = len(np.unique(task.groups[inside]))
            if images < 2:
                raise InputError(
                    f"{name} answers occur on {images} image; a difference with a test needs at least 2"
                )

    def score(self, task: RankingTask) -> UnitScores:
        x, truth = task.features, task.labels
        p = image_test(x, truth, task.groups)
        columns: dict[str, np.ndarray] = {}
        if task.heads:
            p = np.minimum(1.0, task.model.d_head * p.reshape(task.rows, -1).min(-1))
        else:
            columns["difference"] = x[truth].mean(0) - x[~truth].mean(0)
        columns |= {"p": p, "q": benjamini_hochberg(p)}
        by_fold = [self._scores(task, rest) for rest, _ in task.folds]
        return UnitScores(
            self._scores(task, np.arange(len(x))),
            "standardised mean difference (Hedges' g)",
            np.stack(by_fold) if by_fold else None,
            {"test": "delete-one-image jackknife, Student's t"},
            columns,
        )

    @staticmethod
    def _scores(task: RankingTask, rows: np.ndarray) -> np.ndarray:
        x, truth = task.features[rows], task.labels[rows]
        found = standardised_difference(x, truth)
        if not task.heads:
            return found
        size = np.sqrt((found.reshape(task.rows, -1) ** 2).mean(-1))
        length = np.sqrt(task.by_unit(x**2))
        return np.asarray(size * np.sign(length[truth].mean(0) - length[~truth].mean(0)))


def standardised_difference(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Hedges' g ``[column]`` of ``x`` ``[example, column]``: right minus wrong (Hedges 1981, eq. 6e).

    Cohen's d with the pooled standard deviation, times ``1 - 3 / (4 (n - 2) - 1)``, which takes most of
    its bias away.

    Raises:
        NumericalError: a column is constant within both classes and differs between them.
    """
    right, wrong = x[truth], x[~truth]
    difference = right.mean(0) - wrong.mean(0)
    freedom = len(x) - 2
    squares = ((right - right.mean(0)) ** 2).sum(0) + ((wrong - wrong.mean(0)) ** 2).sum(0)
    pooled = np.sqrt(squares / max(freedom, 1))
    still = np.ptp(x, axis=0) == 0
    within = (np.ptp(right, axis=0) == 0) & (np.ptp(wrong, axis=0) == 0) & ~still
    if within.any():
        raise NumericalError(
            f"{int(within.sum())} units (the first: {int(within.argmax())}) have one value in all right "
            "answers and another in all wrong ones: their standardised difference is infinite; use "
            "method='probe', or more examples"
        )
    correction = 1 - 3 / (4 * freedom - 1)
    return np.asarray(np.where(still, 0.0, difference / np.where(still, 1.0, pooled)) * correction)


def image_test(x: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """p ``[column]`` that right and wrong answers have one mean, images being the units of chance.

    The difference of means over its standard error from leaving out one image with all its questions at a
    time (the cluster jackknife, CR3; MacKinnon, Nielsen and Webb 2023), against Student's t with as many
    degrees of freedom as images of the rarer class, less one: rather too few, so that p is rather too large.

    Args:
        x: ``[example, column]``.
        truth: booleans ``[example]``.
        groups: ``[example]``, image ids; each class on two images at least.
    """
    names, codes = np.unique(groups, return_inverse=True)
    sides = np.where(truth, 0, 1)
    sums, counts = np.zeros((2, len(names), x.shape[1])), np.zeros((2, len(names), 1))
    np.add.at(sums, (sides, codes), x)
    np.add.at(counts, (sides, codes), 1)
    left = (sums.sum(1, keepdims=True) - sums) / (counts.sum(1, keepdims=True) - counts)
    without = left[0] - left[1]
    difference = x[truth].mean(0) - x[~truth].mean(0)
    error = np.sqrt((len(names) - 1) / len(names) * ((without - difference) ** 2).sum(0))
    images = int(min((counts[0] > 0).sum(), (counts[1] > 0).sum()))
    still = np.ptp(x, axis=0) == 0
    t = np.where(still, 0.0, difference / np.where(still | (error == 0), 1.0, error))
    return np.asarray(2 * stats.t.sf(np.abs(t), images - 1))
