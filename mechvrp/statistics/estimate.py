"""Figures with their intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Estimate", "PairedChange", "exact_bound", "within"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the statistic on the data.
        low: lower end of the interval.
        high: upper end.
        n: rows.
        n_groups: groups (images) they fall into.
        level: nominal coverage, as a share.
        method: how the interval was made.
        n_degenerate: resamples in which the statistic was undefined (one class only) and which were
            drawn again.
    """

    value: float
    low: float
    high: float
    n: int
    n_groups: int
    level: float
    method: str
    n_degenerate: int = 0

    def __str__(self) -> str:
        redrawn = f", {self.n_degenerate} resamples redrawn" if self.n_degenerate else ""
        rows = f"n = {self.n} in {self.n_groups} groups"
        return (
            f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] "
            f"({100 * self.level:g}% {self.method}; {rows}{redrawn})"
        )


@dataclass(frozen=True, slots=True)
class PairedChange:
    """A change of accuracy in percentage points, and the p-value of there being none."""

    change: Estimate
    p_value: float

    def __str__(self) -> str:
        return f"{self.change} pp, p = {self.p_value:.3g}"


def exact_bound(found: Estimate, trials: int) -> Estimate:
    """A share of exactly 0 or 1 with the Clopper-Pearson interval of so many independent trials.

    A bootstrap interval of such a share has no width, however few the data.
    """
    bound = ((1 - found.level) / 2) ** (1 / trials)
    low, high = (bound, 1.0) if found.value == 1.0 else (0.0, 1.0 - bound)
    return replace(found, low=low, high=high, method="exact bound")


def within(found: Estimate, least: float, most: float) -> Estimate:
    """The interval cut to what is possible: a studentised bootstrap knows no bounds of its figure.

    A true value lies within them, so nothing of the coverage is lost.
    """
    low, high = (min(max(end, least), most) for end in (found.low, found.high))
    return found if (low, high) == (found.low, found.high) else replace(found, low=low, high=high)
