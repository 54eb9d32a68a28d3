"""A forest of signals: each model's figure with its interval, and the pooled one."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.dots import dots
from mechvrp.plots.theme import COLOURS, label, look

__all__ = ["signals_by_model"]

_TITLES = {
    "R": ("point-biserial R of the signal with a right answer", 0.0),
    "AUROC": ("AUROC of the signal for a right answer", 0.5),
}
_POOLED = "pooled, stratified"


def signals_by_model(
    rows: pd.DataFrame, pooled: pd.DataFrame | None = None, *, measure: str = "R"
) -> go.Figure:
    """Signals against correctness, the models beside each other, with the pooled figure as a diamond.

    Args:
        rows: a row per signal and model: name, model, value, low, high, n, uses_label.
        pooled: a row per signal: name, value, low, high, n; None where nothing was pooled.
        measure: ``"R"`` or ``"AUROC"``.

    Raises:
        InputError: no rows, or another measure.
    """
    if measure not in _TITLES:
        raise InputError(f"measure is one of {sorted(_TITLES)}, got {measure!r}")
    drawn = rows[rows["value"].notna()]
    if drawn.empty:
        raise InputError("no signal has a number to draw")
    names = list(dict.fromkeys(drawn["name"]))
    models = list(dict.fromkeys(drawn["model"]))
    labelled = set(drawn.loc[drawn["uses_label"].astype(bool), "name"])
    series = [(model, label(model), *look(i)) for i, model in enumerate(models)]
    frame = drawn[["name", "model", "value", "low", "high", "n"]]
    if pooled is not None and pooled["value"].notna().any():
        key = "\0pooled"  # no model is called so
        both = pooled[pooled["name"].isin(names)].assign(model=key)
        frame = pd.concat([frame, both[frame.columns]], ignore_index=True)
        series.append((key, _POOLED, "grey", "diamond-wide"))
    figure = dots(
        frame,
        names,
        [label(f"({name})" if name in labelled else name) for name in names],
        series=series,
        columns=("name", "model", "value"),
        scale=1,
    )
    title, null = _TITLES[measure]
    none = "0: none" if measure == "R" else "0.5: chance"
    figure.update_layout(
        xaxis_title=f"{title}<br>bars: 95 % interval; {none}",
        height=160 + (22 + 12 * len(series)) * len(names),
    )
    figure.update_traces(marker_size=14, selector={"name": _POOLED})
    figure.add_vline(x=null, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    return figure
