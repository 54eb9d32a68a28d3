"""Masked patches and noise, each beside its control, and the seeds' summary of each checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import sharpness_against_confidence
from mechvrp.statistics import Estimate
from mechvrp.study.compare_measures import Figure, reason
from mechvrp.study.compare_units import Unit
from mechvrp.study.schema import CausalRow

__all__ = [
    "CONTROL",
    "aligned_gaps",
    "family_rows",
    "gap_of_family",
    "interventions",
    "late_noise",
    "masking",
    "noise_amount",
    "seeds_summary",
    "top_masked",
    "why_missing",
]

_CORRUPTIONS = ("hidden states", "attention", "hidden states and attention")

_NOISE = "noise on hidden states"
_LATE, _WORST = "middle-late layers", "the worst window of layers"
_MASKED = "patches masked"

#: What the control of an intervention is called, by its edit.
CONTROL: Mapping[str, str] = {"noise": "position control", "mean": "control"}

# A checkpoint without an intervention cannot know the amount that others had, and they say which they had.
_NAMED = {
    _MASKED: r"top .+ masked",
    **{f"{_NOISE}, {where}": rf"noise of .+ SD on {where}" for where in (_LATE, _WORST)},
}


def late_noise(amount: float) -> str:
    """Measure of noise of so many standard deviations on middle-late layers."""
    return f"noise of {amount:g} SD on {_LATE}"


def top_masked(unit: Unit) -> list[CausalRow]:
    """The rows in which the patches attended most are masked; one for each fraction."""
    return [row for row in family_rows(unit, "image patches") if row.name.startswith("top ")]


def noise_amount(unit: Unit) -> float | None:
    """Of the noise on windows of hidden states, in standard deviations: the one nearest to 1."""
    amounts = [row.amount for row in _windows(unit)]
    return min(amounts, key=lambda value: abs(value - 1)) if amounts else None


def aligned_gaps(figures: Iterable[Figure]) -> list[Figure]:
    """Gaps of an intervention under the names that it has in other checkpoints on the same data."""
    given = list(figures)
    found: list[Figure] = []
    for figure in given:
        pattern = _NAMED.get(figure.measure)
        names = dict.fromkeys(
            other.measure
            for other in given
            if pattern and other.data == figure.data and re.fullmatch(pattern, other.measure)
        )
        found += [replace(figure, measure=name) for name in names] or [figure]
    return found


def masking(unit: Unit) -> list[Figure]:
    """Image patches taken away, beside random ones."""
    rows = family_rows(unit, "image patches")
    if not rows:
        return [gap_of_family(unit, _MASKED, why_missing(unit, "image patches"))]
    return [figure for row in rows for figure in _three(unit, row, row.name)]


def interventions(unit: Unit) -> list[Figure]:
    """Noise on hidden states and attention, each beside its control."""
    found = []
    for family in _CORRUPTIONS:
        rows = family_rows(unit, family)
        if not rows:
            found.append(gap_of_family(unit, f"{family}: corrupted", why_missing(unit, family)))
        for row in rows:
            found += _three(unit, row, f"{family}: {row.name}")
    return found


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


def _windows(unit: Unit) -> list[CausalRow]:
    return [
        row
        for row in family_rows(unit, "hidden states")
        if row.edit == "noise" and row.first_layer is not None and row.last_layer is not None
    ]


def _corruption(unit: Unit) -> list[Figure]:
    """Noise on a window of layers: the middle-late one, and the worst."""
    amount = noise_amount(unit)
    if amount is None:
        why = why_missing(unit, "hidden states")
        return [gap_of_family(unit, f"{_NOISE}, {where}", why) for where in (_LATE, _WORST)]
    windows = [row for row in _windows(unit) if row.amount == amount]
    depth = unit.section.model.n_layers
    late = min(windows, key=lambda row: (abs(_centre(row, depth) - 0.75), row.first_layer))
    worst = min(windows, key=lambda row: row.change)
    found = []
    for measure, row, words in (
        (late_noise(amount), late, "the window whose centre is nearest to 75 % of the depth"),
        (
            f"noise of {amount:g} SD on {_WORST}",
            worst,
            f"the largest drop of {len(windows)} windows, so biased to be large",
        ),
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
    words = CONTROL.get(row.edit, "control")
    drawn = f"{row.control}, {row.draws} draws" if row.draws > 1 else row.control
    by_construction = ""
    if row.edit == "noise" and row.first_layer == unit.section.model.n_layers - 1:
        by_construction = (
            "noise at another position of the last layer alone cannot reach the answer: the control's change "
            "is 0 by construction, and tells nothing"
        )
    return [
        Figure(
            unit.family, *unit.key, measure, "pp", *ends, row.n, row.n_groups, p, q, about
        )
        for measure, ends, p, q, about in (
            (name, (row.change, row.change_low, row.change_high), row.p, row.q, detail),
            (
                f"{name}: {words}",
                (row.control_change, row.control_low, row.control_high),
                None,
                None,
                "; ".join(filter(None, (drawn, by_construction))),
            ),
            (
                f"{name}: minus {words}",
                (row.excess, row.excess_low, row.excess_high),
                row.excess_p,
                row.excess_q,
                by_construction,
            ),
        )
    ]  # fmt: skip


def family_rows(unit: Unit, family: str) -> Sequence[CausalRow]:
    """The causal rows of one family; none where the run has no such part."""
    section = unit.section.causal
    return [] if section is None else [row for row in section.rows if row.family == family]


def gap_of_family(unit: Unit, measure: str, gap: str, kind: str = "pp") -> Figure:
    """A figure without a number."""
    return Figure(unit.family, *unit.key, measure, kind, gap=gap)


def why_missing(unit: Unit, family: str) -> str:
    """Why a family of interventions is not there."""
    section = unit.section.causal
    if section is None:
        return reason(unit.section, ("causal", "intervention"), "causal interventions")
    word = family.split()[0].lower()
    gaps = [gap for gap in section.gaps if word in gap.lower()] or list(section.gaps)
    return "; ".join(gaps) or f"this run made no interventions on {family}"
