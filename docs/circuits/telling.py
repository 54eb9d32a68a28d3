"""The case study in words, tables and figures; and as one page that needs no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, label, look

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;"
    "color:#1a1a1a;background:#fff}table{border-collapse:collapse;font-size:14px;display:block;"
    "overflow-x:auto}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}.gap{border-left:4px solid #D55E00;"
    "padding-left:1em}"
)
_PERCENT = ("polls answered rightly", "absent digits said to be there")
_COUNTS = ("nodes: ", "block ")


def told(row: Mapping[str, Any], *, sign: bool = False) -> str:
    """``0.91 [0.85, 0.96]``; of shares of answers ``91.3 % [85.0, 96.1]``. A figure, or a difference."""
    name = str(row["figure"])
    percent = name in _PERCENT
    digits = 0 if name.startswith(_COUNTS) else 1 if percent else 2
    form = f"{'+' if sign else ''}.{digits}f"
    given = row["difference" if "difference" in row else "value"], row["low"], row["high"]
    value, low, high = (_number(one, form, percent) for one in given)
    unit = percent * (" pp" if sign else " %")
    return f"{value}{unit} [{low}, {high}]" if low else f"{value}{unit}"


def _number(value: Any, form: str, percent: bool) -> str:
    if value is None or value != value:
        return ""
    text = format(100 * value if percent else value, form)
    return text.lstrip("+-") if not text.strip("+-0.") else text  # no sign before 0.00


def words_of(one: Mapping[str, Any]) -> list[str]:
    """What was found of a checkpoint (an entry of results.json), a sentence or two per step."""
    rows = {row["figure"]: row for row in one["figures"]}
    texts = []
    if "polls answered rightly" in rows:
        right, absent = (rows[name] for name in _PERCENT)
        texts.append(
            f"It answers {told(right)} of {right['n']} held-out polls rightly; "
            f"to {told(absent)} of {absent['n']} digits that are not there it says yes."
        )
    for where, counts in one["hallucinated"].items():
        texts.append(
            f"Scenes that the circuit of hallucinated answers was {where}: {counts['yes']} of "
            f"{counts['asked']} polls for absent digits answered yes; {counts['traced']} of these become no "
            f"when one digit is replaced ({_most(counts['mistaken'])})."
        )
    for name in (n.removeprefix("nodes: ") for n in rows if n.startswith("nodes: ")):
        kept, without = rows[f"faithfulness: {name}"], rows[f"without it: {name}"]
        own = name if " on " in name else f"circuit of {name} answers"
        found = one.get("found_on", {}).get(name)
        before = (
            f"; {found['faithfulness']:.2f} of the {found['pairs']} pairs it was found on"
            if found
            else ""
        )
        texts.append(
            f"The {own} ({kept['n']} held-out pairs of {kept['n_groups']} images): "
            f"{told(rows[f'nodes: {name}'])} nodes alone keep {told(kept)} of the lead{before}; random "
            f"circuits of the same composition {kept['random']:.2f} (p = {kept['p']:.3f}); the model "
            f"without them keeps {told(without)}, without random ones {without['random']:.2f} "
            f"(p = {without['p']:.3f})."
        )
    for name, row in rows.items():
        if name.startswith("shared nodes: "):
            texts.append(
                f"The circuits of {name.removeprefix('shared nodes: ')} share {row['value']:.2f} of their "
                f"nodes (Jaccard; random circuits {row['random']:.2f}, p = {row['p']:.3f}; no interval)."
            )
    if "AUROC of a probe of being right" in rows:
        texts.append(
            f"Whether an answer is right is read best behind block {told(rows['block that this probe reads'])} "
            f"(by cross-validation): AUROC {told(rows['AUROC of a probe of being right'])} on other scenes."
        )
    for name, row in rows.items():
        if name.startswith("bottleneck index: "):
            kind = name.removeprefix("bottleneck index: ")
            texts.append(
                f"Zeroing the top {kind} by probe weight there: bottleneck index {told(row)}; "
                + (
                    "too few random sets for a p."
                    if row["p"] is None
                    else f"among random sets p = {row['p']:.3f}."
                )
            )
        if name.startswith("depth of half: "):
            what = name.removeprefix("depth of half: ")
            texts.append(
                f"The {what} positions carry half of the change that another image makes at "
                f"{told(row)} of the depth."
            )
        if name.startswith("change of the lead, "):
            beside = (
                "all heads there are, so nothing to compare with"
                if row["p"] is None
                else f"as many other heads of these layers {row['random']:.2f}, p = {row['p']:.3f}"
            )
            texts.append(f"{name[0].upper()}{name[1:]}: {told(row)} ({beside}).")
    return texts


def _most(mistaken: list[str]) -> str:
    counts = pd.Series(mistaken, dtype=object).value_counts()
    if counts.empty:
        return "none"
    return "most often " + ", ".join(f"{name} {n}" for name, n in counts.head(3).items())


def pages(results: Mapping[str, Any]) -> dict[str, str]:
    """Tables of all figures of results.json: "embedded", and one for each family with further seeds."""
    families: dict[str, list[str]] = {}
    for name, one in results["checkpoints"].items():
        families.setdefault(one["family"], []).append(name)
    embedded = [name for name in results["checkpoints"] if name in families]
    found = {"embedded": markdown(results, embedded)}
    return found | {
        family: markdown(results, names) for family, names in families.items() if len(names) > 1
    }


def markdown(results: Mapping[str, Any], names: Sequence[str]) -> str:
    """A table of all figures, a column for each of these checkpoints, of results.json."""
    checkpoints = results["checkpoints"]
    rows = {n: {r["figure"]: r for r in _rows(checkpoints[n])} for n in names}
    figures = list(dict.fromkeys(name for held in rows.values() for name in held))
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (1 + len(rows)) + "|"]
    for figure in figures:
        cells = []
        for held in rows.values():
            row = held.get(figure)
            beside = []
            if row and row["random"] is not None:
                beside.append(f"random {row['random']:.2f}")
            if row and row["p"] is not None:
                beside.append(f"p = {row['p']:.3f}")
            cells.append("gap" if row is None else "; ".join([told(row), *beside]))
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rows(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A checkpoint's figures, after what is known of its circuits from the pairs they were found on."""
    blank = dict.fromkeys(("low", "high", "random", "p"))
    rows = []
    for name, held in one.get("found_on", {}).items():
        words = f"faithfulness on the pairs it was found on: {name}"
        rows.append(blank | {"figure": words, "value": held["faithfulness"]})
        for group, n in held["nodes"].items():
            rows.append(blank | {"figure": f"nodes: {name}, at {group} positions", "value": n})
    return rows + list(one["figures"])


def apart(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What distinguishes the checkpoints, and what does not, in words."""
    yes, no = [], []
    for row in table.to_dict("records"):
        text = f"{row['figure']}: {row['first']} minus {row['second']} {told(row, sign=True)}"
        if row["q"] == row["q"]:
            text += f", q = {row['q']:.3f}"
        (yes if row["told"] else no).append(text)
    return yes, no


def dots(checkpoints: Mapping[str, Any], figures: Mapping[str, str], title: str) -> go.Figure:
    """Figures by checkpoint, with intervals: a colour for each figure, shown by the words given for it."""
    plot = base_figure(title, "", height=150 + 34 * len(checkpoints) * len(figures))
    for i, (name, words) in enumerate(figures.items()):
        rows = []
        for place, one in enumerate(checkpoints.values()):
            for row in one["figures"]:
                if row["figure"] == name:
                    rows.append(row | {"at": -place - 0.7 * (i + 0.5) / len(figures)})
        if not rows:
            continue
        frame = pd.DataFrame(rows)
        ends = frame.assign(**{c: frame[c].fillna(frame["value"]) for c in ("low", "high")})
        colour, symbol = look(i)
        plot.add_scatter(
            x=frame["value"], y=frame["at"], mode="markers", name=label(words),
            error_x=interval_bars(ends, "value", "low", "high"),
            marker={"symbol": symbol, "size": 10, "color": COLOURS[colour]},
            hovertemplate=f"{label(words)}: %{{x:.2f}}<extra></extra>",
        )  # fmt: skip
    places = [-place - 0.35 for place in range(len(checkpoints))]
    plot.update_yaxes(
        tickvals=places, ticktext=[label(name) for name in checkpoints], showgrid=False
    )
    plot.update_layout(margin={"l": 150})
    return plot


class Page:
    """Paragraphs, tables and figures, in order."""

    def __init__(self, title: str) -> None:
        self._parts = [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        ]
        self._script = True

    def heading(self, text: str, level: int = 2) -> None:
        self._parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str, kind: str = "") -> None:
        mark = f" class='{kind}'" if kind else ""
        self._parts.append(f"<p{mark}>{html.escape(text)}</p>")

    def items(self, texts: list[str]) -> None:
        items = "".join(f"<li>{html.escape(t)}</li>" for t in texts or ["Nothing."])
        self._parts.append(f"<ul>{items}</ul>")

    def table(self, frame: pd.DataFrame) -> None:
        self._parts.append(frame.to_html(index=False, border=0, float_format="{:.3g}".format))

    def figure(self, figure: go.Figure, title: str) -> None:
        self.heading(title, 4)
        self._parts.append(figure.to_html(full_html=False, include_plotlyjs=self._script))
        self._script = False

    def write(self, path: Path) -> None:
        path.write_text("\n".join(self._parts), encoding="utf-8")
