"""Figures of patching: effects over the image, knockouts over layers, estimates against exact patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.errors import InputError, ShapeError
from mechvrp.plots.theme import COLOURS, TEMPLATE, base_figure, faint, interval_bars, label

if TYPE_CHECKING:
    import xarray
    from PIL.Image import Image

__all__ = ["effects_over_image", "knockouts_by_layer", "verified_patches"]

_PANEL = 210  # pixels a side


def effects_over_image(
    effects: xarray.DataArray,
    image: Image,
    *,
    title: str = "effect",
    layers: list[int] | None = None,
) -> go.Figure:
    """Effects of image patches laid over the image, a panel per layer.

    Args:
        effects: [layer, row, col], e.g. the mean over examples of an activation-patching grid over
            patches, or ``patch_effects`` of a causal trace.
        image: what the model saw, at any size with the grid's aspect ratio.
        title: what an effect is, with its unit.
        layers: by default all.

    Returns:
        One colour scale for all panels, white at 0; weak effects are transparent.

    Raises:
        ShapeError: not [layer, row, col].
    """
    if effects.dims != ("layer", "row", "col"):
        raise ShapeError(f"effects over an image are [layer, row, col]; got {list(effects.dims)}")
    chosen = effects if layers is None else effects.sel(layer=layers)
    n = chosen.sizes["layer"]
    rows, cols = chosen.sizes["row"], chosen.sizes["col"]
    figure = make_subplots(
        rows=1,
        cols=n + 1,
        subplot_titles=["image", *(f"layer {int(i)}" for i in chosen["layer"].values)],
        horizontal_spacing=0.02,
    )
    most = float(np.abs(chosen.values).max()) or 1.0
    picture = image.convert("RGB").resize((cols * 16, rows * 16))
    for column in range(1, n + 2):
        figure.add_layout_image(
            source=picture,
            x=-0.5,
            y=-0.5,
            sizex=cols,
            sizey=rows,
            xanchor="left",
            yanchor="top",
            sizing="stretch",
            layer="below",
            row=1,
            col=column,
        )
        axes: dict[str, Any] = {"showgrid": False, "showticklabels": False, "ticks": ""}
        figure.update_xaxes(range=[-0.5, cols - 0.5], constrain="domain", row=1, col=column, **axes)
        figure.update_yaxes(
            range=[rows - 0.5, -0.5], scaleanchor=f"x{column}", row=1, col=column, **axes
        )
    # An empty trace, so that the first panel exists.
    figure.add_scatter(x=[None], y=[None], showlegend=False, row=1, col=1)
    blue, orange = COLOURS["blue"], COLOURS["orange"]
    scale = [
        [0, faint(blue, 0.9)],
        [0.5, "rgba(255,255,255,0.0)"],
        [1, faint(orange, 0.9)],
    ]
    for i in range(n):
        figure.add_heatmap(
            z=chosen.values[i],
            zmin=-most,
            zmax=most,
            colorscale=scale,
            showscale=i == n - 1,
            colorbar={"title": {"text": label(title), "side": "right"}, "thickness": 14},
            hovertemplate="row %{y}, column %{x}: %{z:.3g}<extra></extra>",
            row=1,
            col=i + 2,
        )
    figure.update_layout(
        template=TEMPLATE,
        height=_PANEL + 80,
        width=(_PANEL + 10) * (n + 1) + 110,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
    )
    return figure


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
