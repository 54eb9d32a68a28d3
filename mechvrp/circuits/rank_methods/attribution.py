"""Ranking by gradient times activation: each unit's ablation, estimated to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores, means_of
from mechvrp.circuits.rank_methods.gradients import (
    Answer,
    answer_of,
    check_answer,
    gradients_at,
    unit_sums,
)
from mechvrp.errors import InputError
from mechvrp.tracing.caching import in_batches

__all__ = ["Attribution", "mean_by_fold"]


@dataclass(frozen=True)
class Attribution(RankingMethod):
    """Mean over examples of gradient times (activation minus baseline), summed over a unit's positions.

    The first-order estimate of how much the measure would fall if the unit were set to its baseline: above
    0 the unit speaks for the answer. Examples need not be told right from wrong.

    Attributes:
        measure: ``"logit_diff"`` (the answer's logit minus the best other token's), ``"logit"`` or
            ``"probability"``.
        target: the answer: the model's ``"own"``, right or wrong, or the ``"right"`` one.
        baseline: ``"zero"``: gradient times activation, an estimate of zero ablation; ``"mean"``: the
            unit's mean over the examples (and image tokens), an estimate of mean ablation.
    """

    name: ClassVar[str] = "attribution"

    measure: str = "logit_diff"
    target: Answer = "own"
    baseline: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        check_answer(self.measure, self.target)
        if self.baseline not in ("zero", "mean"):
            raise InputError(f"baseline is 'zero' or 'mean'; got {self.baseline!r}")

    def check(self, task: RankingTask) -> None:
        answer_of(task.samples, self.target)

    def score(self, task: RankingTask) -> UnitScores:
        means = means_of(task.model, task.samples, task) if self.baseline == "mean" else {}
        parts = []
        for chunk in in_batches(task.samples, task.batch_size, task.progress, "attributing"):
            batch = task.model.encode(chunk)
            found = gradients_at(task.model, batch, task.sites, self.measure, self.target)
            sums = []
            for site in task.sites:
                value = found.values[site]
                if site in means:
                    value = value - means[site].to(value)
                sums.append(unit_sums(site, found.gradients[site] * value, batch).cpu().numpy())
            parts.append(np.concatenate(sums, axis=1))
        each = np.concatenate(parts).astype(np.float64)
        words = "activation" if self.baseline == "zero" else "(activation - mean)"
        return UnitScores(
            each.mean(0),
            f"gradient x {words} of the {self.target} answer's {self.measure}",
            mean_by_fold(task, each),
            {"measure": self.measure, "target": self.target, "baseline": self.baseline},
        )


def mean_by_fold(task: RankingTask, each: np.ndarray) -> np.ndarray | None:
    """Means ``[fold, row]`` over the training part of each fold of values ``[example, row]``."""
    return np.stack([each[rest].mean(0) for rest, _ in task.folds]) if task.folds else None
