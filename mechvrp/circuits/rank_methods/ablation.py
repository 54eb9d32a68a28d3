"""Ranking by what each unit's mean ablation does, exactly: one variant of a sweep for each unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mechvrp.circuits.image_groups import images_of
from mechvrp.circuits.rank_methods.attribution import mean_by_fold
from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores, means_of
from mechvrp.circuits.rank_methods.gradients import Answer, answer_of, check_answer
from mechvrp.circuits.units import edit_units, units_at
from mechvrp.errors import InputError, NumericalError
from mechvrp.patching.interventions import Edits
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample

__all__ = ["AblationEffect"]


@dataclass(frozen=True)
class AblationEffect(RankingMethod):
    """Mean over examples of how much the measure falls when the unit alone takes its mean value.

    Exact, a variant of ``mechvrp.sweep`` for each unit: at the last position these are cheap; image features
    cost the whole decoder from the first image token on, each. Above 0 the unit speaks for the answer.
    Units ablated one by one can hide one another: what two of them carry both, neither loses alone.

    Attributes:
        reference: samples the mean is over; by default the examples themselves.
        measure, target: as `Attribution`'s; the best other token of ``"logit_diff"`` is each run's own.
        memory: as ``mechvrp.sweep``.
    """

    name: ClassVar[str] = "ablation"

    reference: Sequence[Sample] | None = None
    measure: str = "logit_diff"
    target: Answer = "own"
    memory: int = MEMORY

    def __post_init__(self) -> None:
        check_answer(self.measure, self.target)
        if self.reference is not None and not len(self.reference):
            raise InputError("reference holds no samples to take the mean over")

    def check(self, task: RankingTask) -> None:
        answer_of(task.samples, self.target)

    def score(self, task: RankingTask) -> UnitScores:
        model = task.model
        reference = task.samples if self.reference is None else tuple(self.reference)
        means = means_of(model, reference, task)
        variants: list[Edits] = [
            edit_units(site, [unit], means[site])
            for site in task.sites
            for unit in range(units_at(model, site))
        ]
        parts = []
        for chunk in in_batches(task.samples, task.batch_size, task.progress, "ablating"):
            found = sweep(
                model,
                model.encode(chunk),
                variants,
                self.measure,
                target=self.target,
                memory=self.memory,
                progress=False,
            )
            if failed := [str(error) for error in found["error"].values if error]:
                raise NumericalError(
                    f"{len(failed)} of {len(variants)} ablations failed: {failed[0]}"
                )
            after, before = found[self.measure].values, found[f"base_{self.measure}"].values
            parts.append((before - after).T)  # [example, variant]
        each = np.concatenate(parts).astype(np.float64)
        own = self.reference is None
        return UnitScores(
            each.mean(0),
            f"mean ablation's effect on the {self.target} answer's {self.measure}",
            mean_by_fold(task, each),
            {
                "measure": self.measure,
                "target": self.target,
                "mean_over": "the examples" if own else f"{len(reference)} other samples",
            },
            images=images_of(reference),
        )
