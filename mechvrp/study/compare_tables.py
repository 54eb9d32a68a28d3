"""Tables as a reader sees them, and as LaTeX: rows of measures, the models side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mechvrp.study.compare_costs import CostRow
from mechvrp.study.compare_measures import Figure
from mechvrp.study.compare_pools import PooledRow
from mechvrp.study.report_words import percent, signed, signed_three, three

__all__ = ["TextTable", "cost_table", "latex", "latex_text", "pooled_table", "side_by_side"]

_FORMATS = {
    "R": signed_three,
    "AUROC": three,
    "AUROC within tasks": three,
    "AUROC difference": signed_three,
    "share": percent,
    "pp": signed,
    "error": three,
    "difference": signed_three,
    "entropy difference": signed_three,
}


@dataclass(frozen=True)
class TextTable:
    """A table of text: what it shows, its head, its rows, and notes on numbers that are not there."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def side_by_side(figures: Sequence[Figure], caption: str) -> list[TextTable]:
    """A table for each data set: a row per measure, a column per model."""
    return [
        _of_data([f for f in figures if f.data == data], f"{caption}: {data}")
        for data in dict.fromkeys(figure.data for figure in figures)
    ]


def _of_data(figures: Sequence[Figure], caption: str) -> TextTable:
    models = list(dict.fromkeys((f.model, f.family) for f in figures))
    cells = {(f.measure, f.model): f for f in figures}
    notes = _Notes()
    rows = []
    for measure in dict.fromkeys(f.measure for f in figures):
        row = [measure]
        for model, _ in models:
            figure = cells.get((measure, model))
            row.append("not measured" if figure is None else _cell(figure, notes))
        rows.append(tuple(row))
    head = ("", *(f"{model} ({family})" for model, family in models))
    return TextTable(caption, head, tuple(rows), tuple(notes.texts))


class _Notes:
    """Notes, each once and numbered from 1."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def _cell(figure: Figure, notes: _Notes) -> str:
    if figure.value is None:
        return f"none (note {notes.number(figure.gap)})"
    text = _interval(figure.kind, figure.value, figure.low, figure.high)
    if figure.p is not None:
        text += f", p = {figure.p:.2g}"
        text += "" if figure.q is None else f", q = {figure.q:.2g}"
    return f"{text} (note {notes.number(figure.detail)})" if figure.detail else text


def _interval(kind: str, value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    if kind in ("layer", "k"):
        return f"{value:.0f}"
    shown = _FORMATS[kind]
    words = shown(value) + ("\u00a0pp" if kind == "pp" else "")
    return words if low is None or high is None else f"{words} [{shown(low)}, {shown(high)}]"


def cost_table(rows: Sequence[CostRow]) -> list[TextTable]:
    """A table for each data set: signals by cost, the AUROC of each model."""
    tables = []
    for data in dict.fromkeys(row.data for row in rows):
        own = [row for row in rows if row.data == data]
        models = list(dict.fromkeys((row.model, row.family) for row in own))
        found = {(row.signal, row.model): row for row in own}
        notes = _Notes()
        lines = []
        names = {row.signal: (row.cost_forwards, row.kind, row.fitted) for row in own}
        for name, (cost, kind, fitted) in sorted(names.items(), key=lambda item: item[1][0]):
            line = [name.replace("_", " "), f"{cost:g}", kind, "yes" if fitted else "no"]
            for model, _ in models:
                row = found.get((name, model))
                line.append("not measured" if row is None else _cost_cell(row, notes))
            lines.append(tuple(line))
        head = ("signal", "further forwards", "of", "fitted", *(f"{m} ({f})" for m, f in models))
        caption = f"AUROC for a right answer against cost in forwards an example: {data}"
        tables.append(TextTable(caption, head, tuple(lines), tuple(notes.texts)))
    return tables


def _cost_cell(row: CostRow, notes: _Notes) -> str:
    if row.auroc is None:
        return f"none (note {notes.number(row.gap or 'undefined')})"
    text = _interval("AUROC", row.auroc, row.low, row.high)
    if row.within is not None:
        text += f"; within tasks {_interval('AUROC', row.within, row.within_low, row.within_high)}"
    return text


def pooled_table(rows: Iterable[PooledRow]) -> list[TextTable]:
    """A table for each pool: stratified, fixed and random effects, and heterogeneity."""
    tables = []
    given = list(rows)
    for pool, data in dict.fromkeys((row.pool, row.data) for row in given):
        notes = _Notes()
        own = [row for row in given if (row.pool, row.data) == (pool, data)]
        lines = tuple(_pooled_line(row, notes) for row in own)
        assumes = list(dict.fromkeys(row.assumes for row in own if row.assumes))
        head = (
            "quantity", "measure", "stratified", "fixed effect", "fixed, any dependence", "random effects",
            "Q (df), p, q", "I\u00b2", "joint test p, q", "checkpoints", "n",
        )  # fmt: skip
        tables.append(TextTable(f"{pool}, {data}", head, lines, (*notes.texts, *assumes)))
    return tables


def _pooled_line(row: PooledRow, notes: _Notes) -> tuple[str, ...]:
    name = f"({row.quantity})" if row.uses_label else row.quantity
    name = name.replace("_", " ") + (f" (note {notes.number(row.gap)})" if row.gap else "")
    heterogeneity = ""
    if row.cochran_q is not None:
        heterogeneity = f"{row.cochran_q:.2f} ({row.df}), {_two(row.p_heterogeneity)}"
        heterogeneity += f", {_two(row.q_heterogeneity)}"
    joint = "" if row.p_joint is None else f"{_two(row.p_joint)}, {_two(row.q_joint)}"
    return (
        name,
        row.measure,
        _interval(row.measure, row.stratified, row.stratified_low, row.stratified_high),
        _interval(row.measure, row.fixed, row.fixed_low, row.fixed_high),
        ""
        if row.bound_low is None
        else _interval(row.measure, row.fixed, row.bound_low, row.bound_high),
        _interval(row.measure, row.random, row.random_low, row.random_high),
        heterogeneity,
        "" if row.i_squared is None else percent(row.i_squared),
        joint,
        str(row.members),
        "" if row.n is None else str(row.n),
    )


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "\u2212": "$-$",
    "\u00a0": "~", "\u00b2": "$^2$", "\u2013": "--", "\u201c": "``", "\u201d": "''", "`": r"\textasciigrave{}",
    # A line that starts with [ would be read as an option of the line break before it.
    "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text for LaTeX: special signs escaped, line breaks and control characters as spaces."""
    plain = "".join(c if c.isprintable() or c in _LATEX else " " for c in text)
    return "".join(_LATEX.get(c, c) for c in plain)


def latex(tables: Sequence[TextTable]) -> str:
    """Booktabs tables that break over pages; needs the packages booktabs, longtable and textcomp."""
    return (
        "% \\usepackage{booktabs, longtable, textcomp} and, for quotation marks, [T1]{fontenc}\n"
        + ("\n".join(_longtable(table) for table in tables))
    )


def _longtable(table: TextTable) -> str:
    def line(cells: Iterable[str]) -> str:
        return " & ".join(latex_text(cell) for cell in cells) + r" \\"

    lines = [
        r"\begin{longtable}{" + "l" * len(table.head) + "}",
        rf"\caption{{{latex_text(table.caption)}}} \\",
        r"\toprule",
        line(table.head),
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *(line(row) for row in table.rows),
        r"\end{longtable}",
    ]
    if table.notes:
        lines += [r"\begin{enumerate}", *(rf"\item {latex_text(n)}" for n in table.notes)]
        lines.append(r"\end{enumerate}")
    return "\n".join(lines) + "\n"
