"""Figures of patching: knockouts over layers, estimates against exact patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, label

if TYPE_CHECKING:
    import xarray

__all__ = ["knockouts_by_layer", "verified_patches"]


def knockouts_by_layer(found: xarray.Dataset) -> go.Figure:
    """Change of the measure when attention is cut, over the layer around which it is cut.

    Args:
        found: from ``attention_knockout``.
    """
    measure, window = label(found.attrs["measure"]), int(found.attrs["window"])
    where = "layer" if window == 1 else f"middle of {window} layers"
    figure = base_figure(
        f"{where} without these edges<br>n = {found.sizes['example']} examples; bars: 95 % interval"
        if np.isfinite(found["change_low"].values).all()
        else f"{where} without these edges<br>n = {found.sizes['example']} example",
        f"change of {measure}",
    )
    figure.add_hline(y=0, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    symbols = ("circle", "square", "diamond", "triangle-up", "x")
    colours = list(COLOURS.values())
    for i, edge in enumerate(found["edge"].values):
        one = found.sel(edge=edge)
        frame = pd.DataFrame(
            {name: one[name].values for name in ("change", "change_low", "change_high")}
        )
        bars = frame.notna().all(axis=None)
        figure.add_scatter(
            x=found["layer"].values,
            y=frame["change"],
            error_y=interval_bars(frame, "change", "change_low", "change_high") if bars else None,
            mode="lines+markers",
            name=label(edge),
            line={"color": colours[i % len(colours)], "width": 2},
            marker={"symbol": symbols[i % len(symbols)], "size": 9},
        )
    figure.update_xaxes(dtick=1)
    return figure


def verified_patches(table: pd.DataFrame) -> go.Figure:
    """Exact effects of patches against their estimates, with intervals and the line of equality.

    Args:
        table: from ``Attribution.verify``.
    """
    if table.empty:
        raise InputError("no patches to draw")
    rank = table.attrs.get("spearman")
    note = f"; rank correlation {rank:.2f}" if rank is not None and np.isfinite(rank) else ""
    figure = base_figure(f"estimated change ({len(table)} largest{note})", "exact change")
    ends = [
        float(np.nanmin(table[["estimate", "exact"]].to_numpy())),
        float(np.nanmax(table[["estimate", "exact"]].to_numpy())),
    ]
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        name="equal",
        line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5},
    )
    bars = table[["exact_low", "exact_high"]].notna().all(axis=None)
    figure.add_scatter(
        x=table["estimate"],
        y=table["exact"],
        error_y=interval_bars(table, "exact", "exact_low", "exact_high") if bars else None,
        mode="markers",
        name="patches" + (", 95 % interval" if bars else ""),
        marker={"color": COLOURS["blue"], "size": 8},
        customdata=table[["component", "layer", "place"]].astype(str).to_numpy().tolist(),
        hovertemplate="%{customdata[0]} of layer %{customdata[1]}, %{customdata[2]}: exact %{y:.3g}, "
        "estimate %{x:.3g}<extra></extra>",
    )
    return figure
