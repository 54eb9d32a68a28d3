"""Ranking by gradient times clean-minus-corrupted: each unit's patch, estimated to first order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from mechvrp.circuits.image_groups import connected, images_of
from mechvrp.circuits.rank_methods.attribution import mean_by_fold
from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores
from mechvrp.circuits.rank_methods.gradients import (
    Answer,
    answer_of,
    check_answer,
    gradients_at,
    unit_sums,
)
from mechvrp.circuits.sample_checks import check_questions
from mechvrp.errors import InputError, NumericalError
from mechvrp.models.tokens import integers
from mechvrp.patching.alignment import check_aligned, check_direction
from mechvrp.patching.attribution import attribution_patching
from mechvrp.patching.grids import values_of
from mechvrp.patching.measures import fixed_target
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import Batch

__all__ = ["PairAttribution"]


@dataclass(frozen=True)
class PairAttribution(RankingMethod):
    """Mean over pairs of gradient times (clean minus corrupted activation): attribution patching of units.

    ``mechvrp.patching.attribution_patching`` with a patch per unit, at the last position (image features: at
    all image tokens). Above 0 what the clean run has there speaks for the clean run's answer.

    Attributes:
        corrupted: one aligned sample for each, as ``mechvrp.data.counterfactual_pair`` makes them.
        measure: as `Attribution`'s.
        target: the answer, of the clean samples: the model's ``"own"`` or the ``"right"`` one.
        direction: the run whose gradient is taken: the corrupted one (``"denoise"``: clean values patched
            in), or the clean one (``"noise"``). Scores have one sign in both.
        steps: 1, or the number of points between the two runs that the gradient is averaged over.
        same_question: refuse pairs whose sides ask different questions; False allows them, of equal length.

    Pairs that share an image, on whichever side, are in one fold (`mechvrp.circuits.Pairs.groups`).
    """

    name: ClassVar[str] = "attribution of a pair"

    corrupted: Sequence[Sample] = ()
    measure: str = "logit_diff"
    target: Answer = "own"
    direction: Literal["denoise", "noise"] = "denoise"
    steps: int = 1
    same_question: bool = True

    def __post_init__(self) -> None:
        check_answer(self.measure, self.target)
        check_direction(self.direction)
        if integers("steps", self.steps)[0] < 1:
            raise InputError(f"steps must be at least 1; got {self.steps}")
        if not len(self.corrupted):
            raise InputError(
                "attribution of a pair needs corrupted=, one aligned sample for each of the samples "
                "(mechvrp.data.counterfactual_pair makes them for digit scenes)"
            )

    def groups(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        if len(self.corrupted) != len(samples):
            raise InputError(
                f"{len(samples)} samples and {len(self.corrupted)} corrupted ones; give one for each"
            )
        sides = zip(samples, self.corrupted, strict=True)
        return connected([one.source_id for one in samples], [images_of(pair) for pair in sides])

    def check(self, task: RankingTask) -> None:
        answer_of(task.samples, self.target)
        if self.same_question:
            check_questions(zip(task.samples, self.corrupted, strict=True))
        for clean, corrupted in self._batches(task):
            check_aligned(clean, corrupted)

    def score(self, task: RankingTask) -> UnitScores:
        measure = _projected if task.sites[0].kind.where == "projector" else _in_blocks
        each = np.concatenate(
            [measure(self, task, clean, corrupted) for clean, corrupted in self._batches(task)]
        ).astype(np.float64)
        if not np.isfinite(each).all():
            raise NumericalError("attributions of pairs are NaN or infinite")
        at = "corrupted" if self.direction == "denoise" else "clean"
        return UnitScores(
            each.mean(0),
            f"gradient (at the {at} run) x (clean - corrupted) of the {self.target} answer's "
            f"{self.measure}",
            mean_by_fold(task, each),
            {
                "measure": self.measure,
                "target": self.target,
                "direction": self.direction,
                "steps": self.steps,
            },
            images=images_of(self.corrupted),
        )

    def _batches(self, task: RankingTask) -> Iterator[tuple[Batch, Batch]]:
        encode, size = task.model.encode, task.batch_size
        for first, second in zip(
            in_batches(task.samples, size), in_batches(self.corrupted, size), strict=True
        ):
            yield encode(first), encode(second)


def _in_blocks(
    method: PairAttribution, task: RankingTask, clean: Batch, corrupted: Batch
) -> np.ndarray:
    """``[example, row]``."""
    component = task.sites[0].component
    found = attribution_patching(
        task.model,
        clean,
        corrupted,
        component,
        over="head" if task.heads else "unit",
        positions="last",
        layers=[site.layer or 0 for site in task.sites],
        direction=method.direction,
        measure=method.measure,
        target=method.target,
        steps=method.steps,
    )
    values = found.estimates[component].values  # [layer, unit, example]
    sign = 1 if method.direction == "denoise" else -1
    return np.asarray(sign * values.reshape(-1, values.shape[-1]).T)


def _projected(
    method: PairAttribution, task: RankingTask, clean: Batch, corrupted: Batch
) -> np.ndarray:
    """``[example, row]``; the patches of ``attribution_patching`` lie in the blocks, these in front."""
    (site,), model = task.sites, task.model
    values, logits = values_of(model, clean, [site])
    others, _ = values_of(model, corrupted, [site])
    target = fixed_target(model, clean, logits, method.target)
    into, start, end = (
        (corrupted, others[site], values[site])
        if method.direction == "denoise"
        else (clean, values[site], others[site])
    )
    gradient = torch.zeros_like(start)
    for step in range(method.steps):
        share = 0.0 if method.steps == 1 else (step + 0.5) / method.steps
        found = gradients_at(
            model,
            into,
            [site],
            method.measure,
            target,
            clean=logits,
            start=start + share * (end - start),
        )
        gradient += found.gradients[site] / method.steps
    return unit_sums(site, gradient * (values[site] - others[site]), clean).cpu().numpy()
