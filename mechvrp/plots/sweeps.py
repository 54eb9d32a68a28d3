"""Figures over layers."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.circuits import ProbeSweep
from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, plain_count

__all__ = ["layer_sweep"]


def layer_sweep(sweep: ProbeSweep | pd.DataFrame) -> go.Figure:
    """AUROC of the correctness probe at every layer.

    Args:
        sweep: a `ProbeSweep` or its ``to_frame()`` (columns layer, chosen, cv_auroc, auroc, low,
            high, n, n_groups, level).

    Returns:
        Held-out AUROC with its interval, the cross-validated AUROC that layers were chosen by, the
        chosen layer ringed, and chance (0.5) as a line.
    """
    frame = sweep.to_frame() if isinstance(sweep, ProbeSweep) else sweep
    level = f"{100 * frame['level'].iloc[0]:.0f} %"
    figure = base_figure(
        "layer (residual stream after the block)", f"AUROC<br>{plain_count(frame)}"
    )
    figure.add_hline(y=0.5, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    figure.add_annotation(
        x=1, xref="paper", xanchor="right", y=0.5, yanchor="top", text="chance", showarrow=False
    )
    figure.add_scatter(
        x=frame["layer"],
        y=frame["cv_auroc"],
        mode="lines+markers",
        name="training images, cross-validated (chooses the layer)",
        line={"color": COLOURS["grey"], "dash": "dash", "width": 1.5},
        marker={"size": 6, "symbol": "square"},
        hovertemplate="layer %{x}: cross-validated AUROC %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=frame["layer"],
        y=frame["auroc"],
        error_y=interval_bars(frame, "auroc", "low", "high"),
        mode="lines+markers",
        name=f"held-out images, {level} interval",
        line={"color": COLOURS["blue"], "width": 2.5},
        marker={"size": 9},
        customdata=frame[["low", "high"]].to_numpy().tolist(),
        hovertemplate="layer %{x}: AUROC %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
        "<extra></extra>",
    )
    chosen = frame[frame["chosen"].astype(bool)]
    figure.add_scatter(
        x=chosen["layer"],
        y=chosen["auroc"],
        mode="markers",
        name="chosen layer",
        marker={
            "size": 20,
            "symbol": "circle-open",
            "color": COLOURS["orange"],
            "line": {"width": 3},
        },
        hoverinfo="skip",
    )
    bottom = min(0.4, float(frame[["low", "cv_auroc"]].min().min()) - 0.03)
    figure.update_yaxes(range=[bottom, 1.02])
    # Every layer is labelled while there is room; beyond that plotly thins the labels.
    if len(frame) <= 36:
        figure.update_xaxes(dtick=1)
    return figure
