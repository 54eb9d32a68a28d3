"""One checkpoint's figures as flat rows: what every table of a comparison is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mechvrp.study.compare_units import Unit
from mechvrp.study.schema import ComparisonRow, ModelSection, ReadoutRow, SignalRow

__all__ = ["FEATURES", "Figure", "accuracy", "hidden_states", "reason", "signal", "structure"]

#: Readouts of attention's structure, not of hidden states.
FEATURES = ("11 attention features", "11 attention features, trees")


@dataclass(frozen=True)
class Figure:
    """One number of one checkpoint on one data set.

    Attributes:
        family, model, data: whose it is.
        measure: what was measured; the same words for every checkpoint.
        kind: ``"R"``, ``"AUROC"``, ``"AUROC difference"``, ``"share"``, ``"pp"`` (percentage points of
            accuracy), ``"layer"``, ``"k"``, ``"error"`` and ``"difference"`` (of calibration)
            or ``"entropy difference"``.
        value, low, high: null where there is none; a value without ends has no interval.
        n, n_images: examples and images, where known.
        p, q: of no effect, and adjusted within its family of tests.
        detail: what else a reader must know of this number.
        gap: why there is no number.
    """

    family: str
    model: str
    data: str
    measure: str
    kind: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    n_images: int | None = None
    p: float | None = None
    q: float | None = None
    detail: str = ""
    gap: str = ""


def signal(unit: Unit, name: str, scope: str = "all") -> SignalRow | None:
    """A signal's row of the summary, or None."""
    signals = unit.section.signals
    rows = () if signals is None else signals.rows
    return next((row for row in rows if (row.name, row.scope) == (name, scope)), None)


def reason(section: ModelSection, words: Iterable[str], part: str) -> str:
    """Why a part of a summary is not there, from its notes."""
    found = [note for note in section.notes if any(word in note.lower() for word in words)]
    return "; ".join(found) or f"this run has no {part}"


def accuracy(unit: Unit) -> list[Figure]:
    """Accuracy over all images, and per task where there are several."""
    rows = [row for row in unit.section.accuracy if row.split == "all"]
    single = sum(row.task != "all" for row in rows) < 2
    return [
        Figure(
            unit.family, *unit.key, row.task, "share", row.accuracy, row.low, row.high, row.n,
            row.n_groups, gap=row.gap if row.accuracy is None else "", detail=f"{row.n_right} right",
        )
        for row in rows
        if row.task == "all" or not single
    ]  # fmt: skip


def structure(unit: Unit) -> list[Figure]:
    """The first result: does the structure of attention tell right from wrong, and is it needed?"""
    found = [
        _r(unit, "cluster_count", "R(C_k, y), cluster count"),
        _r(unit, "spatial_entropy_normalised", "R(H_s / log S, y), spatial entropy"),
        _auroc(unit, "cluster_count", "AUROC of C_k"),
        _auroc(unit, "spatial_entropy_normalised", "AUROC of H_s / log S"),
    ]
    if signal(unit, "cluster_count", "within tasks") is not None:
        found += [
            _auroc(unit, "cluster_count", "AUROC of C_k, within tasks", "within tasks"),
            _auroc(
                unit,
                "spatial_entropy_normalised",
                "AUROC of H_s / log S, within tasks",
                "within tasks",
            ),
        ]
    return found + _stress_test(unit)


def hidden_states(unit: Unit) -> list[Figure]:
    """The second result: self-consistency, and what can be read from hidden states."""
    found = []
    for name, words in (
        ("self_consistency", "self-consistency"),
        ("expected_self_consistency", "expected self-consistency"),
        ("answer_probability", "answer probability"),
    ):
        found += [_r(unit, name, f"R of {words}"), _auroc(unit, name, f"AUROC of {words}")]
        if signal(unit, name, "within tasks") is not None:
            found.append(_auroc(unit, name, f"AUROC of {words}, within tasks", "within tasks"))
    return found + _probe(unit) + _readouts(unit)


def _r(unit: Unit, name: str, measure: str) -> Figure:
    # A signal's p and q are of a rank test: they belong beside its AUROC, not beside R.
    row = signal(unit, name)
    if row is None or row.r is None:
        return Figure(unit.family, *unit.key, measure, "R", gap=_no_signal(unit, name, row))
    return Figure(
        unit.family, *unit.key, measure, "R", row.r, row.r_low, row.r_high, row.n, detail=row.gap
    )  # fmt: skip


def _auroc(unit: Unit, name: str, measure: str, scope: str = "all") -> Figure:
    row = signal(unit, name, scope)
    if row is None or row.auroc is None:
        return Figure(unit.family, *unit.key, measure, "AUROC", gap=_no_signal(unit, name, row))
    return Figure(
        unit.family, *unit.key, measure, "AUROC", row.auroc, row.low, row.high, row.n, p=row.p,
        q=row.q, detail=row.gap,
    )  # fmt: skip


def _no_signal(unit: Unit, name: str, row: SignalRow | None) -> str:
    if row is not None:
        return row.gap or "no number, and the run does not say why"
    words = (name, name.replace("_", " "))
    return reason(unit.section, words, f"signal {name.replace('_', ' ')}")


def _stress_test(unit: Unit) -> list[Figure]:
    """The classifiers on eleven attention features: a linear one, and trees."""
    found = []
    for name in FEATURES:
        row, balanced = _readout(unit, name), f"balanced accuracy of {name}"
        for columns in (
            (f"AUROC of {name}", "AUROC", "auroc", "low", "high"),
            (balanced, "share", "balanced_accuracy", "balanced_low", "balanced_high"),
        ):
            found.append(_of_readout(unit, row, *columns, part=f"readout of {name}"))
    return found


def _readout(unit: Unit, name: str) -> ReadoutRow | None:
    section = unit.section.readouts
    return next((row for row in section.rows if row.name == name), None) if section else None


def _of_readout(
    unit: Unit,
    row: ReadoutRow | None,
    measure: str,
    kind: str,
    value: str,
    low: str,
    high: str,
    *,
    part: str,
) -> Figure:
    if row is None or getattr(row, value) is None:
        section = unit.section.readouts
        gap = row.gap if row is not None else "; ".join(section.gaps) if section else ""
        gap = gap or reason(unit.section, ("readout", "attention feature"), part)
        return Figure(unit.family, *unit.key, measure, kind, gap=gap)
    where = "" if row.layer is None else f"layer {row.layer}"
    return Figure(
        unit.family, *unit.key, measure, kind, getattr(row, value), getattr(row, low),
        getattr(row, high), row.n, row.n_groups, detail=", ".join(filter(None, (where, row.detail))),
    )  # fmt: skip


def _probe(unit: Unit) -> list[Figure]:
    probe = unit.section.probe
    if probe is None:
        gap = reason(unit.section, ("probe",), "probe")
        return [
            Figure(unit.family, *unit.key, measure, kind, gap=gap)
            for measure, kind in (
                ("best probe layer", "layer"),
                ("probe AUROC", "AUROC"),
                ("probe minus task and answer", "AUROC difference"),
                ("probe minus answer probability", "AUROC difference"),
            )
        ]
    depth = unit.section.model.n_layers
    found = [
        Figure(
            unit.family, *unit.key, "best probe layer", "layer", probe.chosen_layer,
            detail=f"of 0 to {depth - 1}, chosen on training images",
        )
    ]  # fmt: skip
    n_images = unit.section.data.n_heldout_images
    rows = {(row.name, row.scope): row for row in probe.comparison}
    for scope, tail in (("all", ""), ("within tasks", ", within tasks")):
        row = rows.get(("probe", scope))
        if row is not None:
            found.append(_compared(unit, row, f"probe AUROC{tail}", n_images))
        for name in ("task and answer", "answer probability"):
            row = rows.get((name, scope))
            if row is not None:
                found.append(_lead(unit, row, f"probe minus {name}{tail}", n_images))
        row = rows.get(("shuffled labels", scope))
        if row is not None:
            found.append(_compared(unit, row, f"probe on shuffled labels{tail}", n_images))
    return found


def _compared(unit: Unit, row: ComparisonRow, measure: str, n_images: int) -> Figure:
    if row.auroc is None:
        gap = "undefined: no held-out answers of both kinds to compare"
        return Figure(unit.family, *unit.key, measure, "AUROC", gap=gap)
    spread = row.kind == "range"
    return Figure(
        unit.family, *unit.key, measure, "AUROC", row.auroc, row.low, row.high,
        None if spread else row.n, None if spread else n_images,
        detail=f"range of {row.n} shuffles, not an interval" if spread else "",
    )  # fmt: skip


def _lead(unit: Unit, row: ComparisonRow, measure: str, n_images: int) -> Figure:
    kind = "AUROC difference"
    if row.lead is None:
        gap = "undefined: no held-out answers of both kinds to compare"
        return Figure(unit.family, *unit.key, measure, kind, gap=gap)
    return Figure(
        unit.family,
        *unit.key,
        measure,
        kind,
        row.lead,
        row.lead_low,
        row.lead_high,
        row.n,
        n_images,
    )


def _readouts(unit: Unit) -> list[Figure]:
    """The other readouts, and their lead over the linear probe."""
    section = unit.section.readouts
    if section is None:
        gap = reason(unit.section, ("readout",), "other readouts of hidden states")
        return [Figure(unit.family, *unit.key, "AUROC of other readouts", "AUROC", gap=gap)]
    rows: Sequence[ReadoutRow] = [
        row for row in section.rows if row.name not in ("linear probe", *FEATURES)
    ]
    found = []
    for row in rows:
        for measure, kind, *columns in (
            (f"AUROC of {row.name}", "AUROC", "auroc", "low", "high"),
            (
                f"{row.name} minus linear probe", "AUROC difference", "lead", "lead_low", "lead_high",
            ),
        ):  # fmt: skip
            value, low, high = columns
            found.append(_of_readout(unit, row, measure, kind, value, low, high, part=row.name))
    return found
