"""Figure of readouts of correctness beside each other."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.dots import dots
from mechvrp.plots.theme import COLOURS, label

__all__ = ["readout_aurocs"]

_SCOPES = (
    ("all", "over all examples", "blue", "circle"),
    ("within tasks", "within tasks", "orange", "diamond"),
)


def readout_aurocs(rows: pd.DataFrame) -> go.Figure:
    """AUROC of each readout on held-out images, over all examples and within tasks, with intervals.

    Args:
        rows: a row per readout: name, layer, auroc, low, high, within, within_low, within_high, n.

    Raises:
        InputError: no readout has an AUROC.
    """
    known = rows[rows["auroc"].notna()]
    if known.empty:
        raise InputError("no readout has an AUROC: there is nothing to draw")
    columns = {"within": "auroc", "within_low": "low", "within_high": "high"}
    within = known.drop(columns=list(columns.values())).rename(columns=columns)
    frame = pd.concat([known.assign(scope="all"), within.assign(scope="within tasks")])
    scopes = [s for s in _SCOPES if frame.loc[frame["scope"] == s[0], "auroc"].notna().any()]
    layers = known.set_index("name")["layer"]
    ticks = [
        label(name) if pd.isna(layer) else f"{label(name)}<br>layer {int(layer)}"
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
    n, images = int(known["n"].max()), int(known["n_groups"].max())
    figure.update_layout(
        xaxis_title=f"AUROC, {n} held-out examples of {images} images<br>bars: 95 % interval; 0.5: chance"
    )
    figure.add_vline(x=0.5, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    if len(scopes) == 1:
        figure.update_layout(showlegend=False, margin={"t": 20})
    return figure
