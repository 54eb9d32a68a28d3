"""Signals against what they cost."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, label, look

__all__ = ["auroc_against_cost"]


def auroc_against_cost(rows: pd.DataFrame) -> go.Figure:
    """AUROC by cost in forwards an example: from left to right dearer, within a cost from low to high AUROC.

    Args:
        rows: a row per signal and model: signal, model, cost_forwards, auroc, low, high, n.

    Raises:
        InputError: no signal has an AUROC.
    """
    drawn = rows[rows["auroc"].notna()]
    if drawn.empty:
        raise InputError("no signal has an AUROC to draw")
    means = (
        drawn.groupby("signal", sort=False)
        .agg(cost=("cost_forwards", "max"), mean=("auroc", "mean"))
        .sort_values(["cost", "mean"], kind="stable")
    )
    places = {str(name): i for i, name in enumerate(means.index)}
    figure = base_figure("", "AUROC for a right answer<br>bars: 95 % interval", height=560)
    figure.add_hline(y=0.5, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    models = list(dict.fromkeys(drawn["model"]))
    for i, model in enumerate(models):
        colour, symbol = look(i)
        own = drawn[drawn["model"] == model]
        offset = 0.7 / len(models) * (i - (len(models) - 1) / 2)
        figure.add_scatter(
            x=[places[name] + offset for name in own["signal"]],
            y=own["auroc"],
            error_y=interval_bars(own, "auroc", "low", "high"),
            mode="markers",
            name=label(model),
            marker={"color": COLOURS[colour], "symbol": symbol, "size": 9},
            customdata=[
                [label(name), cost, low, high, n]
                for name, cost, low, high, n in zip(
                    own["signal"],
                    own["cost_forwards"],
                    own["low"],
                    own["high"],
                    own["n"],
                    strict=True,
                )
            ],
            hovertemplate="%{customdata[0]}, %{customdata[1]} further forwards: %{y:.3f} "
            "[%{customdata[2]:.3f}, %{customdata[3]:.3f}], n = %{customdata[4]}<extra></extra>",
        )
    for shade, cost in enumerate(sorted(set(means["cost"]))):
        inside = [i for i, value in enumerate(means["cost"]) if value == cost]
        figure.add_vrect(
            x0=inside[0] - 0.5,
            x1=inside[-1] + 0.5,
            fillcolor=f"rgba(128,128,128,{0.12 if shade % 2 else 0.04})",
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=(inside[0] + inside[-1]) / 2,
            y=0,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"{cost:g} further<br>forwards",
        )
    # Room below the lowest bar for the words of the costs.
    lowest, highest = float(drawn["low"].min()), float(drawn["high"].max())
    room = 0.15 * (highest - lowest)
    figure.update_yaxes(range=[min(lowest, 0.5) - room, highest + 0.03])
    figure.update_xaxes(
        tickvals=list(places.values()),
        ticktext=[label(name.replace("_", " ")) for name in places],
        tickangle=-50,
        range=[-0.6, len(places) - 0.4],
        showgrid=False,
    )
    return figure
