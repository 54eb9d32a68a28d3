"""What interventions do to accuracy, models beside each other."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import (
    COLOURS,
    bars,
    base_figure,
    interval_bars,
    label,
    look,
    plain_count,
    reference,
    wrapped,
)

__all__ = ["changes_by_model"]


_COLUMNS = (
    "name", "model", "change", "change_low", "change_high", "control_change", "control_low", "control_high",
    "n",
)  # fmt: skip


def changes_by_model(rows: pd.DataFrame) -> go.Figure:
    """Change of accuracy by intervention and model (filled), each beside its control (open).

    Args:
        rows: a row per intervention and model: name, model, change, change_low, change_high, control_change,
            control_low, control_high, n; in percentage points.

    Returns:
        Two dots with their intervals per intervention and model.

    Raises:
        InputError: no such table, or no number in it.
    """
    checked_rows(rows, _COLUMNS, "interventions", value="change")
    names = list(dict.fromkeys(rows["name"]))
    models = list(dict.fromkeys(rows["model"]))
    count = 2 * len(models)
    ticks = [wrapped(name, 26) for name in names]
    lines = 1 + max(tick.count("<br>") for tick in ticks)
    figure = base_figure(
        f"change of accuracy,<br>percentage points<br>{plain_count(rows[['n']])}"
        f"{bars(rows[['change_low', 'change_high']])}<br>open: its control",
        "",
        height=210 + max(20 + 13 * count, 18 * lines) * len(names),
    )
    reference(figure, x=0)
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
        ticktext=ticks,
        tickfont={"size": 12},
        range=[len(names) - 0.5, -0.5],
        ticks="",
        showgrid=False,
    )
    return figure
