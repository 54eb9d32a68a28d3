"""What a comparison found, in plain words made from its numbers.

An interval that includes no effect is called inconclusive, and what it rules out is said. Reported figures are
quoted beside, with their source; that a result differs from them is said only where intervals do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mechvrp.plots.directions import isolated
from mechvrp.study.compare_causal_words import checkpoint_findings
from mechvrp.study.compare_measures import Figure
from mechvrp.study.compare_phrases import (
    PAPER,
    Ends,
    against,
    ends_of,
    enough,
    plain_name,
    rarer,
    shown_ends,
)
from mechvrp.study.compare_pools import PooledRow
from mechvrp.study.compare_units import Unit
from mechvrp.study.report_words import Finding, signed_three

__all__ = ["compared_findings"]

#: Reported, pooled over three large models: R, low, high.
_REPORTED = {
    "cluster_count": (0.001, -0.034, 0.036),
    "spatial_entropy_normalised": (-0.012, -0.047, 0.024),
}
_STRUCTURE = {
    "cluster_count": ("cluster count C_k", "R(C_k, y), cluster count"),
    "spatial_entropy_normalised": (
        "spatial entropy H_s / log S",
        "R(H_s / log S, y), spatial entropy",
    ),
}
_ALPHA = 0.05


def compared_findings(
    units: Sequence[Unit], figures: Sequence[Figure], pooled: Sequence[PooledRow], data: str
) -> tuple[Finding, ...]:
    """Findings on one data set, or on all of them.

    Args:
        units: all of them.
        figures: of every checkpoint on every data set.
        pooled: of every pool.
        data: the data set, or ``"all data"``.
    """
    own = [f for f in figures if f.data == data]
    here = [u for u in units if data in (u.data, "all data")]
    several = any(u.examples["task"].nunique() > 1 for u in here)
    rows = {
        (r.quantity, r.measure): r
        for r in pooled
        if r.data == data and not r.recipe and (r.stratified is not None or r.fixed is not None)
    }
    refused = next((r.gap for r in pooled if r.data == data and r.quantity == "every signal"), "")
    found = [Finding("fact", refused[0].upper() + refused[1:] + ".")] if refused else []
    for name in _STRUCTURE:
        found += _structure(own, rows, name, several, rarer(here))
    found += _auroc(
        own, rows, "self_consistency", "AUROC of self-consistency", "Self-consistency",
        "Reported: 0.78, 0.81 and 0.79", several, rarer(here),
    )  # fmt: skip
    found += _auroc(
        own, rows, "probe", "probe AUROC", "A linear probe on hidden states, on held-out images",
        "Reported: 0.956, 0.944 (0.738 elsewhere) and 0.971", several, rarer(here, "heldout"),
    )  # fmt: skip
    found += checkpoint_findings(here, own)
    return (*found, *_heterogeneity(list(rows.values()), data))


def _structure(
    own: Sequence[Figure],
    rows: Mapping[tuple[str, str], PooledRow],
    name: str,
    several: bool,
    n_rarer: int,
) -> list[Finding]:
    words, measure = _STRUCTURE[name]
    taken = _best(own, rows, name, "R", measure)
    if taken is None:
        return []
    ends, whose = taken
    verdict, conclusion = against(ends, 0.0)
    value, low, high = _REPORTED[name]
    figure = f"{shown_ends('R', ends)}, {whose}"
    text = f"Attention structure, {words}: R with right answers is {figure}: {conclusion}."
    if verdict == "inconclusive":
        text += f" An |R| above {max(abs(ends[1]), abs(ends[2])):.3f} lies outside it."
    inside = _within(own, rows, name, _short(name)) if several else None
    if inside is not None:
        same_way = (inside[0] > 0.5) == (ends[0] > 0)
        verdict, text = _inside(verdict, text, inside, same_way)
    verdict, text = enough(verdict, text, n_rarer)
    apart = ends[1] > high or ends[2] < low
    beside = (
        "the two intervals do not overlap, so this is another result than the one reported"
        if apart
        else "the two intervals overlap"
    )
    text += (
        f" Reported, of three large models pooled: {signed_three(value)} [{signed_three(low)}, "
        f"{signed_three(high)}] ({PAPER}); {beside}."
    )
    return [Finding(verdict, text)]


def _short(name: str) -> str:
    return "AUROC of C_k" if name == "cluster_count" else "AUROC of H_s / log S"


def _within(
    own: Sequence[Figure], rows: Mapping[tuple[str, str], PooledRow], name: str, measure: str
) -> Ends | None:
    """The AUROC within tasks that goes with `_best`."""
    row = rows.get((name, "AUROC within tasks"))
    if row is not None and row.stratified is not None:
        return _strata(row)
    figures = [f for f in own if f.measure == f"{measure}, within tasks"]
    return ends_of(figures[0]) if len(figures) == 1 else None


def _inside(verdict: str, text: str, inside: Ends, same_way: bool) -> tuple[str, str]:
    """Over all tasks a signal may only tell tasks apart: what holds is what holds within them."""
    text += f" Among answers of the same task its AUROC is {shown_ends('AUROC', inside)}: "
    if against(inside, 0.5)[0] == "inconclusive":
        text += "the interval includes 0.5"
        if verdict != "inconclusive":
            text += ", so that it may tell no more than tasks apart"
        return "inconclusive", f"{text}."
    if verdict == "inconclusive":
        return verdict, f"{text}{against(inside, 0.5)[1]}."
    return (verdict, f"{text}likewise.") if same_way else ("against", f"{text}the other way round.")


def _auroc(
    own: Sequence[Figure],
    rows: Mapping[tuple[str, str], PooledRow],
    name: str,
    measure: str,
    words: str,
    reported: str,
    several: bool,
    n_rarer: int,
) -> list[Finding]:
    taken = _best(own, rows, name, "AUROC", measure)
    if taken is None:
        return []
    ends, whose = taken
    verdict, conclusion = against(ends, 0.5)
    text = f"{words}: AUROC for right answers {shown_ends('AUROC', ends)}, {whose}: {conclusion}."
    inside = _within(own, rows, name, measure) if several else None
    if inside is not None:
        verdict, text = _inside(verdict, text, inside, (inside[0] > 0.5) == (ends[0] > 0.5))
    verdict, text = enough(verdict, text, n_rarer)
    return [Finding(verdict, f"{text} {reported} for three large models ({PAPER}).")]


def _best(
    own: Sequence[Figure],
    rows: Mapping[tuple[str, str], PooledRow],
    name: str,
    kind: str,
    measure: str,
) -> tuple[Ends, str] | None:
    """The stratified figure of several checkpoints, or the one of a single one."""
    row = rows.get((name, kind))
    if row is not None and row.stratified is not None:
        members = f"stratified over {row.members} checkpoint-and-data pairs"
        if row.data != "all data":
            members = f"stratified over {row.members} checkpoints"
        return _strata(row), f"{members}, each image resampled in all at once"
    figures = [f for f in own if f.measure == measure and f.value is not None]
    if len(figures) != 1:
        return None
    ends = ends_of(figures[0])
    return None if ends is None else (ends, f"this checkpoint ({isolated(figures[0].model)}) only")


def _heterogeneity(rows: Sequence[PooledRow], data: str) -> list[Finding]:
    tested = [
        r for r in rows if r.measure == "AUROC" and r.q_joint is not None and not r.uses_label
    ]
    if not tested:
        return []
    differ = [r for r in tested if r.q_joint is not None and r.q_joint <= _ALPHA]
    listed = ", ".join(plain_name(r.quantity) for r in differ) or "none"
    what = "checkpoint on one data set" if data == "all data" else "checkpoint"
    return [
        Finding(
            "fact",
            f"Do the checkpoints differ? By the joint test, {len(differ)} of {len(tested)} signals have "
            f"another AUROC in one {what} than in another, at a false discovery rate of 5 %: {listed}. For "
            "the others a difference is not shown, which does not make them alike.",
        )
    ]


def _strata(row: PooledRow) -> Ends:
    return row.stratified or 0.0, row.stratified_low or 0.0, row.stratified_high or 0.0
