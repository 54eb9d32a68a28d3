"""What interventions do to accuracy, models beside each other."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, label, look

__all__ = ["changes_by_model"]


def changes_by_model(rows: pd.DataFrame) -> go.Figure:
    """Change of accuracy by intervention and model (filled), each beside its control (open).

    Args:
        rows: a row per intervention and model: name, model, change, change_low, change_high, control_change,
            control_low, control_high, n; in percentage points.

    Raises:
        InputError: no rows.
    """
    if rows.empty:
        raise InputError("no interventions to draw")
    names = list(dict.fromkeys(rows["name"]))
    models = list(dict.fromkeys(rows["model"]))
    count = 2 * len(models)
    figure = base_figure(
        "change of accuracy, percentage points<br>bars: 95 % interval; open: its control",
        "",
        height=150 + (20 + 13 * count) * len(names),
    )
    figure.add_vline(x=0, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    for i, model in enumerate(models):
        colour, symbol = look(i)
        own = rows[rows["model"] == model]
        for j, (value, low, high, words) in enumerate(
            (
                ("change", "change_low", "change_high", ""),
                ("control_change", "control_low", "control_high", ", control"),
            )
        ):
            offset = 0.8 / count * (2 * i + j - (count - 1) / 2)
            figure.add_scatter(
                x=own[value],
                y=[names.index(name) + offset for name in own["name"]],
                error_x=interval_bars(own, value, low, high),
                mode="markers",
                name=label(model) + words,
                legendgroup=str(i),
                marker={
                    "color": COLOURS[colour],
                    "symbol": symbol if not words else f"{symbol}-open",
                    "size": 10,
                },
                customdata=[
                    [label(name), least, most, n]
                    for name, least, most, n in zip(
                        own["name"], own[low], own[high], own["n"], strict=True
                    )
                ],
                hovertemplate="%{customdata[0]}: %{x:.1f} pp "
                "[%{customdata[1]:.1f}, %{customdata[2]:.1f}], n = %{customdata[3]}<extra></extra>",
            )
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[label(name) for name in names],
        range=[len(names) - 0.5, -0.5],
        ticks="",
        showgrid=False,
    )
    return figure
