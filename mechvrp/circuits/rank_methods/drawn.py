"""Random scores: what any ranking must beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores

__all__ = ["RandomScores"]


@dataclass(frozen=True)
class RandomScores(RankingMethod):
    """Standard normal scores, which depend on the seed and the sites only: made from no image."""

    name: ClassVar[str] = "random"
    reads: ClassVar[bool] = False

    def score(self, task: RankingTask) -> UnitScores:
        where = zlib.crc32(" ".join(map(str, task.sites)).encode())
        rng = np.random.default_rng([task.seed, where])
        return UnitScores(rng.standard_normal(task.rows), f"random (seed {task.seed})")
