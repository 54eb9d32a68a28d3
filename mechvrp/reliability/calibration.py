"""Calibration: does an answer given with probability p turn out right in a share p of cases?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics import Estimate, accuracy_interval, group_bootstrap
from mechvrp.statistics.checks import check_count, group_codes, numbers

__all__ = [
    "Binning",
    "Calibration",
    "bin_codes",
    "checked_confidence",
    "expected_calibration_error",
    "measure_calibration",
    "reliability_table",
]

_SIMULATIONS = 400

Binning = Literal["width", "mass"]


@dataclass(frozen=True)
class Calibration:
    """How well a confidence says how often answers are right.

    Attributes:
        ece_width: expected calibration error over bins of equal width.
        ece_mass: the same over bins of equal numbers of examples.
        brier: mean squared difference of confidence and correctness.
        gap: mean confidence minus accuracy; above 0 is overconfidence.
        ece_width_if_calibrated, ece_mass_if_calibrated: the 95th percentile of what either ECE would
            be if every answer were right with exactly its confidence. An ECE is above 0 even then,
            and so is its bootstrap interval: miscalibration is shown by an ECE above this.
        table: the reliability diagram's data over bins of equal width (`reliability_table`), with the
            ends ``accuracy_low`` and ``accuracy_high`` of an interval that resamples the images of the bin
            (NaN where it holds one image), and ``images``, how many those are.
    """

    ece_width: Estimate
    ece_mass: Estimate
    brier: Estimate
    gap: Estimate
    ece_width_if_calibrated: float
    ece_mass_if_calibrated: float
    table: pd.DataFrame

    def plot(self) -> Any:
        """The reliability diagram as a plotly figure (`mechvrp.plots.reliability_diagram`)."""
        from mechvrp.plots import reliability_diagram

        return reliability_diagram(self)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, binning: Binning = "width"
) -> float:
    """ECE: mean over bins of |accuracy - mean confidence|, weighted by their numbers of examples.

    Source: Naeini, Cooper and Hauskrecht 2015 (AAAI). A finite sample of a perfectly calibrated
    model has an ECE above 0, the more so the more bins.

    Args:
        confidence: ``[n]``, 0 to 1.
        correct: ``[n]``, 0 or 1.
        bins: how many.
        binning: ``"width"`` (equal width over 0..1) or ``"mass"`` (equal numbers; fewer bins where
            confidences coincide).
    """
    values, truth = checked_confidence(confidence, correct)
    codes = bin_codes(values, bins, binning)
    ones = np.ones((1, len(values)))
    return float(_ece(codes, values - truth, weights=ones)[0])


def reliability_table(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, binning: Binning = "width"
) -> pd.DataFrame:
    """The reliability diagram's data: a row for each bin that holds examples.

    Columns: low, high (smallest and largest confidence in it), confidence (mean), accuracy, n.
    """
    values, truth = checked_confidence(confidence, correct)
    codes = bin_codes(values, bins, binning)
    rows = []
    for code in np.unique(codes):
        inside = codes == code
        rows.append(
            {
                "low": float(values[inside].min()),
                "high": float(values[inside].max()),
                "confidence": float(values[inside].mean()),
                "accuracy": float(truth[inside].mean()),
                "n": int(inside.sum()),
            }
        )
    return pd.DataFrame(rows)


def measure_calibration(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    bins: int = 10,
    **settings: Any,
) -> Calibration:
    """Calibration with intervals that resample images.

    Args:
        confidence: ``[n]``, 0 to 1.
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        bins: of both kinds of ECE; edges are those of the data in all resamples.
        settings: ``n_resamples``, ``level`` and ``seed`` of ``group_bootstrap``.

    Raises:
        InputError: lengths differ, no rows, confidences outside 0..1, labels other than 0 and 1.
        NumericalError: a confidence is NaN.
    """
    values, truth = checked_confidence(confidence, correct)

    def interval(statistic: Any, *arrays: Any) -> Estimate:
        return group_bootstrap(statistic, *arrays, groups=groups, weighted=True, **settings)

    def mean(x: NDArray[np.float64], *, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(weights @ x / weights.sum(axis=1))

    return Calibration(
        ece_width=interval(_ece, bin_codes(values, bins, "width"), values - truth),
        ece_mass=interval(_ece, bin_codes(values, bins, "mass"), values - truth),
        brier=interval(mean, (values - truth) ** 2),
        gap=interval(mean, values - truth),
        ece_width_if_calibrated=_if_calibrated(values, bin_codes(values, bins, "width"), settings),
        ece_mass_if_calibrated=_if_calibrated(values, bin_codes(values, bins, "mass"), settings),
        table=_with_intervals(values, truth, groups, bins, settings),
    )


def _with_intervals(
    values: NDArray[np.float64],
    truth: NDArray[np.float64],
    groups: ArrayLike | None,
    bins: int,
    settings: dict[str, Any],
) -> pd.DataFrame:
    """`reliability_table` with an interval of each bin's accuracy."""
    labels, _ = group_codes(groups, len(values))
    codes = bin_codes(values, bins, "width")
    ends = []
    for code in np.unique(codes):
        inside = codes == code
        images = len(np.unique(labels[inside]))
        if images < 2:
            ends.append((np.nan, np.nan, images))
            continue
        found = accuracy_interval(truth[inside], labels[inside], **settings)
        ends.append((found.low, found.high, images))
    low, high, counts = zip(*ends, strict=True)
    table = reliability_table(values, truth, bins=bins)
    return table.assign(accuracy_low=low, accuracy_high=high, images=counts)


def _ece(
    codes: NDArray[np.int64], excess: NDArray[np.float64], *, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    total = np.zeros(len(weights))
    for code in np.unique(codes):
        inside = codes == code
        total += np.abs(weights[:, inside] @ excess[inside])
    return np.asarray(total / weights.sum(axis=1))


def _if_calibrated(
    values: NDArray[np.float64], codes: NDArray[np.int64], settings: dict[str, Any]
) -> float:
    """The 95th percentile of the ECE over labels drawn with exactly these probabilities."""
    rng = np.random.default_rng([int(settings.get("seed", 0)), 2])
    drawn = rng.random((_SIMULATIONS, len(values))) < values
    total = np.zeros(_SIMULATIONS)
    for code in np.unique(codes):
        inside = codes == code
        total += np.abs((values[inside] - drawn[:, inside]).sum(axis=1))
    return float(np.percentile(total / len(values), 95))


def bin_codes(values: NDArray[np.float64], bins: int, binning: Binning) -> NDArray[np.int64]:
    """Which bin each value is in; a value on an edge is in the bin above it, 1 in the last one."""
    check_count(bins, "bins")
    if binning == "width":
        # Whole numbers, not edges: 0.3 times 10 must not fall below an edge at 0.30000000000000004.
        return np.minimum(np.floor(np.round(values * bins, 9)).astype(np.int64), bins - 1)
    if binning == "mass":
        edges = np.quantile(values, np.arange(1, bins) / bins)
        return np.searchsorted(np.unique(edges), values, side="right")
    raise InputError(f"binning is 'width' or 'mass'; got {binning!r}")


def checked_confidence(
    confidence: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as floats ``[n]``; an error unless they are confidences in 0..1 and labels 0 or 1."""
    values, truth = numbers(confidence, "confidence"), numbers(correct, "correct")
    if values.ndim != 1 or values.shape != truth.shape or len(values) == 0:
        raise InputError(
            f"confidence and correct must be of one length, at least 1; got shapes {values.shape} "
            f"and {truth.shape}"
        )
    if np.isnan(values).any():
        raise NumericalError(f"{int(np.isnan(values).sum())} of {len(values)} confidences are NaN")
    if values.min() < 0 or values.max() > 1:
        raise InputError(
            f"confidences run from {values.min():.3g} to {values.max():.3g}; expected 0 to 1 "
            "(log-probabilities? take np.exp)"
        )
    if not np.isin(truth, (0, 1)).all():
        raise InputError("correct must hold 0 and 1 only")
    return values, truth
