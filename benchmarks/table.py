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
        column: of a wide table; rows of the same work then share a line, with the detail of the first.
    """

    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    detail: str = ""
    column: str = ""

    @property
    def reached(self) -> bool | None:
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)


def markdown(rows: list[Row]) -> list[str]:
    """The lines of a table."""
    if any(row.column for row in rows):
        return _wide(rows)
    lines = ["| what | measured | should be | detail |", "|---|---|---|---|"]
    for row in rows:
        figure = f"{row.value:.3g} {row.unit}"
        lines.append(f"| {row.what} | {figure} | {_goal(row)} | {row.detail} |")
    return lines


def _goal(row: Row) -> str:
    goal = ""
    if row.least is not None:
        goal = f"at least {row.least:.3g} {row.unit}".rstrip()
    if row.most is not None:
        goal = f"at most {row.most:.3g} {row.unit}".rstrip()
    if row.reached is not None:
        goal += ": " + ("reached" if row.reached else "**missed**")
    return goal


def _wide(rows: list[Row]) -> list[str]:
    """A line for each kind of work, a column for each of its rows, and the goals under the figures."""
    columns = list(dict.fromkeys(row.column for row in rows))
    lines = [f"| what | {' | '.join(columns)} | detail |", "|---" * (len(columns) + 2) + "|"]
    for what in dict.fromkeys(row.what for row in rows):
        line = {row.column: row for row in rows if row.what == what}
        cells = []
        for column in columns:
            row = line.get(column)
            figure = f"{row.value:.2f} {row.unit}".rstrip() if row else ""
            goal = _goal(row) if row else ""
            cells.append(f"{figure} ({goal})" if goal else figure)
        lines.append(f"| {what} | {' | '.join(cells)} | {next(iter(line.values())).detail} |")
    return lines
