"""Figures of several models on the same axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import pandas as pd
import plotly.graph_objects as go

from mechvrp.circuits import AblationCurve
from mechvrp.errors import InputError
from mechvrp.plots.dots import dots
from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, label, look

__all__ = ["ablations_by_model", "accuracy_by_model", "layers_by_model"]

Given = TypeVar("Given")


def accuracy_by_model(accuracy: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Accuracy per task, the models beside each other, with intervals.

    Args:
        accuracy: by model, the table that ``task_accuracy`` takes; rows of the split ``"all"``
            are drawn.
    """
    frame = pd.concat([_named(rows, name) for name, rows in _given(accuracy).items()])
    frame = frame[frame["split"] == "all"]
    tasks = list(dict.fromkeys(frame["task"]))
    figure = dots(
        frame,
        tasks,
        [label(task) for task in tasks],
        series=[(name, label(name), *look(i)) for i, name in enumerate(accuracy)],
        columns=("task", "model", "accuracy"),
        scale=100,
    )
    level = f"{100 * frame['level'].iloc[0]:.0f} %"
    figure.update_layout(xaxis_title=f"accuracy, %<br>bars: {level} interval")
    figure.update_xaxes(range=[-3, 103])
    return figure


def layers_by_model(sweeps: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Held-out AUROC of the correctness probe over depth, with intervals; chosen layers are filled.

    Args:
        sweeps: by model, ``ProbeSweep.to_frame()``. Depth is the share of the model's layers that
            lie behind the residual stream, so that models of different depth share an axis.
    """
    figure = base_figure("depth, % of the model's layers", "AUROC, held-out images", height=440)
    figure.add_hline(y=0.5, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    lowest = 0.45
    for i, (name, frame) in enumerate(_given(sweeps).items()):
        colour, symbol = look(i)
        n_layers = int(frame["layer"].max()) + 1
        marks = [symbol if chosen else f"{symbol}-open" for chosen in frame["chosen"].astype(bool)]
        figure.add_scatter(
            x=100 * (frame["layer"] + 1) / n_layers + 0.4 * i,  # bars that coincide stay legible
            y=frame["auroc"],
            error_y=interval_bars(frame, "auroc", "low", "high"),
            mode="lines+markers",
            name=f"{label(name)}, {n_layers} layers, n = {int(frame['n'].max())}",
            line={"color": COLOURS[colour], "width": 2},
            marker={"symbol": marks, "size": 11, "line": {"width": 2, "color": COLOURS[colour]}},
            customdata=frame[["layer", "low", "high"]].to_numpy().tolist(),
            hovertemplate="layer %{customdata[0]:.0f}: AUROC %{y:.3f} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
        )
        lowest = min(lowest, float(frame["low"].min()) - 0.03)
    figure.update_yaxes(range=[lowest, 1.02])
    return figure


def ablations_by_model(
    curves: Mapping[str, AblationCurve | tuple[pd.DataFrame, int]],
) -> go.Figure:
    """Change of accuracy over the share of units zeroed: top k solid, random k dashed.

    Args:
        curves: by model, an `AblationCurve`, or its ``to_frame()`` and the site's number of units.

    Raises:
        InputError: no curves, or one that does not know its number of units.
    """
    figure = base_figure(
        "units zeroed, % of the layer's width", "change of accuracy, percentage points", height=460
    )
    figure.add_hline(y=0, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    for i, (name, curve) in enumerate(_given(curves).items()):
        if isinstance(curve, AblationCurve):
            frame, units = curve.to_frame(), curve.units
        else:
            frame, units = curve
        if not units:
            raise InputError(f"the curve of {name} does not say how many units its site has")
        colour, symbol = look(i)
        rows = frame[frame["task"] == "all"].sort_values("k")
        for column, words, dash in (
            ("change", "top k", None),
            ("random_change", "random k", "dash"),
        ):
            ends = rows[[f"{column}_low", f"{column}_high"]]
            figure.add_scatter(
                x=100 * rows["k"] / units + 0.3 * i,
                y=rows[column],
                error_y=interval_bars(rows, column, *ends.columns),
                mode="lines+markers",
                name=f"{label(name)}, {words}",
                legendgroup=name,
                line={"color": COLOURS[colour], "width": 2, "dash": dash},
                marker={"symbol": symbol if dash is None else f"{symbol}-open", "size": 8},
                customdata=pd.concat([rows["k"], ends], axis=1).to_numpy().tolist(),
                hovertemplate=f"k = %{{customdata[0]:.0f}}, {words}: %{{y:.1f}} pp "
                "[%{customdata[1]:.1f}, %{customdata[2]:.1f}]<extra></extra>",
            )
    return figure


def _named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame.assign(model=name)


def _given(found: Mapping[str, Given]) -> Mapping[str, Given]:
    if not found:
        raise InputError("no models to draw")
    return found
