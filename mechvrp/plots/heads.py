"""Figures of heads that move image information, and of what cutting them does."""

from __future__ import annotations

import plotly.graph_objects as go

from mechvrp.circuits import HeadKnockout, HeadReading
from mechvrp.errors import InputError
from mechvrp.plots.labels import label_points
from mechvrp.plots.theme import (
    COLOURS,
    bars,
    base_figure,
    interval_bars,
    look,
    plain_count,
    reference,
    ribbon,
    wrapped,
)

__all__ = ["head_knockout_curve", "head_scores"]

_ENDS = ("low", "high")
_SIGNS = {"for": " that speak for the answer,", "against": " that speak against it,", "any": ""}


def head_scores(reading: HeadReading) -> go.Figure:
    """Every head's attention mass against its direct logit attribution, a colour per layer.

    Args:
        reading: of `read_heads`; the mass is on its ``over``. The upper right moves information that speaks
            for the answer, the lower right against it.

    Returns:
        A marker per head with the intervals of both; layer and number are written beside the four that move
        most (product of the two). Hovering tells all three with their intervals.

    Raises:
        InputError: another result.
    """
    if not isinstance(reading, HeadReading):
        raise InputError(f"expected a HeadReading (from read_heads); got {type(reading).__name__}")
    frame = reading.to_frame()
    mass = f"{reading.over}_attention"
    answer = {"own": "own answer minus runner-up", "right": "right answer minus rival"}[reading.of]
    figure = base_figure(
        f"attention of the last position to the {reading.over},<br>share<br>{plain_count(frame)}"
        f"{bars(frame[['attribution_low', 'attribution_high']])}",
        f"direct logit attribution, logits<br>({answer})",
        height=460,
    )
    reference(figure, y=0)
    told = [
        f"{mass}_low", f"{mass}_high", "attribution_low", "attribution_high", "product", "product_low",
        "product_high",
    ]  # fmt: skip
    for i, (layer, rows) in enumerate(frame.sort_values("layer").groupby("layer")):
        colour, symbol = look(i)
        figure.add_scatter(
            x=rows[mass],
            y=rows["attribution"],
            error_y=interval_bars(rows, "attribution", "attribution_low", "attribution_high"),
            error_x=interval_bars(rows, mass, f"{mass}_low", f"{mass}_high"),
            mode="markers",
            name=f"layer {layer}",
            marker={"color": COLOURS[colour], "symbol": symbol, "size": 9},
            customdata=rows[["head", *told]].to_numpy().tolist(),
            hovertemplate=f"layer {layer}, head %{{customdata[0]:.0f}}"
            "<br>attention %{x:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
            "<br>attribution %{y:.3f} [%{customdata[3]:.3f}, %{customdata[4]:.3f}]"
            "<br>product %{customdata[5]:.3f} [%{customdata[6]:.3f}, %{customdata[7]:.3f}]<extra></extra>",
        )
    columns = {mass: "x", "attribution": "y"}
    columns |= {f"{old}_{end}": f"{new}_{end}" for old, new in columns.items() for end in _ENDS}
    named = frame["layer"].astype(str) + "." + frame["head"].astype(str)
    words = named.where(frame["rank"] < 4, "")
    label_points(figure, frame.rename(columns=columns).assign(text=words).sort_values("rank"))
    return figure


def head_knockout_curve(found: HeadKnockout) -> go.Figure:
    """Change of the logit difference when the top k heads no longer see the image, beside random heads.

    Args:
        found: of `knock_out_heads`.

    Returns:
        The top k with bars for their interval; random heads as a dashed line with the band of their mean's
        interval. Hovering tells the heads and their rank among random ones.

    Raises:
        InputError: another result.
    """
    if not isinstance(found, HeadKnockout):
        raise InputError(
            f"expected a HeadKnockout (from knock_out_heads); got {type(found).__name__}"
        )
    frame = found.to_frame()
    figure = base_figure(
        "k heads that no longer see the image<br>from the last position"
        f"{bars(frame[['change_low', 'change_high']], what='bars and band')}",
        f"change of the logit difference,<br>logits<br>{plain_count(frame)}",
        height=440,
    )
    reference(figure, y=0)
    ks = [str(k) for k in frame["k"]]
    ranks = [
        f"no rank: {gap}" if gap else f"rank p = {p:.3g} ({found.tail})"
        for p, gap in zip(frame["p"], frame["gap"], strict=True)
    ]
    for name, words, colour, dash in (
        ("control", "as many random heads of the same layers: mean", "orange", "dash"),
        ("change", f"top k{_SIGNS[found.sign]} by {found.method}", "blue", None),
    ):
        if frame[name].isna().all():  # no other set to compare with, at any k
            continue
        if dash:
            low, high = frame[f"{name}_low"], frame[f"{name}_high"]
            ribbon(figure, ks, low, high, colour=COLOURS[colour], name="random heads")
            figure.data[-1].showlegend = False
        figure.add_scatter(
            x=ks,
            y=frame[name],
            error_y=None if dash else interval_bars(frame, name, f"{name}_low", f"{name}_high"),
            mode="lines+markers",
            name=wrapped(words, 34),
            line={"color": COLOURS[colour], "width": 2, "dash": dash},
            marker={"size": 9},
            customdata=frame[["heads", f"{name}_low", f"{name}_high"]]
            .assign(p=ranks)
            .to_numpy()
            .tolist(),
            hovertemplate="k = %{x}: %{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
            "<br>top heads %{customdata[0]}, %{customdata[3]}<extra></extra>",
        )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=ks)
    return figure
