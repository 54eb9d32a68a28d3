"""Ranking by the weights of a linear probe with an L1 penalty, and the path along which they enter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechvrp.circuits.logistic import one_thread_if_small
from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores
from mechvrp.circuits.rank_methods.scales import (
    Per,
    check_per,
    counted_in,
    scores_of_weights,
    units_of_scale,
)
from mechvrp.circuits.readouts import Fit, best_of, validate
from mechvrp.circuits.sparse_logistic import fit_sparse, least_c
from mechvrp.errors import InputError

__all__ = ["SparseProbeWeight"]

#: Multiples of the C below which every weight is zero: from the first weights to most of them.
_MULTIPLES = (1.1, 1.5, 2.0, 3.0, 4.5, 6.0, 9.0, 12.0, 18.0, 25.0, 50.0)


@dataclass(frozen=True)
class SparseProbeWeight(RankingMethod):
    """The weight of each unit in one L1-penalised logistic regression on all units of all sites.

    The strength is chosen by cross-validation grouped by image; of equals the sparser. Most units then have
    a weight of exactly 0; among these the unit that enters first as the penalty is relaxed comes first, then
    that of the larger weight where it enters. Of two correlated units L1 takes one and leaves the other
    at 0, so 0 is not "does nothing": of eight planted neurons that say nearly the same (`plant_circuit`, four
    plants in tiny-llava) it put four to eight on top, where the L2 probe finds all.

    Settings hold the path: of each strength ``c``, its number of weights that are not 0 (``nonzero``) and
    its ``cv_auroc``. Columns: ``entered``, at which strength of the path a unit enters (-1: at none), and
    ``selected``, the share of folds whose fit gives it a weight.

    Attributes:
        multiples: strengths to choose from, as multiples (above 1) of the C below which all weights are 0.
        per: what weights are counted in (module `scales`).
    """

    name: ClassVar[str] = "sparse probe"
    labelled: ClassVar[bool] = True
    fitted: ClassVar[bool] = True

    multiples: Sequence[float] = _MULTIPLES
    per: Per = "standard deviation"

    def __post_init__(self) -> None:
        if not len(self.multiples) or min(self.multiples) <= 1:
            raise InputError(f"multiples={tuple(self.multiples)}; expected numbers above 1")

    def check(self, task: RankingTask) -> None:
        check_per(task, self.per)

    def score(self, task: RankingTask) -> UnitScores:
        x, truth, seed = task.features, task.labels, task.seed
        units = units_of_scale(task, self.per)

        def fit(c: float) -> Fit:
            return lambda features, labels: fit_sparse(features, labels, c, seed).scores

        with one_thread_if_small(x):
            grid = [least_c(x, truth) * multiple for multiple in sorted(self.multiples)]
            validated = [validate(c, fit(c), x, truth, task.folds) for c in grid]
            path = [fit_sparse(x, truth, c, seed) for c in grid]
            chosen = best_of(validated).choice
            refits = [fit_sparse(x[rest], truth[rest], chosen, seed) for rest, _ in task.folds]
        probe = path[grid.index(chosen)]
        whole = scores_of_weights(task, probe.coef, probe.scale, np.arange(len(x)), self.per, units)
        by_fold = [
            scores_of_weights(task, fit.coef, fit.scale, rest, self.per, units)
            for fit, (rest, _) in zip(refits, task.folds, strict=True)
        ]
        sizes = np.stack([task.by_unit(np.abs(fit.coef)) for fit in path])
        entered, ties = _entries(sizes)
        selected = np.mean([task.by_unit(np.abs(fit.coef)) > 0 for fit in refits], axis=0)
        kept = int((sizes[grid.index(chosen)] > 0).sum())
        return UnitScores(
            whole,
            f"probe weight per {counted_in(task, self.per)} (L1, C = {chosen:.3g}, {kept} of "
            f"{task.rows} units)",
            np.stack(by_fold),
            {
                "c": chosen,
                "nonzero": kept,
                "cv_auroc": best_of(validated).auroc,
                "per": counted_in(task, self.per),
                "path": [
                    {"c": one.choice, "nonzero": int((size > 0).sum()), "cv_auroc": one.auroc}
                    for one, size in zip(validated, sizes, strict=True)
                ],
            },
            {"entered": entered, "selected": selected},
            ties,
        )


def _entries(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At which step ``[step, row]`` each row is first above 0 (-1: never), and its order, higher is earlier."""
    inside = sizes > 0
    entered = np.where(inside.any(0), inside.argmax(0), -1)
    at_entry = np.where(entered >= 0, sizes[entered, np.arange(sizes.shape[1])], 0.0)
    late = np.where(entered >= 0, entered, len(sizes))
    ties = np.empty(sizes.shape[1])
    ties[np.lexsort((-at_entry, late))] = -np.arange(sizes.shape[1])
    return entered, ties
