"""Mean changes of a measure over examples, with intervals over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mechvrp.statistics import group_means

if TYPE_CHECKING:
    from mechvrp.models import Batch

__all__ = ["batch_images", "mean_changes"]


def mean_changes(
    change: np.ndarray, batch: Batch, *, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over examples of changes [..., example], and the ends of its 95 % interval.

    Whole images are resampled, with those made from them; of one image there is no interval (NaN).
    """
    groups = None if batch.samples is None else [s.source_id for s in batch.samples]
    mean = change.mean(-1)
    if batch_images(batch) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    found = group_means(np.moveaxis(change, -1, 0), groups, n_resamples=n_resamples, seed=seed)
    return mean, found.low, found.high


def batch_images(batch: Batch) -> int:
    """How many images a batch is of; without samples each example counts as one of its own."""
    return len(batch) if batch.samples is None else len({s.source_id for s in batch.samples})
