"""What methods of ranking share: the task they are set, what they give back, and their interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from mechvrp.circuits.logistic import Fold
from mechvrp.circuits.units import UNIT_KINDS, UnitKind, kind_of, units_at
from mechvrp.tracing.activations import Activations
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["RankingMethod", "RankingTask", "UnitScores", "means_of"]


@dataclass(frozen=True, eq=False)
class RankingTask:
    """What is to be ranked, and from which examples. Made by ``rank_units``, which checks everything.

    Attributes:
        model: from ``mechvrp.load``.
        samples: the examples the ranking is made from.
        sites: of one component, in order of computation.
        groups: ``[example]``, image ids; of images that belong together, of one (`RankingMethod.groups`).
        folds: of the cross-validation, as pairs of indices; no group is on both sides. Empty: none.
        n_folds: how many there were to be; folds without both classes are left out.
        seed: of what is random.
        batch_size: examples a forward.
        progress: show a bar.
        truth: booleans ``[example]``, whether each answer is right; None for methods that need none.
    """

    model: VLM
    samples: tuple[Sample, ...]
    sites: tuple[Site, ...]
    groups: np.ndarray
    folds: tuple[Fold, ...] = ()
    n_folds: int = 0
    seed: int = 0
    batch_size: int = 32
    progress: bool = False
    truth: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """Booleans ``[example]``, of a method that needs them."""
        assert self.truth is not None
        return self.truth

    @property
    def kind(self) -> UnitKind:
        """What the units are."""
        return kind_of(self.sites[0])

    @property
    def heads(self) -> bool:
        """Whether a unit is a head: a vector of ``d_head`` numbers, not a number."""
        return UNIT_KINDS[self.kind].heads

    @property
    def positions(self) -> Any:
        """Where activations are read."""
        return UNIT_KINDS[self.kind].positions

    @property
    def rows(self) -> int:
        """Units of all sites together."""
        return units_at(self.model, self.sites[0]) * len(self.sites)

    @cached_property
    def features(self) -> np.ndarray:
        """Activations ``[example, column]``: all units of the first site, then of the next.

        A head has ``d_head`` columns. Of image features each is the mean over the image's tokens.

        Raises:
            NumericalError: NaN or infinity among them.
        """
        acts = cache(
            self.model,
            self.samples,
            list(self.sites),
            positions=self.positions,
            dtype=torch.float32,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        return np.concatenate([_by_example(acts, site) for site in self.sites], axis=1)

    def by_unit(self, values: np.ndarray) -> np.ndarray:
        """``[..., column]`` summed over the columns of each unit, ``[..., row]``."""
        if not self.heads:
            return values
        return np.asarray(values.reshape(*values.shape[:-1], self.rows, -1).sum(-1))


@dataclass(frozen=True, eq=False)
class UnitScores:
    """What a method found.

    Attributes:
        scores: ``[row]``, signed.
        words: what made them, in a few words.
        by_fold: ``[fold, row]``, the same from each fold's training part alone; None: no interval.
        settings: what was asked for and chosen, in JSON's types.
        columns: ``[row]`` by name, what else is known of each unit.
        ties: as ``Ranking.ties``.
        images: ids of further images that had a part in it.
    """

    scores: np.ndarray
    words: str
    by_fold: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    ties: np.ndarray | None = None
    images: frozenset[str] = frozenset()


class RankingMethod(ABC):
    """A way to score units; its options are its fields. Instances are given to ``rank_units`` by name.

    Attributes:
        name: as in ``rank_units(..., method=name)``.
        labelled: whether it needs to know which answers are right.
        fitted: whether it chooses by cross-validation, so that it cannot do without folds.
        reads: whether the examples have a part in it at all.
    """

    name: ClassVar[str]
    labelled: ClassVar[bool] = False
    fitted: ClassVar[bool] = False
    reads: ClassVar[bool] = True

    def groups(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """A group for each sample: those of one group are no independent evidence, and in one fold."""
        return tuple(sample.source_id for sample in samples)

    def check(self, task: RankingTask) -> None:  # noqa: B027 (most need nothing)
        """Raise if the task cannot be done, before anything is computed."""

    @abstractmethod
    def score(self, task: RankingTask) -> UnitScores:
        """Score every unit."""


def means_of(
    model: VLM, samples: tuple[Sample, ...], task: RankingTask
) -> dict[Site, torch.Tensor]:
    """The mean of each site over examples (and image tokens): ``[d]``, or ``[head, d_head]``."""
    acts = cache(
        model,
        samples,
        list(task.sites),
        positions=task.positions,
        batch_size=task.batch_size,
        progress=task.progress,
    )
    return {site: acts.flat(site).double().mean(0).float() for site in task.sites}


def _by_example(acts: Activations, site: Site) -> np.ndarray:
    values = acts.flat(site).double()
    if acts.positions == "last":
        return values.flatten(1).numpy()
    rows = acts.rows(site)
    sums = values.new_zeros(len(rows.counts), values.shape[1]).index_add_(0, rows.example, values)
    return (sums / rows.counts[:, None]).numpy()
