"""Ablations of a probe's units in each checkpoint: whole curves over k, beside random units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mechvrp.statistics import benjamini_hochberg
from mechvrp.study.compare_causal import family_rows, gap_of_family, why_missing
from mechvrp.study.compare_measures import Figure, reason
from mechvrp.study.compare_units import Unit
from mechvrp.study.schema import AblationSection, CausalRow

__all__ = ["ABLATED", "ablations"]

_Q = 0.05  # false discovery rate
_NEURONS = {"residual neurons": "residual stream", "MLP neurons": "MLP"}
_EDITS = {"zero": "zeroed", "mean": "set to the mean"}

#: Names of the curves.
ABLATED = tuple(f"{place}, {words}" for place in _NEURONS.values() for words in _EDITS.values())


@dataclass(frozen=True)
class _Point:
    """One k of a curve, whichever part of the summary it is from; ``own_q`` is of its excess alone."""

    k: int
    n: int
    n_images: int
    change: tuple[float, float, float]
    control: tuple[float, float, float]
    excess: tuple[float, float, float]
    p: float | None
    q: float | None
    own_q: float | None


@dataclass(frozen=True)
class _Curve:
    """A curve, its one rank test of all k together, and that test adjusted for ``tests`` of them."""

    name: str
    width: int
    draws: int
    points: tuple[_Point, ...]
    p: float | None
    q: float | None = None
    tests: int = 1

    @property
    def place(self) -> str:
        """Of the units."""
        return self.name.split(",")[0]

    def drops(self) -> list[int]:
        """The k with a drop."""
        return [point.k for point in self.points if _drop(point.change[2], point.q)]

    def drops_more(self) -> list[int]:
        """The k with more of a drop than random units give: by interval, where the whole curve agrees."""
        whole = self.p is not None
        return [
            point.k
            for point in self.points
            if _drop(point.excess[2], self.q if whole else point.own_q)
        ]

    def test(self) -> str:
        """What decided whether there is more of a drop than random, in words."""
        if self.p is None:
            return (
                "judged at each k by its own q, for want of a rank test of the whole curve: the run is older, "
                "or some k could not be run"
            )
        words = f"rank of the whole curve among {self.draws} random draws: p = {self.p:.2g}"
        least = 1 / (1 + self.draws)
        limit = f"no p below {least:.2g} is possible"
        if self.tests > 1:
            words += f", q = {self.q:.2g} over {self.tests} curves"
            limit += f", nor q below {min(1, self.tests * least):.2g} for one curve alone"
        return f"{words}; {limit}"


def ablations(unit: Unit) -> list[Figure]:
    """The probe's top-k units set to zero (or their mean) against random ones, over k.

    Of each curve: the smallest k with a drop, and with more of a drop than random units give; then the
    change, the random units' and their difference at each k. More of a drop is shown where the interval of
    the difference lies below 0 and one rank test of the whole curve agrees: with few draws no single k can
    pass once it is adjusted for all of them. The curves of one place (zeroed, set to the mean) are adjusted
    together, as in a study's report (Benjamini and Hochberg, 0.05).
    """
    found = []
    for curve in _curves(unit):
        name, width = curve.name, curve.width
        tested = f"k up to {curve.points[-1].k} of {width} units"
        for words, ks, how in (
            ("a drop", curve.drops(), ""),
            ("more of a drop than random", curve.drops_more(), curve.test()),
        ):
            detail = "; ".join(filter(None, (tested, how)))
            gap = "" if ks else f"none shown at any {detail}"
            value = ks[0] if ks else None
            measure = f"{name}: smallest k with {words}"
            found.append(
                Figure(unit.family, *unit.key, measure, "k", value, detail=detail, gap=gap)
            )
        for point in curve.points:
            for words, ends, p, q in (
                (f"top {point.k}", point.change, point.p, point.q),
                (f"random {point.k}", point.control, None, None),
                (f"top {point.k} minus random", point.excess, None, None),
            ):
                found.append(
                    Figure(
                        unit.family, *unit.key, f"{name}: {words}", "pp", *ends, point.n,
                        point.n_images, p, q, f"{point.k / width:.1%} of {width} units",
                    )
                )  # fmt: skip
    if not found:
        gap = reason(unit.section, ("ablation",), "ablation of probe neurons")
        found.append(gap_of_family(unit, f"{ABLATED[0]}: smallest k with a drop", gap, "k"))
    if not any(figure.measure.startswith("MLP") for figure in found):
        measure = "MLP, zeroed: smallest k with a drop"
        found.append(gap_of_family(unit, measure, why_missing(unit, "MLP neurons"), "k"))
    return found


def _curves(unit: Unit) -> list[_Curve]:
    """The study's own curve, and those among the causal rows."""
    own = unit.section.ablation
    first = None if own is None else _own(own)
    others = []
    for family, place in _NEURONS.items():
        for edit, words in _EDITS.items():
            name = f"{place}, {words}"
            if first is not None and name == first.name:
                continue  # the study's own curve is of the same edit at the same layer
            rows = [row for row in family_rows(unit, family) if row.edit == edit and row.amount > 0]
            if rows:
                others.append(_of_rows(name, sorted(rows, key=lambda row: row.amount)))
    curves = [*([] if first is None else [first]), *others]
    places = dict.fromkeys(curve.place for curve in curves)
    return [
        curve for place in places for curve in _adjusted([c for c in curves if c.place == place])
    ]


def _own(ablation: AblationSection) -> _Curve | None:
    rows = [row for row in ablation.points if row.task == "all" and row.k > 0]
    if not rows:
        return None
    points = tuple(
        _Point(
            row.k, row.n, row.n_groups,
            (row.change, row.change_low, row.change_high),
            (row.random_change, row.random_change_low, row.random_change_high),
            (row.excess, row.excess_low, row.excess_high),
            row.change_p, row.change_q, row.excess_q,
        )
        for row in sorted(rows, key=lambda row: row.k)
    )  # fmt: skip
    p = rows[0].curve_p
    return _Curve(ABLATED[0], ablation.units, ablation.draws, points, p)


def _of_rows(name: str, rows: Sequence[CausalRow]) -> _Curve:
    points = tuple(
        _Point(
            int(row.amount), row.n, row.n_groups,
            (row.change, row.change_low, row.change_high),
            (row.control_change, row.control_low, row.control_high),
            (row.excess, row.excess_low, row.excess_high),
            row.p, row.q, row.excess_q,
        )
        for row in rows
    )  # fmt: skip
    width = max(row.units or 0 for row in rows) or int(max(row.amount for row in rows))
    return _Curve(name, width, min(row.draws for row in rows), points, rows[0].curve_p)


def _adjusted(curves: Sequence[_Curve]) -> list[_Curve]:
    tested = [curve.p for curve in curves if curve.p is not None]
    if not tested:
        return list(curves)
    q = iter(benjamini_hochberg(tested).tolist())
    return [
        curve if curve.p is None else replace(curve, q=float(next(q)), tests=len(tested))
        for curve in curves
    ]


def _drop(high: float, q: float | None) -> bool:
    return high < 0 and q is not None and q <= _Q
