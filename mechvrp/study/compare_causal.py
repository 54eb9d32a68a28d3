"""The third result, what edits do to accuracy, and the seeds' summary of each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import sharpness_against_confidence
from mechvrp.statistics import Estimate
from mechvrp.study.compare_measures import Figure, reason
from mechvrp.study.compare_units import Unit
from mechvrp.study.schema import CausalRow

__all__ = ["ablations", "interventions", "masking", "seeds_summary"]

_Q = 0.05  # false discovery rate
_NEURONS = {"residual neurons": "residual stream", "MLP neurons": "MLP"}
_CORRUPTIONS = ("hidden states", "attention", "hidden states and attention")


def masking(unit: Unit) -> list[Figure]:
    """Image patches taken away, beside random ones."""
    rows = _rows(unit, "image patches")
    if not rows:
        return [_gap(unit, "top 30 % masked", _why(unit, "image patches"))]
    return [figure for row in rows for figure in _three(unit, row, row.name)]


def interventions(unit: Unit) -> list[Figure]:
    """Noise on hidden states and attention, each beside its control."""
    found = []
    for family in _CORRUPTIONS:
        rows = _rows(unit, family)
        if not rows:
            found.append(_gap(unit, f"{family}: corrupted", _why(unit, family)))
        for row in rows:
            found += _three(unit, row, f"{family}: {row.name}")
    return found


@dataclass(frozen=True)
class _Point:
    """One k of a curve, whichever part of the summary it is from."""

    k: int
    n: int
    n_images: int
    change: tuple[float, float, float]
    control: tuple[float, float, float]
    excess: tuple[float, float, float]
    p: float | None
    q: float | None
    drops: bool
    drops_more: bool


def ablations(unit: Unit) -> list[Figure]:
    """The probe's top-k units set to zero (or their mean) against random ones, over k.

    Of each curve: the smallest k with a drop, and with more of a drop than random units give; then the
    change, the random units' and their difference at each k.
    """
    found = []
    for name, width, points in _curves(unit):
        drops = [point.k for point in points if point.drops]
        more = [point.k for point in points if point.drops_more]
        tested = f"k up to {points[-1].k} of {width} units"
        for words, ks in (("a drop", drops), ("more of a drop than random", more)):
            measure = f"{name}: smallest k with {words}"
            gap = "" if ks else f"none shown at any {tested}"
            value = ks[0] if ks else None
            found.append(
                Figure(unit.family, *unit.key, measure, "k", value, detail=tested, gap=gap)
            )
        for point in points:
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
        found.append(_gap(unit, "residual stream, zeroed: smallest k with a drop", gap, "k"))
    if not any(figure.measure.startswith("MLP") for figure in found):
        measure = "MLP, zeroed: smallest k with a drop"
        found.append(_gap(unit, measure, _why(unit, "MLP neurons"), "k"))
    return found


def _curves(unit: Unit) -> list[tuple[str, int, list[_Point]]]:
    """Name, width and points of each curve: the study's own, and those among the causal rows."""
    curves: list[tuple[str, int, list[_Point]]] = []
    causal = [row for family in _NEURONS for row in _rows(unit, family)]
    if unit.section.ablation is not None and unit.section.ablation.points:
        ablation = unit.section.ablation
        points = [
            _Point(
                row.k, row.n, row.n_groups,
                (row.change, row.change_low, row.change_high),
                (row.random_change, row.random_change_low, row.random_change_high),
                (row.excess, row.excess_low, row.excess_high),
                row.change_p, row.change_q,
                _drop(row.change_high, row.change_q),
                # One rank test of the whole curve guards against the many k.
                _drop(row.excess_high, row.curve_p),
            )
            for row in sorted(ablation.points, key=lambda row: row.k)
            if row.task == "all" and row.k > 0
        ]  # fmt: skip
        if points:
            curves.append(("residual stream, zeroed", ablation.units, points))
    for family, place in _NEURONS.items():
        for edit, words in (("zero", "zeroed"), ("mean", "set to the mean")):
            rows = [row for row in causal if (row.family, row.edit) == (family, edit)]
            name = f"{place}, {words}"
            if not rows or any(name == known for known, _, _ in curves):
                continue  # the study's own curve is of the same edit at the same layer
            width = max(row.units or 0 for row in rows) or int(max(row.amount for row in rows))
            points = [
                _Point(
                    int(row.amount), row.n, row.n_groups,
                    (row.change, row.change_low, row.change_high),
                    (row.control_change, row.control_low, row.control_high),
                    (row.excess, row.excess_low, row.excess_high),
                    row.p, row.q,
                    _drop(row.change_high, row.q),
                    _drop(row.excess_high, row.excess_q),
                )
                for row in sorted(rows, key=lambda row: row.amount)
                if row.amount > 0
            ]  # fmt: skip
            if points:
                curves.append((name, width, points))
    return curves


def _drop(high: float, q: float | None) -> bool:
    return high < 0 and q is not None and q <= _Q


def seeds_summary(unit: Unit, *, seed: int, n_resamples: int) -> list[Figure]:
    """Attention against confidence, accuracy under corruption, and calibration, of each checkpoint."""
    return [
        *_sharpness(unit, seed, n_resamples),
        *_corruption(unit),
        *_calibration(unit),
    ]


def _sharpness(unit: Unit, seed: int, n_resamples: int) -> list[Figure]:
    measures = ("attention-confidence correlation", "attention-overconfidence correlation")
    column = "spatial_entropy_normalised"
    try:
        if column not in unit.examples:
            raise InputError(f"its examples.parquet has no column {column}")
        known = unit.examples[unit.examples[column].notna()]
        found = sharpness_against_confidence(
            np.clip(1 - known[column].to_numpy(dtype=float), 0, 1),
            known["answer_probability"].to_numpy(dtype=float),
            known["correct"].to_numpy(dtype=bool),
            unit.images[unit.examples[column].notna().to_numpy()],
            seed=seed,
            n_resamples=n_resamples,
        )
    except (InputError, NumericalError) as error:
        return [
            Figure(unit.family, *unit.key, measure, "R", gap=str(error)) for measure in measures
        ]
    return [
        _estimated(
            unit, measures[0], found.confidence, "1 - H_s / log S against answer probability"
        ),
        _estimated(
            unit,
            measures[1],
            found.overconfidence,
            f"over {found.n_wrong} wrong answers",
            found.gap,
        ),
    ]


def _estimated(
    unit: Unit, measure: str, found: Estimate | None, detail: str, gap: str | None = None
) -> Figure:
    if found is None:
        return Figure(unit.family, *unit.key, measure, "R", gap=gap or "undefined")
    return Figure(
        unit.family, *unit.key, measure, "R", found.value, found.low, found.high, found.n,
        found.n_groups, detail=detail,
    )  # fmt: skip


def _corruption(unit: Unit) -> list[Figure]:
    """Noise of one standard deviation on a window of layers: the middle-late one, and the worst."""
    measures = ("corruption of middle-late layers", "corruption of the worst window of layers")
    windows = [
        row
        for row in _rows(unit, "hidden states")
        if row.edit == "noise" and row.first_layer is not None and row.last_layer is not None
    ]
    if not windows:
        return [_gap(unit, measure, _why(unit, "hidden states")) for measure in measures]
    amount = min((row.amount for row in windows), key=lambda value: abs(value - 1))
    windows = [row for row in windows if row.amount == amount]
    depth = unit.section.model.n_layers
    late = min(windows, key=lambda row: (abs(_centre(row, depth) - 0.75), row.first_layer))
    worst = min(windows, key=lambda row: row.change)
    found = []
    for measure, row, words in (
        (measures[0], late, "the window whose centre is nearest to 75 % of the depth"),
        (measures[1], worst, f"the largest drop of {len(windows)} windows, so biased to be large"),
    ):
        where = f"layers {row.first_layer} to {row.last_layer} of 0 to {depth - 1}"
        detail = f"{row.name}, {where}: {words}"
        found += _three(unit, row, measure, detail)
        if row.entropy_change is not None and row.entropy_before is not None:
            found.append(
                Figure(
                    unit.family, *unit.key, f"{measure}: H_s / log S", "entropy difference",
                    row.entropy_change, row.entropy_low, row.entropy_high, row.n, row.n_groups,
                    detail=f"H_s / log S is {row.entropy_before:.3f} before",
                )
            )  # fmt: skip
    return found


def _centre(row: CausalRow, depth: int) -> float:
    return ((row.first_layer or 0) + (row.last_layer or 0) + 1) / (2 * depth)


def _calibration(unit: Unit) -> list[Figure]:
    signals = unit.section.signals
    found = None if signals is None else signals.calibration
    measures = (
        ("ECE of answer probability", "error"),
        ("answer probability minus accuracy", "difference"),
    )
    if found is None:
        gaps = () if signals is None else tuple(g for g in signals.gaps if "calibration" in g)
        gap = "; ".join(gaps) or reason(unit.section, ("calibration",), "calibration")
        return [Figure(unit.family, *unit.key, *measure, gap=gap) for measure in measures]
    beside = f"a calibrated model stays below {found.ece_if_calibrated:.3f} in 95 % of such samples"
    ece = (found.ece, found.ece_low, found.ece_high)
    excess = (found.excess, found.excess_low, found.excess_high)
    return [
        Figure(unit.family, *unit.key, *measures[0], *ece, found.n, detail=beside),
        Figure(unit.family, *unit.key, *measures[1], *excess, found.n),
    ]


def _three(unit: Unit, row: CausalRow, name: str, detail: str = "") -> list[Figure]:
    """The change, the control's, and their difference."""
    control = f"{name}: control"
    drawn = f"{row.control}, {row.draws} draws" if row.draws > 1 else row.control
    return [
        Figure(
            unit.family, *unit.key, measure, "pp", *ends, row.n, row.n_groups, p, q, words
        )
        for measure, ends, p, q, words in (
            (name, (row.change, row.change_low, row.change_high), row.p, row.q, detail),
            (control, (row.control_change, row.control_low, row.control_high), None, None, drawn),
            (
                f"{name}: minus control",
                (row.excess, row.excess_low, row.excess_high),
                row.excess_p,
                row.excess_q,
                "",
            ),
        )
    ]  # fmt: skip


def _rows(unit: Unit, family: str) -> Sequence[CausalRow]:
    section = unit.section.causal
    return [] if section is None else [row for row in section.rows if row.family == family]


def _gap(unit: Unit, measure: str, gap: str, kind: str = "pp") -> Figure:
    return Figure(unit.family, *unit.key, measure, kind, gap=gap)


def _why(unit: Unit, family: str) -> str:
    """Why a family of interventions is not there."""
    section = unit.section.causal
    if section is None:
        return reason(unit.section, ("causal", "intervention"), "causal interventions")
    word = family.split()[0].lower()
    gaps = [gap for gap in section.gaps if word in gap.lower()] or list(section.gaps)
    return "; ".join(gaps) or f"this run made no interventions on {family}"
