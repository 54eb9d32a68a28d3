"""What the analysis of an ablation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechvrp.statistics import Estimate

__all__ = ["AblationCurve", "AblationPoint"]


@dataclass(frozen=True)
class AblationPoint:
    """One k of a curve, over all examples or within one task.

    Attributes:
        task: ``"all"`` or the task's name.
        k: units zeroed.
        accuracy: accuracy with the top k zeroed, 0 to 1.
        change: accuracy with the top k zeroed minus clean, pp.
        change_p: two-sided sign-flip p of ``change``, flipping images; None at k = 0.
        change_q: the same, Benjamini-Hochberg over k; None at k = 0.
        random_change: mean change over the random draws, pp; the interval resamples images and
            draws.
        random_range: smallest and largest draw's change, pp.
        excess: ``change`` minus ``random_change``, pp, paired; same resampling.
        excess_p: share of draws, the top itself counted as one, that lower accuracy at least as
            much as the top k: ``(1 + #{draw <= top}) / (draws + 1)``. One-sided, and never below
            ``1 / (draws + 1)``; None at k = 0.
        excess_q: the same, Benjamini-Hochberg over k; None at k = 0.
    """

    task: str
    k: int
    accuracy: Estimate
    change: Estimate
    change_p: float | None
    change_q: float | None
    random_change: Estimate
    random_range: tuple[float, float]
    excess: Estimate
    excess_p: float | None
    excess_q: float | None


@dataclass(frozen=True)
class AblationCurve:
    """What `analyse_ablation` found.

    Attributes:
        points: over all examples, one per k, ascending.
        task_points: the same within each task of two images or more; q over k within the task.
        curve_p: by task (and ``"all"``), one rank test of the whole curve: its mean change over
            k > 0 among those of the random draws, one-sided with the + 1 of ``excess_p``. A single
            test, so it needs no adjustment over k; None if no k is above 0.
        clean_accuracy: accuracy without ablation, over all examples.
        draws: random draws per k.
        units: units of the site, or None if not given.
        site: hook name of the ablated site; may be empty.
        seed: seed of the resampling.
        n_resamples: bootstrap resamples behind each interval.
    """

    points: tuple[AblationPoint, ...]
    task_points: dict[str, tuple[AblationPoint, ...]]
    curve_p: dict[str, float | None]
    clean_accuracy: Estimate
    draws: int
    units: int | None
    site: str
    seed: int
    n_resamples: int

    @property
    def smallest_possible_p(self) -> float:
        """The least ``excess_p`` this number of draws can give: 1 / (draws + 1)."""
        return 1 / (self.draws + 1)

    def to_frame(self) -> pd.DataFrame:
        """One row per task (``"all"`` first) and k.

        Columns: task, k, n, n_groups, level, draws; accuracy (0 to 1) and, in pp, change,
        random_change and excess, each with ``_low`` and ``_high``; random_min, random_max;
        change_p, change_q, excess_p, excess_q (None at k = 0); curve_p (one per task).
        """
        points = [*self.points, *(p for rows in self.task_points.values() for p in rows)]
        return pd.DataFrame(
            [
                {**_row(point), "draws": self.draws, "curve_p": self.curve_p[point.task]}
                for point in points
            ]
        )

    def plot(self) -> Any:
        """The curve as a plotly figure (`mechvrp.plots.ablation_curve`)."""
        from mechvrp.plots import ablation_curve

        return ablation_curve(self)


def _row(point: AblationPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"task": point.task, "k": point.k}
    row |= {"n": point.change.n, "n_groups": point.change.n_groups, "level": point.change.level}
    for name in ("accuracy", "change", "random_change", "excess"):
        estimate: Estimate = getattr(point, name)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    row |= {"random_min": point.random_range[0], "random_max": point.random_range[1]}
    for name in ("change_p", "change_q", "excess_p", "excess_q"):
        row[name] = getattr(point, name)
    return row
