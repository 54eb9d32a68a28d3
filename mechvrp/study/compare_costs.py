"""Signals and readouts against what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from mechvrp.reliability import SIGNALS
from mechvrp.study.compare_measures import FEATURES
from mechvrp.study.compare_units import Unit

__all__ = ["CostRow", "cost_rows"]

#: Readouts in the words of a summary, and as signals are called.
_READOUTS = {
    "sparse probe": "sparse_probe",
    "MLP probe": "mlp_probe",
    "last five layers": "last_five_probe",
    "distance to centroids": "centroid_distance",
    **{name: name for name in FEATURES},
}


@dataclass(frozen=True)
class CostRow:
    """What one signal costs, and tells, of one checkpoint on one data set.

    Attributes:
        cost_forwards: passes over the whole prompt beyond the one that answers, as the signal is defined;
            a study takes all K samples from one prefill.
        fitted: it was fitted on training images, and is judged on held-out ones.
        within, within_low, within_high: AUROC over pairs of the same task; null where there is one task.
    """

    signal: str
    kind: str
    cost_forwards: float
    fitted: bool
    family: str
    model: str
    data: str
    auroc: float | None
    low: float | None
    high: float | None
    within: float | None
    within_low: float | None
    within_high: float | None
    n: int
    gap: str = ""


def cost_rows(unit: Unit) -> list[CostRow]:
    """Every signal that may predict; those that use the label are left out."""
    found = []
    whose = (unit.family, *unit.key)
    rows = unit.section.signals.rows if unit.section.signals else ()
    within = {row.name: row for row in rows if row.scope == "within tasks"}
    for row in rows:
        if row.scope != "all" or row.uses_label:
            continue
        cost = row.cost_forwards
        if row.name == "self_consistency" and unit.samples is not None:
            cost = float(unit.samples)  # K of this run
        beside = within.get(row.name)
        ends = (None,) * 3 if beside is None else (beside.auroc, beside.low, beside.high)
        found.append(
            CostRow(
                row.name, row.kind, cost, False, *whose, row.auroc, row.low, row.high, *ends, row.n,
                row.gap,
            )
        )  # fmt: skip
    return found + _fusion(unit) + _probe(unit) + _readouts(unit)


def _fusion(unit: Unit) -> list[CostRow]:
    fused = unit.section.signals.fusion if unit.section.signals else None
    if fused is None:
        return []
    cost = max(
        (SIGNALS[name].cost_forwards for name in fused.names if name in SIGNALS), default=0.0
    )
    return [
        CostRow(
            f"fusion of {len(fused.names)} signals", "fusion", cost, True, unit.family, *unit.key,
            fused.auroc, fused.low, fused.high, fused.within, fused.within_low, fused.within_high,
            fused.n,
        )
    ]  # fmt: skip


def _probe(unit: Unit) -> list[CostRow]:
    if unit.section.probe is None:
        return []
    rows = {row.scope: row for row in unit.section.probe.comparison if row.name == "probe"}
    overall, inside = rows["all"], rows.get("within tasks")
    ends = (None,) * 3 if inside is None else (inside.auroc, inside.low, inside.high)
    return [
        CostRow(
            "probe", "hidden", SIGNALS["probe"].cost_forwards, True, unit.family, *unit.key,
            overall.auroc, overall.low, overall.high, *ends, overall.n,
        )
    ]  # fmt: skip


def _readouts(unit: Unit) -> list[CostRow]:
    if unit.section.readouts is None:
        return []
    found = []
    for row in unit.section.readouts.rows:
        name = _READOUTS.get(row.name)
        if name is None:  # the linear probe is there already
            continue
        known = SIGNALS.get(name)
        found.append(
            CostRow(
                name, known.kind if known else "structure", known.cost_forwards if known else 0.0,
                True, unit.family, *unit.key, row.auroc, row.low, row.high, row.within,
                row.within_low, row.within_high, row.n, row.gap,
            )
        )  # fmt: skip
    return found
