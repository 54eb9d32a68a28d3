"""Figure of signals where answers are right and where they are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import COLOURS, TEMPLATE, faint, label
from mechvrp.reliability import Observations, known_signals
from mechvrp.statistics import auroc_interval, group_bootstrap
from mechvrp.statistics.bootstrap import weighted_mean
from mechvrp.statistics.checks import binary

__all__ = ["signal_violins"]

_MOST = 24


def signal_violins(
    signals: Observations | pd.DataFrame,
    correct: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    columns: int = 3,
) -> go.Figure:
    """Signals by correctness: a panel each, a violin for right and one for wrong answers.

    Args:
        signals: an ``Observations``, or a table with a column a signal (a study's ``signals``).
        correct: ``[example]``, 0 or 1; by default the table's column ``correct``.
        names: signals; by default all that are known (``mechvrp.reliability.SIGNALS``) and vary.
        groups: ``[example]`` image of each example; by default the columns ``source_id`` or ``image_id``.
        columns: panels side by side.

    Returns:
        Violins with their box; the mean with its 95 % interval over images as a marker with a bar. Titles give
        the AUROC with its interval (or that there is none, where one class is missing), ticks n. Examples for
        which a signal does not exist are left out of its panel. Names in brackets use the label, so they
        describe and never predict.

    Raises:
        InputError: no table, no rows, no labels, no such column, nothing to draw, or too many panels.
        ShapeError: labels or groups of another length.
        NumericalError: an infinite value.
    """
    given = signals.to_frame() if isinstance(signals, Observations) else signals
    table = checked_rows(given, (), "signals")
    if correct is None:
        if "correct" not in table:
            raise InputError("which answers are right is not known: give 'correct'")
        correct = table["correct"].to_numpy()
    right = binary(correct, "correct")
    if len(right) != len(table):
        raise ShapeError(f"correct of length {len(right)}; the table has {len(table)} rows")
    if groups is None:
        groups = image_sources(table) if "image_id" in table else np.arange(len(table))
    images = np.asarray(groups).astype(str)
    if images.shape != right.shape:
        raise ShapeError(f"groups of shape {images.shape}; the table has {len(table)} rows")
    chosen = _chosen(table, names)
    if columns < 1:
        raise InputError(f"columns is how many panels stand side by side; got {columns}")
    across = min(columns, len(chosen))
    lines = -(-len(chosen) // across)
    inner = 250 * lines + 110 * (lines - 1)
    figure = make_subplots(
        rows=lines,
        cols=across,
        subplot_titles=[" "] * len(chosen),
        horizontal_spacing=0.24 / across if across > 1 else 0,
        vertical_spacing=110 / inner if lines > 1 else 0,
    )
    figure.update_layout(
        template=TEMPLATE,
        height=inner + 206,
        margin={"t": 122, "b": 84},
        violinmode="overlay",
        # From the figure's top down: titles stand between it and the panels, however many lines it has.
        legend={"yref": "container", "y": 0.995, "yanchor": "top", "xref": "container", "x": 0.02},
    )
    named: set[str] = set()  # in the legend
    described = known_signals()
    for index, name in enumerate(chosen):
        place = {"row": index // across + 1, "col": index % across + 1}
        values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        known = ~np.isnan(values)
        if np.isinf(values).any():
            raise NumericalError(f"{name} holds infinite values")
        ticks = []
        for at, (words, of, colour, symbol) in enumerate(
            (("right", right, "blue", "circle"), ("wrong", ~right, "orange", "diamond"))
        ):
            rows = known & of
            ticks.append(f"{words}<br>n = {int(rows.sum())}")
            figure.add_violin(
                x=np.full(int(rows.sum()), at),
                y=values[rows],
                name=words,
                line={"color": COLOURS[colour], "width": 1.5},
                fillcolor=faint(COLOURS[colour], 0.25),
                box={"visible": True, "width": 0.12},
                points=False,
                width=0.85,
                spanmode="hard",
                showlegend=False,
                hoveron="violins",
                **place,
            )
            if (
                len(set(images[rows])) < 2
            ):  # of one image there is no interval, and a mean without is none
                continue
            mean = group_bootstrap(weighted_mean, values[rows], groups=images[rows], weighted=True)
            figure.add_scatter(
                x=[at + 0.28],
                y=[mean.value],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [mean.high - mean.value],
                    "arrayminus": [mean.value - mean.low],
                    "thickness": 2.5,
                    "width": 5,
                },
                mode="markers",
                marker={"color": COLOURS[colour], "symbol": symbol, "size": 9},
                name=f"mean of {words} answers, 95 % interval",
                legendgroup=words,
                showlegend=words not in named,
                hovertemplate=f"mean of {words} {label(name)}: {mean.value:.4g} "
                f"[{mean.low:.4g}, {mean.high:.4g}], n = {mean.n} of {mean.n_groups} images"
                "<extra></extra>",
                **place,
            )
            named.add(words)
        used = name in described and described[name].uses_label
        shown = label(f"({name})" if used else name).replace("_", " ")
        figure.layout.annotations[index].update(
            text=f"{shown}<br>{_auroc(values[known], right[known], images[known])}",
            font={"size": 13},
        )
        figure.update_yaxes(title_text=_unit(name), title_standoff=4, **place)
        figure.update_xaxes(
            tickvals=[0, 1], ticktext=ticks, range=[-0.55, 1.55], showgrid=False, **place
        )
    return figure


def _unit(name: str) -> str:
    known = known_signals()
    return (known[name].unit if name in known else "") or "value"


def _auroc(values: np.ndarray, right: np.ndarray, images: np.ndarray) -> str:
    if right.all() or not right.any():
        return "no AUROC: one class only"
    if len(set(images)) < 2:
        return "no AUROC: one image only"
    found = auroc_interval(values, right, images)
    return f"AUROC {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _chosen(table: pd.DataFrame, names: Sequence[str] | None) -> list[str]:
    if names is None:
        found = [
            name
            for name in known_signals()
            if name in table
            and pd.api.types.is_numeric_dtype(table[name])
            and table[name].nunique(dropna=True) > 1
        ]
    else:
        found = list(dict.fromkeys(names))
        if missing := [name for name in found if name not in table]:
            raise InputError(f"no signal {missing[0]!r} in this table")
        for name in found:
            if not pd.api.types.is_numeric_dtype(table[name]):
                raise InputError(f"{name!r} is no number ({table[name].dtype})")
    if not 1 <= len(found) <= _MOST:
        raise InputError(
            f"{len(found)} signals to draw; expected 1 to {_MOST}: choose with names=[...]"
        )
    return found
