"""Figures of several models on the same axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvrp.circuits import AblationCurve, CurveComparison, ProbeSweep
from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.dots import dots
from mechvrp.plots.theme import (
    COLOURS,
    apart,
    bars,
    base_figure,
    interval_bars,
    label,
    look,
    moved,
    percent_level,
    plain_count,
    reference,
    ribbon,
    wrapped,
)

__all__ = ["ablations_by_model", "accuracy_by_model", "layers_by_model"]

_ACCURACY = ("task", "split", "n", "accuracy", "low", "high", "level")
_SWEEP = ("layer", "chosen", "auroc", "low", "high", "n", "level")
_CURVE = (
    "task", "k", "n", "level", "change", "change_low", "change_high", "random_change", "random_change_low",
    "random_change_high",
)  # fmt: skip


def accuracy_by_model(accuracy: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Accuracy per task, the models beside each other, with intervals.

    Args:
        accuracy: by model, the table that ``task_accuracy`` takes; rows of the split ``"all"``
            are drawn.

    Returns:
        One dot with its interval per task and model, in percent; n stands beside the task's name.

    Raises:
        InputError: no models, a table without such columns, or none that has an accuracy of all images.
    """
    parts = [
        checked_rows(rows, _ACCURACY, "tasks").assign(model=name)
        for name, rows in _given(accuracy, "tables of accuracy").items()
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["split"] == "all"]
    checked_rows(frame, _ACCURACY, "tasks", value="accuracy")
    tasks = list(dict.fromkeys(frame["task"]))
    counts = [plain_count(frame.loc[frame["task"] == task, ["n"]]) for task in tasks]
    figure = dots(
        frame,
        tasks,
        [
            f"{wrapped(task)}<br>{n.removesuffix(' examples')}"
            for task, n in zip(tasks, counts, strict=True)
        ],
        series=[(name, label(name), *look(i)) for i, name in enumerate(accuracy)],
        columns=("task", "model", "accuracy"),
        scale=100,
    )
    figure.update_layout(
        xaxis_title="accuracy, %"
        + bars(frame[["low", "high"]], percent_level(frame["level"].iloc[0]))
    )
    figure.update_xaxes(range=[-3, 103])
    return figure


def layers_by_model(sweeps: Mapping[str, ProbeSweep | pd.DataFrame]) -> go.Figure:
    """Held-out AUROC of the correctness probe over depth, with intervals; chosen layers are filled.

    Args:
        sweeps: by model, a `ProbeSweep` or its ``to_frame()``. Depth is the share of the model's layers that
            lie behind the residual stream, so that models of different depth share an axis.

    Returns:
        A line per model with bars for its interval; chance (0.5) as a line.

    Raises:
        InputError: no models, or a table that is none of a sweep.
    """
    sweeps = _given(sweeps, "probe sweeps")
    title = f"depth, % of the model's layers{moved(len(sweeps))}"
    figure = base_figure(title, "", height=440)
    reference(figure, y=0.5)
    lowest, level, ends = 0.45, 0.95, []
    for i, (name, given) in enumerate(sweeps.items()):
        rows = given.to_frame() if isinstance(given, ProbeSweep) else given
        frame = checked_rows(rows, _SWEEP, "layers", value="auroc").sort_values("layer")
        colour, symbol = look(i)
        n_layers = int(frame["layer"].max()) + 1
        level = float(frame["level"].iloc[0])
        marks = [symbol if chosen else f"{symbol}-open" for chosen in frame["chosen"].astype(bool)]
        figure.add_scatter(
            x=100 * (frame["layer"] + 1) / n_layers + apart(i, len(sweeps), 1.2),
            y=frame["auroc"],
            error_y=interval_bars(frame, "auroc", "low", "high"),
            mode="lines+markers",
            name=wrapped(f"{name}, {n_layers} layers, n = {int(frame['n'].max())}", 36),
            line={"color": COLOURS[colour], "width": 2},
            marker={"symbol": marks, "size": 11, "line": {"width": 2, "color": COLOURS[colour]}},
            customdata=frame[["layer", "low", "high"]].to_numpy().tolist(),
            hovertemplate=f"{label(name)}, layer %{{customdata[0]:.0f}}: AUROC %{{y:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
        )
        lowest = min(lowest, float(np.nanmin(frame[["low", "auroc"]].to_numpy(dtype=float))) - 0.03)
        ends.append(frame[["low", "high"]])
    figure.update_yaxes(
        range=[lowest, 1.02],
        title_text=f"AUROC, held-out images{bars(pd.concat(ends), percent_level(level))}",
    )
    return figure


def ablations_by_model(
    curves: CurveComparison | Mapping[str, AblationCurve | tuple[pd.DataFrame, int]],
) -> go.Figure:
    """Change of accuracy over the share of units zeroed: top k solid, random k dashed with a band.

    Args:
        curves: a `CurveComparison`; or by model, an `AblationCurve`, or its ``to_frame()`` and the site's
            number of units.

    Returns:
        A line per model with bars for its interval; random units as a dashed line with the band of their
        mean's interval (over images and draws).

    Raises:
        InputError: no curves, a table that is none of a curve, or one that does not know its number of units.
    """
    if isinstance(curves, CurveComparison):
        curves = curves.curves
    curves = _given(curves, "ablation curves")
    title = f"units zeroed, % of the layer's width{moved(len(curves))}"
    figure = base_figure(title, "", height=480)
    reference(figure, y=0)
    level, drawn = 0.95, []
    for i, (name, curve) in enumerate(curves.items()):
        rows, units = _curve(name, curve)
        colour, symbol = look(i)
        level = float(rows["level"].iloc[0])
        x = 100 * rows["k"] / units + apart(i, len(curves), 0.6)
        band = ("random_change_low", "random_change_high")
        drawn.append(rows[["change_low", "change_high"]])
        ribbon(
            figure, x, rows[band[0]], rows[band[1]], colour=COLOURS[colour], name=f"{label(name)}, band",
            opacity=0.18,
        )  # fmt: skip
        figure.data[-1].showlegend = False
        for column, words, dash in (
            ("random_change", "random k", "dash"),
            ("change", f"top k, n = {int(rows['n'].max())}", None),
        ):
            ends = rows[[f"{column}_low", f"{column}_high"]]
            figure.add_scatter(
                x=x,
                y=rows[column],
                error_y=interval_bars(rows, column, *ends.columns) if dash is None else None,
                mode="lines+markers",
                name=wrapped(f"{name}, {words}", 36),
                legendgroup=name,
                line={"color": COLOURS[colour], "width": 2, "dash": dash},
                marker={"symbol": symbol if dash is None else f"{symbol}-open", "size": 8},
                customdata=pd.concat([rows["k"], ends], axis=1).to_numpy().tolist(),
                hovertemplate=f"{label(name)}, k = %{{customdata[0]:.0f}}, {words}: %{{y:.1f}} pp "
                "[%{customdata[1]:.1f}, %{customdata[2]:.1f}]<extra></extra>",
            )
    figure.update_yaxes(
        title_text="change of accuracy,<br>percentage points"
        + bars(pd.concat(drawn), percent_level(level), "bars and bands")
    )
    return figure


def _curve(name: str, curve: Any) -> tuple[pd.DataFrame, int]:
    """Rows of all tasks together, by k, and the number of units."""
    if isinstance(curve, AblationCurve):
        frame, units = curve.to_frame(), curve.units
    elif isinstance(curve, tuple) and len(curve) == 2:
        frame, units = curve
    else:
        raise InputError(
            f"of {name} expected an AblationCurve, or its table and number of units; got "
            f"{type(curve).__name__}"
        )
    if not units:
        raise InputError(f"the curve of {name} does not say how many units its site has")
    frame = checked_rows(frame, _CURVE, "numbers of units", value="change")
    rows = frame[frame["task"] == "all"].sort_values("k")
    if rows.empty:
        raise InputError(f"the curve of {name} has no rows of all tasks together")
    return rows, int(units)


def _given(found: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise InputError(f"expected {what} by model, {{name: ...}}; got {type(found).__name__}")
    if not found:
        raise InputError("no models to draw")
    return found
