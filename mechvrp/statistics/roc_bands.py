"""ROC curves with a band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.checks import group_codes, require_both, scored
from mechvrp.statistics.descending import descending, running_totals
from mechvrp.statistics.estimate import Estimate
from mechvrp.statistics.roc import auroc_interval

__all__ = ["RocBand", "roc_band"]

# Weights of one block of resamples, at 8 bytes each: 32 MB.
_BLOCK = 4_000_000


@dataclass(frozen=True, eq=False)
class RocBand:
    """A ROC curve with its band. Made by `roc_band`.

    Attributes:
        curve: corners of the curve, ``[corner, 2]``: false positive rate, true positive rate.
        rates: false positive rates at which the band is given.
        low, high: ends of the band of the true positive rate there, one rate at a time (not simultaneous);
            None where the classes are perfectly separated, since so is every resample.
        area: AUROC with its interval.
        n_positive, n_negative: rows of either class.
    """

    curve: NDArray[np.float64]
    rates: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None
    area: Estimate
    n_positive: int
    n_negative: int


def roc_band(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    points: int = 101,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> RocBand:
    """The ROC curve, and a percentile band of its height by resampling whole groups (images).

    Vertical averaging (Fawcett 2006, doi 10.1016/j.patrec.2005.10.010, section 10.1): at each false positive
    rate the true positive rates of all resamples. Corners of equal scores are joined by straight lines, as
    AUROC counts ties by half.

    Args:
        scores: ``[n]``, higher for positives.
        labels: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        points: false positive rates of the band, evenly from 0 to 1.
        n_resamples, level, seed: of the bootstrap. Resamples of one class only are drawn again.

    Raises:
        InputError: lengths differ, labels other than 0 and 1, one class only, fewer than two groups, a bad
            setting, or more than half of the resamples have one class only.
        NumericalError: NaN or infinity in the scores.
    """
    values, truth = scored(scores, labels)
    require_both(truth, "a ROC curve")
    if points < 2:
        raise InputError(f"points must be at least 2; got {points}")
    settings = {"n_resamples": n_resamples, "level": level, "seed": seed}
    area = auroc_interval(values, truth, groups, **settings)
    order, starts = descending(values)
    rates = np.linspace(0, 1, points)
    x, y = _corners(np.ones((1, len(truth))), truth, order, starts)
    low = high = None
    if area.value not in (0.0, 1.0):
        drawn = _resampled(truth, groups, order, starts, rates, n_resamples, seed)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    n = int(truth.sum())
    return RocBand(np.stack([x[0], y[0]], axis=-1), rates, low, high, area, n, len(truth) - n)


def _corners(
    weights: NDArray[np.float64],
    truth: NDArray[np.bool_],
    order: NDArray[np.intp],
    starts: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``[resample, corner]`` false and true positive rates from (0, 0) on; NaN where a class is missing."""
    rates = []
    for rows in (~truth, truth):
        total = running_totals(rows, weights, order, starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = total / total[:, -1:]
        rates.append(np.concatenate([np.zeros((len(share), 1)), share], axis=1))
    return rates[0], rates[1]


def _resampled(
    truth: NDArray[np.bool_],
    groups: ArrayLike | None,
    order: NDArray[np.intp],
    starts: NDArray[np.intp],
    rates: NDArray[np.float64],
    n_resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """``[resample, rate]`` heights of the curves of as many resamples with both classes."""
    codes, n_groups = group_codes(groups, len(truth))
    rng, shares = np.random.default_rng(seed), np.full(n_groups, 1 / n_groups)
    block = max(1, _BLOCK // max(len(truth), n_groups))
    kept: list[NDArray[np.float64]] = []
    drawn = 0
    while len(kept) < n_resamples:
        if drawn >= 100 and len(kept) < drawn / 2:
            raise InputError(
                f"{drawn - len(kept)} of {drawn} resamples of {n_groups} groups have one class only: use "
                "more images"
            )
        counts = rng.multinomial(n_groups, shares, size=min(block, n_resamples - len(kept)))
        x, y = _corners(counts[:, codes].astype(np.float64), truth, order, starts)
        drawn += len(x)
        for across, up in zip(x, y, strict=True):
            if np.isfinite(across[-1]) and np.isfinite(up[-1]):
                kept.append(_height(across, up, rates))
    return np.stack(kept)


def _height(
    x: NDArray[np.float64], y: NDArray[np.float64], rates: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Height of a curve at some rates; at a vertical step its upper end, and 0 or more at rate 0."""
    # np.interp takes any of several corners at one x; the last of them is the upper end.
    last = np.r_[np.diff(x) > 0, True]
    return np.interp(rates, x[last], y[last])
