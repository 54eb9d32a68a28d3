"""Phrases that findings of a comparison share."""

from __future__ import annotations

from collections.abc import Sequence

from mechvrp.plots.directions import isolated
from mechvrp.study.compare_measures import Figure
from mechvrp.study.compare_units import Unit
from mechvrp.study.report_words import ENOUGH, signed, signed_three, three

__all__ = [
    "PAPER",
    "Ends",
    "against",
    "ends_of",
    "enough",
    "names_of",
    "numbered",
    "plain_name",
    "rarer",
    "shown_ends",
]

#: Source of the figures that are quoted as reported.
PAPER = "arXiv 2605.08200"

#: A value and the ends of its interval.
Ends = tuple[float, float, float]


def numbered(own: Sequence[Figure], measure: str) -> list[tuple[Figure, Ends]]:
    """The figures of a measure that have a number and an interval."""
    found = []
    for figure in own:
        ends = ends_of(figure) if figure.measure == measure else None
        if ends is not None:
            found.append((figure, ends))
    return found


def ends_of(figure: Figure) -> Ends | None:
    """Value and interval, or None where either is missing."""
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    return figure.value, figure.low, figure.high


def against(ends: Ends, null: float) -> tuple[str, str]:
    """Verdict and words of an interval beside the value of no effect."""
    _, low, high = ends
    if low > null:
        return "shown", f"the interval lies above {null:g}"
    if high < null:
        return "shown" if null == 0 else "against", f"the interval lies below {null:g}"
    return "inconclusive", f"inconclusive, the interval includes {null:g}"


def shown_ends(kind: str, ends: Ends) -> str:
    """``value [low, high]`` in the digits of its kind."""
    shown = {"R": signed_three, "AUROC": three, "AUROC difference": signed_three, "pp": signed}[
        kind
    ]
    value, low, high = (shown(end) for end in ends)
    return f"{value}{' pp' if kind == 'pp' else ''} [{low}, {high}]"


def names_of(models: Sequence[str]) -> str:
    """Names, or "none"."""
    return ", ".join(map(isolated, models)) or "none"


def plain_name(name: str) -> str:
    """A signal's name in words."""
    return name.replace("_", " ")


def rarer(units: Sequence[Unit], split: str | None = None) -> int:
    """Answers of the rarer kind, right or wrong, summed over checkpoints."""
    total = 0
    for unit in units:
        rows = unit.examples if split is None else unit.examples[unit.examples["split"] == split]
        right = int(rows["correct"].sum())
        total += min(right, len(rows) - right)
    return total


def enough(verdict: str, text: str, n_rarer: int) -> tuple[str, str]:
    """Inconclusive where there are too few answers of the rarer kind."""
    if verdict == "inconclusive" or n_rarer >= ENOUGH:
        return verdict, text
    return (
        "inconclusive",
        f"{text} But there are only {n_rarer} answers of the rarer kind, and at least {ENOUGH} are needed.",
    )
