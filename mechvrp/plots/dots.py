"""Figures of labelled dots with intervals: accuracy per task, probe beside baselines."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.circuits import Comparison
from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import (
    COLOURS,
    bars,
    base_figure,
    interval_bars,
    label,
    percent_level,
    plain_count,
    reference,
    wrapped,
)

__all__ = ["baseline_comparison", "dots", "signal_aurocs", "task_accuracy"]

_SPLITS = {
    "all": ("all images", "blue", "circle"),
    "train": ("training images", "grey", "square"),
    "heldout": ("held-out images", "orange", "diamond"),
}
_SCOPES = {
    "all": ("over all examples", "blue", "circle"),
    "within tasks": ("within tasks", "orange", "diamond"),
}


_ACCURACY = ("task", "split", "n", "accuracy", "low", "high", "level")
_ENDS = ["low", "high"]
_AUROC = ("name", "scope", "auroc", "low", "high", "n")


def task_accuracy(accuracy: pd.DataFrame, splits: tuple[str, ...] = ("all",)) -> go.Figure:
    """Accuracy per task, with intervals.

    Args:
        accuracy: one row per task and split: task, split, n, accuracy, low, high (0 to 1; missing
            where there is none) and level.
        splits: which splits to draw: ``"all"``, ``"train"``, ``"heldout"``.

    Returns:
        One dot with its interval per task and split, in percent; n stands beside the task's name.

    Raises:
        InputError: no such table, an unknown split, or no accuracy of these splits.
    """
    if unknown := [split for split in splits if split not in _SPLITS]:
        raise InputError(f"no split {unknown[0]!r}; there are {', '.join(_SPLITS)}")
    drawn = checked_rows(accuracy, _ACCURACY, "tasks")
    drawn = drawn[drawn["split"].isin(splits)]
    checked_rows(drawn, _ACCURACY, "tasks", value="accuracy")
    names = list(dict.fromkeys(drawn["task"]))
    level = percent_level(drawn["level"].iloc[0])
    counts = [plain_count(drawn.loc[drawn["task"] == name, ["n"]]) for name in names]
    ticks = [
        f"{wrapped(name)}<br>{n.removesuffix(' examples')}"
        for name, n in zip(names, counts, strict=True)
    ]
    figure = dots(
        drawn,
        names,
        ticks,
        series=[(split, *_SPLITS[split]) for split in splits],
        columns=("task", "split", "accuracy"),
        scale=100,
    )
    figure.update_layout(xaxis_title=f"accuracy, %{bars(drawn[_ENDS], level)}")
    figure.update_xaxes(range=[-3, 103])
    if len(splits) == 1:
        figure.update_layout(showlegend=False, margin={"t": 20})
    return figure


def baseline_comparison(comparison: Comparison | pd.DataFrame) -> go.Figure:
    """AUROC of the probe, its baselines and the shuffled-label control, with intervals.

    Args:
        comparison: a `Comparison` or its ``to_frame()`` (name, scope, auroc, low, high, kind, n).

    Returns:
        One dot per score and scope. Bars are intervals from resampling images; the control's span
        its draws.

    Raises:
        InputError: no such table, or no score has an AUROC.
    """
    given = comparison.to_frame() if isinstance(comparison, Comparison) else comparison
    frame = checked_rows(given, (*_AUROC, "kind"), "scores", value="auroc")
    names = list(dict.fromkeys(frame["name"]))
    spread = frame[frame["kind"] == "range"].groupby("name")["n"].max()
    ticks = [
        f"{wrapped(name)}<br>range of {int(spread[name])} draws"
        if name in spread
        else wrapped(name)
        for name in names
    ]
    figure = dots(
        frame,
        names,
        ticks,
        series=[(scope, *_SCOPES[scope]) for scope in _SCOPES],
        columns=("name", "scope", "auroc"),
        scale=1,
    )
    judged = frame[(frame["kind"] == "interval") & frame["auroc"].notna()]
    figure.update_layout(
        xaxis_title=f"AUROC, held-out images<br>{plain_count(judged[['n']])}"
        f"{bars(judged[_ENDS])}<br>0.5: chance"
    )
    reference(figure, x=0.5)
    return figure


def signal_aurocs(rows: pd.DataFrame) -> go.Figure:
    """AUROC of each signal for a right answer, with intervals.

    Args:
        rows: a row per signal and scope: name, scope, auroc, low, high, n, uses_label.

    Returns:
        One dot per signal and scope, the names of signals that use the label in brackets. Below 0.5 a
        signal is higher where answers are wrong.

    Raises:
        InputError: no such table, or no signal has an AUROC.
    """
    checked_rows(rows, (*_AUROC, "uses_label"), "signals", value="auroc")
    names = list(dict.fromkeys(rows.loc[rows["auroc"].notna(), "name"]))
    labelled = set(rows.loc[rows["uses_label"].astype(bool), "name"])
    figure = dots(
        rows,
        names,
        [wrapped(f"({name})" if name in labelled else name) for name in names],
        series=[(scope, *_SCOPES[scope]) for scope in _SCOPES],
        columns=("name", "scope", "auroc"),
        scale=1,
    )
    figure.update_layout(
        xaxis_title=f"AUROC for a right answer<br>{plain_count(rows.loc[rows['auroc'].notna(), ['n']])}"
        f"{bars(rows[_ENDS])}<br>0.5: chance",
        height=180 + 36 * len(names),
    )
    reference(figure, x=0.5)
    return figure


def dots(
    frame: pd.DataFrame,
    names: list[str],
    ticks: list[str],
    *,
    series: list[tuple[str, str, str, str]],
    columns: tuple[str, str, str],
    scale: float,
) -> go.Figure:
    """Horizontal dots: one line of the figure per name, series side by side within it.

    Args:
        frame: a row per dot, with ``low``, ``high`` and ``n``.
        names: values of the item column, from the top.
        ticks: what stands beside each line.
        series: of each, its value of the group column, its title, colour and symbol.
        columns: which columns are item, group and value.
        scale: factor on value, ``low`` and ``high``.
    """
    item, group, value = columns
    figure = base_figure("", "", height=140 + 64 * len(names))
    for index, (key, title, colour, symbol) in enumerate(series):
        rows = frame[(frame[group] == key) & frame[value].notna()]
        scaled = rows[[value, "low", "high"]].astype(float) * scale
        offset = min(0.26, 0.8 / len(series)) * (index - (len(series) - 1) / 2)
        figure.add_scatter(
            x=scaled[value],
            y=[names.index(name) + offset for name in rows[item]],
            error_x=interval_bars(scaled, value, "low", "high"),
            mode="markers",
            name=title,
            marker={"color": COLOURS[colour], "symbol": symbol, "size": 11},
            customdata=[
                [label(name), low, high, n]
                for name, low, high, n in zip(
                    rows[item], scaled["low"], scaled["high"], rows["n"], strict=True
                )
            ],
            hovertemplate="%{customdata[0]}: %{x:.3~g} "
            "[%{customdata[1]:.3~g}, %{customdata[2]:.3~g}], n = %{customdata[3]}<extra></extra>",
        )
    # Reversed: the first name on top.
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=ticks,
        range=[len(names) - 0.5, -0.5],
        ticks="",
        showgrid=False,
    )
    return figure
