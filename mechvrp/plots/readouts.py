"""Figure of readouts of correctness beside each other."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

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
    plain_count,
    reference,
    wrapped,
)

__all__ = ["readout_aurocs", "readout_layers"]

_COLUMNS = ("name", "layer", "auroc", "low", "high", "n", "n_groups")
_SCOPES = (
    ("all", "over all examples", "blue", "circle"),
    ("within tasks", "within tasks", "orange", "diamond"),
)


def readout_aurocs(rows: pd.DataFrame) -> go.Figure:
    """AUROC of each readout on held-out images, over all examples and within tasks, with intervals.

    Args:
        rows: a row per readout: name, layer, auroc, low, high, within, within_low, within_high, n, n_groups.

    Returns:
        One dot with its interval per readout and scope; scopes without a number are left out.

    Raises:
        InputError: no such table, or no readout has an AUROC.
    """
    within = ("within", "within_low", "within_high")
    rows = checked_rows(rows, (*_COLUMNS, *within), "readouts", value="auroc")
    known = rows[rows["auroc"].notna()]
    columns = dict(zip(within, ("auroc", "low", "high"), strict=True))
    inside = known.drop(columns=list(columns.values())).rename(columns=columns)
    frame = pd.concat([known.assign(scope="all"), inside.assign(scope="within tasks")])
    scopes = [s for s in _SCOPES if frame.loc[frame["scope"] == s[0], "auroc"].notna().any()]
    layers = known.set_index("name")["layer"]
    ticks = [
        wrapped(name) if pd.isna(layer) else f"{wrapped(name)}<br>layer {int(layer)}"
        for name, layer in layers.items()
    ]
    figure = dots(
        frame,
        list(known["name"]),
        ticks,
        series=list(scopes),
        columns=("name", "scope", "auroc"),
        scale=1,
    )
    figure.update_layout(
        xaxis_title=f"AUROC, held-out images<br>{plain_count(known)}"
        f"{bars(known[['low', 'high']])}<br>0.5: chance"
    )
    reference(figure, x=0.5)
    if len(scopes) == 1:
        figure.update_layout(showlegend=False, margin={"t": 20})
    return figure


def readout_layers(rows: pd.DataFrame) -> go.Figure:
    """Held-out AUROC of each readout at every layer it was fitted at, with intervals.

    Args:
        rows: a row per readout and layer: name, layer, chosen, auroc, low, high, n, n_groups.

    Returns:
        A line per readout with bars for its interval, the chosen layer filled; chance (0.5) as a line.

    Raises:
        InputError: no such table, or no layer of any readout has an AUROC.
    """
    rows = checked_rows(rows, (*_COLUMNS, "chosen"), "readouts", value="auroc")
    known = rows[rows["auroc"].notna()]
    curves = known["name"].nunique()
    figure = base_figure(
        f"layer (residual stream after the block){moved(curves)}",
        f"AUROC, held-out images<br>{plain_count(known)}{bars(known[['low', 'high']])}",
        height=460,
    )
    reference(figure, y=0.5)
    for i, (name, found) in enumerate(known.groupby("name", sort=False)):
        colour, symbol = look(i)
        marks = [symbol if chosen else f"{symbol}-open" for chosen in found["chosen"].astype(bool)]
        figure.add_scatter(
            x=found["layer"] + apart(i, curves, 0.06),
            y=found["auroc"],
            error_y=interval_bars(found, "auroc", "low", "high"),
            mode="lines+markers",
            name=label(str(name)),
            line={"color": COLOURS[colour], "width": 2},
            marker={"symbol": marks, "size": 10, "line": {"width": 2, "color": COLOURS[colour]}},
            customdata=found[["layer", "low", "high"]].to_numpy().tolist(),
            hovertemplate=f"{label(str(name))}, layer %{{customdata[0]:.0f}}: AUROC %{{y:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
        )
    figure.update_yaxes(range=[min(0.45, float(known["low"].min()) - 0.03), 1.02])
    if known["layer"].nunique() <= 36:
        figure.update_xaxes(dtick=1)
    return figure
