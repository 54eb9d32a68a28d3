"""Signals against what they cost."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.errors import InputError
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

__all__ = ["auroc_against_cost"]

_GAP = 0.9  # of a signal's height
_COLUMNS = ("signal", "model", "cost_forwards", "auroc", "low", "high", "n")


def auroc_against_cost(rows: pd.DataFrame) -> go.Figure:
    """AUROC by cost in forwards an example: from above dearer, within a cost from low to high AUROC.

    Args:
        rows: a row per signal and model: signal, model, cost_forwards, auroc, low, high, n.

    Returns:
        One dot with its interval per signal and model, signals of one cost on a shade of their own.

    Raises:
        InputError: no such table, no signal has an AUROC, or one that has lacks its cost.
    """
    rows = checked_rows(rows, _COLUMNS, "signals", value="auroc")
    drawn = rows[rows["auroc"].notna()]
    if (without := drawn["cost_forwards"].isna()).any():
        names = ", ".join(dict.fromkeys(map(str, drawn.loc[without, "signal"])))
        raise InputError(
            f"cost_forwards is missing for {names}; give the further forwards an example, 0 for none"
        )
    means = (
        drawn.groupby("signal", sort=False)
        .agg(cost=("cost_forwards", "max"), mean=("auroc", "mean"))
        .sort_values(["cost", "mean"], kind="stable")
    )
    # A gap in front of each cost, for its words.
    costs = sorted(set(means["cost"]))
    places = {
        str(name): i + _GAP * costs.index(cost)
        for i, (name, cost) in enumerate(means["cost"].items())
    }
    models = list(dict.fromkeys(drawn["model"]))
    figure = base_figure(
        f"AUROC for a right answer<br>{plain_count(drawn[['n']])}{bars(drawn[['low', 'high']])}<br>0.5: chance",
        "",
        height=190 + (16 + 12 * len(models)) * len(places),
    )
    reference(figure, x=0.5)
    for i, model in enumerate(models):
        colour, symbol = look(i)
        own = drawn[drawn["model"] == model]
        offset = 0.7 / len(models) * (i - (len(models) - 1) / 2)
        figure.add_scatter(
            x=own["auroc"],
            y=[places[name] + offset for name in own["signal"]],
            error_x=interval_bars(own, "auroc", "low", "high"),
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
            hovertemplate="%{customdata[0]}, %{customdata[1]} further forwards: %{x:.3f} "
            "[%{customdata[2]:.3f}, %{customdata[3]:.3f}], n = %{customdata[4]}<extra></extra>",
        )
    for shade, cost in enumerate(costs):
        inside = [places[str(name)] for name, value in means["cost"].items() if value == cost]
        figure.add_hrect(
            y0=inside[0] - 0.5,
            y1=inside[-1] + 0.5,
            fillcolor=f"rgba(128,128,128,{0.12 if shade % 2 else 0.04})",
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=inside[0] - 0.5, yanchor="bottom", showarrow=False,
            font={"size": 12}, text=f"{cost:g} further forwards",
        )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[wrapped(name.replace("_", " ")) for name in places],
        tickfont={"size": 12},
        ticks="",
        range=[max(places.values()) + 0.6, -0.5 - _GAP],
        showgrid=False,
    )
    return figure
