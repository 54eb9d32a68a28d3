"""A forest of signals: each model's figure with its interval, and the pooled one."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.dots import dots
from mechvrp.plots.theme import bars, label, look, plain_count, reference, wrapped

__all__ = ["signals_by_model"]

_TITLES = {
    "R": ("point-biserial R<br>with a right answer", 0.0),
    "AUROC": ("AUROC for a right answer", 0.5),
}
_COLUMNS = ("name", "model", "value", "low", "high", "n", "uses_label")
_POOLED_COLUMNS = ("name", "value", "low", "high", "n")
_POOLED = "pooled, stratified"


def signals_by_model(
    rows: pd.DataFrame, pooled: pd.DataFrame | None = None, *, measure: str = "R"
) -> go.Figure:
    """Signals against correctness, the models beside each other, with the pooled figure as a diamond.

    Args:
        rows: a row per signal and model: name, model, value, low, high, n, uses_label.
        pooled: a row per signal: name, value, low, high, n; None where nothing was pooled.
        measure: ``"R"`` or ``"AUROC"``.

    Returns:
        One dot with its interval per signal and model, the names of signals that use the label in brackets.

    Raises:
        InputError: no such table, no number in it, or another measure.
    """
    if measure not in _TITLES:
        raise InputError(f"measure is one of {sorted(_TITLES)}, got {measure!r}")
    rows = checked_rows(rows, _COLUMNS, "signals", value="value")
    drawn = rows[rows["value"].notna()]
    names = list(dict.fromkeys(drawn["name"]))
    models = list(dict.fromkeys(drawn["model"]))
    labelled = set(drawn.loc[drawn["uses_label"].astype(bool), "name"])
    series = [(model, label(model), *look(i)) for i, model in enumerate(models)]
    frame = drawn[["name", "model", "value", "low", "high", "n"]]
    if isinstance(pooled, pd.DataFrame) and pooled.empty:
        pooled = None
    if pooled is not None:
        pooled = checked_rows(pooled, _POOLED_COLUMNS, "pooled signals")
    if pooled is not None and pooled["value"].notna().any():
        key = "\0pooled"  # no model is called so
        both = pooled[pooled["name"].isin(names)].assign(model=key)
        frame = pd.concat([frame, both[frame.columns]], ignore_index=True)
        series.append((key, _POOLED, "grey", "diamond-wide"))
    figure = dots(
        frame,
        names,
        [wrapped(f"({name})" if name in labelled else name) for name in names],
        series=series,
        columns=("name", "model", "value"),
        scale=1,
    )
    title, null = _TITLES[measure]
    none = "0: none" if measure == "R" else "0.5: chance"
    figure.update_layout(
        xaxis_title=f"{title}<br>{plain_count(drawn[['n']])}{bars(frame[['low', 'high']])}<br>{none}",
        height=190 + (22 + 12 * len(series)) * len(names),
    )
    figure.update_traces(marker_size=14, selector={"name": _POOLED})
    reference(figure, x=null)
    return figure
