"""What an intervention changed, and beside it the draws of its control: intervals that know of draws."""

from __future__ import annotations

import numpy as np

from mechvrp.circuits.crossed import Crossed
from mechvrp.statistics import Estimate, group_means
from mechvrp.statistics.drawn import not_narrower

__all__ = ["against_draws", "mean_change"]


def mean_change(
    change: np.ndarray, groups: np.ndarray, *, seed: int = 0, n_resamples: int = 2000
) -> Estimate:
    """The mean of changes ``[example]``, with a 95 % interval over images (``groups``, ids)."""
    mean, low, high = group_means(change, groups, seed=seed, n_resamples=n_resamples)
    return Estimate(
        float(mean), float(low), float(high), len(change), len(np.unique(groups)), 0.95,
        "bootstrap by group, percentile",
    )  # fmt: skip


def against_draws(
    change: np.ndarray,
    drawn: np.ndarray,
    groups: np.ndarray,
    *,
    over_draws: bool,
    accuracy: bool = False,
    seed: int = 0,
    n_resamples: int = 2000,
) -> tuple[Estimate, Estimate]:
    """The control's mean change, and the change minus it, with 95 % intervals.

    Args:
        change: ``[example]``, what the intervention changed.
        drawn: ``[draw, example]``, what each draw of the control did. A draw is resampled whole, so it may be
            one for all examples or one per batch: either way draws are independent of each other.
        groups: ``[example]``, image ids.
        over_draws: resample draws as well as images, independently. False where the draws are all there are,
            or where there is one, which says nothing of others.
        accuracy: changes are of right (1) and wrong (0); the estimates are then in percentage points, and
            their intervals never narrower than Bonett and Price's.
        seed, n_resamples: of the resampling.
    """
    crossed = Crossed(groups, seed=seed, n_resamples=n_resamples)
    beside = drawn.mean(axis=0, dtype=np.float64)
    resampled = crossed.drawn(drawn[:, None])[:, 0] if over_draws else crossed.means(beside)
    scale = 100.0 if accuracy else 1.0
    lead = change - beside
    found = (
        (beside, crossed.estimate(scale * beside.mean(), scale * resampled, draws=over_draws)),
        (
            lead,
            crossed.estimate(
                scale * lead.mean(), scale * (crossed.means(change) - resampled), draws=over_draws
            ),
        ),
    )
    control, excess = (not_narrower(e, share) if accuracy else e for share, e in found)
    return control, excess
