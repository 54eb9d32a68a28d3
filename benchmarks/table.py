"""Rows of the results: what was measured, and what it should reach."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row", "markdown"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: the work.
        value, unit: of the figure (``x``: a ratio of times in this run).
        least, most: what it should reach or stay under; ``None`` where nothing is asked.
        detail: what it was measured on and against.
    """

    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    detail: str = ""

    @property
    def reached(self) -> bool | None:
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)


def markdown(rows: list[Row]) -> list[str]:
    """The lines of a table."""
    lines = ["| what | measured | should be | detail |", "|---|---|---|---|"]
    for row in rows:
        goal = ""
        if row.least is not None:
            goal = f"at least {row.least:.3g} {row.unit}"
        if row.most is not None:
            goal = f"at most {row.most:.3g} {row.unit}"
        if row.reached is not None:
            goal += ": " + ("reached" if row.reached else "**missed**")
        lines.append(f"| {row.what} | {row.value:.3g} {row.unit} | {goal} | {row.detail} |")
    return lines
