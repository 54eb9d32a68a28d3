"""Figures over layers."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.circuits import ProbeSweep
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import (
    COLOURS,
    base_figure,
    percent_level,
    plain_count,
    reference,
    ribbon,
)

__all__ = ["layer_sweep"]

_COLUMNS = ("layer", "chosen", "cv_auroc", "auroc", "low", "high", "n", "n_groups", "level")


def layer_sweep(sweep: ProbeSweep | pd.DataFrame) -> go.Figure:
    """AUROC of the correctness probe at every layer, with a band for its interval.

    Args:
        sweep: a `ProbeSweep` or its ``to_frame()`` (columns layer, chosen, cv_auroc, auroc, low,
            high, n, n_groups, level).

    Returns:
        Held-out AUROC with the band of its interval (one layer at a time), the cross-validated AUROC that
        layers were chosen by, the chosen layer ringed, and chance (0.5) as a line.

    Raises:
        InputError: no such table, or no layer has an AUROC.
    """
    given = sweep.to_frame() if isinstance(sweep, ProbeSweep) else sweep
    frame = checked_rows(given, _COLUMNS, "layers", value="auroc").sort_values("layer")
    level = percent_level(frame["level"].iloc[0])
    figure = base_figure(
        "layer (residual stream after the block)", f"AUROC<br>{plain_count(frame)}", height=440
    )
    reference(figure, y=0.5)
    figure.add_annotation(
        x=1, xref="paper", xanchor="right", y=0.5, yanchor="top", text="chance", showarrow=False
    )
    if frame[["low", "high"]].notna().any(axis=None):
        ribbon(
            figure, frame["layer"], frame["low"], frame["high"], colour=COLOURS["blue"],
            name=f"{level} interval",
        )  # fmt: skip
    figure.add_scatter(
        x=frame["layer"],
        y=frame["cv_auroc"],
        mode="lines+markers",
        name="cross-validated<br>on training images",
        line={"color": COLOURS["grey"], "dash": "dash", "width": 1.5},
        marker={"size": 6, "symbol": "square"},
        hovertemplate="layer %{x}: cross-validated AUROC %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=frame["layer"],
        y=frame["auroc"],
        mode="lines+markers",
        name="held-out images",
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
