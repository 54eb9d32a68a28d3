"""Figures of image information at text positions, by layer and by model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.circuits import FlowComparison, ImageFlow
from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import (
    COLOURS,
    TEMPLATE,
    apart,
    bars,
    base_figure,
    interval_bars,
    label,
    look,
    measured,
    moved,
    plain_count,
    reference,
    ribbon,
    wrapped,
)

__all__ = ["image_flow_layers", "image_flows_by_model"]

_TITLES = {
    "knockout": "cut: change of {measure}",
    "patching": "patched: share of<br>the answer's change",
    "probe": "probed: {measure},<br>held-out images",
}
_COLUMNS = (
    "method", "what", "measure", "layer", "window", "value", "value_low", "value_high", "control",
    "control_low", "control_high", "n", "n_groups",
)  # fmt: skip
_NAMES_A_LINE = 2  # more are cut on a narrow page
_NOTHING = {"AUROC": 0.5, "AUROC within questions": 0.5}


def image_flow_layers(flow: ImageFlow | pd.DataFrame) -> go.Figure:
    """What each method finds, layer by layer, a panel per method, controls dashed.

    Args:
        flow: an `ImageFlow` or its ``to_frame()``; each method's first measure is drawn.

    Returns:
        A line per edge, position or probe with bars for its interval; a control as a dashed line with the band
        of its interval. Curves are named above their panel.

    Raises:
        InputError: no such table, or no method has a value.
    """
    frame = flow.to_frame() if isinstance(flow, ImageFlow) else flow
    frame = checked_rows(frame, _COLUMNS, "layers")
    frame = frame[frame["layer"].notna()]
    methods = [
        m
        for m in frame["method"].unique()
        if frame.loc[frame["method"] == m, "value"].notna().any()
    ]
    if not methods:
        raise InputError("no method has a value at any layer: there is nothing to draw")
    panels = []
    for method in methods:
        rows = frame[frame["method"] == method]
        measure = str(rows["measure"].iloc[0])
        rows = rows[(rows["measure"] == measure) & rows["value"].notna()]
        found = list(rows.groupby(["what", "window"], sort=False, dropna=False))
        panels.append((str(method), measure, found))
    # Named above its own panel: a legend for three panels would mix their curves.
    most = max(len(found) for *_, found in panels)
    above = 14 + 17 * -(-most // _NAMES_A_LINE)
    inner = 220 * len(panels) + (above + 24) * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=(above + 24) / inner if len(panels) > 1 else 0,
    )
    figure.update_layout(
        template=TEMPLATE,
        height=inner + above + 140,
        margin={"t": above, "b": 140},
        showlegend=False,
    )
    for row, (method, measure, found) in enumerate(panels, start=1):
        reference(figure, y=_NOTHING.get(measure, 0.0), row=row, col=1)
        names = []
        for i, ((what, window), rows) in enumerate(found):
            wide = "" if pd.isna(window) or int(window) == 1 else f" ({window} layers)"
            at = apart(i, len(found), 0.07)
            _curve(figure, rows.sort_values("layer"), f"{what}{wide}", i, row, at)
            names.append(
                f"<span style='color:{COLOURS[look(i)[0]]}'>{'●■◆▲✕'[i % 5]}</span> {label(what)}{wide}"
            )
        text = "<br>".join(
            "   ".join(names[at : at + _NAMES_A_LINE]) for at in range(0, len(names), _NAMES_A_LINE)
        )
        figure.add_annotation(
            x=0, xref="x domain", xanchor="left", y=1, yref="y domain", yanchor="bottom", yshift=2,
            align="left", showarrow=False, text=text, font={"size": 12}, row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(title_text=_title(method, measure), row=row, col=1)
        figure.update_xaxes(dtick=1 if frame["layer"].nunique() <= 36 else None, row=row, col=1)
    dashed = frame["control"].notna().any()
    figure.update_xaxes(
        title_text=f"layer<br>{plain_count(frame[frame['value'].notna()])}"
        f"{bars(frame[['value_low', 'value_high']])}"
        + ("<br>dashed, with a band: control" if dashed else "")
        + moved(most),
        row=len(panels),
        col=1,
    )
    return figure


def _title(method: str, measure: str) -> str:
    return _TITLES[method].format(measure=measured(measure).replace(", ", ",<br>"))


def _curve(
    figure: go.Figure, found: pd.DataFrame, what: str, i: int, row: int, aside: float
) -> None:
    colour, symbol = look(i)
    at = found["layer"].astype(float) + aside
    common = {"row": row, "col": 1}
    if found["control"].notna().any():
        ends = found[["control_low", "control_high"]]
        if ends.notna().all(axis=None):
            ribbon(
                figure, at, ends["control_low"], ends["control_high"], colour=COLOURS[colour],
                name=f"{label(what)}, control's band", opacity=0.15, **common,
            )  # fmt: skip
        figure.add_scatter(
            x=at,
            y=found["control"],
            mode="lines",
            name=f"{label(what)}, control",
            line={"color": COLOURS[colour], "width": 1.5, "dash": "dash"},
            customdata=found[["layer", *ends]].to_numpy(dtype=float, na_value=np.nan).tolist(),
            hovertemplate=f"control of {label(what)}, layer %{{customdata[0]:.0f}}: %{{y:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
            **common,
        )
    figure.add_scatter(
        x=at,
        y=found["value"],
        error_y=interval_bars(found, "value", "value_low", "value_high"),
        mode="lines+markers",
        name=label(what),
        line={"color": COLOURS[colour], "width": 2},
        marker={"symbol": symbol, "size": 9},
        customdata=found[["layer", "value_low", "value_high"]].to_numpy().tolist(),
        hovertemplate=f"{label(what)}, layer %{{customdata[0]:.0f}}: %{{y:.3f}} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
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

    Returns:
        A line per model with bars for its interval; of patching also the threshold of the comparison.

    Raises:
        InputError: another result, or no model has such a curve with a value.
    """
    if not isinstance(comparison, FlowComparison):
        raise InputError(
            f"expected a FlowComparison (from compare_image_flows); got {type(comparison).__name__}"
        )
    curves = {}
    for name, flow in comparison.flows.items():
        found = flow.curve(method, what, measure)  # type: ignore[arg-type]
        if found["value"].notna().any():
            curves[name] = found[found["value"].notna()]
    if not curves:
        raise InputError(f"no model has a value of {method}, {what}: there is nothing to draw")
    shown = str(next(iter(curves.values()))["measure"].iloc[0])
    figure = base_figure(
        f"depth, % of the model's layers{moved(len(curves))}",
        f"{_title(method, shown)}<br>({label(what)})"
        f"{bars(pd.concat(curves.values())[['value_low', 'value_high']])}",
        height=460,
    )
    levels = [_NOTHING.get(shown, 0.0)]
    if method == "patching":
        levels.append(comparison.threshold)
    for level in levels:
        reference(figure, y=level)
    for i, (name, found) in enumerate(curves.items()):
        colour, symbol = look(i)
        width = found["window"].iloc[0]
        for window, rows in found.groupby("window", sort=False, dropna=False):
            wide = "" if pd.isna(width) else f", {window} layer{'' if window == 1 else 's'} cut"
            figure.add_scatter(
                x=100 * rows["depth"] + apart(i, len(curves), 1.2),
                y=rows["value"],
                error_y=interval_bars(rows, "value", "value_low", "value_high"),
                mode="lines+markers",
                name=wrapped(f"{name}, {plain_count(rows)}{wide}", 36),
                line={"color": COLOURS[colour], "width": 2},
                marker={"symbol": symbol, "size": 10},
                customdata=rows[["layer", "value_low", "value_high"]].to_numpy().tolist(),
                hovertemplate=f"{label(name)}, layer %{{customdata[0]:.0f}}: %{{y:.3f}} "
                "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
            )
    return figure
