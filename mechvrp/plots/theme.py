"""The one look of every figure: colours, fonts and small helpers."""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from mechvrp.plots.directions import isolated

__all__ = [
    "COLOURS",
    "TEMPLATE",
    "apart",
    "bars",
    "base_figure",
    "count",
    "faint",
    "interval_bars",
    "label",
    "look",
    "measured",
    "moved",
    "percent_level",
    "plain_count",
    "reference",
    "ribbon",
    "wrapped",
]

# Okabe and Ito's palette, told apart with every common colour blindness; grey for references.
COLOURS: dict[str, str] = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "grey": "#7A7A7A",
}

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")

_MEASURES = {
    "logit": "logit of the answer",
    "logit_diff": "logit difference, logits",
    "probability": "probability",
    "kl": "divergence, nats",
    "correct": "accuracy, share",
}

# Text of a grey that both white (4.5 to 1) and nearly black (#111: 4.2 to 1) pages set off; pages that know
# which they are (the report) set their own colour.
_TEXT = "#767676"

# Backgrounds are transparent and the grid is half-transparent grey, for light and dark pages.
_AXIS = {
    "showline": False,
    "zeroline": False,
    "gridcolor": "rgba(128,128,128,0.25)",
    "ticks": "outside",
    "tickcolor": "rgba(128,128,128,0.5)",
    "automargin": True,
    "title": {"standoff": 12, "font": {"size": 13}},
}
TEMPLATE = go.layout.Template(
    layout={
        "colorway": list(COLOURS.values()),
        "font": {
            "family": "system-ui, Segoe UI, Helvetica, Arial, sans-serif",
            "size": 14,
            "color": _TEXT,
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 60, "r": 20, "t": 60, "b": 70},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hoverlabel": {"font": {"size": 13}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#7A7A7A", "activecolor": "#0072B2"},
    }
)


def base_figure(x_title: str, y_title: str, height: int = 400) -> go.Figure:
    """An empty figure in the package's template, with titled axes."""
    figure = go.Figure()
    figure.update_layout(template=TEMPLATE, height=height, xaxis_title=x_title, yaxis_title=y_title)
    return figure


def interval_bars(frame: pd.DataFrame, value: str, low: str, high: str) -> dict[str, object]:
    """Plotly error bars from interval ends (ends are absolute, plotly wants distances)."""
    return {
        "type": "data",
        "symmetric": False,
        "array": (frame[high] - frame[value]).tolist(),
        "arrayminus": (frame[value] - frame[low]).tolist(),
        "thickness": 2,
        "width": 5,
    }


def bars(ends: pd.DataFrame, level: str = "95 %", what: str = "bars") -> str:
    """What an axis says of intervals that are drawn; nothing where none of them has an end."""
    return f"<br>{what}: {level} interval" if ends.notna().any(axis=None) else ""


def apart(place: int, curves: int, step: float) -> float:
    """How far the curve at that place, of so many, is moved sideways, so that bars that coincide stay legible.

    Half of the curves move to the left. An axis of numbers has to say it (`moved`), and hovering to tell the
    value itself.
    """
    return step * (place - (curves - 1) / 2)


def moved(curves: int) -> str:
    """What an axis says of curves that `apart` moved; nothing of one, which stays where it is."""
    return "<br>points are moved apart sideways" if curves > 1 else ""


def label(text: object) -> str:
    """Text from data as plotly text: its pseudo-HTML (links, tags) is not interpreted, nor do its letters
    turn the words around it."""
    return html.escape(isolated(str(text)), quote=False)


def count(n: int, images: int | None = None) -> str:
    """``n = 157 examples of 53 images``; without images where it is not known how many there are."""
    examples = f"n = {n} example{'' if n == 1 else 's'}"
    return (
        examples if images is None else f"{examples} of {images} image{'' if images == 1 else 's'}"
    )


def percent_level(level: float) -> str:
    """``95 %``"""
    return f"{100 * level:g} %"


def ribbon(
    figure: go.Figure,
    x: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    colour: str,
    name: str,
    opacity: float = 0.25,
    **place: Any,
) -> None:
    """Add a band between two ends, in a faint colour; ``place``: of the traces, e.g. ``row`` and ``col``."""
    edge: dict[str, Any] = {
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "legendgroup": name,
    }
    figure.add_scatter(x=x, y=low, showlegend=False, **edge, **place)
    figure.add_scatter(
        x=x,
        y=high,
        fill="tonexty",
        fillcolor=faint(colour, opacity),
        name=name,
        **edge,
        **place,
    )


def look(index: int) -> tuple[str, str]:
    """Name of the colour, and symbol, of the model at that place."""
    return list(COLOURS)[index % len(COLOURS)], _SYMBOLS[index % len(_SYMBOLS)]


def faint(colour: str, opacity: float) -> str:
    """A ``#rrggbb`` colour with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def plain_count(frame: pd.DataFrame) -> str:
    """``n = 157 examples of 53 images`` from the columns ``n`` and, where there is one, ``n_groups``.

    Where rows differ, the smallest and the largest: ``n = 20 to 157 examples``.
    """
    words = f"n = {_span(frame['n'])} examples"
    return f"{words} of {_span(frame['n_groups'])} images" if "n_groups" in frame else words


def _span(numbers: pd.Series) -> str:
    known = numbers.dropna().astype(int)
    if known.empty:
        return "0"
    least, most = known.min(), known.max()
    return f"{most}" if least == most else f"{least} to {most}"


def wrapped(text: object, width: int = 24) -> str:
    """`label` in lines of about so many letters, broken at spaces and behind underscores.

    A narrow page has 390 pixels: names beside an axis and entries of a legend are cut there if they are long.
    """
    lines = [""]
    for part in re.findall(r"[^\s_]*[\s_]?", str(text)):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "<br>".join(label(line.rstrip()) for line in lines if line.strip())


def measured(measure: object) -> str:
    """The name of a measure of patching with its unit, for an axis."""
    return _MEASURES.get(str(measure)) or label(measure)


def reference(
    figure: go.Figure, *, x: float | None = None, y: float | None = None, **place: Any
) -> None:
    """A dotted grey line where there is no effect, or only chance; ``place``: ``row`` and ``col``."""
    line = {"color": COLOURS["grey"], "dash": "dot", "width": 1.5}
    if place:
        place["exclude_empty_subplots"] = False  # the panel's curves may come after
    if x is not None:
        figure.add_vline(x=x, line=line, **place)
    if y is not None:
        figure.add_hline(y=y, line=line, **place)
