"""Figures of patching: knockouts over layers, estimates against exact patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import (
    COLOURS,
    apart,
    base_figure,
    count,
    interval_bars,
    label,
    look,
    measured,
    moved,
    reference,
)

if TYPE_CHECKING:
    import xarray

__all__ = ["knockouts_by_layer", "verified_patches"]


def knockouts_by_layer(found: xarray.Dataset) -> go.Figure:
    """Change of the measure when attention is cut, over the layer around which it is cut.

    Args:
        found: from ``attention_knockout``.

    Returns:
        A line per edge, with bars for its interval where there are two images or more.

    Raises:
        InputError: another dataset, or no change that is a number.
    """
    variables = getattr(found, "data_vars", {})
    if not {"change", "change_low", "change_high"} <= set(variables) or "edge" not in found.dims:
        raise InputError(
            "expected a dataset from attention_knockout; got "
            f"{', '.join(map(str, variables)) or type(found).__name__}"
        )
    if not np.isfinite(found["change"].values).any():
        raise InputError("no knockout has a number to draw: change is missing everywhere")
    window = int(found.attrs["window"])
    where = "layer" if window == 1 else f"middle of {window} layers"
    bounded = bool(np.isfinite(found["change_low"].values).all())
    caption = count(found.sizes["example"], found.attrs.get("n_groups"))
    figure = base_figure(
        f"{where} without these edges<br>{caption}"
        + ("<br>bars: 95 % interval" if bounded else "")
        + moved(found.sizes["edge"]),
        f"change of<br>{measured(found.attrs['measure'])}",
        height=440,
    )
    reference(figure, y=0)
    layers = found["layer"].values
    for i, edge in enumerate(found["edge"].values):
        one = found.sel(edge=edge)
        frame = pd.DataFrame(
            {name: one[name].values for name in ("change", "change_low", "change_high")}
        )
        bars = frame.notna().all(axis=None)
        colour, symbol = look(i)
        figure.add_scatter(
            x=layers + apart(i, found.sizes["edge"], 0.06),
            y=frame["change"],
            error_y=interval_bars(frame, "change", "change_low", "change_high") if bars else None,
            mode="lines+markers",
            name=label(edge),
            line={"color": COLOURS[colour], "width": 2},
            marker={"symbol": symbol, "size": 9},
            customdata=frame.assign(layer=layers)[["layer", "change_low", "change_high"]]
            .to_numpy()
            .tolist(),
            hovertemplate=f"{label(edge)}, layer %{{customdata[0]:.0f}}: %{{y:.3g}}"
            + (" [%{customdata[1]:.3g}, %{customdata[2]:.3g}]" if bars else "")
            + "<extra></extra>",
        )
    if len(found["layer"]) <= 36:
        figure.update_xaxes(dtick=1)
    return figure


_VERIFIED = ("component", "layer", "place", "estimate", "exact", "exact_low", "exact_high")


def verified_patches(table: pd.DataFrame) -> go.Figure:
    """Exact effects of patches against their estimates, with intervals and the line of equality.

    Args:
        table: from ``Attribution.verify``.

    Returns:
        A marker per patch, with a bar for the exact effect's interval where there are two images or more.

    Raises:
        InputError: no such table, no patches, or none with a number.
    """
    table = checked_rows(table, _VERIFIED, "patches", value="exact")
    rank = table.attrs.get("spearman")
    lines = [f"estimated change, {len(table)} largest"]
    if rank is not None and np.isfinite(rank):
        lines.append(f"rank correlation {rank:.2f}")
    if "n" in table.attrs:
        lines.append(count(table.attrs["n"], table.attrs["n_groups"]))
    measure = table.attrs.get("measure")
    words = "exact change" if measure is None else f"exact change of<br>{measured(measure)}"
    figure = base_figure("<br>".join(lines), words, height=440)
    both = table[["estimate", "exact"]].to_numpy(dtype=float)
    ends = [float(np.nanmin(both)), float(np.nanmax(both))]
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        name="equal",
        line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )
    bars = table[["exact_low", "exact_high"]].notna().all(axis=None)
    told = table[["component", "layer", "place"]].astype(str).map(label)
    figure.add_scatter(
        x=table["estimate"],
        y=table["exact"],
        error_y=interval_bars(table, "exact", "exact_low", "exact_high") if bars else None,
        mode="markers",
        name="patches" + (", 95 % interval" if bars else ""),
        marker={"color": COLOURS["blue"], "size": 8},
        customdata=told.assign(low=table["exact_low"], high=table["exact_high"])
        .to_numpy()
        .tolist(),
        hovertemplate="%{customdata[0]} of layer %{customdata[1]}, %{customdata[2]}: exact %{y:.3g}"
        + (" [%{customdata[3]:.3g}, %{customdata[4]:.3g}]" if bars else "")
        + ", estimate %{x:.3g}<extra></extra>",
    )
    return figure
