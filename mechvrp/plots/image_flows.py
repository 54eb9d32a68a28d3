"""Figures of image information at text positions, by layer and by model."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.circuits import FlowComparison, ImageFlow
from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, TEMPLATE, base_figure, interval_bars, label, look

__all__ = ["image_flow_layers", "image_flows_by_model"]

_TITLES = {
    "knockout": "cut: change of {measure}",
    "patching": "patched: share of<br>the answer's change",
    "probe": "probed: {measure},<br>held-out images",
}
_NOTHING = {"AUROC": 0.5, "AUROC within questions": 0.5}


def image_flow_layers(flow: ImageFlow | pd.DataFrame) -> go.Figure:
    """What each method finds, layer by layer, a panel per method, controls dashed.

    Args:
        flow: an `ImageFlow` or its ``to_frame()``; each method's first measure is drawn.

    Raises:
        InputError: no method has a value.
    """
    frame = flow.to_frame() if isinstance(flow, ImageFlow) else flow
    frame = frame[frame["layer"].notna()]
    methods = [
        m
        for m in frame["method"].unique()
        if frame.loc[frame["method"] == m, "value"].notna().any()
    ]
    if not methods:
        raise InputError("no method has a value at any layer: there is nothing to draw")
    figure = make_subplots(rows=len(methods), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.update_layout(template=TEMPLATE, height=120 + 270 * len(methods), showlegend=False)
    for row, method in enumerate(methods, start=1):
        rows = frame[frame["method"] == method]
        measure = str(rows["measure"].iloc[0])
        rows = rows[(rows["measure"] == measure) & rows["value"].notna()]
        figure.add_hline(
            y=_NOTHING.get(measure, 0.0),
            line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5},
            row=row,  # type: ignore[arg-type]
            col=1,  # type: ignore[arg-type]
        )
        for i, ((what, window), found) in enumerate(
            rows.groupby(["what", "window"], sort=False, dropna=False)
        ):
            _curve(figure, found.sort_values("layer"), str(what), window, i, row)
        words = _TITLES[str(method)].format(measure=label(measure.replace("_", " ")))
        figure.update_yaxes(title_text=words, row=row, col=1)
        figure.update_xaxes(dtick=1 if frame["layer"].nunique() <= 36 else None, row=row, col=1)
    figure.update_xaxes(title_text="layer", row=len(methods), col=1)
    figure.update_layout(margin={"r": 210})
    return figure


def _curve(
    figure: go.Figure, found: pd.DataFrame, what: str, window: Any, i: int, row: int
) -> None:
    colour, symbol = look(i)
    at = found["layer"].astype(float) + 0.05 * i  # bars that coincide stay legible
    wide = "" if pd.isna(window) or int(window) == 1 else f" ({window} layers)"
    common = {"row": row, "col": 1}
    figure.add_scatter(
        x=at,
        y=found["value"],
        error_y=interval_bars(found, "value", "value_low", "value_high"),
        mode="lines+markers",
        name=label(what),
        line={"color": COLOURS[colour], "width": 2},
        marker={"symbol": symbol, "size": 9},
        customdata=found[["value_low", "value_high"]].to_numpy().tolist(),
        hovertemplate=f"{label(what)}{wide}, layer %{{x:.0f}}: %{{y:.3f}} "
        "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
        **common,
    )
    if found["control"].notna().any():
        figure.add_scatter(
            x=at,
            y=found["control"],
            mode="lines",
            name=f"{label(what)}, control",
            line={"color": COLOURS[colour], "width": 1.5, "dash": "dash"},
            hovertemplate=f"control of {label(what)}, layer %{{x:.0f}}: %{{y:.3f}}<extra></extra>",
            **common,
        )
    # Named beside its last point: a legend for three panels would mix their curves.
    figure.add_annotation(
        x=1.01,
        xref="x domain",
        y=1 - 0.13 * i,
        yref="y domain",
        text=f"{'●■◆▲✕'[i % 5]} {label(what).replace(': ', ':<br>')}{wide}",
        align="left",
        showarrow=False,
        xanchor="left",
        yanchor="top",
        font={"color": COLOURS[colour], "size": 12},
        **common,
    )


def image_flows_by_model(
    comparison: FlowComparison,
    *,
    method: str = "patching",
    what: str = "text",
    measure: str | None = None,
) -> go.Figure:
    """One curve per model over depth, with intervals, and controls dashed.

    Args:
        comparison: of `compare_image_flows`.
        method, what, measure: which curve, as ``ImageFlow.curve``.

    Raises:
        InputError: no model has such a curve with a value.
    """
    curves = {}
    for name, flow in comparison.flows.items():
        found = flow.curve(method, what, measure)  # type: ignore[arg-type]
        if found["value"].notna().any():
            curves[name] = found[found["value"].notna()]
    if not curves:
        raise InputError(f"no model has a value of {method}, {what}: there is nothing to draw")
    shown = str(next(iter(curves.values()))["measure"].iloc[0])
    words = _TITLES[method].format(measure=label(shown.replace("_", " ")))
    figure = base_figure(
        "depth, % of the model's layers", f"{words}<br>({label(what)})", height=440
    )
    levels = [_NOTHING.get(shown, 0.0)]
    if method == "patching":
        levels.append(comparison.threshold)
    for level in levels:
        figure.add_hline(y=level, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    for i, (name, found) in enumerate(curves.items()):
        colour, symbol = look(i)
        width = found["window"].iloc[0]
        for window, rows in found.groupby("window", sort=False, dropna=False):
            wide = "" if pd.isna(width) else f", {window} layer{'' if window == 1 else 's'} cut"
            figure.add_scatter(
                x=100 * rows["depth"] + 0.4 * i,  # bars that coincide stay legible
                y=rows["value"],
                error_y=interval_bars(rows, "value", "value_low", "value_high"),
                mode="lines+markers",
                name=f"{label(name)}, n = {int(rows['n'].max())}{wide}",
                line={"color": COLOURS[colour], "width": 2},
                marker={"symbol": symbol, "size": 10},
                customdata=rows[["layer", "value_low", "value_high"]].to_numpy().tolist(),
                hovertemplate=f"{label(name)}, layer %{{customdata[0]:.0f}}: %{{y:.3f}} "
                "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
            )
    return figure
