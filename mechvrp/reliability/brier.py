"""The Brier score in parts: how calibrated a confidence is, how much it tells, how hard the data are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.reliability.calibration import Binning, bin_codes, checked_confidence
from mechvrp.statistics import Estimate, group_bootstrap_all

__all__ = ["BrierDecomposition", "decompose_brier"]


@dataclass(frozen=True)
class BrierDecomposition:
    """``brier = reliability - resolution + uncertainty + residual``, exactly.

    Attributes:
        brier: mean squared difference of confidence and correctness.
        reliability: mean over bins of (mean confidence - accuracy)^2; 0 is calibrated, small is good.
            In a finite sample it is above 0 even then.
        resolution: mean over bins of (accuracy in the bin - accuracy)^2: how far the confidence tells
            easy from hard; large is good.
        uncertainty: accuracy times (1 - accuracy): the Brier score of always saying the accuracy.
        residual: what binning hides: variance of confidence within bins less twice its covariance
            with correctness there. 0 if each bin holds one confidence.
        bins: that hold examples.
    """

    brier: Estimate
    reliability: Estimate
    resolution: Estimate
    uncertainty: Estimate
    residual: Estimate
    bins: int


def decompose_brier(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    bins: int = 10,
    binning: Binning = "width",
    **settings: Any,
) -> BrierDecomposition:
    """The Brier score's parts, with intervals that resample images.

    Source: Murphy 1973 (J. Appl. Meteorol. 12, 595-600); the residual is the two within-bin terms of
    Stephenson, Coelho and Jolliffe 2008 (Weather Forecast. 23, 752-757).

    Args:
        confidence: ``[n]``, 0 to 1.
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        bins, binning: as in :func:`expected_calibration_error`; the edges are those of the data in
            all resamples.
        settings: ``n_resamples``, ``level`` and ``seed`` of ``group_bootstrap``.

    Raises:
        InputError: lengths differ, no rows, confidences outside 0..1, labels other than 0 and 1.
        NumericalError: a confidence is NaN.
    """
    values, truth = checked_confidence(confidence, correct)
    codes = bin_codes(values, bins, binning)

    parts = group_bootstrap_all(_parts, codes, values, truth, groups=groups, **settings)
    return BrierDecomposition(**parts, bins=len(np.unique(codes)))


def _parts(
    codes: NDArray[np.int64],
    values: NDArray[np.float64],
    truth: NDArray[np.float64],
    *,
    weights: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """``[resamples]`` of each part, with each row counted by its weight."""
    total = weights.sum(axis=1)
    accuracy = weights @ truth / total
    reliability, resolution, residual = (np.zeros(len(weights)) for _ in range(3))
    for code in np.unique(codes):
        inside = codes == code
        own, f, y = weights[:, inside], values[inside], truth[inside]
        # About the bin's own centre, so that variances keep their digits; a bin that is empty in a
        # resample adds nothing.
        f_centre = f.mean()
        n = own.sum(axis=1)
        safe = np.where(n > 0, n, 1.0)
        mean_f, mean_y = own @ (f - f_centre) / safe, own @ y / safe
        variance = own @ (f - f_centre) ** 2 / safe - mean_f**2
        covariance = own @ ((f - f_centre) * y) / safe - mean_f * mean_y
        reliability += n * (mean_f + f_centre - mean_y) ** 2
        resolution += n * (mean_y - accuracy) ** 2
        residual += n * (variance - 2 * covariance)
    return {
        "brier": weights @ (values - truth) ** 2 / total,
        "reliability": reliability / total,
        "resolution": resolution / total,
        "uncertainty": accuracy * (1 - accuracy),
        "residual": residual / total,
    }
