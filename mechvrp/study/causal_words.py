"""The plain-words findings about interventions, and what the report's causal part needs.

A loss is called shown only where the interval of the difference to the random control lies below 0 and a
test agrees: the one adjusted within its family, or for units the rank of a whole curve among its random
draws. An interval that spans 0 is inconclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from mechvrp.plots import causal_changes, corruption_by_layer
from mechvrp.statistics import benjamini_hochberg
from mechvrp.study.report_words import Finding, signed, signed_three, three
from mechvrp.study.rows import CausalRow, CausalSection

__all__ = ["causal_findings", "causal_part"]

_Q = 0.05  # false discovery rate
_UNITS = ("residual neurons", "MLP neurons")
_EDITS = {"zero": "zeroed", "mean": "set to the mean"}
_CORRUPTED = ("hidden states", "attention", "hidden states and attention")


def causal_part(section: CausalSection, draw: Callable[[go.Figure], Markup]) -> dict[str, Any]:
    """What ``causal.html`` needs: findings, rows and a figure by family, and noise by layer.

    Args:
        section: of the summary.
        draw: a figure as JSON that is safe within a script element.
    """
    rows = pd.DataFrame(section.rows)
    families = list(dict.fromkeys(row.family for row in section.rows))
    part: dict[str, Any] = {
        "section": section,
        "findings": causal_findings(section),
        "families": [
            {
                "name": family,
                "rows": [row for row in section.rows if row.family == family],
                "figure": draw(causal_changes(rows, family=family)),
                "units": family in _UNITS,
            }
            for family in families
        ],
        "by_layer": None,
    }
    if any(family in _CORRUPTED for family in families):
        part["by_layer"] = draw(corruption_by_layer(rows))
    return part


def causal_findings(section: CausalSection) -> list[Finding]:
    """What the interventions say, family by family."""
    found: list[Finding] = []
    for family in dict.fromkeys(row.family for row in section.rows):
        rows = [row for row in section.rows if row.family == family]
        if family == "image patches":
            found += [_patches(row) for row in rows]
        elif family in _UNITS:
            found.append(_units(family, rows))
        else:
            found += _corrupted(family, rows)
    return found


def _patches(row: CausalRow) -> Finding:
    which = "most" if row.name.startswith("top") else "least"
    text = (
        f"With the {100 * row.amount:g} % of the image's patches that the model attends to {which} "
        f"replaced by the image's mean, accuracy changes by {_change(row)}; with as many random ones by "
        f"{_control(row)}. The difference is {_excess(row)}"
    )
    return _judged(text, row)


def _judged(text: str, row: CausalRow) -> Finding:
    """A sentence that ends with a row's difference to its control, and its verdict."""
    q = row.excess_q
    test = f" (q {_compared(q)})" if q is not None else ""
    if row.excess_high < 0 and q is not None and q <= _Q:
        return Finding("shown", f"{text}{test}: more is lost than by the control.")
    if row.excess_low > 0 and q is not None and q <= _Q:
        # Of the least attended patches that is what attention to the others would lead one to expect.
        verdict = "shown" if row.name.startswith("bottom") else "against"
        return Finding(verdict, f"{text}{test}: less is lost than by the control.")
    why = (
        "the interval spans 0"
        if row.excess_low <= 0 <= row.excess_high
        else "the test does not agree"
    )
    return Finding("inconclusive", f"{text}{test}: {why}, so that neither is shown to lose more.")


def _units(family: str, rows: Sequence[CausalRow]) -> Finding:
    """Judged by whole curves, one for each edit: with few draws no single k can pass after adjustment."""
    worst = min(rows, key=lambda row: row.excess)
    curves = {row.edit: row.curve_p for row in rows if row.curve_p is not None}
    text = (
        f"Of {family} (block {worst.first_layer}, {worst.units} units) ranked by a probe's weights, the "
        f"largest loss beyond random units is {_excess(worst)}, with the {worst.name}, where accuracy changes "
        f"by {_change(worst)} and with random units by {_control(worst)}."
    )
    if not curves:
        return Finding("inconclusive", f"{text} The curve is not whole, so that no test was made.")
    adjusted = benjamini_hochberg(np.array(list(curves.values()), dtype=float))
    q = dict(zip(curves, adjusted.tolist(), strict=True))
    tests = " and ".join(
        f"{_EDITS.get(edit, edit)} p {_compared(curves[edit])}, q {_compared(q[edit])}"
        for edit in q
    )
    text += (
        f" (All k together, rank among {worst.draws} random draws: {tests}; no p below "
        f"{three(1 / (1 + worst.draws))} is possible.)"
    )
    passed = [edit for edit in q if q[edit] <= _Q]
    lost = [row.name for row in rows if row.edit in passed and row.excess_high < 0]
    if lost:
        return Finding(
            "shown",
            f"{text} Ranked units matter more than random ones; one at a time the interval of the difference "
            f"lies below 0 with: {', '.join(lost)}.",
        )
    return Finding(
        "inconclusive", f"{text} That ranked units matter more than random ones is not shown."
    )


def _corrupted(family: str, rows: Sequence[CausalRow]) -> list[Finding]:
    worst = min(rows, key=lambda row: row.change)
    found = [
        _judged(
            f"Of noise on {family}, {worst.name.split(', ')[-1]} lose most: accuracy changes by "
            f"{_change(worst)} ({worst.amount:g} SD or log-weight unit at the last position); with noise at "
            f"another text position by {_control(worst)}. The difference is {_excess(worst)}",
            worst,
        )
    ]
    judged = [row for row in rows if row.entropy_change is not None]
    if judged:
        found.append(_maps(family, min(judged, key=lambda row: row.change)))
    return found


def _maps(family: str, row: CausalRow) -> Finding:
    """Whether accuracy fell while the maps stayed focused."""
    where = row.name.split(", ")[-1]
    ends = f"{signed_three(row.entropy_low)} to {signed_three(row.entropy_high)}"
    text = (
        f"Attention behind noise on {family} in {where} (where accuracy changes by {_change(row)}): entropy of "
        f"the map over log S is {three(row.entropy_before)} before, and changes by "
        f"{signed_three(row.entropy_change)} (95\u00a0% interval {ends})"
    )
    low, high = row.entropy_low or 0.0, row.entropy_high or 0.0
    fell = row.change_high < 0 and row.q is not None and row.q <= _Q
    if not fell:
        return Finding("inconclusive", f"{text}. That accuracy falls there is not shown.")
    if low > 0:
        return Finding("against", f"{text}: accuracy falls, and the maps become more diffuse.")
    if high < 0:
        return Finding("shown", f"{text}: accuracy falls while the maps become more focused.")
    return Finding(
        "inconclusive",
        f"{text}: accuracy falls, and whether the maps change is not shown, since the interval spans 0.",
    )


def _change(row: CausalRow) -> str:
    return _pp(row.change, row.change_low, row.change_high)


def _control(row: CausalRow) -> str:
    return _pp(row.control_change, row.control_low, row.control_high)


def _excess(row: CausalRow) -> str:
    return _pp(row.excess, row.excess_low, row.excess_high)


def _pp(value: float, low: float, high: float) -> str:
    return f"{signed(value)}\u00a0pp (95\u00a0% interval {signed(low)} to {signed(high)})"


def _compared(p: float | None) -> str:
    """``= 0.012``, or ``< 0.001``: three decimals never make a p of nothing."""
    if p is None:
        return "not known"
    return "< 0.001" if p < 0.001 else f"= {three(p)}"
