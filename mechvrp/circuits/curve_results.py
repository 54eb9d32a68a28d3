"""What the analysis of an ablation returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvrp.errors import InputError, RunFolderError
from mechvrp.files import file_to_write, path_of
from mechvrp.statistics import Estimate

if TYPE_CHECKING:
    from mechvrp.circuits.curve_details import Contrast, SetPoint
    from mechvrp.circuits.curve_outcomes import CurveOutcomes

__all__ = ["AblationCurve", "AblationPoint"]

_TESTS = ("change_p", "change_q", "excess_p", "excess_q")


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
            ``1 / (draws + 1)``; None at k = 0, and with too few draws (``least_draws``).
        excess_q: the same, Benjamini-Hochberg over k; None where ``excess_p`` is.
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


@dataclass(frozen=True, repr=False)
class AblationCurve:
    """What `analyse_ablation` found; made by `ablation_curve` it also holds what stands below ``n_resamples``.

    Attributes:
        points: over all examples, one per k, ascending.
        task_points: the same within each task of two images or more; q over k within the task.
        curve_p: by task (and ``"all"``), one rank test of the whole curve: its mean change over
            k > 0 among those of the random draws, one-sided with the + 1 of ``excess_p``. A single
            test, so it needs no adjustment over k; None if no k is above 0, or with too few draws.
        clean_accuracy: accuracy without ablation, over all examples.
        draws: random draws per k.
        units: units of the site, or None if not given.
        site: hook name of the ablated site (several, joined by commas); may be empty.
        seed: seed of the resampling.
        n_resamples: bootstrap resamples behind each interval.
        split_points: as ``task_points``, within each split.
        sets: every measure (accuracy, the answer's logit, its margin, the probe's score) under every set of
            units.
        contrasts: sets against random controls, random k and k matched in norm.
        matched_p: as ``curve_p``, among the draws matched in norm; empty without them, or with too few.
        area: by control, the area between its accuracy and the top's over the share of units taken away.
        bottleneck: by control, the bottleneck index (`bottleneck_index`); empty where it has no meaning.
        bottleneck_gap: why there is none; empty where there is one.
        outcomes: of every example under every set.
        settings: how it was made: model and fingerprint, ranking, mode, positions, seeds.
        notes: what a reader must know: examples left out, tests that cannot succeed.
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
    split_points: dict[str, tuple[AblationPoint, ...]] = field(default_factory=dict)
    sets: tuple[SetPoint, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    matched_p: dict[str, float] = field(default_factory=dict)
    area: dict[str, Estimate] = field(default_factory=dict)
    bottleneck: dict[str, Estimate] = field(default_factory=dict)
    bottleneck_gap: str = ""
    outcomes: CurveOutcomes | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def smallest_possible_p(self) -> float:
        """The least p that a rank among so many draws can have: 1 / (draws + 1)."""
        return 1 / (self.draws + 1)

    @property
    def tested(self) -> bool:
        """Whether there is a p against random draws at any k."""
        return any(point.excess_p is not None for point in self.points)

    def smallest_k(self, *, part: str = "all", level: float = 0.05) -> int | None:
        """The least k whose top units lower accuracy, by both tests: against clean and against random k.

        Both q (adjusted over k) must be at most ``level``. None where there is no such k, which is
        certain where ``smallest_possible_p`` is above ``level``.

        Raises:
            InputError: no such part, or a curve of so few draws that it has no p.
        """
        parts = {"all": self.points, **self.task_points}
        parts |= {f"split: {name}": points for name, points in self.split_points.items()}
        if part not in parts:
            raise InputError(f"no part {part!r} in this curve; it has {', '.join(parts)}")
        if not self.tested and any(point.k for point in parts[part]):
            raise InputError(
                f"this curve has {self.draws} random draws, too few for a p against them: give "
                "ablation_curve draws=199 or more"
            )
        for point in parts[part]:
            if (
                point.change_q is not None
                and point.excess_q is not None
                and max(point.change_q, point.excess_q) <= level
                and point.change.value < 0
            ):
                return point.k
        return None

    def to_frame(self) -> pd.DataFrame:
        """One row per task (``"all"`` first, splits last) and k.

        Columns: task, k, n, n_groups, level, draws; accuracy (0 to 1) and, in pp, change,
        random_change and excess, each with ``_low`` and ``_high``; random_min, random_max;
        change_p, change_q, excess_p, excess_q (NaN at k = 0); curve_p (one per task). The last three are
        NaN with too few draws.
        """
        points = [*self.points, *(p for rows in self.task_points.values() for p in rows)]
        points += [
            replace(p, task=f"split: {name}")
            for name, rows in self.split_points.items()
            for p in rows
        ]
        frame = pd.DataFrame(
            [
                {**_row(point), "draws": self.draws, "curve_p": self.curve_p[point.task]}
                for point in points
            ]
        )
        return frame.astype(dict.fromkeys((*_TESTS, "curve_p"), float))  # also where all are None

    def sets_to_frame(self) -> pd.DataFrame:
        """One row per part, measure, set and k > 0.

        Columns: part, measure, set, k, share (of the units), draws, value, change with ``_low`` and
        ``_high`` (accuracy in pp), lowest and highest of the draws; and of sets that are compared with a
        control, for ``random`` and ``matched``: ``excess_<control>`` with ``_low`` and ``_high``,
        ``p_<control>``, ``q_<control>`` (NaN with too few draws), ``tail_<control>`` (which side p is of:
        ``"lower"``, or ``"upper"`` for the bottom units, which speak against a right answer).
        """
        beside: dict[tuple[str, str, str, int], dict[str, Any]] = {}
        for one in self.contrasts:
            row = beside.setdefault((one.part, one.measure, one.set, one.k), {})
            name = f"excess_{one.control}"
            row |= {name: one.excess.value, f"{name}_low": one.excess.low}
            row |= {f"{name}_high": one.excess.high}
            row |= {
                f"p_{one.control}": math.nan if one.p is None else one.p,
                f"q_{one.control}": math.nan if one.q is None else one.q,
            }
            row[f"tail_{one.control}"] = one.tail
        return pd.DataFrame(
            [
                {
                    "part": one.part,
                    "measure": one.measure,
                    "set": one.set,
                    "k": one.k,
                    "share": one.k / self.units if self.units else None,
                    "draws": one.draws,
                    "value": one.value,
                    "change": one.change.value,
                    "change_low": one.change.low,
                    "change_high": one.change.high,
                    "lowest": one.lowest,
                    "highest": one.highest,
                    **beside.get((one.part, one.measure, one.set, one.k), {}),
                }
                for one in self.sets
            ]
        )

    def plot(self, measure: str = "accuracy") -> Any:
        """The curve of a measure as a plotly figure (`mechvrp.plots.ablation_curve`)."""
        from mechvrp.plots import ablation_curve

        return ablation_curve(self, measure=measure)

    def save(self, path: str | Path) -> Path:
        """Write the curve as JSON, outcomes of every example included; returns the path."""
        from mechvrp.circuits.curve_files import save_curve

        return save_curve(self, file_to_write(path, "a curve's file"))

    @classmethod
    def load(cls, path: str | Path) -> AblationCurve:
        """Read what `save` wrote.

        Raises:
            RunFolderError: the file is damaged, or not of a curve.
        """
        from mechvrp.circuits.curve_files import load_curve

        return load_curve(path_of(path, "a curve's file", RunFolderError))

    def __repr__(self) -> str:
        n, images = self.clean_accuracy.n, self.clean_accuracy.n_groups
        of = f" of {self.units}" if self.units else ""
        told = [f"{self.site or 'units'}: n = {n} examples of {images} images, {self.draws} draws"]
        above = [p for p in self.points if p.k]
        if above:
            p = min(above, key=lambda point: point.excess.value)
            told.append(
                f"top {p.k}{of} {p.change.value:+.1f} pp, {p.excess.value:+.1f} pp "
                f"[{p.excess.low:.1f}, {p.excess.high:.1f}] beyond random {p.k}"
            )
        index = self.bottleneck.get("random")
        if index is not None:
            told.append(f"bottleneck index {index.value:.2f} [{index.low:.2f}, {index.high:.2f}]")
        elif self.bottleneck_gap:
            told.append("no bottleneck index")
        if self.outcomes is not None and self.tested:
            k = self.smallest_k()
            told.append(f"smallest k with a significant drop: {'none' if k is None else k}")
        elif above and not self.tested:
            told.append("too few draws for a p")
        return f"AblationCurve({'; '.join(told)})"


def _row(point: AblationPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"task": point.task, "k": point.k}
    row |= {"n": point.change.n, "n_groups": point.change.n_groups, "level": point.change.level}
    for name in ("accuracy", "change", "random_change", "excess"):
        estimate: Estimate = getattr(point, name)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    row |= {"random_min": point.random_range[0], "random_max": point.random_range[1]}
    for name in _TESTS:
        row[name] = getattr(point, name)
    return row
