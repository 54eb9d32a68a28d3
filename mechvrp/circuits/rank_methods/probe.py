"""Ranking by the weights of a linear probe with an L2 penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    cross_validate,
    fit_probe,
    one_thread_if_small,
)
from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores
from mechvrp.circuits.rank_methods.scales import (
    Per,
    check_per,
    counted_in,
    scores_of_weights,
    units_of_scale,
)
from mechvrp.errors import InputError

__all__ = ["ProbeWeight"]


@dataclass(frozen=True)
class ProbeWeight(RankingMethod):
    """The weight of each unit in one L2-penalised logistic regression on all units of all sites.

    Its strength is chosen by cross-validation grouped by image. With correlated units L2 spreads weight
    among them: the ranking says what this probe reads, not what is necessary.

    Attributes:
        c_grid: inverse strengths to choose from, scikit-learn's ``C``.
        per: what weights are counted in (module `scales`).
    """

    name: ClassVar[str] = "probe"
    labelled: ClassVar[bool] = True
    fitted: ClassVar[bool] = True

    c_grid: Sequence[float] = DEFAULT_C_GRID
    per: Per = "standard deviation"

    def __post_init__(self) -> None:
        if not len(self.c_grid) or min(self.c_grid) <= 0:
            raise InputError(f"c_grid={tuple(self.c_grid)}; expected at least one positive number")

    def check(self, task: RankingTask) -> None:
        check_per(task, self.per)

    def score(self, task: RankingTask) -> UnitScores:
        x, truth = task.features, task.labels
        units = units_of_scale(task, self.per)

        def scores(rows: np.ndarray, c: float) -> np.ndarray:
            probe = fit_probe(x[rows], truth[rows], c)
            return scores_of_weights(task, probe.coef, probe.scale, rows, self.per, units)

        with one_thread_if_small(x):
            found = cross_validate(x, truth, task.folds, self.c_grid)
            whole = scores(np.arange(len(x)), found.c)
            by_fold = np.stack([scores(rest, found.c) for rest, _ in task.folds])
        return UnitScores(
            whole,
            f"probe weight per {counted_in(task, self.per)} (L2, C = {found.c:g})",
            by_fold,
            {
                "c": found.c,
                "c_grid": list(self.c_grid),
                "cv_auroc": found.auroc,
                "per": counted_in(task, self.per),
            },
        )
